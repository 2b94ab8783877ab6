"""Normalisations: BatchNormalization, InstanceNormalization, LayerNormalization, LRN, LpNormalization, Softmax, LogSoftmax."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fgonnx.emit import Emitter
from fgonnx.rules.linear import per_channel
from fgonnx.rules.registry import Cotangent, Local, Unsupported, rule


@rule("BatchNormalization", since=1, family="linear", note="c = beta - gamma mu / sqrt(var + eps); inference only")
def batch_normalization(
    op: Emitter, y: ir.Value | tuple[ir.Value, ...], x: ir.Value, scale: ir.Value, b: ir.Value, mean: ir.Value,
    var: ir.Value, *, epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0, spatial: int = 1,
) -> Local:  # fmt: skip
    if training_mode or (isinstance(y, tuple) and len([v for v in y if v is not None]) > 1):
        raise Unsupported("it is in training mode", "Export the model for inference")
    if any(op.is_active(v) for v in (scale, b, mean, var)):
        raise Unsupported("its parameters depend on the input")
    factor = op.Div(scale, op.Sqrt(op.Add(var, epsilon)))
    intercept = op.Sub(b, op.Mul(mean, factor))
    rank = op.rank(x)
    return Local(lambda g, *_: op.Mul(g, per_channel(op, factor, rank)), per_channel(op, intercept, rank), "bias")


def _standardised(op: Emitter, x: ir.Value, axes: list[int], epsilon: float) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return xhat = (x - mean) / sigma, 1 / sigma, and var / sigma^2, sigma^2 = var + eps, over the axes."""
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    var = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    square = op.Add(var, epsilon)
    inverse = op.Reciprocal(op.Sqrt(square))
    return op.Mul(centred, inverse), inverse, op.Div(var, square)


def _standardise_vjp(op: Emitter, g: ir.Value, xhat: ir.Value, inverse: ir.Value, axes: list[int]) -> ir.Value:
    # (g - mean(g) - xhat mean(g xhat)) / sigma
    along = op.Mul(xhat, op.ReduceMean(op.Mul(g, xhat), axes, keepdims=1))
    return op.Mul(op.Sub(op.Sub(g, op.ReduceMean(g, axes, keepdims=1)), along), inverse)


@rule("InstanceNormalization", note="c = b + (y - b) var / (var + eps): nearly all of y")
def instance_normalization(
    op: Emitter, y: ir.Value, x: ir.Value, scale: ir.Value, b: ir.Value, *, epsilon: float = 1e-5
) -> Local:
    if op.is_active(scale) or op.is_active(b):
        raise Unsupported("its scale or bias depends on the input")
    rank = op.rank(x)
    axes = list(range(2, rank))
    xhat, inverse, share = _standardised(op, x, axes, epsilon)
    shift, factor = per_channel(op, b, rank), per_channel(op, scale, rank)

    def vjp(g: ir.Value) -> list[Cotangent]:
        return [_standardise_vjp(op, op.Mul(g, factor), xhat, inverse, axes), None, None]

    return Local(vjp, op.Add(shift, op.Mul(op.Sub(y, shift), share)), "implicit")


@rule("LayerNormalization", since=17, note="c = b + (y - b) var / (var + eps): nearly all of y")
def layer_normalization(
    op: Emitter, y: ir.Value | tuple[ir.Value, ...], x: ir.Value, scale: ir.Value, b: ir.Value | None = None, *,
    axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1,
) -> Local:  # fmt: skip
    if op.is_active(scale) or op.is_active(b):
        raise Unsupported("its scale or bias depends on the input")
    values = y[0] if isinstance(y, tuple) else y
    rank = op.rank(x)
    axes = list(range(axis % rank, rank))
    xhat, inverse, share = _standardised(op, x, axes, epsilon)

    def vjp(g: ir.Value, *others: ir.Value | None) -> list[Cotangent]:
        if any(o is not None for o in others):
            raise Unsupported("its mean or standard deviation is used on the path")
        return [_standardise_vjp(op, op.Mul(g, scale), xhat, inverse, axes), None, None]

    if b is None:
        return Local(vjp, op.Mul(values, share), "implicit")
    return Local(vjp, op.Add(b, op.Mul(op.Sub(values, b), share)), "implicit")


@rule("LRN", note="c = 2 beta y (1 - bias / S), S = bias + alpha / size sum x^2")
def lrn(
    op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Local:
    channels, rank = op.size(x, 1), op.rank(x)
    # window[c, c'] = 1 where channel c' enters the sum of channel c: c - floor((size-1)/2) ... c + ceil((size-1)/2)
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    window = (offset >= -((size - 1) // 2)) & (offset <= -(-(size - 1) // 2))
    assert x.dtype is not None
    kernel = window.astype(x.dtype.numpy()).reshape(channels, channels, *([1] * (rank - 2)))
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
    absolute = op.Abs(x)
    if p == 1:
        norm, slope = op.ReduceSum(absolute, [axis], keepdims=1), op.Sign(x)
    elif p == 2:
        norm, slope = op.Sqrt(op.ReduceSum(op.Mul(x, x), [axis], keepdims=1)), y
    else:
        raise Unsupported(f"its norm p = {p} is not built", "Use p = 1 or 2")

    def vjp(g: ir.Value) -> ir.Value:
        # (g - n'(x) <g, y>) / n
        along = op.ReduceSum(op.Mul(g, y), [axis], keepdims=1)
        return op.Div(op.Sub(g, op.Mul(slope, along)), norm)

    return Local(vjp, y, "implicit")


@rule("Softmax", since=13, note="c = y - y (x - <x, y>)")
def softmax(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1) -> Local:
    def jacobian(v: ir.Value) -> ir.Value:
        # symmetric: serves for the VJP and for J x
        return op.Mul(y, op.Sub(v, op.ReduceSum(op.Mul(v, y), [axis], keepdims=1)))

    return Local(jacobian, op.Sub(y, jacobian(x)), "implicit")


@rule("LogSoftmax", since=13, note="c = y - x + <x, softmax x>")
def log_softmax(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1) -> Local:
    p = op.Exp(y)

    def vjp(g: ir.Value) -> ir.Value:
        return op.Sub(g, op.Mul(p, op.ReduceSum(g, [axis], keepdims=1)))

    expected = op.ReduceSum(op.Mul(p, x), [axis], keepdims=1)
    return Local(vjp, op.Add(op.Sub(y, x), expected), "implicit")
