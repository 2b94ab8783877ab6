"""Families of networks, exported, rewritten and measured: `python -m benchmarks.families` writes docs/families.md.

Networks come from the definitions of torchvision, timm, transformers and keras with random weights, made to look
trained (see `realistic`); nothing is downloaded. A family is a row of FAMILIES. Every measurement runs in a process of
its own, and finished ones are kept in the folder given by --cache, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

Array = npt.NDArray[Any]

CLASSES = 20
SAMPLES = 2
RESIDUAL = 1e-5
GRADIENT = 1e-4
_TIMEOUT = 900
_PACKAGES = ("fgonnx", "torch", "torchvision", "timm", "transformers", "keras", "tf2onnx", "onnx", "onnxruntime")

Shape = tuple[int, ...]
Export = tuple[str, int]

ONCE: tuple[Export, ...] = (("torchscript", 17), ("dynamo", 18))
SCRIPTED: tuple[Export, ...] = (("torchscript", 17),)
ALL: tuple[Export, ...] = (
    ("torchscript", 13),
    ("torchscript", 17),
    ("torchscript", 18),
    ("torchscript", 20),
    ("dynamo", 18),
    ("dynamo", 20),
    ("dynamo", 23),
)
KERAS: tuple[Export, ...] = (("tf2onnx", 17),)
KERAS_ALL: tuple[Export, ...] = (("tf2onnx", 13), ("tf2onnx", 17), ("tf2onnx", 18))


@dataclass(frozen=True)
class Family:
    """One family: a network and how it is exported.

    Attributes
    ----------
    name : str
        Name in the table.
    package : str
        Where the definition comes from.
    build : callable
        Returns the network (torch.nn.Module, or keras.Model for package "keras").
    shape : tuple of int
        Of the input, with a batch of SAMPLES.
    exports : tuple of (exporter, opset)
        What is measured.
    """

    name: str
    package: str
    build: Callable[[], Any]
    shape: Shape
    exports: tuple[Export, ...]


@dataclass
class Row:
    """What one measurement found; `failure` says why there are no numbers.

    Attributes
    ----------
    nodes, rewritten : int
        Number of nodes before and after.
    operators : list of str
        Operators of the source.
    gradient : float
        `max |g - truth| / max |truth|` of the input-gradient against autograd in float64.
    autograd : float
        The same for the framework's own autograd in float32.
    residual, rounding : float
        Largest residual relative to the score, and to the sum of the absolute contributions.
    exact_gradient, exact_residual : float or None
        Gradient error and residual of the same rewritten graph evaluated in float64, where float32 missed its mark.
    as_is : float or None
        That gradient error for an export with BatchNormalization left as it is, where it is large with it folded.
    exact_failure : str
        Why that could not be evaluated.
    share : float
        Mean share of the absolute contributions that the map shows.
    batch : str
        "any" or "1".
    seconds : float
        To rewrite.
    """

    family: str
    package: str
    shape: list[int]
    exporter: str
    opset: int
    failure: str = ""
    nodes: int = 0
    rewritten: int = 0
    operators: list[str] = field(default_factory=list)
    gradient: float = 0.0
    autograd: float = 0.0
    residual: float = 0.0
    rounding: float = 0.0
    exact_gradient: float | None = None
    exact_residual: float | None = None
    as_is: float | None = None
    exact_failure: str = ""
    share: float = 0.0
    batch: str = ""
    seconds: float = 0.0


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


def pictures(count: int, shape: Sequence[int], seed: int = 0) -> Array:
    """Return seeded pictures (count, C, H, W) with structure at all scales, of mean 0 and deviation 1."""
    import cv2

    rng = np.random.default_rng(seed)
    channels, h, w = shape
    total = np.zeros((count, channels, h, w), np.float32)
    cells = 2
    while cells <= max(h, w):
        layer = rng.standard_normal((count, channels, cells, cells)).astype(np.float32)
        for i in range(count):
            for c in range(channels):
                total[i, c] += cv2.resize(layer[i, c], (w, h), interpolation=cv2.INTER_LINEAR) / np.sqrt(cells)
        cells *= 2
    axes = (1, 2, 3)
    result: Array = (total - total.mean(axes, keepdims=True)) / total.std(axes, keepdims=True)
    return result


# torch


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


def _torchvision(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision import models

        return models.get_model(name, weights=None, num_classes=CLASSES, **options)

    return build


def _torchvision_class(name: str, *arguments: Any) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision import models

        return getattr(models, name)(*arguments, num_classes=CLASSES)

    return build


def _timm(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)

    return build


def _transformers(kind: str, task: str, **options: Any) -> Callable[[], Any]:
    """Build from a configuration; a nested one is given as ("KindConfig", {...})."""

    def build() -> Any:
        import transformers

        nested = {k: getattr(transformers, v[0])(**v[1]) if isinstance(v, tuple) else v for k, v in options.items()}
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **nested)
        return _logits(getattr(transformers, f"{kind}For{task}")(config))

    return build


def _logits(net: Any) -> Any:
    from torch import nn

    class Logits(nn.Module):
        """A network of transformers, with its logits as only output."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            return self.net(x).logits

    return Logits()


def _own(name: str) -> Callable[[], Any]:
    def build() -> Any:
        from tests.witness import tokennets

        return tokennets.NETS[name][0](0)

    return build


def realistic(net: Any, x: Array, seed: int = 0) -> None:
    """Give a torch network weights that look trained, in place.

    Normalisations get the statistics of their own activations on pictures, moved a little; scales near 1, biases,
    tokens, positions and layer scales different from 0. Networks without any normalisation have every layer scaled to
    an output of deviation 1. The last layer is scaled so that logits have a deviation of 2.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    norms = [m for m in net.modules() if hasattr(m, "running_mean") and m.running_mean is not None]
    others = [m for m in net.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
    for m in net.modules():
        for name, p in m.named_parameters(recurse=False):
            p.requires_grad_(False)
            if m in layers and name == "weight":
                if isinstance(m, nn.Linear):
                    nn.init.xavier_normal_(p)
            elif name in ("bias", "weight") and (m in norms or m in others):
                p.add_(0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.add_(0.1 * torch.randn_like(p))
            elif "gamma" in name or "scale" in name:
                p.uniform_(0.1, 0.5)
            elif p.numel() > 1:
                p.add_(0.1 * torch.randn_like(p))
    hooks = [m.register_forward_pre_hook(_calibrate) for m in norms]
    if not norms and not others:
        hooks += [m.register_forward_hook(_unit_deviation) for m in layers]
    with torch.no_grad():
        net(torch.from_numpy(x))
        for hook in hooks:
            hook.remove()
        logits = net(torch.from_numpy(x))
        if logits.ndim == 2:
            _scale(layers[-1], 2.0 / float(logits.std(1).mean()))


def _calibrate(m: Any, inputs: tuple[Any, ...]) -> None:
    import torch

    axes = [i for i in range(inputs[0].ndim) if i != 1]
    mean, var = inputs[0].mean(axes), inputs[0].var(axes, unbiased=False) + 1e-3
    m.running_mean.copy_(mean + 0.1 * var.sqrt() * torch.randn_like(mean))
    m.running_var.copy_(var * torch.exp(0.2 * torch.randn_like(var)))


def _unit_deviation(m: Any, _: tuple[Any, ...], y: Any) -> Any:
    factor = 1.0 / float(y.std())
    _scale(m, factor)
    return y * factor


def _scale(m: Any, factor: float) -> None:
    m.weight *= factor
    if m.bias is not None:
        m.bias *= factor


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


# keras


def _keras(name: str, **options: Any) -> Callable[[], Any]:
    def build(shape: Shape) -> Any:
        import keras

        return getattr(keras.applications, name)(
            input_shape=shape[1:], weights=None, classes=CLASSES, classifier_activation=None, **options
        )

    return build


def _keras_grey_levels(name: str) -> Callable[[], Any]:
    """Build one that takes grey levels: they are made of the standardised pictures in front of it."""

    def build(shape: Shape) -> Any:
        import keras

        inputs = keras.Input(shape[1:])
        return getattr(keras.applications, name)(
            input_tensor=keras.layers.Rescaling(50.0, 120.0)(inputs),
            weights=None,
            classes=CLASSES,
            classifier_activation=None,
        )

    return build


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
    _realistic_keras(net, pictures(16, (channels, h, w), seed=1).transpose(0, 2, 3, 1))
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


def _realistic_keras(net: Any, x: Array) -> None:
    import keras

    rng = np.random.default_rng(0)
    for layer in net.layers:
        for weight in layer.trainable_weights:
            value = np.asarray(weight)
            if value.ndim <= 1 or "gamma" in weight.name:
                start = np.full_like(value, 0.3) if np.abs(value).max() < 1e-3 and "gamma" in weight.name else value
                weight.assign(start + 0.1 * rng.standard_normal(value.shape))
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # moving statistics become those of this batch
    net(x, training=True)
    for layer in norms:
        mean, var = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance) + 1e-3
        layer.moving_mean.assign(mean + 0.1 * np.sqrt(var) * rng.standard_normal(mean.shape))
        layer.moving_variance.assign(var * np.exp(0.2 * rng.standard_normal(var.shape)))
    logits = np.asarray(net(x, training=False))
    last = next(layer for layer in reversed(net.layers) if layer.trainable_weights)
    for weight in last.trainable_weights:
        weight.assign(weight * 2.0 / logits.std(1).mean())


# measuring


def measure(family: Family, exporter: str, opset: int) -> Row:
    """Export one network, explain it and compare."""
    row = Row(family.name, family.package, list(family.shape), exporter, opset)
    case = keras_case(family, opset) if exporter == "tf2onnx" else torch_case(family, exporter, opset)
    row.nodes = len(case.model.graph.node)
    row.operators = sorted({n.op_type for n in case.model.graph.node})
    _explain(case, row)
    return row


def _explain(case: Case, row: Row) -> None:
    import fgonnx

    explainer = fgonnx.Explainer(case.model, input_gradient=True)
    start = time.perf_counter()
    engine = explainer.engine(case.x.shape)
    row.seconds = time.perf_counter() - start
    row.rewritten = len(list(engine.rewritten.model.graph))
    found = explainer(case.x)
    assert found.target is not None
    assert found.input_gradient is not None
    truth = case.gradient(found.target, "float64")
    row.gradient = _distance(found.input_gradient, truth)
    row.autograd = _distance(case.gradient(found.target, "float32"), truth)
    row.residual = float(found.relative_residual().max())
    row.rounding = float(found.rounding_residual().max())
    row.share = float(found.localised_share().mean())
    row.batch = found.settings["batch"]
    if row.residual > RESIDUAL or row.gradient > GRADIENT:
        try:
            _in_float64(case, row, found.target, truth)
        except Exception as error:  # the reference implementation has gaps of its own
            row.exact_failure = type(error).__name__


def _in_float64(case: Case, row: Row, targets: Array, truth: Array) -> None:
    row.exact_gradient, row.exact_residual = _evaluated(case.model, case.x, targets, truth)
    if row.exact_gradient > GRADIENT and case.as_is is not None:
        row.as_is, _ = _evaluated(case.as_is(), case.x, targets, truth)


def _evaluated(model: onnx.ModelProto, x: Array, targets: Array, truth: Array) -> tuple[float, float]:
    """Return gradient error and residual of the rewritten graph in float64."""
    from onnx.reference import ReferenceEvaluator

    import fgonnx
    from tests.support import in_float64

    proto = fgonnx.rewrite(model, outputs=("score", "completeness", "input_gradient"))
    name = next(i.name for i in proto.graph.input if i.name != "target_index")
    evaluator = ReferenceEvaluator(in_float64(proto), new_ops=[_grouped_conv_transpose()])
    names = [o.name for o in proto.graph.output]
    feeds = {name: x.astype(np.float64), "target_index": targets}
    exact = dict(zip(names, evaluator.run(names, feeds), strict=True))
    return _distance(exact["input_gradient"], truth), float(np.abs(exact["completeness"] / exact["score"]).max())


def _grouped_conv_transpose() -> Any:
    """Return onnx.reference's ConvTranspose, run group by group: with several groups its own fails."""
    from onnx.reference.ops import op_conv_transpose

    class ConvTranspose(op_conv_transpose.ConvTranspose):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, w: Array, b: Array | None = None, group: int | None = None, **how: Any) -> Any:
            count = group or 1
            pieces = zip(np.split(x, count, 1), np.split(w, count, 0), strict=True)
            y = np.concatenate([super(ConvTranspose, self)._run(i, k, None, group=1, **how)[0] for i, k in pieces], 1)
            return (y if b is None else y + b.reshape(1, -1, *[1] * (y.ndim - 2)),)

    return ConvTranspose


def _distance(found: Array, truth: Array) -> float:
    return float(np.abs(found - truth).max() / np.abs(truth).max())


# the table

_DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": (
        "ResNetConfig",
        {
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 256],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage4"],
        },
    ),
    "d_model": 96,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 192,
    "decoder_ffn_dim": 192,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 10,
}
_YOLOS = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "image_size": [96, 96],
    "num_detection_tokens": 10,
}
_MOBILEVIT = {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "image_size": 96}
_96: Shape = (SAMPLES, 3, 96, 96)
_64: Shape = (SAMPLES, 3, 64, 64)
_224: Shape = (SAMPLES, 3, 224, 224)  # what global pooling to 6 x 6 or 7 x 7 needs to be exported
_LAST: Shape = (SAMPLES, 96, 96, 3)

FAMILIES: tuple[Family, ...] = (
    Family("AlexNet", "torchvision", _torchvision("alexnet"), _224, ONCE),
    Family("VGG-11", "torchvision", _torchvision("vgg11"), _224, SCRIPTED),
    Family("VGG-11-BN", "torchvision", _torchvision("vgg11_bn"), _224, SCRIPTED),
    Family("ResNet-18", "torchvision", _torchvision("resnet18"), _96, ALL),
    Family("ResNet-50", "torchvision", _torchvision("resnet50"), _96, ONCE),
    Family("ResNeXt-50", "torchvision", _torchvision("resnext50_32x4d"), _96, ONCE),
    Family("RegNet-X", "torchvision", _torchvision("regnet_x_400mf"), _96, ONCE),
    Family("RegNet-Y", "torchvision", _torchvision("regnet_y_400mf"), _96, ONCE),
    Family("DenseNet-121", "torchvision", _torchvision("densenet121"), _96, ONCE),
    Family("GoogLeNet", "torchvision", _torchvision("googlenet", aux_logits=False, init_weights=False), _96, ONCE),
    Family(
        "Inception-v3",
        "torchvision",
        _torchvision("inception_v3", aux_logits=False, init_weights=False),
        (SAMPLES, 3, 107, 107),
        ONCE,
    ),
    Family("SqueezeNet", "torchvision", _torchvision("squeezenet1_1"), _96, ONCE),
    Family("ShuffleNet v2", "torchvision", _torchvision("shufflenet_v2_x1_0"), _96, ONCE),
    Family("MobileNet v1", "timm", _timm("mobilenetv1_100"), _96, ONCE),
    Family("MobileNet v2", "torchvision", _torchvision("mobilenet_v2"), _96, ONCE),
    Family("MobileNet v3", "torchvision", _torchvision("mobilenet_v3_small"), _96, ALL),
    Family("EfficientNet-B0", "torchvision", _torchvision("efficientnet_b0"), _96, ONCE),
    Family("EfficientNet v2-S", "torchvision", _torchvision("efficientnet_v2_s"), _64, SCRIPTED),
    Family("MNASNet", "torchvision", _torchvision("mnasnet1_0"), _96, ONCE),
    Family("ConvNeXt (atto)", "timm", _timm("convnext_atto"), _96, ONCE),
    Family("ConvNeXt-T", "torchvision", _torchvision("convnext_tiny"), _64, ONCE),
    Family("ViT-Ti/16", "timm", _timm("vit_tiny_patch16_224", img_size=96), _96, ALL),
    Family(
        "ViT (nn.MultiheadAttention)",
        "torchvision",
        _torchvision_class("VisionTransformer", 96, 16, 6, 3, 192, 384),
        _96,
        ONCE,
    ),
    Family("DeiT-Ti (distilled)", "timm", _timm("deit_tiny_distilled_patch16_224", img_size=96), _96, ONCE),
    Family(
        "Swin (timm)",
        "timm",
        _timm("swin_tiny_patch4_window7_224", img_size=112, embed_dim=48, depths=(2, 2, 2, 2)),
        (SAMPLES, 3, 112, 112),
        ALL,
    ),
    Family(
        "Swin (torchvision)",
        "torchvision",
        _torchvision_class("SwinTransformer", [4, 4], 48, [2, 2, 2], [3, 3, 6], [7, 7]),
        (SAMPLES, 3, 112, 112),
        ONCE,
    ),
    Family("MobileViT-XXS", "timm", _timm("mobilevit_xxs"), _96, ONCE),
    Family(
        "MobileViT (transformers)",
        "transformers",
        _transformers("MobileViT", "ImageClassification", **_MOBILEVIT),
        _96,
        ONCE,
    ),
    Family("SegFormer-B0", "transformers", _transformers("Segformer", "SemanticSegmentation"), _96, ONCE),
    Family("DETR", "transformers", _transformers("Detr", "ObjectDetection", **_DETR), _96, ONCE),
    Family("YOLOS", "transformers", _transformers("Yolos", "ObjectDetection", **_YOLOS), _96, ONCE),
    Family("U-Net", "own", _own("unet"), (SAMPLES, 3, 24, 32), ONCE),
    Family("YOLO-like head", "own", _own("yolo"), (SAMPLES, 3, 32, 48), ONCE),
    Family("VGG-16", "keras", _keras("VGG16"), (SAMPLES, 64, 64, 3), KERAS),
    Family("ResNet-50 v2", "keras", _keras("ResNet50V2"), _LAST, KERAS),
    Family("DenseNet-121", "keras", _keras("DenseNet121"), _LAST, KERAS),
    Family("Inception-v3", "keras", _keras("InceptionV3"), _LAST, KERAS),
    Family("Xception", "keras", _keras("Xception"), _LAST, KERAS),
    Family("MobileNet v1", "keras", _keras("MobileNet"), _LAST, KERAS),
    Family("MobileNet v2", "keras", _keras("MobileNetV2"), _LAST, KERAS),
    Family("MobileNet v3", "keras", _keras("MobileNetV3Small", include_preprocessing=False), _LAST, KERAS_ALL),
    Family("EfficientNet-B0", "keras", _keras_grey_levels("EfficientNetB0"), _LAST, KERAS),
    Family("EfficientNet v2-B0", "keras", _keras("EfficientNetV2B0", include_preprocessing=False), _LAST, KERAS),
    Family("ConvNeXt-T", "keras", _keras("ConvNeXtTiny", include_preprocessing=False), _LAST, KERAS),
)


def jobs(only: Iterable[str] = ()) -> list[tuple[int, str, int]]:
    """Return (index of the family, exporter, opset) of every measurement whose family's name holds one of `only`."""
    wanted = [o.lower() for o in only]
    return [
        (i, exporter, opset)
        for i, family in enumerate(FAMILIES)
        if not wanted or any(w in f"{family.name} {family.package}".lower() for w in wanted)
        for exporter, opset in family.exports
    ]


def _cached(folder: Path, job: tuple[int, str, int]) -> Path:
    family = FAMILIES[job[0]]
    slug = re.sub(r"\W+", "-", f"{family.package} {family.name}".lower()).strip("-")
    return folder / f"{slug}-{job[1]}-{job[2]}.json"


def _load(path: Path) -> Row | None:
    """Return a finished row; None where there is none, or one with other fields, from another version of this file."""
    try:
        return Row(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def run(job: tuple[int, str, int], folder: Path) -> Row | None:
    """Measure in a process of its own and store the row; None where the package that defines it is missing."""
    family, exporter, opset = FAMILIES[job[0]], job[1], job[2]
    needed = {"keras": ("keras", "tensorflow", "tf2onnx"), "own": ("torch",)}.get(family.package, (family.package,))
    if any(importlib.util.find_spec(p) is None for p in needed):
        return None
    path = _cached(folder, job)
    command = [sys.executable, "-m", "benchmarks.families", "--job", str(job[0]), exporter, str(opset), str(path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, env=environment, check=False)
        failure = "" if done.returncode == 0 else _reason(done.stderr, done.returncode)
    except subprocess.TimeoutExpired:
        failure = f"not done in {_TIMEOUT} s"
    if failure:
        row = Row(family.name, family.package, list(family.shape), exporter, opset, failure)
        path.write_text(json.dumps(asdict(row)), encoding="utf-8")
    return _load(path)


def _reason(stderr: str, code: int) -> str:
    lines = [line.strip() for line in stderr.strip().splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Unsupported\w*)\b", line)]
    kept = errors[-1:] or lines[-1:] or [f"ended with {code}"]
    at = lines.index(kept[0]) if kept[0] in lines else len(lines)
    return " ".join(lines[at : at + 2])[:300]


def page(rows: Sequence[Row]) -> str:
    """Return docs/families.md."""
    done = [r for r in rows if not r.failure]
    lines = [
        "# Families of networks",
        "",
        "Written by `python -m benchmarks.families`; do not edit by hand. " + _versions(),
        "",
        "Definitions come from the packages named, with random weights that are made to look trained (normalisation",
        "statistics of real activations on pictures, biases, scales, tokens and positions away from 0, logits of",
        f"deviation 2) and {CLASSES} classes. Explained is the largest logit of {SAMPLES} pictures, with onnxruntime",
        "on CPU in float32. A family is a row of `FAMILIES` in `benchmarks/families.py`. Rows are kept as they finish,",
        "so a page may hold rows of neighbouring states of the engine; `--again` measures all of them afresh.",
        "",
        "- **gradient**: max |g - truth| / max |truth|, truth being the framework's autograd in float64; in brackets",
        "  the same for the framework's own autograd in float32. Where a pre-activation lies within rounding of a kink",
        "  (ReLU, ReLU6, max pooling), float32 takes the other branch, and a whole path of the gradient changes, in",
        "  one engine or in the other.",
        "- **residual**: |score - sum of all contributions| / |score|, the worse of the samples; in brackets against",
        "  the sum of absolute contributions. A score that is the small difference of large contributions loses digits",
        "  in the first and not in the second.",
        f"- **in float64**: where a residual exceeds {RESIDUAL:.0e} or a gradient error {GRADIENT:.0e}, the same",
        "  rewritten graph evaluated with `onnx.reference` in float64: gradient, residual. Constants stay what they",
        "  are in the file, float32, so that agreement ends near 1e-7. Exporters fold BatchNormalization into",
        "  convolutions in float32: weights then differ from the network's by rounding, which may be enough to cross",
        "  a kink even in float64. Where it did, `as is` is the error for an export with nothing folded. An error's",
        "  name: `onnx.reference` does not run the graph.",
        "- **in the map**: share of the absolute contributions that has a place in the picture. The rest is counted",
        "  in the certificate: class tokens, matrices of attention scores, dense layers, what follows global pooling.",
        "- **batch**: `any`, or `1` where samples are run one by one.",
        "",
        "| network | from | input | export | nodes | operators | gradient | residual | in float64 | in the map | batch "
        "| rewritten in |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    lines += [_line(r) for r in rows]
    bad = [r for r in done if r.residual > RESIDUAL]
    lines += [
        "",
        f"{len(done)} of {len(rows)} exports are explained; in {len(done) - len(bad)} of them the residual is below "
        f"{RESIDUAL:.0e} of the score, and the largest residual against the absolute contributions is "
        f"{max((r.rounding for r in done), default=0.0):.1e}.",
    ]
    by_operator: dict[str, set[str]] = {}
    for r in done:
        for name in r.operators:
            by_operator.setdefault(name, set()).add(r.family)
    lines += ["", "## Operators met", "", "| operator | networks |", "| --- | ---: |"]
    lines += [f"| {name} | {len(found)} |" for name, found in sorted(by_operator.items())]
    return "\n".join(lines) + "\n"


def _line(r: Row) -> str:
    size = " x ".join(map(str, r.shape[1:]))
    head = f"| {r.family} | {r.package} | {size} | {r.exporter} {r.opset} "
    if r.failure:
        what = "not exported" if r.failure.startswith("torch.onnx") else "not explained"
        why = textwrap.shorten(r.failure.replace("|", "/"), 320, placeholder=" ...")
        return f"{head}| | | {what}: {why} | | | | | |"
    exact = r.exact_failure if r.exact_gradient is None else f"{r.exact_gradient:.0e}, {r.exact_residual:.0e}"
    if r.as_is is not None:
        exact = exact.replace(",", f" (as is {r.as_is:.0e}),", 1)
    return (
        f"{head}| {r.nodes} → {r.rewritten} | {len(r.operators)} | {r.gradient:.0e} ({r.autograd:.0e}) "
        f"| {r.residual:.0e} ({r.rounding:.0e}) | {exact} | {r.share:.1%} | {r.batch} | {r.seconds:.1f} s |"
    )


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name).split('+')[0]}")
    return f"Python {platform.python_version()}, {', '.join(found)}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the cache does not hold yet and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="families whose name or package holds it")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/families.md"), help="page to write")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "fgonnx-families", help="folder of finished rows"
    )
    parser.add_argument("--again", action="store_true", help="measure again what the cache holds")
    parser.add_argument("--job", nargs=4, metavar=("INDEX", "EXPORTER", "OPSET", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        index, exporter, opset, path = options.job
        row = measure(FAMILIES[int(index)], exporter, int(opset))
        Path(path).write_text(json.dumps(asdict(row)), encoding="utf-8")
        return 0
    options.cache.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    wanted = jobs(options.only)
    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields[what]}"), console=console
    ) as progress:
        task = progress.add_task("families", total=len(wanted), what="")
        for job in wanted:
            progress.update(task, what=f"{FAMILIES[job[0]].name} ({job[1]} {job[2]})")
            if options.again or _load(_cached(options.cache, job)) is None:
                row = run(job, options.cache)
                if row is None:
                    console.print(f"{FAMILIES[job[0]].name}: {FAMILIES[job[0]].package} is not installed; left out")
                elif row.failure:
                    console.print(f"{row.family} ({row.exporter} {row.opset}): {row.failure}", markup=False)
            progress.advance(task)
    rows = [r for r in (_load(_cached(options.cache, job)) for job in wanted) if r is not None]
    options.output.write_text(page(rows), encoding="utf-8")
    console.print(f"{options.output}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
