"""Track which axis of each value is the batch and which are image rows or columns, through Transpose and Reshape.

Every axis is a tuple of atoms, outermost first. An atom is the batch, a factor of a spatial axis of the input, or
anything else; a Reshape splits and merges atoms, a Transpose permutes axes. Tokens (H and W merged into one axis),
windows folded into the batch and channel shuffles follow from the same algebra. An axis of size 1 has no atoms.

    (N, C, 56, 56)                 N | other C | s0: 56 | s1: 56
    Reshape (N, C, 8, 7, 8, 7)     N | other C | s0: 8, step 7 | s0: 7, step 1 | s1: 8, step 7 | s1: 7, step 1
    Transpose, Reshape (64 N, 49, C), windows of 7 x 7:
                                   N, s0: 8, s1: 8 | s0: 7, s1: 7 | other C

Two cases need more. A class token before the patches makes an axis of 1 + H W entries: one "tokens" atom that holds
the atoms of the patches and the number of entries before them. A roll (shifted windows) is two slices concatenated in
swapped order: an atom records which position of its grid comes first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fgonnx.engine.graph.probe import batch_factor
from fgonnx.engine.graph.values import content_of, dims_of, optional, required
from fgonnx.engine.maps.reads import Reads

Dim = int | ir.SymbolicDim


@dataclass(frozen=True)
class Atom:
    """A factor of an axis.

    Attributes
    ----------
    kind : str
        "batch", "other", "tokens", or "s0", "s1", ... for the spatial axes of the input in order.
    size : int
        Number of entries; 0 for the batch, whose size is free.
    step : int
        For a spatial atom: its stride, in positions of the grid axis.
    whole : int
        For a spatial atom: size of the grid axis it is a factor of.
    first, period : int
        For a spatial atom: entry i of the grid axis is position (first + i) modulo the period. The period equals
        `whole` for a roll and is larger for a slice.
    lead : int
        For "tokens": how many entries come before the patches.
    inner : tuple of Atom
        For "tokens": the atoms of the patches.
    """

    kind: str
    size: int
    step: int = 1
    whole: int = 0
    first: int = 0
    period: int = 0
    lead: int = 0
    inner: tuple[Atom, ...] = ()

    @property
    def spatial(self) -> bool:
        """Whether it is a factor of a grid axis."""
        return self.kind.startswith("s")

    @property
    def entire(self) -> bool:
        """Whether it is a whole grid axis, or the coarse factor of one whose finer factor has become channels."""
        return self.spatial and self.step * self.size == self.whole


Axis = tuple[Atom, ...]
Layout = tuple[Axis, ...]

BATCH: Axis = (Atom("batch", 0),)
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


def other(dim: Dim) -> Axis:
    """Return an axis of unknown meaning."""
    if not isinstance(dim, int):
        return BATCH if batch_factor(dim) == 1 else (*BATCH, Atom("other", batch_factor(dim)))
    return () if dim == 1 else (Atom("other", dim),)


def grid(index: int, size: int) -> Axis:
    """Return a whole spatial axis."""
    return () if size == 1 else (Atom(f"s{index}", size, 1, size, 0, size),)


def input_layout(letters: str, dims: Sequence[Dim], batched: bool) -> Layout:
    """Return the layout of the explained input from its axes as letters, such as "NCHW"."""
    axes: list[Axis] = []
    spatial = 0
    for i, dim in enumerate(dims):
        letter = letters[i] if i < len(letters) else "?"
        if letter == "N":
            axes.append(BATCH if batched else ())
        elif letter in "DHWF" and isinstance(dim, int):
            axes.append(grid(spatial, dim))
            spatial += 1
        else:
            axes.append(other(dim))
    return tuple(axes)


def grid_axes(layout: Layout) -> tuple[int | None, ...]:
    """Return for each axis of a value which whole axis of the input's grid it is; None for the others."""
    return tuple(int(axis[0].kind[1:]) if len(axis) == 1 and axis[0].entire else None for axis in layout)


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
        result = _resampled(dims, first)
    elif node.op_type in _RESHAPES:
        result = regroup(first, dims)
    elif node.op_type == "MatMul":
        result = _matmul(node, dims, layouts)
    else:
        result = _broadcast(dims, known)
    if result is None or len(result) != len(dims):
        return tuple(other(d) for d in dims)
    return result


def _resampled(dims: Sequence[Dim], first: Layout) -> Layout | None:
    """Follow a change of sizes: a grid axis stays a grid axis, any other axis of another size becomes "other"."""
    if len(dims) != len(first):
        return None
    return tuple(a if _size(a) == d or _same_batch(a, d) else _resized(a, d) for a, d in zip(first, dims, strict=True))


def _resized(axis: Axis, dim: Dim) -> Axis:
    if isinstance(dim, int) and len(axis) == 1 and axis[0].entire and axis[0].size > 1:
        return grid(int(axis[0].kind[1:]), dim)
    return other(dim)


def _size(axis: Axis) -> int:
    return -1 if any(a.kind == "batch" for a in axis) else math.prod(a.size for a in axis)


def _same_batch(axis: Axis, dim: Dim) -> bool:
    if isinstance(dim, int):
        return False
    rest = [a.size for a in axis if a.kind != "batch"]
    return len(rest) < len(axis) and math.prod(rest) == batch_factor(dim)


def regroup(layout: Layout, dims: Sequence[Dim]) -> Layout | None:
    """Follow a Reshape: split and merge atoms in order; None where sizes do not divide."""
    atoms = [a for axis in layout for a in axis if a.size != 1]  # a single row or column is an axis of one entry
    axes: list[Axis] = []
    for dim in dims:
        batch, need = (False, dim) if isinstance(dim, int) else (True, batch_factor(dim))
        axis: list[Atom] = []
        while batch or need != 1:
            if not atoms:
                return None
            atom = atoms.pop(0)
            if atom.kind == "batch":
                if not batch:
                    return None
                batch = False
                axis.append(atom)
            elif need % atom.size == 0:
                need //= atom.size
                axis.append(atom)
            elif atom.size % need == 0:
                low = atom.size // need
                if atom.inner:  # the position of the patches within a part of the tokens is not tracked
                    atom = Atom("other", atom.size)
                axis.append(replace(atom, size=need, step=atom.step * low))
                atoms.insert(0, replace(atom, size=low))
                need = 1
            else:
                return None
        axes.append(_merged(axis))
    return tuple(axes) if not atoms else None


def _merged(atoms: Sequence[Atom]) -> Axis:
    """Merge neighbours that were one atom before a split: windows side by side are rows again."""
    axis: list[Atom] = []
    for low in atoms:
        high = axis[-1] if axis else None
        if high is not None and low.spatial and high == replace(low, size=high.size, step=low.step * low.size):
            axis[-1] = replace(low, size=high.size * low.size)
        else:
            axis.append(low)
    return tuple(axis)


def _transpose(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(first))[::-1]
    return tuple(first[p] for p in perm)


def _gather(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(first)
    added = len(dims) - len(first) + 1
    return (*first[:axis], *(other(d) for d in dims[axis : axis + added]), *first[axis + 1 :])


def _looked_up(node: ir.Node, dims: Sequence[Dim], ids: Layout) -> Layout:
    """Follow ids to the rows that they select of a table."""
    at = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    at %= len(dims) - len(ids) + 1
    return (*(other(d) for d in dims[:at]), *ids, *(other(d) for d in dims[at + len(ids) :]))


def _encoded(node: ir.Node, dims: Sequence[Dim], ids: Layout) -> Layout:
    """Follow ids to their one-hot encoding."""
    at = (node.attributes["axis"].as_int() if "axis" in node.attributes else -1) % len(dims)
    return (*ids[:at], other(dims[at]), *ids[at:])


def _cut(axis: Axis, start: int, count: int) -> Axis:
    """Slice an axis: rows of a grid, or patches without their extra tokens."""
    size = _size(axis)
    if (start, count) == (0, size):
        return axis
    if len(axis) == 1 and axis[0].inner:
        atom = axis[0]
        begin, stop = atom.lead - start, atom.lead - start + _size(atom.inner)
        if (begin, stop) == (0, count):
            return atom.inner
        return (replace(atom, size=count, lead=begin),) if begin >= 0 and stop <= count else other(count)
    if len(axis) == 1 and axis[0].spatial and axis[0].size == axis[0].whole:
        atom = axis[0]
        return (replace(atom, size=count, whole=count, first=(atom.first + start) % atom.period),)
    return other(count)


def _slice(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    bounds = [content_of(v) for v in node.inputs[1:]]
    if len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return None
    along = bounds[2] if len(bounds) > 2 and bounds[2] is not None else range(len(bounds[0]))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else [1] * len(bounds[0])
    axes = list(first)
    for start, axis, step in zip(bounds[0], along, steps, strict=True):
        i, dim = int(axis) % len(first), dims[int(axis)]
        size = _size(first[i])
        if not isinstance(dim, int) or size < 0:
            axes[i] = first[i] if _same_batch(first[i], dim) else other(dim)
        elif step == 1:
            axes[i] = _cut(first[i], slice(int(start), None).indices(size)[0], dim)
        else:  # every second row is a coarser grid; a reversed axis no longer matches the input's positions
            axes[i] = _resized(first[i], dim) if step > 0 else other(dim)
    return tuple(axes)


def _split(node: ir.Node, y: ir.Value, first: Layout) -> Layout | None:
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(first)
    start = 0
    for v in node.outputs:
        dim = v.shape.dims[axis] if v.shape is not None else None
        if not isinstance(dim, int) or _size(first[axis]) < 0:
            return None
        if v is y:
            return (*first[:axis], _cut(first[axis], start, dim), *first[axis + 1 :])
        start += dim
    return None


def _concat(node: ir.Node, dims: Sequence[Dim], layouts: dict[ir.Value, Layout]) -> Layout | None:
    axis = node.attributes["axis"].as_int() % len(dims)
    known = [(v, layouts[v]) for v in node.inputs if v is not None and v in layouts]
    result = list(_broadcast(dims, known))
    total = dims[axis]
    if isinstance(total, int):
        pieces = []
        for v in (required(node, i) for i in range(len(node.inputs))):
            size = v.shape.dims[axis] if v.shape is not None else None
            if not isinstance(size, int):
                return None
            pieces.append(layouts[v][axis] if v in layouts else other(size))
        result[axis] = _joined(pieces, total)
    return tuple(result)


def _joined(pieces: Sequence[Axis], total: int) -> Axis:
    """Return the axis that results from concatenating pieces."""
    sizes = [_size(p) for p in pieces]
    if -1 in sizes:
        return other(total)
    atoms = [p[0] for p in pieces if len(p) == 1 and p[0].spatial and p[0].size == p[0].whole]
    if len(atoms) == len(pieces) and len({a.kind for a in atoms}) == 1:
        gaps = [(b.first - a.first - a.size) % a.period for a, b in itertools.pairwise(atoms)]
        if len({a.period for a in atoms}) == 1 and not any(gaps) and total <= atoms[0].period:
            return (replace(atoms[0], size=total, whole=total),)
        return grid(int(atoms[0].kind[1:]), total)
    patches = [i for i, p in enumerate(pieces) if p and all(a.spatial or a.inner for a in p)]
    if len(patches) != 1 or total == sizes[patches[0]]:
        return pieces[patches[0]] if len(patches) == 1 else other(total)
    piece, before = pieces[patches[0]], sum(sizes[: patches[0]])
    if len(piece) == 1 and piece[0].inner:
        return (replace(piece[0], size=total, lead=piece[0].lead + before),)
    if any(a.inner for a in piece):
        return other(total)
    return (Atom("tokens", total, lead=before, inner=piece),)


def _reordered(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    if len(dims) != len(first):
        return None
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else -1) % len(first)
    return tuple(other(d) if i == axis else a for i, (a, d) in enumerate(zip(first, dims, strict=True)))


def _same_sizes(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    if len(dims) != len(first):
        return None
    return tuple(a if _size(a) == d or _same_batch(a, d) else other(d) for a, d in zip(first, dims, strict=True))


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
    result = _resampled(dims, first)
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
    batch = _broadcast(dims[:-2], [(v, lay[:-2]) for v, lay in ((a, left), (b, right)) if lay is not None])
    row = left[-2] if left is not None else other(dims[-2])
    column = right[-1] if right is not None else other(dims[-1])
    return (*batch, row, column)


def _broadcast(dims: Sequence[Dim], known: Sequence[tuple[ir.Value, Layout]]) -> Layout:
    """Follow an elementwise node: each axis is taken from the input that has most known atoms in it."""
    result: list[Axis] = []
    for i, dim in enumerate(dims):
        best: Axis | None = None
        for _, layout in known:
            k = i - len(dims) + len(layout)
            if k < 0:
                continue
            axis = layout[k]
            fits = _size(axis) == dim or _same_batch(axis, dim)
            candidate = axis if fits else _resized(axis, dim)
            if best is None or (_known_atoms(candidate) > _known_atoms(best)):
                best = candidate
        result.append(best if best is not None else other(dim))
    return tuple(result)


def _known_atoms(axis: Axis) -> int:
    return sum(a.kind != "other" for a in axis)
