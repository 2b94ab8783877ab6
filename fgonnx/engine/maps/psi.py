"""One signed map as a matrix of channels by cells: its extrema, its psi and its sums, with few passes over memory.

A bias is one number per channel. `|g * b| = |g| * |b|`, so the product is never written out: extrema are taken per
channel of `|g|` and then scaled, and the sum over channels is a matrix product of `|b|` with `|g|`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.maps.placement import Crop, Placement

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
    vanishes : bool
        Whether every sample is known to have a zero in it.
    entry : ir.Value, optional
        The only channel that does not vanish, (N, 1, *grid), weights multiplied in.
    total : ir.Value, optional
        Its sum per sample, as `sample_sums` returns it, which is to be taken when the map is read.
    """

    value: ir.Value
    placement: Placement
    weights: ir.Value | None = None
    vanishes: bool = False
    entry: ir.Value | None = None
    total: ir.Value | None = None


def factored(op: Emitter, product: ir.Value, g: ir.Value, c: ir.Value, p: Placement) -> Signed:
    """Return the product `g * c` with what of `c` can be weights per channel set apart: all of a bias, or a number."""
    recipe = op.recipes.get(g, Recipe())
    if p.spatial and (vector := _channel_vector(op, product, c, p)) is not None:
        entry, found = recipe.entry, None
        if p.trivial and entry is not None and entry.values is not None and entry.count == op.size(vector, 0) > 1:
            chosen = op.Reshape(op.Gather(vector, entry.index, axis=0), [-1, *([1] * (len(p.shape) - 1))])
            found = op.Mul(entry.values, chosen)
        return Signed(g, p, vector, recipe.vanishes, found)
    # A number that multiplies the intercept, or what the rule has written as the product.
    assert product.dtype is not None
    for value, times in ((product, None), (c, g)):
        node = value.producer()
        if not p.spatial or node is None or node.op_type not in ("Mul", "Neg"):
            continue
        number = op.array(node.inputs[1]) if node.op_type == "Mul" else np.array(-1.0)
        if number is not None and number.size == 1:
            rest = node.inputs[0] if times is None else op.Mul(times, node.inputs[0])
            assert rest is not None
            rest.shape = product.shape
            factor = op.constant(number.reshape(1).astype(product.dtype.numpy()))
            return Signed(rest, p, factor, recipe.vanishes)
    return Signed(product, p, vanishes=recipe.vanishes)


def _channel_vector(op: Emitter, y: ir.Value, c: ir.Value, p: Placement) -> ir.Value | None:
    """Return an intercept as a vector over channels, (channels,), where it is the same for all samples and cells."""
    axis = 1 if p.trivial else len(y.shape or ()) - 1 if _reading(p) is not None else None
    if axis is None or c.shape is None or y.shape is None:
        return None
    dims = [1] * (len(y.shape) - len(c.shape)) + list(c.shape.dims)
    if len(dims) != len(y.shape) or y.shape[axis] != p.shape[1]:
        return None
    if any(d != 1 for i, d in enumerate(dims) if i != axis) or dims[axis] not in (1, p.shape[1]):
        return None
    vector: ir.Value = op.Reshape(c, [-1])
    vector.shape = ir.Shape([dims[axis]])
    return vector


def _channels_last(p: Placement) -> bool:
    """Tell whether a value is (N, *grid, channels), apart from what is cropped and rolled."""
    spatial = len(p.perm) - 2
    return not p.trivial and spatial > 0 and p.split[:1] == (-1,) and p.perm == (0, spatial + 1, *range(1, spatial + 1))


@dataclass(frozen=True)
class _Reading:
    """How to read a map whose channels lie side by side in memory: what is left of it has one entry for every cell.

    Attributes
    ----------
    shape : tuple of int
        Shape with one axis per atom; where something stands beside the patches, with all of it in one axis.
    others : tuple of int
        Further axes of channels, which are read after the last one.
    perm : tuple of int
        Order of the axes that are left: batch first, if there is one, then the grid.
    """

    shape: tuple[int, ...]
    others: tuple[int, ...]
    perm: tuple[int, ...]


def _reading(p: Placement) -> _Reading | None:
    """Return how to read a map cell by cell, None where the last axis in memory is not one of channels."""
    if p.trivial or not p.spatial:
        return None
    grid: list[int] = []
    for k in reversed(p.perm):
        if math.prod(p.split[j] for j in grid) == math.prod(p.grid):
            break
        grid.insert(0, k)
    shape, batch = p.split, [k for k, size in enumerate(p.split) if size == -1]
    if set(batch) & set(grid):
        return None
    if p.crop is not None:
        if grid != list(range(p.crop.axis, p.crop.axis + len(p.split) - len(p.crop.shape) + 1)):
            return None
        shape, grid = p.crop.shape, [p.crop.axis]
        batch = [k for k, size in enumerate(shape) if size == -1]
    channels = [k for k in range(len(shape)) if k not in batch and k not in grid]
    if channels[-1:] != [len(shape) - 1]:
        return None
    kept = sorted([*batch, *grid])
    perm = tuple(kept.index(k) for k in [*batch, *grid])
    return _Reading(shape, tuple(channels[:-1]), perm)


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
    return _rolled(op, op.Reshape(_column_sums(op, m), [-1, 1, *m.placement.grid]), m.placement)


def _column_sums(op: Emitter, m: Matrix) -> ir.Value:
    """Sum over channels: (N, cells), in the order in which the cells lie in memory."""
    size = m.placement.shape[1]
    if m.weights is None and size == 1:
        return op.Reshape(m.value, [-1, math.prod(m.placement.grid)])
    assert m.value.dtype is not None
    if m.channels == 2:  # a product of a matrix with a vector takes several times as long
        return op.ReduceSum(m.value if m.weights is None else op.Mul(m.value, m.weights), [2], keepdims=0)
    ones = np.ones(size, m.value.dtype.numpy())
    return op.MatMul(ones if m.weights is None else op.Mul(ones, m.weights), m.value)


def sample_sums(op: Emitter, m: Signed) -> ir.Value | None:
    """Sum over channels and cells: (N, 1), or (N, 2) where something stands beside the patches, the sum of that behind.

    None where that something would have to be cut out first.
    """
    p = m.placement
    by_cell = _reading(p)
    if by_cell is not None:
        v = m.value if m.weights is None else op.Mul(m.value, _along_channels(op, m))
        cells = _over_channels(op, op.Reshape(v, list(by_cell.shape)), by_cell, p, op.ReduceSum)
        if p.crop is None:
            return _sized(op.ReduceSum(cells, [2], keepdims=0), 1)
        inside = op.ReduceSum(op.Slice(cells, [p.crop.start], [p.crop.stop], [2]), [2], keepdims=0)
        return _sized(op.Concat(inside, op.Sub(op.ReduceSum(cells, [2], keepdims=0), inside), axis=1), 2)
    if p.crop is not None:
        return None
    signed = matrix(op, m)
    sums = op.ReduceSum(signed.value, [2], keepdims=0)
    if signed.weights is not None:
        sums = op.Mul(sums, signed.weights)
    return _sized(op.ReduceSum(sums, [1], keepdims=1), 1)


def _sized(v: ir.Value, columns: int) -> ir.Value:
    v.shape = ir.Shape([None, columns])
    return v


@dataclass(frozen=True)
class _Row:
    """What is left of a map once it has been read.

    Attributes
    ----------
    value : ir.Value
        (N, cells + 2 count): sums over channels, then maxima, then minima; behind them the total, if it is there.
    count : int
        How many maxima there are, one per channel, or per cell where channels come last.
    weights : ir.Value, optional
        Factors that the extrema still lack, (count,) or (1,).
    channels : int
        How many numbers every sum has.
    total : ir.Value, optional
        What travels with the row.
    """

    value: ir.Value
    count: int
    weights: ir.Value | None
    channels: int
    total: ir.Value | None


def rescaled_sums(
    op: Emitter, maps: Sequence[Signed], psi: str, eps: float
) -> tuple[ir.Value, dict[ir.Value, ir.Value]]:
    """Apply psi to maps on one grid and add them up, `sum_s sum_c (P - min) / (max - min + eps)`: (N, 1, *grid).

    The extrema are those of a sample and a map, over channels and cells jointly. A map is read while it is at hand, and
    leaves one row; all arithmetic is then done for all rows at once, in as many nodes as for one. Totals of maps travel
    with the rows, so that they too are taken while the map is at hand; they are returned beside the sum.
    """
    grid = maps[0].placement.grid
    count, cells = len(maps), math.prod(grid)
    rows = [_row(op, m, psi) for m in maps]
    sizes = [n for r in rows for n in ([cells, 2 * r.count] + ([] if r.total is None else [op.size(r.total, 1)]))]
    parts = iter(op.Split(op.Concat(*(r.value for r in rows), axis=1), sizes, outputs=len(sizes), axis=1))
    sums, extrema, carried = [], [], {}
    for r in rows:
        sums.append(next(parts))
        extrema.append(next(parts))
        if r.total is not None:
            carried[r.total] = next(parts)
    alike: dict[tuple[int, int], list[int]] = {}
    for i, r in enumerate(rows):
        alike.setdefault((r.count, 0 if r.weights is None else op.size(r.weights, 0)), []).append(i)
    order = [i for group in alike.values() for i in group]
    found = [_extrema(op, [extrema[i] for i in group], [rows[i] for i in group]) for group in alike.values()]
    high, low = (op.Unsqueeze(op.Concat(*each, axis=1), [2]) for each in zip(*found, strict=True))
    spread = op.Sub(high, low)
    if eps:
        spread = op.Add(spread, eps)
    else:  # a constant tensor has no contrast: zero, not 0 / 0
        spread = op.Where(op.Greater(spread, 0.0), spread, 1.0)
    channels = np.array([[rows[i].channels] for i in order], np.float64)
    by_row = op.Reshape(op.Concat(*(sums[i] for i in order), axis=1), [-1, count, cells])
    above = op.Sub(by_row, op.Mul(low, channels))
    total = op.MatMul(op.Reshape(op.Reciprocal(spread), [-1, 1, count]), above)
    return op.Reshape(total, [-1, 1, *grid]), carried


def _extrema(op: Emitter, parts: Sequence[ir.Value], rows: Sequence[_Row]) -> tuple[ir.Value, ir.Value]:
    """Return maximum and minimum of rows with equally many extrema, (N, rows) each, from these (N, 2 count)."""
    both = op.Reshape(op.Concat(*parts, axis=1), [-1, len(rows), 2, rows[0].count])
    weights = [r.weights for r in rows if r.weights is not None]
    if weights:  # of all of these rows or of none
        both = op.Mul(both, op.Reshape(op.Concat(*weights, axis=0), [len(rows), 1, -1]))
    high, low = op.Split(both, [1, 1], outputs=2, axis=2)
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
    by_cell = _reading(p)
    if m.weights is not None and (psi == POSITIVE or by_cell is not None):
        # The sign of a product is not that of a factor, and extrema per channel are slow where channels come last.
        m = replace(m, value=op.Mul(m.value, _along_channels(op, m)), weights=None)
    if by_cell is not None:
        read = _by_cell(op, rectify(m.value), by_cell, m)
        return _Row(op.Concat(read, *last, axis=1) if last else read, math.prod(p.grid), None, p.shape[1], m.total)
    signed, weights = matrix(op, m), None
    if signed.weights is not None:
        weights = op.Abs(signed.weights)
        weights.shape = signed.weights.shape
    v = Matrix(rectify(signed.value), p, 1, weights)
    sums = _column_sums(op, v)
    if any(p.roll):
        sums = op.Reshape(cell_sums(op, v), [-1, math.prod(p.grid)])
    # First over what is side by side in memory.
    high = op.ReduceMax(v.value, [2], keepdims=0)
    low = op.Mul(high, 0.0) if m.vanishes else op.ReduceMin(v.value, [2], keepdims=0)
    return _Row(op.Concat(sums, high, low, *last, axis=1), p.shape[1], weights, p.shape[1], m.total)


def _by_cell(op: Emitter, v: ir.Value, r: _Reading, m: Signed) -> ir.Value:
    """Return sums, maxima and minima over the channels of every cell, (N, 3 cells).

    What stands beside the patches is read as well and then left out: to leave it out before would be one more pass.
    """
    v = op.Reshape(v, list(r.shape))
    high = _over_channels(op, v, r, m.placement, op.ReduceMax)
    low = op.Mul(high, 0.0) if m.vanishes else _over_channels(op, v, r, m.placement, op.ReduceMin)
    read = op.Concat(_over_channels(op, v, r, m.placement, op.ReduceSum), high, low, axis=1)
    crop, grid = m.placement.crop, m.placement.grid
    if crop is not None:
        read = op.Slice(read, [crop.start], [crop.stop], [2])
    if any(m.placement.roll):
        read = _rolled(op, op.Reshape(read, [-1, 3, *grid]), m.placement)
    return op.Reshape(read, [-1, 3 * math.prod(grid)])


def _over_channels(op: Emitter, v: ir.Value, r: _Reading, p: Placement, reduce: Callable[..., ir.Value]) -> ir.Value:
    """Reduce a map of the shape of its reading: (N, 1, cells), with the cells beside the patches."""
    found = reduce(v, [len(r.shape) - 1], keepdims=0)
    if r.others:
        found = reduce(found, list(r.others), keepdims=0)
    if r.perm != tuple(range(len(r.perm))):
        found = op.Transpose(found, perm=list(r.perm))
    return op.Reshape(found, [-1, 1, math.prod(p.grid) if p.crop is None else p.crop.shape[p.crop.axis]])


def _along_channels(op: Emitter, m: Signed) -> ir.Value:
    """Return the weights in a shape that broadcasts to the value."""
    assert m.weights is not None
    return op.Reshape(m.weights, [-1, *([1] * len(m.placement.grid))]) if m.placement.trivial else m.weights
