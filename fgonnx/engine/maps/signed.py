"""One signed map before psi: how it lies in memory, brought to a matrix of channels by cells, and summed.

A bias is one number per channel, factored out of the product of bias and cotangent, which is never written to memory:
sums over channels are a matrix product of `|b|` with `|g|`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import dtype_of, required, shaped
from fgonnx.engine.maps.placement import Crop, Placement


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
