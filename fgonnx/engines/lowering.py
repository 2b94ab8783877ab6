"""Which operators ONNX Runtime's gradient builder takes, as they are or written out; everything else is refused.

Measured on onnxruntime-training 1.19.2: its builder has no gradient for many operators, a wrong one for some
attributes, and ends the process on some graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from fgonnx.emit import Emitter
from fgonnx.engines import forms
from fgonnx.engines.forms import WAY_OUT
from fgonnx.rules.registry import Unsupported

Lowering = Callable[..., ir.Value | tuple[ir.Value, ...]]

#: How an operator is written for the builder.
LOWERINGS: dict[str, Lowering] = {
    "AveragePool": forms.average_pool, "BatchNormalization": forms.batch_normalization, "Celu": forms.celu,
    "Clip": forms.clip, "Conv": forms.conv, "ConvTranspose": forms.conv_transpose,
    "DepthToSpace": forms.depth_to_space, "Dropout": forms.dropout, "Elu": forms.elu, "Gelu": forms.gelu,
    "Gemm": forms.gemm, "GlobalMaxPool": forms.global_max_pool, "HardSigmoid": forms.hard_sigmoid,
    "HardSwish": forms.hard_swish, "InstanceNormalization": forms.instance_normalization,
    "LayerNormalization": forms.layer_normalization, "LeakyRelu": forms.leaky_relu, "MatMul": forms.matmul,
    "MaxPool": forms.max_pool, "Mean": forms.mean, "Mish": forms.mish, "PRelu": forms.prelu, "Pad": forms.pad,
    "Pow": forms.power, "ReduceL1": forms.reduce_l1, "ReduceSumSquare": forms.reduce_sum_square,
    "Resize": forms.resize, "Selu": forms.selu, "Slice": forms.slice_, "Softplus": forms.softplus,
    "Softsign": forms.softsign, "SpaceToDepth": forms.space_to_depth, "Split": forms.split, "Sum": forms.sum_,
    "ThresholdedRelu": forms.thresholded_relu, "Where": forms.where,
}  # fmt: skip

#: Operators that the builder takes as they are.
TAKEN = (
    "Abs", "Add", "Cast", "Concat", "Cos", "Div", "Erf", "Exp", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "GlobalAveragePool", "Identity", "Log", "LogSoftmax", "Max", "Min", "Mul", "Neg", "Reciprocal",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Sin", "Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile",
    "TopK", "Transpose", "Unsqueeze",
)  # fmt: skip


def lower(
    op: Emitter, node: ir.Node, inputs: Sequence[ir.Value | None], lowerings: Mapping[str, Lowering] = LOWERINGS
) -> tuple[ir.Value, ...]:
    """Write a node for the builder.

    Parameters
    ----------
    op : Emitter
        Of the copy that the builder gets; its `active` set says what has a gradient there.
    node : ir.Node
        The node.
    inputs : sequence of ir.Value or None
        What stands for its inputs in the copy.
    lowerings : mapping of str to callable
        How operators are written.

    Raises
    ------
    Unsupported
        If the builder has no right gradient for it.
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
        made = op.emit(node.op_type, *inputs, outputs=len(outputs), **attributes)
        return made if isinstance(made, tuple) else (made,)
    known = inspect.signature(lowering).parameters
    if ignored := sorted(set(attributes) - set(known)):
        raise Unsupported(f"ONNX Runtime's training build has no gradient for it with {', '.join(ignored)}", WAY_OUT)
    made = lowering(op, outputs if len(outputs) > 1 else outputs[0], *inputs, **attributes)
    return made if isinstance(made, tuple) else (made,)
