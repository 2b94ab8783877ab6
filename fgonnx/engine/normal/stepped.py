"""What the axes of an input are, by the bodies of Loop and Scan: the one along which the steps walk is time.

A body selects its step by a Gather or Slice at a number that moves with the steps, or is handed it by a Scan. Weights
that are passed on from step to step count as weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.values import optional, subgraphs_of
from fgonnx.engine.normal.roles import TIME, Axes, Roles, beginning, follow

_SIZES = {"Shape", "Size"}
_STATES = 2  # of a Loop, behind its number of steps and its condition


def roles_with_steps(graph: ir.Graph, x: ir.Value, rank: int) -> Roles:
    """Follow the axes of an input as `roles` does, and into the bodies of loops, which are not written out yet.

    Parameters
    ----------
    graph : ir.Graph
        The graph.
    x : ir.Value
        The input.
    rank : int
        Its number of axes.
    """
    found, followed, data = Roles(), beginning(x, rank), {x}
    _spread(graph, data)
    _walk(graph, followed, data, found)
    return found


def _walk(nodes: ir.Graph, followed: dict[ir.Value, Axes], data: set[ir.Value], found: Roles) -> None:
    follow(nodes, followed, set(data), found)
    for node in nodes:
        if node.op_type in ("Loop", "Scan") and not node.domain and "body" in node.attributes:
            _enter(node, followed, data, found)


def _enter(node: ir.Node, followed: dict[ir.Value, Axes], data: set[ir.Value], found: Roles) -> None:
    body = node.attributes["body"].as_graph()
    if node.op_type == "Loop":
        carried, given, made = body.inputs[_STATES:], node.inputs[_STATES:], body.outputs[1:]
        moving = set(body.inputs[:1])
    else:
        states = len(body.inputs) - node.attributes["num_scan_inputs"].as_int()
        carried, given, made = body.inputs[:states], node.inputs[:states], body.outputs[:states]
        moving = set()
        _hand_rows(node, states, followed, data, found)
    kept = list(zip(carried, given, made, strict=False))
    for state, start, _ in kept:
        if start is not None and start in followed:
            followed[state] = followed[start]
    before = -1
    while len(data) > before:
        before = len(data)
        data.update(state for state, start, after in kept if start in data or after in data)
        _spread(body, data)
    moving.update(state for state, _, after in kept if state not in data and _source(after) is not state)
    for inner in body:
        if not moving.isdisjoint(inner.inputs) and data.isdisjoint(inner.inputs):
            moving.update(inner.outputs)
    _walk(body, followed, data, found)
    for inner in body:
        _read_step(inner, followed, moving, found)


def _hand_rows(node: ir.Node, states: int, followed: dict[ir.Value, Axes], data: set[ir.Value], found: Roles) -> None:
    """Give the body of a Scan what each step takes of the values that it walks along."""
    rows = node.attributes["body"].as_graph().inputs[states:]
    along = node.attributes["scan_input_axes"].as_ints() if "scan_input_axes" in node.attributes else [0] * len(rows)
    for row, source, place in zip(rows, node.inputs[states:], along, strict=False):
        if source in data:
            data.add(row)
        if source is not None and source in followed:
            axes = followed[source]
            at = place % len(axes)
            found.add(axes[at], TIME, node, proven=False)
            followed[row] = (*axes[:at], *axes[at + 1 :])


def _spread(nodes: Iterable[ir.Node], data: set[ir.Value]) -> None:
    """Add the values that depend on what the input holds, not on its sizes alone."""
    for node in nodes:
        if node.op_type not in _SIZES and (not data.isdisjoint(node.inputs) or any(True for _ in subgraphs_of(node))):
            data.update(node.outputs)


def _source(v: ir.Value) -> ir.Value | None:
    """Return the value that Identities pass on."""
    node = v.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        v = node.inputs[0]
        node = v.producer()
    return v


def _read_step(node: ir.Node, followed: dict[ir.Value, Axes], moving: set[ir.Value], found: Roles) -> None:
    """Add the axis along which a Gather or Slice moves from step to step."""
    if node.op_type not in ("Gather", "Slice") or node.domain or node.inputs[0] not in followed:
        return
    axes = followed[node.inputs[0]]
    if node.op_type == "Gather":
        if node.inputs[1] in moving:
            at = node.attributes.get_int("axis", 0)
            found.add(axes[at % len(axes)], TIME, node, proven=False)
        return
    which = optional(node, 3)
    chosen = None if which is None else ir.convenience.get_const_tensor(which)
    if which is not None and chosen is None:
        return
    along = range(len(axes)) if chosen is None else [int(a) for a in np.reshape(chosen.numpy(), -1)]
    places = _places(optional(node, 1), moving) | _places(optional(node, 2), moving)
    for place in places & set(range(len(along))):
        found.add(axes[along[place] % len(axes)], TIME, node, proven=False)


def _places(v: ir.Value | None, moving: set[ir.Value]) -> set[int]:
    """Return the entries of a vector that move with the steps."""
    if v is None or v not in moving:
        return set()
    node = v.producer()
    if node is not None and node.op_type == "Concat":
        found, at = set(), 0
        for part in node.inputs:
            found |= {at + place for place in _places(part, moving)}
            size = part.shape.dims[0] if part is not None and part.shape is not None and part.shape.rank() else 1
            at += size if isinstance(size, int) else 1
        return found
    if node is not None and node.op_type not in ("Reshape", "Unsqueeze"):
        inner = set[int]().union(*(_places(part, moving) for part in node.inputs))
        return inner or {0}
    return {0}
