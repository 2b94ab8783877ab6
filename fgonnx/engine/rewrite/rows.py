"""The rows that ids select, brought to samples first: (N, tokens, width)."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.probe import BATCH
from fgonnx.engine.graph.values import dims_of, shaped
from fgonnx.engine.maps import axes, follow
from fgonnx.engine.maps.axes import Layout
from fgonnx.engine.maps.placement import Placement, place
from fgonnx.engine.normal.normalise import Normal
from fgonnx.errors import ModelError
from fgonnx.wording import parameter

PREFIX = "rows/"
_GRID = {1: "W", 2: "HW", 3: "DHW"}


def arranged(normal: Normal) -> Normal:
    """Return a normal form whose rows have samples first, then tokens, then their width; the graph is changed.

    Raises
    ------
    ModelError
        It is not known which row is of which token.
    """
    graph, ids, rows = normal.model.graph, normal.ids, normal.selected
    assert ids is not None
    assert rows is not None
    own = axes.input_layout(normal.layout, ids.shape.dims if ids.shape else (), normal.batched)
    tokens = sum(letter in "DHWF" for letter in normal.layout)
    if normal.in_place and tokens in _GRID:
        return replace(normal, axes=f"N{_GRID[tokens]}C")
    layout = follow.behind(list(graph), ids, rows, own)
    at, sizes = place(layout, tokens, normal.batched), _sizes(own, normal.layout)
    known = at is not None and (at.whole(sizes) or set(sizes) == {1}) and at.crop is None and not at.roll
    if at is None or not known or tokens not in _GRID:
        raise ModelError(
            f"which of the rows '{rows.name}' that the ids '{normal.given}' select is of which token is not known; "
            f"explain another input ({parameter('input')})"
        )
    letters = f"N{_GRID[tokens]}C"
    if _plain(layout, own, normal.layout):
        return replace(normal, axes=letters)
    x = _turned(graph, normal.x, at, normal.batched)
    return replace(normal, x=x, selected=x, axes=letters)


def _sizes(layout: Layout, letters: str) -> tuple[int, ...]:
    return tuple(axis[0].size if axis else 1 for axis, letter in zip(layout, letters, strict=False) if letter in "DHWF")


def _plain(layout: Layout, own: Layout, letters: str) -> bool:
    """Tell whether rows lie as their ids do, with their width behind."""
    return letters.startswith("N") and "C" not in letters and layout[:-1] == own and len(layout) == len(own) + 1


def _turned(graph: ir.Graph, x: ir.Value, at: Placement, batched: bool) -> ir.Value:
    """Write (N, *grid, width) of a value, and let all that reads the value read it turned back."""
    users, own = list(x.uses()), dims_of(x)
    op = Emitter(graph, prefix=PREFIX)
    # at.perm orders the axes of at.split as batch, width, grid; the grid goes before the width, and
    # back[perm[k]] = k undoes it
    grid: list[int] = []
    for k in reversed(at.perm):
        if math.prod(at.split[j] for j in grid) == math.prod(at.grid):
            break
        grid.insert(0, k)
    batch = [k for k in at.perm if at.split[k] == -1]
    perm = [*batch, *grid, *(k for k in at.perm if k not in batch and k not in grid)]
    sizes: list[int | str] = [BATCH if size == -1 else size for size in at.split]
    split = shaped(op.Reshape(x, list(at.split)), sizes)
    moved = shaped(op.Transpose(split, perm=perm), [sizes[k] for k in perm])
    made = op.Reshape(moved, [-1 if batched else 1, *at.grid, at.shape[1]], name=f"{x.name}::rows")
    shaped(made, [BATCH if batched else 1, *at.grid, at.shape[1]])
    parts = shaped(op.Reshape(made, [at.split[k] for k in perm]), moved)
    undone = shaped(op.Transpose(parts, perm=[perm.index(k) for k in range(len(perm))]), split)
    back = shaped(op.Reshape(undone, [d if isinstance(d, int) else -1 for d in own]), x)
    for v in (split, moved, made, parts, undone, back):
        v.type = x.type
    for node, i in users:
        node.replace_input_with(i, back)
    graph.sort()
    return made
