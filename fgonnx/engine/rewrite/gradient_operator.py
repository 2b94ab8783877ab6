"""ai.onnx.preview.training.Gradient, lowered to standard operators.

The operator's page: https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Gradient.html. No runtime implements it;
a model lowered here runs on all of them. Gradients of gradients work, as each one is ordinary nodes when the next is
lowered.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from fgonnx.engine.graph import probe
from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dims_of, required, shaped
from fgonnx.engine.model.load import ModelLike, load
from fgonnx.engine.normal.expand import expand
from fgonnx.engine.normal.normalise import infer_types, inline_functions, lift_constants
from fgonnx.engine.normal.opset import IR_VERSION, raise_opset
from fgonnx.engine.walk import backward, cuts
from fgonnx.errors import ModelError

DOMAIN = "ai.onnx.preview.training"


def lower_gradients(model: ModelLike) -> onnx.ModelProto:
    """Return the model with every Gradient operator replaced by the nodes that compute it.

    Parameters
    ----------
    model : path, bytes, onnx.ModelProto or ir.Model
        A model whose inputs have fixed sizes.

    Returns
    -------
    onnx.ModelProto
        With the same inputs and outputs, of standard operators only.

    Raises
    ------
    ModelError
        If an input has a free size, or a Gradient names a tensor that is not there or that its `y` does not depend on.
    UnsupportedError
        If an operator between them has no rule.
    """
    loaded = load(model)
    work = loaded.ir.clone()
    work.ir_version = max(work.ir_version, IR_VERSION)
    inline_functions(work)
    raise_opset(work, [])
    lift_constants(work)
    _shape_before_gradients(work, loaded.name)
    while expand(work):
        lift_constants(work)
        _shape_before_gradients(work, loaded.name)
    count = 0
    while (node := next((n for n in work.graph if n.domain == DOMAIN and n.op_type == "Gradient"), None)) is not None:
        node.name = node.name or f"Gradient_{count}"
        _lower(work, node, loaded.name)
        count += 1
    work.opset_imports.pop(DOMAIN, None)
    infer_types(work)
    proto: onnx.ModelProto = ir.to_proto(work)
    return proto


def _lower(model: ir.Model, node: ir.Node, where: str) -> None:
    graph = model.graph
    xs = list(node.attributes["xs"].as_strings())
    zs = list(node.attributes["zs"].as_strings()) if "zs" in node.attributes else []
    y_name = node.attributes["y"].as_string()
    _shape_before_gradients(model, where)
    values = {str(v.name): v for v in [*graph.inputs, *graph.initializers.values()]}
    values.update({str(v.name): v for n in graph for v in n.outputs})
    missing = [name for name in (*xs, *zs, y_name) if name not in values]
    if missing:
        raise ModelError(f"{where}: Gradient '{node.name}' names {', '.join(missing)}, which the graph does not have")
    independent = [values[name] for name in (*xs, *zs)]
    y = values[y_name]
    given = [required(node, i) for i in range(len(node.inputs))]
    if any(g is not v for g, v in zip(given, independent, strict=False)):
        y = _evaluate_at(graph, node, independent, given, y)
        _shape_before_gradients(model, where)
        independent = given
    sources = independent[: len(xs)]
    nodes = [n for n in graph if n.domain != DOMAIN]
    op = Emitter(graph, backward.active_values(nodes, sources), prefix=f"{node.name}/")
    between = _cut(nodes, independent)
    cuts.require_whole(between, sources, op.active, y, model.opset_imports[""])
    path = backward.path(between, op.active, y)
    seed = shaped(op.Add(op.zeros_like(y), 1.0), y)
    walked = backward.walk(op, path, y, seed, model.opset_imports[""])
    for name, source, out in zip(xs, sources, node.outputs, strict=False):
        if source not in walked.cotangents:
            raise ModelError(f"{where}: Gradient '{node.name}': '{y_name}' does not depend on '{name}'")
        result = op.Identity(walked.cotangents[source])
        # Later Gradients refer to this one's outputs by name.
        result.name, out.name, result.type, result.shape = out.name, None, source.type, source.shape
        out.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    graph.sort()


def _cut(nodes: list[ir.Node], independent: list[ir.Value]) -> list[ir.Node]:
    """Drop the nodes that compute an independent variable: the walk stops there."""
    makers = {v.producer() for v in independent}
    return [n for n in nodes if n not in makers]


def _evaluate_at(graph: ir.Graph, node: ir.Node, named: list[ir.Value], given: list[ir.Value], y: ir.Value) -> ir.Value:
    """Copy the nodes between the named tensors and y, with the given ones substituted."""
    nodes = [n for n in graph if n.domain != DOMAIN]
    dependent = backward.active_values(nodes, named)
    between = backward.path(_cut(nodes, named), dependent, y)
    bound = dict(zip(named, given, strict=False))
    for original in between:
        graph.insert_before(node, copy_node(original, bound, f"{node.name}/{{}}".format, shapes=False))
    return bound[y]


def _shape_before_gradients(model: ir.Model, where: str) -> None:
    """Set exact shapes of all values that do not depend on a Gradient, by running that part once."""
    copy = model.clone()
    graph = copy.graph
    behind: set[ir.Value] = set()
    for n in list(graph):
        if n.domain == DOMAIN or any(v in behind for v in n.inputs):
            behind.update(n.outputs)
    graph.outputs[:] = [v for v in graph.outputs if v not in behind]
    for n in reversed(list(graph)):
        if any(v in behind for v in n.outputs):
            graph.remove(n, safe=True)
    if not len(graph.outputs):
        graph.outputs.append(list(graph)[-1].outputs[0])
    free = [v.name for v in graph.inputs if v.shape is None or not all(isinstance(d, int) for d in v.shape.dims)]
    if free:
        raise ModelError(
            f"{where}: the inputs {', '.join(map(str, free))} have free sizes; fix them before gradients are lowered"
        )
    infer_types(copy)
    x = graph.inputs[0]
    shape = tuple(int(d) for d in dims_of(x))  # type: ignore[arg-type]
    shapes = probe.Prober(copy).run(probe.random_feeds(graph, x, shape, 1)).shapes
    types = {str(v.name): v.type for n in graph for v in n.outputs}
    for n in model.graph:
        for v in n.outputs:
            if str(v.name) in shapes:
                v.shape = ir.Shape(shapes[str(v.name)])
                v.type = types[str(v.name)] or v.type
    for v in model.graph.initializers.values():
        if v.const_value is not None:
            v.shape = ir.Shape(v.const_value.shape.numpy())
