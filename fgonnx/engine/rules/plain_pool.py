"""Portable form of MaxPool's gradient: cells compared with their maximum, without the pool's indices.

Few runtimes have the second output of MaxPool, or scatter with a sum. A pool over several axes is a pool along the
last one, then along the one before it, and so on; its cotangent is taken back through these one axis at a time. Of
equal maxima the first in row-major order gets it, as it would by the indices.

Index algebra along one axis: tap t of window w is cell s w + d t - begin. With d t = s m + r, tap t of window w is
the cell w + m of the r-th phase, the cells s i + r of the padded axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import dtype_of, shaped
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.fast.max_pool import Pool1D


@dataclass(frozen=True)
class _Along:
    """A pool along one axis of a value of some rank.

    Attributes
    ----------
    pool : Pool1D
        Its geometry.
    gap : int
        Distance between taps.
    axis, rank : int
        The axis, and the number of axes of the value.
    """

    pool: Pool1D
    gap: int
    axis: int
    rank: int

    def pads(self, before: int, behind: int) -> list[int]:
        """Return the operand of Pad that adds cells along the axis; negative numbers drop cells."""
        found = [0] * (2 * self.rank)
        found[self.axis], found[self.axis + self.rank] = before, behind
        return found


def undo_max_pool(
    op: Emitter, g: ir.Value, y: ir.Value, x: ir.Value, pools: Sequence[Pool1D], gaps: Sequence[int]
) -> ir.Value:
    """Route the cotangent of a max pool `y` of `x` to the first maximum of every window."""
    rank = op.rank(x)
    along = [_Along(p, d, 2 + i, rank) for i, (p, d) in enumerate(zip(pools, gaps, strict=True))]
    along = [a for a in along if (a.pool.kernel, a.pool.stride, a.pool.size_in) != (1, 1, a.pool.size_out)]
    stages = [x]
    for a in reversed(along[1:]):
        stages.append(_pooled(op, stages[-1], a))
    stages.append(y)
    for a in along:
        narrow, wide = stages.pop(), stages[-1]
        g = _undo(op, g, narrow, wide, a)
    if math.prod(p.size_out for p in pools) < math.prod(p.size_in for p in pools):
        op.recipes[g] = Recipe(has_zero=True, primal=x)
    return g


def _pooled(op: Emitter, v: ir.Value, a: _Along) -> ir.Value:
    """Pool along one axis alone."""
    spatial, at = a.rank - 2, a.axis - 2
    dims = list(op.dims(v))
    dims[a.axis] = a.pool.size_out

    def each(value: int, other: int) -> list[int]:
        return [value if i == at else other for i in range(spatial)]

    behind = (a.pool.size_out - 1) * a.pool.stride + a.gap * (a.pool.kernel - 1) + 1 - a.pool.begin - a.pool.size_in
    pooled = op.MaxPool(
        v,
        kernel_shape=each(a.pool.kernel, 1),
        strides=each(a.pool.stride, 1),
        dilations=each(a.gap, 1) if a.gap > 1 else None,
        pads=[*each(a.pool.begin, 0), *each(max(behind, 0), 0)],
    )
    return shaped(pooled, dims)


def _undo(op: Emitter, g: ir.Value, narrow: ir.Value, wide: ir.Value, a: _Along) -> ir.Value:
    """Route the cotangent of `narrow`, the pool of `wide` along one axis."""
    pool, count = a.pool, a.pool.size_out
    length = (count - 1) * pool.stride + a.gap * (pool.kernel - 1) + 1
    behind = length - pool.begin - pool.size_in
    lowest = float(np.finfo(np.float32 if dtype_of(wide).bitwidth >= 32 else np.float16).min)
    padded = op.Pad(wide, a.pads(pool.begin, max(behind, 0)), lowest) if pool.begin or behind > 0 else wide
    # Each tap in turn takes the cotangent where it is the maximum and leaves the rest; the last takes what remains.
    phases: dict[int, list[tuple[int, ir.Value]]] = {}
    rest = g
    for t in range(pool.kernel):
        share = rest
        if t < pool.kernel - 1:
            first = a.gap * t
            cells = op.Slice(padded, [first], [first + pool.stride * (count - 1) + 1], [a.axis], [pool.stride])
            share = op.Mul(rest, masks.indicator(op, op.Equal(cells, narrow), wide))
            rest = op.Sub(rest, share)
        m, r = divmod(a.gap * t, pool.stride)
        phases.setdefault(r, []).append((m, share))
    longest = max(m for found in phases.values() for m, _ in found)
    lines = []
    for r in range(pool.stride):
        shares = phases.get(r, [(0, op.Mul(rest, 0.0))])
        moved = [op.Pad(share, a.pads(m, longest - m), 0.0) if longest else share for m, share in shares]
        lines.append(moved[0] if len(moved) == 1 else op.Sum(*moved))
    whole = _interleaved(op, lines, count + longest, wide, a)
    # The cells of the padded axis from `begin` on are those of the axis.
    size, end = pool.stride * (count + longest), pool.begin + pool.size_in
    if end > size:
        whole = op.Pad(whole, a.pads(0, end - size), 0.0)
    if pool.begin or size > end:
        whole = op.Slice(whole, [pool.begin], [end], [a.axis])
    return shaped(whole, wide)


def _interleaved(op: Emitter, lines: Sequence[ir.Value], cells: int, like: ir.Value, a: _Along) -> ir.Value:
    """Interleave phases: cell s i + r of the result is cell i of phase r. `like` has the sizes of the axes behind."""
    if len(lines) == 1:
        return lines[0]
    stacked = op.Concat(*(op.Unsqueeze(v, [a.axis + 1]) for v in lines), axis=a.axis + 1)
    behind = [op.size(like, i) for i in range(a.axis + 1, a.rank)]
    return op.Reshape(stacked, [*([0] * a.axis), cells * len(lines), *behind])  # 0 copies the size
