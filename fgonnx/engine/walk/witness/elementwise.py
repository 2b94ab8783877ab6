"""Lowerings of elementwise functions; see operators.py."""

from __future__ import annotations

import math

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.registry import Unsupported
from fgonnx.engine.walk.witness.operators import WAY_OUT


def hard_sigmoid(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 0.2, beta: float = 0.5) -> ir.Value:
    """max(0, min(1, alpha x + beta))."""
    return op.Clip(op.Add(op.Mul(x, alpha), beta), 0.0, 1.0)


def hard_swish(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """x HardSigmoid(x)."""
    return op.Mul(x, hard_sigmoid(op, y, x, alpha=1 / 6))


def clip(op: Emitter, y: ir.Value, x: ir.Value, low: ir.Value | None = None, high: ir.Value | None = None) -> ir.Value:
    """x between the bounds, else 0: the builder's own gradient is 1 at the bounds, unlike that of the rules."""
    inside = [op.Greater(x, low)] if low is not None else []
    inside += [op.Less(x, high)] if high is not None else []
    for condition in inside:
        x = op.Mul(x, masks.indicator(op, condition, x))
    return op.Identity(x)


def prelu(op: Emitter, y: ir.Value, x: ir.Value, slope: ir.Value) -> ir.Value:
    """relu(x) - slope relu(-x)."""
    return op.Sub(op.Relu(x), op.Mul(slope, op.Relu(op.Neg(x))))


def _negative_exponential(op: Emitter, x: ir.Value) -> ir.Value:
    """exp(min(x, 0)) - 1."""
    return op.Sub(op.Exp(op.Neg(op.Relu(op.Neg(x)))), 1.0)


def elu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    """relu(x) + alpha (exp(min(x, 0)) - 1)."""
    return op.Add(op.Relu(x), op.Mul(_negative_exponential(op, x), alpha))


def selu(
    op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> ir.Value:
    """gamma Elu(x)."""
    return op.Mul(elu(op, y, x, alpha=alpha), gamma)


def celu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    """relu(x) + alpha (exp(min(x / alpha, 0)) - 1)."""
    return op.Add(op.Relu(x), op.Mul(_negative_exponential(op, op.Div(x, alpha)), alpha))


def softplus(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """relu(x) + log(1 + exp(-|x|)), which does not overflow."""
    return op.Add(op.Relu(x), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1.0)))


def mish(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """x tanh(softplus(x))."""
    return op.Mul(x, op.Tanh(softplus(op, y, x)))


def softsign(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    """x / (1 + |x|)."""
    return op.Div(x, op.Add(op.Abs(x), 1.0))


def thresholded_relu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    """x where it is above alpha."""
    return op.Mul(x, masks.indicator(op, op.Greater(x, alpha), x))


def gelu(op: Emitter, y: ir.Value, x: ir.Value, *, approximate: str = "none") -> ir.Value:
    """x Phi(x), or its approximation by a hyperbolic tangent."""
    if approximate == "tanh":
        inner = op.Mul(op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044715)), math.sqrt(2 / math.pi))
        return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0))


def leaky_relu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 0.01) -> ir.Value:
    """Unchanged for alpha >= 0: the builder takes the sign of the input from the result."""
    if alpha < 0:
        raise Unsupported("its alpha is negative", WAY_OUT)
    return op.LeakyRelu(x, alpha=alpha)
