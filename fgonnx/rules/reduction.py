"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fgonnx.emit import Emitter
from fgonnx.rules.registry import Local, Unsupported, rule

# slope(op, y, x, count) -> dy/dx with y already of x's rank; degree k gives c = (1 - k) y.
Slope = Callable[[Emitter, ir.Value, ir.Value, float], ir.Value | float]


def reduced_axes(op: Emitter, x: ir.Value, axes: ir.Value | list[int] | None, noop_with_empty_axes: int) -> list[int]:
    """Return the axes that a reduction runs over, non-negative."""
    rank = op.rank(x)
    if isinstance(axes, ir.Value):
        array = op.array(axes)
        if array is None:
            raise Unsupported("its axes are not constant")
        axes = [int(a) for a in array.reshape(-1)]
    if not axes:
        return [] if noop_with_empty_axes else list(range(rank))
    return sorted(a % rank for a in axes)


def _reduction(op_type: str, slope: Slope, degree: float | None, note: str) -> None:
    @rule(op_type, since=1, note=note)
    def reduce(
        op: Emitter, y: ir.Value, x: ir.Value, axes: ir.Value | None = None, *, keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Local:  # fmt: skip
        along = reduced_axes(op, x, axes, noop_with_empty_axes)
        # Sizes along the batch axis are not known before the model runs.
        sizes = [op.dims(x)[a] for a in along]
        count = (
            float(np.prod([s for s in sizes if isinstance(s, int)])) if all(isinstance(s, int) for s in sizes) else 0.0
        )
        if not count and op_type == "ReduceMean":
            raise Unsupported("it averages over the batch", "Fix the batch size to 1")

        def restore(v: ir.Value) -> ir.Value:
            return v if keepdims or not along else op.Unsqueeze(v, along)

        kept = restore(y)

        def vjp(g: ir.Value) -> ir.Value:
            d = slope(op, kept, x, count)
            if isinstance(d, ir.Value):
                return op.Mul(restore(g), d)
            spread = op.Expand(restore(g), _shape(op, x))
            return spread if d == 1.0 else op.Mul(spread, d)

        if degree == 1.0:
            return Local(vjp)
        if degree is not None:
            return Local(vjp, op.Mul(y, 1.0 - degree), "implicit")
        # c = y - <dy/dx, x>
        d = slope(op, kept, x, count)
        inner = op.Mul(d, x)
        return Local(vjp, op.Sub(y, op.ReduceSum(inner, along, keepdims=keepdims) if along else inner), "implicit")


def _shape(op: Emitter, x: ir.Value) -> ir.Value | list[int]:
    dims = op.dims(x)
    if all(isinstance(d, int) for d in dims):
        return [int(d) for d in dims]  # type: ignore[arg-type]
    return op.Shape(x)


def _extreme(op: Emitter, y: ir.Value, x: ir.Value, count: float) -> ir.Value:
    assert x.dtype is not None
    return op.Cast(op.Equal(x, y), to=x.dtype.value)


_reduction("ReduceSum", lambda op, y, x, n: 1.0, 1.0, "c = 0 (linear)")
_reduction("ReduceMean", lambda op, y, x, n: 1.0 / n, 1.0, "c = 0 (linear)")
_reduction("ReduceL1", lambda op, y, x, n: op.Sign(x), 1.0, "c = 0 (degree 1)")
_reduction("ReduceL2", lambda op, y, x, n: op.Div(x, y), 1.0, "c = 0 (degree 1)")
_reduction("ReduceSumSquare", lambda op, y, x, n: op.Add(x, x), 2.0, "c = -y (degree 2)")
_reduction("ReduceLogSum", lambda op, y, x, n: op.Exp(op.Neg(y)), None, "c = y - 1")
_reduction("ReduceLogSumExp", lambda op, y, x, n: op.Exp(op.Sub(x, y)), None, "c = y - <softmax x, x>")


def _extremum(op_type: str) -> None:
    @rule(op_type, family="homogeneous", note="c = 0 (degree 1); equal elements share the cotangent")
    def reduce(
        op: Emitter, y: ir.Value, x: ir.Value, axes: ir.Value | None = None, *, keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Local:  # fmt: skip
        along = reduced_axes(op, x, axes, noop_with_empty_axes)
        if not along:
            return Local(lambda g: g)

        def restore(v: ir.Value) -> ir.Value:
            return v if keepdims else op.Unsqueeze(v, along)

        def vjp(g: ir.Value) -> ir.Value:
            winners = _extreme(op, restore(y), x, 0.0)
            return op.Mul(restore(g), op.Div(winners, op.ReduceSum(winners, along, keepdims=1)))

        return Local(vjp)


for _op_type in ("ReduceMax", "ReduceMin"):
    _extremum(_op_type)
