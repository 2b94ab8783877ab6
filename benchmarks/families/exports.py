"""Networks built, prepared and exported by torch (both exporters) and by tf2onnx."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.families.networks import Family
from benchmarks.families.realistic import pictures, realistic, realistic_keras

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """An exported network with its inputs.

    Attributes
    ----------
    model : onnx.ModelProto
        The export.
    x : numpy array
        Inputs in the model's layout.
    gradient : callable
        `gradient(targets, dtype)`: the framework's own input-gradient, dtype "float32" or "float64".
    as_is : callable, optional
        Exports again, with nothing folded.
    """

    model: onnx.ModelProto
    x: Array
    gradient: Callable[[Array, str], Array]
    as_is: Callable[[], onnx.ModelProto] | None = None


def declare_torchvision_operators() -> Any:
    """Let torchvision be imported without its compiled part, which its definitions of networks do not need.

    Its wheels are built for CUDA or fit another torch; the import only fails because two operators are not declared.
    The library returned must be kept alive.
    """
    import torch

    with contextlib.suppress(Exception):
        import torchvision  # noqa: F401

        return None
    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def torch_case(family: Family, exporter: str, opset: int) -> Case:
    """Build, prepare and export a torch network."""
    import torch

    keep = declare_torchvision_operators()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    net = family.build().eval()
    if family.package != "own":
        with torch.no_grad():
            realistic(net, pictures(8, family.shape[1:], seed=1))
    x = pictures(family.shape[0], family.shape[1:])

    def gradient(targets: Array, dtype: str) -> Array:
        twin = net.to(getattr(torch, dtype))
        leaf = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
        rows = twin(leaf).flatten(1)
        (found,) = torch.autograd.grad(rows[torch.arange(len(x)), torch.from_numpy(targets)].sum(), leaf)
        net.to(torch.float32)
        return np.asarray(found.numpy(), np.float64)

    model = _torch_export(net, x, exporter, opset)
    del keep
    return Case(model, x, gradient, lambda: _torch_export(net, x, "torchscript", 17, folded=False))


def _torch_export(net: Any, x: Array, exporter: str, opset: int, *, folded: bool = True) -> onnx.ModelProto:
    """Export with a free batch; `folded=False` keeps BatchNormalization (torchscript only)."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return _torch_exported(net, x, exporter, opset, folded)


def _torch_exported(net: Any, x: Array, exporter: str, opset: int, folded: bool) -> onnx.ModelProto:
    import torch

    example, names = (torch.from_numpy(x),), {"input_names": ["x"], "output_names": ["logits"]}
    if exporter == "torchscript":
        buffer = io.BytesIO()
        torch.onnx.export(
            net,
            example,
            buffer,
            dynamo=False,
            opset_version=opset,  # type: ignore[arg-type]
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            do_constant_folding=folded,
            training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
            **names,
        )
        return onnx.load_from_string(buffer.getvalue())
    program = torch.onnx.export(
        net,
        example,
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
        **names,
    )
    assert program is not None
    return program.model_proto


def keras_case(family: Family, opset: int) -> Case:
    """Build, prepare and export a keras network through tf2onnx."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(0)
    _, h, w, channels = family.shape
    net = family.build(family.shape)  # type: ignore[call-arg]
    x = pictures(family.shape[0], (channels, h, w)).transpose(0, 2, 3, 1).copy()
    realistic_keras(net, pictures(16, (channels, h, w), seed=1).transpose(0, 2, 3, 1))
    twins = {"float32": net}

    def gradient(targets: Array, dtype: str) -> Array:
        if dtype not in twins:
            keras.config.set_dtype_policy(dtype)
            twins[dtype] = family.build(family.shape)  # type: ignore[call-arg]
            twins[dtype].set_weights(net.get_weights())
            keras.config.set_dtype_policy("float32")
        leaf = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(leaf)
            score = tf.reduce_sum(tf.gather(twins[dtype](leaf, training=False), targets, axis=1, batch_dims=1))
        return np.asarray(tape.gradient(score, leaf), np.float64)

    spec = [tf.TensorSpec((None, h, w, channels), tf.float32, name="x")]
    call = tf.function(lambda x: net(x, training=False), input_signature=spec)
    model, _ = tf2onnx.convert.from_function(call, input_signature=spec, opset=opset)
    _bind_captures(model, call.get_concrete_function())
    return Case(model, x, gradient)


def _bind_captures(model: onnx.ModelProto, function: Any) -> None:
    """Make initializers of the constants (means of a Normalization layer) that tf2onnx leaves as inputs."""
    values = {inner.name: outer for outer, inner in function.graph.captures}
    for graph_input in [i for i in model.graph.input if i.name in values]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(values[graph_input.name].numpy(), graph_input.name))
        model.graph.input.remove(graph_input)
