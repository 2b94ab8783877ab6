"""Loops that would not end: their number of steps is looked at before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from fgonnx import bounds
from fgonnx.engine.graph.folded import folded, folded_array
from fgonnx.engine.graph.values import subgraphs_of
from fgonnx.errors import ModelError

_FIRST_CARRIED = 2  # behind the number of steps and the condition
_ENDLESS = 1 << 100


def refuse_endless(model: ir.Model, where: str) -> None:
    """Refuse loops that nothing ends before more steps than the bound on nodes: onnxruntime would run them all.

    Raises
    ------
    ModelError
        With the node and the bound.
    """
    for nodes in (model.graph, *model.functions.values()):
        for node, size in _loops(nodes, 1):
            called = f"node '{node.name or node.outputs[0].name}' (Loop)"
            if size >= _ENDLESS:
                raise ModelError(
                    f"{where}: {called}: nothing ends its steps; give it a number of steps, or a condition that "
                    "becomes false"
                )
            bounds.check("nodes", size, f"{where}: {called}: written out, its steps are", ModelError)


def _loops(nodes: Iterable[ir.Node], around: int) -> Iterator[tuple[ir.Node, int]]:
    """Yield all loops that only their trip count ends, with the nodes that all their steps run.

    These are the nodes of the body times the steps of the loop, times those of the loops around it.
    """
    for node in nodes:
        if node.op_type == "Loop" and not node.domain and never_starts(node):
            continue
        steps = around
        graphs = list(subgraphs_of(node))
        if node.op_type == "Loop" and not node.domain and graphs:
            size = max(sum(1 for _ in graphs[0].all_nodes()), 1)
            if (count := _step_count(node, bounds.current().nodes // size)) is not None:
                steps = around * max(count, 1)
                yield node, steps * size
        for graph in graphs:
            yield from _loops(graph, steps)


def _step_count(node: ir.Node, most: int) -> int | None:
    """Return the constant number of steps of a Loop; None where it is not known. Above `most`, it may be any such."""
    trips, body = node.inputs[0] if node.inputs else None, node.attributes.get("body")
    if body is None or len(node.inputs) < _FIRST_CARRIED or len(body.as_graph().inputs) != len(node.inputs):
        return None
    count = _ENDLESS if trips is None else folded(trips)
    if count is None:
        return None
    goes_on = goes_on_after(body.as_graph())
    if goes_on is not None:
        return int(count) if goes_on else None
    ends = steps_until_false(node, most)
    return None if ends is None else min(int(count), ends)


def never_starts(node: ir.Node) -> bool:
    """Tell whether constants say that a Loop has no steps: its number of steps, or the condition where it starts."""
    trips, start = (folded(node.inputs[i]) if i < len(node.inputs) else None for i in range(_FIRST_CARRIED))
    return (trips is not None and trips < 1) or start is False


def steps_until_false(node: ir.Node, most: int) -> int | None:
    """Return the number of steps that a Loop takes until its condition is false, as a counter in it says.

    The counter, and all that the condition takes, must follow from constants; so do the sizes of inputs that are fixed.

    Parameters
    ----------
    node : ir.Node
        The Loop, whose condition is true, or not given, where it starts.
    most : int
        Steps that are followed; where there are more, a larger number than this is returned.

    Returns
    -------
    int or None
        None where the number is not known.
    """
    body = node.attributes["body"].as_graph()
    carried = body.inputs[2:]
    state = {v: c for v, given in zip(carried, node.inputs[2:], strict=True) if (c := folded_array(given)) is not None}
    deciding = _deciding(body)
    met = set()
    for step in range(most):
        if body.inputs[0] not in deciding:
            now = tuple(state[v].tobytes() if v in state else b"" for v in carried if v in deciding)
            if now in met:
                return max(_ENDLESS, most + 1)
            met.add(now)
        known = {**state, body.inputs[0]: np.array(step, np.int64), body.inputs[1]: True}
        goes_on = folded(body.outputs[0], known)
        if goes_on is None:
            return None
        if not goes_on:
            return step + 1
        after = zip(carried, body.outputs[1:], strict=False)
        state = {v: c for v, made in after if v in state and (c := folded_array(made, known)) is not None}
    return most + 1


def _deciding(body: ir.Graph) -> set[ir.Value]:
    """Return the inputs of a body that its condition depends on, in this step or through those before it."""
    after = dict(zip(body.inputs[_FIRST_CARRIED:], body.outputs[1:], strict=False))
    found, queue, seen = set[ir.Value](), [body.outputs[0]], set[ir.Value]()
    while queue:
        v = queue.pop()
        if v in seen:
            continue
        seen.add(v)
        if v in body.inputs:
            found.add(v)
            queue += [after[v]] if v in after else []
        elif (node := v.producer()) is not None:
            queue += [given for given in node.inputs if given is not None]
    return found


def goes_on_after(body: ir.Graph) -> bool | None:
    """Tell whether a loop goes on after each of its steps; None where its condition depends on what they compute.

    A condition that is passed on is true in every step: it is where the loop starts, or there is no step.
    """
    found = folded(body.outputs[0], dict.fromkeys(body.inputs[1:2], True))
    return None if found is None else bool(found)
