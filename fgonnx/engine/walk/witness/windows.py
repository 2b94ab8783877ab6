"""Lowerings of convolutions and pools: explicit padding, averages as convolutions; see operators.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.linear import explicit_pads, spatial
from fgonnx.engine.rules.registry import Unsupported
from fgonnx.engine.walk.witness.operators import WAY_OUT


def conv(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
) -> ir.Value:
    """Explicit padding: the builder treats SAME as no padding."""
    rank = op.rank(x) - 2
    kernel = [op.size(w, 2 + i) for i in range(rank)]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = explicit_pads(auto_pad, pads, spatial(op, x), spatial(op, y), kernel, strides, dilations)
    return op.Conv(x, w, b, pads=pads, strides=strides, dilations=dilations, group=group, kernel_shape=kernel)


def conv_transpose(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
) -> ir.Value:
    """A convolution with the flipped kernel over the input with zeros between its entries."""
    rank = op.rank(x) - 2
    if auto_pad != "NOTSET" or group != 1 or op.is_active(w):
        raise Unsupported("this form of it is not written out for ONNX Runtime's gradient builder", WAY_OUT)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    begins, sizes, out = (pads or [0] * rank)[:rank], spatial(op, x), spatial(op, y)
    kernel = [op.size(w, 2 + i) for i in range(rank)]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    for i, (size, stride, r, begin, length) in enumerate(zip(sizes, strides, reach, begins, out, strict=True)):
        # y[p] = sum_k x[i] w[k] with p + begin = s i + d k: entry i of x stands at s i - begin + reach, and the windows
        # of the flipped kernel begin at 0 .. length - 1.
        at = stride * np.arange(size) - begin + r
        stuffed = np.zeros((length + r, size))
        inside = (at >= 0) & (at < length + r)
        stuffed[at[inside], np.flatnonzero(inside)] = 1
        x = masks.along_axis(op, x, stuffed, 2 + i, 2 + rank)
    lowest = int(np.iinfo(np.int64).min)
    flipped = op.Slice(w, [-1] * rank, [lowest] * rank, list(range(2, 2 + rank)), [-1] * rank)
    swapped = op.Transpose(flipped, perm=[1, 0, *range(2, 2 + rank)])
    return op.Conv(x, swapped, b, dilations=dilations, kernel_shape=kernel)


def max_pool(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> ir.Value:
    """Row-major indices, which the gradient reads, and explicit padding."""
    rank, out = len(kernel_shape), y[0] if isinstance(y, tuple) else y
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = explicit_pads(auto_pad, pads, spatial(op, x), spatial(op, out), kernel_shape, strides, dilations)
    window: dict[str, Any] = {"kernel_shape": kernel_shape, "pads": pads, "strides": strides, "dilations": dilations}
    return op.several("MaxPool", x, outputs=2, ceil_mode=ceil_mode, **window)[0]


def global_max_pool(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """One window."""
    return max_pool(op, y, x, kernel_shape=spatial(op, x))


def average_pool(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    *,
    auto_pad: str = "NOTSET",
    pads: list[int] | None = None,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> ir.Value:
    """The sum over windows, as a convolution per channel, divided by the number of cells in each.

    The builder's own gradient crashes with a free batch and is wrong with ceil_mode or dilations.
    """
    if ceil_mode and count_include_pad:
        raise Unsupported("this release of ONNX Runtime averages wrongly with ceil_mode and count_include_pad", WAY_OUT)
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    size_in, size_out = spatial(op, x), spatial(op, y)
    pads = explicit_pads(auto_pad, pads, size_in, size_out, kernel_shape, strides, dilations)
    counts, ends = np.ones(()), []
    for i, (k, s, d) in enumerate(zip(kernel_shape, strides, dilations, strict=True)):
        reached = s * np.arange(size_out[i])[:, None] + d * np.arange(k) - pads[i]
        low, high = (-pads[i], size_in[i] + pads[rank + i]) if count_include_pad else (0, size_in[i])
        counts = np.multiply.outer(counts, ((reached >= low) & (reached < high)).sum(axis=1))
        ends.append(max(int(reached.max()) + 1 - size_in[i], 0))
    channels = op.size(x, 1)
    ones = np.ones((channels, 1, *kernel_shape), np.float32)
    summed = op.Conv(
        x,
        ones,
        pads=[*pads[:rank], *ends],
        strides=strides,
        dilations=dilations,
        group=channels,
        kernel_shape=kernel_shape,
    )
    return op.Mul(summed, (1 / counts).astype(np.float32))
