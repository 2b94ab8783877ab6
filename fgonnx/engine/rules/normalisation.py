"""Normalisations: BatchNormalization and its kin, LRN, LpNormalization, Softmax, LogSoftmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.fast.masks import finite
from fgonnx.engine.rules.linear import per_channel
from fgonnx.engine.rules.registry import Cotangent, Local, Unsupported, Vjp, rule


@rule("BatchNormalization", since=14, family="linear", note="c = beta - gamma mu / sqrt(var + eps); inference only")
def batch_normalization(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    scale: ir.Value,
    b: ir.Value,
    mean: ir.Value,
    var: ir.Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Local:
    if training_mode or isinstance(y, tuple):
        raise Unsupported("it is in training mode", "Export the model for inference")
    if op.is_active(mean) or op.is_active(var):
        raise Unsupported("its statistics depend on the input")
    rank = op.rank(x)
    inverse = op.Reciprocal(op.Sqrt(op.Add(var, epsilon)))
    factor = op.Mul(scale, inverse)

    def vjp(g: ir.Value) -> list[Cotangent]:
        gx = gs = gb = None
        others = [0, *range(2, rank)]
        if op.is_active(x):
            gx = op.Mul(g, per_channel(op, factor, rank))
        if op.is_active(scale):
            xhat = op.Mul(op.Sub(x, per_channel(op, mean, rank)), per_channel(op, inverse, rank))
            gs = op.ReduceSum(op.Mul(g, xhat), others, keepdims=0)
        if op.is_active(b):
            gb = op.ReduceSum(g, others, keepdims=0)
        return [gx, gs, gb]

    if not op.is_active(scale) and not op.is_active(b):
        return Local(vjp, per_channel(op, op.Sub(b, op.Mul(mean, factor)), rank), "bias")
    product = op.Mul(x, per_channel(op, factor, rank)) if op.is_active(x) else None
    return Local(vjp, _rest(op, y, per_channel(op, b, rank), product, op.is_active(scale), op.is_active(b)), "implicit")


def _rest(
    op: Emitter, y: ir.Value, shift: ir.Value | None, explained: ir.Value | None, scaled: bool, shifted: bool
) -> ir.Value:
    """Return y minus what x explains, minus y - shift where the scale is active, minus the shift where it is."""
    parts = [] if explained is None else [explained]
    if scaled:
        parts.append(y if shift is None else op.Sub(y, shift))
    if shifted and shift is not None:
        parts.append(shift)
    return op.Sub(y, parts[0] if len(parts) == 1 else op.Sum(*parts))


class _Affine(NamedTuple):
    """What follows standardising: `place` makes scale and bias broadcast to x, `collect` sums a cotangent back."""

    scale: ir.Value
    b: ir.Value | None
    place: Callable[[ir.Value], ir.Value]
    collect: Callable[[ir.Value, ir.Value], ir.Value]


def _standardise(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    affine: _Affine,
    axes: list[int],
    epsilon: float,
) -> Local:
    """Linearise y = scale xhat + b, xhat = (x - mean) / sigma and sigma^2 = var + eps over the axes."""
    scale, b, place, collect = affine
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    var = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    square = op.Add(var, epsilon)
    inverse = op.Reciprocal(op.Sqrt(square))
    xhat = op.Mul(centred, inverse)
    factor, shift = place(scale), None if b is None else place(b)

    def vjp(g: ir.Value) -> list[Cotangent]:
        gx = gs = gb = None
        if op.is_active(x):  # (h - mean(h) - xhat mean(h xhat)) / sigma with h = g scale
            h = op.Mul(g, factor)
            along = op.Mul(xhat, op.ReduceMean(op.Mul(h, xhat), axes, keepdims=1))
            gx = op.Mul(op.Sub(op.Sub(h, op.ReduceMean(h, axes, keepdims=1)), along), inverse)
        if op.is_active(scale):
            gs = collect(op.Mul(g, xhat), scale)
        if b is not None and op.is_active(b):
            gb = collect(g, b)
        return [gx, gs, gb]

    # J x = scale xhat (1 - var / sigma^2): nearly nothing
    product = y if shift is None else op.Sub(y, shift)
    if op.is_active(scale) or op.is_active(b):
        explained = op.Mul(product, op.Div(epsilon, square)) if op.is_active(x) else None
        return Local(vjp, _rest(op, y, shift, explained, op.is_active(scale), op.is_active(b)), "implicit")
    kept = op.Mul(product, op.Div(var, square))
    return Local(vjp, kept if shift is None else op.Add(shift, kept), "implicit")


@rule("InstanceNormalization", since=6, note="c = b + (y - b) var / (var + eps): nearly all of y")
def instance_normalization(
    op: Emitter, y: ir.Value, x: ir.Value, scale: ir.Value, b: ir.Value, *, epsilon: float = 1e-5
) -> Local:
    rank = op.rank(x)
    axes = list(range(2, rank))
    place, collect = lambda v: per_channel(op, v, rank), lambda g, _: op.ReduceSum(g, [0, *axes], keepdims=0)
    return _standardise(op, y, x, _Affine(scale, b, place, collect), axes, epsilon)


@rule("LayerNormalization", since=17, note="c = b + (y - b) var / (var + eps): nearly all of y")
def layer_normalization(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    scale: ir.Value,
    b: ir.Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Local:
    values, rank = y[0] if isinstance(y, tuple) else y, op.rank(x)
    axes, collect = list(range(axis % rank, rank)), lambda g, v: op.unbroadcast(g, values, v)
    local = _standardise(op, values, x, _Affine(scale, b, lambda v: v, collect), axes, epsilon)
    return Local(of_the_values(local.vjp), local.intercept, "implicit")


def of_the_values(of_all: Vjp) -> Vjp:
    """Return the vector-Jacobian product of a normalisation whose other outputs, mean and deviation, have none."""

    def vjp(g: ir.Value | None, *others: ir.Value | None) -> Cotangent | Sequence[Cotangent]:
        if g is None or any(o is not None for o in others):
            raise Unsupported("its mean or standard deviation is used on the path")
        return of_all(g)

    return vjp


@rule("LRN", note="c = 2 beta y (1 - bias / S), S = bias + alpha / size sum x^2")
def lrn(
    op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Local:
    channels, rank = op.size(x, 1), op.rank(x)
    # window[c, c'] = 1 where channel c' enters the sum of channel c: c - floor((size-1)/2) ... c + ceil((size-1)/2)
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    window = (offset >= -((size - 1) // 2)) & (offset <= -(-(size - 1) // 2))
    kernel = window.astype(dtype_of(x).numpy()).reshape(channels, channels, *([1] * (rank - 2)))
    transposed = np.ascontiguousarray(np.swapaxes(kernel, 0, 1))
    s = op.Add(op.Mul(op.Conv(op.Mul(x, x), kernel), alpha / size), bias)

    def vjp(g: ir.Value) -> ir.Value:
        # dy_c/dx_j = S_c^-beta [c = j] - 2 alpha beta / size x_j y_c / S_c [j in window of c]
        direct = op.Mul(g, op.Pow(s, -beta))
        indirect = op.Mul(x, op.Conv(op.Div(op.Mul(g, y), s), transposed))
        return op.Sub(direct, op.Mul(indirect, 2.0 * alpha * beta / size))

    return Local(vjp, op.Mul(op.Mul(y, 2.0 * beta), op.Sub(1.0, op.Div(bias, s))), "implicit")


@rule("LpNormalization", family="homogeneous", note="degree 0: c = y")
def lp_normalization(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1, p: int = 2) -> Local:
    if p == 1:
        norm, slope = op.ReduceSum(op.Abs(x), [axis], keepdims=1), op.Sign(x)
    else:
        norm, slope = op.Sqrt(op.ReduceSum(op.Mul(x, x), [axis], keepdims=1)), y

    def vjp(g: ir.Value) -> ir.Value:
        # (g - n'(x) <g, y>) / n
        along = op.ReduceSum(op.Mul(g, y), [axis], keepdims=1)
        return op.Div(op.Sub(g, op.Mul(slope, along)), masks.nonzero(op, norm))

    return Local(vjp, y, "implicit")


def _repaired(v: ir.Value) -> bool:
    """Tell whether the model itself replaces entries of a value, such as NaN."""
    return any(
        node.op_type in ("IsNaN", "Where") or (node.op_type in ("Cast", "Identity") and _repaired(node.outputs[0]))
        for node in v.consumers()
    )


@rule("Softmax", since=13, note="c = y - y (x - <x, y>)")
def softmax(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1) -> Local:
    if _repaired(y):  # a fully masked row is NaN, and 0 times NaN must not be propagated
        y = op.Where(op.IsNaN(y), 0.0, y)

    def jacobian(v: ir.Value) -> ir.Value:
        # symmetric: serves for the VJP and for J x
        return op.Mul(y, op.Sub(v, op.ReduceSum(op.Mul(v, y), [axis], keepdims=1)))

    return Local(jacobian, op.Sub(y, jacobian(finite(op, x))), "implicit")


@rule("LogSoftmax", since=13, note="c = y - x + <x, softmax x>")
def log_softmax(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1) -> Local:
    p = op.Exp(y)

    def vjp(g: ir.Value) -> ir.Value:
        return op.Sub(g, op.Mul(p, op.ReduceSum(g, [axis], keepdims=1)))

    logits = finite(op, x)
    expected = op.ReduceSum(op.Mul(p, logits), [axis], keepdims=1)
    return Local(vjp, op.Add(op.Sub(finite(op, y), logits), expected), "implicit")
