"""Inputs that hold ids, of tokens, characters or bytes: which values they select, and which ids a table has.

Ids are followed from an input through what passes whole numbers on to the first floating-point values that they select:
the rows of a table (Gather), or of a matrix behind a one-hot encoding (OneHot, or Equal to all ids and Cast).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from fgonnx.engine.graph.stepping import steps
from fgonnx.engine.graph.values import dims_of, inputs_of, optional

EMBEDDING_LAYER = "EmbedLayerNormalization"
_MICROSOFT = "com.microsoft"

#: Operators through which ids stay ids: those that move them, and, with their slots, those that change them.
_MOVING = {
    *("Concat", "Expand", "Flatten", "GatherElements", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
}
_SHIFTING = {"Add": 1, "Sub": -1}
_CHANGING = {"Abs", "Clip", "Max", "Min", "Mod", "Mul", "Where"}
_AS_REAL = {"Cast", "Ceil", "Floor", "Round"}  # which leave whole numbers as they are
_MADE_REAL = {"Cast", "DequantizeLinear"}
_HALF = 16


@dataclass(frozen=True)
class LookUp:
    """A value that ids select.

    Attributes
    ----------
    value : ir.Value
        The floating-point rows selected.
    rows : int
        How many rows there are to select; 0 where that is not known.
    shift : int or None
        What is added to the ids before, None where they are changed otherwise.
    strict : bool
        Whether other ids are an error, as in a table; in a one-hot encoding they are rows of zeros.
    index : ir.Value, optional
        The ids that select, where it is known: one of them for each row.
    axis : int
        The axis of a table along which its rows are counted, or, in an encoding, that of an id's entries.
    """

    value: ir.Value
    rows: int
    shift: int | None = 0
    strict: bool = True
    index: ir.Value | None = None
    axis: int = 0

    def places(self) -> tuple[int, ...]:
        """Return the axes of the rows that are those of the ids, in order. Requires: known ranks."""
        assert self.index is not None
        rank, count = len(dims_of(self.value)), len(dims_of(self.index))
        if not self.strict:
            return tuple(k for k in range(rank) if k != self.axis % rank)
        first = self.axis % (rank - count + 1)
        return tuple(range(first, first + count))


def lookups(graph: ir.Graph, x: ir.Value) -> list[LookUp]:
    """Return what the ids of an input select, in the order of the graph; empty where it holds no ids.

    Parameters
    ----------
    graph : ir.Graph
        The graph, without functions of its own.
    x : ir.Value
        One of its inputs.
    """
    real = _real(x)
    if real:  # some frameworks give ids as floating-point numbers, and cast them
        ends = steps(graph, x)
        if not ends.cast or not ends.choosing:
            return []
    followed: dict[ir.Value, int | None] = {x: 0}
    encoded: dict[ir.Value, tuple[int, ir.Value]] = {}
    reached = {x}
    found: list[LookUp] = []
    for node in graph:
        taken = [v for v in inputs_of(node) if v in reached]
        if not taken:
            continue
        reached.update(node.outputs)
        slots = [i for i, v in enumerate(node.inputs) if v is not None and v in followed]
        if slots and (node.op_type == EMBEDDING_LAYER or not node.domain):
            found += _selected(node, slots, followed, reached)
            if real and node.op_type in _AS_REAL:
                followed[node.outputs[0]] = _shift(node, 0, followed)
            _follow(node, slots, followed, encoded)
        elif node.inputs and node.inputs[0] in encoded and node.op_type == "Cast" and not node.domain:
            count, index = encoded[node.inputs[0]]
            found.append(LookUp(_projected(node.outputs[0]), count, 0, False, index, -1))
    return found


def holds_ids(model: ir.Model, x: ir.Value) -> bool:
    """Tell whether an input holds ids: whole numbers that select rows."""
    if x.dtype is None or not (x.dtype.is_integer() or _real(x)):
        return False
    if model.functions:
        model = model.clone()
        common.InlinePass()(model)
        x = next(v for v in model.graph.inputs if v.name == x.name)
    return bool(lookups(model.graph, x))


def vocabulary(found: Sequence[LookUp]) -> tuple[int, int] | None:
    """Return the least and the largest id that all tables have; None where that is not known."""
    known = [f for f in found if f.rows and f.shift is not None and f.strict]
    if not known:
        return None
    return max(-f.rows - (f.shift or 0) for f in known), min(f.rows - 1 - (f.shift or 0) for f in known)


def ids_like(graph: ir.Graph, x: ir.Value) -> range:
    """Return ids that an input may hold, for random ones; those of a byte where nothing is looked up."""
    known = [f for f in lookups(graph, x) if f.rows]
    low = max((-(f.shift or 0) for f in known), default=0)
    high = min((f.rows - (f.shift or 0) for f in known), default=1 << 8)
    limits = np.iinfo(x.dtype.numpy()).max if x.dtype is not None and x.dtype.is_integer() else high
    return range(low, max(low + 1, min(high, int(limits))))


def _real(v: ir.Value | None) -> bool:
    """Tell whether a value is known to hold floating-point numbers."""
    return v is not None and v.dtype is not None and v.dtype.is_floating_point()


def _constant(v: ir.Value | None) -> np.ndarray | None:
    tensor = ir.convenience.get_const_tensor(v) if v is not None else None
    return None if tensor is None else tensor.numpy()


def _selected(
    node: ir.Node, slots: Sequence[int], followed: dict[ir.Value, int | None], reached: set[ir.Value]
) -> list[LookUp]:
    """Return what a node selects by the ids that it takes in these slots."""
    if node.op_type == EMBEDDING_LAYER and node.domain == _MICROSOFT and slots[0] == 0:
        return [LookUp(node.outputs[0], _rows(optional(node, 2), 0), _shift(node, 0, followed), index=node.inputs[0])]
    if node.domain:
        return []
    data = optional(node, 0)
    if node.op_type == "Gather" and slots == [1] and data not in reached:
        axis = node.attributes.get_int("axis", 0)
        sizes = _sizes(data)
        if sizes is not None and (len(sizes) < 2 or not axis < len(sizes)):
            return []
        if (rows := _made_real(node.outputs[0])) is not None:
            return [LookUp(rows, _rows(data, axis), _shift(node, 1, followed), True, node.inputs[1], axis)]
    if node.op_type == "OneHot" and slots == [0]:
        depth, values = _constant(optional(node, 1)), optional(node, 2)
        count = int(depth.reshape(-1)[0]) if depth is not None else 0
        made = _made_real(node.outputs[0]) if _real(values) or not _real(node.outputs[0]) else node.outputs[0]
        if made is None:
            return []
        axis = node.attributes.get_int("axis", -1)
        last = axis == -1 or (made.shape is not None and axis == len(made.shape) - 1)
        value = _projected(made) if last else made
        return [LookUp(value, count, _shift(node, 0, followed), False, node.inputs[0], axis)]
    return []


def _follow(
    node: ir.Node,
    slots: Sequence[int],
    followed: dict[ir.Value, int | None],
    encoded: dict[ir.Value, tuple[int, ir.Value]],
) -> None:
    """Follow ids through a node that passes them on, and to their comparison with all ids there are."""
    kind = node.op_type
    if node.domain or (kind in ("Gather", "OneHot") and 0 not in slots):
        return
    if kind == "Gather" and slots == [0]:  # some of the ids
        followed[node.outputs[0]] = _shift(node, 0, followed)
    elif kind == "Cast":
        if ir.DataType(node.attributes["to"].as_int()).is_integer():
            followed[node.outputs[0]] = _shift(node, 0, followed)
    elif kind in _MOVING and (0 in slots or kind == "Concat"):
        shifts = {_shift(node, slot, followed) for slot in slots}
        followed.update(dict.fromkeys(node.outputs, shifts.pop() if len(shifts) == 1 else None))
    elif kind in _SHIFTING and len(slots) == 1:
        added = _constant(optional(node, 1 - slots[0]))
        before = _shift(node, slots[0], followed)
        known = added is not None and added.size == 1 and before is not None and (kind == "Add" or slots[0] == 0)
        step = _SHIFTING[kind] * int(added.reshape(-1)[0]) if known and added is not None else 0
        followed[node.outputs[0]] = before + step if known and before is not None else None
    elif kind in _SHIFTING or (
        kind in _CHANGING and (kind != "Where" or 0 not in slots)
    ):  # a choice between ids, written as a sum
        followed[node.outputs[0]] = None
    elif kind == "Equal" and len(slots) == 1:
        other = optional(node, 1 - slots[0])
        maker = other.producer() if other is not None else None
        entries = _constant(other)
        count = entries.size if entries is not None else 0
        if maker is not None and maker.op_type == "Range":  # all numbers there are, before they are written out
            encoded[node.outputs[0]] = (0, _taken(node, slots))
        elif entries is not None and count > 1 and entries.shape[-1] == count and _counts(entries):
            encoded[node.outputs[0]] = (count, _taken(node, slots))


def _taken(node: ir.Node, slots: Sequence[int]) -> ir.Value:
    return next(v for i in slots if (v := node.inputs[i]) is not None)


def _counts(entries: np.ndarray) -> bool:
    return bool((np.diff(entries.reshape(-1).astype(np.int64)) == 1).all())


def _shift(node: ir.Node, slot: int, followed: dict[ir.Value, int | None]) -> int | None:
    v = node.inputs[slot]
    return followed[v] if v is not None else None


def _made_real(v: ir.Value) -> ir.Value | None:
    """Return the floating-point form of what is selected: of a quantised table, what it stands for."""
    while v.dtype is not None and not (v.dtype.is_floating_point() and v.dtype.bitwidth >= _HALF):
        users = list(v.consumers())
        if len(users) != 1 or users[0].op_type not in _MADE_REAL or users[0].inputs[0] is not v:
            return None
        v = users[0].outputs[0]
    return v


def _projected(encoded: ir.Value) -> ir.Value:
    """Return the rows that a one-hot encoding selects of a matrix; itself where it is read otherwise."""
    users = list(encoded.consumers())
    if len(users) == 1 and users[0].op_type == "MatMul" and not users[0].domain and users[0].inputs[0] is encoded:
        other = users[0].inputs[1]
        if _constant(other) is not None and _sizes(other) is not None and len(_sizes(other) or ()) == 2:
            return users[0].outputs[0]
    return encoded


def _sizes(v: ir.Value | None) -> list[int] | None:
    """Return the sizes of a table, seen through what makes it of a stored one; None where they are not known."""
    if v is None:
        return None
    if (array := ir.convenience.get_const_tensor(v)) is not None:
        return [int(size) for size in array.shape.numpy()]
    if v.shape is not None and v.shape.is_static():
        return [int(d) for d in v.shape.dims]  # type: ignore[arg-type]
    node = v.producer()
    if node is not None and node.op_type in ("Cast", "DequantizeLinear", "Identity"):
        return _sizes(node.inputs[0])
    if node is not None and node.op_type == "Transpose" and (before := _sizes(node.inputs[0])) is not None:
        perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(before))[::-1]
        return [before[p] for p in perm]
    return None


def _rows(table: ir.Value | None, axis: int) -> int:
    sizes = _sizes(table)
    return sizes[axis] if sizes is not None and 0 not in sizes else 0
