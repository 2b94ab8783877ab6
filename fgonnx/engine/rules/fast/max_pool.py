"""Fast form of MaxPool: its cotangent is routed to the maxima one axis at a time, without indices.

With an indices output, onnxruntime's pool leaves the blocked layout and takes many times as long. But a k x l pool is
a 1 x l pool followed by a k x 1 pool, a window along one axis has few taps, and a tap is the maximum where its
difference to it is zero: one-weight convolutions, Mul and HardSigmoid, all in the blocked layout. The cotangents are
kept by phase (every s-th row, every s-th column) and interleaved once, at the end.

Index algebra along one axis: tap t of window w is cell s w + t - begin. With cell = s i + a, phase a gets tap t of
window w = i + (a + begin - t) / s wherever s divides a + begin - t. For 3 taps, stride 2, begin 1: cell 2 i is tap 1
of window i, and cell 2 i + 1 is tap 2 of window i and tap 0 of window i + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.rules.fast.blocked import blocked, fits, interleaved, phase_count
from fgonnx.engine.rules.fast.masks import each_channel, is_zero, minus, positive

_MAX_TAPS = 3


@dataclass(frozen=True)
class Pool1D:
    """A pool along one axis.

    Attributes
    ----------
    size_in, size_out : int
        Cells before and after.
    kernel, stride, begin : int
        Taps of a window, distance between windows, padding before the first cell.
    """

    size_in: int
    size_out: int
    kernel: int
    stride: int
    begin: int

    @property
    def end(self) -> int:
        """Padding after the last cell; negative: the number of cells at the end that no window covers."""
        return (self.size_out - 1) * self.stride + self.kernel - self.begin - self.size_in

    @property
    def cells(self) -> int:
        """Number of cells of the longest phase."""
        return phase_count(self.size_in, self.stride)

    def taps(self) -> list[int]:
        """Return all taps, those that lie in the padding for some window last."""
        outside = {*range(self.begin), *range(self.kernel - max(self.end, 0), self.kernel)}
        return sorted(range(self.kernel), key=lambda t: (t in outside, t))

    def comparable(self) -> bool:
        """Tell whether at most one tap can lie in the padding: it comes last and is never compared to its padding."""
        return self.begin + max(self.end, 0) < 2 and self.kernel <= _MAX_TAPS


def applies(x: ir.Value, axes: Sequence[Pool1D]) -> bool:
    """Tell whether `undo_max_pool` supports a pool and is faster: small windows, many channels, float32."""
    return len(axes) == 2 and fits(x) and all(a.comparable() for a in axes)


def undo_max_pool(op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, axes: Sequence[Pool1D]) -> ir.Value:
    """Route the cotangent of a max pool `y` of `x` to one maximum of every window.

    Among equal maxima the first in row-major order gets it, except that a tap which may lie in the padding comes last.
    """
    result = blocked(op, _routed(op, g, y, x, axes))

    def gated() -> ir.Value:
        # Times the mask x > 0 for x >= 0: a window whose maximum is 0 is all zero, so the mask of y does the same.
        masked = shaped(op.Mul(g, positive(op, y)), y)
        return undo_max_pool(op, masked, y, x, axes)

    def channels(start: int, stop: int, part: ir.Value) -> ir.Value:
        pooled = _pooled(op, part, axes)
        return undo_max_pool(op, channels_of(op, g, y, start, stop, pooled), pooled, part, axes)

    sparse = math.prod(a.size_out for a in axes) < math.prod(a.size_in for a in axes)
    op.recipes[result] = Recipe(channels=channels, gated=gated, has_zero=sparse, primal=x)
    return result


def channels_of(op: Emitter, g: ir.Value, y: ir.Value, start: int, stop: int, part: ir.Value) -> ir.Value:
    """Return some channels of the cotangent of `y`: computed on their own where its recipe allows, else sliced."""
    recipe = op.recipe(g, y)
    if recipe is not None and recipe.channels is not None:
        return recipe.channels(start, stop, part)
    return shaped(op.Slice(g, [start], [stop], [1]), part)


def _pooled(op: Emitter, x: ir.Value, axes: Sequence[Pool1D]) -> ir.Value:
    pooled = op.MaxPool(
        x,
        kernel_shape=[a.kernel for a in axes],
        strides=[a.stride for a in axes],
        pads=[*(a.begin for a in axes), *(max(a.end, 0) for a in axes)],
    )
    return shaped(pooled, [*op.dims(x)[:2], *(a.size_out for a in axes)])


@dataclass(frozen=True)
class _Steps:
    """The positions first, first + step, ... along an axis, `count` of them; some may lie outside."""

    first: int
    step: int
    count: int


def _routed(op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, axes: Sequence[Pool1D]) -> ir.Value:
    # 3 x 3, stride 2, begin 1: x (N, C, 8, 8), y and g (N, C, 4, 4).
    #     narrow, the pool over columns alone:                  (N, C, 8, 4)
    #     row phases of narrow's cotangent, compared with y:    2 of (N, C, 4, 4)
    #     of each, column phases, compared with narrow's rows:  2 x 2 of (N, C, 4, 4), interleaved to (N, C, 8, 8)
    rows, columns = axes
    narrow = _pooled(op, x, [Pool1D(rows.size_in, rows.size_in, 1, 1, 0), columns])
    whole = _Steps(0, 1, columns.size_out)
    # At least as many windows as a phase has cells: those after the last get a zero cotangent.
    wide = _Steps(0, 1, max(columns.size_out, columns.cells))

    def row_gap(t: int) -> ir.Value:
        return _picked(op, narrow, _Steps(t - rows.begin, rows.stride, rows.size_out), whole, -1.0, y)

    phases = []
    for a, line in enumerate(_phases(op, _shares(op, g, rows, row_gap), rows, 0, wide.count)):
        every = _Steps(a, rows.stride, rows.cells)
        widest = _picked(op, narrow, every, wide)

        def column_gap(t: int, every: _Steps = every, widest: ir.Value = widest) -> ir.Value:
            across = _Steps(t - columns.begin, columns.stride, wide.count)
            return _picked(op, x, every, across, -1.0, widest)

        phases.append(_phases(op, _shares(op, line, columns, column_gap), columns, 1, rows.cells))
    return interleaved(op, phases, [rows.cells, columns.cells], x)


def _shares(op: Emitter, g: ir.Value, along: Pool1D, gap: Callable[[int], ir.Value]) -> list[ir.Value]:
    """Return the cotangent of every tap of the windows; `gap(t)` is the maximum minus tap t, for all windows."""
    # Each tap in turn takes the cotangent where its gap is zero and leaves the rest; the last takes what remains.
    shares: dict[int, ir.Value] = {}
    rest = g
    *compared, last = along.taps()
    for t in compared:
        shares[t] = shaped(op.Mul(rest, is_zero(op, gap(t))), g)
        rest = shaped(minus(op, rest, shares[t]), g)
    shares[last] = rest
    return [shares[t] for t in range(along.kernel)]


def _phases(op: Emitter, shares: Sequence[ir.Value], along: Pool1D, axis: int, others: int) -> list[ir.Value]:
    """Add up the shares of the taps that fall on each phase of an axis; `others`: cells along the other axis."""
    size = (along.cells, others) if axis == 0 else (others, along.cells)
    phases = []
    for a in range(along.stride):
        total: ir.Value | None = None
        for t, share in enumerate(shares):
            shift, remainder = divmod(a + along.begin - t, along.stride)
            if not remainder:
                total = _shifted(op, share, (shift, 0) if axis == 0 else (0, shift), size, 1.0, total)
        phases.append(_shifted(op, shares[0], (0, 0), size, 0.0) if total is None else total)
    return phases


def _shifted(
    op: Emitter, v: ir.Value, shift: tuple[int, int], size: tuple[int, int], factor: float, plus: ir.Value | None = None
) -> ir.Value:
    rows, columns = (_Steps(first, 1, count) for first, count in zip(shift, size, strict=True))
    return _picked(op, v, rows, columns, factor, plus)


def _picked(
    op: Emitter, v: ir.Value, rows: _Steps, columns: _Steps, factor: float = 1.0, plus: ir.Value | None = None
) -> ir.Value:
    """Pick cells (0 outside), times a factor, plus another value: a depthwise convolution with one nonzero weight."""
    size = (op.size(v, 2), op.size(v, 3))
    if factor == 1.0 and all(s == _Steps(0, 1, n) for s, n in zip((rows, columns), size, strict=True)):
        return v if plus is None else shaped(op.Add(v, plus), v)
    places, kernel, before, behind = [], [], [], []
    for steps, n in zip((rows, columns), size, strict=True):
        place, pad = max(steps.first, 0), max(-steps.first, 0)
        missing = steps.step * (steps.count - 1) + place + 1 - pad - n
        # Where cells are left over at the end, a longer kernel keeps the convolution from having more windows.
        surplus = max(-missing - (steps.step - 1), 0)
        places.append(place)
        kernel.append(place + 1 + surplus)
        before.append(pad)
        behind.append(max(missing, 0))
    channels = op.size(v, 1)
    pick = np.zeros((1, 1, *kernel), np.float32)
    pick[0, 0, places[0], places[1]] = factor
    weights = each_channel(op, pick, channels)
    cells = op.Conv(
        v, weights, group=channels, kernel_shape=kernel, strides=[rows.step, columns.step], pads=[*before, *behind]
    )
    shaped(cells, [*op.dims(v)[:2], rows.count, columns.count])
    return cells if plus is None else shaped(op.Add(cells, plus), plus)
