"""Outputs that are no tensors: set aside where tensors are left, or told by the tensor that a ZipMap reads."""

from __future__ import annotations

import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from fgonnx.engine.model.wellformed import nodes_of
from fgonnx.errors import ModelError

_ML = "ai.onnx.ml"


def any_in(graph: GraphProto) -> bool:
    """Tell whether a graph has outputs that are no tensors, or maps anywhere."""
    return (
        any(_is_container(v) for v in graph.output)
        or any(_has_map(v.type) for v in (*graph.input, *graph.value_info))
        or any(map(_zips, graph.node))
    )


def set_aside(graph: GraphProto, where: str) -> list[str]:
    """Remove outputs that are maps, sequences or optional values, in place; return notes that name them.

    The map of a ZipMap, which exporters of scikit-learn put last, is replaced by the tensor that it reads. Others are
    removed where an output is left.

    Raises
    ------
    ModelError
        If an input is a map, or the only outputs are maps and not those of a ZipMap.
    """
    for v in graph.input:
        if _has_map(v.type):
            raise ModelError(f"{where}: its input '{v.name}' is a map; only tensors can be explained")
    producers = {name: node for node in graph.node for name in node.output}
    for v in [v for v in graph.value_info if _has_map(v.type)]:
        graph.value_info.remove(v)
    outputs, aside, notes = list(graph.output), [], []
    kept: list[ValueInfoProto] = []
    for v in outputs:
        node = producers.get(v.name)
        if not _is_container(v):
            kept.append(v)
        elif node is not None and _zips(node):
            behind = node.input[0]
            aside.append(v)
            notes.append(f"the output '{v.name}' is a map and is set aside; '{behind}' holds its numbers")
            if behind not in {o.name for o in (*outputs, *kept)}:
                kept.append(onnx.helper.make_tensor_value_info(behind, TensorProto.FLOAT, None))
    for v in (v for v in outputs if _is_container(v) and v not in aside):
        if any(not _is_container(k) for k in kept):
            aside.append(v)
            notes.append(f"the output '{v.name}' is no tensor and is set aside")
        elif _has_map(v.type):
            node = producers.get(v.name)
            by = f" of the node '{node.name or v.name}' ({node.op_type})" if node is not None else ""
            raise ModelError(
                f"{where}: its only output '{v.name}' is a map{by}, which carries no gradient; export the model with "
                "a tensor as output (scikit-learn: zipmap=False)"
            )
        else:
            kept.append(v)
    own = [ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
    del graph.output[:]
    graph.output.extend(own)
    _remove_dead(graph, [*(producers[v.name] for v in aside if v.name in producers), *filter(_zips, graph.node)])
    return notes


def _is_container(v: ValueInfoProto) -> bool:
    return v.type.WhichOneof("value") in ("sequence_type", "map_type", "optional_type")


def _zips(node: NodeProto) -> bool:
    return (node.op_type, node.domain) == ("ZipMap", _ML)


def _has_map(kind: TypeProto) -> bool:
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return _has_map(getattr(kind, which).elem_type)
    return which == "map_type"


def _remove_dead(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Remove nodes whose results nothing needs any more, and those that only they needed."""
    while nodes:
        read = {v.name for v in graph.output} | {name for n in nodes_of(graph.node) for name in n.input}
        dead = [n for n in graph.node if n in nodes and not read & set(n.output)]
        needed = {name for n in dead for name in n.input}
        for node in dead:
            graph.node.remove(node)
        nodes = [n for n in graph.node if needed & set(n.output)]
