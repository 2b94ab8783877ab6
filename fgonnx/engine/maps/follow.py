"""Follow the axes of the input through a graph, operator by operator; `axes` has the algebra."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from fgonnx.engine.graph.values import content_of, dims_of, optional, required
from fgonnx.engine.maps.axes import (
    Dim,
    Layout,
    broadcast,
    cut,
    grid,
    joined,
    other,
    regroup,
    resampled,
    resized,
    same_batch,
    size_of,
)
from fgonnx.engine.maps.reads import Reads

_SPATIAL_OPS = {
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "Resize",
    "SpaceToDepth",
    "Upsample",
}
_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def propagate(nodes: Sequence[ir.Node], x: ir.Value, layout: Layout, active: set[ir.Value]) -> dict[ir.Value, Layout]:
    """Return the layout of every active value.

    Parameters
    ----------
    nodes : sequence of ir.Node
        Nodes in topological order, with exact shapes on their values.
    x : ir.Value
        The explained input.
    layout : Layout
        Its layout.
    active : set of ir.Value
        Values that depend on it.
    """
    layouts, reads = {x: layout}, Reads()
    for node in nodes:
        reads.see(node, layouts)
        sources = [v for v in node.inputs if v is not None and v in layouts]
        if not sources:
            continue
        for y in node.outputs:
            if y in active and y.shape is not None:
                layouts[y] = _layout(node, y, layouts)
                if node.op_type == "Concat" and (last := reads.joined(node)) is not None:
                    at = node.attributes["axis"].as_int() % len(layouts[y])
                    layouts[y] = (*layouts[y][:at], grid(last.axis, last.size), *layouts[y][at + 1 :])
    return layouts


def behind(nodes: Sequence[ir.Node], source: ir.Value, y: ir.Value, layout: Layout) -> Layout:
    """Return the layout of a value computed from a source of any type, given the source's."""
    reached = {source}
    for node in nodes:
        if any(v in reached for v in node.inputs if v is not None):
            reached.update(node.outputs)
        if y in node.outputs:
            break
    return propagate(nodes, source, layout, reached).get(y, tuple(other(d) for d in dims_of(y)))


def _layout(node: ir.Node, y: ir.Value, layouts: dict[ir.Value, Layout]) -> Layout:
    dims = dims_of(y)
    known = [(v, layouts[v]) for v in node.inputs if v is not None and v in layouts]
    first = known[0][1]
    handler = _HANDLERS.get(node.op_type)
    if node.op_type == "Gather" and node.inputs[0] not in layouts:
        result: Layout | None = _looked_up(node, dims, first)
    elif node.op_type == "OneHot":
        result = _encoded(node, dims, first)
    elif handler is not None:
        result = handler(node, dims, first)
    elif node.op_type == "Concat":
        result = _concat(node, dims, layouts)
    elif node.op_type == "Split":
        result = _split(node, y, first)
    elif node.op_type in _SPATIAL_OPS:
        result = resampled(dims, first)
    elif node.op_type in _RESHAPES:
        result = regroup(first, dims)
    elif node.op_type == "MatMul":
        result = _matmul(node, dims, layouts)
    else:
        result = broadcast(dims, known)
    if result is None or len(result) != len(dims):
        return tuple(other(d) for d in dims)
    return result


def _transpose(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(first))[::-1]
    return tuple(first[p] for p in perm)


def _gather(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    axis = node.attributes.get_int("axis", 0) % len(first)
    added = len(dims) - len(first) + 1
    return (*first[:axis], *(other(d) for d in dims[axis : axis + added]), *first[axis + 1 :])


def _looked_up(node: ir.Node, dims: Sequence[Dim], ids: Layout) -> Layout:
    """Follow ids to the rows that they select of a table."""
    at = node.attributes.get_int("axis", 0)
    at %= len(dims) - len(ids) + 1
    return (*(other(d) for d in dims[:at]), *ids, *(other(d) for d in dims[at + len(ids) :]))


def _encoded(node: ir.Node, dims: Sequence[Dim], ids: Layout) -> Layout:
    """Follow ids to their one-hot encoding."""
    at = node.attributes.get_int("axis", -1) % len(dims)
    return (*ids[:at], other(dims[at]), *ids[at:])


def _slice(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    bounds = [content_of(v) for v in node.inputs[1:]]
    if len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return None
    along = bounds[2] if len(bounds) > 2 and bounds[2] is not None else range(len(bounds[0]))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else [1] * len(bounds[0])
    axes = list(first)
    for start, axis, step in zip(bounds[0], along, steps, strict=True):
        i, dim = int(axis) % len(first), dims[int(axis)]
        size = size_of(first[i])
        if not isinstance(dim, int) or size < 0:
            axes[i] = first[i] if same_batch(first[i], dim) else other(dim)
        elif step == 1:
            axes[i] = cut(first[i], slice(int(start), None).indices(size)[0], dim)
        else:  # every second row is a coarser grid; a reversed axis no longer matches the input's positions
            axes[i] = resized(first[i], dim) if step > 0 else other(dim)
    return tuple(axes)


def _split(node: ir.Node, y: ir.Value, first: Layout) -> Layout | None:
    axis = node.attributes.get_int("axis", 0) % len(first)
    start = 0
    for v in node.outputs:
        dim = v.shape.dims[axis] if v.shape is not None else None
        if not isinstance(dim, int) or size_of(first[axis]) < 0:
            return None
        if v is y:
            return (*first[:axis], cut(first[axis], start, dim), *first[axis + 1 :])
        start += dim
    return None


def _concat(node: ir.Node, dims: Sequence[Dim], layouts: dict[ir.Value, Layout]) -> Layout | None:
    axis = node.attributes["axis"].as_int() % len(dims)
    known = [(v, layouts[v]) for v in node.inputs if v is not None and v in layouts]
    result = list(broadcast(dims, known))
    total = dims[axis]
    if isinstance(total, int):
        pieces = []
        for v in (required(node, i) for i in range(len(node.inputs))):
            size = v.shape.dims[axis] if v.shape is not None else None
            if not isinstance(size, int):
                return None
            pieces.append(layouts[v][axis] if v in layouts else other(size))
        result[axis] = joined(pieces, total)
    return tuple(result)


def _reordered(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    if len(dims) != len(first):
        return None
    axis = node.attributes.get_int("axis", -1) % len(first)
    return tuple(other(d) if i == axis else a for i, (a, d) in enumerate(zip(first, dims, strict=True)))


def _same_sizes(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    if len(dims) != len(first):
        return None
    return tuple(a if size_of(a) == d or same_batch(a, d) else other(d) for a, d in zip(first, dims, strict=True))


def _unknown(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    return None


def _gemm(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
    return (first[1 if transposed else 0], other(dims[1]))


def _reduce(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    if len(dims) == len(first):
        return tuple(a if d != 1 else () for a, d in zip(first, dims, strict=True))
    axes = content_of(optional(node, 1))
    if axes is None:
        return tuple(other(d) for d in dims)
    reduced = {int(a) % len(first) for a in axes.reshape(-1)}
    return tuple(a for i, a in enumerate(first) if i not in reduced)


def _convolution(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    result = resampled(dims, first)
    return None if result is None else (result[0], other(dims[1]), *result[2:])


_HANDLERS: dict[str, Callable[[ir.Node, Sequence[Dim], Layout], Layout | None]] = {
    "Transpose": _transpose,
    "Gather": _gather,
    "Compress": _reordered,
    "GatherElements": _reordered,
    "GatherND": _unknown,
    "ReverseSequence": _unknown,
    "ScatterElements": _same_sizes,
    "ScatterND": _same_sizes,
    "Slice": _slice,
    "Tile": _same_sizes,
    "TopK": _reordered,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    **{
        f"Reduce{k}": _reduce
        for k in ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Prod")
    },
}


def _matmul(node: ir.Node, dims: Sequence[Dim], layouts: dict[ir.Value, Layout]) -> Layout | None:
    a, b = required(node, 0), required(node, 1)
    if any(v.shape is None or v.shape.rank() < 2 for v in (a, b)):
        return None
    left, right = layouts.get(a), layouts.get(b)
    batch = broadcast(dims[:-2], [(v, lay[:-2]) for v, lay in ((a, left), (b, right)) if lay is not None])
    row = left[-2] if left is not None else other(dims[-2])
    column = right[-1] if right is not None else other(dims[-1])
    return (*batch, row, column)
