"""Copies of nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

import onnx_ir as ir


def copy_node(
    node: ir.Node, bound: MutableMapping[ir.Value, ir.Value], rename: Callable[[str], str], *, shapes: bool
) -> ir.Node:
    """Return a copy of a node, including its inner graphs, that belongs to no graph yet.

    Parameters
    ----------
    node : ir.Node
        The node.
    bound : mapping of ir.Value to ir.Value
        Replacements of values that the copy reads. The outputs of the copy are added, for those of the node.
    rename : callable
        Takes the name of the node or of an output and returns that of the copy.
    shapes : bool
        Whether to copy the shapes of the outputs.
    """
    inputs = [None if v is None else bound.get(v, v) for v in node.inputs]
    attributes = [_rebound(a, bound) for a in node.attributes.values()]
    name = rename(node.name or node.op_type)
    copy = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=len(node.outputs), name=name)
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        new.name, new.type = rename(old.name) if old.name else None, old.type
        if shapes:
            new.shape = old.shape
        bound[old] = new
    return copy


def _rebound(attribute: ir.Attr, bound: Mapping[ir.Value, ir.Value]) -> ir.Attr:
    """Copy an attribute; values that inner graphs capture are replaced too."""
    if attribute.type != ir.AttributeType.GRAPH:
        return attribute
    inner = attribute.as_graph().clone(allow_outer_scope_values=True)
    for node in ir.traversal.RecursiveGraphIterator(inner):
        for i, v in enumerate(node.inputs):
            if v is not None and v in bound:
                node.replace_input_with(i, bound[v])
    for i, v in enumerate(inner.outputs):
        replacement = bound.get(v)
        if replacement is not None:
            inner.outputs[i] = replacement
    return ir.Attr(attribute.name, ir.AttributeType.GRAPH, inner)
