"""How to bring a value to (N, channels, *grid): reshape, transpose, crop extra tokens, roll back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fgonnx.engine.maps.axes import Atom, Layout, size_of


@dataclass(frozen=True)
class Crop:
    """The patches of a value that also has extra tokens: a slice along one axis.

    Attributes
    ----------
    shape : tuple of int
        Shape with one axis per atom, all tokens in one axis, -1 for the batch.
    axis, start, stop : int
        The slice.
    """

    shape: tuple[int, ...]
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class Placement:
    """How to bring a value to (N, channels, *grid).

    Attributes
    ----------
    split : tuple of int
        Shape with one axis per atom, -1 for the batch.
    perm : tuple of int
        Order of those axes: batch, channels, then for each grid axis its atoms from coarse to fine.
    shape : tuple of int
        (-1, channels, *grid).
    trivial : bool
        Whether the value has that shape already.
    crop : Crop, optional
        The patches to keep first, where the value has extra tokens.
    roll : tuple of int
        Position of the first entry of each grid axis; empty where all are 0.
    """

    split: tuple[int, ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]
    trivial: bool
    crop: Crop | None = None
    roll: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        """Spatial sizes; all 1 where the value is not spatial."""
        return self.shape[2:]

    @property
    def spatial(self) -> bool:
        """Whether the value has a grid of more than one cell."""
        return any(s > 1 for s in self.grid)

    def whole(self, grid: Sequence[int]) -> bool:
        """Tell whether it has cells along every axis of the input's grid: no row of it was picked."""
        return self.spatial and all(s > 1 or size == 1 for s, size in zip(self.grid, grid, strict=True))


def place(layout: Layout, rank: int, batched: bool) -> Placement | None:
    """Return how to place a value on a grid of `rank` axes; None where its batch axis cannot be traced.

    A value with only part of the grid, or none of it, is not spatial: all of its axes count as channels.
    """
    outer = [a for axis in layout for a in axis]
    if batched and sum(a.kind == "batch" for a in outer) != 1:
        return None
    tokens = [k for k, a in enumerate(outer) if a.inner]
    if len(tokens) == 1:
        k = tokens[0]
        atoms = [*outer[:k], *outer[k].inner, *outer[k + 1 :]]
        start = outer[k].lead
        crop = Crop(_sizes(outer), k, start, start + size_of(outer[k].inner))
        placed = _place(layout, atoms, rank, crop)
        if placed.spatial:
            return placed
    return _place(layout, outer, rank, None)


def _sizes(atoms: Sequence[Atom]) -> tuple[int, ...]:
    return tuple(a.size if a.kind != "batch" else -1 for a in atoms)


def _place(layout: Layout, atoms: Sequence[Atom], rank: int, crop: Crop | None) -> Placement:
    # Windows of 7 x 7 on a 56 x 56 grid, (64 N, 49, C), have the atoms
    #     0: N   1: s0 8 step 7   2: s1 8 step 7   3: s0 7 step 1   4: s1 7 step 1   5: other C
    # so grids = [[1, 3], [2, 4]], split (-1, 8, 8, 7, 7, C), perm (0, 5, 1, 3, 2, 4) and shape (-1, C, 56, 56).
    # Atoms are referred to by index, as equal ones occur twice in the (H W, H W) scores of self-attention; these fail
    # `_covers`, and the value is not spatial.
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
    shape = (-1, math.prod(atoms[k].size for k in rest), *sizes)
    roll = tuple(_roll_offset([atoms[k] for k in g]) for g in grids)
    plain = len(layout) == rank + 2 and perm == tuple(range(len(perm))) and crop is None and not any(roll)
    trivial = plain and all(
        math.prod(a.size for a in axis if a.kind != "batch") == s for axis, s in zip(layout[1:], shape[1:], strict=True)
    )
    return Placement(_sizes(atoms), perm, shape, trivial, crop, roll if any(roll) else ())


def _covers(atoms: Sequence[Atom]) -> bool:
    """Tell whether atoms from coarse to fine make up a whole grid axis; without atoms the axis has one cell.

    The finest may be missing: patches whose pixels are channels form a coarser grid.
    """
    if not atoms:
        return True
    if len({(a.whole, a.first, a.period) for a in atoms}) > 1 or atoms[0].step * atoms[0].size != atoms[0].whole:
        return False
    return all(a.step == b.step * b.size for a, b in itertools.pairwise(atoms))


def _roll_offset(atoms: Sequence[Atom]) -> int:
    """Return the position of the first entry, in cells of the grid, rounded down."""
    if not atoms or atoms[0].whole != atoms[0].period:
        return 0
    return atoms[0].first // atoms[-1].step
