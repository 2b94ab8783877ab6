"""From JAX: functions, Flax NNX modules and Flax Linen modules with their variables, through jax2onnx."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx

from fgonnx.errors import InputError
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
    exporting,
    needs,
    paired,
)
from .options import Conversion, ConversionOptions
from .report import ConversionReport

with needs("jax", "JAX with Flax and jax2onnx"):
    import flax.linen
    import jax
    import jax.numpy as jnp
    import jax2onnx
    from flax import nnx

OPSET = 21
_NORMS = (flax.linen.BatchNorm, nnx.BatchNorm)
_TRANSPOSED = (flax.linen.ConvTranspose, nnx.ConvTranspose)
_SITES = (flax.linen.Conv, nnx.Conv, *_NORMS, *_TRANSPOSED)


def convert(
    model: Any,
    path: str | Path,
    *,
    example_input: Any = None,
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a JAX network and prove the result.

    Parameters
    ----------
    model : callable, flax.nnx.Module, or (flax.linen.Module, variables)
        A function of arrays, in evaluation mode.
    path : path-like
        The .onnx file to write.
    example_input : array, or tuple of arrays
        Inputs with a batch axis.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport
        The FullGrad map is compared for convolutions of Flax.

    Raises
    ------
    FgonnxError
        If the source is not a network, does not accept the example, or cannot be exported.
    """
    conversion = Conversion(**options)
    if isinstance(model, str | Path):
        raise InputError("JAX has no file format of its own for networks: pass the function or module from Python")
    kind, call = _callable(model)
    if example_input is None:
        raise InputError(f"JAX does not say what a function takes: give {parameter('example_input')}")
    example = as_inputs(example_input)
    run = _runner(call)
    check_example(run, example)
    proto = _export(call, example, conversion.opset or OPSET)
    linearise = _lineariser(call, kind != "function")
    notes = (
        () if kind != "function" else ("the FullGrad map is not compared: a plain function does not show its layers",)
    )
    network = Network("jax", kind, "jax2onnx", run, linearise, packages=("jax", "flax", "jax2onnx"), notes=notes)
    return finish(proto, network, path, example, conversion)


def _callable(model: Any) -> tuple[str, Callable[..., Any]]:
    """Return the kind of a source, and the source as a function of arrays.

    Raises
    ------
    InputError
        If it is of no supported kind.
    """
    if isinstance(model, nnx.Module):
        model.eval()
        return f"nnx.Module {type(model).__name__}", model
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], flax.linen.Module):
        module, variables = model
        return f"linen.Module {type(module).__name__}", lambda *x: module.apply(variables, *x)
    if isinstance(model, flax.linen.Module):
        raise InputError(f"a linen module holds no weights: give (module, variables), not {type(model).__name__} alone")
    if not callable(model):
        raise InputError(
            f"a function, an nnx.Module or (linen.Module, variables) is needed, not {type(model).__name__}"
        )
    return "function", model


def _export(call: Callable[..., Any], example: Inputs, opset: int) -> onnx.ModelProto:
    specs = [jax.ShapeDtypeStruct((jax.export.symbolic_shape("N")[0], *a.shape[1:]), a.dtype) for a in example]
    with exporting("jax2onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: onnx.ModelProto = jax2onnx.to_onnx(call, specs, opset=opset)
    return found


# the source as the reference


def _runner(call: Callable[..., Any]) -> Callable[[Inputs], list[Array]]:
    return lambda inputs: [np.asarray(y) for y in jax.tree.leaves(call(*map(jnp.asarray, inputs)))]


class _Recorder:
    """Record the calls of Flax' convolutions and BatchNorms, and add given offsets to their outputs.

    The gradient with respect to such an offset is the cotangent of the output.
    """

    def __init__(self, offsets: Sequence[Any] | None = None) -> None:
        self.found: list[Site] = []
        self.offsets = offsets
        self._at_zero = False

    def _record(
        self, layer: Any, call: Callable[..., Any], at: Callable[..., Any], x: Any, *rest: Any, **named: Any
    ) -> Any:
        y, bias = call(x, *rest, **named), at(jnp.zeros_like(x), *rest, **named)
        if self.offsets is not None:
            y = y + self.offsets[len(self.found)]
        self.found.append(Site(layer, x, y, bias))
        return y

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record while the block runs."""

        def linen(next_call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            layer = context.module
            if not isinstance(layer, _SITES) or self._at_zero:
                return next_call(*args, **kwargs)

            def again(*a: Any, **k: Any) -> Any:  # a bound module may be called once; a copy without a parent is free
                self._at_zero = True
                try:
                    return layer.clone(parent=None, name=None).apply(layer.variables, *a, **k)
                finally:
                    self._at_zero = False

            return self._record(layer, next_call, again, *args, **kwargs)

        originals = {c: inspect.getattr_static(c, "__call__") for c in _SITES if issubclass(c, nnx.Module)}
        for c, original in originals.items():
            c.__call__ = _bound(self._record, original)
        try:
            with flax.linen.intercept_methods(linen):
                yield
        finally:
            for c, original in originals.items():
                c.__call__ = original


def _bound(record: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        def same(*a: Any, **k: Any) -> Any:
            return original(layer, *a, **k)

        return record(layer, same, same, *args, **kwargs)

    return call


def _lineariser(call: Callable[..., Any], shows_layers: bool) -> Callable[[Inputs, Seed], Linearised]:
    def linearise(inputs: Inputs, seed: Seed) -> Linearised:
        arrays = [jnp.asarray(a) for a in inputs]
        first = _Recorder()
        with first.listening():
            call(*arrays)

        def score(x: Any, offsets: Sequence[Any]) -> Any:
            with _Recorder(offsets).listening():
                outputs = jax.tree.leaves(call(*(x if i == seed.input else a for i, a in enumerate(arrays))))
            return seed.scores(outputs[seed.output], jnp.log, seed.weights).sum()

        none = [jnp.zeros_like(site.output) for site in first.found]
        gradient, cotangents = jax.grad(score, argnums=(0, 1))(arrays[seed.input], none)
        return Linearised(np.asarray(gradient), _blocks(first.found, cotangents) if shows_layers else None)

    return linearise


def _blocks(sites: Sequence[Site], cotangents: Sequence[Any]) -> tuple[Block, ...]:
    return paired(
        (
            s.source,
            s.output,
            np.moveaxis(np.asarray(g * s.bias), -1, 1),
            isinstance(s.layer, _NORMS),
            isinstance(s.layer, _TRANSPOSED),
        )
        for s, g in zip(sites, cotangents, strict=True)
        if s.output.ndim > 2
    )
