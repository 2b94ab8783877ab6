"""How a value is brought to (N, channels, *grid): the permutation, the grid, and what lies beside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fgonnx.engine.maps.axes import Atom, Layout, _size


@dataclass(frozen=True)
class Crop:
    """Which entries of a value are patches: a run along one axis of a shape.

    Attributes
    ----------
    shape : tuple of int
        Shape with one axis per atom, tokens as one axis, -1 for the batch.
    axis, start, stop : int
        The run.
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
        Order of those axes: batch, others, grid axes from coarse to fine.
    shape : tuple of int
        (-1, channels, *grid).
    trivial : bool
        Whether the value is in that form already.
    crop : Crop, optional
        What is set aside first: class tokens and the like.
    roll : tuple of int
        Per grid axis, which position its first entry has; empty where all begin at 0.
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


def place(layout: Layout, rank: int, batched: bool) -> Placement | None:
    """Return how to place a value on a grid of `rank` axes; None where its batch axis is lost.

    A value that knows only part of the grid, or none of it, is not spatial: all of it counts as channels.
    """
    outer = [a for axis in layout for a in axis]
    if batched and sum(a.kind == "batch" for a in outer) != 1:
        return None
    tokens = [k for k, a in enumerate(outer) if a.inner]
    if len(tokens) == 1:
        k = tokens[0]
        atoms = [*outer[:k], *outer[k].inner, *outer[k + 1 :]]
        start = outer[k].lead
        crop = Crop(_sizes(outer), k, start, start + _size(outer[k].inner))
        placed = _place(layout, atoms, rank, crop)
        if placed.spatial:
            return placed
    return _place(layout, outer, rank, None)


def _sizes(atoms: Sequence[Atom]) -> tuple[int, ...]:
    return tuple(a.size if a.kind != "batch" else -1 for a in atoms)


def _place(layout: Layout, atoms: Sequence[Atom], rank: int, crop: Crop | None) -> Placement:
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
    shape = (-1, math.prod(atoms[k].size for k in rest), *sizes)
    roll = tuple(_rolled([atoms[k] for k in g]) for g in grids)
    plain = len(layout) == rank + 2 and perm == tuple(range(len(perm))) and crop is None and not any(roll)
    trivial = plain and all(
        math.prod(a.size for a in axis if a.kind != "batch") == s for axis, s in zip(layout[1:], shape[1:], strict=True)
    )
    return Placement(_sizes(atoms), perm, shape, trivial, crop, roll if any(roll) else ())


def _covers(atoms: Sequence[Atom]) -> bool:
    """Tell whether atoms from coarse to fine make up their whole grid axis (none at all: one cell).

    The finest may be missing: patches whose pixels went into channels are a coarser grid.
    """
    if not atoms:
        return True
    if len({(a.whole, a.first, a.period) for a in atoms}) > 1 or atoms[0].step * atoms[0].size != atoms[0].whole:
        return False
    return all(a.step == b.step * b.size for a, b in itertools.pairwise(atoms))


def _rolled(atoms: Sequence[Atom]) -> int:
    """Return the position of the first entry, in cells of the grid; a roll by a part of a cell is none."""
    if not atoms or atoms[0].whole != atoms[0].period:
        return 0
    return atoms[0].first // atoms[-1].step
