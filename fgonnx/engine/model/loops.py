"""Loops that would not end: their number of steps is looked at before anything is run."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fgonnx.errors import ModelError

MOST_STEPS = 10_000_000
"""Steps of all loops, one inside of the other: of models that people use, the longest has thousands."""


def refuse_endless(graph: ir.Graph, where: str) -> None:
    """Refuse a Loop of a constant number of steps beyond any use, which no condition ends.

    Raises
    ------
    ModelError
        With the node and its number of steps.
    """
    for node, steps in _loops(graph, 1):
        if steps > MOST_STEPS:
            shown = f"{steps:,}" if steps < 10**15 else f"{float(steps):.1e}"
            raise ModelError(
                f"{where}: the node '{node.name or node.outputs[0].name}' (Loop) takes {shown} steps, and no condition "
                f"ends it before; more than {MOST_STEPS:,} are not run. Export the model with fewer"
            )


def _loops(graph: ir.Graph, around: int) -> Iterator[tuple[ir.Node, int]]:
    """Yield all loops that only their trip count ends, with their steps times those of the loops around them."""
    for node in graph:
        steps = around
        if node.op_type == "Loop" and not node.domain and (count := _trip_count(node)) is not None:
            steps = around * max(count, 1)
            yield node, steps
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _loops(attribute.as_graph(), steps)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _loops(inner, steps)


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
