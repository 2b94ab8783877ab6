"""Forms of a gradient in standard operators that run fast on onnxruntime: masks, transposed convolutions, window sums.

The CPU provider keeps convolutions, pools and a few elementwise operators in a blocked layout, which Where, Greater and
Cast leave. A mask as a steep HardSigmoid stays in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.emit import Emitter

# 2**127 maps every normal float32 to 2 or more, so that minus 1 clamps to 1; infinity clamps too. OpenVINO reads an
# explicit beta=0 as its default 0.5, hence -1.
_STEEP = 2.0**127


def positive(op: Emitter, x: ir.Value) -> ir.Value:
    """Return 1 where `x > 0` and 0 elsewhere, in the type of `x`; subnormal float32 count as 0, or as less than 1."""
    if x.dtype == ir.DataType.FLOAT and not op.portable:
        return op.HardSigmoid(x, alpha=_STEEP, beta=-1.0)
    return indicator(op, op.Greater(x, 0.0), x)


def below(op: Emitter, x: ir.Value, bound: float) -> ir.Value:
    """Return 1 where `x < bound` and 0 elsewhere, in the type of `x`."""
    if x.dtype == ir.DataType.FLOAT and not op.portable and 2.0**-60 < bound < 2.0**60:
        # A power of two makes alpha * x exact and one unit in the last place of the bound at least 4.
        alpha = 2.0 ** (26 - math.floor(math.log2(bound)))
        return op.HardSigmoid(x, alpha=-alpha, beta=float(np.float32(alpha) * np.float32(bound)))
    return indicator(op, op.Less(x, bound), x)


def reaches(op: Emitter, x: ir.Value, bound: float) -> ir.Value:
    """Return 1 where `x >= bound` and 0 elsewhere, in the type of `x`: what `below` leaves."""
    if x.dtype == ir.DataType.FLOAT and not op.portable and 2.0**-60 < bound < 2.0**60:
        # The bound becomes an integer of 24 bits, its neighbour below the integer before it: 1 and 0, both exact.
        exact = float(np.float32(bound))
        mantissa, exponent = math.frexp(exact)
        alpha = 2.0 ** ((25 if mantissa == 0.5 else 24) - exponent)
        return op.HardSigmoid(x, alpha=alpha, beta=1.0 - alpha * exact)
    return indicator(op, op.GreaterOrEqual(x, bound), x)


def indicator(op: Emitter, condition: ir.Value, like: ir.Value) -> ir.Value:
    """Return 1 where a condition holds and 0 elsewhere, in the type of `like`."""
    assert like.dtype is not None
    return op.Cast(condition, to=like.dtype.value)


def complement(op: Emitter, y: ir.Value) -> ir.Value:
    """Return `1 - y` for `y` in 0..1."""
    if y.dtype == ir.DataType.FLOAT and not op.portable:
        return op.HardSigmoid(y, alpha=-1.0, beta=1.0)
    return op.Sub(1.0, y)


def finite(op: Emitter, v: ir.Value) -> ir.Value:
    """Return a value with its infinities as the largest numbers, so that a vanishing cotangent times it vanishes.

    Attention masks add minus infinity.
    """
    assert v.dtype is not None
    array = op.array(v)
    if array is None:
        limits = np.finfo(np.float32) if v.dtype.bitwidth >= 32 else np.finfo(np.float16)
        return op.Clip(v, float(limits.min), float(limits.max))
    return v if np.isfinite(array).all() else op.constant(np.nan_to_num(array))


def nonzero(op: Emitter, x: ir.Value) -> ir.Value:
    """Return `x` with 1 in place of 0: a divisor for numerators that vanish with it."""
    return op.Add(x, indicator(op, op.Equal(x, 0.0), x))


def transposed_convolution(
    op: Emitter,
    g: ir.Value,
    w: ir.Value,
    *,
    spatial_in: Sequence[int],
    spatial_out: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    begins: Sequence[int],
    group: int,
) -> ir.Value:
    """Return the transpose of a convolution applied to `g`: the data gradient.

    Parameters
    ----------
    g : ir.Value
        Cotangent of the convolution's output, (N, M, *spatial_out).
    w : ir.Value
        Weights of the convolution, (M, C / group, *kernel).
    spatial_in, spatial_out : sequence of int
        Spatial sizes of the convolution's input and output.
    strides, dilations, group
        Of the convolution.
    begins : sequence of int
        What the convolution pads before each spatial axis; what it pads behind follows from the sizes.
    """
    rank = len(spatial_in)
    kernel = [op.size(w, 2 + i) for i in range(rank)]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    # The windows end at (out - 1) s + reach + 1 - begin: behind the input by `ends`, or before its end by -ends.
    ends = [
        (o - 1) * s + r + 1 - b - i
        for i, o, s, r, b in zip(spatial_in, spatial_out, strides, reach, begins, strict=True)
    ]
    if all(s == 1 for s in strides) and all(p <= r for p, r in zip([*begins, *ends], [*reach, *reach], strict=True)):
        # Stride 1: x'[c, p] = sum_{m, k} g[m, p + begin - d k] w[m, c, k] is a convolution of g, padded by
        # d (k - 1) - pad, with the kernel flipped in space and its channels swapped within each group.
        return op.Conv(
            g,
            _swap_and_flip(op, w, kernel, group),
            pads=[r - p for p, r in zip([*begins, *ends], [*reach, *reach], strict=True)],
            dilations=list(dilations),
            group=group,
            kernel_shape=kernel,
        )
    after = [i - o * s + b for i, o, s, b in zip(spatial_in, spatial_out, strides, begins, strict=True)]
    depthwise = rank == 2 and 1 < group == op.size(w, 0) and op.size(w, 1) == 1
    if depthwise and all(0 <= b <= r for b, r in zip(begins, reach, strict=True)) and min(after) >= 0:
        # x' is the convolution of g with s - 1 zeros behind every entry: faster than ConvTranspose, and in its layout.
        return op.Conv(
            _zero_stuffed(op, g, spatial_out, strides),
            _swap_and_flip(op, w, kernel, group),
            pads=[*(r - b for r, b in zip(reach, begins, strict=True)), *after],
            dilations=list(dilations),
            group=group,
            kernel_shape=kernel,
        )
    extra = [max(-e, 0) for e in ends]
    return op.ConvTranspose(
        g,
        w,
        pads=[*begins, *(max(e, 0) for e in ends)],
        strides=list(strides),
        dilations=list(dilations),
        group=group,
        kernel_shape=kernel,
        output_padding=extra if any(extra) else None,
    )


def _zero_stuffed(op: Emitter, g: ir.Value, size: Sequence[int], strides: Sequence[int]) -> ir.Value:
    """Put s - 1 zeros behind every entry of the last two axes: whole rows as padding, columns by a 0/1 matrix."""
    assert g.dtype is not None
    (rows, columns), (down, across) = size, strides
    spread = np.zeros((columns, columns * across), g.dtype.numpy())
    spread[np.arange(columns), across * np.arange(columns)] = 1
    wide = op.Reshape(op.MatMul(g, spread), [-1, op.size(g, 1), rows, 1, columns * across])
    padded = op.Pad(wide, [0, 0, 0, 0, 0, 0, 0, 0, down - 1, 0])
    return op.Reshape(padded, [-1, op.size(g, 1), rows * down, columns * across])


def _swap_and_flip(op: Emitter, w: ir.Value, kernel: Sequence[int], group: int) -> ir.Value:
    """(M, C/g, *k) -> (C, M/g, *k) within each group, kernel reversed. Folded when the session loads."""
    m, c = op.size(w, 0), op.size(w, 1)
    rank = len(kernel)
    axes = list(range(2, 2 + rank))
    if group == 1:
        swapped = op.Transpose(w, perm=[1, 0, *axes])
    elif m == group and c == 1:
        swapped = w
    else:
        parts = op.Reshape(w, [group, m // group, c, *kernel])
        swapped = op.Transpose(parts, perm=[0, 2, 1, *(a + 1 for a in axes)])
        swapped = op.Reshape(swapped, [group * c, m // group, *kernel])
    flips = [a for a, k in zip(axes, kernel, strict=True) if k > 1]
    if flips:
        lowest = int(np.iinfo(np.int64).min)
        swapped = op.Slice(swapped, [-1] * len(flips), [lowest] * len(flips), flips, [-1] * len(flips))
    swapped.shape = ir.Shape([group * c, m // group, *kernel])
    return swapped


def window_sum_transpose(
    op: Emitter,
    g: ir.Value,
    *,
    spatial_in: Sequence[int],
    spatial_out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    begins: Sequence[int],
    channels: int,
) -> ir.Value:
    """Return the transpose of a per-channel window sum: every window's cotangent spread over its window.

    Channels are folded into the batch, which makes one single-channel convolution of it.
    """
    folded = op.Reshape(g, [-1, 1, *spatial_out])
    ones = op.constant(np.ones((1, 1, *kernel), g.dtype.numpy() if g.dtype else np.float32))
    spread = transposed_convolution(
        op,
        folded,
        ones,
        spatial_in=spatial_in,
        spatial_out=spatial_out,
        strides=strides,
        dilations=dilations,
        begins=begins,
        group=1,
    )
    return op.Reshape(spread, [-1, channels, *spatial_in])


def scatter_to_argmax(op: Emitter, g: ir.Value, indices: ir.Value, x: ir.Value) -> ir.Value:
    """Add every element of `g` at its flat index into a tensor of the shape of `x`, zero elsewhere."""
    assert x.dtype is not None
    kind = _summed_in(x.dtype)
    zeros = op.ConstantOfShape(op.Reshape(op.Size(x), [1]), value=ir.tensor(np.zeros(1, kind.numpy())))
    scattered = scatter_add(op, "ScatterElements", zeros, op.Reshape(indices, [-1]), op.Reshape(g, [-1]), axis=0)
    return op.reshape_like(_cast(op, scattered, x.dtype), x)


def scatter_add(
    op: Emitter, op_type: str, into: ir.Value, indices: ir.Value, g: ir.Value, **attributes: int
) -> ir.Value:
    """Add `g` into a tensor at indices, by ScatterElements or ScatterND; 16-bit types in float32.

    onnxruntime's CPU provider has no sums in float16.
    """
    assert into.dtype is not None
    kind = _summed_in(into.dtype)
    scatter = getattr(op, op_type)
    summed = scatter(_cast(op, into, kind), indices, _cast(op, g, kind), reduction="add", **attributes)
    return _cast(op, summed, into.dtype)


def _summed_in(kind: ir.DataType) -> ir.DataType:
    return ir.DataType.FLOAT if kind.bitwidth < 32 else kind


def _cast(op: Emitter, v: ir.Value, kind: ir.DataType) -> ir.Value:
    return v if v.dtype == kind else op.Cast(v, to=kind.value)


def along_axis(op: Emitter, g: ir.Value, matrix: npt.NDArray[np.float64], axis: int, rank: int) -> ir.Value:
    """Multiply every fibre of `g` along an axis by a constant matrix (out, in)."""
    assert g.dtype is not None
    return apply_along(op, g, op.constant(matrix.astype(g.dtype.numpy())), axis, rank)


def apply_along(op: Emitter, g: ir.Value, matrix: ir.Value, axis: int, rank: int) -> ir.Value:
    """Multiply every fibre of `g` along an axis by a matrix (out, in)."""
    if axis == rank - 2:
        return op.MatMul(matrix, g)
    transposed = op.Transpose(matrix, perm=[1, 0])
    if axis == rank - 1:
        return op.MatMul(g, transposed)
    perm = list(range(rank))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    return op.Transpose(op.MatMul(op.Transpose(g, perm=perm), transposed), perm=perm)
