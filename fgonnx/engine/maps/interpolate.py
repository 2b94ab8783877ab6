"""Linear interpolation of maps to the grid of the input: as an operator, and as a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.fast import masks

_LONGEST_MATRIX = 1 << 18  # entries; beyond, as for recordings, columns are scaled and the runtime interpolates


def upsample(
    op: Emitter, v: ir.Value, size: Sequence[int], grid: Sequence[int], *, signed: bool, align_corners: bool
) -> ir.Value:
    """Upsample (N, 1, *size) to (N, 1, *grid) linearly; signed maps keep their sum."""
    if tuple(size) == tuple(grid):
        return v
    if signed:
        long = any(b < a and a * b > _LONGEST_MATRIX for b, a in zip(size, grid, strict=True))
        for axis, (before, after) in enumerate(zip(size, grid, strict=True), start=2):
            if long and before < after:
                v = op.Div(
                    v, _column_sums(before, after).reshape([-1 if i == axis else 1 for i in range(2 + len(grid))])
                )
            elif before != after:
                v = masks.along_axis(op, v, mass_preserving(before, after), axis, 2 + len(grid))
        if not long:
            return v
        align_corners = True
        size = [min(each) for each in zip(size, grid, strict=True)]
    elif op.openvino and all(b * a <= _LONGEST_MATRIX for b, a in zip(size, grid, strict=True)):
        for axis, (before, after) in enumerate(zip(size, grid, strict=True), start=2):
            if before != after:
                matrix = interpolation(before, after, align_corners=align_corners)
                v = masks.along_axis(op, v, matrix, axis, 2 + len(grid))
        return v
    mode = "align_corners" if align_corners else "half_pixel"
    if len(grid) == 1:  # runtimes interpolate over two or three axes: add a row axis of size 1
        return op.Squeeze(_resize(op, op.Unsqueeze(v, [2]), [1, *size], [1, *grid], mode), [2])
    return _resize(op, v, size, grid, mode)


def _resize(op: Emitter, v: ir.Value, before: Sequence[int], sizes: Sequence[int], mode: str) -> ir.Value:
    if v.dtype == ir.DataType.DOUBLE:  # runtimes interpolate float32
        single = op.Cast(v, to=ir.DataType.FLOAT.value)
        return op.Cast(_resize(op, single, before, sizes, mode), to=ir.DataType.DOUBLE.value)
    options = {"mode": "linear", "coordinate_transformation_mode": mode}
    if op.portable:  # sizes of some axes alone are missing in some runtimes, and the batch has none
        scales = [1.0, 1.0, *(scale_to(*each) for each in zip(before, sizes, strict=True))]
        return op.Resize(v, None, op.constant(np.array(scales, np.float32)), **options)
    axes = list(range(2, 2 + len(sizes)))
    return op.Resize(v, None, None, list(sizes), axes=axes, **options)


def scale_to(before: int, after: int) -> float:
    """Return a float32 whose product with a size, rounded down, is the other size, in float32 and float64."""
    scale = np.float32(after / before)
    while before * float(scale) < after:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


def interpolation(before: int, after: int, *, align_corners: bool = True) -> npt.NDArray[np.float64]:
    """Return the (after, before) matrix of linear interpolation, with aligned corners or half-pixel centres."""
    low, fraction = _places(before, after, align_corners=align_corners)
    matrix = np.zeros((after, before))
    rows = np.arange(after)
    matrix[rows, low] += 1.0 - fraction
    if before > 1:
        matrix[rows, low + 1] += fraction
    return matrix


def _places(
    before: int, after: int, *, align_corners: bool = True
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return where the entries of an interpolated axis lie in the original one: entry before, distance to it."""
    if align_corners:
        position = np.linspace(0.0, before - 1.0, after) if after > 1 else np.zeros(1)
    else:
        position = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0.0, before - 1.0)
    low = np.clip(np.floor(position).astype(int), 0, max(before - 2, 0))
    return low, position - low


def _column_sums(before: int, after: int) -> npt.NDArray[np.float64]:
    """Return the sums over rows of `interpolation(before, after)`: the share of an entry in what it becomes."""
    low, fraction = _places(before, after)
    sums = np.zeros(before)
    np.add.at(sums, low, 1.0 - fraction)
    np.add.at(sums, np.minimum(low + 1, before - 1), fraction)
    return sums


def mass_preserving(before: int, after: int) -> npt.NDArray[np.float64]:
    """Return an (after, before) matrix whose columns sum to 1, so that a signed map keeps its sum.

    Upsampling is linear interpolation with scaled columns, downsampling the transpose of interpolation upwards.
    """
    if after < before:
        return interpolation(after, before).T
    matrix = interpolation(before, after)
    return matrix / matrix.sum(axis=0, keepdims=True)
