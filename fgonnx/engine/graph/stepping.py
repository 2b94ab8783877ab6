"""Where numbers that are computed from ids end in steps: in comparisons, signs, and clips between neighbouring numbers.

What lies behind such a node is a choice for every id and no number that could be differentiated: a mask, a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from fgonnx.engine.graph.values import inputs_of

Range = tuple[float, float]
"""The least and the largest of whole numbers."""

#: Operators whose results are choices or sizes, whatever numbers they take.
_CHOOSING = {
    *("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "NonZero"),
    *("Shape", "Size"),
}
_ROUNDING = {"Ceil", "Floor", "Round"}
_BOUNDING = {"Clip", "Max", "Min", "Relu"}
_BY_ENTRY = {
    *("Abs", "Add", "Cast", "Div", "Exp", "Log", "Mod", "Mul", "Neg", "Pow", "Sign", "Sqrt", "Sub"),
    *_BOUNDING,
    *_ROUNDING,
}
_MOVING = {
    *("Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}


@dataclass
class Steps:
    """What becomes of the numbers that ids are.

    Attributes
    ----------
    nodes : set of ir.Node
        Those that are constant between their steps for whole numbers, and take nothing but numbers of ids.
    cast : bool
        Whether ids that are floating-point numbers are cast to whole numbers.
    choosing : bool
        Whether all that is computed from ids that are floating-point numbers ends in steps, comparisons or such casts.
    """

    nodes: set[ir.Node] = field(default_factory=set)
    cast: bool = False
    choosing: bool = True


def steps(graph: ir.Graph, x: ir.Value) -> Steps:
    """Follow the numbers that the ids of an input are to where they are chosen by.

    Parameters
    ----------
    graph : ir.Graph
        The graph, without functions of its own.
    x : ir.Value
        One of its inputs.
    """
    found = Steps()
    given = x.dtype is not None and x.dtype.is_floating_point()
    real = {x} if given else set()  # depends on floating-point ids that are not cast yet
    numbers = {x}  # computed from nothing but ids and constants
    ranges: dict[ir.Value, Range] = {x: (0, math.inf)}  # of the whole ones among them
    for node in graph:
        taken = inputs_of(node)
        if numbers.isdisjoint(taken) and real.isdisjoint(taken):
            continue
        if node.op_type in _CHOOSING and not node.domain:
            continue
        plain = not node.domain and len(taken) == sum(v is not None for v in node.inputs)
        to = ir.DataType(node.attributes["to"].as_int()) if node.op_type == "Cast" and not node.domain else None
        whole = _range(node, ranges) if plain else None
        counted = plain and _of_numbers(node, numbers)
        step = counted and _is_step(node, whole)
        if step:
            found.nodes.add(node)
        elif to is not None and not to.is_floating_point():
            found.cast = found.cast or given
        elif not real.isdisjoint(taken):
            real.update(node.outputs)
            found.choosing = found.choosing and plain
        if counted and to != ir.DataType.BOOL and (not step or node.op_type in _ROUNDING):
            numbers.update(node.outputs)
            if whole is not None:
                ranges[node.outputs[0]] = whole
    found.choosing = found.choosing and real.isdisjoint(graph.outputs)
    return found


def _of_numbers(node: ir.Node, numbers: set[ir.Value]) -> bool:
    """Tell whether a node computes entry by entry from numbers of ids and constants, or moves such numbers."""
    first, *rest = node.inputs
    if node.op_type in _MOVING:
        return first in numbers
    return node.op_type in _BY_ENTRY and all(
        v is None or v in numbers or ir.convenience.get_const_tensor(v) is not None for v in (first, *rest)
    )


def _is_step(node: ir.Node, whole: Range | None) -> bool:
    """Tell whether a node is constant between steps, given the whole numbers that it may return."""
    if node.op_type == "Sign" or node.op_type in _ROUNDING:
        return True
    return node.op_type in _BOUNDING and whole is not None and whole[1] - whole[0] <= 1


def _range(node: ir.Node, ranges: dict[ir.Value, Range]) -> Range | None:
    """Return the least and the largest of the whole numbers that a node returns; None where they are no such."""
    kind, first = node.op_type, node.inputs[0] if node.inputs else None
    if kind == "Clip":
        return _clipped(node, ranges)
    if first in ranges and (kind in _MOVING or kind in _ROUNDING or kind == "Cast"):
        return ranges[first] if first is not None else None
    handler = _HANDLERS.get(kind)
    operands = [ranges.get(v) or _known(v) for v in node.inputs if v is not None]
    if handler is None or any(r is None for r in operands):
        return None
    low, high = handler([r for r in operands if r is not None])
    return (low, high) if low <= high else None  # what is not a number is in no order


def _clipped(node: ir.Node, ranges: dict[ir.Value, Range]) -> Range | None:
    given = [_known(v) if v is not None else None for v in (*node.inputs[1:], None, None)][:2]
    first = node.inputs[0]
    if (
        first is None
        or first not in ranges
        or any(v is not None and g is None for v, g in zip(node.inputs[1:], given, strict=False))
    ):
        return None
    low = given[0][0] if given[0] is not None else -math.inf
    high = given[1][0] if given[1] is not None else math.inf
    for name in ("min", "max"):  # as they were before opset 11
        if name in node.attributes:
            bound = node.attributes[name].as_float()
            low, high = (bound, high) if name == "min" else (low, bound)
    least, most = ranges[first]
    return (min(max(least, low), high), min(max(most, low), high))


def _known(v: ir.Value | None) -> Range | None:
    """Return a constant that is one whole number, as the range that it is."""
    number = _number(v)
    return (number, number) if number is not None and number == math.floor(number) else None


def _number(v: ir.Value | None) -> float | None:
    """Return a constant that is one finite number."""
    tensor = ir.convenience.get_const_tensor(v) if v is not None else None
    if tensor is None or tensor.size != 1 or not (tensor.dtype.is_floating_point() or tensor.dtype.is_integer()):
        return None
    number = float(tensor.numpy().reshape(-1)[0])
    return number if math.isfinite(number) else None


_HANDLERS: dict[str, Callable[[Sequence[Range]], Range]] = {
    "Min": lambda rs: (min(r[0] for r in rs), min(r[1] for r in rs)),
    "Max": lambda rs: (max(r[0] for r in rs), max(r[1] for r in rs)),
    "Add": lambda rs: (rs[0][0] + rs[1][0], rs[0][1] + rs[1][1]),
    "Sub": lambda rs: (rs[0][0] - rs[1][1], rs[0][1] - rs[1][0]),
    "Neg": lambda rs: (-rs[0][1], -rs[0][0]),
    "Abs": lambda rs: (max(0, rs[0][0], -rs[0][1]), max(abs(rs[0][0]), abs(rs[0][1]))),
    "Relu": lambda rs: (max(0, rs[0][0]), max(0, rs[0][1])),
}
