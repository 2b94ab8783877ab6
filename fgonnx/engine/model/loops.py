"""Loops that would not end: their number of steps is looked at before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from fgonnx import bounds
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
    count = ir.convenience.get_const_tensor(trips)
    if count is None or count.size != 1:
        return None
    given, goes_on = body.as_graph().inputs[1:2], body.as_graph().outputs[0]
    while (maker := goes_on.producer()) is not None and maker.op_type == "Identity" and maker.inputs[0] is not None:
        goes_on = maker.inputs[0]
    known = ir.convenience.get_const_tensor(goes_on)
    endless = goes_on in given or (known is not None and bool(known.numpy().reshape(-1)[0]))
    return int(count.numpy().reshape(-1)[0]) if endless else None
