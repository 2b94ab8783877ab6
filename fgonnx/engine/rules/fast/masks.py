"""Fast forms of 0/1 masks, and small helpers: scattering, products along an axis.

The CPU provider keeps convolutions, pools and a few elementwise operators in a blocked layout, which Where, Greater
and Cast leave. A mask as a steep HardSigmoid stays in it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of, shaped
from fgonnx.engine.rules.fast.blocked import blockable

# Times 2**127, every normal positive float32 is 2 or more, so that minus 1 it clamps to 1; infinity clamps too. The
# beta is -1 because OpenVINO reads an explicit beta=0 as the default 0.5.
_STEEP = 2.0**127
_LITERAL_BYTES = 1 << 16


def positive(op: Emitter, x: ir.Value) -> ir.Value:
    """Return 1 where `x > 0`, else 0, in the type of `x`; a subnormal float32 gives a value between."""
    if x.dtype == ir.DataType.FLOAT and not op.portable:
        return op.HardSigmoid(x, alpha=_STEEP, beta=-1.0)
    return indicator(op, op.Greater(x, 0.0), x)


def below(op: Emitter, x: ir.Value, bound: float) -> ir.Value:
    """Return 1 where `x < bound`, else 0, in the type of `x`."""
    if x.dtype == ir.DataType.FLOAT and not op.portable and 2.0**-60 < bound < 2.0**60:
        # A power of two keeps alpha * x exact and scales one ulp of the bound to at least 4.
        alpha = 2.0 ** (26 - math.floor(math.log2(bound)))
        return op.HardSigmoid(x, alpha=-alpha, beta=float(np.float32(alpha) * np.float32(bound)))
    return indicator(op, op.Less(x, bound), x)


def reaches(op: Emitter, x: ir.Value, bound: float) -> ir.Value:
    """Return 1 where `x >= bound`, else 0, in the type of `x`: the complement of `below`."""
    if x.dtype == ir.DataType.FLOAT and not op.portable and 2.0**-60 < bound < 2.0**60:
        # Scaled to an integer of 24 bits, the bound and the float below it differ by 1 and give 1 and 0 exactly.
        exact = float(np.float32(bound))
        mantissa, exponent = math.frexp(exact)
        alpha = 2.0 ** ((25 if mantissa == 0.5 else 24) - exponent)
        return op.HardSigmoid(x, alpha=alpha, beta=1.0 - alpha * exact)
    return indicator(op, op.GreaterOrEqual(x, bound), x)


def indicator(op: Emitter, condition: ir.Value, like: ir.Value) -> ir.Value:
    """Return 1 where a condition holds, else 0, in the type of `like`."""
    return op.Cast(condition, to=dtype_of(like).value)


def is_zero(op: Emitter, x: ir.Value) -> ir.Value:
    """Return 1 where `x = 0`, else 0, for `x >= 0`, in the type of `x`; a subnormal float32 gives a value between."""
    if x.dtype == ir.DataType.FLOAT and not op.portable:
        return op.HardSigmoid(x, alpha=-_STEEP, beta=1.0)
    return indicator(op, op.LessOrEqual(x, 0.0), x)


def complement(op: Emitter, y: ir.Value) -> ir.Value:
    """Return `1 - y` for `y` in 0..1."""
    if y.dtype == ir.DataType.FLOAT and not op.portable:
        return op.HardSigmoid(y, alpha=-1.0, beta=1.0)
    return op.Sub(1.0, y)


def minus(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return `a - b` for two values of one shape."""
    if not blockable(op, a):
        return op.Sub(a, b)
    # Sub leaves the blocked layout; Add and a depthwise convolution stay in it and are as fast.
    channels = op.size(a, 1)
    return op.Add(op.Conv(b, each_channel(op, np.full((1, 1, 1, 1), -1.0, np.float32), channels), group=channels), a)


def summed(op: Emitter, g: ir.Value, result: ir.Value, primal: ir.Value) -> ir.Value:
    """Sum a cotangent of `result` to the shape of `primal`, which was broadcast to it: `op.unbroadcast`.

    A sum to one value per channel is a GlobalAveragePool, which keeps the blocked layout.
    """
    dims = op.dims(result)
    if not blockable(op, result) or op.dims(primal) != (*dims[:2], 1, 1):
        return op.unbroadcast(g, result, primal)
    return op.Mul(op.GlobalAveragePool(g), float(math.prod(op.size(result, i) for i in (2, 3))))


def each_channel(op: Emitter, kernel: npt.NDArray[np.float32], channels: int) -> ir.Value:
    """Return depthwise weights (channels, 1, *kernel), one kernel for all; constant-folded when the session loads."""
    return shaped(op.Expand(op.constant(kernel), [channels, 1, 1, 1]), [channels, *kernel.shape[1:]])


def one_hot(op: Emitter, index: ir.Value, count: int, kind: ir.DataType) -> ir.Value:
    """Return 1 at an index along a new last axis of `count` entries, 0 elsewhere."""
    if op.portable:
        place = op.constant(np.arange(count, dtype=np.int64))
        return op.Cast(op.Equal(op.Unsqueeze(index, [-1]), place), to=kind.value)
    # onnxruntime supports OneHot in float32, not in float64
    hot = op.OneHot(index, np.array(count, np.int64), op.constant(np.array([0, 1], np.float32)), axis=-1)
    return _cast(op, hot, kind)


def finite(op: Emitter, v: ir.Value) -> ir.Value:
    """Replace infinities by the largest finite numbers, so that a zero cotangent times the value is zero, not NaN.

    Attention masks contain minus infinity.
    """
    array = op.array(v)
    if array is None:
        limits = np.finfo(np.float32) if dtype_of(v).bitwidth >= 32 else np.finfo(np.float16)
        return op.Clip(v, float(limits.min), float(limits.max))
    return v if np.isfinite(array).all() else op.constant(np.nan_to_num(array))


def nonzero(op: Emitter, x: ir.Value) -> ir.Value:
    """Replace 0 by 1: a safe divisor where the numerator is zero too."""
    return op.Add(x, indicator(op, op.Equal(x, 0.0), x))


def scatter_to_argmax(op: Emitter, g: ir.Value, indices: ir.Value, x: ir.Value) -> ir.Value:
    """Add every element of `g` at its flat index into zeros of the shape of `x`."""
    kind = _summed_in(dtype_of(x))
    zeros = op.ConstantOfShape(op.Reshape(op.Size(x), [1]), value=ir.tensor(np.zeros(1, kind.numpy())))
    scattered = scatter_add(op, "ScatterElements", zeros, op.Reshape(indices, [-1]), op.Reshape(g, [-1]), axis=0)
    return op.reshape_like(_cast(op, scattered, dtype_of(x)), x)


def scatter_add(
    op: Emitter, op_type: str, into: ir.Value, indices: ir.Value, g: ir.Value, **attributes: int
) -> ir.Value:
    """Add `g` into a tensor at indices by ScatterElements or ScatterND.

    16-bit types go through float32: onnxruntime's CPU provider cannot add in float16.
    """
    kind = _summed_in(dtype_of(into))
    summed = op.emit(op_type, _cast(op, into, kind), indices, _cast(op, g, kind), reduction="add", **attributes)
    return _cast(op, summed, dtype_of(into))


def _summed_in(kind: ir.DataType) -> ir.DataType:
    return ir.DataType.FLOAT if kind.bitwidth < 32 else kind


def _cast(op: Emitter, v: ir.Value, kind: ir.DataType) -> ir.Value:
    return v if v.dtype == kind else op.Cast(v, to=kind.value)


def is_large(rows: int, columns: int) -> bool:
    """Tell whether a constant matrix of float32 is too large to be written into a file that may be small."""
    return 4 * rows * columns > _LITERAL_BYTES


def unit_matrix(op: Emitter, size: int, kind: ir.DataType) -> ir.Value:
    """Return a unit matrix; a large one is made and folded when the session loads, and takes no room in the file."""
    if not is_large(size, size):
        return op.constant(np.eye(size, dtype=kind.numpy()))
    zeros = op.ConstantOfShape([size, size], value=ir.tensor(np.zeros(1, np.float32)))
    return _cast(op, shaped(op.EyeLike(zeros), [size, size]), kind)


def spread_matrix(op: Emitter, count: int, step: int, kind: ir.DataType) -> ir.Value:
    """Return the (count, count * step) matrix that puts step - 1 zeros behind every entry of a row vector."""
    if is_large(count, count * step):
        apart = op.Pad(op.Unsqueeze(unit_matrix(op, count, kind), [2]), [0, 0, 0, 0, 0, step - 1])
        return shaped(op.Reshape(apart, [count, count * step]), [count, count * step])
    spread = np.zeros((count, count * step), kind.numpy())
    spread[np.arange(count), step * np.arange(count)] = 1
    return op.constant(spread)


def along_axis(op: Emitter, g: ir.Value, matrix: npt.NDArray[np.float64], axis: int, rank: int) -> ir.Value:
    """Multiply every fibre of `g` along an axis by a constant matrix (out, in)."""
    return apply_along(op, g, op.constant(matrix.astype(dtype_of(g).numpy())), axis, rank)


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
