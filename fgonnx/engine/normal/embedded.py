"""The rows that ids select, as the value that a model with ids is explained with respect to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.lookups import LookUp
from fgonnx.engine.graph.probe import BATCH
from fgonnx.engine.graph.values import dims_of, dtype_of, shaped
from fgonnx.engine.normal.positions import CONSTANT, MIXED, Positions, positions
from fgonnx.errors import ModelError
from fgonnx.wording import parameter

PREFIX = "embedded/"
_GRID = "DHWF"


@dataclass(frozen=True)
class Selected:
    """Rows with the ids that they are of.

    Attributes
    ----------
    value : ir.Value
        The rows.
    places : tuple of int
        Those of its axes that are axes of the ids.
    one, two : numpy array of int64
        Positions in the input of the ids of one sample, and of two, with those axes.
    count : int
        How many ids one sample has.
    """

    value: ir.Value
    places: tuple[int, ...]
    one: Positions
    two: Positions
    count: int

    @property
    def plain(self) -> bool:
        """Whether there is a row for every id, and the axes of the ids are at most in another order."""
        order = np.arange(self.count)
        return any(
            np.array_equal(self.one.transpose(perm).reshape(-1), order)
            for perm in itertools.permutations(range(self.one.ndim))
        )


@dataclass(frozen=True)
class Order:
    """How rows in the order of the model become rows in the order of the ids, and back.

    A token that is looked up several times has its rows side by side, (tokens, times); what it is not looked up for
    is 0. Rows of no token come behind those of the tokens on the way back.

    Attributes
    ----------
    perm : tuple of int
        Order of the axes of the rows that brings the batch to the front and the width to the end.
    slots : tuple of int
        For each token and time, the row it has in the order of the model; -1 for none.
    constants : tuple of int
        Rows of no token.
    back : tuple of int
        For each row of the model, where it lies among the slots and, behind them, the constants.
    grid : tuple of int
        Sizes of the axes of the tokens.
    width : int
        How many numbers a row has.
    """

    perm: tuple[int, ...]
    slots: tuple[int, ...]
    constants: tuple[int, ...]
    back: tuple[int, ...]
    grid: tuple[int, ...]
    width: int


def embedded(
    model: ir.Model, x: ir.Value, found: Sequence[LookUp], where: str, layout: str, *, batched: bool
) -> tuple[ir.Value, bool]:
    """Return the value of all rows that ids select, and whether it lies as the ids do: samples, tokens, width.

    Requires: exact shapes. The graph is changed where rows are not simply those of the ids, or of several tables.

    Raises
    ------
    ModelError
        It is not known which of the ids a row is of.
    """
    graph = model.graph
    one, two = positions(graph, x, 1), positions(graph, x, 2)
    selected = [
        _selected(next(f for f in found if f.value is v), x, one, two, where)
        for v in dict.fromkeys(f.value for f in found)
    ]
    if len(selected) == 1 and selected[0].plain:
        return selected[0].value, False
    if len({s.value.dtype for s in selected}) > 1:
        listed = ", ".join(f"'{s.value.name}'" for s in selected[:3])
        raise ModelError(f"{where}: its ids '{x.name}' select rows of tables of several element types ({listed})")
    values = [s.value for s in selected]
    alike = {(dims_of(s.value)[:-1], s.places, s.one.tobytes()) for s in selected}
    if len(alike) == 1 and selected[0].plain and selected[0].places == tuple(range(len(dims_of(values[0])) - 1)):
        return _joined(graph, values), False
    orders = [_order(s, x, layout, where, batched=batched) for s in selected]
    users = [[(node, i) for node, i in v.uses()] for v in values]
    op = Emitter(graph, prefix=PREFIX)
    own = [_own(op, v, order, batched=batched) for v, order in zip(values, orders, strict=True)]
    parts: Sequence[ir.Value] = own
    result = own[0]
    if len(own) > 1:
        widths = [int(dims_of(v)[-1]) for v in own]  # type: ignore[arg-type]
        result = shaped(op.Concat(*own, axis=-1, name="rows"), [*dims_of(own[0])[:-1], sum(widths)])
        result.type = own[0].type
        parts = op.several("Split", result, widths, outputs=len(own), axis=-1)
        for part, v in zip(parts, own, strict=True):
            shaped(part, v).type = v.type
    for part, v, order, used in zip(parts, values, orders, users, strict=True):
        given = _back(op, part, v, order, batched=batched)
        for node, i in used:
            node.replace_input_with(i, given)
    graph.sort()
    return result, True


def _joined(graph: ir.Graph, values: Sequence[ir.Value]) -> ir.Value:
    """Write the rows of several tables side by side, and take them apart again for what reads them."""
    users = [[(node, i) for node, i in v.uses()] for v in values]
    op = Emitter(graph, prefix=PREFIX)
    sizes = [dims_of(v)[-1] for v in values]
    assert all(isinstance(size, int) for size in sizes)
    widths = [int(size) for size in sizes if isinstance(size, int)]
    joined = shaped(op.Concat(*values, axis=-1, name="rows"), [*dims_of(values[0])[:-1], sum(widths)])
    parts = op.several("Split", joined, widths, outputs=len(values), axis=-1)
    for v, part, used in zip(values, parts, users, strict=True):
        shaped(part, v)
        for node, i in used:
            node.replace_input_with(i, part)
    graph.sort()
    return joined


def _selected(
    found: LookUp, x: ir.Value, one: dict[ir.Value, Positions], two: dict[ir.Value, Positions], where: str
) -> Selected:
    index = found.index
    if index is None or index not in one or index not in two:
        raise _unknown(found.value, x, where)
    places, first, second = found.places(), one[index], two[index]
    if first.ndim == len(places) + 1 and first.shape[-1] == 1:  # compared with all ids there are
        first, second = first[..., 0], second[..., 0]
    if first.ndim != len(places):
        raise _unknown(found.value, x, where)
    return Selected(found.value, places, first, second, one[x].size)


def _unknown(rows: ir.Value, x: ir.Value, where: str) -> ModelError:
    return ModelError(
        f"{where}: which of the rows '{rows.name}' that the ids '{x.name}' select is of which token is not known; "
        f"explain another input ({parameter('input')})"
    )


def _order(s: Selected, x: ir.Value, layout: str, where: str, *, batched: bool) -> Order:
    """Return which row is of which token, and where the rows of one sample lie.

    Raises
    ------
    ModelError
        A row is of several tokens, or of those of another sample.
    """
    if (s.one == MIXED).any():
        raise ModelError(
            f"{where}: rows '{s.value.name}' are selected by numbers that are computed of several ids of '{x.name}' "
            f"at once, so that they are of no single token; explain another input ({parameter('input')})"
        )
    dims = dims_of(s.value)
    batch = [k for k in s.places if not isinstance(dims[k], int)]
    if len(batch) != batched:
        raise _unknown(s.value, x, where)
    places = [*batch, *(k for k in s.places if k not in batch)]
    perm = (*places, *(k for k in range(len(dims)) if k not in places))
    inner = [s.places.index(k) for k in places]
    rows = s.one.transpose(inner).reshape(-1)
    sizes = [d if isinstance(d, int) else 1 for d in dims_of(x)]
    if batched:
        apart = s.two.transpose(inner).reshape(2, -1)
        moved = np.where(rows == CONSTANT, rows, rows + math.prod(sizes))
        if not (np.array_equal(apart[0], rows) and np.array_equal(apart[1], moved)):
            raise _unknown(s.value, x, where)
    axes = [k for k, letter in enumerate(layout) if letter in _GRID]
    grid = tuple(sizes[k] for k in axes)
    places_of = np.unravel_index(np.maximum(rows, 0), sizes)
    tokens = np.ravel_multi_index([places_of[k] for k in axes], grid) if axes else np.zeros_like(rows)
    read: list[list[int]] = [[] for _ in range(math.prod(grid))]
    for row, (token, position) in enumerate(zip(tokens, rows, strict=True)):
        if position != CONSTANT:
            read[int(token)].append(row)
    times = max(len(r) for r in read)
    if not times:
        raise _unknown(s.value, x, where)
    slots = tuple(row for r in read for row in (*r, *[CONSTANT] * (times - len(r))))
    constants = tuple(np.flatnonzero(rows == CONSTANT).tolist())
    at = {row: k for k, row in enumerate((*slots, *constants)) if row != CONSTANT}
    width = math.prod(int(d) for k, d in enumerate(dims) if k not in places and isinstance(d, int))
    return Order(perm, slots, constants, tuple(at[row] for row in range(rows.size)), grid, width)


def _own(op: Emitter, v: ir.Value, order: Order, *, batched: bool) -> ir.Value:
    """Write rows in the order of the ids: (N, *grid, times * width)."""
    flat = _flat(op, v, order, batched=batched)
    n, width = dims_of(flat)[0], order.width
    slots = np.array(order.slots, np.int64)
    if not np.array_equal(slots, np.arange(len(order.back))):
        flat = _like(op.Gather(flat, op.constant(np.maximum(slots, 0)), axis=1), v, [n, slots.size, width])
    if (slots < 0).any():
        held = op.constant((slots >= 0)[:, None].astype(dtype_of(v).numpy()))
        flat = _like(op.Mul(flat, held), v, [n, slots.size, width])
    shape = [*order.grid, slots.size // math.prod(order.grid) * width]
    made = op.Reshape(flat, [-1 if batched else 1, *shape], name=f"{v.name}::rows")
    return _like(made, v, [n, *shape])


def _back(op: Emitter, own: ir.Value, v: ir.Value, order: Order, *, batched: bool) -> ir.Value:
    """Write rows in the order of the model again, of those in the order of the ids."""
    rows = _flat(op, v, order, batched=batched) if order.constants else v
    n, count, width = dims_of(own)[0], len(order.slots), order.width
    flat = _like(op.Reshape(own, [-1 if batched else 1, count, width]), v, [n, count, width])
    held, back = len(order.constants), np.array(order.back, np.int64)
    first = int((back < count).argmax())  # rows of no token, before those of all tokens in order and behind them
    inside = np.array_equal(back[first : first + count], np.arange(count))
    if held and inside:
        before = _constant(op, rows, order.constants[:first], v)
        behind = _constant(op, rows, order.constants[first:], v)
        pieces = [p for p in (before, flat, behind) if p is not None]
        flat = _like(op.Concat(*pieces, axis=1), v, [n, count + held, width])
    elif not np.array_equal(back, np.arange(count)):
        beside = _constant(op, rows, order.constants, v)
        if beside is not None:
            flat = _like(op.Concat(flat, beside, axis=1), v, [n, count + held, width])
        flat = _like(op.Gather(flat, op.constant(back), axis=1), v, [n, back.size, width])
    dims = dims_of(v)
    moved = [dims[k] for k in order.perm]
    split = _like(op.Reshape(flat, [d if isinstance(d, int) else -1 for d in moved]), v, moved)
    return _like(op.Transpose(split, perm=[order.perm.index(k) for k in range(len(dims))]), v, dims)


def _constant(op: Emitter, rows: ir.Value, chosen: Sequence[int], v: ir.Value) -> ir.Value | None:
    """Write rows of no token."""
    if not chosen:
        return None
    sizes = [dims_of(rows)[0], len(chosen), dims_of(rows)[-1]]
    return _like(op.Gather(rows, op.constant(np.array(chosen, np.int64)), axis=1), v, sizes)


def _flat(op: Emitter, v: ir.Value, order: Order, *, batched: bool) -> ir.Value:
    """Write (N, rows, width) of rows."""
    dims = [dims_of(v)[k] for k in order.perm]
    moved = _like(op.Transpose(v, perm=list(order.perm)), v, dims)
    sizes = [len(order.back), order.width]
    return _like(op.Reshape(moved, [-1 if batched else 1, *sizes]), v, [BATCH if batched else 1, *sizes])


def _like(made: ir.Value, v: ir.Value, dims: Sequence[int | str | ir.SymbolicDim | None]) -> ir.Value:
    made.type = v.type
    return shaped(made, dims)
