"""Products, convolutions, transforms, sums and reductions."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.builder import Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe


@recipe("MatMul")
def matmul(b: Builder, op_type: str) -> Value:
    """By weights from either side, or of two values of the graph."""
    if b.chance(0.5):
        v = b.data(b.any([2, 3, 4]))
        return b.emit(op_type, v, b.weights(v.shape[-1], b.whole(2, 6)))
    v = b.data(b.any([3, 4]))
    if b.chance(0.4):
        return b.emit(op_type, b.weights(b.whole(2, 4), v.shape[-2]), v)
    perm = [*range(v.rank - 2), v.rank - 1, v.rank - 2]
    return b.emit(op_type, v, b.emit("Transpose", v, perm=perm))


@recipe("Gemm")
def gemm(b: Builder, op_type: str) -> Value:
    """With every combination of its attributes."""
    v = b.data(2)
    n, turned = b.whole(2, 6), b.whole(0, 1)
    w = b.weights(*((n, v.shape[1]) if turned else (v.shape[1], n)))
    c = b.any([None, b.weights(n), b.weights(1, n), b.scalar(0.3)])
    alpha, beta = (b.any([None, 0.5, 1.5]) for _ in range(2))
    return b.emit(op_type, v, w, c, transB=turned or None, alpha=alpha, beta=beta)


@recipe("Conv")
def conv(b: Builder, op_type: str) -> Value:
    """In one, two or three dimensions: padding, strides, dilations, groups."""
    v = b.data(b.any([3, 4, 4, 4, 5]), least=2)
    dims, channels = v.rank - 2, v.shape[1]
    group = channels if b.chance(0.25) else 1
    kernel = [b.whole(1, min(3, s)) for s in v.shape[2:]]
    out = group * b.whole(1, 2) if group > 1 else b.whole(2, 4)
    bias = b.weights(out) if b.chance(0.7) else None
    w = b.weights(out, channels // group, *kernel)
    fields: dict[str, object] = {"group": group if group > 1 else None, "kernel_shape": kernel}
    if b.chance(0.3):
        fields["auto_pad"] = b.any(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif b.chance(0.6):
        fields["pads"] = [b.whole(0, k - 1) for k in kernel * 2]
    if b.chance(0.3):
        fields["strides"] = [b.whole(1, 2) for _ in range(dims)]
    elif b.chance(0.2):
        fields["dilations"] = [2 if k > 1 and 2 * (k - 1) < s else 1 for k, s in zip(kernel, v.shape[2:], strict=True)]
    return b.emit(op_type, v, w, bias, **fields)


@recipe("ConvTranspose")
def conv_transpose(b: Builder, op_type: str) -> Value:
    """With strides, output padding and groups."""
    v = b.data(b.any([3, 4]))
    dims, channels = v.rank - 2, v.shape[1]
    kernel = [b.whole(1, 3) for _ in range(dims)]
    strides = [b.whole(1, 2) for _ in range(dims)]
    group = channels if b.chance(0.2) else 1
    w = b.weights(channels, b.whole(1, 3), *kernel)
    fields: dict[str, object] = {"strides": strides, "kernel_shape": kernel, "group": group if group > 1 else None}
    if b.chance(0.3):
        fields["output_padding"] = [s - 1 for s in strides]
    elif b.chance(0.3):
        fields["pads"] = [b.whole(0, max(k // 2, 0)) for k in kernel * 2]
    out = w.shape[1] * group
    return b.emit(op_type, v, w, b.weights(out) if b.chance(0.6) else None, **fields)


@recipe("Einsum")
def einsum(b: Builder, op_type: str) -> Value:
    """Products as attention and bilinear layers write them."""
    v = b.data(3)
    _, s, t = v.shape
    equation, others = b.any(
        [
            ("bij,jk->bik", [b.weights(t, b.whole(2, 4))]),
            ("bij,bkj->bik", [v]),
            ("bij->bji", []),
            ("bij,ij->bi", [b.weights(s, t)]),
            ("bij->b j".replace(" ", ""), []),
            ("...ij,jk->...ik", [b.weights(t, 2)]),
        ]
    )
    return b.emit(op_type, v, *others, equation=equation)


@recipe("Det")
def det(b: Builder, op_type: str) -> Value:
    """Of small square matrices."""
    v = b.data(2)
    n = b.whole(2, 3)
    square = b.reshape(b.emit("MatMul", v, b.weights(v.shape[1], n * n)), [v.shape[0], n, n])
    found = b.emit(op_type, square)
    return b.emit("Unsqueeze", found, b.ints(-1)) if b.chance(0.7) else found


@recipe("CumSum", "CumProd")
def cumulated(b: Builder, op_type: str) -> Value:
    """In both directions, with or without the entry itself."""
    v = b.data()
    v = b.positive(v) if op_type == "CumProd" and b.chance(0.5) else v
    return b.emit(
        op_type,
        v,
        b.const(np.array(b.axis(v), np.int64)),
        exclusive=b.any([None, 1]),
        reverse=b.any([None, 1]),
    )


@recipe("DFT")
def dft(b: Builder, op_type: str) -> Value:
    """Of real numbers: all of it, or the half that says everything."""
    v = b.emit("Unsqueeze", b.data(b.any([2, 3])), b.ints(-1))
    axis = b.whole(1, v.rank - 2)
    onesided = b.any([None, 1])
    if b.opset < 20:
        return b.emit(op_type, v, axis=axis, onesided=onesided)
    return b.emit(op_type, v, None, b.const(np.array(axis, np.int64)), onesided=onesided)


@recipe("STFT")
def stft(b: Builder, op_type: str) -> Value:
    """Of a signal, with a window."""
    v = b.data(2)
    if v.shape[1] < 6:
        v = b.emit("MatMul", v, b.weights(v.shape[1], 12))
    signal = b.emit("Unsqueeze", v, b.ints(-1))
    step = b.const(np.array(2, np.int64))
    window = b.const(np.hanning(6)[:4].astype(b.dtype) + 0.1)
    return b.emit(op_type, signal, step, window, b.const(np.array(4, np.int64)), onesided=b.any([None, 0, 1]))


@recipe(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
def reduced(b: Builder, op_type: str) -> Value:
    """Along one axis, two, or all but the samples; axes an attribute or an input, by the operator set."""
    v = b.data(b.any([2, 3, 4]))
    if op_type in ("ReduceLogSum", "ReduceProd"):
        v = b.positive(v)
    axes = sorted({b.axis(v) % v.rank for _ in range(b.whole(1, 2))})
    axes = [a - v.rank for a in axes] if b.chance(0.3) else axes
    if len(axes) == v.rank:
        axes = axes[:-1]
    keep = b.any([None, 0, 1])
    if b.opset < (13 if op_type == "ReduceSum" else 18):
        return b.emit(op_type, v, axes=axes, keepdims=keep)
    return b.emit(op_type, v, b.ints(*axes), keepdims=keep)


@recipe("AffineGrid")
def affine_grid(b: Builder, op_type: str) -> Value:
    """A grid that the input turns, and a picture sampled on it."""
    v = b.data(2)
    if b.form == "free":
        raise Undrawn("its size holds the number of samples")
    theta = b.reshape(b.emit("Tanh", b.emit("MatMul", v, b.weights(v.shape[1], 6))), [v.shape[0], 2, 3])
    return b.emit(op_type, theta, b.ints(v.shape[0], 1, 2, 3), align_corners=b.any([None, 1]))


@recipe("Col2Im")
def col2im(b: Builder, op_type: str) -> Value:
    """Blocks laid back into a picture."""
    v = b.data(2)
    v = b.reshape(b.emit("MatMul", v, b.weights(v.shape[1], 4 * 6)), [v.shape[0], 4, 6])
    return b.emit(op_type, v, b.ints(3, 4), b.ints(2, 2))
