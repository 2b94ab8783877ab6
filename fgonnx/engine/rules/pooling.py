"""Pools. All have degree 1: no intercept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import dtype_of, producer_of, shaped
from fgonnx.engine.rules import plain_pool, written
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.fast import max_pool as routing
from fgonnx.engine.rules.fast.blocked import blockable, spread
from fgonnx.engine.rules.fast.convolution import Windows, window_sum_transpose
from fgonnx.engine.rules.fast.max_pool import Pool1D
from fgonnx.engine.rules.linear import explicit_pads, spatial
from fgonnx.engine.rules.registry import Local, Unsupported, rule


def _indices(op: Emitter, y: ir.Value) -> ir.Value:
    """Return the second output of the node that computes `y`, so that the pool runs once."""
    node = producer_of(y)
    if len(node.outputs) < 2:
        node.resize_outputs(2)
    indices = node.outputs[1]
    if not indices.name:
        indices.name = op.unique(f"{y.name}:indices")
    indices.type = ir.TensorType(ir.DataType.INT64)
    return indices


@rule(
    "MaxPool",
    family="homogeneous",
    note="c = 0; of equal elements the first, or one next to the padding, gets the cotangent",
)
def max_pool(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    storage_order: int = 0,
    strides: list[int] | None = None,
) -> Local:
    values = y[0] if isinstance(y, tuple) else y

    def vjp(g: ir.Value, *_: ir.Value) -> ir.Value:
        rank = op.rank(x) - 2
        steps, gaps = strides or [1] * rank, dilations or [1] * rank
        size_in, size_out = spatial(op, x), spatial(op, values)
        begins = explicit_pads(auto_pad, pads, size_in, size_out, kernel_shape, steps, gaps)[:rank]
        axes = [Pool1D(*each) for each in zip(size_in, size_out, kernel_shape, steps, begins, strict=True)]
        if all(d == 1 for d in gaps) and routing.applies(x, axes):
            return routing.undo_max_pool(op, g, values, x, axes)
        if op.portable:
            return plain_pool.undo_max_pool(op, g, values, x, axes, gaps)
        if not storage_order:
            return masks.scatter_to_argmax(op, g, _indices(op, values), x)
        # the node's indices are column-major; a second pool gives row-major ones
        indices = op.several(
            "MaxPool",
            x,
            outputs=2,
            auto_pad=auto_pad,
            ceil_mode=ceil_mode,
            dilations=dilations,
            kernel_shape=kernel_shape,
            pads=pads,
            strides=strides,
        )[1]
        return masks.scatter_to_argmax(op, g, indices, x)

    return Local(vjp)


@rule("AveragePool", family="linear", note="c = 0")
def average_pool(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Local:
    rank = op.rank(x) - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    size_in, size_out = spatial(op, x), spatial(op, y)
    begins_ends = explicit_pads(auto_pad, pads, size_in, size_out, kernel_shape, strides, dilations)
    begins = begins_ends[:rank]
    valid = _valid_cells(size_in, size_out, kernel_shape, strides, dilations, begins)

    def vjp(g: ir.Value) -> ir.Value:
        if all(o == 1 for o in size_out) and math.prod(size_in) == int(valid.reshape(-1)[0]):
            count = math.prod(kernel_shape) if count_include_pad else math.prod(size_in)
            return _shared(op, g, x, count)
        at = Windows(size_in, size_out, kernel_shape, strides, dilations, begins)
        if not any([*at.begins, *(max(e, 0) for e in at.ends)]):
            return window_sum_transpose(op, g, at, x, 1.0 / math.prod(kernel_shape))
        # The divisor of each window is what the runtime divides by: its pool of ones gives valid / divisor. Ones and
        # pool are constants, folded when the session loads.
        ones = op.constant(np.ones((1, 1, *size_in), dtype_of(g).numpy()))
        pooled = op.AveragePool(
            ones,
            auto_pad=auto_pad,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            dilations=dilations if any(d != 1 for d in dilations) else None,
            kernel_shape=kernel_shape,
            pads=pads,
            strides=strides,
        )
        shaped(pooled, [1, 1, *size_out])
        inverse = op.Div(pooled, valid.astype(dtype_of(g).numpy()))
        return window_sum_transpose(op, op.Mul(g, inverse), at, x)

    return Local(vjp)


def _valid_cells(
    size_in: Sequence[int],
    size_out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    begins: Sequence[int],
) -> np.ndarray:
    """Count, for every window, the cells that lie inside the input; at least 1 so that it can be divided by."""
    counts = np.ones((1, 1, *([1] * len(size_in))))
    for axis, (i, o, k, s, d, b) in enumerate(zip(size_in, size_out, kernel, strides, dilations, begins, strict=True)):
        positions = np.arange(o)[:, None] * s + np.arange(k)[None, :] * d - b
        inside = ((positions >= 0) & (positions < i)).sum(axis=1)
        shape = [1] * (2 + len(size_in))
        shape[2 + axis] = o
        counts = counts * inside.reshape(shape)
    return np.maximum(counts, 1)


@rule("LpPool", since=11, family="homogeneous", note="c = 0 (degree 1); derivative 0 at 0")
def lp_pool(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    p: int = 2,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Local:
    rank = op.rank(x) - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    size_in, size_out = spatial(op, x), spatial(op, y)
    begins = explicit_pads(auto_pad, pads, size_in, size_out, kernel_shape, strides, dilations)[:rank]

    def vjp(g: ir.Value) -> ir.Value:
        # dy/dx = sign(x) |x|^(p-1) / y^(p-1)
        at = Windows(size_in, size_out, kernel_shape, strides, dilations, begins)
        spread = window_sum_transpose(op, op.Div(g, op.Pow(masks.nonzero(op, y), float(p - 1))), at, x)
        return op.Mul(spread, _signed_power(op, x, p))

    return Local(vjp)


def _signed_power(op: Emitter, x: ir.Value, p: int) -> ir.Value:
    """Return sign(x) |x|^(p-1)."""
    return x if p == 2 else op.Sign(x) if p == 1 else op.Mul(op.Sign(x), op.Pow(op.Abs(x), float(p - 1)))


@rule("GlobalLpPool", since=2, family="homogeneous", note="c = 0 (degree 1); derivative 0 at 0")
def global_lp_pool(op: Emitter, y: ir.Value, x: ir.Value, *, p: int = 2) -> Local:
    def vjp(g: ir.Value) -> ir.Value:
        return op.Mul(op.Div(g, op.Pow(masks.nonzero(op, y), float(p - 1))), _signed_power(op, x, p))

    return Local(vjp)


@rule("MaxUnpool", since=9, family="linear", note="c = 0 (linear); of writes to one place the last gets the cotangent")
def max_unpool(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    indices: ir.Value,
    output_shape: ir.Value | None = None,
    *,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Local:
    if output_shape is not None:
        raise Unsupported("its output_shape is not built", "Pad after it instead")

    def vjp(g: ir.Value) -> ir.Value:
        return written.lasting(op, op.Gather(op.Reshape(g, [-1]), indices), written.cells(op, y, indices))

    return Local(vjp)


@rule("GlobalAveragePool", family="linear", note="c = 0")
def global_average_pool(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    size = spatial(op, x)

    def vjp(g: ir.Value) -> ir.Value:
        return _shared(op, g, x, math.prod(size))

    return Local(vjp)


def _shared(op: Emitter, g: ir.Value, x: ir.Value, count: int) -> ir.Value:
    """Distribute the cotangent of a mean evenly over its cells."""
    share = op.constant(np.full((1, 1, *spatial(op, x)), 1.0 / count, dtype_of(g).numpy()))
    if blockable(op, x):
        result = spread(op, shaped(op.Mul(g, 1.0 / count), g), x)
    else:
        result = op.Mul(g, share)
    entry = op.entry(g)
    if entry is not None and entry.values is None:
        op.recipes[result] = Recipe(entry=replace(entry, values=share), has_zero=entry.count > 1)
    return result


@rule("GlobalMaxPool", family="homogeneous", note="c = 0; the first of equal elements gets the cotangent")
def global_max_pool(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    size = spatial(op, x)

    def vjp(g: ir.Value) -> ir.Value:
        flat = op.Reshape(x, [0, 0, -1])
        chosen = masks.one_hot(op, op.ArgMax(flat, axis=2, keepdims=0), math.prod(size), dtype_of(g))
        return op.reshape_like(op.Mul(op.Reshape(g, [0, 0, 1]), chosen), x)

    return Local(vjp)
