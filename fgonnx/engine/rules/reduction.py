"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.rules.fast.blocked import spread
from fgonnx.engine.rules.fast.masks import finite, indicator, nonzero
from fgonnx.engine.rules.registry import FIX_BATCH, Local, Unsupported, rule

# slope(op, y, x, axes, count) -> dy/dx with y already of x's rank; degree k gives c = (1 - k) y.
Slope = Callable[[Emitter, ir.Value, ir.Value, list[int], float], ir.Value | float]


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
    return sorted({a % rank for a in axes})  # onnxruntime takes one that is named twice


_LONGER = "Say which axes are parts of a sample (layout), or give a larger input (input_shape)"


def _reduction(op_type: str, slope: Slope, degree: float | None, note: str, *, varies: bool = True) -> None:
    """Register a reduction; `varies` tells whether its slope has the shape of x rather than of y."""
    family = "homogeneous" if varies or degree is None else "linear"

    @rule(op_type, since=13, family=family if degree is not None else "general", note=note)
    def reduce(
        op: Emitter,
        y: ir.Value,
        x: ir.Value,
        axes: ir.Value | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Local:
        along = reduced_axes(op, x, axes, noop_with_empty_axes)
        # Sizes along the batch axis are not known before the model runs.
        sizes = [s for s in (op.dims(x)[a] for a in along) if isinstance(s, int)]
        if len(sizes) < len(along) and op_type == "ReduceMean":
            raise Unsupported("it averages over the batch", FIX_BATCH)
        count = float(math.prod(sizes))
        if not count:
            raise Unsupported("it reduces no elements: of one sample, nothing is left", _LONGER)

        def restore(v: ir.Value) -> ir.Value:
            return v if keepdims or not along else op.Unsqueeze(v, along)

        kept = restore(y)

        def vjp(g: ir.Value) -> ir.Value:
            d = slope(op, kept, x, along, count)
            scaled = restore(g) if d == 1.0 else op.Mul(restore(g), d)
            if varies:
                return scaled
            if along == [2, 3]:
                shaped(scaled, [*op.dims(x)[:2], 1, 1])
            wide = spread(op, scaled, x)
            return wide if wide is not scaled else op.Expand(scaled, _shape(op, x))

        if degree == 1.0:
            return Local(vjp)
        if degree is not None:
            return Local(vjp, op.Mul(y, 1.0 - degree), "implicit")
        # c = y - <dy/dx, x>
        inner = op.Mul(slope(op, kept, x, along, count), finite(op, x) if op_type == "ReduceLogSumExp" else x)
        return Local(vjp, op.Sub(y, op.ReduceSum(inner, along, keepdims=keepdims) if along else inner), "implicit")


def _shape(op: Emitter, x: ir.Value) -> ir.Value | list[int]:
    dims = op.dims(x)
    if all(isinstance(d, int) for d in dims):
        return [int(d) for d in dims]  # type: ignore[arg-type]
    return op.Shape(x)


def _product_slope(op: Emitter, x: ir.Value, along: list[int]) -> ir.Value | float:
    if not along:
        return 1.0
    # The product of the others: of all but the zeros, divided by x, where x is the only zero or there is none.
    zero = indicator(op, op.Equal(x, 0.0), x)
    filled = op.Add(x, zero)
    rest = op.Div(op.ReduceProd(filled, along, keepdims=1), filled)
    return op.Mul(rest, indicator(op, op.Equal(op.ReduceSum(zero, along, keepdims=1), zero), x))


_reduction("ReduceSum", lambda op, y, x, along, n: 1.0, 1.0, "c = 0 (linear)", varies=False)
_reduction("ReduceMean", lambda op, y, x, along, n: 1.0 / n, 1.0, "c = 0 (linear)", varies=False)
_reduction("ReduceL1", lambda op, y, x, along, n: op.Sign(x), 1.0, "c = 0 (degree 1)")
_reduction("ReduceL2", lambda op, y, x, along, n: op.Div(x, nonzero(op, y)), 1.0, "c = 0 (degree 1); derivative 0 at 0")
_reduction("ReduceSumSquare", lambda op, y, x, along, n: op.Add(x, x), 2.0, "c = -y (degree 2)")
_reduction("ReduceLogSum", lambda op, y, x, along, n: op.Exp(op.Neg(y)), None, "c = y - 1", varies=False)
_reduction("ReduceLogSumExp", lambda op, y, x, along, n: op.Exp(op.Sub(x, y)), None, "c = y - <softmax x, x>")
_reduction("ReduceProd", lambda op, y, x, along, n: _product_slope(op, x, along), None, "c = (1 - n) y")


def _extremum(op_type: str) -> None:
    @rule(op_type, since=13, family="homogeneous", note="c = 0 (degree 1); elements that tie share alike")
    def reduce(
        op: Emitter,
        y: ir.Value,
        x: ir.Value,
        axes: ir.Value | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Local:
        along = reduced_axes(op, x, axes, noop_with_empty_axes)
        if not along:
            return Local(lambda g: g)

        def restore(v: ir.Value) -> ir.Value:
            return v if keepdims else op.Unsqueeze(v, along)

        def vjp(g: ir.Value) -> ir.Value:
            winners = indicator(op, op.Equal(x, restore(y)), x)
            return op.Mul(restore(g), op.Div(winners, op.ReduceSum(winners, along, keepdims=1)))

        return Local(vjp)


for _op_type in ("ReduceMax", "ReduceMin"):
    _extremum(_op_type)


@rule("CumSum", since=11, family="linear", note="c = 0 (linear)")
def cumulative_sum(
    op: Emitter, y: ir.Value, x: ir.Value, axis: ir.Value, *, exclusive: int = 0, reverse: int = 0
) -> Local:
    return Local(lambda g: op.CumSum(g, axis, exclusive=exclusive, reverse=1 - reverse))


@rule("Det", since=11, family="homogeneous", note="c = (1 - n) y (degree n)")
def determinant(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    n = op.size(x, -1)

    def vjp(g: ir.Value) -> ir.Value:
        g = op.Unsqueeze(g, [-2, -1])
        if n == 1:
            return g
        # dy/dx[i, j] = (-1)^(i + j) times the minor without row i and column j: right for singular matrices too
        rest = np.array([[k for k in range(n) if k != i] for i in range(n)])
        rank = op.rank(x)
        rows = op.Gather(x, rest, axis=rank - 2)  # (..., i, n-1, n)
        both = op.Gather(rows, rest, axis=rank)  # (..., i, n-1, j, n-1)
        minors = op.Det(op.Transpose(both, perm=[*range(rank - 2), rank - 2, rank, rank - 1, rank + 1]))
        signs = (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
        return op.Mul(g, op.Mul(minors, signs))

    return Local(vjp, op.Mul(y, float(1 - n)) if n > 1 else None, "implicit")
