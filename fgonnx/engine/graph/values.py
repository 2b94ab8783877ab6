"""Typed access to shapes, types and contents of values; an error where they are unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

Dims = tuple[int | ir.SymbolicDim, ...]

# Number of leading inputs whose content an operator reads; of the others it reads the type or the shape.
# The scale that a dynamic quantiser computes is part of its rounding, and not differentiated.
CONTENT = {
    "CastLike": 1,
    "DynamicQuantizeLinear": 0,
    "EyeLike": 0,
    "RandomNormalLike": 0,
    "RandomUniformLike": 0,
    "Shape": 0,
    "Size": 0,
}


def required(node: ir.Node, index: int) -> ir.Value:
    """Return a required input of a node.

    Raises
    ------
    ValueError
        If it is omitted.
    """
    value = optional(node, index)
    if value is None:
        raise ValueError(f"node '{node.name}' ({node.op_type}) lacks its input {index}")
    return value


def optional(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, None if it is omitted."""
    return node.inputs[index] if index < len(node.inputs) else None


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """Return the inputs whose content a node reads, and the values that its subgraphs (If, Loop, Scan) capture."""
    count = CONTENT.get(node.op_type) if not node.domain else None
    found = [v for v in node.inputs[:count] if v is not None]
    for graph in subgraphs_of(node):
        found += [v for inner in RecursiveGraphIterator(graph) for v in inner.inputs if v is not None]
        found.extend(graph.outputs)
    return found


def subgraphs_of(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs in a node's attributes: branches of an If, the body of a Loop or a Scan."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def producer_of(value: ir.Value) -> ir.Node:
    """Return the node that computes a value.

    Raises
    ------
    ValueError
        If it is an input or a constant.
    """
    node = value.producer()
    if node is None:
        raise ValueError(f"value '{value.name}' is computed by no node")
    return node


def dims_of(value: ir.Value) -> Dims:
    """Return the dimensions of a value: integers, or symbols where they depend on the batch size.

    Raises
    ------
    ValueError
        If its shape is not known.
    """
    if value.shape is None:
        raise ValueError(f"value '{value.name}' has no known shape")
    return tuple(value.shape.dims)


def dtype_of(value: ir.Value) -> ir.DataType:
    """Return the element type of a value.

    Raises
    ------
    ValueError
        If it is not known.
    """
    if value.dtype is None:
        raise ValueError(f"value '{value.name}' has no known element type")
    return value.dtype


def shaped(value: ir.Value, like: ir.Value | Sequence[int | str | ir.SymbolicDim | None]) -> ir.Value:
    """Set the shape of a value to that of another one, or to dimensions (None: an unnamed symbol), and return it.

    An Emitter does not set shapes by itself: rules and maps choose their form by the known shapes.
    """
    value.shape = like.shape if isinstance(like, ir.Value) else ir.Shape(like)
    return value


def content_of(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return the content of a constant, None for any other value."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()
