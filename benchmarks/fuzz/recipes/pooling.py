"""Pooling, normalisation, softmax, and sampling."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.builder import Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe


@recipe("MaxPool", "AveragePool", "LpPool")
def pooled(b: Builder, op_type: str) -> Value:
    """In one, two or three dimensions."""
    v = b.data(b.any([3, 4, 4, 5]), least=2)
    dims = v.rank - 2
    kernel = [b.whole(1, min(3, s)) for s in v.shape[2:]]
    fields: dict[str, object] = {"kernel_shape": kernel}
    if b.chance(0.4):
        fields["strides"] = [b.whole(1, 2) for _ in range(dims)]
    if b.chance(0.3):
        fields["auto_pad"] = b.any(["SAME_UPPER", "SAME_LOWER"])
    elif b.chance(0.5):
        fields["pads"] = [b.whole(0, k - 1) for k in kernel * 2]
    if op_type == "AveragePool":
        fields["count_include_pad"] = b.any([None, 1])
    if op_type == "LpPool":
        fields["p"] = b.any([None, 1, 2, 3])
    if op_type != "LpPool" and b.chance(0.25):
        fields["ceil_mode"] = 1
    return b.emit(op_type, v, **fields)


@recipe("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pooled_all(b: Builder, op_type: str) -> Value:
    """Over everything behind the channels."""
    return b.emit(op_type, b.data(b.any([3, 4, 5])))


@recipe("MaxUnpool")
def unpooled(b: Builder, op_type: str) -> Value:
    """Back to the places that a max pooling remembers."""
    v = b.data(4, least=2)
    if any(size % 2 for size in v.shape[2:]):
        raise Undrawn("a size that is not as it was")
    kernel = [2, 2]
    top, places = b.emit("MaxPool", v, kernel_shape=kernel, strides=kernel, outputs=2)
    return b.emit(op_type, b.emit("Tanh", top), places, kernel_shape=kernel, strides=kernel)


@recipe("BatchNormalization")
def batch_normalised(b: Builder, op_type: str) -> Value:
    """With constant statistics."""
    v = b.data(b.any([2, 3, 4]))
    c = v.shape[1]
    variance = b.const(b.rng.uniform(0.5, 2.0, c).astype(b.dtype))
    return b.emit(op_type, v, b.weights(c), b.weights(c), b.weights(c), variance)


@recipe("InstanceNormalization")
def instance_normalised(b: Builder, op_type: str) -> Value:
    """Over the picture of every channel."""
    v = b.data(b.any([3, 4]), least=2)
    return b.emit(op_type, v, b.weights(v.shape[1]), b.weights(v.shape[1]), epsilon=0.1)


@recipe("LayerNormalization", "RMSNormalization")
def layer_normalised(b: Builder, op_type: str) -> Value:
    """Over the last axes."""
    v = b.data(b.any([2, 3, 4]))
    axis = b.any([None, -1, *([1] if v.rank > 2 else [])])
    tail = v.shape[axis if axis is not None else -1 :]
    rest = [b.weights(*tail)] if op_type == "LayerNormalization" and b.chance(0.7) else []
    return b.emit(op_type, v, b.weights(*tail), *rest, axis=axis, epsilon=0.1)


@recipe("GroupNormalization")
def group_normalised(b: Builder, op_type: str) -> Value:
    """Two groups of channels, or as many as there are."""
    v = b.data(b.any([3, 4]), least=2)
    groups = b.any([g for g in (1, 2, 3, v.shape[1]) if v.shape[1] % g == 0])
    size = groups if b.opset < 21 else v.shape[1]
    return b.emit(op_type, v, b.weights(size), b.weights(size), num_groups=groups, epsilon=0.1)


@recipe("MeanVarianceNormalization")
def mean_variance(b: Builder, op_type: str) -> Value:
    """Within every sample."""
    v = b.data(b.any([3, 4]))
    return b.emit(op_type, v, axes=list(range(2, v.rank)))


@recipe("LpNormalization")
def lp(b: Builder, op_type: str) -> Value:
    """Along an axis."""
    v = b.data()
    return b.emit(op_type, v, axis=b.axis(v), p=b.any([None, 1]))


@recipe("LRN")
def lrn(b: Builder, op_type: str) -> Value:
    """Across channels."""
    return b.emit(op_type, b.data(4), size=b.any([1, 3]), alpha=0.3, beta=0.75, bias=1.2)


@recipe("Softmax", "LogSoftmax")
def softmax(b: Builder, op_type: str) -> Value:
    """Along an axis, or its default."""
    v = b.data()
    return b.emit(op_type, v, axis=b.any([None, b.axis(v)]) if v.rank > 1 else b.axis(v))


@recipe("GridSample")
def grid_sample(b: Builder, op_type: str) -> Value:
    """At places that the input chooses, or at constant ones."""
    v = b.data(4, least=2)
    mode = b.any(["bilinear", "nearest", "bicubic"] if b.opset < 20 else ["linear", "nearest", "cubic"])
    rows = b.data(2)
    grid = b.emit("Tanh", b.emit("MatMul", rows, b.weights(rows.shape[1], 2 * 3 * 2)))
    grid = b.reshape(grid, [rows.shape[0], 2, 3, 2])
    fields = {"padding_mode": b.any([None, "border", "reflection"]), "align_corners": b.any([None, 1])}
    return b.emit(op_type, v, grid, mode=mode, **fields)


@recipe("RoiAlign", "MaxRoiPool")
def regions(b: Builder, op_type: str) -> Value:
    """Regions at constant places of every sample."""
    v = b.data(4, least=2)
    if b.form == "free":
        raise Undrawn("regions of every sample")
    if op_type == "RoiAlign":
        boxes = b.const(np.array([[0.1, 0.2, 1.4, 1.6]] * v.shape[0], b.dtype))
        places = b.const(np.arange(v.shape[0], dtype=np.int64))
        return b.emit(op_type, v, boxes, places, output_height=2, output_width=2, mode=b.any([None, "max"]))
    boxes = b.const(np.array([[i, 0, 0, 1, 1] for i in range(v.shape[0])], b.dtype))
    return b.emit(op_type, v, boxes, pooled_shape=[2, 1])


@recipe("DeformConv")
def deform_conv(b: Builder, op_type: str) -> Value:
    """With offsets that the input chooses."""
    v = b.data(4, least=2)
    rows, cols = v.shape[2] - 1, v.shape[3] - 1
    offset = b.emit("Tanh", b.emit("Conv", v, b.weights(8, v.shape[1], 2, 2, scale=0.5)))
    w = b.weights(2, v.shape[1], 2, 2)
    assert offset.shape[2:] == (rows, cols)
    return b.emit(op_type, v, w, offset, kernel_shape=[2, 2])


@recipe("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def losses(b: Builder, op_type: str) -> Value:
    """One number for every sample, of a constant class."""
    v = b.data(2)
    if op_type.startswith("Neg"):
        v = b.emit("LogSoftmax", v, axis=1)
    classes = b.emit("ArgMax", v, axis=1, keepdims=0)
    loss = b.emit(op_type, v, classes, reduction="none")
    return b.emit("Unsqueeze", loss, b.ints(-1))
