"""Weights of products: a tensor for each way in which they are multiplied by.

OpenVINO keeps one repacked copy of a tensor for all products that read it, looks through views of the tensor, and makes
a transposed factor an attribute of the product. Of two products that make matrices of one size of the same weights in
different ways, as by a square matrix and by its transpose, both get the first one's copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import PREFIX, Emitter, initializer

_PRODUCTS = ("Einsum", "Gemm", "MatMul")
_REGROUPING = ("Flatten", "Reshape")
_VIEWS = ("Cast", *_REGROUPING, "Identity", "Squeeze", "Transpose", "Unsqueeze")
"""What a runtime may read through."""


def own_copies(op: Emitter) -> None:
    """Give products copies of weights that others may make matrices of the same size of in another way.

    Weights that are computed together, as the parts of a Split, are copied together.
    """
    copies: dict[int, dict[ir.Value, ir.Value]] = defaultdict(dict)
    for node, i, way in list(_shared(op.graph)):
        v = node.inputs[i]
        assert v is not None
        node.replace_input_with(i, copied(op, v, copies[way]))


def _shared(graph: ir.Graph) -> Iterator[tuple[ir.Node, int, int]]:
    """Yield products and which factor of theirs others multiply by in another way.

    Yields
    ------
    node : ir.Node
        The product: one of the source only where another product of the source is first.
    i : int
        The place of the factor.
    way : int
        Counts the ways in which the weights are multiplied by, from 1: the first one of all, 0, keeps them.
    """
    ways: dict[ir.Value, dict[object, tuple[int, bool]]] = defaultdict(dict)
    products = [node for node in graph if not node.domain and node.op_type in _PRODUCTS]
    for node in sorted(products, key=lambda node: str(node.name).startswith(PREFIX)):
        for i, v in enumerate(node.inputs if node.op_type == "Einsum" else node.inputs[:2]):
            if v is None or not constant(v):
                continue
            weights, views = _read_through(v)
            known = ways[weights]
            way, apart = known.setdefault(_way(node, i, views), (len(known), _told_apart(node, v, views)))
            if way and not (apart and all(safe for _, safe in known.values())):
                yield node, i, way


def _told_apart(node: ir.Node, v: ir.Value, views: list[ir.Node]) -> bool:
    """Tell whether a matrix differs in size from its transpose, and from whatever else views make of the weights."""
    if v.shape is None or any(view.op_type in _REGROUPING for view in views):
        return False
    long = [d for d in v.shape.dims if d != 1]
    joined = node.op_type == "Einsum" and len(long) > 2  # 2 x 4 side by side is as long as 8
    return not joined and len(set(long)) == len(long)


def _read_through(v: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """Return what a factor is a view of, and the views, the last one first."""
    views = []
    while (node := v.producer()) is not None and node.op_type in _VIEWS and node.inputs[0] is not None:
        views.append(node)
        v = node.inputs[0]
    return v, views


def _way(node: ir.Node, i: int, views: list[ir.Node]) -> object:
    """Return what tells apart the ways in which a tensor is multiplied by."""
    steps: list[object] = []
    if node.op_type == "Einsum":
        steps.append(node.attributes["equation"].as_string())
    elif (flag := node.attributes.get(("transA", "transB")[i])) is not None and flag.as_int():
        steps.append((1, 0))
    for view in views:
        if view.op_type == "Identity":
            continue
        if view.op_type != "Transpose":
            steps.append(view.op_type)
            continue
        given = view.attributes.get("perm")
        perm = tuple(given.as_ints()) if given is not None else None
        last = steps[-1] if steps else None
        if perm is not None and isinstance(last, tuple) and len(last) == len(perm):
            perm = tuple(perm[axis] for axis in last)
            steps.pop()
        if perm is None or perm != tuple(range(len(perm))):
            steps.append(perm)
    return i, *steps


def constant(v: ir.Value | None) -> bool:
    """Tell whether a value is computed of weights alone."""
    waiting, seen = [v], {v}  # a network may be deeper than Python's stack
    while waiting:
        value = waiting.pop()
        if value is None:
            continue
        producer = value.producer()
        if producer is None:
            if value.const_value is None or value.is_graph_input():
                return False
            continue
        new = [w for w in producer.inputs if w not in seen]
        waiting += new
        seen.update(new)
    return True


def copied(op: Emitter, v: ir.Value, copies: dict[ir.Value, ir.Value]) -> ir.Value:
    """Return a copy of a constant, with copies of all that it is computed of.

    Parameters
    ----------
    copies : dict of ir.Value to ir.Value
        Copies that are there; new ones are added.
    """
    producer = v.producer()
    if v not in copies and producer is None:
        assert v.const_value is not None
        copies[v] = initializer(op.graph, op.unique(f"{v.name}:copy"), v.const_value.numpy())
    elif v not in copies and producer is not None:
        for w in producer.inputs:
            if w is not None:
                copied(op, w, copies)
        op.graph.insert_after(producer, copy_node(producer, copies, op.unique, shapes=True))
    return copies[v]
