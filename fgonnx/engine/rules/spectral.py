"""Fourier transforms. All linear."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of, shaped
from fgonnx.engine.rules.fast.convolution import Windows, transposed_convolution
from fgonnx.engine.rules.fast.masks import is_large
from fgonnx.engine.rules.registry import Local, Unsupported, rule


@rule("DFT", since=17, family="linear", note="c = 0 (linear)")
def dft_17(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    length: ir.Value | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Local:
    return _dft(op, y, x, length, axis % op.rank(x), inverse, onesided, {"axis": axis})


@rule("DFT", since=20, family="linear", note="c = 0 (linear)")
def dft(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    length: ir.Value | None = None,
    axis: ir.Value | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Local:
    place = np.array(-2) if axis is None else op.array(axis)
    if place is None:
        raise Unsupported("its axis is not constant")
    return _dft(op, y, x, length, int(place.reshape(())) % op.rank(x), inverse, onesided, {})


def _dft(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    length: ir.Value | None,
    axis: int,
    inverse: int,
    onesided: int,
    attributes: dict[str, int],
) -> Local:
    if inverse and onesided:
        raise Unsupported("it is one-sided and inverse")
    size, points = op.size(x, axis), op.array(length)
    if length is not None and points is None:
        raise Unsupported("its length is not constant")
    count = int(points.reshape(())) if points is not None else size

    def vjp(g: ir.Value) -> ir.Value:
        # F^T = n F^-1 for the plain transform, so the transpose is the other direction, rescaled; what is not in y
        # (one side) is 0, what is not in x (padding, an imaginary part) is dropped.
        full = _fit(op, g, axis, op.size(y, axis), count, op.rank(y))
        operands = (full, None) if attributes else (full, None, np.array(axis))
        back = op.Mul(op.DFT(*operands, inverse=1 - inverse, **attributes), 1.0 / count if inverse else float(count))
        fitted = _fit(op, back, axis, count, size, op.rank(y))
        return op.Slice(fitted, [0], [1], [-1]) if op.size(x, -1) == 1 else fitted

    return Local(vjp)


def _fit(op: Emitter, g: ir.Value, axis: int, size: int, wanted: int, rank: int) -> ir.Value:
    """Crop an axis to a size, or pad it with zeros."""
    if wanted <= size:
        return g if wanted == size else op.Slice(g, [0], [wanted], [axis])
    return op.Pad(g, [*([0] * (rank + axis)), wanted - size, *([0] * (rank - axis - 1))])


@rule("STFT", since=17, family="linear", note="c = 0 (linear)")
def stft(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    step: ir.Value,
    window: ir.Value | None = None,
    length: ir.Value | None = None,
    *,
    onesided: int = 1,
) -> Local:
    stride, size = op.array(step), op.array(length)
    taper = op.array(window) if window is not None and op.array(window) is not None else window
    if stride is None or (size is None and not isinstance(taper, np.ndarray)) or op.is_active(window):
        raise Unsupported("its step, window or length is not constant")
    if op.rank(x) == 3 and op.size(x, 2) != 1:
        raise Unsupported("its signal is complex")
    count = int(size.reshape(())) if size is not None else len(taper) if isinstance(taper, np.ndarray) else 0
    frames, bins = op.size(y, 1), op.size(y, 2)
    at = Windows([op.size(x, 1)], [frames], [count], [int(stride.reshape(()))], [1], [0])

    def vjp(g: ir.Value) -> ir.Value:
        weights = _filters(op, bins, count, taper, dtype_of(g))
        if dtype_of(g) == ir.DataType.DOUBLE:  # of which onnxruntime has no ConvTranspose
            product = op.MatMul(op.Reshape(g, [-1, frames, 2 * bins]), op.Reshape(weights, [2 * bins, count]))
            return op.reshape_like(_overlapped(op, product, (frames, count), at.strides[0], op.size(x, 1)), x)
        channels = op.Transpose(op.Reshape(g, [-1, frames, 2 * bins]), perm=[0, 2, 1])
        return op.reshape_like(transposed_convolution(op, channels, weights, at, 1, x), x)

    return Local(vjp)


def _overlapped(op: Emitter, parts: ir.Value, shape: tuple[int, int], stride: int, size: int) -> ir.Value:
    """Add up the frames of a signal where they overlap: (N, frames, count) to (N, size)."""
    # Entry p is in frame f at the place p - f stride: f = p // stride, and those before it; outside, a zero behind all.
    frames, count = shape
    place = np.arange(size)[:, None]
    frame = place // stride - np.arange(-(-count // stride))
    inside = (frame >= 0) & (frame < frames) & (place - frame * stride < count)
    at = np.where(inside, frame * count + place - frame * stride, frames * count)
    flat = op.Reshape(parts, [-1, frames * count])
    padded = op.Pad(flat, [0, 0, 0, 1])
    return op.ReduceSum(op.Gather(padded, at.astype(np.int64), axis=1), [2], keepdims=0)


def _filters(
    op: Emitter, bins: int, count: int, taper: npt.NDArray[Any] | ir.Value | None, kind: ir.DataType
) -> ir.Value:
    """Return the transform as a convolution: for bin k the filters w(t) cos(2 pi k t / n) and -w(t) sin(2 pi k t / n).

    Large ones are computed, and folded when the session loads, from angles that are reduced to a half turn exactly.
    """
    shape = [2 * bins, 1, count]
    if not is_large(2 * bins, count):
        turns = np.exp(-2j * np.pi * np.outer(np.arange(bins), np.arange(count)) / count)
        filters = np.stack([turns.real, turns.imag], 1).reshape(shape)
        if isinstance(taper, ir.Value):  # known to the session alone, as one that is widened
            return shaped(op.Mul(op.constant(filters.astype(kind.numpy())), op.Cast(taper, to=kind.value)), shape)
        return op.constant((filters if taper is None else filters * taper).astype(kind.numpy()))
    bin_, time = (op.constant(np.arange(n).reshape(s)) for n, s in ((bins, (-1, 1, 1)), (count, (1, 1, -1))))
    half = count // 2
    place = op.Sub(op.Mod(op.Add(op.Mul(bin_, time), np.array(half)), np.array(count)), np.array(half))
    angle = op.Mul(op.Cast(place, to=ir.DataType.FLOAT.value), 2 * np.pi / count)
    both = op.Concat(op.Cos(angle), op.Neg(op.Sin(angle)), axis=1)
    if isinstance(taper, np.ndarray):
        taper = op.constant(taper.astype(np.float32))
    tapered = both if taper is None else op.Mul(both, op.Cast(taper, to=ir.DataType.FLOAT.value))
    return shaped(op.Cast(op.Reshape(tapered, shape), to=kind.value), shape)
