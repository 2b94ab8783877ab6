"""Fast forms of transposed convolutions and window sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import content_of, dtype_of, shaped
from fgonnx.engine.rules.fast.blocked import BLOCK, blockable, blocked, enlarged, interleaved, phase_count, stuffed
from fgonnx.engine.rules.fast.masks import each_channel, spread_matrix

_FEW_CHANNELS = 4  # of a picture
_DEPTHWISE_TAPS = 25  # windows of up to this many taps are summed by a depthwise convolution


@dataclass(frozen=True)
class Windows:
    """Geometry of a convolution.

    Attributes
    ----------
    size_in, size_out : sequence of int
        Spatial sizes of its input and output.
    kernel, strides, dilations : sequence of int
        Taps of a window, distance between windows, distance between taps.
    begins : sequence of int
        Padding at the start of each axis; the padding at the end follows from the sizes.
    """

    size_in: Sequence[int]
    size_out: Sequence[int]
    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begins: Sequence[int]

    @property
    def reach(self) -> list[int]:
        """Distance from the first tap to the last."""
        return [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]

    @property
    def pointwise(self) -> bool:
        """Whether every window is one cell, and every cell is a window."""
        return all(k == s == 1 for k, s in zip(self.kernel, self.strides, strict=True)) and not any(
            [*self.begins, *self.ends]
        )

    @property
    def tiling(self) -> bool:
        """Whether every cell lies in exactly one window."""
        side_by_side = list(self.kernel) == list(self.strides) and all(d == 1 for d in self.dilations)
        return side_by_side and not any([*self.begins, *self.ends])

    @property
    def ends(self) -> list[int]:
        """Padding at the end of each axis; negative: the number of cells at the end that no window covers."""
        each = zip(self.size_in, self.size_out, self.strides, self.reach, self.begins, strict=True)
        return [(o - 1) * s + r + 1 - b - i for i, o, s, r, b in each]


def transposed_convolution(op: Emitter, g: ir.Value, w: ir.Value, at: Windows, group: int, like: ir.Value) -> ir.Value:
    """Apply the transpose of a convolution to `g`: its gradient with respect to the data.

    Parameters
    ----------
    g : ir.Value
        Cotangent of the convolution's output, (N, M, *size_out).
    w : ir.Value
        Weights of the convolution, (M, C / group, *kernel).
    at : Windows
        Its geometry.
    group : int
        Its number of groups.
    like : ir.Value
        Its input, (N, C, *size_in).
    """
    if g.shape is None:
        shaped(g, [op.dims(like)[0], op.size(w, 0), *at.size_out])
    result = _transposed_convolution(op, g, w, at, group, like)
    if group == 1 and blockable(op, like):
        shaped(result, like)

        def channels(start: int, stop: int, part: ir.Value) -> ir.Value:
            return transposed_convolution(op, g, _cut(op, w, [start], [stop], [1]), at, 1, part)

        op.recipes[result] = Recipe(channels=channels)
    return result


def _transposed_convolution(op: Emitter, g: ir.Value, w: ir.Value, at: Windows, group: int, like: ir.Value) -> ir.Value:
    reach, ends = at.reach, at.ends
    pads = [*at.begins, *ends]
    entry = op.entry(g)
    if entry is not None and entry.values is not None and group == 1 and at.pointwise:
        # Only channel m is nonzero: x'[c, p] = g[m, p] w[m, c].
        rows = op.Gather(op.Reshape(w, [op.size(w, 0), -1]), entry.index, axis=0)
        product = op.Mul(op.Reshape(rows, [-1, op.size(w, 1), *([1] * len(reach))]), entry.values)
        return blocked(op, shaped(product, like))
    if all(s == 1 for s in at.strides) and all(p <= r for p, r in zip(pads, [*reach, *reach], strict=True)):
        # Stride 1: x'[c, p] = sum_{m, k} g[m, p + begin - d k] w[m, c, k] is a convolution of g, padded by
        # d (K - 1) - pad for K taps, with the kernel flipped in space and its channels swapped within each group.
        return _flipped(op, g, w, group, [r - p for p, r in zip(pads, [*reach, *reach], strict=True)], at.dilations)
    depthwise = len(reach) == 2 and 1 < group == op.size(w, 0) and op.size(w, 1) == 1
    after = [i - o * s + b for i, o, s, b in zip(at.size_in, at.size_out, at.strides, at.begins, strict=True)]
    within = min(after) >= 0 and all(0 <= b <= r for b, r in zip(at.begins, reach, strict=True))
    if depthwise and within and not op.openvino:
        # x' is a convolution of g with s - 1 zeros after every entry: on onnxruntime faster than ConvTranspose, which
        # takes OpenVINO a third of the time; and blocked.
        spread = stuffed(op, g, at.strides, (0, 0)) if blockable(op, like) else _zero_stuffed(op, g, at)
        before = [r - b for r, b in zip(reach, at.begins, strict=True)]
        return _flipped(op, spread, w, group, [*before, *after], at.dilations)
    if group == 1 and blockable(op, like) and op.size(w, 0) % BLOCK == 0:
        in_phases = _in_phases(op, g, w, at, like)
        if in_phases is not None:
            return in_phases
    if op.portable and group == 1:
        few = _in_phases_at_once(op, g, w, at, like)
        if few is not None:
            return few
    extra = [max(-e, 0) for e in ends]
    return op.ConvTranspose(
        g,
        w,
        pads=[*at.begins, *(max(e, 0) for e in ends)],
        strides=list(at.strides),
        dilations=list(at.dilations),
        group=group,
        kernel_shape=list(at.kernel),
        output_padding=extra if any(extra) else None,
    )


@dataclass(frozen=True)
class _Phase:
    """Every s-th cell of an axis from cell a on: which taps of a strided convolution reach it.

    Cell s i + a gets g[o] w[k] for all s o + k - begin = s i + a. With a + begin = s q + r these are k = s m + r and
    o = i + q - m: a convolution of stride 1 with every s-th tap. For 3 taps, stride 2, begin 1: phase 0 has q, r = 0, 1
    and the one tap k = 1, o = i; phase 1 has q, r = 1, 0 and the taps k = 0, o = i + 1 and k = 2, o = i.

    Attributes
    ----------
    first : int
        r, the first tap of this phase.
    taps : int
        Number of taps.
    before, behind : int
        Padding of the stride-1 convolution.
    """

    first: int
    taps: int
    before: int
    behind: int

    @classmethod
    def of(cls, at: Windows, axis: int, a: int) -> _Phase:
        stride, count = at.strides[axis], phase_count(at.size_in[axis], at.strides[axis])
        q, r = divmod(a + at.begins[axis], stride)
        taps = len(range(r, at.kernel[axis], stride))
        return cls(r, taps, taps - 1 - q, count + q - at.size_out[axis])


def _in_phases(op: Emitter, g: ir.Value, w: ir.Value, at: Windows, like: ir.Value) -> ir.Value | None:
    """Write the gradient of a strided convolution as a stride-1 one per phase; None where padding forbids it."""
    if any(d != 1 for d in at.dilations) or len(at.strides) != 2:
        return None
    rows, columns = ([_Phase.of(at, axis, a) for a in range(at.strides[axis])] for axis in (0, 1))
    reached = [[bool(r.taps and c.taps) for c in columns] for r in rows]
    nonzero = [(a, b) for a, line in enumerate(reached) for b, hit in enumerate(line) if hit]
    used = [p for a, b in nonzero for p in (rows[a], columns[b])]
    if not nonzero or min(min(p.before, p.behind) for p in used) < 0:
        return None

    def phase(r: _Phase, c: _Phase) -> ir.Value:
        part = _cut(op, w, [r.first, c.first], list(at.kernel), [2, 3], list(at.strides))
        return _flipped(op, g, part, 1, [r.before, c.before, r.behind, c.behind], at.dilations)

    cells = [phase_count(i, s) for i, s in zip(at.size_in, at.strides, strict=True)]
    if len(nonzero) == len(rows) * len(columns):
        return blocked(op, interleaved(op, [[phase(r, c) for c in columns] for r in rows], cells, like))
    if len(nonzero) == 1:
        ((a, b),) = nonzero
        one = shaped(phase(rows[a], columns[b]), [op.dims(g)[0], op.size(like, 1), *cells])
        return blocked(op, stuffed(op, one, at.strides, (a, b), at.size_in))
    return None


def _in_phases_at_once(op: Emitter, g: ir.Value, w: ir.Value, at: Windows, like: ir.Value) -> ir.Value | None:
    """Write the gradient of a strided convolution of few channels as one convolution to the channels of all phases.

    The window of this convolution is the union of the phases' windows, with zeros where a phase has no tap: it takes
    the entries o = i + q - m from the smallest q - (taps - 1) to the largest q. OpenVINO needs 1.2 (3 x 3, stride 2) to
    4 times (16 x 16, stride 16) as long for the ConvTranspose; onnxruntime is about as fast.

    Returns
    -------
    ir.Value or None
        None for many channels, strides that differ, weights that are computed, or where padding forbids it.
    """
    content = content_of(w)
    stride = at.strides[0]
    plain = len(at.strides) == 2 and set(at.strides) == {stride} and all(d == 1 for d in at.dilations)
    if content is None or not plain or stride == 1 or op.size(w, 1) > _FEW_CHANNELS:
        return None
    axes = [[_Phase.of(at, axis, a) for a in range(stride)] for axis in (0, 1)]
    reached = [[p for p in phases if p.taps] for phases in axes]
    before = [max(p.before for p in phases) for phases in reached]
    behind = [max(p.behind for p in phases) for phases in reached]
    if min(*before, *behind) < 0:
        return None
    kernel = [max(b - p.before + p.taps for p in phases) for b, phases in zip(before, reached, strict=True)]
    m, c = content.shape[:2]
    joined = np.zeros((stride, stride, c, m, *kernel), content.dtype)
    for a, r in enumerate(axes[0]):
        for b, s in enumerate(axes[1]):
            if r.taps and s.taps:
                part = content[:, :, r.first :: stride, s.first :: stride].swapaxes(0, 1)[..., ::-1, ::-1]
                top, left = before[0] - r.before, before[1] - s.before
                joined[a, b, :, :, top : top + r.taps, left : left + s.taps] = part
    cells = [phase_count(i, stride) for i in at.size_in]
    weights = op.constant(joined.reshape(-1, m, *kernel))
    phases = op.Conv(g, weights, pads=[*before, *behind], kernel_shape=kernel)
    whole = op.DepthToSpace(phases, blocksize=stride)
    if [n * stride for n in cells] != list(at.size_in):
        whole = op.Slice(whole, [0, 0], list(at.size_in), [2, 3])
    return shaped(whole, like)


def _cut(
    op: Emitter,
    w: ir.Value,
    starts: Sequence[int],
    stops: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int] | None = None,
) -> ir.Value:
    """Slice weights; constant-folded when the session loads, so that the file stores them once."""
    steps = steps or [1] * len(axes)
    dims = list(op.dims(w))
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        dims[axis] = len(range(start, stop, step))
    return shaped(op.Slice(w, list(starts), list(stops), list(axes), list(steps)), dims)


def _flipped(
    op: Emitter, g: ir.Value, w: ir.Value, group: int, pads: Sequence[int], dilations: Sequence[int]
) -> ir.Value:
    """Convolve with the weights' channels swapped and their taps flipped."""
    kernel = [op.size(w, 2 + i) for i in range(len(dilations))]
    swapped = _swap_and_flip(op, w, kernel, group)
    return op.Conv(g, swapped, pads=list(pads), dilations=list(dilations), group=group, kernel_shape=kernel)


def _zero_stuffed(op: Emitter, g: ir.Value, at: Windows) -> ir.Value:
    """Insert s - 1 zeros after every entry of the last two axes: in rows by a 0/1 matrix, between rows by Pad."""
    (rows, columns), (down, across) = at.size_out, at.strides
    spread = spread_matrix(op, columns, across, dtype_of(g))
    wide = op.Reshape(op.MatMul(g, spread), [-1, op.size(g, 1), rows, 1, columns * across])
    padded = op.Pad(wide, [0, 0, 0, 0, 0, 0, 0, 0, down - 1, 0])
    return op.Reshape(padded, [-1, op.size(g, 1), rows * down, columns * across])


def _swap_and_flip(op: Emitter, w: ir.Value, kernel: Sequence[int], group: int) -> ir.Value:
    """(M, C/g, *k) -> (C, M/g, *k) within each group, taps flipped; constant-folded when the session loads."""
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
    return shaped(swapped, [group * c, m // group, *kernel])


def window_sum_transpose(op: Emitter, g: ir.Value, at: Windows, like: ir.Value, weight: float = 1.0) -> ir.Value:
    """Apply the transpose of a weighted window sum per channel: add every window's cotangent to all of its cells.

    In the blocked layout windows that tile are a nearest-neighbour Resize, others a depthwise convolution; elsewhere
    channels are folded into the batch, for one single-channel convolution.
    """

    def taps(shape: Sequence[int]) -> npt.NDArray[Any]:
        return np.full((1, 1, *shape), weight, g.dtype.numpy() if g.dtype else np.float32)

    if blockable(op, like) and (at.tiling or math.prod(at.kernel) <= _DEPTHWISE_TAPS):
        channels = op.size(like, 1)
        if not at.tiling:
            return transposed_convolution(op, g, each_channel(op, taps(at.kernel), channels), at, channels, like)
        scaled = op.Conv(g, each_channel(op, taps([1, 1]), channels), group=channels) if weight != 1.0 else g
        return enlarged(op, shaped(scaled, [*op.dims(like)[:2], *at.size_out]), at.strides)
    folded = op.Reshape(g, [-1, 1, *at.size_out])
    one = ir.Value(name="", shape=ir.Shape([None, 1, *at.size_in]), type=g.type)
    ones = op.constant(taps(at.kernel))
    return op.Reshape(transposed_convolution(op, folded, ones, at, 1, one), [-1, op.size(like, 1), *at.size_in])
