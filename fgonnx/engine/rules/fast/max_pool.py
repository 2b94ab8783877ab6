"""Max pools undone axis by axis, without indices.

Asked for indices, onnxruntime's pool leaves the blocked layout and takes many times as long. But a pool of k x l is one
of 1 x l and then one of k x 1, a window along one axis has few taps, and which of them is the maximum is seen by
subtraction: convolutions with one weight, Mul and HardSigmoid, all in the blocked layout. What the taps get is kept by
phases (every s-th row, every s-th column) and put together once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.rules.fast.blocked import blockable, blocked, interleaved, phase_count
from fgonnx.engine.rules.fast.masks import each_channel, minus, positive, vanishes

_MOST_TAPS = 3


@dataclass(frozen=True)
class Axis:
    """A pool along one axis.

    Attributes
    ----------
    size_in, size_out : int
        Cells before and after.
    kernel, stride, begin : int
        Taps of a window, its step, and the padding before the first cell.
    """

    size_in: int
    size_out: int
    kernel: int
    stride: int
    begin: int

    @property
    def end(self) -> int:
        """Padding behind the last cell, or, negative, cells there that no window reaches."""
        return (self.size_out - 1) * self.stride + self.kernel - self.begin - self.size_in

    @property
    def cells(self) -> int:
        """Cells of a phase."""
        return phase_count(self.size_in, self.stride)

    def taps(self) -> list[int]:
        """Return all taps, those that lie in the padding at some place last."""
        outside = {*range(self.begin), *range(self.kernel - max(self.end, 0), self.kernel)}
        return sorted(range(self.kernel), key=lambda t: (t in outside, t))

    def decided(self) -> bool:
        """Tell whether at most one tap may lie in the padding: it is never compared, so the 0 there misleads nobody."""
        return self.begin + max(self.end, 0) < 2 and self.kernel <= _MOST_TAPS


def applies(op: Emitter, x: ir.Value, axes: Sequence[Axis]) -> bool:
    """Tell whether `undo_max_pool` takes a pool, and is the better form: small windows, many channels in float32."""
    in_blocks = op.portable or blockable(op, x)
    return len(axes) == 2 and x.dtype == ir.DataType.FLOAT and in_blocks and all(a.decided() for a in axes)


def undo_max_pool(op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    """Send the cotangent of a max pool `y` of `x` to one maximum of every window.

    Of equal elements the first one gets it, row by row, except that a tap which may lie in the padding is asked last.
    """
    result = blocked(op, _undone(op, g, y, x, axes))

    def gated() -> ir.Value:
        # Where x is nowhere negative, a window whose maximum is zero holds nothing else: the mask can be that of y.
        masked = op.Mul(g, positive(op, y))
        masked.shape = y.shape
        return undo_max_pool(op, masked, y, x, axes)

    def channels(start: int, stop: int, part: ir.Value) -> ir.Value:
        pooled = op.MaxPool(part, **_attributes(axes))
        pooled.shape = ir.Shape([*op.dims(part)[:2], *(a.size_out for a in axes)])
        return undo_max_pool(op, channels_of(op, g, y, start, stop, pooled), pooled, part, axes)

    sparse = math.prod(a.size_out for a in axes) < math.prod(a.size_in for a in axes)
    op.recipes[result] = Recipe(channels=channels, gated=gated, vanishes=sparse, primal=x)
    return result


def channels_of(op: Emitter, g: ir.Value, y: ir.Value, start: int, stop: int, part: ir.Value) -> ir.Value:
    """Return some channels of the cotangent of `y`: written apart where that is possible, else cut out."""
    recipe = op.recipe(g, y)
    if recipe is not None and recipe.channels is not None:
        return recipe.channels(start, stop, part)
    cut: ir.Value = op.Slice(g, [start], [stop], [1])
    cut.shape = part.shape
    return cut


def _attributes(axes: Sequence[Axis]) -> dict[str, list[int]]:
    return {
        "kernel_shape": [a.kernel for a in axes],
        "strides": [a.stride for a in axes],
        "pads": [*(a.begin for a in axes), *(max(a.end, 0) for a in axes)],
    }


@dataclass(frozen=True)
class _Steps:
    """The places first, first + step, ... of an axis, so many of them; some may lie outside."""

    first: int
    step: int
    count: int


def _undone(op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    rows, columns = axes
    narrow = op.MaxPool(x, **_attributes([Axis(rows.size_in, rows.size_in, 1, 1, 0), columns]))
    narrow.shape = ir.Shape([*op.dims(x)[:3], columns.size_out])
    whole = _Steps(0, 1, columns.size_out)
    # As many windows as there are cells in a phase: those behind the last one get nothing and change nothing.
    wide = _Steps(0, 1, max(columns.size_out, columns.cells))

    def row_tap(t: int) -> ir.Value:
        return _picked(op, narrow, _Steps(t - rows.begin, rows.stride, rows.size_out), whole, -1.0, y)

    phases = []
    for a, line in enumerate(_phases(op, _shares(op, g, rows, row_tap), rows, 0, wide.count)):
        every = _Steps(a, rows.stride, rows.cells)
        widest = _picked(op, narrow, every, wide)

        def column_tap(t: int, every: _Steps = every, widest: ir.Value = widest) -> ir.Value:
            across = _Steps(t - columns.begin, columns.stride, wide.count)
            return _picked(op, x, every, across, -1.0, widest)

        phases.append(_phases(op, _shares(op, line, columns, column_tap), columns, 1, rows.cells))
    return interleaved(op, phases, [rows.cells, columns.cells], x)


def _shares(op: Emitter, g: ir.Value, along: Axis, gap: Callable[[int], ir.Value]) -> list[ir.Value]:
    """Return what every tap of the windows gets; `gap` is how far a tap is below the maximum."""
    shares: dict[int, ir.Value] = {}
    rest = g
    *asked, last = along.taps()
    for t in asked:
        shares[t] = op.Mul(rest, vanishes(op, gap(t)))
        shares[t].shape = g.shape
        rest = minus(op, rest, shares[t])
        rest.shape = g.shape
    shares[last] = rest
    return [shares[t] for t in range(along.kernel)]


def _phases(op: Emitter, shares: Sequence[ir.Value], along: Axis, axis: int, others: int) -> list[ir.Value]:
    """Add up, for every phase of an axis, the shares of the taps that meet there; `others` cells along the other axis.

    Tap t of window w is cell s w + t - begin, which is cell i of phase a where w = i + (a + begin - t) / s.
    """
    size = (along.cells, others) if axis == 0 else (others, along.cells)
    found = []
    for a in range(along.stride):
        total: ir.Value | None = None
        for t, share in enumerate(shares):
            shift, beside = divmod(a + along.begin - t, along.stride)
            if not beside:
                total = _moved(op, share, (shift, 0) if axis == 0 else (0, shift), size, 1.0, total)
        found.append(_moved(op, shares[0], (0, 0), size, 0.0) if total is None else total)
    return found


def _moved(
    op: Emitter, v: ir.Value, shift: tuple[int, int], size: tuple[int, int], factor: float, plus: ir.Value | None = None
) -> ir.Value:
    rows, columns = (_Steps(first, 1, count) for first, count in zip(shift, size, strict=True))
    return _picked(op, v, rows, columns, factor, plus)


def _picked(
    op: Emitter, v: ir.Value, rows: _Steps, columns: _Steps, factor: float = 1.0, plus: ir.Value | None = None
) -> ir.Value:
    """Pick cells, 0 for those outside, times a factor, plus another value: a depthwise convolution with one weight."""
    size = (op.size(v, 2), op.size(v, 3))
    if factor == 1.0 and all(s == _Steps(0, 1, n) for s, n in zip((rows, columns), size, strict=True)):
        total = v if plus is None else op.Add(v, plus)
        total.shape = v.shape
        return total
    places, kernel, before, behind = [], [], [], []
    for steps, n in zip((rows, columns), size, strict=True):
        place, pad = max(steps.first, 0), max(-steps.first, 0)
        missing = steps.step * (steps.count - 1) + place + 1 - pad - n
        # Where cells are left over at the end, a longer kernel keeps the windows from reaching them.
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
    cells.shape = ir.Shape([*op.dims(v)[:2], rows.count, columns.count])
    if plus is not None:
        cells = op.Add(cells, plus)
        cells.shape = plus.shape
    return cells
