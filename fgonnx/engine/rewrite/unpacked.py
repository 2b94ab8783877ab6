"""Quantised weights, made real numbers in steps that no runtime takes for weights it may keep packed.

OpenVINO makes one node of integers, their scale and the product or lookup that reads them. Where the scales lie along
the axis that is summed over, as in the gradient of a layer with a scale for each of its results, it takes wrong ones;
of a lookup it reads wrong rows; elsewhere it rounds the other factor to eight bits. With a step over int32 in between
it computes the weights once, when the file is loaded. The numbers are the same, bit for bit.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import PREFIX, Emitter
from fgonnx.engine.graph.values import dims_of, dtype_of, shaped
from fgonnx.engine.normal.integers import MICROSOFT
from fgonnx.engine.rewrite.own_weights import constant

_PACKED = ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
_MAKING_REAL = (("", "Cast"), ("", "DequantizeLinear"), (MICROSOFT, "DequantizeLinear"))
_DEQUANTISED = (*_PACKED, "INT16", "UINT16", "INT32")


def unpack(op: Emitter) -> None:
    """Write constants that are dequantised or cast from integers of few bits in steps over int32.

    Layers of the source that multiply dequantised values by them stay as they are: runtimes compute these in integers.
    """
    for node in list(op.graph):
        if (node.domain, node.op_type) not in _MAKING_REAL:
            continue
        q, result = node.inputs[0], node.outputs[0]
        kinds = _PACKED if node.op_type == "Cast" else _DEQUANTISED
        if q is None or q.dtype is None or q.dtype.name not in kinds or not constant(result):
            continue
        if any(v is not None and (v.shape is None or not v.shape.is_static()) for v in node.inputs):
            continue
        here = op.in_front_of(node)
        if node.op_type == "Cast":
            if ir.DataType(node.attributes["to"].as_int()).is_floating_point():
                node.replace_input_with(0, here.Cast(q, to=ir.DataType.INT32))
            continue
        users = [(user, i) for user, i in result.uses() if not _in_integers(user, i, node)]
        if users:
            weights = _dequantised(here, node)
            for user, i in users:
                user.replace_input_with(i, weights)


def _in_integers(user: ir.Node, i: int, node: ir.Node) -> bool:
    """Tell whether a layer of the source multiplies dequantised values by weights with a scale for each result."""
    if user.domain or str(user.name).startswith(PREFIX) or i not in (1, 2):
        return False
    values = user.inputs[0].producer() if user.inputs[0] is not None else None
    if values is None or values.op_type != "DequantizeLinear" or constant(values.outputs[0]):
        return False
    if user.op_type in ("Conv", "ConvTranspose") or (user.op_type == "Gemm" and i == 2):
        return True
    if user.op_type not in ("Gemm", "MatMul") or node.attributes.get_int("block_size", 0) != 0:
        return False
    scale, rank = node.inputs[1], len(dims_of(node.inputs[0])) if node.inputs[0] is not None else 0
    if scale is not None and all(d == 1 for d in dims_of(scale)):
        return True
    return _axis(node, rank) == (0 if user.attributes.get_int("transB", 0) else rank - 1)


def _dequantised(op: Emitter, node: ir.Node) -> ir.Value:
    """Return (q - z) s as real numbers."""
    q, scale = node.inputs[0], node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    assert q is not None
    assert scale is not None
    numbers = _integers(op, q)
    if zero is not None:
        numbers = op.Sub(numbers, _spread(op, _integers(op, zero), node))
    kind, wide = dtype_of(scale), ir.DataType.FLOAT  # of half precision, the product is rounded once
    spread = _spread(op, scale, node)
    factor = spread if kind == wide else op.Cast(spread, to=wide)
    weights = op.Mul(op.Cast(numbers, to=wide), factor)
    weights = weights if kind == wide else op.Cast(weights, to=kind)
    weights.shape = node.outputs[0].shape or q.shape
    return weights


def _integers(op: Emitter, v: ir.Value) -> ir.Value:
    """Return integers as int32; those of four bits, which Cast has from opset 21 on, from a copy in eight."""
    array = op.array(v)
    if (
        v.dtype in (ir.DataType.INT4, ir.DataType.UINT4)
        and array is not None
        and op.graph.opset_imports.get("", 1) < 21
    ):
        v = op.constant(array.astype(np.int8))
    return shaped(op.Cast(v, to=ir.DataType.INT32), v)


def _spread(op: Emitter, v: ir.Value, node: ir.Node) -> ir.Value:
    """Return scales or zero points with the axes of the weights: one for all, one along an axis, one for each block."""
    assert node.inputs[0] is not None
    sizes = [op.size(node.inputs[0], i) for i in range(op.rank(node.inputs[0]))]
    own = [op.size(v, i) for i in range(op.rank(v))]
    axis, block = _axis(node, len(sizes)), node.attributes.get_int("block_size", 0)
    if all(n == 1 for n in own) and not block:
        return v if not own else op.Reshape(v, [1] * len(sizes))
    if not block:
        return op.Reshape(v, [n if i == axis else 1 for i, n in enumerate(sizes)])
    repeated = [*own[: axis + 1], block, *own[axis + 1 :]]
    long = [n * block if i == axis else n for i, n in enumerate(own)]
    spread = op.Reshape(op.Expand(op.Unsqueeze(v, [axis + 1]), repeated), long)
    return spread if long == sizes else op.Slice(spread, [0], [sizes[axis]], [axis])  # the last block may be shorter


def _axis(node: ir.Node, rank: int) -> int:
    given = node.attributes.get_int("axis", 1)
    return given % rank if rank else 0
