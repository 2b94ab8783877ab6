"""Where on the grid the steps of a recurrence lie, and the maps of what they add to the score.

A recurrent layer that is written step by step computes, at step t, values (N, H) without an axis of time. The step
reads the entry t of a value that has one, and that is its place. The terms of the same node at all steps make one map,
(N, T, H), as they would if all steps were computed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps.axes import Layout
from fgonnx.engine.maps.placement import Placement
from fgonnx.engine.maps.reads import Reads
from fgonnx.engine.maps.signed import Signed, canonical


@dataclass(frozen=True)
class Cell:
    """A cell along one axis of the grid, at which a term of a step lies.

    Attributes
    ----------
    layer : str
        The recurrence.
    role : tuple of int
        Which node of the step.
    position : int
        Which cell.
    grid : tuple of int
        The sizes of the grid: 1 along all axes but one.
    """

    layer: str
    role: tuple[int, ...]
    position: int
    grid: tuple[int, ...]


def cells(nodes: Sequence[ir.Node], layouts: dict[ir.Value, Layout], rank: int) -> dict[ir.Node, Cell]:
    """Return the cell of every node of a step that reads one entry of a grid axis.

    Parameters
    ----------
    nodes : sequence of ir.Node
        The path from the input to the head, in order.
    layouts : dict of ir.Value to Layout
        The layout of every active value.
    rank : int
        Number of axes of the input's grid.
    """
    read = Reads()
    for node in nodes:
        read.see(node, layouts)
    placed, shared = {}, read.shared()
    for node in nodes:
        step, entry = steps.of(node), read.of(node)
        if step is not None and entry is not None and step.layer not in shared:
            sizes = tuple(entry.size if i == entry.axis else 1 for i in range(rank))
            placed[node] = Cell(step.layer, step.role, entry.position, sizes)
    return placed


def grouped(found: Sequence[tuple[int, Cell, int]]) -> list[list[tuple[int, int]]]:
    """Group the terms that make one map.

    Those of the same node at different steps do. The first step has terms that the others lack, and the other way
    round: the initial state is constant, and a bias is added to it elsewhere. So a term that is alone joins a group of
    its layer that lacks its cell.

    Parameters
    ----------
    found : sequence of (int, Cell, int)
        The index of each term, its cell, and how many channels it has.

    Returns
    -------
    list of list of (int, int)
        Indices and positions, one list for each map.
    """
    groups: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for i, cell, channels in found:
        key: tuple[object, ...] = (cell.layer, cell.grid, channels, cell.role)
        while any(position == cell.position for _, position in groups.get(key, ())):
            key = (*key, "another")
        groups.setdefault(key, []).append((i, cell.position))
    for key in [k for k, members in groups.items() if len(members) == 1]:
        (lone,) = groups[key]
        for other, members in groups.items():
            if other[:3] == key[:3] and other != key and lone[1] not in {position for _, position in members}:
                members.append(lone)
                del groups[key]
                break
    return [sorted(members, key=lambda m: m[1]) for members in groups.values()]


def stacked(op: Emitter, members: Sequence[tuple[int, ir.Value, Placement]], grid: Sequence[int]) -> Signed:
    """Return one map of values at cells, zero at cells without one.

    Parameters
    ----------
    members : sequence of (int, ir.Value, Placement)
        Position, value and its placement, which has no grid; in the order of the positions.
    grid : sequence of int
        Sizes of the grid, 1 along all axes but one.
    """
    count, channels = max(grid), members[0][2].shape[1]
    known = {position: op.Reshape(canonical(op, v, p), [-1, channels]) for position, v, p in members}
    some = next(iter(known.values()))
    empty = op.Mul(some, 0.0) if len(known) < count else None
    rows = [known.get(i, empty) for i in range(count)]
    value = shaped(op.Reshape(op.Concat(*rows, axis=1), [-1, count, channels]), [None, count, channels])
    placement = Placement((-1, count, channels), (0, 2, 1), (-1, channels, *grid), False)
    return Signed(value, placement, has_zero=len(known) < count)
