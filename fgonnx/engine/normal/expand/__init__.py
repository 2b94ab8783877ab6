"""Operators without a rule of their own, written out in operators that have one.

Five ways: the function body that the standard gives for an operator; If, Loop and Scan with what is known of them;
recurrent layers step by step; samplers as gathers and weights; the optimiser's fused operators taken apart.
"""

from __future__ import annotations

import onnx_ir as ir

from fgonnx.engine.normal.expand import contrib, controlflow, functions, recurrent, sampling
from fgonnx.engine.rules.registry import find

# The quantised form explains what a dynamic scale rounds instead of its body; what is drawn at random is refused.
_LEFT = {"Bernoulli", "DynamicQuantizeLinear"}

EXPANDERS = {
    **{("", name): e for name, e in {**controlflow.EXPANDERS, **recurrent.EXPANDERS}.items()},
    **sampling.EXPANDERS,
    **contrib.EXPANDERS,
}


def expand(model: ir.Model) -> bool:
    """Expand, once, every node that needs it; return whether anything changed.

    Requires: exact shapes. Ensures: valid names and order; the values it adds have no types or shapes yet.
    """
    opset = model.opset_imports[""]
    dependent = depends_on_inputs(model.graph)
    changed = False
    for node in list(model.graph):
        if not any(v in dependent for v in node.inputs) and node.op_type not in controlflow.EXPANDERS:
            continue
        if node.op_type in _LEFT or find(node.op_type, opset, node.domain) is not None:
            continue
        if (expander := EXPANDERS.get((node.domain, node.op_type))) is not None:
            changed |= expander(model, node)
        else:
            changed |= functions.expand(model, node)
    if changed:
        functions.settle(model)
    return changed


def depends_on_inputs(graph: ir.Graph) -> set[ir.Value]:
    """Return the values that depend on an input of the graph."""
    found: set[ir.Value] = {v for v in graph.inputs if v.name not in graph.initializers}
    for node in graph:
        if any(v in found for v in node.inputs) or node.op_type in ("If", "Loop", "Scan"):
            found.update(node.outputs)
    return found
