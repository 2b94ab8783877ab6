"""Expand what onnxruntime writes for one kind of processor: channels in blocks (com.microsoft.nchwc).

In memory, a value (N, C, H, W) lies as (N, C / b, H, W, b), its channels filled up to a multiple of b; filters lie in
an order of their own. Element by element, that makes no difference: values are taken for (N, C, H, W), and filters are
put back into order. The size of a block is that of the processor that onnxruntime runs on.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.session import Session
from fgonnx.engine.normal.expand.build import Builder

DOMAIN = "com.microsoft.nchwc"


@functools.cache
def block_size() -> int:
    """Return how many channels a block has on this processor: how many entries of one place come first."""
    channels = 64
    node = onnx.helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)
    faces = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, channels, 1, 2]) for n in "xy"]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "blocks", faces[:1], faces[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(DOMAIN, 1)],
        ir_version=8,
    )
    x = np.tile(np.array([0, 1], np.float32), channels).reshape(1, channels, 1, 2)
    flat = Session(model, providers=["cpu"]).run({"x": x})["y"].ravel()
    return int(np.argmax(flat != 0))


def in_order(filters: npt.NDArray[Any], block: int) -> npt.NDArray[Any]:
    """Return filters (M, C, *kernel) whose entries lie as (M / b, C / b, *kernel, b of C, b of M) in memory.

    Of fewer input channels than a block has, they lie as (M / b, C, *kernel, b of M).
    """
    m, c, *kernel = filters.shape
    rank = len(kernel)
    places = range(2, 2 + rank)
    if c % block == 0:
        lying = filters.reshape(m // block, c // block, *kernel, block, block)
        return lying.transpose(0, 3 + rank, 1, 2 + rank, *places).reshape(filters.shape)
    lying = filters.reshape(m // block, c, *kernel, block)
    return lying.transpose(0, 2 + rank, 1, *places).reshape(filters.shape)


def reorder_input(op: Emitter, x: ir.Value, *, channels_last: int = 0) -> ir.Value:
    """Channels filled up with zeros to whole blocks."""
    v = op.Transpose(x, perm=[0, 3, 1, 2]) if channels_last else x
    missing = -op.size(x, op.rank(x) - 1 if channels_last else 1) % block_size()
    return op.Pad(v, [0, 0, 0, 0, 0, missing, 0, 0]) if missing else op.Identity(v)


def reorder_output(op: Emitter, x: ir.Value, *, channels: int, channels_last: int = 0) -> ir.Value:
    """The channels without what was filled up."""
    v = op.Slice(x, [0], [channels], [1])
    return op.Transpose(v, perm=[0, 2, 3, 1]) if channels_last else v


def _same(op_type: str) -> Builder:
    def build(op: Emitter, x: ir.Value, **options: Any) -> ir.Value:
        return op.emit(op_type, x, **options)

    build.__doc__ = f"{op_type} of channels in blocks."
    return build


BUILDERS: dict[tuple[str, str], Builder] = {
    (DOMAIN, "ReorderInput"): reorder_input,
    (DOMAIN, "ReorderOutput"): reorder_output,
    **{(DOMAIN, name): _same(name) for name in ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")},
}
