"""Net evidence: channels summed with their sign before psi, every site divided by its own scale.

A site is read once. The sum of `g * b` over channels is a matrix-vector product, so `g * b` is never materialised; the
total of the site, for the certificate, is the sum of that sum over cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of, shaped
from fgonnx.engine.maps.interpolate import upsample
from fgonnx.engine.maps.psi import ABS, POSITIVE
from fgonnx.engine.maps.signed import Reading, Signed, along_channels, over_channels, reading, roll_back, signed_sums
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.fast.blocked import blockable
from fgonnx.fields import check_choices, check_idle, documented, option

MAX, MASS = "max", "mass"
SCALES = (MAX, MASS)

_STEEPEST = 10.0
_MULTIPLIED = 512  # entries of an axis up to which the blur is a matrix
_REACH = 4  # of the blur, in standard deviations


@documented
@dataclass(frozen=True, kw_only=True)
class Net:
    """How the channel sums of sites are combined."""

    scale: str = option(
        MAX,
        "What a site is divided by, max or mass: the largest absolute channel sum, or the mean absolute one before the "
        "blur.",
    )
    blur: float = option(
        0.0,
        "Standard deviation of a Gaussian blur before psi, as a fraction of every axis of the picture, 0 to 1.",
        least=0,
        most=1,
    )
    depth: float = option(
        0.0,
        "Weight of site l of L in the order of the network, (l / L) ** depth: above 0 for late ones, -10 to 10.",
        least=-_STEEPEST,
        most=_STEEPEST,
    )
    focus: float = option(
        0.0,
        "Share f of the positive evidence E at the last layer before the score, 0 to 1: the map is multiplied by "
        "1 - f + f E / max E.",
        least=0,
        most=1,
    )
    layer: str | None = option(
        None,
        "Name of the value of the graph whose evidence focuses the map; by default the last one before the score "
        "through which all paths from the grid pass.",
        idle=lambda net: "" if net.focus else "focus is 0",
    )

    def __post_init__(self) -> None:
        check_choices(self, scale=SCALES)
        check_idle(self)

    def weights(self, count: int) -> npt.NDArray[np.float64]:
        """Return the weights of a number of sites, the largest one 1."""
        weights = (np.arange(1, count + 1) / count) ** self.depth
        return weights / weights.max()


def channel_sums(op: Emitter, m: Signed) -> tuple[ir.Value, ir.Value | None]:
    """Sum a signed map over channels: (N, cells), and its total where the map has one to be computed along with it."""
    p, count = m.placement, math.prod(m.placement.grid)
    in_place = reading(p)
    if m.entry is not None:
        sums = op.Reshape(m.entry, [-1, count])
    elif in_place is not None:
        return _in_place(op, m, in_place)
    elif p.trivial and blockable(op, m.value):
        # As a convolution it stays in the blocked layout; a matrix product would have the whole tensor reordered.
        ones = np.ones((1, op.size(m.value, 1), 1, 1), dtype_of(m.value).numpy())
        kernel = op.constant(ones) if m.weights is None else op.Mul(ones, op.Reshape(m.weights, [1, -1, 1, 1]))
        shaped(kernel, list(ones.shape))
        sums = op.Reshape(op.Conv(m.value, kernel, kernel_shape=[1, 1]), [-1, count])
    else:
        sums = op.Reshape(signed_sums(op, m), [-1, count])
    if m.total is None:
        return sums, None
    if p.crop is not None:
        return sums, m.total
    return sums, shaped(op.ReduceSum(sums, [1], keepdims=1), [None, 1])


def focused(op: Emitter, saliency: ir.Value, evidence: Signed, grid: Sequence[int], share: float) -> ir.Value:
    """Multiply a map (N, *grid) by `1 - f + f E / max E`, E the positive channel sums of the evidence, upsampled.

    A sample without positive evidence keeps its map as it is.
    """
    cells = op.Relu(channel_sums(op, evidence)[0])
    most = op.ReduceMax(cells, [1])
    some = op.Greater(most, float(np.finfo(dtype_of(cells).numpy()).tiny))
    even = op.Where(some, op.Div(cells, op.Where(some, most, 1.0)), 1.0)
    coarse = op.Reshape(even, [-1, 1, *evidence.placement.grid])
    fine = upsample(op, coarse, evidence.placement.grid, grid, signed=False, align_corners=False)
    return op.Mul(saliency, op.Add(op.Mul(op.Reshape(fine, [-1, *grid]), share), 1.0 - share))


def _in_place(op: Emitter, m: Signed, r: Reading) -> tuple[ir.Value, ir.Value | None]:
    p, total = m.placement, None
    v = m.value if m.weights is None else op.Mul(m.value, along_channels(op, m.weights, p))
    cells = over_channels(op, op.Reshape(v, list(r.shape)), r, p, op.ReduceSum)
    inside = cells if p.crop is None else op.Slice(cells, [p.crop.start], [p.crop.stop], [2])
    if m.total is not None:
        total = op.ReduceSum(inside, [2], keepdims=0)
        if p.crop is not None:
            total = op.Concat(total, op.Sub(op.ReduceSum(cells, [2], keepdims=0), total), axis=1)
        shaped(total, [None, 1 if p.crop is None else 2])
    if any(p.roll):
        inside = roll_back(op, op.Reshape(inside, [-1, 1, *p.grid]), p)
    return op.Reshape(inside, [-1, math.prod(p.grid)]), total


def combined(
    op: Emitter, maps: Sequence[Signed], net: Net, weights: npt.NDArray[np.float64], psi: str
) -> tuple[ir.Value, dict[ir.Value, ir.Value]]:
    """Combine the channel sums n of maps on one grid, `sum_l w_l psi(G n_l) / scale_l`: (N, 1, *grid).

    Also returns the totals computed along with it, by the value they replace.
    """
    grid = maps[0].placement.grid
    count, cells = len(maps), math.prod(grid)
    rows: list[ir.Value] = []
    carried: dict[ir.Value, ir.Value] = {}
    for m in maps:
        sums, total = channel_sums(op, m)
        rows.append(sums)
        if m.total is not None and total is not None:
            carried[m.total] = total
    plain = op.Reshape(rows[0] if count == 1 else op.Concat(*rows, axis=1), [-1, count, cells])
    even = _blurred(op, plain, count, grid, net.blur)
    size = op.Abs(even)
    scale = op.ReduceMax(size, [2]) if net.scale == MAX else op.ReduceMean(op.Abs(plain), [2])
    shown = size if psi == ABS else op.Relu(even) if psi == POSITIVE else even
    # A site without evidence shows nothing, not 0 / 0; nor does one of subnormal numbers, whose reciprocal overflows.
    dtype = dtype_of(plain).numpy()
    scale = op.Where(op.Greater(scale, float(np.finfo(dtype).tiny)), scale, 1.0)
    share = op.Div(op.constant(weights.astype(dtype).reshape(1, 1, count)), op.Reshape(scale, [-1, 1, count]))
    return op.Reshape(op.MatMul(share, shown), [-1, 1, *grid]), carried


def _blurred(op: Emitter, v: ir.Value, count: int, grid: Sequence[int], blur: float) -> ir.Value:
    """Blur (N, count, cells) along every axis of the grid."""
    if not any(blur * size * _REACH >= 1 for size in grid):
        return v
    apart = op.Reshape(v, [-1, count, *grid])
    for axis, size in enumerate(grid, start=2):
        if blur * size * _REACH >= 1:
            if size > _MULTIPLIED:
                apart = _averaged(op, apart, axis, size, blur * size, 2 + len(grid))
            else:
                apart = masks.along_axis(op, apart, gaussian(size, blur * size), axis, 2 + len(grid))
    return op.Reshape(apart, [-1, count, math.prod(grid)])


def _averaged(op: Emitter, v: ir.Value, axis: int, size: int, sigma: float, rank: int) -> ir.Value:
    """Multiply a long axis by `gaussian(size, sigma)`: a convolution, divided by the weights inside of the axis."""
    reach = min(int(_REACH * sigma), size - 1)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    inside = np.convolve(np.ones(size), taps)[reach : reach + size]
    order = [*(i for i in range(rank) if i != axis), axis]
    last = op.Transpose(v, perm=order)
    kernel = op.constant(taps.reshape(1, 1, -1).astype(dtype_of(v).numpy()))
    blurred = op.Conv(op.Reshape(last, [-1, 1, size]), kernel, pads=[reach, reach])
    even = op.Reshape(op.Div(blurred, inside), op.Shape(last))
    return op.Transpose(even, perm=[order.index(i) for i in range(rank)])


def gaussian(size: int, sigma: float) -> npt.NDArray[np.float64]:
    """Return a (size, size) matrix that averages neighbours with Gaussian weights; each row sums to 1."""
    apart = np.subtract.outer(np.arange(size), np.arange(size))
    weights = np.exp(-0.5 * (apart / sigma) ** 2) * (np.abs(apart) <= _REACH * sigma)
    return weights / weights.sum(axis=1, keepdims=True)
