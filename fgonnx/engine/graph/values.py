"""What the graph says of a value, or an error where it does not say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

Dims = tuple[int | ir.SymbolicDim, ...]


def required(node: ir.Node, index: int) -> ir.Value:
    """Return an input that the node's operator does not work without.

    Raises
    ------
    ValueError
        If it is left out.
    """
    value = optional(node, index)
    if value is None:
        raise ValueError(f"node '{node.name}' ({node.op_type}) lacks its input {index}")
    return value


def optional(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


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
    """Return the dimensions of a value: integers, and one symbol or more where the batch size enters.

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
    """Return a value, said to have the shape of another one, or these dimensions, None being a symbol without a name.

    An Emitter does not say it by itself: rules and maps choose their form by the shapes that are known.
    """
    value.shape = like.shape if isinstance(like, ir.Value) else ir.Shape(like)
    return value


def content_of(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return the content of a constant, or None where the value is not one."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()
