"""Which axis of a value is the batch and which are image rows or columns: the algebra of axes, which `follow` applies.

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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fgonnx.engine.graph.probe import batch_factor

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


def size_of(axis: Axis) -> int:
    """Return the number of entries of an axis, -1 with the batch in it."""
    return -1 if any(a.kind == "batch" for a in axis) else math.prod(a.size for a in axis)


def same_batch(axis: Axis, dim: Dim) -> bool:
    """Tell whether a dimension is the batch, times what else an axis has."""
    if isinstance(dim, int):
        return False
    rest = [a.size for a in axis if a.kind != "batch"]
    return len(rest) < len(axis) and math.prod(rest) == batch_factor(dim)


def resampled(dims: Sequence[Dim], first: Layout) -> Layout | None:
    """Follow a change of sizes: a grid axis stays a grid axis, any other axis of another size becomes "other"."""
    if len(dims) != len(first):
        return None
    return tuple(a if size_of(a) == d or same_batch(a, d) else resized(a, d) for a, d in zip(first, dims, strict=True))


def resized(axis: Axis, dim: Dim) -> Axis:
    """Return an axis in another size: that of the grid where it is one, else "other"."""
    if isinstance(dim, int) and len(axis) == 1 and axis[0].entire and axis[0].size > 1:
        return grid(int(axis[0].kind[1:]), dim)
    return other(dim)


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


def cut(axis: Axis, start: int, count: int) -> Axis:
    """Slice an axis: rows of a grid, or patches without their extra tokens."""
    size = size_of(axis)
    if (start, count) == (0, size):
        return axis
    if len(axis) == 1 and axis[0].inner:
        atom = axis[0]
        begin, stop = atom.lead - start, atom.lead - start + size_of(atom.inner)
        if (begin, stop) == (0, count):
            return atom.inner
        return (replace(atom, size=count, lead=begin),) if begin >= 0 and stop <= count else other(count)
    if len(axis) == 1 and axis[0].spatial and axis[0].size == axis[0].whole:
        atom = axis[0]
        return (replace(atom, size=count, whole=count, first=(atom.first + start) % atom.period),)
    return other(count)


def joined(pieces: Sequence[Axis], total: int) -> Axis:
    """Return the axis that results from concatenating pieces."""
    sizes = [size_of(p) for p in pieces]
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


def broadcast(dims: Sequence[Dim], known: Sequence[tuple[ir.Value, Layout]]) -> Layout:
    """Follow an elementwise node: each axis is taken from the input that has most known atoms in it."""
    result: list[Axis] = []
    for i, dim in enumerate(dims):
        best: Axis | None = None
        for _, layout in known:
            k = i - len(dims) + len(layout)
            if k < 0:
                continue
            axis = layout[k]
            fits = size_of(axis) == dim or same_batch(axis, dim)
            candidate = axis if fits else resized(axis, dim)
            if best is None or (_known_atoms(candidate) > _known_atoms(best)):
                best = candidate
        result.append(best if best is not None else other(dim))
    return tuple(result)


def _known_atoms(axis: Axis) -> int:
    return sum(a.kind != "other" for a in axis)
