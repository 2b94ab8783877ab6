"""Logits behind probabilities that exporters of classical models write out: of two classes, or divided by their sum."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import content_of, dims_of

_MOVING = ("Identity", "Cast", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Gather")
_SUMS = ("ReduceSum", "ReduceL1")


def logits_of(graph: ir.Graph, output: ir.Value) -> ir.Value | None:
    """Write the logits that probabilities (N, C) are made of, in their order; None where they are not known.

    Known are p and 1 - p of one sigmoid, and sigmoids of several classes over their sum, which keeps their order. A
    mean of several sigmoids has no logit of its own.

    Parameters
    ----------
    graph : ir.Graph
        The normal graph; the logits are appended to it.
    output : ir.Value
        The probabilities.
    """
    if len(dims_of(output)) != 2 or output.dtype is None or not output.dtype.is_floating_point():
        return None
    value, divided = _undivided(output)
    if not (divided or _of_two(value)) or _logit(None, value) is None:
        return None
    return _logit(Emitter(graph, prefix=f"{output.name}/logits/"), value)


def _undivided(v: ir.Value) -> tuple[ir.Value, bool]:
    """Return what is divided by its sum over classes, through copies and division by one, and whether there was one."""
    divided = False
    while (node := _node(v)) is not None and node.inputs[0] is not None:
        if node.op_type == "Div":
            whole = _numerator(node)
            if whole is None and not _is(node.inputs[1], 1.0):
                break
            divided, v = divided or whole is not None, whole or node.inputs[0]
        elif _is_to_sum_one(node):
            divided, v = True, node.inputs[0]
        elif node.op_type in ("Identity", "Cast") or (node.op_type in ("Sum", "Concat") and len(node.inputs) == 1):
            v = node.inputs[0]
        else:
            break
    return v, divided


def _numerator(node: ir.Node) -> ir.Value | None:
    """Return p of p / sum(p), or of (p + m) / (sum(p) + C m), where m is 1 if all p are zero."""
    above, below = node.inputs[:2]
    if above is not None and _is_sum_of(below, above):
        return above
    added, total = _node(above), _node(below)
    if added is None or total is None or added.op_type != "Add" or total.op_type != "Add":
        return None
    whole, mask = added.inputs[:2]
    known = whole is not None and mask is not None and _is_sum_of(total.inputs[0], whole)
    if not known or (scaled := _node(total.inputs[1])) is None:
        return None
    return whole if scaled.op_type == "Mul" and mask in scaled.inputs and _is_of_zero(mask, total.inputs[0]) else None


def _is_to_sum_one(node: ir.Node) -> bool:
    """Tell whether an operator divides by the sum of absolute values over classes."""
    own = {name: node.attributes[name].as_int() for name in ("axis", "p") if name in node.attributes}
    return node.op_type == "LpNormalization" and own.get("p", 2) == 1 and own.get("axis", -1) in (1, -1)


def _is_of_zero(mask: ir.Value | None, total: ir.Value | None) -> bool:
    """Tell whether a mask is 1 where a sum is zero: Cast(Not(Cast(sum)))."""
    for op_type in ("Cast", "Not", "Cast"):
        node = _node(mask)
        if node is None or node.op_type != op_type:
            return False
        mask = node.inputs[0]
    return mask is total


def _is_sum_of(total: ir.Value | None, v: ir.Value) -> bool:
    node = _node(total)
    if node is None or node.op_type not in _SUMS or node.inputs[0] is not v or total is None:
        return False
    return len(dims_of(total)) == 2 and dims_of(total)[1] == 1


def _of_two(v: ir.Value) -> bool:
    """Tell whether the columns are 1 - p and p."""
    node = _node(v)
    if node is None or node.op_type != "Concat" or len(node.inputs) != 2:
        return False
    first = _node(node.inputs[0])
    return first is not None and _is_rest_of(first) is not None and _is_rest_of(first) is node.inputs[1]


def _is_rest_of(node: ir.Node) -> ir.Value | None:
    """Return p of 1 - p."""
    return node.inputs[1] if node.op_type == "Sub" and _is(node.inputs[0], 1.0) else None


def _logit(op: Emitter | None, v: ir.Value | None) -> ir.Value | None:
    """Write what a sigmoid is of, through copies and joins of sigmoids; without an emitter, only tell whether there is.

    Without an emitter, any value that is returned means that there is one.
    """
    node = _node(v)
    if node is None or v is None:
        return None
    if node.op_type == "Sigmoid":
        return node.inputs[0]
    if (power := _written_sigmoid(node)) is not None:
        return power if op is None else _like(op.Neg(power), v)
    if (rest := _is_rest_of(node)) is not None:
        found = _logit(op, rest)
        return found if found is None or op is None else _like(op.Neg(found), v)
    if node.op_type == "Concat" and len(dims_of(v)) == 2:
        parts = [_logit(op, part) for part in node.inputs]
        if any(part is None for part in parts):
            return None
        return parts[0] if op is None else _like(op.Concat(*(p for p in parts if p is not None), axis=1), v)
    if node.op_type in _MOVING:
        found = _logit(op, node.inputs[0])
        if found is None or op is None:
            return found
        own = {name: a.value for name, a in node.attributes.items()}
        return _like(op.emit(node.op_type, found, *node.inputs[1:], **own), v)
    return None


def _like(made: ir.Value, v: ir.Value) -> ir.Value:
    made.shape, made.type = v.shape, v.type
    return made


def _written_sigmoid(node: ir.Node) -> ir.Value | None:
    """Return e of 1 / (1 + exp(e))."""
    if node.op_type == "Reciprocal":
        below = _node(node.inputs[0])
    elif node.op_type == "Div" and _is(node.inputs[0], 1.0):
        below = _node(node.inputs[1])
    else:
        return None
    if below is None or below.op_type != "Add":
        return None
    for one, other in (below.inputs, reversed(below.inputs)):
        power = _node(other)
        if _is(one, 1.0) and power is not None and power.op_type == "Exp":
            return power.inputs[0]
    return None


def _is(v: ir.Value | None, number: float) -> bool:
    content = content_of(v)
    return content is not None and content.size == 1 and bool(np.all(content == number))


def _node(v: ir.Value | None) -> ir.Node | None:
    node = v.producer() if v is not None else None
    return node if node is not None and not node.domain else None
