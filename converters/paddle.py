"""From Paddle: layers and inference models, through paddle2onnx."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx

from fgonnx.errors import InputError, ModelError
from fgonnx.wording import parameter

from .finish import finish
from .network import (
    Array,
    Block,
    Inputs,
    Linearised,
    Network,
    Seed,
    Site,
    as_inputs,
    check_example,
    example_of,
    exporting,
    needs,
    paired,
    reason,
)
from .options import Conversion, ConversionOptions
from .report import ConversionReport

with needs("paddle", "Paddle with paddle2onnx"):
    import paddle
    import paddle2onnx

OPSET = 16
_CONVOLUTIONS = (paddle.nn.Conv1D, paddle.nn.Conv2D, paddle.nn.Conv3D)
_NORMS = (paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D, paddle.nn.BatchNorm3D)
_TRANSPOSED = (paddle.nn.Conv1DTranspose, paddle.nn.Conv2DTranspose, paddle.nn.Conv3DTranspose)


def convert(
    model: Any,
    path: str | Path,
    *,
    example_input: Any = None,
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a Paddle network and prove the result.

    Parameters
    ----------
    model : paddle.nn.Layer or path
        The network, put into eval mode; or an inference model (.pdmodel or .json, its .pdiparams next to it), or the
        folder of one.
    path : path-like
        The .onnx file to write.
    example_input : array, or tuple of arrays
        Inputs with a batch axis; for inference models seeded random ones by default.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport
        An inference model has no autograd: only its outputs are compared.

    Raises
    ------
    FgonnxError
        If the source cannot be loaded, does not take the example, or cannot be exported.
    """
    conversion = Conversion(**options)
    if isinstance(model, str | Path):
        network, proto, example = _from_file(Path(model), example_input, conversion.opset or OPSET)
    else:
        network, proto, example = _from_layer(model, example_input, conversion.opset or OPSET)
    return finish(proto, network, path, example, conversion)


def _from_layer(layer: Any, example_input: Any, opset: int) -> tuple[Network, onnx.ModelProto, Inputs]:
    if not isinstance(layer, paddle.nn.Layer):
        raise InputError(f"a paddle.nn.Layer is needed, not {type(layer).__name__}")
    if example_input is None:
        raise InputError(f"Paddle does not say what a layer takes: give {parameter('example_input')}")
    example = as_inputs(example_input)
    layer.eval()
    run = _runner(layer)
    check_example(run, example)
    specs = [paddle.static.InputSpec([None, *a.shape[1:]], str(a.dtype), f"input_{i}") for i, a in enumerate(example)]
    with tempfile.TemporaryDirectory() as folder, exporting("paddle2onnx"), _quiet():
        prefix = Path(folder, "model")
        paddle.onnx.export(layer, str(prefix), input_spec=specs, opset_version=opset)
        proto = onnx.load(prefix.with_suffix(".onnx"))
    network = Network("paddle", type(layer).__name__, "paddle2onnx", run, _lineariser(layer), packages=_PACKAGES)
    return network, proto, example


def _from_file(path: Path, example_input: Any, opset: int) -> tuple[Network, onnx.ModelProto, Inputs]:
    if path.is_dir():
        path = next(p for p in sorted(path.iterdir()) if p.suffix in (".pdmodel", ".json"))
    weights = path.with_suffix(".pdiparams")
    if not weights.is_file():
        raise ModelError(f"'{path}' holds only the program: its weights '{weights.name}' must lie next to it")
    try:
        program = paddle.jit.load(str(path.with_suffix("")))
    except Exception as error:  # Paddle raises many kinds
        raise ModelError(f"'{path}' cannot be loaded by Paddle: {reason(error)}") from error
    with tempfile.TemporaryDirectory() as folder, exporting("paddle2onnx"), _quiet():
        file = Path(folder, "model.onnx")
        paddle2onnx.export(str(path), str(weights), str(file), opset_version=opset)
        proto = onnx.load(file)
    if example_input is not None:
        example = as_inputs(example_input)
    else:
        types = [v.type.tensor_type for v in proto.graph.input]
        example = tuple(
            example_of([d.dim_value or None for d in t.shape.dim], onnx.helper.tensor_dtype_to_np_dtype(t.elem_type))
            for t in types
        )
    return (
        Network("paddle", "inference model", "paddle2onnx", _runner(program), None, packages=_PACKAGES),
        proto,
        example,
    )


_PACKAGES = ("paddlepaddle", "paddle2onnx")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


# the source as the reference


def _flat(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def _runner(layer: Any) -> Callable[[Inputs], list[Array]]:
    def run(inputs: Inputs) -> list[Array]:
        with paddle.no_grad():
            return [np.asarray(y.numpy()) for y in _flat(layer(*map(paddle.to_tensor, inputs)))]

    return run


def _lineariser(layer: Any) -> Callable[[Inputs, Seed], Linearised]:
    sites = [v for v in layer.sublayers(include_self=True) if isinstance(v, (*_CONVOLUTIONS, *_NORMS, *_TRANSPOSED))]

    def linearise(inputs: Inputs, seed: Seed) -> Linearised:
        tensors = [paddle.to_tensor(a) for a in inputs]
        tensors[seed.input].stop_gradient = False
        found: list[Site] = []

        def record(site: Any, read: Any, y: Any) -> None:
            found.append(Site(site, read[0], y, site.forward(paddle.zeros_like(read[0]))))

        hooks = [site.register_forward_post_hook(record) for site in sites]
        try:
            y = _flat(layer(*tensors))[seed.output]
        finally:
            for hook in hooks:
                hook.remove()
        s = seed.scores(y, paddle.log, paddle.to_tensor(seed.weights)).sum()
        gradient, *cotangents = paddle.grad(
            s, [tensors[seed.input], *(site.output for site in found)], allow_unused=True
        )
        return Linearised(gradient.numpy(), _blocks(found, cotangents))

    return linearise


def _blocks(sites: Sequence[Site], cotangents: Sequence[Any]) -> tuple[Block, ...]:
    return paired(
        (s.source, s.output, (g * s.bias).numpy(), isinstance(s.layer, _NORMS), isinstance(s.layer, _TRANSPOSED))
        for s, g in zip(sites, cotangents, strict=True)
        if g is not None
    )
