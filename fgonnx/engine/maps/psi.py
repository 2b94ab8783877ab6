"""One signed map as a matrix of channels by cells: its extrema, psi and sums in few passes over memory.

A bias is one number per channel. As `|g * b| = |g| * |b|`, the product is never materialised: extrema are taken per
channel of `|g|` and then scaled, and the sum over channels is a matrix product of `|b|` with `|g|`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import dtype_of, required, shaped
from fgonnx.engine.maps.placement import Crop, Placement

ABS, POSITIVE, SIGNED = "abs", "positive", "signed"


@dataclass(frozen=True)
class Signed:
    """A signed map before psi: one site, or a linear block of several.

    Attributes
    ----------
    value : ir.Value
        The cotangent or product, in the layout of the graph.
    placement : Placement
        How to bring it to (N, channels, *grid).
    weights : ir.Value, optional
        Per-channel weights, (channels,) or broadcastable to it; the map is `value * weights`.
    has_zero : bool
        Whether every sample is known to contain a zero.
    entry : ir.Value, optional
        The only nonzero channel, (N, 1, *grid), weights included.
    total : ir.Value, optional
        Its sum per sample, as returned by `sample_sums`, to be computed along with the map.
    """

    value: ir.Value
    placement: Placement
    weights: ir.Value | None = None
    has_zero: bool = False
    entry: ir.Value | None = None
    total: ir.Value | None = None


def factored(op: Emitter, product: ir.Value, g: ir.Value, c: ir.Value, p: Placement) -> Signed:
    """Factor per-channel weights out of the product `g * c`: all of `c` where it is a bias, else a scalar factor."""
    recipe = op.recipes.get(g, Recipe())
    if as_it_is(op, p) and recipe.entry is None:
        return Signed(product, p, has_zero=recipe.has_zero)
    if p.spatial and (vector := _channel_vector(op, product, c, p)) is not None:
        entry, channel = recipe.entry, None
        if p.trivial and entry is not None and entry.values is not None and entry.count == op.size(vector, 0) > 1:
            weight = op.Reshape(op.Gather(vector, entry.index, axis=0), [-1, *([1] * (len(p.shape) - 1))])
            channel = op.Mul(entry.values, weight)
        return Signed(g, p, vector, recipe.has_zero, channel)
    # A scalar factor of the intercept, or of the product that the rule has written.
    for value, times in ((product, None), (c, g)):
        node = value.producer()
        if not p.spatial or node is None or node.op_type not in ("Mul", "Neg"):
            continue
        number = op.array(node.inputs[1]) if node.op_type == "Mul" else np.array(-1.0)
        if number is not None and number.size == 1:
            rest = required(node, 0) if times is None else op.Mul(times, node.inputs[0])
            factor = op.constant(number.reshape(1).astype(dtype_of(product).numpy()))
            return Signed(shaped(rest, product), p, factor, recipe.has_zero)
    return Signed(product, p, has_zero=recipe.has_zero)


def as_it_is(op: Emitter, p: Placement) -> bool:
    """Tell whether OpenVINO is to reduce a map as it is, (N, channels, H, W), which it keeps with channels last.

    As a matrix of channels by cells it would be reordered first. The product of cotangent and intercept is not factored
    either: it becomes part of the pass that writes the cotangent.
    """
    return op.openvino and p.trivial and len(p.grid) == 2


def _channel_vector(op: Emitter, y: ir.Value, c: ir.Value, p: Placement) -> ir.Value | None:
    """Return an intercept as a vector (channels,) where it is constant over samples and cells, else None."""
    axis = 1 if p.trivial else len(y.shape or ()) - 1 if reading(p) is not None else None
    if axis is None or c.shape is None or y.shape is None:
        return None
    dims = [1] * (len(y.shape) - len(c.shape)) + list(c.shape.dims)
    if len(dims) != len(y.shape) or y.shape[axis] != p.shape[1]:
        return None
    if any(d != 1 for i, d in enumerate(dims) if i != axis) or dims[axis] not in (1, p.shape[1]):
        return None
    return shaped(op.Reshape(c, [-1]), [dims[axis]])


def _channels_last(p: Placement) -> bool:
    """Tell whether a value is (N, *grid, channels), apart from crop and roll."""
    spatial = len(p.perm) - 2
    if p.split and p.split[-1] != p.shape[1]:  # the grid turned, of a value without channels
        return False
    return not p.trivial and spatial > 0 and p.split[:1] == (-1,) and p.perm == (0, spatial + 1, *range(1, spatial + 1))


@dataclass(frozen=True)
class Reading:
    """How to reduce a map over channels in place where its last axis in memory is one of channels.

    Attributes
    ----------
    shape : tuple of int
        Shape with one axis per atom; where there are extra tokens, all tokens in one axis.
    others : tuple of int
        The other channel axes, reduced after the last one.
    perm : tuple of int
        Order of the axes that remain: batch first, if there is one, then the grid.
    """

    shape: tuple[int, ...]
    others: tuple[int, ...]
    perm: tuple[int, ...]


def reading(p: Placement) -> Reading | None:
    """Return how to reduce a map over channels in place, None where its last axis in memory is not one of channels."""
    # (N, heads, 1 + H W, C) with a class token has the atoms N, heads, H, W, C:
    #     split (-1, heads, H, W, C)   perm (0, 1, 4, 2, 3)   crop.shape (-1, heads, 1 + H W, C), axis 2
    # The grid axes end the permutation: the last ones whose sizes multiply to H W, here [2, 3]. With extra tokens they
    # must be exactly the atoms that `crop.axis` splits into; all tokens are then reduced, in the shape of the crop:
    #     shape (-1, heads, 1 + H W, C)   batch [0]   grid [2]   channels [1, 3]
    # Reducing axis 3, then the others (1,), leaves (N, 1 + H W): kept [0, 2], perm (0, 1), nothing to transpose.
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
    return Reading(shape, tuple(channels[:-1]), perm)


@dataclass(frozen=True)
class Matrix:
    """A signed map as (N, channels, cells), or (N, cells, channels) where that saves a Transpose.

    Attributes
    ----------
    value : ir.Value
        The matrices.
    placement : Placement
        Of the map.
    channel_axis : int
        1 or 2.
    weights : ir.Value, optional
        Per-channel weights.
    """

    value: ir.Value
    placement: Placement
    channel_axis: int
    weights: ir.Value | None


def matrix(op: Emitter, m: Signed) -> Matrix:
    """Bring a signed map to a matrix, without extra tokens."""
    p = m.placement
    count = math.prod(p.grid)
    if _channels_last(p):
        return Matrix(op.Reshape(cropped(op, m.value, p), [-1, count, p.shape[1]]), p, 2, m.weights)
    return Matrix(op.Reshape(_transposed(op, m.value, p), [-1, p.shape[1], count]), p, 1, m.weights)


def cropped(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    """Leave out the extra tokens of a value."""
    if p.crop is None:
        return v
    return token_slice(op, v, p.crop, p.crop.start, p.crop.stop)


def token_slice(op: Emitter, v: ir.Value, crop: Crop, start: int, stop: int) -> ir.Value:
    """Slice a value along its axis of tokens."""
    return op.Slice(op.Reshape(v, list(crop.shape)), [start], [stop], [crop.axis])


def _transposed(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    if p.trivial:
        return v
    v = cropped(op, v, p)
    if p.perm == tuple(range(len(p.perm))):
        return op.Reshape(v, list(p.shape))
    split = op.Reshape(v, list(p.split)) if p.split else v
    return op.Reshape(op.Transpose(split, perm=list(p.perm)), list(p.shape))


def roll_back(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    """Roll (N, channels, *grid) back to the order of the picture."""
    for i, (first, size) in enumerate(zip(p.roll, p.grid, strict=False)):
        if first:  # entry 0 belongs at position `first`: the last `first` entries move to the front
            last = op.Slice(v, [size - first], [size], [2 + i])
            v = op.Concat(last, op.Slice(v, [0], [size - first], [2 + i]), axis=2 + i)
    return v


def canonical(op: Emitter, v: ir.Value, p: Placement) -> ir.Value:
    """Bring a value to (N, channels, *grid), without extra tokens."""
    return roll_back(op, _transposed(op, v, p), p)


def written_out(op: Emitter, m: Signed) -> ir.Value:
    """Return a signed map as (N, channels, *grid), weights included."""
    v = canonical(op, m.value, m.placement)
    if m.weights is None:
        return v
    return op.Mul(v, op.Reshape(m.weights, [-1, *([1] * len(m.placement.grid))]))


def signed_sums(op: Emitter, m: Signed) -> ir.Value:
    """Sum a signed map over channels: (N, 1, *grid)."""
    if as_it_is(op, m.placement) and m.weights is None:
        return op.ReduceSum(m.value, [1], keepdims=1)
    return cell_sums(op, matrix(op, m))


def cell_sums(op: Emitter, m: Matrix) -> ir.Value:
    """Sum over channels: (N, 1, *grid)."""
    return roll_back(op, op.Reshape(column_sums(op, m), [-1, 1, *m.placement.grid]), m.placement)


def column_sums(op: Emitter, m: Matrix) -> ir.Value:
    """Sum over channels: (N, cells), cells in memory order (not rolled back)."""
    size = m.placement.shape[1]
    if size == 1:  # OpenVINO dies (SIGSEGV) of some products with a matrix of one entry, compiled for one thread
        only = m.value if m.weights is None else op.Mul(m.value, m.weights)
        return op.Reshape(only, [-1, math.prod(m.placement.grid)])
    if m.channel_axis == 2:  # a matrix-vector product would take several times as long
        return op.ReduceSum(m.value if m.weights is None else op.Mul(m.value, m.weights), [2], keepdims=0)
    ones = op.constant(np.ones(size, dtype_of(m.value).numpy()))
    factors = ones if m.weights is None else op.Mul(ones, m.weights)
    if op.portable:  # a vector as left factor is missing in some runtimes
        product = op.MatMul(op.Reshape(factors, [1, size]), m.value)
        return op.Reshape(product, [-1, math.prod(m.placement.grid)])
    return op.MatMul(factors, m.value)


def sample_sums(op: Emitter, m: Signed) -> ir.Value | None:
    """Sum over channels and cells: (N, 1), or (N, 2) with the sum of the extra tokens second, where there are any.

    None where the extra tokens would have to be sliced off first.
    """
    p = m.placement
    by_cell = reading(p)
    if by_cell is not None:
        v = m.value if m.weights is None else op.Mul(m.value, along_channels(op, m.weights, p))
        cells = over_channels(op, op.Reshape(v, list(by_cell.shape)), by_cell, p, op.ReduceSum)
        if p.crop is None:
            return shaped(op.ReduceSum(cells, [2], keepdims=0), [None, 1])
        inside = op.ReduceSum(op.Slice(cells, [p.crop.start], [p.crop.stop], [2]), [2], keepdims=0)
        return shaped(op.Concat(inside, op.Sub(op.ReduceSum(cells, [2], keepdims=0), inside), axis=1), [None, 2])
    if p.crop is not None:
        return None
    if as_it_is(op, p) and m.weights is None:
        sums = op.ReduceSum(op.ReduceSum(m.value, [1], keepdims=0), [1, 2], keepdims=0)
        return shaped(op.Reshape(sums, [-1, 1]), [None, 1])
    signed = matrix(op, m)
    if signed.weights is not None and op.portable and p.shape[1] == 1:  # no Mul behind a reduction: see docs/forms.md
        weighted = op.ReduceSum(op.Mul(signed.value, signed.weights), [2], keepdims=0)
        return shaped(op.Reshape(weighted, [-1, 1]), [None, 1])
    sums = op.ReduceSum(signed.value, [2], keepdims=0)
    if signed.weights is not None and op.portable:
        factors = op.Expand(signed.weights, [p.shape[1]])
        return shaped(op.MatMul(sums, op.Reshape(factors, [-1, 1])), [None, 1])
    if signed.weights is not None:
        sums = op.Mul(sums, signed.weights)
    return shaped(op.ReduceSum(sums, [1], keepdims=1), [None, 1])


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


def over_channels(op: Emitter, v: ir.Value, r: Reading, p: Placement, reduce: Callable[..., ir.Value]) -> ir.Value:
    """Reduce a map in the shape of its reading over channels: (N, 1, cells), extra tokens included."""
    v = reduce(v, [len(r.shape) - 1], keepdims=0)
    if r.others:
        v = reduce(v, list(r.others), keepdims=0)
    if r.perm != tuple(range(len(r.perm))):
        v = op.Transpose(v, perm=list(r.perm))
    return op.Reshape(v, [-1, 1, math.prod(p.grid) if p.crop is None else p.crop.shape[p.crop.axis]])


def along_channels(op: Emitter, weights: ir.Value, p: Placement) -> ir.Value:
    """Return the weights in a shape that broadcasts to the value."""
    return op.Reshape(weights, [-1, *([1] * len(p.grid))]) if p.trivial else weights
