"""Which axis of each value is batch, which is an image row or column, also through Transpose and Reshape.

Every axis is a tuple of atoms, outermost first. An atom is the batch, a part of a spatial axis of the input, or
anything else; a Reshape splits and joins atoms, a Transpose permutes axes. Tokens (H and W joined in one axis), windows
folded into the batch and channel shuffles come out of the same algebra. An axis of one entry has no atoms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fgonnx.probe import batch_factor

Dim = int | ir.SymbolicDim


@dataclass(frozen=True)
class Atom:
    """A factor of an axis.

    Attributes
    ----------
    kind : str
        "batch", "other", or "s0", "s1", ... for the spatial axes of the input in order.
    size : int
        Number of entries; 0 for the batch, whose size is free.
    step : int
        For a spatial atom: how many positions of its grid one step of it is.
    whole : int
        For a spatial atom: size of the grid axis it is a factor of.
    """

    kind: str
    size: int
    step: int = 1
    whole: int = 0


Axis = tuple[Atom, ...]
Layout = tuple[Axis, ...]

_BATCH: Axis = (Atom("batch", 0),)
_SPATIAL_OPS = {
    "AveragePool", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "LpPool", "MaxPool", "Resize", "SpaceToDepth", "Upsample",
}  # fmt: skip
_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def other(dim: Dim) -> Axis:
    """Return an axis of which nothing is known."""
    if not isinstance(dim, int):
        return _BATCH if batch_factor(dim) == 1 else (*_BATCH, Atom("other", batch_factor(dim)))
    return () if dim == 1 else (Atom("other", dim),)


def grid(index: int, size: int) -> Axis:
    """Return a whole spatial axis."""
    return () if size == 1 else (Atom(f"s{index}", size, 1, size),)


def input_layout(letters: str, dims: Sequence[Dim], batched: bool) -> Layout:
    """Return the layout of the explained input from its axes as letters, such as "NCHW"."""
    axes: list[Axis] = []
    spatial = 0
    for i, dim in enumerate(dims):
        letter = letters[i] if i < len(letters) else "?"
        if letter == "N":
            axes.append(_BATCH if batched else ())
        elif letter in "DHWF" and isinstance(dim, int):
            axes.append(grid(spatial, dim))
            spatial += 1
        else:
            axes.append(other(dim))
    return tuple(axes)


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
    layouts = {x: layout}
    for node in nodes:
        sources = [v for v in node.inputs if v is not None and v in layouts]
        if not sources:
            continue
        for y in node.outputs:
            if y in active and y.shape is not None:
                layouts[y] = _layout(node, y, layouts)
    return layouts


def _layout(node: ir.Node, y: ir.Value, layouts: dict[ir.Value, Layout]) -> Layout:
    assert y.shape is not None
    dims = tuple(y.shape.dims)
    known = [(v, layouts[v]) for v in node.inputs if v is not None and v in layouts]
    first = known[0][1]
    handler = _HANDLERS.get(node.op_type)
    if handler is not None:
        result = handler(node, dims, first)
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
    """Axes keep their meaning when their size changes: grids stay grids, the rest becomes other."""
    if len(dims) != len(first):
        return None
    return tuple(a if _size(a) == d or _same_batch(a, d) else _resized(a, d) for a, d in zip(first, dims, strict=True))


def _resized(axis: Axis, dim: Dim) -> Axis:
    if isinstance(dim, int) and len(axis) == 1 and axis[0].whole == axis[0].size and axis[0].kind.startswith("s"):
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
    """Follow a Reshape: split and join atoms in order; None where sizes do not divide."""
    atoms = [a for axis in layout for a in axis]
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
                axis.append(Atom(atom.kind, need, atom.step * low, atom.whole))
                atoms.insert(0, Atom(atom.kind, low, atom.step, atom.whole))
                need = 1
            else:
                return None
        axes.append(tuple(axis))
    return tuple(axes) if not atoms else None


def _transpose(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(first))[::-1]
    return tuple(first[p] for p in perm)


def _gather(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(first)
    added = len(dims) - len(first) + 1
    return (*first[:axis], *(other(d) for d in dims[axis : axis + added]), *first[axis + 1 :])


def _gemm(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout:
    transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
    return (first[1 if transposed else 0], other(dims[1]))


def _reduce(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    if len(dims) == len(first):
        return tuple(a if d != 1 else () for a, d in zip(first, dims, strict=True))
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None or axes.const_value is None:
        return tuple(other(d) for d in dims)
    gone = {int(a) % len(first) for a in axes.const_value.numpy().reshape(-1)}
    return tuple(a for i, a in enumerate(first) if i not in gone)


def _convolution(node: ir.Node, dims: Sequence[Dim], first: Layout) -> Layout | None:
    result = _resampled(dims, first)
    return None if result is None else (result[0], other(dims[1]), *result[2:])


_HANDLERS: dict[str, Callable[[ir.Node, Sequence[Dim], Layout], Layout | None]] = {
    "Transpose": _transpose,
    "Gather": _gather,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    **{
        f"Reduce{k}": _reduce
        for k in ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Prod")
    },
}


def _matmul(node: ir.Node, dims: Sequence[Dim], layouts: dict[ir.Value, Layout]) -> Layout | None:
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None
    assert b is not None
    if any(v.shape is None or v.shape.rank() < 2 for v in (a, b)):
        return None
    left, right = layouts.get(a), layouts.get(b)
    batch = _broadcast(dims[:-2], [(v, lay[:-2]) for v, lay in ((a, left), (b, right)) if lay is not None])
    row = left[-2] if left is not None else other(dims[-2])
    column = right[-1] if right is not None else other(dims[-1])
    return (*batch, row, column)


def _broadcast(dims: Sequence[Dim], known: Sequence[tuple[ir.Value, Layout]]) -> Layout:
    """Elementwise: each axis from the input that knows most about it; changed sizes keep grids as grids."""
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
            if best is None or (_knows(candidate) > _knows(best)):
                best = candidate
        result.append(best if best is not None else other(dim))
    return tuple(result)


def _knows(axis: Axis) -> int:
    return sum(a.kind != "other" for a in axis)


@dataclass(frozen=True)
class Placement:
    """How to bring a value to (N, channels, *grid).

    Attributes
    ----------
    split : tuple of int
        Shape with one axis per atom, -1 for the batch.
    perm : tuple of int
        Order of those axes: batch, others, grid axes from coarse to fine.
    shape : tuple of int
        (-1, channels, *grid).
    trivial : bool
        Whether the value is in that form already.
    """

    split: tuple[int, ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]
    trivial: bool

    @property
    def grid(self) -> tuple[int, ...]:
        """Spatial sizes; all 1 where the value is not spatial."""
        return self.shape[2:]

    @property
    def spatial(self) -> bool:
        """Whether the value has a grid of more than one cell."""
        return any(s > 1 for s in self.grid)


def place(layout: Layout, rank: int, batched: bool) -> Placement | None:
    """Return how to place a value on a grid of `rank` axes; None where its batch axis is lost.

    A value that knows only part of the grid, or none of it, is not spatial: all of it counts as channels.
    """
    atoms = [a for axis in layout for a in axis]
    if batched and sum(a.kind == "batch" for a in atoms) != 1:
        return None
    # Indices into atoms: equal atoms occur twice where a grid meets itself, as in a matrix of attention scores.
    grids = [
        sorted((k for k, a in enumerate(atoms) if a.kind == f"s{i}"), key=lambda k: -atoms[k].step) for i in range(rank)
    ]
    sizes = [math.prod(atoms[k].size for k in g) for g in grids]
    if not all(_covers([atoms[k] for k in g]) for g in grids) or all(s == 1 for s in sizes):
        grids, sizes = [[] for _ in range(rank)], [1] * rank
    spatial = [k for g in grids for k in g]
    batch = [k for k, a in enumerate(atoms) if a.kind == "batch"]
    rest = [k for k in range(len(atoms)) if k not in batch and k not in spatial]
    perm = (*batch, *rest, *spatial)
    split = tuple(a.size if a.kind != "batch" else -1 for a in atoms)
    shape = (-1, math.prod(atoms[k].size for k in rest), *sizes)
    plain = len(layout) == rank + 2 and perm == tuple(range(len(perm)))
    trivial = plain and all(
        math.prod(a.size for a in axis if a.kind != "batch") == s for axis, s in zip(layout[1:], shape[1:], strict=True)
    )
    return Placement(split, perm, shape, trivial)


def _covers(atoms: Sequence[Atom]) -> bool:
    """Tell whether atoms from coarse to fine make up their whole grid axis (none at all: one cell)."""
    step = 1
    for a in reversed(atoms):
        if a.step != step:
            return False
        step *= a.size
    return not atoms or step == atoms[0].whole
