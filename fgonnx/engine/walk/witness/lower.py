"""Lowering for ONNX Runtime's gradient builder: operators that it takes as they are or lowered; others are refused.

Measured on onnxruntime-training 1.19.2: its builder has no gradient for many operators, a wrong one for some
attributes, and crashes on some graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.registry import Unsupported
from fgonnx.engine.walk.witness import elementwise, operators, windows
from fgonnx.engine.walk.witness.operators import WAY_OUT

Lowering = Callable[..., ir.Value | tuple[ir.Value, ...]]

#: The lowering of an operator.
LOWERINGS: dict[str, Lowering] = {
    "AveragePool": windows.average_pool,
    "BatchNormalization": operators.batch_normalization,
    "Celu": elementwise.celu,
    "Clip": elementwise.clip,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "DepthToSpace": operators.depth_to_space,
    "Dropout": operators.dropout,
    "Elu": elementwise.elu,
    "Gelu": elementwise.gelu,
    "Gemm": operators.gemm,
    "GlobalMaxPool": windows.global_max_pool,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.hard_swish,
    "InstanceNormalization": operators.instance_normalization,
    "LayerNormalization": operators.layer_normalization,
    "LeakyRelu": elementwise.leaky_relu,
    "MatMul": operators.matmul,
    "MaxPool": windows.max_pool,
    "Mean": operators.mean,
    "Mish": elementwise.mish,
    "PRelu": elementwise.prelu,
    "Pad": operators.pad,
    "Pow": operators.power,
    "ReduceL1": operators.reduce_l1,
    "ReduceSumSquare": operators.reduce_sum_square,
    "Resize": operators.resize,
    "Selu": elementwise.selu,
    "Slice": operators.slice_,
    "Softplus": elementwise.softplus,
    "Softsign": elementwise.softsign,
    "SpaceToDepth": operators.space_to_depth,
    "Split": operators.split,
    "Sum": operators.sum_,
    "ThresholdedRelu": elementwise.thresholded_relu,
    "Where": operators.where,
}

#: Operators that the builder takes as they are.
TAKEN = (
    "Abs",
    "Add",
    "Cast",
    "Concat",
    "Cos",
    "Div",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "GlobalAveragePool",
    "Identity",
    "Log",
    "LogSoftmax",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Sin",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Unsqueeze",
)


def lower(
    op: Emitter, node: ir.Node, inputs: Sequence[ir.Value | None], lowerings: Mapping[str, Lowering] = LOWERINGS
) -> tuple[ir.Value, ...]:
    """Write a node in operators that the builder differentiates correctly.

    Parameters
    ----------
    op : Emitter
        Emitter of the copy for the builder; its `active` set has the values with a gradient.
    node : ir.Node
        The node.
    inputs : sequence of ir.Value or None
        Its inputs in the copy.
    lowerings : mapping of str to callable
        Lowerings by operator.

    Raises
    ------
    Unsupported
        If the builder has no correct gradient for it.
    """
    kinds = {v.dtype for v in node.outputs if v.dtype is not None and v.dtype.is_floating_point()}
    if node.domain or node.op_type not in (*lowerings, *TAKEN):
        raise Unsupported("ONNX Runtime's training build has no gradient for it", WAY_OUT)
    if kinds - {ir.DataType.FLOAT}:
        raise Unsupported("ONNX Runtime's training build is used in float32 alone", WAY_OUT)
    attributes: dict[str, Any] = {
        a.name: list(a.value) if isinstance(a.value, tuple) else a.value for a in node.attributes.values()
    }
    outputs = tuple(node.outputs)
    if (lowering := lowerings.get(node.op_type)) is None:
        return op.several(node.op_type, *inputs, outputs=len(outputs), **attributes)
    known = inspect.signature(lowering).parameters
    if ignored := sorted(set(attributes) - set(known)):
        raise Unsupported(f"ONNX Runtime's training build has no gradient for it with {', '.join(ignored)}", WAY_OUT)
    lowered = lowering(op, outputs if len(outputs) > 1 else outputs[0], *inputs, **attributes)
    return lowered if isinstance(lowered, tuple) else (lowered,)
