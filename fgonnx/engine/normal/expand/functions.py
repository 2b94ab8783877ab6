"""Expansion by the function body of an operator's schema."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine.graph.origin import remember

_DOMAIN = "fgonnx.expansion"


def has_body(op_type: str, opset: int, domain: str = "") -> bool:
    """Tell whether the standard defines a function body for an operator."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def expand(model: ir.Model, node: ir.Node) -> bool:
    """Turn a node into a call of a model-local function that holds the body of its schema.

    Bodies may depend on the node's attributes and on which inputs it has, so each node gets a function of its own.
    """
    opset = model.opset_imports.get(node.domain, 1)
    if not has_body(node.op_type, opset, node.domain):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    body = _body(schema, node, model.opset_imports[""])
    if body is None:
        return False
    name = f"{node.op_type}_{len(model.functions)}"
    body.domain, body.name = _DOMAIN, name
    _trim_outputs(body, len(node.outputs))
    for inner in body.node:  # messages and sites name the node of the model
        inner.name = f"{node.name}/{inner.name or inner.op_type}"
    imported = {o.domain: o.version for o in body.opset_import}
    if imported.get("", model.opset_imports[""]) != model.opset_imports[""]:
        del body.opset_import[:]
        body.opset_import.append(onnx.helper.make_opsetid("", model.opset_imports[""]))
    function = ir.serde.deserialize_function(body)
    model.functions[function.identifier()] = function
    model.opset_imports.setdefault(_DOMAIN, 1)
    _fill_defaults(schema, node, body)
    remember(node)
    node.domain, node.op_type, node.overload = _DOMAIN, name, ""
    return True


def _body(schema: Any, node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    proto = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        node_proto = ir.to_proto(node)
        types = []
        for v in node.inputs:
            kind = onnx.TypeProto()
            if v is not None and v.dtype is not None:
                dims = [d if isinstance(d, int) else None for d in v.shape.dims] if v.shape is not None else None
                kind = onnx.helper.make_tensor_type_proto(v.dtype.value, dims)
            types.append(kind.SerializeToString())
        for version in sorted(schema.context_dependent_function_opset_versions, reverse=True):
            if version <= opset:
                text = schema.get_context_dependent_function_with_opset_version(
                    version, node_proto.SerializeToString(), types
                )
                proto.ParseFromString(text)
                return proto
        return None
    for version in sorted(schema.function_opset_versions, reverse=True):
        if version <= opset:
            proto.ParseFromString(schema.get_function_with_opset_version(version))
            return proto
    return None


def _trim_outputs(body: onnx.FunctionProto, count: int) -> None:
    """Drop formal outputs that the node does not have; a body built for it does not compute them either."""
    del body.output[count:]
    made = {name for node in body.node for name in node.output}
    for name in body.output:
        if name not in made:
            body.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))


def _fill_defaults(schema: Any, node: ir.Node, body: onnx.FunctionProto) -> None:
    """Make defaults explicit: a call binds attributes by reference, and the function declares no defaults."""
    for name in body.attribute:
        if name in node.attributes or name not in schema.attributes:
            continue
        default = schema.attributes[name].default_value
        if default.type:
            node.attributes[name] = ir.serde.deserialize_attribute(default)


def settle(model: ir.Model) -> None:
    """Inline the functions that expansions have created, and make all names unique."""
    if model.functions:
        common.InlinePass()(model)
        model.opset_imports.pop(_DOMAIN, None)
    common.TopologicalSortPass()(model)
    common.NameFixPass()(model)
    common.RemoveUnusedNodesPass()(model)
