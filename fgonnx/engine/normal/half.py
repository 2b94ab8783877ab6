"""Float32 twins of half-precision values, so that cotangents neither underflow nor overflow.

A float16 node is kept and computes the outputs. The same operator also runs in float32 on the twins of its inputs;
where the node rounds, a StraightThrough node ties the twin to the actual half-precision result. Gradients flow
through the twins, and rounding to half precision is a term of its own, as with int8.
"""

from __future__ import annotations

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.normal.tie import DOMAIN, Twins, dependent_nodes

PREFIX = "widened/"
"""Prefix of the names of twins."""

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

# Operators that select among their operands' entries: they do not round.
_EXACT = {
    "Abs",
    "Concat",
    "DepthToSpace",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GlobalMaxPool",
    "Identity",
    "Max",
    "MaxPool",
    "Min",
    "Neg",
    "Relu",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def is_half(graph: ir.Graph) -> bool:
    """Tell whether a graph computes in half precision."""
    return any(v.dtype in _HALF or (v.dtype is None and _makes_half(node)) for node in graph for v in node.outputs)


def _makes_half(node: ir.Node) -> bool:
    """Tell the same of a node whose results have no types."""
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int()) in _HALF
    return any(v is not None and v.dtype in _HALF for v in node.inputs)


def add_twins(model: ir.Model, x: ir.Value) -> Twins:
    """Add float32 twins to a graph.

    Requires: exact shapes and types. Ensures: no half-precision value on the path from the explained input to the twins
    of the outputs.
    """
    graph = model.graph
    own, nodes = set(graph), dependent_nodes(graph, x)
    op = Emitter(graph, prefix=PREFIX)
    twins: dict[ir.Value, ir.Value] = {}
    written = Twins(x)
    if x.dtype in _HALF:
        written.x = twins[x] = _float32(op, x)
    for node in nodes:
        if any(v in twins for v in node.inputs) or any(v.dtype in _HALF for v in node.outputs):
            _visit(op, node, twins, written)
    graph.sort()
    written.outputs = {v: twins[v] for v in graph.outputs if v in twins}
    written.counterparts = tuple(twins)
    written.complete(graph, own)
    return written


def _visit(op: Emitter, node: ir.Node, twins: dict[ir.Value, ir.Value], written: Twins) -> None:
    inputs = [None if v is None else twins.get(v) or (_float32(op, v) if v.dtype in _HALF else v) for v in node.inputs]
    if node.op_type == "Cast" and inputs[0] is not None:
        kind = ir.DataType.FLOAT.value if _to_float(node) else _target(node)
        same = inputs[0].dtype == ir.DataType.FLOAT == kind
        results: tuple[ir.Value, ...] = (inputs[0],) if same else (op.Cast(inputs[0], to=kind),)
    else:
        kept = {name: a.value for name, a in node.attributes.items()}
        kept |= {"domain": node.domain, "name": f"{node.outputs[0].name}::wide"}
        results = op.several(node.op_type, *inputs, outputs=len(node.outputs), **kept)
        written.stand_for(node, *results)
    for y, wide in zip(node.outputs, results, strict=True):
        if y.dtype in _HALF:
            if wide is not inputs[0]:
                wide.shape, wide.type = y.shape, ir.TensorType(ir.DataType.FLOAT)
            twins[y] = wide
            if node.op_type not in _EXACT:
                twins[y] = _tied(op, y, wide)
                written.stand_for(node, twins[y])
        elif y.dtype is not None and y.dtype.is_floating_point():
            # A wider result of half-precision operands: its consumers read the twin instead.
            wide.shape, wide.type = y.shape, y.type
            if not y.is_graph_output():
                y.replace_all_uses_with(wide)
            twins[y] = wide


def _tied(op: Emitter, y: ir.Value, wide: ir.Value) -> ir.Value:
    return shaped(op.emit("StraightThrough", wide, _float32(op, y), domain=DOMAIN, name=f"{y.name}::rounded"), y)


def _float32(op: Emitter, v: ir.Value) -> ir.Value:
    return shaped(op.Cast(v, to=ir.DataType.FLOAT.value), v)


def _target(node: ir.Node) -> int:
    return node.attributes["to"].as_int()


def _to_float(node: ir.Node) -> bool:
    return ir.DataType(_target(node)) in (*_HALF, ir.DataType.FLOAT)
