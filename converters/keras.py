"""From Keras 3: models and .keras or .h5 files, through tf2onnx or Keras' own ONNX export."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import onnx

from fgonnx.errors import InputError, ModelError, OptionError
from fgonnx.fields import check_choice

from . import tensorflow as by_tensorflow
from .detect import code_in, code_of
from .finish import finish
from .network import Array, Block, Inputs, Linearised, Network, Seed, Site, exporting, needs, paired, reason
from .options import Conversion, ConversionOptions
from .report import ConversionReport

with needs("keras", "Keras 3 with TensorFlow and tf2onnx"):
    import h5py
    import keras
    import tensorflow as tf
    from keras.src.layers.convolutional.base_conv import BaseConv
    from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
    from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
    from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv

Exporter = Literal["tf2onnx", "keras"]
EXPORTERS: tuple[str, ...] = ("tf2onnx", "keras")


def convert(
    model: Any,
    path: str | Path,
    *,
    example_input: Any = None,
    exporter: Exporter = "tf2onnx",
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a Keras network and prove the result.

    Parameters
    ----------
    model : keras.Model or path
        The network, on the TensorFlow backend; or a .keras or .h5 file. Python code in files is not run.
    path : path-like
        The .onnx file to write.
    example_input : array, or tuple of arrays
        Inputs with a batch axis; seeded random ones by default, if the model declares all sizes.
    exporter : {"tf2onnx", "keras"}
        tf2onnx directly, or `keras.Model.export(format="onnx")`.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport

    Raises
    ------
    FgonnxError
        If the file cannot be loaded (custom layers are named), the model is not built, or it cannot be exported.
    """
    conversion = Conversion(**options)
    if keras.backend.backend() != "tensorflow":
        raise OptionError(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow before Keras is imported"
        )
    check_choice("exporter", exporter, EXPORTERS)
    kind = "keras.Model"
    if isinstance(model, str | Path):
        kind, model = f"{Path(model).suffix} file", load(Path(model))
    if not isinstance(model, keras.Model):
        raise InputError(f"a keras.Model is needed, not {type(model).__name__}")
    if not model.built or not getattr(model, "inputs", None):
        raise ModelError(
            f"the model '{model.name}' ({type(model).__name__}) is not built, its input is not known: wrap it, "
            "x = keras.Input(shape); model = keras.Model(x, net(x))"
        )
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    example = by_tensorflow.example_for(specs, example_input)
    free = by_tensorflow.specs_like(specs, example)

    def call(*tensors: Any) -> Any:
        return model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)

    proto = (by_tensorflow.export if exporter == "tf2onnx" else _by_keras(model))(
        call, free, conversion.opset or by_tensorflow.OPSET
    )
    network = Network(
        "keras",
        kind,
        exporter if exporter == "tf2onnx" else "Keras' ONNX export",
        by_tensorflow.runner(call),
        _lineariser(model, call),
        packages=("keras", "tensorflow", "tf2onnx"),
    )
    return finish(proto, network, path, example, conversion)


def load(path: Path) -> Any:
    """Load a .keras or .h5 file; code in it (Lambda layers) is not run.

    Raises
    ------
    ModelError
        If it holds code, or Keras cannot load it; custom layers are named.
    """
    if path.is_file() and (code := code_in(path) or code_of(_description(path))):
        raise ModelError(
            f"'{path}' holds code ({code}), which is not run from a file; load it in Python and pass the model"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds
        custom = _custom_layers(path)
        raise ModelError(
            f"'{path}' cannot be loaded by Keras: "
            + (f"it has custom layers, whose code is not in the file: {', '.join(custom)}" if custom else reason(error))
            + ". Custom and Lambda layers need their Python code: load the file there (custom_objects=) and pass the "
            "model. A file of weights only (save_weights) needs its network: build it, load_weights, and pass it"
        ) from error


def _description(path: Path) -> Any:
    """Return the description of the layers of a file; None where it cannot be read."""
    try:
        if zipfile.is_zipfile(path):
            text = zipfile.ZipFile(path).read("config.json")
        else:
            with h5py.File(path) as file:
                text = file.attrs["model_config"]
        return json.loads(text)
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile):
        return None


def _custom_layers(path: Path) -> list[str]:
    """List the layers of a file whose classes are not part of Keras."""
    found: list[str] = []
    parts = [_description(path)]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            inner = part.get("config")
            if "class_name" in part and isinstance(inner, dict) and "name" in inner:
                module = part.get("module") or ""
                if module.partition(".")[0] != "keras":
                    found.append(f"layer '{inner['name']}' ({part['class_name']})")
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return found


def _by_keras(model: Any) -> Callable[[Any, Sequence[Any], int], onnx.ModelProto]:
    def export(_: Any, specs: Sequence[Any], opset: int) -> onnx.ModelProto:
        with (
            tempfile.TemporaryDirectory() as folder,
            exporting("Keras' ONNX export"),
            by_tensorflow.quiet(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            file = Path(folder, "model.onnx")
            wanted = [keras.InputSpec(shape=tuple(s.shape), dtype=s.dtype.name, name=s.name) for s in specs]
            model.export(file, format="onnx", verbose=False, input_signature=wanted, opset_version=opset)
            return onnx.load(file)

    return export


# the source as the reference


_CONVOLUTIONS = (BaseConv, BaseDepthwiseConv, BaseSeparableConv, BaseConvTranspose)


@contextlib.contextmanager
def _recorded(model: Any) -> Iterator[list[Site]]:
    """Record the calls of convolutions, before their activations, and of BatchNormalizations."""
    sites: list[Site] = []
    layers = [v for v in model._flatten_layers() if isinstance(v, (*_CONVOLUTIONS, keras.layers.BatchNormalization))]

    def recording(layer: Any) -> Callable[..., Any]:
        original = layer.call

        def call(x: Any, *arguments: Any, **named: Any) -> Any:
            activation = getattr(layer, "activation", None)
            object.__setattr__(layer, "activation", None)
            try:
                y, bias = original(x, *arguments, **named), original(tf.zeros_like(x), *arguments, **named)
            finally:
                object.__setattr__(layer, "activation", activation)
            sites.append(Site(layer, x, y, bias))
            return y if activation is None else activation(y)

        return call

    try:
        for layer in layers:
            object.__setattr__(layer, "call", recording(layer))
        yield sites
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def _lineariser(model: Any, call: Callable[..., Any]) -> Callable[[Inputs, Seed], Linearised]:
    def linearise(inputs: Inputs, seed: Seed) -> Linearised:
        tensors = [tf.constant(a) for a in inputs]
        with tf.GradientTape() as tape, _recorded(model) as sites:
            tape.watch(tensors[seed.input])
            y = by_tensorflow.flat(call(*tensors))[seed.output]
            s = tf.reduce_sum(seed.scores(y, tf.math.log, tf.constant(seed.weights)))
        gradient, *cotangents = tape.gradient(s, [tensors[seed.input], *(site.output for site in sites)])
        return Linearised(np.asarray(gradient), _blocks(sites, cotangents))

    return linearise


def _blocks(sites: Sequence[Site], cotangents: Sequence[Any]) -> tuple[Block, ...]:
    return paired(
        (
            s.source,
            s.output,
            _channels_second(np.asarray(g * s.bias), s.layer),
            isinstance(s.layer, keras.layers.BatchNormalization),
            isinstance(s.layer, BaseConvTranspose),
        )
        for s, g in zip(sites, cotangents, strict=True)
        if g is not None and len(s.output.shape) > 2
    )


def _channels_second(a: Array, layer: Any) -> Array:
    axis = getattr(layer, "axis", None)
    last = layer.data_format == "channels_last" if axis is None else axis in (-1, a.ndim - 1)
    return np.moveaxis(a, -1, 1) if last else a
