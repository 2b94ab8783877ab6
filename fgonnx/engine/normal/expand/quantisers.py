"""Expand QuantizeLinear and DequantizeLinear whose scale or zero point follows from an input: Div, Round, Clip, Mul.

Their scale is then differentiated like any other factor, as it is where the same quantiser is written by hand. What
DynamicQuantizeLinear picks is held fixed, and stays.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import content_of, dims_of, dtype_of
from fgonnx.engine.normal.expand import build
from fgonnx.engine.normal.tie import moving_scales
from fgonnx.engine.normal.twin import in_standard, placed, range_of

_Q = "QuantizeLinear"
_DQ = "DequantizeLinear"


def quantize(
    op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value | None = None, *, axis: int = 1, **options: int
) -> ir.Value:
    """Clip(Round(x / s) + z), cast to the type of the zero point."""
    kind = dtype_of(zero) if zero is not None else ir.DataType(options.get("output_dtype") or ir.DataType.UINT8.value)
    _refuse_options(kind, op, options)
    rank, real = len(dims_of(x)), dtype_of(x).value
    step = placed(op, scale, axis, rank)
    rounded = op.Round(op.Div(x, step if step.dtype == x.dtype else op.Cast(step, to=real)))
    if zero is not None:
        rounded = op.Add(rounded, _number(op, placed(op, zero, axis, rank), dtype_of(x)))
    return op.Cast(op.Clip(rounded, *range_of(kind)), to=kind.value)


def dequantize(
    op: Emitter, q: ir.Value, scale: ir.Value, zero: ir.Value | None = None, *, axis: int = 1, **options: int
) -> ir.Value:
    """(q - z) s."""
    _refuse_options(dtype_of(q), op, options)
    rank, real = len(dims_of(q)), dtype_of(scale).value
    value = op.Cast(q, to=real)
    if zero is not None:
        value = op.Sub(value, _number(op, placed(op, zero, axis, rank), dtype_of(scale)))
    return op.Mul(value, placed(op, scale, axis, rank))


def _number(op: Emitter, zero: ir.Value, kind: ir.DataType) -> ir.Value:
    known = content_of(zero)
    return op.Cast(zero, to=kind.value) if known is None else op.constant(known.astype(kind.numpy()))


def _refuse_options(kind: ir.DataType, op: Emitter, options: dict[str, int]) -> None:
    if options.get("block_size"):
        raise NotImplementedError("its scale, one for each block, depends on the input")
    if kind.is_floating_point() or not (in_standard(kind, op.graph) or kind.bitwidth == 16):
        raise NotImplementedError(f"its scale depends on the input, and its values are {kind.name.lower()}")


def _expander(builder: build.Builder) -> Callable[[ir.Model, ir.Node], bool]:
    def expand(model: ir.Model, node: ir.Node) -> bool:
        return bool(moving_scales(node)) and build.expand(builder, model, node)

    return expand


EXPANDERS: dict[tuple[str, str], build.Expander] = {
    (domain, name): _expander(builder)
    for domain in ("", "com.microsoft")
    for name, builder in ((_Q, quantize), (_DQ, dequantize))
}
