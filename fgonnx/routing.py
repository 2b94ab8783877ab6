"""Max pools undone axis by axis, without indices.

Asked for indices, onnxruntime's pool leaves the blocked layout and takes many times as long. But a pool of k x l is one
of 1 x l and then one of k x 1, a window along one axis has few taps, and which of them is the maximum is seen by
subtraction: convolutions with one weight, Add, Mul and HardSigmoid, all in the blocked layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.emit import Emitter
from fgonnx.lowerings import complement, positive

_MOST_TAPS = 3
_BLOCK = 16  # channels; others are not in the blocked layout


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

    def taps(self) -> list[int]:
        """Return all taps, those that lie in the padding at some place last."""
        outside = {*range(self.begin), *range(self.kernel - max(self.end, 0), self.kernel)}
        return sorted(range(self.kernel), key=lambda t: (t in outside, t))

    def decided(self) -> bool:
        """Tell whether at most one tap may lie in the padding: it is never compared, so the 0 there misleads nobody."""
        return self.begin + max(self.end, 0) < 2 and self.kernel <= _MOST_TAPS

    def attributes(self, axis: int) -> dict[str, list[int]]:
        """Return the attributes of a pool or convolution along axis 0 (rows) or 1 (columns) alone."""
        window, steps, pads = [1, 1], [1, 1], [0, 0, 0, 0]
        window[axis], steps[axis] = self.kernel, self.stride
        pads[axis], pads[2 + axis] = self.begin, max(self.end, 0)
        return {"kernel_shape": window, "strides": steps, "pads": pads}


def applies(op: Emitter, x: ir.Value, axes: Sequence[Axis]) -> bool:
    """Tell whether `undo_max_pool` takes a pool, and is the better form: small windows, many channels in float32."""
    blocked = op.portable or op.size(x, 1) % _BLOCK == 0
    return len(axes) == 2 and x.dtype == ir.DataType.FLOAT and blocked and all(a.decided() for a in axes)


def undo_max_pool(op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    """Send the cotangent of a max pool `y` of `x` to one maximum of every window.

    Of equal elements the first one gets it, row by row, except that a tap which may lie in the padding is asked last.
    """
    rows, columns = axes
    narrow = op.MaxPool(x, **columns.attributes(1))
    narrow.shape = ir.Shape([*op.dims(x)[:3], columns.size_out])
    return _undo(op, _undo(op, g, y, narrow, rows, 0), narrow, x, columns, 1)


def _undo(op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, along: Axis, axis: int) -> ir.Value:
    channels, k = op.size(x, 1), along.kernel
    attributes = along.attributes(axis)
    window = attributes["kernel_shape"]
    shares: dict[int, ir.Value] = {}
    rest = g
    *asked, last = along.taps()
    for t in asked:
        pick = np.zeros((channels, 1, k), np.float32)
        pick[:, :, t] = -1.0
        gap = op.Add(op.Conv(x, pick.reshape(channels, 1, *window), group=channels, **attributes), y)  # max - tap >= 0
        mask = positive(op, gap)
        shares[t], rest = op.Mul(rest, complement(op, mask)), op.Mul(rest, mask)
    shares[last] = rest
    # The shares of a channel side by side; a transposed convolution with unit weights puts each back at its tap, with
    # channels as samples.
    beside = op.Concat(*(op.Unsqueeze(shares[t], [2]) for t in range(k)), axis=2)
    extra = [0, 0]
    extra[axis] = max(-along.end, 0)
    spread = op.ConvTranspose(
        op.Reshape(beside, [-1, k, op.size(y, 2), op.size(y, 3)]),
        np.eye(k, dtype=np.float32).reshape(k, 1, *window),
        output_padding=extra if any(extra) else None,
        **attributes,
    )
    result = op.reshape_like(spread, x)
    result.shape = x.shape
    return result
