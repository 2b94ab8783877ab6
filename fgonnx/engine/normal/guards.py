"""Choices that keep a function inside its domain, made before it as well as behind it.

`Where(x > 0, Log(x), 0)` has a slope everywhere, but that of Log where x < 0 is not a number, and 0 times it neither.
The operand is chosen, too: `Log(Where(x > 0, x, 1/2))` is the same wherever it is taken. Where a mask writes -infinity
in front of an exponential, its operand is the lowest finite number, which gives the same, and a finite intercept.
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
_POINTWISE = {
    *_PARTIAL,
    *("Abs", "Add", "Cast", "Clip", "Cos", "Elu", "Erf", "Gelu", "HardSigmoid", "Identity", "LeakyRelu", "Max", "Mean"),
    *("Min", "Mul", "Neg", "Relu", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sub", "Sum", "Tan"),
    *("Tanh", "Where"),
}
_FINITE_AT_INFINITY = {"Erf", "Exp", "HardSigmoid", "Sigmoid", "Softplus", "Tanh"}
_KEEPS_INFINITY = {
    *("Add", "Concat", "Expand", "Identity", "Reshape", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
_DEPTH = 16


def choose_before(model: ir.Model, x: ir.Value) -> None:
    """Requires: exact shapes, constants lifted. Ensures: slopes are finite wherever a result is taken or left out."""
    graph = model.graph
    nodes = [node for node in dependent_nodes(graph, x) if not node.domain]
    dependent = {v for node in nodes for v in node.outputs} | {x}
    op = Emitter(graph, prefix=PREFIX)
    for node in nodes:
        if node.op_type == "Where":
            for slot in (1, 2):
                if node.inputs[slot] in dependent:
                    _guard(op, node, slot, dependent)
    _bound(op, nodes, dependent)
    graph.sort()


def _guard(op: Emitter, choice: ir.Node, slot: int, dependent: set[ir.Value]) -> None:
    """Choose the operands of partial functions whose results lead to one branch of a Where."""
    behind = _behind(choice, slot)
    partial = [n for n in behind if n.op_type in _PARTIAL and _needed(n, choice, dependent)]
    leading = set(partial)
    for node in reversed(behind):  # operands before what reads them
        if any(v is not None and v.producer() in leading for v in _operands(node)):
            leading.add(node)
    own = _own_copies(choice, slot, [node for node in behind if node in leading])
    dependent.update(v for node in own.values() for v in node.outputs)
    for node in partial:
        user, at = own[node], _PARTIAL[node.op_type][0]
        operand, condition = user.inputs[at], choice.inputs[0]
        assert operand is not None
        inside = op.constant(np.array(_PARTIAL[node.op_type][1], dtype_of(operand).numpy()))
        branches = (operand, inside) if slot == 1 else (inside, operand)
        made = shaped(op.in_front_of(user).Where(condition, *branches), operand)
        written_for(made.producer() or user, choice)
        dependent.add(made)
        user.replace_input_with(at, made)


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


def _needed(node: ir.Node, choice: ir.Node, dependent: set[ir.Value]) -> bool:
    """Tell whether an operand depends on the input, and the condition says for each of its entries what is taken."""
    operand, condition = node.inputs[_PARTIAL[node.op_type][0]], choice.inputs[0]
    if operand is None or condition is None or operand not in dependent:
        return False
    made = operand.producer()
    if made is not None and made.op_type == "Where" and made.inputs[0] is condition:
        return False  # chosen by the model itself
    to, frm = dims_of(operand), dims_of(condition)
    lead = len(to) - len(frm)
    return lead >= 0 and all(d in (1, to[lead + i]) for i, d in enumerate(frm))


def _bound(op: Emitter, nodes: list[ir.Node], dependent: set[ir.Value]) -> None:
    """Let functions that are finite at infinity take the largest finite number instead, behind a mask of infinities."""
    infinite: set[ir.Value] = set()
    for node in nodes:
        taken = inputs_of(node)
        if node.op_type in _KEEPS_INFINITY:
            if any(v in infinite or _holds_infinity(v) for v in taken):
                infinite.update(node.outputs)
        elif node.op_type in _FINITE_AT_INFINITY and (operand := node.inputs[0]) in infinite and operand is not None:
            limits = np.finfo(dtype_of(operand).numpy()) if dtype_of(operand).bitwidth > 16 else None
            if limits is not None and operand in dependent:
                made = shaped(op.in_front_of(node).Clip(operand, float(limits.min), float(limits.max)), operand)
                written_for(made.producer() or node, node)
                node.replace_input_with(0, made)


def _holds_infinity(v: ir.Value) -> bool:
    array = content_of(v)
    return array is not None and array.dtype.kind == "f" and bool(np.isinf(array).any())
