"""What results of several samples say: where they lie side by side, and what a fixed batch is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import initializer
from fgonnx.engine.graph.probe import BATCH
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.normal.batch import agree
from fgonnx.engine.normal.expand import depends_on_inputs
from fgonnx.wording import parameter

Array = npt.NDArray[Any]


def alike(found: Array, truth: Array) -> bool:
    """Tell whether two results are equal up to rounding, that of their own type in float64."""
    if truth.dtype != np.float64 or found.shape != truth.shape:
        return agree(found, truth)
    return np.allclose(found, truth, rtol=1e-7, atol=1e-7 * float(np.abs(truth).max(initial=0.0)), equal_nan=True)


def mixing(where: str, output: str, shown: str, layout: str) -> str:
    """Return the message for samples that influence each other; `layout` is one that makes one sample of all."""
    whole = f", or take the whole array as one sample ({parameter('layout', layout)})" if layout else ""
    return (
        f"{where}: the samples of a batch influence each other, or are parts of one sample: no axis of '{output}' "
        f"answers to the samples of its input {shown} alone; explain an output with one row per sample "
        f"({parameter('output')}){whole}"
    )


def doubled(first: Array, second: Array, joined: Array) -> int | None:
    """Return the axis along which two results lie side by side in a third; None if that is not what it holds."""
    if first.shape != second.shape or not first.size:
        return None
    for axis in range(first.ndim):
        beside = np.concatenate([first, second], axis=axis)
        if beside.shape == joined.shape and agree(joined, beside):
            return axis
    return None


def row_of(clean: Array, changed: Sequence[Array], count: int) -> int | None:
    """Return the axis of a result of which only the first and the last part change with the first and last sample."""
    if any(c.shape != clean.shape for c in changed) or clean.dtype.kind not in "fiub":
        return None
    moved = [c != clean for c in changed]
    for axis in range(clean.ndim):
        rows, rest = divmod(clean.shape[axis], count)
        if rest or not rows:
            continue
        parts = [np.moveaxis(m, axis, 0).reshape(count, -1).any(axis=1) for m in moved]
        if [np.flatnonzero(p).tolist() for p in parts] == [[0], [count - 1]]:
            return axis
    return None


def position(v: ir.Value, name: str, axis: int, count: int) -> int | None:
    """Return which axis of an input is the fixed batch."""
    if v.name == name:
        return axis
    same = [i for i, d in enumerate(dims_of(v) if v.shape is not None else ()) if d == count]
    return axis if axis in same else same[0] if len(same) == 1 else None


def free(model: ir.Model, name: str, axis: int, count: int) -> None:
    """Make a fixed batch symbolic: of inputs and outputs, and in constant target shapes that hold it."""
    graph = model.graph
    for v in graph.inputs:
        place = position(v, name, axis, count)
        if place is not None:
            dims = list(dims_of(v))
            dims[place] = ir.SymbolicDim(BATCH)
            v.shape = ir.Shape(dims)
    for v in [v for node in graph for v in node.outputs]:  # an output of the graph may be an input
        v.shape = None
    dependent = depends_on_inputs(graph)
    for node in list(graph):
        if node.op_type != "Reshape" or node.inputs[0] not in dependent or len(node.inputs) < 2:
            continue
        target = node.inputs[1]
        tensor = ir.convenience.get_const_tensor(target) if target is not None else None
        if tensor is None or target is None:
            continue
        array = np.array(tensor.numpy(), np.int64)
        at = axis if array.size > axis and array[axis] == count else 0
        if array.size and array[at] > 0 and array[at] % count == 0 and (array[at] == count or not (array == -1).any()):
            array[at] = 0 if (array == -1).any() else -1
            node.replace_input_with(1, initializer(graph, f"{target.name}::{node.outputs[0].name}::batch", array))
