"""onnxruntime's blocked layout (NCHWc): which values fit it, how to enter it, and how to interleave phases.

The CPU provider keeps the tensors of convolutions and pools in blocks of channels. A cotangent made of phases (every
s-th row, every s-th column) is interleaved with channels last: a whole vector of channels is then contiguous, and
Concat and Pad copy it in one piece. The Transposes are merged into onnxruntime's reorder nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import Dims, shaped

BLOCK = 16  # channels; a number that is no multiple is padded, or not blocked at all


def blockable(op: Emitter, v: ir.Value) -> bool:
    """Tell whether a value is to be kept in the blocked layout: whether it fits, in the fast form."""
    return not op.portable and fits(v)


def fits(v: ir.Value) -> bool:
    """Tell whether a value fits the blocked layout without padding: float32 (N, C, H, W), C a multiple of the block."""
    if v.dtype != ir.DataType.FLOAT or v.shape is None or len(v.shape) != 4:
        return False
    channels = v.shape[1]
    return isinstance(channels, int) and channels % BLOCK == 0


def blocked(op: Emitter, v: ir.Value) -> ir.Value:
    """Return the same value in the blocked layout, where it fits: as a 1 x 1 MaxPool.

    Operators such as Add and Resize keep the blocked layout but do not enter it by themselves; a pool does.
    """
    return shaped(op.MaxPool(v, kernel_shape=[1, 1]), v) if blockable(op, v) else v


def spread(op: Emitter, v: ir.Value, like: ir.Value) -> ir.Value:
    """Expand (N, C, 1, 1) to the shape of `like`, (N, C, H, W), where that is blockable; else return it unchanged.

    Resize keeps the blocked layout, broadcasting leaves it.
    """
    if not blockable(op, like) or v.shape is None or v.shape.dims[1:] != (op.size(like, 1), 1, 1):
        return v
    return enlarged(op, v, [op.size(like, 2), op.size(like, 3)])


def enlarged(op: Emitter, v: ir.Value, times: Sequence[int]) -> ir.Value:
    """Repeat each cell of (N, C, h, w) s x t times, (N, C, s h, t w); in the blocked layout where it fits."""
    scales = np.array([1.0, 1.0, *times], np.float32)
    result = op.Resize(
        blocked(op, v), None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    return shaped(result, [*op.dims(v)[:2], *(op.size(v, 2 + i) * t for i, t in enumerate(times))])


def interleaved(op: Emitter, phases: Sequence[Sequence[ir.Value]], cells: Sequence[int], like: ir.Value) -> ir.Value:
    """Interleave phases: cell (s i + a, t j + b) of the result is cell (i, j) of phase (a, b).

    Parameters
    ----------
    phases : sequence of sequence of ir.Value
        s rows of t phases, each (N, C, *cells).
    cells : sequence of int
        Rows and columns of a phase.
    like : ir.Value
        (N, C, H, W): gives the shape of the result; cells beyond it are dropped.
    """
    # 2 x 2 phases (N, C, h, w): in each row of phases, (N, h, w, 1, C) twice -> (N, h, w, 2, C) -> (N, h, 1, 2 w C);
    # both rows -> (N, h, 2, 2 w C) -> (N, 2 h, 2 w, C) -> (N, C, 2 h, 2 w).
    (rows, columns), channels = cells, op.size(like, 1)
    down, across = len(phases), len(phases[0])
    lines = []
    for line in phases:
        last = [op.Unsqueeze(op.Transpose(v, perm=[0, 2, 3, 1]), [3]) for v in line]
        joined = last[0] if across == 1 else op.Concat(*last, axis=3)
        lines.append(op.Reshape(joined, [-1, rows, 1, columns * across * channels]))
    stacked = lines[0] if down == 1 else op.Concat(*lines, axis=2)
    size = [rows * down, columns * across]
    return _channels_first(op, op.Reshape(stacked, [-1, *size, channels]), size, op.dims(like))


def stuffed(
    op: Emitter, v: ir.Value, strides: Sequence[int], first: Sequence[int], size: Sequence[int] | None = None
) -> ir.Value:
    """Insert zeros between the cells of (N, C, h, w): cell (i, j) becomes (s i + a, t j + b) of (N, C, s h, t w).

    Parameters
    ----------
    strides, first : sequence of int
        (s, t) and (a, b).
    size : sequence of int, optional
        Rows and columns of the result, (s h, t w) by default; cells beyond them are dropped.
    """
    channels, rows, columns = (op.size(v, i) for i in (1, 2, 3))
    (down, across), (a, b) = strides, first
    apart = op.Reshape(op.Transpose(v, perm=[0, 2, 3, 1]), [-1, rows, 1, columns, 1, channels])
    padded = op.Pad(apart, [0, 0, a, 0, b, 0, 0, 0, down - 1 - a, 0, across - 1 - b, 0])
    full = [rows * down, columns * across]
    shape = (op.dims(v)[0], channels, *(size or full))
    return _channels_first(op, op.Reshape(padded, [-1, *full, channels]), full, shape)


def _channels_first(op: Emitter, v: ir.Value, size: Sequence[int], shape: Dims) -> ir.Value:
    """Bring (N, *size, C) to a shape (N, C, H, W), dropping cells beyond it."""
    wanted = [d for d in shape[2:] if isinstance(d, int)]
    inside = v if list(size) == wanted else op.Slice(v, [0, 0], wanted, [1, 2])
    return shaped(op.Transpose(inside, perm=[0, 3, 1, 2]), shape)


def phase_count(size: int, stride: int) -> int:
    """Return the number of cells of an axis's longest phase."""
    return math.ceil(size / stride)
