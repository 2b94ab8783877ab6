"""Loops that would not end: their number of steps is looked at before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from fgonnx import bounds
from fgonnx.engine.graph.folded import folded
from fgonnx.engine.graph.values import subgraphs_of
from fgonnx.errors import ModelError


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
            bounds.check("nodes", size, f"{where}: {called}: written out, its steps are", ModelError)


def _loops(nodes: Iterable[ir.Node], around: int) -> Iterator[tuple[ir.Node, int]]:
    """Yield all loops that only their trip count ends, with the nodes that all their steps run.

    These are the nodes of the body times the steps of the loop, times those of the loops around it.
    """
    for node in nodes:
        steps = around
        graphs = list(subgraphs_of(node))
        if node.op_type == "Loop" and not node.domain and graphs and (count := _trip_count(node)) is not None:
            steps = around * max(count, 1)
            yield node, steps * max(sum(1 for _ in graphs[0].all_nodes()), 1)
        for graph in graphs:
            yield from _loops(graph, steps)


def _trip_count(node: ir.Node) -> int | None:
    """Return the constant number of steps of a Loop; None where it is not known, or a condition may end it."""
    trips, body = node.inputs[0] if node.inputs else None, node.attributes.get("body")
    if trips is None or body is None:
        return None
    count, goes_on = folded(trips), goes_on_after(body.as_graph())
    return int(count) if count is not None and goes_on else None


def goes_on_after(body: ir.Graph) -> bool | None:
    """Tell whether a loop goes on after each of its steps; None where its condition depends on what they compute.

    A condition that is passed on is true in every step: it is where the loop starts, or there is no step.
    """
    found = folded(body.outputs[0], dict.fromkeys(body.inputs[1:2], True))
    return None if found is None else bool(found)
