"""onnxruntime's blocked layout: what can be in it, how to get there, and phases put back between one another.

The CPU provider keeps the tensors of convolutions and pools in blocks of channels. A cotangent that is made of phases
(every s-th row, every s-th column) is put together with channels last: what lies side by side in memory is then a whole
vector of channels, and Concat and Pad copy it in one piece. The transpositions become part of the reorderings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter

BLOCK = 16  # channels; other numbers of them are padded or left out of the layout


def blockable(op: Emitter, v: ir.Value) -> bool:
    """Tell whether a value can be in the blocked layout without waste: (N, C, H, W) in float32."""
    if op.portable or v.dtype != ir.DataType.FLOAT or v.shape is None or len(v.shape) != 4:
        return False
    channels = v.shape[1]
    return isinstance(channels, int) and channels % BLOCK == 0


def blocked(op: Emitter, v: ir.Value) -> ir.Value:
    """Return the same value, in the blocked layout if it can be: operators that keep a layout enter none by themselves.

    A pool with a window of one cell does.
    """
    if not blockable(op, v):
        return v
    same: ir.Value = op.MaxPool(v, kernel_shape=[1, 1])
    same.shape = v.shape
    return same


def spread(op: Emitter, v: ir.Value, like: ir.Value) -> ir.Value:
    """Give all cells of (N, C, H, W) the one value of their channel, from (N, C, 1, 1), where that can be blocked.

    Enlarging keeps the layout, broadcasting leaves it. Any other value is returned as it is.
    """
    if not blockable(op, like) or v.shape is None or v.shape.dims[1:] != (op.size(like, 1), 1, 1):
        return v
    return enlarged(op, v, [op.size(like, 2), op.size(like, 3)])


def enlarged(op: Emitter, v: ir.Value, times: Sequence[int]) -> ir.Value:
    """Repeat each cell of (N, C, h, w): it becomes s x t equal ones, (N, C, s h, t w), blocked if it can be."""
    scales = np.array([1.0, 1.0, *times], np.float32)
    result: ir.Value = op.Resize(
        blocked(op, v), None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    result.shape = ir.Shape([*op.dims(v)[:2], *(op.size(v, 2 + i) * t for i, t in enumerate(times))])
    return result


def interleaved(op: Emitter, phases: Sequence[Sequence[ir.Value]], cells: Sequence[int], like: ir.Value) -> ir.Value:
    """Put phases back between one another: cell (s i + a, t j + b) of the result is cell (i, j) of phase (a, b).

    Parameters
    ----------
    phases : sequence of sequence of ir.Value
        s rows of t phases, each (N, C, *cells).
    cells : sequence of int
        Rows and columns of a phase.
    like : ir.Value
        (N, C, H, W): what the result has the shape of; cells beyond it are left out.
    """
    (rows, columns), channels = cells, op.size(like, 1)
    down, across = len(phases), len(phases[0])
    lines = []
    for line in phases:
        last = [op.Unsqueeze(op.Transpose(v, perm=[0, 2, 3, 1]), [3]) for v in line]
        beside = last[0] if across == 1 else op.Concat(*last, axis=3)
        lines.append(op.Reshape(beside, [-1, rows, 1, columns * across * channels]))
    below = lines[0] if down == 1 else op.Concat(*lines, axis=2)
    size = [rows * down, columns * across]
    return _channels_first(op, op.Reshape(below, [-1, *size, channels]), size, ir.Shape(op.dims(like)))


def stuffed(
    op: Emitter, v: ir.Value, strides: Sequence[int], first: Sequence[int], size: Sequence[int] | None = None
) -> ir.Value:
    """Put zeros between the cells of (N, C, h, w), so that cell (i, j) becomes (s i + a, t j + b): (N, C, s h, t w).

    Parameters
    ----------
    strides, first : sequence of int
        (s, t) and (a, b).
    size : sequence of int, optional
        Rows and columns of the result; cells beyond them are left out.
    """
    channels, rows, columns = (op.size(v, i) for i in (1, 2, 3))
    (down, across), (a, b) = strides, first
    apart = op.Reshape(op.Transpose(v, perm=[0, 2, 3, 1]), [-1, rows, 1, columns, 1, channels])
    padded = op.Pad(apart, [0, 0, a, 0, b, 0, 0, 0, down - 1 - a, 0, across - 1 - b, 0])
    found = [rows * down, columns * across]
    shape = ir.Shape([op.dims(v)[0], channels, *(size or found)])
    return _channels_first(op, op.Reshape(padded, [-1, *found, channels]), found, shape)


def _channels_first(op: Emitter, v: ir.Value, size: Sequence[int], shape: ir.Shape) -> ir.Value:
    """Turn (N, *size, C) into (N, C, H, W), the shape given, leaving out what lies beyond."""
    wanted = [d for d in shape.dims[2:] if isinstance(d, int)]
    result = op.Transpose(v if list(size) == wanted else op.Slice(v, [0, 0], wanted, [1, 2]), perm=[0, 3, 1, 2])
    result.shape = shape
    return result


def phase_count(size: int, stride: int) -> int:
    """Return how many cells the longest phase of an axis has."""
    return math.ceil(size / stride)
