"""The layer of a class activation map, found or named, and the evidence at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps.placement import Placement
from fgonnx.engine.maps.signed import Signed
from fgonnx.engine.maps.sites import at_least_float32
from fgonnx.engine.methods.view import View
from fgonnx.errors import OptionError
from fgonnx.fields import documented, option
from fgonnx.wording import near, parameter

_PICKS = {"Gather", "Slice", "Split"}
_AVERAGES = {"AveragePool", "ReduceMean"}
_MOVES = {
    *("Cast", "Concat", "Dropout", "Flatten", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
}
_SCALES = {"Div", "Mul", "Where"}
_LISTED = 8  # the last layers, named in an error message


@documented
@dataclass(frozen=True, kw_only=True)
class Layer:
    """The layer whose channels are weighted."""

    layer: str | None = option(
        None,
        "Name of a value of the graph with channels over a grid; by default the last one before the score through "
        "which all paths from the grid pass.",
    )


def find_layer(view: View) -> tuple[ir.Value, Placement]:
    """Return the value whose channels are weighted, and its placement on the grid.

    Raises
    ------
    OptionError
        There is none, or the named one has no grid.
    """
    values = {str(v.name): v for node in view.nodes for v in node.outputs if v in view.layouts}
    name = view.settings.layer
    found = [(v, p) for v in values.values() if (p := view.place(v)).spatial and p.shape[1] > 1]
    if name is None and not found:
        raise OptionError(
            "a class activation map needs a layer with channels over a grid, and no value on the way to the score has "
            "one; choose a method that works on the input, such as gradient"
        )
    if name is None:
        name = _last(view, [v for v, p in found if p.whole(view.grid)] or [v for v, _ in found])
    chosen = [(v, p) for v, p in found if v.name == name]
    if not chosen:
        names = [str(v.name) for v, _ in found]
        raise OptionError(
            f"{parameter('layer', name)} is no value with channels over a grid on the way to the score; there are: "
            f"{', '.join(names[-_LISTED:]) or 'none'}{near(name, names)}"
        )
    view.facts["layer"] = str(chosen[-1][0].name)
    return chosen[-1]


def _last(view: View, found: Sequence[ir.Value]) -> str:
    """Return the name of the last value through which all paths from the grid to the score pass, before it is averaged.

    An adaptive pool to more than one cell hides the layer that it averages. A sweep back from the head tracks the
    values still to be produced; a single one is a cut of the graph. Where the head reads only class tokens after the
    last attention, their patches do not count as read.
    """
    read, pending = {view.nodes[-1].outputs[0]}, set[ir.Value]()
    last, seen, between = None, None, list[ir.Node]()
    for node in reversed(view.nodes):
        pending.difference_update(node.outputs)
        taken = {v for v in node.inputs if v in view.layouts and _has_grid(view, v) and _takes(view, node, v, read)}
        read |= taken
        pending |= taken
        if node.outputs[0] in read:
            between.append(node)
        if len(pending) != 1 or (only := next(iter(pending))) not in found:
            continue
        if only is seen:  # those were other readers of it
            between = []
            continue
        if last is not None and not all(_averages(view, n) or _moves(view, n) for n in between):
            break
        if last is None or any(_averages(view, n) for n in between):
            last = only
        seen, between = only, []
    return str((last or found[-1]).name)


def _averages(view: View, node: ir.Node) -> bool:
    """Tell whether a node averages cells of the grid, or adds some up, as exporters write pools to uneven sizes."""
    return node.op_type in _AVERAGES or (node.op_type == "Add" and all(v in view.layouts for v in node.inputs))


def _moves(view: View, node: ir.Node) -> bool:
    """Tell whether a node moves cells of the grid, or scales them by a constant."""
    return node.op_type in _MOVES or (node.op_type in _SCALES and sum(v in view.layouts for v in node.inputs) == 1)


def _has_grid(view: View, v: ir.Value) -> bool:
    return any(atom.spatial or atom.inner for axis in view.layouts[v] for atom in axis)


def _takes(view: View, node: ir.Node, v: ir.Value, read: set[ir.Value]) -> bool:
    """Tell whether a node passes the patches of a value on to where they are read."""
    if view.place(v).crop is None:
        return True
    mixing = node.op_type in ("MatMul", "Einsum") and all(u in view.layouts for u in node.inputs)
    for y in (y for y in node.outputs if y in view.layouts):
        kept = view.place(y).crop is not None
        if mixing or y in read or (not kept and (node.op_type not in _PICKS or view.place(y).spatial)):
            return True
    return False


def evidence(view: View, kind: ir.Value) -> Signed:
    """Return the activations of the layer times their gradient, in float64 where `kind` is of that type.

    Their sum is the score without the biases behind the layer, which is a cut of the graph: as complete as the
    decomposition at the input.

    Raises
    ------
    OptionError
        There is no such layer, or no gradient reaches it.
    """
    layer, placed = find_layer(view)
    double = kind.dtype == ir.DataType.DOUBLE
    a, g = (at_least_float32(view.op, v, double=double) for v in (layer, cotangent(view, layer)))
    return Signed(shaped(view.op.Mul(a, g), layer), placed)


def cotangent(view: View, layer: ir.Value) -> ir.Value:
    """Return the gradient at a layer.

    Raises
    ------
    OptionError
        None reaches it.
    """
    if layer not in view.walked.cotangents:
        raise OptionError(f"no gradient reaches the layer '{layer.name}'; choose another ({parameter('layer')})")
    return view.walked.cotangents[layer]
