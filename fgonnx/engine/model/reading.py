"""Read irregular models as onnxruntime does: names given twice, operator sets imported twice, nodes out of order."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fgonnx.engine.graph.session import has_operator
from fgonnx.engine.graph.values import subgraphs_of
from fgonnx.errors import ModelError

_STANDARD = ("", "ai.onnx")


def settled(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a model that can be read in one way only, the one in which onnxruntime reads this one.

    The last import of an operator set counts, whose domain may be written "" or "ai.onnx". An operator of onnxruntime
    counts more than a local function of its name. An initializer may stand in the file several times.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; it is not changed.
    where : str
        What it is called in messages.

    Raises
    ------
    ModelError
        If constants of one name differ: which one counts in onnxruntime depends on their size and place.
    """
    functions = [f for f in proto.functions if not _is_operator(f, proto)]
    opsets = {"" if o.domain in _STANDARD else o.domain: o.version for o in proto.opset_import}
    plain_opsets = [(o.domain, o.version) for o in proto.opset_import] == list(opsets.items())
    repeated = [_repeated(graph, where) for graph in _graphs(proto.graph)]
    if not any(repeated) and plain_opsets and len(functions) == len(proto.functions):
        return proto
    own = onnx.ModelProto()
    own.CopyFrom(proto)
    del own.opset_import[:], own.functions[:]
    own.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items())
    own.functions.extend(functions)
    for graph, again in zip(_graphs(own.graph), repeated, strict=True):
        for i in reversed(again):
            del graph.initializer[i]
    return own


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


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)


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
