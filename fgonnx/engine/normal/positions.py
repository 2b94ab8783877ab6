"""Which id of the input each of the ids that are looked up is: followed through what moves ids, drops and repeats them.

A position counts the ids of all samples in the order of the input. What holds no id of the input is `CONSTANT`, and
what is computed of several of them `MIXED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.probe import batch_factor
from fgonnx.engine.graph.values import content_of, dims_of

Positions = npt.NDArray[np.int64]
CONSTANT, MIXED = -1, -2

_RESHAPES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
_ELEMENTWISE = {
    *("Abs", "Add", "Cast", "Ceil", "Clip", "Floor", "Identity", "Max", "Min", "Mod", "Mul", "Round", "Sub", "Where"),
}


def positions(graph: ir.Graph, x: ir.Value, samples: int) -> dict[ir.Value, Positions]:
    """Return the positions that values hold which are ids of an input, those values that can be followed.

    Requires: exact shapes.

    Parameters
    ----------
    graph : ir.Graph
        The graph.
    x : ir.Value
        The input that holds ids.
    samples : int
        Size of the batch.
    """
    sizes = _sizes(x, samples)
    known: dict[ir.Value, Positions] = {x: np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)}
    lost: set[ir.Value] = set()  # depends on the ids, and neither is one nor a choice between some
    chosen: set[ir.Value] = set()
    kinds = {True} if x.dtype is not None and x.dtype.is_integer() else {True, False}  # of ids: are they integers
    for node in graph:
        taken = [v for v in node.inputs if v is not None and (v in known or v in lost or v in chosen)]
        if not taken or node.op_type in ("Shape", "Size"):
            continue
        for v in node.outputs:
            if v.dtype == ir.DataType.BOOL or all(source in chosen for source in taken):
                chosen.add(v)
                continue
            lost.add(v)
            whole = not node.domain and v.dtype is not None and v.dtype.is_integer() in kinds and v.shape is not None
            if not whole or any(source in lost for source in taken):
                continue
            found = _moved(node, v, known, samples)
            if found is not None and found.shape == _sizes(v, samples):
                known[v] = found
                lost.discard(v)
    return known


def _sizes(v: ir.Value, samples: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else batch_factor(d) * samples for d in dims_of(v))


def _moved(node: ir.Node, y: ir.Value, known: dict[ir.Value, Positions], samples: int) -> Positions | None:
    kind, sizes = node.op_type, _sizes(y, samples)
    first = known.get(node.inputs[0]) if node.inputs[0] is not None else None
    if kind in _ELEMENTWISE:
        operands = [v for v in node.inputs[1 if kind == "Where" else 0 :] if v is not None]
        return _merged([known[v] for v in operands if v in known], sizes)
    if kind == "Concat":
        parts = [
            known.get(v, np.full(_sizes(v, samples), CONSTANT, np.int64))
            for v in node.inputs
            if v is not None and v.shape is not None
        ]
        return np.concatenate(parts, axis=node.attributes["axis"].as_int())
    if first is None:
        return None
    if kind in _RESHAPES:
        return first.reshape(sizes) if first.size == math.prod(sizes) else None
    if kind == "Split":
        axis = node.attributes.get_int("axis", 0)
        stops = np.cumsum([_sizes(v, samples)[axis] for v in node.outputs])[:-1]
        return np.split(first, stops, axis=axis)[list(node.outputs).index(y)]
    handler = _HANDLERS.get(kind)
    return handler(node, first, sizes) if handler is not None else None


def _merged(operands: Sequence[Positions], sizes: tuple[int, ...]) -> Positions | None:
    """Return the positions of what is computed entry by entry."""
    found = np.full(sizes, CONSTANT, np.int64)
    for operand in operands:
        given = np.broadcast_to(operand, sizes)
        found = np.where(found == CONSTANT, given, np.where((given == CONSTANT) | (given == found), found, MIXED))
    return found


def _transposed(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions:
    return p.transpose(node.attributes["perm"].as_ints() if "perm" in node.attributes else None)


def _expanded(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions:
    return np.broadcast_to(p, sizes)


def _tiled(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions | None:
    times = content_of(node.inputs[1])
    return None if times is None else np.tile(p, [int(n) for n in times])


def _gathered(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions | None:
    index = content_of(node.inputs[1])
    axis = node.attributes.get_int("axis", 0)
    return None if index is None else np.take(p, index, axis=axis)


def _gathered_by_entry(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions | None:
    index = content_of(node.inputs[1])
    axis = node.attributes.get_int("axis", 0)
    # entry by entry, so that the other axes may be shorter than those of the ids
    if index is None or index.ndim != p.ndim:
        return None
    grid = list(np.indices(index.shape))
    grid[axis] = index % p.shape[axis]
    return p[tuple(grid)]


def _sliced(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions | None:
    given = [content_of(v) for v in node.inputs[1:]]
    if len(given) < 2 or given[0] is None or given[1] is None:
        return None
    starts, stops = given[0], given[1]
    along = given[2] if len(given) > 2 and given[2] is not None else np.arange(len(starts))
    steps = given[3] if len(given) > 3 and given[3] is not None else np.ones(len(starts), np.int64)
    if any(v is not None and g is None for v, g in zip(node.inputs[1:], given, strict=True)):
        return None
    for start, stop, axis, step in zip(starts, stops, along, steps, strict=True):
        size = p.shape[int(axis)]
        low, high, by = int(start), int(stop), int(step)
        first = min(max(low + size if low < 0 else low, 0), size if by > 0 else size - 1)
        last = high + size if high < 0 else high
        entries = np.arange(first, min(last, size) if by > 0 else max(last, -1), by)
        p = np.take(p, entries[(entries >= 0) & (entries < size)], axis=int(axis))
    return p


def _padded(node: ir.Node, p: Positions, sizes: tuple[int, ...]) -> Positions | None:
    pads = content_of(node.inputs[1])
    mode = node.attributes.get_string("mode", "constant")
    along = node.inputs[3] if len(node.inputs) > 3 else None
    axes = content_of(along) if along is not None else np.arange(p.ndim)
    if pads is None or axes is None or mode not in ("constant", "edge", "reflect", "wrap") or (pads < 0).any():
        return None
    widths = [(0, 0)] * p.ndim
    for k, axis in enumerate(axes):
        widths[int(axis)] = (int(pads[k]), int(pads[k + len(axes)]))
    if mode == "constant":
        return np.pad(p, widths, constant_values=CONSTANT)
    kinds: dict[str, Any] = {"mode": mode}
    return np.asarray(np.pad(p, widths, **kinds))


_HANDLERS: dict[str, Callable[[ir.Node, Positions, tuple[int, ...]], Positions | None]] = {
    "Expand": _expanded,
    "Gather": _gathered,
    "GatherElements": _gathered_by_entry,
    "Pad": _padded,
    "Slice": _sliced,
    "Tile": _tiled,
    "Transpose": _transposed,
}
