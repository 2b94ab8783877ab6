"""Expand operators without a rule into operators that have one.

Eight ways: the standard's function body of an operator; If, Loop and Scan by their known conditions and trip counts;
recurrent layers unrolled; sequences of known length as the tensors they hold; samplers as gathers and weights; the
optimiser's fused operators decomposed; linear operators of classical machine learning as products; quantisers by scales
that follow from inputs as division, rounding and bounds.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.origin import is_written, written_for
from fgonnx.engine.normal.expand import (
    classical,
    contrib,
    controlflow,
    functions,
    quantisers,
    recurrent,
    sampling,
    sequences,
    statistics,
)
from fgonnx.engine.normal.recurrence import ROLE
from fgonnx.engine.rules.registry import find

# Dynamic quantisation is explained by twins instead of by its body; random numbers are refused.
_NOT_EXPANDED = {"Bernoulli", "DynamicQuantizeLinear"}

EXPANDERS = {
    **{("", name): e for name, e in {**controlflow.EXPANDERS, **recurrent.EXPANDERS, **sequences.EXPANDERS}.items()},
    **sampling.EXPANDERS,
    **statistics.EXPANDERS,
    **contrib.EXPANDERS,
    **classical.EXPANDERS,
    **quantisers.EXPANDERS,
    **recurrent.QUANTISED,
}


def expand(model: ir.Model) -> bool:
    """Expand every node that needs it, once; return whether anything changed.

    Requires: exact shapes. Ensures: valid names and order; added values have no types or shapes yet.
    """
    opset = model.opset_imports[""]
    dependent = depends_on_inputs(model.graph)
    changed = False
    known = set(model.graph)
    calls: dict[str, ir.Node] = {}
    for node in list(model.graph):
        if not any(v in dependent for v in node.inputs) and node.op_type not in controlflow.EXPANDERS:
            continue
        if node.op_type in _NOT_EXPANDED or ROLE in node.meta or find(node.op_type, opset, node.domain) is not None:
            continue
        if (expander := EXPANDERS.get((node.domain, node.op_type))) is None:
            if functions.expand(model, node):
                changed, calls[str(node.name)] = True, node
        elif expander(model, node):
            changed = True
            added = [new for new in model.graph if new not in known]
            for new in added:
                written_for(new, node)
            steps.inherit(added, node)
            known.update(added)
    if changed:
        functions.settle(model)
        within: dict[str, list[ir.Node]] = {}
        for new in model.graph:
            call = next((name for name in _beginnings(str(new.name)) if name in calls), None)
            if call is not None and new not in known and not is_written(new):
                written_for(new, calls[call])
                within.setdefault(call, []).append(new)
        for call, added in within.items():
            steps.inherit(added, calls[call])
    return changed


def _beginnings(name: str) -> Iterator[str]:
    """Yield what a name begins with, up to each of its slashes, the longest first."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def depends_on_inputs(graph: ir.Graph) -> set[ir.Value]:
    """Return the values that depend on an input of the graph."""
    found: set[ir.Value] = {v for v in graph.inputs if v.name not in graph.initializers}
    for node in graph:
        if any(v in found for v in node.inputs) or node.op_type in ("If", "Loop", "Scan"):
            found.update(node.outputs)
    return found
