"""One signed map as a matrix of channels by cells: its extrema, its psi and its sums, with few passes over memory.

A bias is one number per channel. `|g * b| = |g| * |b|`, so the product is never written out: extrema are taken per
channel of `|g|` and then scaled, and the sum over channels is a matrix product of `|b|` with `|g|`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.axes import Crop, Placement
from fgonnx.emit import Emitter

ABS, POSITIVE, SIGNED = "abs", "positive", "signed"


@dataclass(frozen=True)
class Signed:
    """A signed map before psi: one site, or a linear block of several.

    Attributes
    ----------
    value : ir.Value
        In the layout of the graph.
    placement : Placement
        How to bring it to (N, channels, *grid).
    weights : ir.Value, optional
        Factors per channel, (channels,) or broadcastable to it; the map is the product.
    """

    value: ir.Value
    placement: Placement
    weights: ir.Value | None = None


def factored(op: Emitter, product: ir.Value, g: ir.Value, c: ir.Value, p: Placement) -> Signed:
    """Return the product `g * c` with what of `c` can be weights per channel set apart: all of a bias, or a number."""
    if p.spatial and (vector := _channel_vector(op, product, c, p)) is not None:
        return Signed(g, p, vector)
    node = c.producer()
    if p.spatial and node is not None and node.op_type in ("Mul", "Neg"):
        number = op.array(node.inputs[1]) if node.op_type == "Mul" else np.array(-1.0)
        if number is not None and number.size == 1:
            rest = op.Mul(g, node.inputs[0])
            rest.shape = product.shape
            return Signed(rest, p, op.constant(number.reshape(1).astype(rest.dtype.numpy())))
    return Signed(product, p)


def _channel_vector(op: Emitter, y: ir.Value, c: ir.Value, p: Placement) -> ir.Value | None:
    """Return an intercept as a vector over channels, (channels,), where it is the same for all samples and cells."""
    axis = 1 if p.trivial else len(y.shape or ()) - 1 if _channels_last(p) else None
    if axis is None or c.shape is None or y.shape is None:
        return None
    dims = [1] * (len(y.shape) - len(c.shape)) + list(c.shape.dims)
    if len(dims) != len(y.shape) or y.shape[axis] != p.shape[1]:
        return None
    if any(d != 1 for i, d in enumerate(dims) if i != axis) or dims[axis] not in (1, p.shape[1]):
        return None
    return op.Reshape(c, [-1])


def _channels_last(p: Placement) -> bool:
    """Tell whether a value is (N, *grid, channels), apart from what is cropped and rolled."""
    spatial = len(p.perm) - 2
    return not p.trivial and spatial > 0 and p.split[:1] == (-1,) and p.perm == (0, spatial + 1, *range(1, spatial + 1))


@dataclass(frozen=True)
class Matrix:
    """A signed map as (N, channels, cells), or (N, cells, channels) where that spares a transposition.

    Attributes
    ----------
    value : ir.Value
        The matrices.
    placement : Placement
        Of the map.
    channels : int
        The axis of channels, 1 or 2.
    weights : ir.Value, optional
        Factors per channel.
    """

    value: ir.Value
    placement: Placement
    channels: int
    weights: ir.Value | None


def matrix(op: Emitter, m: Signed) -> Matrix:
    """Bring a signed map to a matrix, without what stands beside its patches."""
    p = m.placement
    count = math.prod(p.grid)
    if _channels_last(p):
        return Matrix(op.Reshape(cropped(op, m.value, p), [-1, count, p.shape[1]]), p, 2, m.weights)
    return Matrix(op.Reshape(_transposed(op, m.value, p), [-1, p.shape[1], count]), p, 1, m.weights)


def cropped(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    """Leave out what stands beside the patches of a value."""
    if p.crop is None:
        return v
    return run_of(op, v, p.crop, p.crop.start, p.crop.stop)


def run_of(op: Emitter, v: ir.Value, crop: Crop, start: int, stop: int) -> ir.Value:
    """Return a run of entries along the axis on which patches and what stands beside them lie."""
    return op.Slice(op.Reshape(v, list(crop.shape)), [start], [stop], [crop.axis])


def _transposed(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    if p.trivial:
        return v
    v = cropped(op, v, p)
    if p.perm == tuple(range(len(p.perm))):
        return op.Reshape(v, list(p.shape))
    split = op.Reshape(v, list(p.split)) if p.split else v
    return op.Reshape(op.Transpose(split, perm=list(p.perm)), list(p.shape))


def _rolled(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    for i, (first, size) in enumerate(zip(p.roll, p.grid, strict=False)):
        if first:  # entry 0 belongs at `first`: the last ones come round to the front
            last = op.Slice(v, [size - first], [size], [2 + i])
            v = op.Concat(last, op.Slice(v, [0], [size - first], [2 + i]), axis=2 + i)
    return v


def canonical(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    """Bring a value to (N, channels, *grid), without what stands beside its patches."""
    return _rolled(op, _transposed(op, v, p), p)


def written_out(op: Emitter, m: Signed) -> ir.Value:
    """Return a signed map as (N, channels, *grid), its weights multiplied in."""
    v = canonical(op, m.value, m.placement)
    if m.weights is None:
        return v
    return op.Mul(v, op.Reshape(m.weights, [-1, *([1] * len(m.placement.grid))]))


def cell_sums(op: Emitter, m: Matrix) -> ir.Value:
    """Sum over channels: (N, 1, *grid)."""
    p = m.placement
    size = p.shape[1]
    total = m.value
    if m.weights is not None or size > 1:
        assert m.value.dtype is not None
        ones = np.ones((1, size), m.value.dtype.numpy())
        row = ones if m.weights is None else op.Mul(ones, m.weights)
        if m.channels == 1:
            total = op.MatMul(row, m.value)
        else:
            total = op.MatMul(m.value, op.Reshape(row, [size, 1]))
    return _rolled(op, op.Reshape(total, [-1, 1, *p.grid]), p)


def sample_sums(op: Emitter, m: Matrix) -> ir.Value:
    """Sum over channels and cells: (N, 1)."""
    if m.channels == 2:
        return op.Reshape(op.ReduceSum(cell_sums(op, m), list(range(1, 2 + len(m.placement.grid)))), [-1, 1])
    sums = op.ReduceSum(m.value, [2], keepdims=0)
    if m.weights is not None:
        sums = op.Mul(sums, m.weights)
    return op.ReduceSum(sums, [1], keepdims=1)


def rescaled_sums(op: Emitter, maps: Sequence[Signed], psi: str, eps: float) -> ir.Value:
    """Apply psi to maps on one grid and add them up, `sum_s sum_c (P - min) / (max - min + eps)`: (N, 1, *grid).

    The extrema are those of a sample and a map, over channels and cells jointly. A map is read while it is at hand, and
    leaves one row: its extrema and its sums over channels. The arithmetic is then done for all rows at once.
    """
    grid = maps[0].placement.grid
    count, cells = len(maps), math.prod(grid)
    rows = op.Concat(*(_row(op, m, psi) for m in maps), axis=1)
    high, low, sums = op.Split(rows, [1, 1, cells], outputs=3, axis=2)
    spread = op.Sub(high, low)
    if eps:
        spread = op.Add(spread, eps)
    else:  # a constant tensor has no contrast: zero, not 0 / 0
        spread = op.Where(op.Greater(spread, 0.0), spread, 1.0)
    channels = np.array([[m.placement.shape[1]] for m in maps], np.float64)
    above = op.Sub(sums, op.Mul(low, channels))
    total = op.MatMul(op.Reshape(op.Reciprocal(spread), [-1, 1, count]), above)
    return op.Reshape(total, [-1, 1, *grid])


def _row(op: Emitter, m: Signed, psi: str) -> ir.Value:
    """Return maximum, minimum and sums over channels of psi of a map: (N, 1, 2 + cells)."""
    if m.weights is not None and (psi == POSITIVE or _channels_last(m.placement)):
        # The sign of a product is not that of a factor, and extrema per channel are slow where channels come last.
        m = Signed(op.Mul(m.value, _along_channels(op, m)), m.placement)
    signed = matrix(op, m)
    weights = op.Abs(signed.weights) if signed.weights is not None else None
    p = Matrix(op.Abs(signed.value) if psi == ABS else op.Relu(signed.value), m.placement, signed.channels, weights)
    sums = op.Reshape(cell_sums(op, p), [-1, 1, math.prod(m.placement.grid)])
    return op.Concat(_extremum(op, p, "ReduceMax"), _extremum(op, p, "ReduceMin"), sums, axis=2)


def _along_channels(op: Emitter, m: Signed) -> ir.Value:
    """Return the weights in a shape that broadcasts to the value."""
    assert m.weights is not None
    return op.Reshape(m.weights, [-1, *([1] * len(m.placement.grid))]) if m.placement.trivial else m.weights


def _extremum(op: Emitter, m: Matrix, reduce: str) -> ir.Value:
    """Return the extremum of every sample, (N, 1, 1): first over what is side by side in memory."""
    extremum = getattr(op, reduce)
    rows = extremum(m.value, [2], keepdims=1)
    if m.weights is not None:
        rows = op.Mul(rows, op.Reshape(m.weights, [-1, 1]))
    return extremum(rows, [1], keepdims=1)
