"""StraightThrough and LookUp: the nodes that tie a real-valued twin to the value that the model computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import written_for
from fgonnx.engine.graph.values import content_of, inputs_of, required
from fgonnx.engine.rules.fast.masks import finite, indicator
from fgonnx.engine.rules.registry import Local, rule

DOMAIN = "fgonnx"

NO_RANGE = (1, 0)
"""Bounds of a StraightThrough that has no gradient: nothing lies between them."""


@rule("StraightThrough", domain=DOMAIN, note="gradient 1 inside the representable range; c = rounding and saturation")
def straight_through(
    op: Emitter, y: ir.Value, x: ir.Value, real: ir.Value, low: ir.Value | None = None, high: ir.Value | None = None
) -> Local:
    """Return `real`, differentiate `x` where it is between the bounds."""
    if low is None or high is None:
        return Local(lambda g: g, op.Sub(finite(op, real), finite(op, x)), "quantisation")
    inside = indicator(op, op.And(op.GreaterOrEqual(x, low), op.LessOrEqual(x, high)), x)
    return Local(lambda g: op.Mul(g, inside), op.Sub(real, op.Mul(x, inside)), "quantisation")


@rule("LookUp", domain=DOMAIN, note="derivative: half the difference of both neighbouring entries; c = y - that x")
def look_up(op: Emitter, y: ir.Value, x: ir.Value, entry: ir.Value, slope: ir.Value) -> Local:
    """Return the entry of a table at x, differentiate by the slope there."""
    return Local(lambda g: op.Mul(g, slope), op.Sub(entry, op.Mul(slope, x)), "implicit")


def table_slopes(table: npt.NDArray[Any], span: tuple[float, float]) -> npt.NDArray[np.float64] | None:
    """Return the slopes of a table where it is looked up at numbers within a span; negative ones count from the end.

    None where two of the numbers mean one entry, or there is no neighbour.
    """
    size = len(table)
    low, high = max(span[0], -size), min(span[1], size - 1)
    if size < 2 or high <= low or high - low >= size:
        return None
    places = np.arange(int(low), int(high) + 1) % size
    slopes = np.zeros(size)
    slopes[places] = np.gradient(table[places].astype(np.float64))
    return slopes


def is_step(node: ir.Node) -> bool:
    """Tell whether a node ties a value that is held fixed between the steps of rounding."""
    if node.domain != DOMAIN or node.op_type != "StraightThrough" or len(node.inputs) < 4:
        return False
    low, high = content_of(node.inputs[2]), content_of(node.inputs[3])
    if low is None or high is None or low.ndim or high.ndim:
        return False
    return (float(low), float(high)) == NO_RANGE


@dataclass
class Twins:
    """Values that a pass has added to a graph.

    Attributes
    ----------
    x : ir.Value
        The value to differentiate with respect to: the explained input, or its floating-point copy.
    outputs : dict of ir.Value to ir.Value
        The twins of the graph's outputs.
    origin : dict of ir.Value to str
        For every added value, the node whose result it represents; "" for conversions.
    counterparts : tuple of ir.Value
        The values beside which a twin was written.
    unscaled : dict of ir.Value to ir.Value
        The operands of integer products, s (q - z) / s, and the twins s (q - z) they are computed from.
    """

    x: ir.Value
    outputs: dict[ir.Value, ir.Value] = field(default_factory=dict)
    origin: dict[ir.Value, str] = field(default_factory=dict)
    unscaled: dict[ir.Value, ir.Value] = field(default_factory=dict)
    counterparts: tuple[ir.Value, ...] = ()

    def stand_for(self, node: ir.Node, *values: ir.Value) -> None:
        """Record the node whose results these values represent."""
        self.origin.update(dict.fromkeys(values, str(node.name)))
        for v in values:
            if (writer := v.producer()) is not None and writer is not node:
                written_for(writer, node)
                steps.inherit([writer], node)

    def complete(self, graph: ir.Graph, own: set[ir.Node]) -> None:
        """Record all other added values as conversions: results of nodes that are not the graph's own."""
        for node in graph:
            if node not in own:
                for v in node.outputs:
                    self.origin.setdefault(v, "")


def dependent_nodes(graph: ir.Graph, x: ir.Value) -> list[ir.Node]:
    """Return the nodes that depend on the explained input, in order."""
    reached, nodes = {x}, []
    for node in graph:
        if any(v in reached for v in node.inputs):
            reached.update(node.outputs)
            nodes.append(node)
    return nodes


def moving_scales(node: ir.Node) -> list[ir.Value]:
    """Return the scales and zero points of a quantiser that follow from inputs, and that no other quantiser picked."""
    standard = node.op_type in ("QuantizeLinear", "DequantizeLinear")
    taken = node.inputs[1:3] if standard else [v for v in node.inputs if v is not None and _is_real(v)]
    return [v for v in taken if v is not None and _follows(v)]


def _is_real(v: ir.Value) -> bool:
    return v.dtype is not None and v.dtype.is_floating_point()


def _follows(v: ir.Value) -> bool:
    """Tell whether a value is computed from an input's content, past what DynamicQuantizeLinear picks."""
    seen, open_ = set(), [v]
    while open_:
        v = open_.pop()
        if v in seen:
            continue
        seen.add(v)
        node = v.producer()
        if node is None:
            if v.is_graph_input() and not v.is_initializer():
                return True
        elif node.op_type not in ("DynamicQuantizeLinear", "Shape", "Size"):
            open_ += inputs_of(node)
    return False


def resolve_own_nodes(graph: ir.Graph) -> None:
    """Replace every node of the domain by what it stands for, once gradients are written.

    StraightThrough and LookUp return a value, Feedback returns its first inputs, and Recurrence is a Scan.
    """
    for node in list(graph):
        if node.domain != DOMAIN:
            continue
        if node.op_type == "Recurrence":
            node.domain, node.op_type = "", "Scan"
            continue
        first = 0 if node.op_type == "Feedback" else 1
        for i, tied in enumerate(node.outputs):
            real = required(node, first + i)
            if tied.is_graph_output():
                tied.name, real.name = None, tied.name
            tied.replace_all_uses_with(real, replace_graph_outputs=True)
        graph.remove(node, safe=True)
