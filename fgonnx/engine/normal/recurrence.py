"""Recurrent layers of many steps: a graph whose size does not depend on how many there are.

A Scan runs the layer and gives the states before every step. From those, all steps are computed at once, in ordinary
operators on values with a time axis, and explained as such. What is left is how the state that a step leaves enters the
next one, two nodes:

    Recurrence   the Scan: initial states and (T, N, .) in, final states and the states before every step out
    Feedback     the states behind every step, as they are; its cotangent is that of the whole future

The cotangents of the states obey G[t] = d[t] + A[t + 1]' G[t + 1], d being what arrives from the layer's results and A
the Jacobian of a step: Feedback returns G, by a Scan backwards. So what a step sends back to the states before it has
been taken into account, and Recurrence passes on that of the first step alone.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.values import dims_of, producer_of, required, shaped
from fgonnx.engine.normal.tie import DOMAIN

ROLE = "fgonnx.recurrence"
"""Metadata of the nodes of a layer until shapes are known: which layer, and which node of it."""


def settle_recurrences(model: ir.Model) -> None:
    """Requires: exact shapes. Ensures: Recurrence and Feedback nodes where recurrent layers were written as Scans."""
    layers: dict[str, dict[str, ir.Node]] = {}
    for node in model.graph:
        if (role := node.meta.get(ROLE)) is not None:
            layers.setdefault(role[0], {})[role[1]] = node
    for name, nodes in layers.items():
        if len(nodes) == 2:  # both are used
            _settle(model, name, nodes)


def _settle(model: ir.Model, name: str, nodes: dict[str, ir.Node]) -> None:
    scan, behind = nodes["scan"], nodes["behind"]
    count = len(scan.outputs) // 2
    before = scan.outputs[count:]
    given = [required(scan, i) for i in range(count, len(scan.inputs))]
    _infer(model, scan, count)
    scan.domain, scan.op_type = DOMAIN, "Recurrence"
    joined = producer_of(required(behind, 0))
    feedback = ir.Node(
        DOMAIN, "Feedback", [*joined.inputs, *before, *given], num_outputs=count, name=f"{name}/feedback"
    )
    model.graph.insert_before(behind, feedback)
    for old, new in zip(behind.outputs, feedback.outputs, strict=True):
        new.name, new.type = f"{old.name}::feedback", old.type
        old.replace_all_uses_with(shaped(new, old), replace_graph_outputs=True)
    model.graph.remove([behind, joined], safe=True)


def _infer(model: ir.Model, scan: ir.Node, states: int) -> None:
    """Set the types and shapes of all values of a Scan's body: rules choose their form by them."""
    body = scan.attributes["body"].as_graph()
    for v, outer in zip(body.inputs, scan.inputs, strict=True):
        assert outer is not None
        dims = dims_of(outer)
        v.type, v.shape = outer.type, ir.Shape(dims if v in body.inputs[:states] else dims[1:])
    captured = {
        v
        for node in body
        for v in node.inputs
        if v is not None and v.graph is not body and v.producer() not in set(body)
    }
    captured -= {*body.inputs, *body.initializers.values()}
    bound: dict[ir.Value, ir.Value] = {}
    for i, v in enumerate([*body.inputs, *captured]):
        bound[v] = ir.Value(name=f"in_{i}", type=v.type, shape=v.shape, const_value=None)
    inputs = list(bound.values())
    for v in body.initializers.values():
        bound[v] = ir.Value(name=v.name, type=v.type, shape=v.shape, const_value=v.const_value)
    copies = [copy_node(node, bound, str, shapes=False) for node in body]
    known = [bound[v] for v in (*body.initializers.values(), *captured) if v.const_value is not None]
    graph = ir.Graph(
        inputs,
        [],
        nodes=copies,
        initializers=[v for v in known if v not in inputs],
        opset_imports=dict(model.opset_imports),
        name="step",
    )
    graph.outputs.extend(v for node in copies for v in node.outputs)
    for v in graph.outputs:
        v.type = v.type or body.inputs[0].type
    found = onnx.shape_inference.infer_shapes(ir.to_proto(ir.Model(graph, ir_version=model.ir_version)), data_prop=True)
    shapes = {v.name: v for v in ir.from_proto(found).graph.outputs}
    for node in body:
        for v in node.outputs:
            v.type, v.shape = shapes[str(v.name)].type, shapes[str(v.name)].shape
