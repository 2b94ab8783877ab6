"""Lowerings into operators for which ONNX Runtime's gradient builder has a correct gradient.

A lowering has the signature of a rule: it gets the Emitter, the output (for its shape alone), the inputs and the
attributes, and returns the output. It is used for gradients alone: values are those of the model's own node.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.linear import explicit_pads, per_channel, spatial
from fgonnx.engine.rules.registry import FIX_BATCH, Unsupported

WAY_OUT = "Explain it with engine='fgonnx'"


# Convolutions and pools: explicit padding, and averages as convolutions.


def conv(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
) -> ir.Value:
    """Explicit padding: the builder treats SAME as no padding."""
    rank = op.rank(x) - 2
    kernel = [op.size(w, 2 + i) for i in range(rank)]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = explicit_pads(auto_pad, pads, spatial(op, x), spatial(op, y), kernel, strides, dilations)
    return op.Conv(x, w, b, pads=pads, strides=strides, dilations=dilations, group=group, kernel_shape=kernel)


def conv_transpose(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
) -> ir.Value:
    """A convolution with the flipped kernel over the input with zeros between its entries."""
    rank = op.rank(x) - 2
    if auto_pad != "NOTSET" or group != 1 or op.is_active(w):
        raise Unsupported("this form of it is not written out for ONNX Runtime's gradient builder", WAY_OUT)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    begins, sizes, out = (pads or [0] * rank)[:rank], spatial(op, x), spatial(op, y)
    kernel = [op.size(w, 2 + i) for i in range(rank)]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    for i, (size, stride, r, begin, length) in enumerate(zip(sizes, strides, reach, begins, out, strict=True)):
        # y[p] = sum_k x[i] w[k] with p + begin = s i + d k: entry i of x stands at s i - begin + reach, and the windows
        # of the flipped kernel begin at 0 .. length - 1.
        at = stride * np.arange(size) - begin + r
        stuffed = np.zeros((length + r, size))
        inside = (at >= 0) & (at < length + r)
        stuffed[at[inside], np.flatnonzero(inside)] = 1
        x = masks.along_axis(op, x, stuffed, 2 + i, 2 + rank)
    lowest = int(np.iinfo(np.int64).min)
    flipped = op.Slice(w, [-1] * rank, [lowest] * rank, list(range(2, 2 + rank)), [-1] * rank)
    swapped = op.Transpose(flipped, perm=[1, 0, *range(2, 2 + rank)])
    return op.Conv(x, swapped, b, dilations=dilations, kernel_shape=kernel)


def max_pool(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> ir.Value:
    """Row-major indices, which the gradient reads, and explicit padding."""
    rank, out = len(kernel_shape), y[0] if isinstance(y, tuple) else y
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = explicit_pads(auto_pad, pads, spatial(op, x), spatial(op, out), kernel_shape, strides, dilations)
    window: dict[str, Any] = {"kernel_shape": kernel_shape, "pads": pads, "strides": strides, "dilations": dilations}
    return op.several("MaxPool", x, outputs=2, ceil_mode=ceil_mode, **window)[0]


def global_max_pool(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """One window."""
    return max_pool(op, y, x, kernel_shape=spatial(op, x))


def average_pool(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> ir.Value:
    """The sum over windows, as a convolution per channel, divided by the number of cells in each.

    The builder's own gradient crashes with a free batch and is wrong with ceil_mode or dilations.
    """
    if ceil_mode and count_include_pad:
        raise Unsupported("this release of ONNX Runtime averages wrongly with ceil_mode and count_include_pad", WAY_OUT)
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    size_in, size_out = spatial(op, x), spatial(op, y)
    pads = explicit_pads(auto_pad, pads, size_in, size_out, kernel_shape, strides, dilations)
    counts, ends = np.ones(()), []
    for i, (k, s, d) in enumerate(zip(kernel_shape, strides, dilations, strict=True)):
        reached = s * np.arange(size_out[i])[:, None] + d * np.arange(k) - pads[i]
        low, high = (-pads[i], size_in[i] + pads[rank + i]) if count_include_pad else (0, size_in[i])
        counts = np.multiply.outer(counts, ((reached >= low) & (reached < high)).sum(axis=1))
        ends.append(max(int(reached.max()) + 1 - size_in[i], 0))
    channels = op.size(x, 1)
    ones = np.ones((channels, 1, *kernel_shape), np.float32)
    summed = op.Conv(
        x,
        ones,
        pads=[*pads[:rank], *ends],
        strides=strides,
        dilations=dilations,
        group=channels,
        kernel_shape=kernel_shape,
    )
    return op.Mul(summed, (1 / counts).astype(np.float32))


# Normalisations.


def batch_normalization(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    scale: ir.Value,
    b: ir.Value,
    mean: ir.Value,
    var: ir.Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> ir.Value:
    """A product and a sum with constants."""
    rank = op.rank(x)
    factor = op.Div(scale, op.Sqrt(op.Add(var, epsilon)))
    shift = op.Sub(b, op.Mul(mean, factor))
    return op.Add(op.Mul(x, per_channel(op, factor, rank)), per_channel(op, shift, rank))


def layer_normalization(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    scale: ir.Value,
    b: ir.Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> ir.Value:
    """Written with means, as is every normalisation over axes."""
    axes = list(range(axis % op.rank(x), op.rank(x)))
    scaled = op.Mul(_standardised(op, x, axes, epsilon), scale)
    return scaled if b is None else op.Add(scaled, b)


def instance_normalization(
    op: Emitter, y: ir.Value, x: ir.Value, scale: ir.Value, b: ir.Value, *, epsilon: float = 1e-5
) -> ir.Value:
    """Over the positions of every channel."""
    rank = op.rank(x)
    standard = _standardised(op, x, list(range(2, rank)), epsilon)
    return op.Add(op.Mul(standard, per_channel(op, scale, rank)), per_channel(op, b, rank))


def _standardised(op: Emitter, x: ir.Value, axes: list[int], epsilon: float) -> ir.Value:
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    again = op.Identity(centred)  # the builder drops one of two uses of a value by the same node
    variance = op.ReduceMean(op.Mul(centred, again), axes, keepdims=1)
    return op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))


# Elementwise functions.


def hard_sigmoid(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 0.2, beta: float = 0.5) -> ir.Value:
    """max(0, min(1, alpha x + beta))."""
    return op.Clip(op.Add(op.Mul(x, alpha), beta), 0.0, 1.0)


def hard_swish(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """x HardSigmoid(x)."""
    return op.Mul(x, hard_sigmoid(op, y, x, alpha=1 / 6))


def clip(op: Emitter, y: ir.Value, x: ir.Value, low: ir.Value | None = None, high: ir.Value | None = None) -> ir.Value:
    """x between the bounds, else 0: the builder's own gradient is 1 at the bounds, unlike that of the rules."""
    inside = [op.Greater(x, low)] if low is not None else []
    inside += [op.Less(x, high)] if high is not None else []
    for condition in inside:
        x = op.Mul(x, masks.indicator(op, condition, x))
    return op.Identity(x)


def prelu(op: Emitter, y: ir.Value, x: ir.Value, slope: ir.Value) -> ir.Value:
    """relu(x) - slope relu(-x)."""
    return op.Sub(op.Relu(x), op.Mul(slope, op.Relu(op.Neg(x))))


def _negative_exponential(op: Emitter, x: ir.Value) -> ir.Value:
    """exp(min(x, 0)) - 1."""
    return op.Sub(op.Exp(op.Neg(op.Relu(op.Neg(x)))), 1.0)


def elu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    """relu(x) + alpha (exp(min(x, 0)) - 1)."""
    return op.Add(op.Relu(x), op.Mul(_negative_exponential(op, x), alpha))


def selu(
    op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> ir.Value:
    """gamma Elu(x)."""
    return op.Mul(elu(op, y, x, alpha=alpha), gamma)


def celu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    """relu(x) + alpha (exp(min(x / alpha, 0)) - 1)."""
    return op.Add(op.Relu(x), op.Mul(_negative_exponential(op, op.Div(x, alpha)), alpha))


def softplus(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """relu(x) + log(1 + exp(-|x|)), which does not overflow."""
    return op.Add(op.Relu(x), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1.0)))


def mish(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """x tanh(softplus(x))."""
    return op.Mul(x, op.Tanh(softplus(op, y, x)))


def softsign(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """x / (1 + |x|)."""
    return op.Div(x, op.Add(op.Abs(x), 1.0))


def thresholded_relu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    """x where it is above alpha."""
    return op.Mul(x, masks.indicator(op, op.Greater(x, alpha), x))


# Sums, reductions, selections.


def sum_(op: Emitter, y: ir.Value, *terms: ir.Value) -> ir.Value:
    """One addition after the other."""
    total = op.Identity(terms[0])
    for term in terms[1:]:
        total = op.Add(total, op.Identity(term))
    return total


def mean(op: Emitter, y: ir.Value, *terms: ir.Value) -> ir.Value:
    """The sum over the number of terms."""
    return op.Mul(sum_(op, y, *terms), 1 / len(terms))


def dropout(op: Emitter, y: Any, x: ir.Value, *rest: ir.Value, seed: int = 0) -> ir.Value:
    """The identity, as in inference."""
    return op.Identity(x)


def reduce_l1(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    axes: ir.Value | None = None,
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> ir.Value:
    """The sum of absolute values."""
    return op.ReduceSum(op.Abs(x), axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)


def reduce_sum_square(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    axes: ir.Value | None = None,
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> ir.Value:
    """The sum of squares."""
    squares = op.Mul(x, op.Identity(x))
    return op.ReduceSum(squares, axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)


def split(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    sizes: ir.Value | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> ir.Value | tuple[ir.Value, ...]:
    """One slice per output: the builder's gradient of a Split is wrong where an output is not used."""
    outputs = y if isinstance(y, tuple) else (y,)
    ends = np.cumsum([op.size(v, axis % op.rank(x)) for v in outputs]).tolist()
    parts = [op.Slice(x, [a], [b], [axis]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    return tuple(parts) if len(parts) > 1 else parts[0]


def power(op: Emitter, y: ir.Value, x: ir.Value, exponent: ir.Value) -> ir.Value:
    """With a floating-point exponent: the builder fails on integer ones, and sums nothing over broadcast axes."""
    known = op.array(exponent)
    if known is None or (known == 0).any() or op.dims(x) != op.dims(y):
        raise Unsupported("its exponent is not constant, or zero, or its base is broadcast", WAY_OUT)
    return op.Pow(x, known.astype(np.float32))


def where(op: Emitter, y: ir.Value, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """Unchanged, if nothing active is broadcast: the builder does not sum over those axes."""
    if any(op.is_active(v) and op.dims(v) != op.dims(y) for v in (a, b)):
        raise Unsupported("it broadcasts what has a gradient", WAY_OUT)
    return op.Where(condition, a, b)


def gemm(
    op: Emitter,
    y: ir.Value,
    a: ir.Value,
    b: ir.Value,
    c: ir.Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> ir.Value:
    """Unchanged, unless its bias is an active scalar: the builder gives that a gradient of rank 1."""
    if c is not None and op.is_active(c) and op.rank(c) == 0:
        raise Unsupported("its bias is a scalar with a gradient", WAY_OUT)
    return op.Gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


def matmul(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """A vector as a matrix of one row or one column."""
    row, column = op.rank(a) == 1, op.rank(b) == 1
    product = op.MatMul(op.Unsqueeze(a, [0]) if row else a, op.Unsqueeze(b, [-1]) if column else b)
    axes = [-2] * row + [-1] * column
    return op.Squeeze(product, axes) if axes else product


def gelu(op: Emitter, y: ir.Value, x: ir.Value, *, approximate: str = "none") -> ir.Value:
    """x Phi(x), or its approximation by a hyperbolic tangent."""
    if approximate == "tanh":
        inner = op.Mul(op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044715)), math.sqrt(2 / math.pi))
        return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0))


def leaky_relu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 0.01) -> ir.Value:
    """Unchanged for alpha >= 0: the builder takes the sign of the input from the result."""
    if alpha < 0:
        raise Unsupported("its alpha is negative", WAY_OUT)
    return op.LeakyRelu(x, alpha=alpha)


def pad(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    pads: ir.Value,
    value: ir.Value | None = None,
    axes: ir.Value | None = None,
    *,
    mode: str = "constant",
) -> ir.Value:
    """By a constant, on all axes."""
    amounts, chosen = op.array(pads), op.array(axes)
    if mode != "constant" or amounts is None or op.is_active(value):
        raise Unsupported("it does not pad by known amounts of a constant", WAY_OUT)
    rank = op.rank(x)
    full = np.zeros((2, rank), np.int64)
    full[:, range(rank) if chosen is None else [int(a) % rank for a in chosen]] = amounts.reshape(2, -1)
    return op.Pad(x, full.reshape(-1).tolist(), value)


def slice_(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    starts: ir.Value,
    ends: ir.Value,
    axes: ir.Value | None = None,
    steps: ir.Value | None = None,
) -> ir.Value:
    """Unchanged for positive steps: the gradient fails for negative ones."""
    known = op.array(steps)
    if steps is not None and (known is None or (known < 0).any()):
        raise Unsupported("it runs backwards", WAY_OUT)
    return op.Slice(x, starts, ends, axes, steps)


def resize(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    roi: ir.Value | None = None,
    scales: ir.Value | None = None,
    sizes: ir.Value | None = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
) -> ir.Value:
    """A matrix product per axis; the matrix is the runtime's own Resize of the unit vectors."""
    rank, factors, sizes_in = op.rank(x), op.array(scales), op.dims(x)
    if coordinate_transformation_mode == "tf_crop_and_resize" or (factors is not None and 0 < factors.size < rank):
        raise Unsupported("this form of it is not written out for ONNX Runtime's gradient builder", WAY_OUT)
    for axis in range(rank):
        before, after = sizes_in[axis], op.dims(y)[axis]
        scale = None if factors is None or not factors.size else float(factors[axis])
        if before == after and scale in (None, 1.0):
            continue
        if not isinstance(before, int) or not isinstance(after, int):
            raise Unsupported("it resizes the batch axis", FIX_BATCH)
        unit = op.constant(np.eye(before, dtype=np.float32).reshape(1, 1, before, before))
        by = None if scale is None else op.constant(np.array([1, 1, 1, scale], np.float32))
        to = None if scale is not None else [1, 1, before, after]
        responses = op.Resize(
            unit,
            None,
            by,
            to,
            coordinate_transformation_mode=coordinate_transformation_mode,
            mode=mode,
            nearest_mode=nearest_mode,
            cubic_coeff_a=cubic_coeff_a,
        )
        matrix = op.Transpose(op.Reshape(responses, [before, after]), perm=[1, 0])
        x = masks.apply_along(op, x, matrix, axis, rank)
    return x


def depth_to_space(op: Emitter, y: ir.Value, x: ir.Value, *, blocksize: int, mode: str = "DCR") -> ir.Value:
    """Reshape, transpose, reshape."""
    c, h, w = (op.size(x, i) for i in (1, 2, 3))
    rest, b = c // blocksize**2, blocksize
    shape, perm = (
        ([-1, b, b, rest, h, w], [0, 3, 4, 1, 5, 2]) if mode == "DCR" else ([-1, rest, b, b, h, w], [0, 1, 4, 2, 5, 3])
    )
    return op.Reshape(op.Transpose(op.Reshape(x, shape), perm=perm), [-1, rest, h * b, w * b])


def space_to_depth(op: Emitter, y: ir.Value, x: ir.Value, *, blocksize: int) -> ir.Value:
    """Reshape, transpose, reshape."""
    c, h, w = (op.size(x, i) for i in (1, 2, 3))
    b = blocksize
    parts = op.Transpose(op.Reshape(x, [-1, c, h // b, b, w // b, b]), perm=[0, 3, 5, 1, 2, 4])
    return op.Reshape(parts, [-1, c * b * b, h // b, w // b])
