"""psi of signed maps, rescaled and summed over channels: extrema and sums in few passes over memory.

A bias is one number per channel. As `|g * b| = |g| * |b|`, the product is never materialised: extrema are taken per
channel of `|g|` and then scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps.signed import (
    Matrix,
    Reading,
    Signed,
    along_channels,
    as_it_is,
    cell_sums,
    column_sums,
    matrix,
    over_channels,
    reading,
    roll_back,
)

ABS, POSITIVE, SIGNED = "abs", "positive", "signed"


@dataclass(frozen=True)
class _Row:
    """The reductions of one map that psi needs.

    Attributes
    ----------
    value : ir.Value
        (N, cells + 2 count): sums over channels, then maxima, then minima; the total last, if there is one.
    count : int
        Number of maxima: one per channel, or per cell where channels come last.
    weights : ir.Value, optional
        Weights still to be applied to the extrema, (count,) or (1,).
    channel_count : int
        Number of terms in each sum.
    total : ir.Value, optional
        The total at the end of the row.
    """

    value: ir.Value
    count: int
    weights: ir.Value | None
    channel_count: int
    total: ir.Value | None


def rescaled_sums(
    op: Emitter, maps: Sequence[Signed], psi: str, eps: float
) -> tuple[ir.Value, dict[ir.Value, ir.Value]]:
    """Apply psi to maps on one grid and add them up, `sum_s sum_c (P - min) / (max - min + eps)`: (N, 1, *grid).

    The extrema are per sample and map, over channels and cells jointly. Each map is reduced to one row while it is in
    the cache; the rest is computed for all rows at once, in as many nodes as for one. Totals are part of the rows, so
    that they are computed then too; they are returned by the value they replace.
    """
    grid = maps[0].placement.grid
    count, cells = len(maps), math.prod(grid)
    rows = [_row(op, m, psi) for m in maps]
    sizes = [n for r in rows for n in ([cells, 2 * r.count] + ([] if r.total is None else [op.size(r.total, 1)]))]
    pieces = iter(op.several("Split", op.Concat(*(r.value for r in rows), axis=1), sizes, outputs=len(sizes), axis=1))
    sums, extrema, carried = [], [], {}
    for r in rows:
        sums.append(next(pieces))
        extrema.append(next(pieces))
        if r.total is not None:
            carried[r.total] = next(pieces)
    same_sizes: dict[tuple[int, int], list[int]] = {}
    for i, r in enumerate(rows):
        same_sizes.setdefault((r.count, 0 if r.weights is None else op.size(r.weights, 0)), []).append(i)
    groups = list(same_sizes.values())
    order = [i for group in groups for i in group]
    by_group = [_extrema(op, [extrema[i] for i in group], [rows[i] for i in group]) for group in groups]
    high, low = (op.Unsqueeze(op.Concat(*each, axis=1), [2]) for each in zip(*by_group, strict=True))
    spread = op.Sub(high, low)
    if eps:
        spread = op.Add(spread, eps)
    else:  # a constant map gives zero, not 0 / 0
        spread = op.Where(op.Greater(spread, 0.0), spread, 1.0)
    channels = np.array([[rows[i].channel_count] for i in order], np.float64)
    by_row = op.Reshape(op.Concat(*(sums[i] for i in order), axis=1), [-1, count, cells])
    above = op.Sub(by_row, op.Mul(low, channels))
    total = op.MatMul(op.Reshape(op.Reciprocal(spread), [-1, 1, count]), above)
    return op.Reshape(total, [-1, 1, *grid]), carried


def _extrema(op: Emitter, extrema: Sequence[ir.Value], rows: Sequence[_Row]) -> tuple[ir.Value, ir.Value]:
    """Return the maximum and minimum of every row, (N, rows) each, from its (N, 2 count) extrema; one count for all."""
    both = op.Reshape(op.Concat(*extrema, axis=1), [-1, len(rows), 2, rows[0].count])
    weights = [r.weights for r in rows if r.weights is not None]
    if weights:  # all rows of a group have weights, or none
        both = op.Mul(both, op.Reshape(op.Concat(*weights, axis=0), [len(rows), 1, -1]))
    high, low = op.several("Split", both, [1, 1], outputs=2, axis=2)
    return op.ReduceMax(high, [2, 3], keepdims=0), op.ReduceMin(low, [2, 3], keepdims=0)


def _row(op: Emitter, m: Signed, psi: str) -> _Row:
    last = () if m.total is None else (m.total,)
    rectify = op.Abs if psi == ABS else op.Relu
    if m.entry is not None:
        sums = op.Reshape(rectify(m.entry), [-1, math.prod(m.placement.grid)])
        high = op.ReduceMax(sums, [1], keepdims=1)
        row = op.Concat(sums, high, op.Mul(high, 0.0), *last, axis=1)
        return _Row(row, 1, None, m.placement.shape[1], m.total)
    p = m.placement
    if as_it_is(op, p) and m.weights is None:
        return _whole_row(op, rectify(m.value), m)
    by_cell = reading(p)
    if m.weights is not None and (psi == POSITIVE or by_cell is not None):
        # A weight may change the sign, and extrema per channel are slow where channels come last.
        m = replace(m, value=op.Mul(m.value, along_channels(op, m.weights, p)), weights=None)
    if by_cell is not None:
        read = _by_cell(op, rectify(m.value), by_cell, m)
        return _Row(op.Concat(read, *last, axis=1) if last else read, math.prod(p.grid), None, p.shape[1], m.total)
    signed, weights = matrix(op, m), None
    if signed.channel_axis == 2:  # tokens are left out along one axis of several that make the grid
        signed = replace(signed, value=op.Transpose(signed.value, perm=[0, 2, 1]), channel_axis=1)
    if signed.weights is not None:
        weights = shaped(op.Abs(signed.weights), signed.weights)
    v = Matrix(rectify(signed.value), p, 1, weights)
    sums = column_sums(op, v)
    if any(p.roll):
        sums = op.Reshape(cell_sums(op, v), [-1, math.prod(p.grid)])
    # First over cells, which are contiguous in memory.
    high = op.ReduceMax(v.value, [2], keepdims=0)
    low = op.Mul(high, 0.0) if m.has_zero else op.ReduceMin(v.value, [2], keepdims=0)
    return _Row(op.Concat(sums, high, low, *last, axis=1), p.shape[1], weights, p.shape[1], m.total)


def _whole_row(op: Emitter, v: ir.Value, m: Signed) -> _Row:
    """Reduce (N, channels, H, W) over channels first, which are contiguous in OpenVINO: one maximum and one minimum."""

    def reduced(reduce: Callable[..., ir.Value]) -> ir.Value:
        return op.Reshape(reduce(reduce(v, [1], keepdims=0), [1, 2], keepdims=0), [-1, 1])

    p = m.placement
    sums = op.Reshape(op.ReduceSum(v, [1], keepdims=0), [-1, math.prod(p.grid)])
    high = reduced(op.ReduceMax)
    low = op.Mul(high, 0.0) if m.has_zero else reduced(op.ReduceMin)
    last = () if m.total is None else (m.total,)
    return _Row(op.Concat(sums, high, low, *last, axis=1), 1, None, p.shape[1], m.total)


def _by_cell(op: Emitter, v: ir.Value, r: Reading, m: Signed) -> ir.Value:
    """Return sums, maxima and minima over the channels of every cell, (N, 3 cells).

    Extra tokens are reduced too and sliced off afterwards: doing so before would be one more pass over memory.
    """
    v = op.Reshape(v, list(r.shape))
    high = over_channels(op, v, r, m.placement, op.ReduceMax)
    low = op.Mul(high, 0.0) if m.has_zero else over_channels(op, v, r, m.placement, op.ReduceMin)
    read = op.Concat(over_channels(op, v, r, m.placement, op.ReduceSum), high, low, axis=1)
    crop, grid = m.placement.crop, m.placement.grid
    if crop is not None:
        read = op.Slice(read, [crop.start], [crop.stop], [2])
    if any(m.placement.roll):
        read = roll_back(op, op.Reshape(read, [-1, 3, *grid]), m.placement)
    return op.Reshape(read, [-1, 3 * math.prod(grid)])
