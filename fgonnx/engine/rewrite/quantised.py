"""A pattern that ONNX Runtime's optimiser turns into a graph it refuses, kept out of what is written.

It moves the quantisation of int8 values forward through operators that only move elements, and from opset 21 on names
their type in an attribute; another of its steps then turns int8 into uint8 and forgets the attribute ("output_dtype
INT8 does not match y_zero_point type UINT8"). Such operators of the backward pass read a copy.
"""

from __future__ import annotations

import onnx_ir as ir

from fgonnx.engine.graph.emit import PREFIX, Emitter
from fgonnx.engine.graph.values import shaped

_SINCE = 21
_MOVING = ("Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


def read_copies(model: ir.Model) -> None:
    """Let operators that only move elements read a copy of a dequantised int8 value."""
    graph = model.graph
    if model.opset_imports.get("", 1) < _SINCE:
        return
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.domain or node.inputs[0] is None:
            continue
        if node.inputs[0].dtype != ir.DataType.INT8:
            continue
        value = node.outputs[0]
        added = [(user, i) for user, i in value.uses() if str(user.name).startswith(PREFIX) and user.op_type in _MOVING]
        if added:
            op = Emitter(graph).in_front_of(added[0][0])
            copy = shaped(op.Neg(shaped(op.Neg(value), value)), value)  # exact, and no optimiser takes it for nothing
            for user, i in added:
                user.replace_input_with(i, copy)
    graph.sort()
