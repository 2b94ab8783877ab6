"""Refuse malformed models by name, before anything else reads them: functions, attributes, tensors, names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from fgonnx import bounds
from fgonnx.errors import ModelError

_STANDARD = ("", "ai.onnx")
_MOST_BYTES = 1 << 40  # of one tensor
_VALUES = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
}
"""Fields that hold the values of attributes of one value, by type."""
_LISTED: Mapping[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.STRING: "string_data",
    **dict.fromkeys(
        (TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT16, TensorProto.UINT8), "int32_data"
    ),
    **dict.fromkeys((TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.BFLOAT16), "int32_data"),
}
"""Fields of tensors that hold one number per entry, by element type."""
_COUNTS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_CALL = tuple[str, str, str]


def check(proto: onnx.ModelProto, where: str) -> None:
    """Check what onnxruntime would stop at, or what has no one reading.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model, with each operator set imported once.
    where : str
        What it is called in messages.

    Raises
    ------
    ModelError
        If functions call each other in a circle or grow beyond bounds, a call has more inputs than its function, an
        attribute is none of its operator's, a tensor's content does not fit its shape, or a result does not exist.
    """
    for entry in proto.metadata_props:
        who = f"{where}: its metadata entry {str(entry.key)[:80]!r} has"
        bounds.check("metadata_bytes", len(entry.value), who, ModelError)
    _check_text(proto, where)
    functions = {_identity(f): f for f in proto.functions}
    if len(functions) < len(proto.functions):
        name = next(i for i, n in Counter(map(_identity, proto.functions)).items() if n > 1)
        raise ModelError(f"{where}: holds two functions called '{_spelt(name)}'; export it again")
    _check_growth(proto, functions, where)
    opsets = {o.domain: o.version for o in proto.opset_import}
    for tensor in (t for graph in graphs_of(proto.graph) for t in graph.initializer):
        _check_tensor(tensor, f"the initializer '{tensor.name}'", where)
    for v in (v for graph in graphs_of(proto.graph) for v in (*graph.input, *graph.output)):
        if any(d.dim_value < 0 for d in v.type.tensor_type.shape.dim):
            raise ModelError(f"{where}: '{v.name}' has a size below zero; export the model with that size free")
    for node in nodes_of(proto.graph.node):
        _check_node(node, functions, opsets, where)
        for a in node.attribute:
            if a.ref_attr_name:
                raise ModelError(
                    f"{where}: {_called(node)}: its attribute '{a.name}' stands for '{a.ref_attr_name}' of a function, "
                    "and the node is in none; export the model again"
                )
    for function in proto.functions:
        inside = f"{where}: function '{_spelt(_identity(function))}'"
        for node in nodes_of(function.node):
            _check_node(node, functions, opsets, inside)
        known = _check_inputs(function.node, set(function.input), inside)
        if lost := [name for name in function.output if name not in known]:
            raise ModelError(f"{inside}: its output '{lost[0]}' is the result of no node; export the model again")
    _check_results(proto.graph, set(), where)


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and those in its nodes."""
    yield graph
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from graphs_of(inner)


def nodes_of(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes and those in their subgraphs."""
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from nodes_of(graph.node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _identity(function: FunctionProto) -> _CALL:
    return function.domain, function.name, function.overload


def _callee(node: NodeProto) -> _CALL:
    return node.domain, node.op_type, node.overload


def _spelt(name: _CALL) -> str:
    return ":".join(filter(None, name))


def _called(node: NodeProto) -> str:
    return f"node '{node.name or next(iter(node.output), '')}' ({node.op_type})"


def _check_text(proto: onnx.ModelProto, where: str) -> None:
    """Refuse names that are not UTF-8, which protobuf hands over as bytes."""
    names: list[object] = [v.name for g in graphs_of(proto.graph) for v in (*g.input, *g.output, *g.initializer)]
    for node in (n for nodes in (proto.graph.node, *(f.node for f in proto.functions)) for n in nodes_of(nodes)):
        names += [node.name, node.op_type, node.domain, node.doc_string, *node.input, *node.output]
        names += [text for a in node.attribute for text in (a.name, a.doc_string)]
        names += [text for entry in node.metadata_props for text in (entry.key, entry.value)]
    described = [v for g in graphs_of(proto.graph) for v in (*g.input, *g.output, *g.value_info)]
    names += [d.dim_param for v in described for d in v.type.tensor_type.shape.dim if d.dim_param]
    names += [text for v in described for text in (v.doc_string, v.type.denotation)]
    names += [o.domain for o in proto.opset_import]
    names += [n for f in proto.functions for n in (f.name, f.domain, *f.input, *f.output, *f.attribute)]
    for name in names:
        if isinstance(name, bytes):
            raise ModelError(
                f"{where}: is not a valid ONNX model: the text {name[:80]!r} is not UTF-8; export it again"
            )


def _check_growth(proto: onnx.ModelProto, functions: Mapping[_CALL, FunctionProto], where: str) -> None:
    """Refuse functions that call each other in a circle, or that hold too many nodes when written out."""
    calls = {name: Counter(map(_callee, nodes_of(f.node))) for name, f in functions.items()}
    size: dict[_CALL, int] = {}
    left = dict(calls)
    while ready := [n for n, called in left.items() if not called.keys() & left.keys()]:
        for name in ready:
            size[name] = sum(count * size.get(inner, 1) for inner, count in left.pop(name).items())
    if left:
        walk = [next(iter(left))]
        while (following := next(n for n in left[walk[-1]] if n in left)) not in walk:
            walk.append(following)
        circle = walk[walk.index(following) :]
        names = " calls ".join(f"'{_spelt(n)}'" for n in [*circle, circle[0]])
        raise ModelError(f"{where}: its functions form a circle: {names}; export the model again")
    total = sum(size.get(_callee(node), 1) for node in nodes_of(proto.graph.node))
    who = f"{where}: written out, its functions are" if functions else f"{where}: has"
    bounds.check("nodes", total, who, ModelError)


def _check_node(
    node: NodeProto, functions: Mapping[_CALL, FunctionProto], opsets: Mapping[str, int], where: str
) -> None:
    """Check calls and attributes: those of a function's nodes count in the operator sets of the model, too."""
    function = functions.get(_callee(node))
    if function is not None:
        for what, given, declared in (
            ("inputs", len(node.input), len(function.input)),
            ("outputs", len(node.output), len(function.output)),
        ):
            if given > declared:
                raise ModelError(
                    f"{where}: {_called(node)} has {given} {what}, its function '{_spelt(_callee(node))}' "
                    f"{declared}; export the model again"
                )
    names = [a.name for a in node.attribute]
    if len(set(names)) < len(names):
        raise ModelError(f"{where}: {_called(node)} has two attributes of one name; export the model again")
    for a in node.attribute:
        if not a.ref_attr_name and (a.type == AttributeProto.UNDEFINED or not _has_value(a)):
            raise ModelError(f"{where}: {_called(node)}: its attribute '{a.name}' has no value; export the model again")
        for tensor in [a.t] if a.HasField("t") else a.tensors:
            _check_tensor(tensor, f"the attribute '{a.name}' of {_called(node)}", where)
    schema = _schema(node, opsets) if function is None else None
    if schema is not None:
        _check_against(node, schema, opsets.get("", 1), where)


def _has_value(attribute: AttributeProto) -> bool:
    field = _VALUES.get(attribute.type)
    return field is None or attribute.HasField(field)


def _schema(node: NodeProto, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    """Return the standard's definition; None for an operator that is newer than the file's opset, or of others."""
    if node.domain not in _STANDARD or not onnx.defs.has(node.op_type, max_inclusive_version=opsets.get("", 1)):
        return None
    return onnx.defs.get_schema(node.op_type, opsets.get("", 1))


def _check_against(node: NodeProto, schema: onnx.defs.OpSchema, opset: int, where: str) -> None:
    what, after = f"{where}: {_called(node)}", f"of opset {opset}; export the model again"
    for a in node.attribute:
        declared: Any = schema.attributes.get(a.name)
        if declared is None:
            if not a.name.startswith("_"):
                raise ModelError(f"{what}: it has an attribute '{a.name}', which is none of the operator {after}")
        elif int(declared.type.value) != a.type:
            found, wanted = AttributeProto.AttributeType.Name(a.type), declared.type.name
            raise ModelError(f"{what}: its attribute '{a.name}' is a {found}, not a {wanted} as the operator's {after}")
    given = {a.name for a in node.attribute}
    for name, declared in schema.attributes.items():
        if declared.required and name not in given:
            raise ModelError(f"{what}: it lacks the attribute '{name}' that the operator needs, {after}")
    for kind, count, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            bounds = str(least) if least == most else f"{least} to {most}"
            raise ModelError(f"{what}: it has {count} {kind} where the operator has {bounds}, {after}")


def _check_tensor(tensor: TensorProto, what: str, where: str) -> None:
    try:
        dtype = ir.DataType(tensor.data_type)
        size = 0 if dtype == ir.DataType.STRING else dtype.itemsize  # 1 / 2 of those of 4 bits
    except (ValueError, TypeError):
        raise ModelError(
            f"{where}: {what} is of the element type {tensor.data_type}, which does not exist; export the model again"
        ) from None
    count = math.prod(tensor.dims)
    if any(d < 0 for d in tensor.dims) or count * size > _MOST_BYTES:
        raise ModelError(f"{where}: {what} has the shape {list(tensor.dims)}, which none can have")
    if tensor.data_location == TensorProto.EXTERNAL:
        _check_place(tensor, math.ceil(count * size), what, where)
        return
    found, needed, unit = 0, 0, "bytes"
    if tensor.HasField("raw_data"):
        found, needed = len(tensor.raw_data), math.ceil(count * size)
    elif (listed := _LISTED.get(tensor.data_type)) is not None:
        found, needed, unit = len(getattr(tensor, listed)), count, "numbers"
    if found != needed:
        raise ModelError(
            f"{where}: {what} has {found} {unit} where its shape {list(tensor.dims)} takes {needed}: the file is "
            "damaged; export or download it again"
        )


def _check_place(tensor: TensorProto, needed: int, what: str, where: str) -> None:
    """Check that a tensor names a file, and a part of it that can hold it."""
    entries = {e.key: e.value for e in tensor.external_data}
    if not entries.get("location"):
        raise ModelError(f"{where}: {what} is in a file that is not named; export the model again")
    offset, length = entries.get("offset", "0"), entries.get("length", str(needed))
    if not offset.isdecimal() or length != str(needed):
        raise ModelError(
            f"{where}: {what} lies at byte {offset} of a file, {length} bytes long, where its shape "
            f"{list(tensor.dims)} takes {needed}; export the model again"
        )


def _check_results(graph: GraphProto, outer: set[str], where: str) -> None:
    """Check that every value that is read or returned exists, in subgraphs as well."""
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    known = _check_inputs(graph.node, outer | given, where)
    for v in graph.output:
        if v.name not in known:
            raise ModelError(f"{where}: its output '{v.name}' is the result of no node; export the model again")


def _check_inputs(nodes: Sequence[NodeProto], known: set[str], where: str) -> set[str]:
    """Check what nodes read, with the names that are known before them; return those that are known behind them."""
    known = known | {name for node in nodes for name in node.output}
    for node in nodes:
        for name in filter(None, node.input):
            if name not in known:
                raise ModelError(
                    f"{where}: {_called(node)} reads '{name}', which nothing in the file provides; export the model "
                    "again"
                )
        for inner in _subgraphs(node):
            _check_results(inner, known, where)
    return known
