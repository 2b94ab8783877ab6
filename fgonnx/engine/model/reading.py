"""Read irregular models as onnxruntime does: names given twice, operator sets imported twice, nodes out of order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fgonnx.engine.graph.session import has_operator
from fgonnx.engine.graph.values import subgraphs_of
from fgonnx.engine.model import classes, containers, wellformed
from fgonnx.engine.model.wellformed import graphs_of
from fgonnx.errors import ModelError

_STANDARD = ("", "ai.onnx")


def settled(proto: onnx.ModelProto, where: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model that can be read in one way only, the one in which onnxruntime reads this one, and notes.

    The last import of an operator set counts, whose domain may be written "" or "ai.onnx", and the model's version of
    it in local functions, too. An operator of onnxruntime counts more than a local function of its name. An initializer
    may stand in the file several times, or be sparse. A size of -1 is a free one. Outputs that are no tensors are set
    aside.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; it is not changed.
    where : str
        What it is called in messages.

    Raises
    ------
    ModelError
        If constants of one name differ: which one counts in onnxruntime depends on their size and place. If it is
        malformed, see `wellformed.check`.
    """
    functions = [f for f in proto.functions if not _is_operator(f, proto)]
    opsets = {"" if o.domain in _STANDARD else o.domain: o.version for o in proto.opset_import}
    plain = [(o.domain, o.version) for o in proto.opset_import] == list(opsets.items())
    plain = plain and all(opsets.get(o.domain, o.version) == o.version for f in functions for o in f.opset_import)
    plain = plain and not any(_is_irregular(graph) for graph in graphs_of(proto.graph))
    plain = plain and not containers.any_in(proto.graph)
    repeated = [_repeated(graph, where) for graph in graphs_of(proto.graph)]
    notes: list[str] = []
    if not plain or any(repeated) or len(functions) < len(proto.functions):
        own = onnx.ModelProto()
        own.CopyFrom(proto)
        del own.opset_import[:], own.functions[:]
        own.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items())
        own.functions.extend(functions)
        for opset in (o for f in own.functions for o in f.opset_import):
            opset.version = opsets.get("" if opset.domain in _STANDARD else opset.domain, opset.version)
        for graph, again in zip(graphs_of(own.graph), repeated, strict=True):
            for i in reversed(again):
                del graph.initializer[i]
            _regular(graph)
        classes.keep(own)
        notes = containers.set_aside(own.graph, where)
        proto = own
    wellformed.check(proto, where)
    return proto, tuple(notes)


def _is_irregular(graph: onnx.GraphProto) -> bool:
    kinds = (_free_sizes(graph), _sparse(graph), _declared_again(graph))
    return bool(graph.sparse_initializer) or any(True for kind in kinds for _ in kind)


def _regular(graph: onnx.GraphProto) -> None:
    """Write out sparse constants of a graph, not of those in its nodes; settle types and free sizes."""
    for declared, given in _declared_again(graph):
        declared.type.CopyFrom(given.type)
    for dim in _free_sizes(graph):
        dim.Clear()
    graph.initializer.extend(_dense(t) for t in graph.sparse_initializer)
    del graph.sparse_initializer[:]
    for attribute in _sparse(graph):
        tensor = _dense(attribute.sparse_tensor)
        attribute.Clear()
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _declared_again(graph: onnx.GraphProto) -> Iterator[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]:
    """Yield outputs and inner values that are inputs, but have another type, with the inputs, whose types count."""
    inputs = {v.name: v for v in graph.input}
    for v in (*graph.output, *graph.value_info):
        if v.name in inputs and v.type != inputs[v.name].type:
            yield v, inputs[v.name]


def _free_sizes(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for v in (*graph.input, *graph.output, *graph.value_info):
        yield from (d for d in v.type.tensor_type.shape.dim if d.HasField("dim_value") and d.dim_value == -1)


def _sparse(graph: onnx.GraphProto) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in _STANDARD:
            yield from (a for a in node.attribute if a.name == "sparse_value" and a.HasField("sparse_tensor"))


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return a sparse tensor with its zeros; indices are coordinates, or count entries in order."""
    values, indices = (onnx.numpy_helper.to_array(t) for t in (sparse.values, sparse.indices))
    shape = tuple(sparse.dims)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    array = np.zeros(math.prod(shape), values.dtype)
    array[flat] = values
    return onnx.numpy_helper.from_array(array.reshape(shape), sparse.values.name)


_SWITCHES = ("allowzero", "keepdims", "noop_with_empty_axes")


def make_readable(model: ir.Model) -> None:
    """Write out what of descriptions is not UTF-8, which protobuf hands over as bytes."""
    for described in (model, model.graph):
        for name in ("producer_name", "producer_version", "domain", "doc_string", "name"):
            if isinstance(value := getattr(described, name, None), bytes):
                setattr(described, name, _text(value))
        entries = {_text(k): _text(v) for k, v in described.metadata_props.items()}
        if entries != dict(described.metadata_props):
            described.metadata_props.clear()
            described.metadata_props.update(entries)


def settle_switches(model: ir.Model) -> None:
    """Let switches be 0 or 1, as onnxruntime reads them: those named here are on at 1 alone, not at every other number.

    SplitToSequence is the exception, whose keepdims is off at 0 alone.
    """
    for nodes in (model.graph.all_nodes(), *(f.all_nodes() for f in model.functions.values())):
        for node in nodes:
            for name in _SWITCHES if node.op_type != "SplitToSequence" else ():
                given = node.attributes.get(name)
                if given is not None and given.type == ir.AttributeType.INT and not given.is_ref():
                    node.attributes[name] = ir.AttrInt64(name, int(given.as_int() == 1))


def _text(value: str | bytes) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def sort(model: ir.Model, where: str) -> None:
    """Bring nodes into topological order where they are not.

    Raises
    ------
    ModelError
        If there is none: nodes need each other's results.
    """
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        if _is_sorted(graph):
            continue
        try:
            graph.sort()
        except ValueError:
            names = [f"'{n.name or n.outputs[0].name}' ({n.op_type})" for n in _cycle(graph)]
            needs = f"{' needs '.join([*names, names[0]])}" if len(names) > 1 else f"{names[0]} needs its own result"
            raise ModelError(f"{where}: its nodes form a cycle: {needs}; export the model again") from None


def _is_operator(function: onnx.FunctionProto, proto: onnx.ModelProto) -> bool:
    # onnxruntime takes no function of the standard's domain, not even under a name that the standard does not have.
    return function.domain in _STANDARD or has_operator(function.domain, function.name)


def _repeated(graph: onnx.GraphProto, where: str) -> list[int]:
    """Return the positions of initializers that stand in the graph before."""
    known: dict[str, onnx.TensorProto] = {}
    found = []
    for i, tensor in enumerate(graph.initializer):
        first = known.setdefault(tensor.name, tensor)
        if first is not tensor:
            if first != tensor:
                raise _ambiguous(tensor.name, where)
            found.append(i)
    for node in graph.node if known else ():
        if node.op_type == "Constant" and node.output[0] in known:
            raise _ambiguous(node.output[0], where)
    return found


def _ambiguous(name: str, where: str) -> ModelError:
    return ModelError(f"{where}: holds two constants called '{name}', which runtimes read differently; export it again")


def _is_sorted(graph: ir.Graph | ir.Function) -> bool:
    seen: set[ir.Node] = set()
    # A node with subgraphs comes before the nodes in them, which may need results of the outer graph.
    for node in RecursiveGraphIterator(graph):
        for v in node.inputs:
            producer = v.producer() if v is not None else None
            if producer is not None and producer not in seen:
                return False
        seen.add(node)
    return True


def _needed(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes of the same graph whose results a node or its subgraphs need."""
    inner = [n for g in subgraphs_of(node) for n in RecursiveGraphIterator(g)]
    for n in (node, *inner):
        for v in n.inputs:
            producer = v.producer() if v is not None else None
            if producer is not None and producer.graph is node.graph:
                yield producer


def _cycle(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """Return the nodes of one cycle, each needing the next, of a graph or else of one of its subgraphs."""
    nodes = list(graph)
    left = {n: set(_needed(n)) for n in nodes}
    while ready := {n for n, needed in left.items() if not needed & left.keys()}:
        for n in ready:
            del left[n]
    if not left:  # the cycle is within a subgraph
        inner = (g for n in nodes for g in subgraphs_of(n))
        return next(found for g in inner if (found := _cycle(g)))
    walk = [next(n for n in nodes if n in left)]
    while True:
        following = next(n for n in nodes if n in left[walk[-1]] and n in left)
        if following in walk:
            return walk[walk.index(following) :]
        walk.append(following)
