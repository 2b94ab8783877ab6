"""Choices that keep a function inside its domain, made before it as well as behind it.

`Where(x > 0, Log(x), 0)` has a slope everywhere, but that of Log where x < 0 is not a number, and 0 times it neither.
The operand is chosen, too: `Log(Where(x > 0, x, 1/2))` is the same wherever it is taken. Where a mask writes -infinity
in front of an exponential, its operand is the lowest finite number, which gives the same, and a finite intercept. So
it is for other functions on the sides on which they have a finite limit; what has none there is chosen before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import written_for
from fgonnx.engine.graph.values import content_of, dims_of, dtype_of, inputs_of, shaped
from fgonnx.engine.normal.tie import dependent_nodes

PREFIX = "chosen/"
"""Prefix of the names of what is written."""

# Which operand has a domain, or overflows; and a number inside.
_PARTIAL = {
    "Acos": (0, 0.5),
    "Acosh": (0, 2.0),
    "Asin": (0, 0.5),
    "Atanh": (0, 0.5),
    "Cosh": (0, 0.5),
    "Div": (1, 0.5),
    "Exp": (0, 0.5),
    "Log": (0, 0.5),
    "Pow": (0, 0.5),
    "Reciprocal": (0, 0.5),
    "Sinh": (0, 0.5),
    "Sqrt": (0, 0.5),
}
# What is NaN at infinity, or has a slope or an intercept that is; a product, where both of its factors vary.
_ENDLESS = {"Asinh", "Cos", "Gelu", "HardSwish", "Mish", "Sin", "Softsign", "Swish", "Tan"}
_TIMES = {"Div", "Mul"}
_POINTWISE = {
    *_PARTIAL,
    *_ENDLESS,
    *("Abs", "Add", "Cast", "Clip", "Elu", "Erf", "HardSigmoid", "Identity", "LeakyRelu", "Max", "Mean", "Min", "Mul"),
    *("Neg", "Relu", "Selu", "Sigmoid", "Sign", "Softplus", "Sub", "Sum", "Tanh", "Where"),
}
# Which functions onnxruntime takes to a finite number at infinity: on both sides, or at -infinity alone.
_FINITE_ON_BOTH_SIDES = {"Atan", "Erf", "Exp", "HardSigmoid", "Pow", "Sigmoid", "Tanh"}
_FINITE_BELOW = {"Celu", "Elu", "Selu", "Softplus"}
_KEEPS_INFINITY = {
    *("Add", "Cast", "Concat", "Div", "Expand", "Flatten", "Gather", "Identity", "LeakyRelu", "LogSoftmax", "Max"),
    *("Mean", "Min", "Mul", "Neg", "PRelu", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Sum", "Tile"),
    *("Transpose", "Unsqueeze", "Where"),
}
_DEPTH = 16


def choose_before(model: ir.Model, x: ir.Value) -> None:
    """Requires: exact shapes, constants lifted. Ensures: slopes are finite wherever a result is taken or left out."""
    graph = model.graph
    nodes = [node for node in dependent_nodes(graph, x) if not node.domain]
    dependent = {v for node in nodes for v in node.outputs} | {x}
    infinite = _infinite(graph, x)
    op = Emitter(graph, prefix=PREFIX)
    for node in nodes:
        if node.op_type == "Where":
            for slot in (1, 2):
                if node.inputs[slot] in dependent:
                    _guard(op, node, slot, dependent, infinite)
    _bound(op, nodes, dependent, infinite)
    graph.sort()


def _guard(op: Emitter, choice: ir.Node, slot: int, dependent: set[ir.Value], infinite: set[ir.Value]) -> None:
    """Choose the operands of partial functions whose results lead to one branch of a Where."""
    behind = _behind(choice, slot)
    places = [(n, i) for n in behind for i in _partial(n, infinite, dependent) if _needed(n, i, choice, infinite)]
    partial = {n for n, _ in places}
    leading = set(partial)
    for node in reversed(behind):  # operands before what reads them
        if any(v is not None and v.producer() in leading for v in _operands(node)):
            leading.add(node)
    own = _own_copies(choice, slot, [node for node in behind if node in leading])
    for node, made in own.items():
        dependent.update(made.outputs)
        infinite.update(v for v, old in zip(made.outputs, node.outputs, strict=True) if old in infinite)
    for node, at in places:
        user, number = own[node], _PARTIAL[node.op_type][1] if node.op_type in _PARTIAL else 0.5
        operand, condition = user.inputs[at], choice.inputs[0]
        assert operand is not None
        inside = op.constant(np.array(number, dtype_of(operand).numpy()))
        branches = (operand, inside) if slot == 1 else (inside, operand)
        inner = shaped(op.in_front_of(user).Where(condition, *branches), operand)
        written_for(inner.producer() or user, choice)
        dependent.add(inner)
        user.replace_input_with(at, inner)


def _own_copies(choice: ir.Node, slot: int, nodes: list[ir.Node]) -> dict[ir.Node, ir.Node]:
    """Return the nodes themselves; copies of those that others read, too, as they stay as they are for them."""
    own: dict[ir.Node, ir.Node] = {}
    inside: set[ir.Node] = set()
    for node in nodes:  # what reads a value before what computes it
        uses = [(user, i) for v in node.outputs for user, i in v.uses()]
        inner = [(user, i) for user, i in uses if user in inside or (user is choice and i == slot)]
        own[node] = node
        if len(inner) < len(uses) or any(v.is_graph_output() for v in node.outputs):
            own[node] = made = copy_node(node, {}, lambda name: f"{PREFIX}{choice.name}/{slot}/{name}", shapes=True)
            written_for(made, node)
            assert node.graph is not None
            node.graph.insert_after(node, made)
            for user, i in inner:
                v = user.inputs[i]
                assert v is not None
                user.replace_input_with(i, made.outputs[node.outputs.index(v)])
        inside.add(own[node])
    return own


def _behind(choice: ir.Node, slot: int) -> list[ir.Node]:
    """Return the pointwise nodes that one branch of a Where is computed by, each behind all of them that read it."""
    found: list[ir.Node] = []

    def visit(v: ir.Value | None, depth: int) -> None:
        node = v.producer() if v is not None else None
        if node is None or node in found or node.domain or node.op_type not in _POINTWISE or depth == 0:
            return
        for operand in _operands(node):
            visit(operand, depth - 1)
        found.append(node)

    visit(choice.inputs[slot], _DEPTH)
    return found[::-1]


def _operands(node: ir.Node) -> Sequence[ir.Value | None]:
    return node.inputs[1:] if node.op_type == "Where" else node.inputs


def _partial(node: ir.Node, infinite: set[ir.Value], dependent: set[ir.Value]) -> list[int]:
    """Return which operands of a node, that depend on the input, have to be chosen: those of a domain or infinite."""
    slots = {_PARTIAL[node.op_type][0]} if node.op_type in _PARTIAL else set()
    if node.op_type in _ENDLESS or (node.op_type in _TIMES and dependent.issuperset(inputs_of(node))):
        slots.update(i for i, v in enumerate(node.inputs) if v in infinite)
    return [i for i in sorted(slots) if node.inputs[i] in dependent]


def _needed(node: ir.Node, slot: int, choice: ir.Node, infinite: set[ir.Value]) -> bool:
    """Tell whether the condition says for each entry of an operand what is taken."""
    operand, condition = node.inputs[slot], choice.inputs[0]
    if operand is None or condition is None:
        return False
    made = operand.producer()
    if made is not None and made.op_type == "Where" and made.inputs[0] is condition and operand not in infinite:
        return False  # chosen by the model itself
    to, frm = dims_of(operand), dims_of(condition)
    lead = len(to) - len(frm)
    return lead >= 0 and all(d in (1, to[lead + i]) for i, d in enumerate(frm))


def _bound(op: Emitter, nodes: list[ir.Node], dependent: set[ir.Value], infinite: set[ir.Value]) -> None:
    """Let functions that are finite at infinity take the largest finite number instead, behind a mask of infinities."""
    for node in nodes:
        at = int(node.op_type == "Pow")  # a power of a constant
        operand = node.inputs[at] if node.op_type in _FINITE_ON_BOTH_SIDES | _FINITE_BELOW else None
        if (
            operand is None
            or operand not in infinite
            or operand not in dependent
            or dtype_of(operand) == ir.DataType.BFLOAT16
        ):
            continue
        limits = np.finfo(dtype_of(operand).numpy())
        least, most = float(limits.min), float(limits.max)
        if at:  # its intercept multiplies it by a logarithm
            least, most = least / 1024, most / 1024
        bounds = (least, most) if node.op_type in _FINITE_ON_BOTH_SIDES else (least,)
        made = shaped(op.in_front_of(node).Clip(operand, *bounds), operand)
        written_for(made.producer() or node, node)
        node.replace_input_with(at, made)


def _infinite(graph: ir.Graph, x: ir.Value) -> set[ir.Value]:
    """Return what holds infinity on purpose: that of a mask, which a constant holds, or the logarithm of zeros."""
    dependent = {v for node in dependent_nodes(graph, x) for v in node.outputs}
    found: set[ir.Value] = set()
    for node in graph:
        taken = inputs_of(node)
        kept = node.op_type in _KEEPS_INFINITY and (
            not found.isdisjoint(taken) or (node.op_type != "Gather" and any(map(_holds_infinity, taken)))
        )  # what Gather reads may be a large table, never a mask
        made = node.op_type == "Log" and dependent.isdisjoint(node.outputs)
        if not node.domain and (kept or made):
            found.update(node.outputs)
    return found


def _holds_infinity(v: ir.Value) -> bool:
    array = content_of(v)
    return array is not None and array.dtype.kind == "f" and bool(np.isinf(array).any())
