"""Samplers written out: GridSample, RoiAlign and DeformConv are gathers at computed places, times weights.

MaxRoiPool takes maxima under masks of the same kind of places.

A coordinate c lies between whole positions; each of them (a tap) has a weight that depends on c, and a value of n axes
is the sum over all combinations of taps. CumProd and TensorScatter are here too: products and writes, step by step.
Definitions: https://onnx.ai/onnx/operators/onnx__GridSample.html, onnx__RoiAlign.html, onnx__DeformConv.html.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.normal.expand.build import Builder, expanders
from fgonnx.engine.normal.expand.controlflow import MOST_STEPS
from fgonnx.engine.rules.fast.masks import indicator

_INT64 = ir.DataType.INT64.value
_CUBIC = -0.75  # the coefficient of the operator's page


@dataclass(frozen=True)
class Tap:
    """An integer position near a coordinate, inside the image, with its weight (None for 1)."""

    position: ir.Value
    weight: ir.Value | None


def taps(op: Emitter, c: ir.Value, size: int, mode: str, padding: str, *, aligned: bool) -> list[Tap]:
    """Return the taps of coordinates in pixels along an axis.

    Interpolation folds into the image by its taps: a symmetric extension of the pixels is what reflection means.
    """
    if mode == "nearest":
        return [_inside(op, op.Round(c), None, size, padding, aligned=aligned)]
    low = op.Floor(c)
    t = op.Sub(c, low)
    s = op.Sub(1.0, t)
    weights = [s, t] if mode == "linear" else [_far(op, t), _near(op, t), _near(op, s), _far(op, s)]
    first = 0 if mode == "linear" else -1
    return [
        _inside(op, op.Add(low, float(first + i)), w, size, padding, aligned=aligned) for i, w in enumerate(weights)
    ]


def _near(op: Emitter, t: ir.Value) -> ir.Value:
    """(a + 2) t^3 - (a + 3) t^2 + 1, the weight at a distance t below 1."""
    inner = op.Sub(op.Mul(t, _CUBIC + 2.0), _CUBIC + 3.0)
    return op.Add(op.Mul(op.Mul(inner, t), t), 1.0)


def _far(op: Emitter, t: ir.Value) -> ir.Value:
    """a d^3 - 5 a d^2 + 8 a d - 4 a at the distance d = t + 1, which is a t (t - 1)^2."""
    rest = op.Sub(t, 1.0)
    return op.Mul(op.Mul(op.Mul(rest, rest), t), _CUBIC)


def _inside(op: Emitter, p: ir.Value, weight: ir.Value | None, size: int, padding: str, *, aligned: bool) -> Tap:
    """Bring a position into 0 ... size - 1, or give it weight 0."""
    last = float(size - 1)
    if padding == "zeros":
        known = op.And(op.GreaterOrEqual(p, 0.0), op.LessOrEqual(p, last))
        mask = indicator(op, known, p)
        weight = mask if weight is None else op.Mul(weight, mask)
    elif padding == "reflection":
        low, span = (0.0, last) if aligned else (-0.5, float(size))
        if span:  # low + span - | |p - low| mod 2 span - span |
            turn = op.Mod(op.Abs(op.Sub(p, low)), 2.0 * span, fmod=1)
            p = op.Sub(low + span, op.Abs(op.Sub(turn, span)))
    return Tap(op.Cast(op.Clip(p, 0.0, last), to=_INT64), weight)


def combined(op: Emitter, axes: Sequence[Sequence[Tap]], sizes: Sequence[int]) -> list[Tap]:
    """Return the taps of several axes as taps of the flattened image; positions and weights broadcast."""
    found = []
    for combination in itertools.product(*axes):
        position, weight = combination[0].position, combination[0].weight
        for tap, size in zip(combination[1:], sizes[1:], strict=True):
            position = op.Add(op.Mul(position, size), tap.position)
            if tap.weight is not None:
                weight = tap.weight if weight is None else op.Mul(weight, tap.weight)
        found.append(Tap(position, weight))
    return found


def _weighted(op: Emitter, parts: Sequence[ir.Value]) -> ir.Value:
    return parts[0] if len(parts) == 1 else op.Sum(*parts)


def sample(op: Emitter, pixels: ir.Value, places: Sequence[Tap]) -> ir.Value:
    """Return what lies at flat places (B, P) of every channel of pixels (B, C, L), as (B, C, P)."""
    parts = []
    for tap in places:
        index = op.Unsqueeze(tap.position, [1])
        shape = op.Concat(op.Shape(pixels, start=0, end=2), op.Shape(tap.position, start=1, end=2), axis=0)
        picked = op.GatherElements(pixels, op.Expand(index, shape), axis=2)
        parts.append(picked if tap.weight is None else op.Mul(picked, op.Unsqueeze(tap.weight, [1])))
    return _weighted(op, parts)


def grid_sample(
    op: Emitter,
    x: ir.Value,
    grid: ir.Value,
    *,
    mode: str = "linear",
    padding_mode: str = "zeros",
    align_corners: int = 0,
) -> ir.Value:
    """Pixels at places in -1 ... 1, the last axis of the grid naming them from the last axis to the first."""
    sizes = [op.size(x, 2 + i) for i in range(op.rank(x) - 2)]
    out = [op.size(grid, 1 + i) for i in range(len(sizes))]
    flat = op.Reshape(grid, [-1, math.prod(out), len(sizes)])
    mode = mode.removeprefix("bi")
    axes = []
    for i, size in enumerate(sizes):
        at = len(sizes) - 1 - i
        place = op.Squeeze(op.Slice(flat, [at], [at + 1], [2]), [2])
        # -1 and 1 are the centres of the outer pixels (aligned), or their outer edges
        factor = (size - 1) / 2 if align_corners else size / 2
        pixel = op.Add(op.Mul(place, factor), (size - 1) / 2)
        axes.append(taps(op, pixel, size, mode, padding_mode, aligned=bool(align_corners)))
    pixels = op.Reshape(x, [-1, op.size(x, 1), math.prod(sizes)])
    return op.Reshape(sample(op, pixels, combined(op, axes, sizes)), [-1, op.size(x, 1), *out])


def deform_conv(
    op: Emitter,
    x: ir.Value,
    w: ir.Value,
    offset: ir.Value,
    b: ir.Value | None = None,
    mask: ir.Value | None = None,
    *,
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    offset_group: int = 1,
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> ir.Value:
    """A convolution whose taps are shifted by offsets: columns by bilinear sampling, then a grouped product."""
    if op.rank(x) != 4:
        raise NotImplementedError("images alone")
    channels, sizes = op.size(x, 1), [op.size(x, 2), op.size(x, 3)]
    filters, kernel = op.size(w, 0), [op.size(w, 2), op.size(w, 3)]
    out = [op.size(offset, 2), op.size(offset, 3)]
    count, places = math.prod(kernel), math.prod(out)
    # offset: (N, offset group, kernel, y and x, out)
    moved = op.Reshape(offset, [-1, count, 2, places])
    axes = []
    for axis in range(2):
        own = np.arange(kernel[axis]) * dilations[axis]
        cell = (own[:, None], own[None, :])[axis] + np.zeros(kernel)
        start = np.arange(out[axis]) * strides[axis] - pads[axis]
        window = (start[:, None], start[None, :])[axis] + np.zeros(out)
        base = cell.reshape(-1, 1) + window.reshape(1, -1)
        place = op.Add(op.Squeeze(op.Slice(moved, [axis], [axis + 1], [2]), [2]), base)
        flat = op.Reshape(place, [-1, count * places])
        axes.append(taps(op, flat, sizes[axis], "linear", "zeros", aligned=True))
    pixels = op.Reshape(x, [-1, channels // offset_group, math.prod(sizes)])
    columns = sample(op, pixels, combined(op, axes, sizes))
    if mask is not None:
        columns = op.Mul(columns, op.Reshape(mask, [-1, 1, count * places]))
    # (N, group, C / group * kernel, places), times (group, M / group, C / group * kernel)
    depth = channels // group * count
    product = op.MatMul(
        op.Reshape(w, [group, filters // group, depth]), op.Reshape(columns, [-1, group, depth, places])
    )
    y = op.Reshape(product, [-1, filters, *out])
    return y if b is None else op.Add(y, op.Reshape(b, [-1, 1, 1]))


def roi_align(
    op: Emitter,
    x: ir.Value,
    rois: ir.Value,
    batch: ir.Value,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> ir.Value:
    """The mean (or the largest weighted tap) of bilinear samples in every cell of every box."""
    if sampling_ratio <= 0:
        raise NotImplementedError("as many samples as the size of a box says")
    half = coordinate_transformation_mode == "half_pixel"
    sizes, cells, s = [op.size(x, 2), op.size(x, 3)], [output_height, output_width], sampling_ratio
    box = op.Sub(op.Mul(rois, spatial_scale), 0.5 if half else 0.0)
    axes, known = [], []
    for axis in range(2):  # boxes are x1, y1, x2, y2
        low, high = (op.Slice(box, [i], [i + 1], [1]) for i in (1 - axis, 3 - axis))
        length = op.Sub(high, low) if half else op.Max(op.Sub(high, low), 1.0)
        steps = (np.arange(cells[axis] * s) + 0.5) / (cells[axis] * s)
        c = op.Add(low, op.Mul(length, steps.reshape(1, -1)))
        inside = op.And(op.GreaterOrEqual(c, -1.0), op.LessOrEqual(c, float(sizes[axis])))
        clipped = op.Clip(c, 0.0, float(sizes[axis] - 1))
        at = [2, 1][axis]  # rows along axis 1, columns along axis 2
        axes.append(
            [
                Tap(
                    op.Unsqueeze(tap.position, [at]), op.Unsqueeze(tap.weight, [at]) if tap.weight is not None else None
                )
                for tap in taps(op, clipped, sizes[axis], "linear", "border", aligned=True)
            ]
        )
        known.append(op.Unsqueeze(inside, [at]))
    mask = indicator(op, op.And(*known), x)
    channels = op.size(x, 1)
    pixels = op.Reshape(op.Transpose(x, perm=[0, 2, 3, 1]), [-1, math.prod(sizes), channels])
    parts = []
    for tap in combined(op, axes, sizes):
        place = op.Unsqueeze(tap.position, [3])
        sample_of = op.Expand(op.Reshape(op.Cast(batch, to=_INT64), [-1, 1, 1, 1]), op.Shape(place))
        picked = op.GatherND(pixels, op.Concat(sample_of, place, axis=3))
        weight = mask if tap.weight is None else op.Mul(tap.weight, mask)
        parts.append(op.Mul(picked, op.Unsqueeze(weight, [3])))
    joined = _weighted(op, parts) if mode == "avg" else op.Max(*parts)
    split = op.Reshape(joined, [-1, output_height, s, output_width, s, channels])
    pooled = op.ReduceMean(split, [2, 4], keepdims=0) if mode == "avg" else op.ReduceMax(split, [2, 4], keepdims=0)
    return op.Transpose(pooled, perm=[0, 3, 1, 2])


def max_roi_pool(
    op: Emitter, x: ir.Value, rois: ir.Value, *, pooled_shape: list[int], spatial_scale: float = 1.0
) -> ir.Value:
    """Maxima over the cells of a grid laid on each region, whole pixels; an empty cell gives 0.

    https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html; cells overlap, from floor(k b) to ceil((k + 1) b).
    """
    batch, x0, y0, x1, y1 = op.several("Split", rois, [1] * 5, axis=1, outputs=5)
    picked = op.Gather(x, op.Cast(op.Reshape(batch, [-1]), to=_INT64), axis=0)
    lowest = -6e4 if x.dtype == ir.DataType.FLOAT16 else -3e38

    def cells(first: ir.Value, last: ir.Value, count: int, size: int) -> ir.Value:
        # (regions, count, size): which positions belong to which cell
        start, stop = (op.Floor(op.Add(op.Mul(v, spatial_scale), 0.5)) for v in (first, last))
        length = op.Max(op.Add(op.Sub(stop, start), 1.0), 1.0)
        steps = [np.arange(count)[None, :] + k for k in (0.0, 1.0)]
        low = op.Add(op.Floor(op.Mul(op.Div(length, float(count)), steps[0])), start)
        high = op.Add(op.Ceil(op.Mul(op.Div(length, float(count)), steps[1])), start)
        low, high = (op.Unsqueeze(op.Clip(v, 0.0, float(size)), [2]) for v in (low, high))
        position = op.Reshape(op.CastLike(np.arange(size), x), [1, 1, size])
        return op.And(op.LessOrEqual(low, position), op.Less(position, high))

    rows = op.Unsqueeze(cells(y0, y1, pooled_shape[0], op.size(x, 2)), [1, 4])  # (R, 1, PH, H, 1)
    columns = op.Unsqueeze(cells(x0, x1, pooled_shape[1], op.size(x, 3)), [1, 2])  # (R, 1, 1, PW, W)
    across = op.ReduceMax(op.Where(columns, op.Unsqueeze(picked, [3]), lowest), [4], keepdims=0)
    best = op.ReduceMax(op.Where(rows, op.Unsqueeze(across, [2]), lowest), [3], keepdims=0)
    return op.Where(op.Greater(best, lowest / 2), best, 0.0)


def cumulative_product(op: Emitter, x: ir.Value, axis: ir.Value, *, exclusive: int = 0, reverse: int = 0) -> ir.Value:
    """Products of all that came before along an axis, one step after the other: exact with zeros too."""
    where = op.array(axis)
    if where is None:
        raise NotImplementedError("an axis that is not constant")
    along = int(where.reshape(())) % op.rank(x)
    size = op.size(x, along)
    if not 0 < size <= MOST_STEPS:
        raise NotImplementedError("too many steps")
    steps = op.several("Split", x, [1] * size, axis=along, outputs=size) if size > 1 else (x,)
    if reverse:
        steps = steps[::-1]
    products = [op.Add(op.Mul(steps[0], 0.0), 1.0)] if exclusive else [steps[0]]
    for step in steps[:-1] if exclusive else steps[1:]:
        products.append(op.Mul(products[-1], step))
    return op.Concat(*(reversed(products) if reverse else products), axis=along)


def tensor_scatter(
    op: Emitter,
    past: ir.Value,
    update: ir.Value,
    write: ir.Value | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> ir.Value:
    """Rows of an update written into a cache, from a place of each sample's own on."""
    rank = op.rank(past)
    axis %= rank
    steps = np.arange(op.size(update, axis), dtype=np.int64)
    place = op.constant(steps.reshape(1, -1))
    if write is not None:
        place = op.Add(op.Unsqueeze(write, [1]), place)
    if mode == "circular":
        place = op.Mod(place, op.size(past, axis))
    shaped = op.Reshape(place, [0 if i == 0 else -1 if i == axis else 1 for i in range(rank)])
    return op.ScatterElements(past, op.Expand(shaped, op.Shape(update)), update, axis=axis)


BUILDERS: dict[tuple[str, str], Builder] = {
    ("", "MaxRoiPool"): max_roi_pool,
    ("", "GridSample"): grid_sample,
    ("", "DeformConv"): deform_conv,
    ("", "RoiAlign"): roi_align,
    ("", "CumProd"): cumulative_product,
    ("", "TensorScatter"): tensor_scatter,
}

EXPANDERS = expanders(BUILDERS)
