"""Lowerings into operators for which ONNX Runtime's gradient builder has a correct gradient.

A lowering has the signature of a rule: it gets the Emitter, the output (for its shape alone), the inputs and the
attributes, and returns the output. It is used for gradients alone: values are those of the model's own node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.linear import per_channel
from fgonnx.engine.rules.registry import FIX_BATCH, Unsupported

WAY_OUT = "Explain it with engine='fgonnx'"


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
