"""Maps that only move elements: reshapes, transposes, concatenation, padding, space and depth. All linear."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.rules.fast.blocked import blockable
from fgonnx.engine.rules.fast.masks import along_axis, finite, is_large, scatter_add
from fgonnx.engine.rules.registry import FIX_BATCH, Cotangent, Local, Unsupported, Vjp, linear, rule

_LAST = int(np.iinfo(np.int64).max)


@linear("Reshape")
def reshape(op: Emitter, y: ir.Value, x: ir.Value, shape: ir.Value, *, allowzero: int = 0) -> Vjp:
    return lambda g: op.reshape_like(g, x)


@linear("Flatten")
def flatten(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = 1) -> Vjp:
    return lambda g: op.reshape_like(g, x)


@linear("Squeeze")
def squeeze(op: Emitter, y: ir.Value, x: ir.Value, axes: ir.Value | None = None) -> Vjp:
    return lambda g: op.reshape_like(g, x)


@linear("Unsqueeze")
def unsqueeze(op: Emitter, y: ir.Value, x: ir.Value, axes: ir.Value) -> Vjp:
    return lambda g: op.reshape_like(g, x)


@linear("Transpose")
def transpose(op: Emitter, y: ir.Value, x: ir.Value, *, perm: list[int] | None = None) -> Vjp:
    order = perm or list(range(op.rank(x)))[::-1]
    inverse = [int(i) for i in np.argsort(order)]
    return lambda g: op.Transpose(g, perm=inverse)


@linear("Expand")
def expand(op: Emitter, y: ir.Value, x: ir.Value, shape: ir.Value) -> Vjp:
    return lambda g: op.unbroadcast(g, y, x)


@linear("Tile")
def tile(op: Emitter, y: ir.Value, x: ir.Value, repeats: ir.Value) -> Vjp:
    times = op.array(repeats)
    if times is None:
        raise Unsupported("its repeats are not constant")
    if not any(isinstance(d, int) for d in op.dims(x)):
        raise Unsupported("its input has no fixed sizes")

    def vjp(g: ir.Value) -> ir.Value:
        # (r0 d0, r1 d1, ...) -> (r0, d0, r1, d1, ...), summed over the r axes
        split = list(itertools.chain.from_iterable((int(r), d) for r, d in zip(times, op.dims(x), strict=True)))
        shape = [d if isinstance(d, int) else -1 for d in split]
        return op.ReduceSum(op.Reshape(g, shape), list(range(0, len(split), 2)), keepdims=0)

    return vjp


@rule("Concat", family="linear", note="c = the constant parts, 0 elsewhere")
def concat(op: Emitter, y: ir.Value, *parts: ir.Value, axis: int) -> Local:
    if len(parts) == 1:
        return Local(lambda g: g)
    axis %= op.rank(y)
    varying = all(op.is_active(p) for p in parts)
    if not all(isinstance(op.dims(p)[axis], int) for p in parts):
        raise Unsupported("it joins samples of the batch", FIX_BATCH)

    def vjp(g: ir.Value) -> list[Cotangent]:
        recipe = op.recipe(g, y)
        if varying and axis == 1 and recipe and recipe.channels and all(blockable(op, p) for p in parts):
            bounds = itertools.accumulate((op.size(p, 1) for p in parts), initial=0)
            return [recipe.channels(a, b, p) for (a, b), p in zip(itertools.pairwise(bounds), parts, strict=True)]
        if varying:
            return list(op.several("Split", g, [op.size(p, axis) for p in parts], axis=axis, outputs=len(parts)))
        cotangents: list[Cotangent] = []
        start = 0
        for p in parts:
            stop = start + op.size(p, axis)
            cotangents.append(op.Slice(g, [start], [stop], [axis]) if op.is_active(p) else None)
            start = stop
        return cotangents

    if varying:
        return Local(vjp)
    blanks = [op.zeros_like(p) if op.is_active(p) else p for p in parts]
    return Local(vjp, op.Concat(*blanks, axis=axis))


@rule("Split", family="linear", note="c = 0 (linear)")
def split(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    sizes: ir.Value | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> Local:
    outputs = y if isinstance(y, tuple) else (y,)

    def vjp(*cotangents: Cotangent) -> ir.Value:
        filled = [op.zeros_like(v) if g is None else g for g, v in zip(cotangents, outputs, strict=True)]
        return op.Concat(*filled, axis=axis)

    return Local(vjp)


@rule("Pad", family="linear", note="c = the constant that is padded with")
def pad(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    pads: ir.Value,
    value: ir.Value | None = None,
    axes: ir.Value | None = None,
    *,
    mode: str = "constant",
) -> Local:
    rank = op.rank(x)
    amounts, along = op.array(pads), op.array(axes)
    if amounts is None or (axes is not None and along is None):
        raise Unsupported("its pads are not constant")
    chosen = [int(a) % rank for a in along.reshape(-1)] if along is not None else list(range(rank))
    begin, end = [0] * rank, [0] * rank
    for i, axis in enumerate(chosen):
        begin[axis], end[axis] = int(amounts[i]), int(amounts[len(chosen) + i])
    if mode == "constant":

        def vjp(g: ir.Value) -> list[Cotangent]:
            gx = _unpad(op, g, begin, end)
            if value is None or not op.is_active(value):
                return [gx, None, None]
            filled = op.Sub(op.ReduceSum(g, keepdims=0), op.ReduceSum(gx, keepdims=0))
            return [gx, None, op.reshape_like(filled, value)]

        fill = op.array(value)
        if value is None or (fill is not None and not np.any(fill)) or (op.is_active(x) and op.is_active(value)):
            return Local(vjp)
        kept = op.Pad(x, [*begin, *end])
        constant = op.Sub(y, kept) if op.is_active(x) else kept
        endless = fill is None or not np.isfinite(fill).all()  # a mask
        return Local(vjp, finite(op, constant) if endless else constant)

    def gather_vjp(g: ir.Value) -> ir.Value:
        # Every padded position copies one of the input: x' = P g along each axis, P[i, j] = 1 where j copies i.
        for axis in range(rank):
            if begin[axis] or end[axis]:
                size = op.size(x, axis)
                lead, trail = max(begin[axis], 0), max(end[axis], 0)
                source = np.pad(np.arange(size), (lead, trail), mode=mode)  # type: ignore[call-overload]
                source = source[max(-begin[axis], 0) : len(source) - max(-end[axis], 0)]
                if is_large(size, len(source)) and min(begin[axis], end[axis]) >= 0:
                    g = _fold_edges(op, g, source, axis, lead, size, rank)
                    continue
                g = along_axis(op, g, np.eye(size)[:, source], axis, rank)
        return g

    return Local(gather_vjp)


def _fold_edges(
    op: Emitter, g: ir.Value, source: npt.NDArray[np.int64], axis: int, lead: int, size: int, rank: int
) -> ir.Value:
    """Add what was padded on both sides of an axis to the entries it copies."""
    inner = op.Slice(g, [lead], [lead + size], [axis])
    edges = op.Concat(op.Slice(g, [0], [lead], [axis]), op.Slice(g, [lead + size], [_LAST], [axis]), axis=axis)
    copied = np.concatenate([source[:lead], source[lead + size :]])
    index = op.Reshape(op.constant(copied), [-1 if i == axis else 1 for i in range(rank)])
    return scatter_add(op, "ScatterElements", inner, op.Expand(index, op.Shape(edges)), edges, axis=axis)


def _unpad(op: Emitter, g: ir.Value, begin: Sequence[int], end: Sequence[int]) -> ir.Value:
    """Crop what was padded, pad with zeros what was cropped."""
    axes = [i for i, pair in enumerate(zip(begin, end, strict=True)) if max(pair) > 0]
    if axes:
        stops = [-end[i] if end[i] > 0 else _LAST for i in axes]
        g = op.Slice(g, [max(begin[i], 0) for i in axes], stops, axes)
    back = [max(-p, 0) for p in (*begin, *end)]
    return op.Pad(g, back) if any(back) else g


@linear("DepthToSpace")
def depth_to_space(op: Emitter, y: ir.Value, x: ir.Value, *, blocksize: int, mode: str = "DCR") -> Vjp:
    c, h, w = op.size(y, 1), op.size(x, 2), op.size(x, 3)
    b = blocksize

    def vjp(g: ir.Value) -> ir.Value:
        # y[c, h b + i, w b + j]: channel of x is (i, j, c) in DCR and (c, i, j) in CRD
        split = op.Reshape(g, [-1, c, h, b, w, b])
        order = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
        return op.reshape_like(op.Transpose(split, perm=order), x)

    return vjp


@linear("SpaceToDepth")
def space_to_depth(op: Emitter, y: ir.Value, x: ir.Value, *, blocksize: int, mode: str = "DCR") -> Vjp:
    return lambda g: op.DepthToSpace(g, blocksize=blocksize, mode=mode)


@linear("Trilu", note="c = 0 (linear)")
def trilu(op: Emitter, y: ir.Value, x: ir.Value, k: ir.Value | None = None, *, upper: int = 1) -> Vjp:
    return lambda g: op.Trilu(g, k, upper=upper)


@rule("Col2Im", family="linear", note="c = 0 (linear)")
def col2im(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    image: ir.Value,
    block: ir.Value,
    *,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Local:
    kernel = op.array(block)
    if kernel is None:
        raise Unsupported("its block shape is not constant")
    cells, size = int(np.prod(kernel)), [op.size(y, i) for i in range(2, op.rank(y))]

    def vjp(g: ir.Value) -> ir.Value:
        # The blocks of every channel: a convolution with one filter for each cell of a block.
        filters = np.eye(cells, dtype=dtype_of(g).numpy()).reshape(cells, 1, *(int(k) for k in kernel))
        blocks = op.Conv(op.Reshape(g, [-1, 1, *size]), filters, dilations=dilations, pads=pads, strides=strides)
        return op.reshape_like(blocks, x)

    return Local(vjp)
