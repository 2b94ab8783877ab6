"""Elementwise functions of one value: activations and the mathematical functions, one expression of dy/dx each."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import dtype_of, shaped
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.rules.registry import Cotangent, Local, Unsupported, Vjp, elementwise, homogeneous, linear, rule

# Degree 1 in x: no intercept. The derivative at a kink is the one of the left side, as in torch (Relu'(0) = 0).


@rule("Relu", family="homogeneous", note="c = 0; Relu'(0) = 0")
def relu(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    def vjp(g: ir.Value) -> ir.Value:
        recipe = op.recipe(g, y)
        if recipe is not None and recipe.gated is not None:
            return recipe.gated()
        gated = op.Mul(g, masks.positive(op, y))
        known = op.recipes.get(g, Recipe())
        entry = known.entry
        if entry is not None and entry.values is not None:
            seen = op.Unsqueeze(op.GatherND(y, op.Unsqueeze(entry.index, [1]), batch_dims=1), [1])
            entry = replace(entry, values=op.Mul(entry.values, masks.positive(op, seen)))
        op.recipes[gated] = Recipe(entry=entry, has_zero=known.has_zero)
        return gated

    return Local(vjp)


@homogeneous("LeakyRelu", note="c = 0; derivative alpha at 0")
def leaky_relu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 0.01) -> ir.Value:
    return op.Add(op.Mul(masks.positive(op, x), 1.0 - alpha), alpha)


@rule("PRelu", family="homogeneous", note="c = 0, with an active slope minus its part; derivative the slope at 0")
def prelu(op: Emitter, y: ir.Value, x: ir.Value, slope: ir.Value) -> Local:
    mask = masks.positive(op, x)
    # the slope, which broadcasts to x, multiplies min(x, 0)
    bent = op.Sub(x, op.Mul(mask, x)) if op.is_active(slope) else x

    def vjp(g: ir.Value) -> list[Cotangent]:
        gx = gs = None
        if op.is_active(x):  # slope + mask (1 - slope)
            gx = op.Mul(g, op.Add(op.Mul(mask, op.Sub(1.0, slope)), slope))
        if op.is_active(slope):
            gs = op.unbroadcast(op.Mul(g, bent), y, slope)
        return [gx, gs]

    if not op.is_active(slope):
        return Local(vjp)
    part = op.Mul(bent, slope)
    return Local(vjp, op.Neg(part) if op.is_active(x) else op.Sub(y, part), "implicit")


@homogeneous("Abs", note="c = 0; derivative 0 at 0")
def absolute(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Sign(x)


@linear("Neg")
def neg(op: Emitter, y: ir.Value, x: ir.Value) -> Vjp:
    return lambda g: op.Neg(g)


# Piecewise linear with saturation.


@rule("Clip", family="elementwise", note="c = y where saturated; derivative 0 at the bounds")
def clip(op: Emitter, y: ir.Value, x: ir.Value, low: ir.Value | None = None, high: ir.Value | None = None) -> Local:
    if op.is_active(low) or op.is_active(high):
        raise Unsupported("its bounds depend on the input", "Replace it by Min and Max")
    top = op.array(high)
    if top is not None and top.size == 1 and low is not None and (zero := op.array(low)) is not None and not zero.any():
        # 0 <= y <= top: the intercept is the bound wherever it is reached. The cotangent where y > 0 is split into the
        # part at the bound and the part that is passed on.
        reached = masks.reaches(op, y, float(top))

        @cache
        def halves(g: ir.Value) -> tuple[ir.Value, ir.Value]:
            alive = shaped(op.Mul(g, masks.positive(op, y)), y)
            return alive, op.Mul(alive, reached)

        return Local(
            lambda g: masks.minus(op, *halves(g)),
            op.Mul(reached, float(top)),
            "implicit",
            lambda g: op.Mul(halves(g)[1], float(top)),
        )
    mask: ir.Value | None = None
    for bound, side in ((low, "low"), (high, "high")):
        if bound is None:
            continue
        value = op.array(bound)
        inside = _inside(op, y, x, bound, None if value is None else float(value.reshape(-1)[0]), side)
        mask = inside if mask is None else op.Mul(mask, inside)
    if mask is None:
        return Local(lambda g: g)
    return Local(lambda g: op.Mul(g, mask), op.Sub(y, op.Mul(y, mask)), "implicit")


def _inside(op: Emitter, y: ir.Value, x: ir.Value, bound: ir.Value, value: float | None, side: str) -> ir.Value:
    """1 where x is strictly inside of a bound; computed from y if the bound is a constant."""
    if side == "low" and value == 0.0:
        return masks.positive(op, y)
    if side == "high" and value is not None:
        return masks.below(op, y, value)
    return masks.indicator(op, op.Greater(x, bound) if side == "low" else op.Less(x, bound), x)


@elementwise("HardSigmoid", note="c = y - d x; derivative 0 at the bounds")
def hard_sigmoid(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 0.2, beta: float = 0.5) -> ir.Value:
    return op.Mul(op.Mul(masks.positive(op, y), masks.below(op, y, 1.0)), alpha)


@elementwise("HardSwish")
def hard_swish(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    # x h(x), h = clip(x/6 + 1/2): h + x h'
    gate = op.HardSigmoid(x, alpha=1.0 / 6.0, beta=0.5)
    inner = op.Mul(masks.positive(op, gate), masks.below(op, gate, 1.0))
    return op.Add(gate, op.Mul(op.Mul(x, 1.0 / 6.0), inner))


@homogeneous("ThresholdedRelu", note="c = 0 on each side; derivative 0 at the threshold")
def thresholded_relu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    return masks.indicator(op, op.Greater(x, alpha), x)


@elementwise("Shrink")
def shrink(op: Emitter, y: ir.Value, x: ir.Value, *, bias: float = 0.0, lambd: float = 0.5) -> ir.Value:
    return masks.indicator(op, op.Greater(op.Abs(x), lambd), x)


# Smooth activations.


@rule("Sigmoid", family="elementwise", note="c = y - h'(x) x")
def sigmoid(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    # h' = y (1 - y). With p = g y, which the rule of a gate's Mul provides, g h' = p (1 - y) and g c = p - g h' x.
    rest = masks.complement(op, y)
    derivative = op.Mul(y, rest)

    def times_primal(g: ir.Value) -> ir.Value | None:
        recipe = op.recipe(g, y)
        return None if recipe is None else recipe.times_primal

    @cache
    def vjp(g: ir.Value) -> ir.Value:
        p = times_primal(g)
        return op.Mul(g, derivative) if p is None else op.Mul(p, rest)

    def product(g: ir.Value) -> ir.Value | None:
        p = times_primal(g)
        return None if p is None else masks.minus(op, p, op.Mul(vjp(g), x))

    return Local(vjp, op.Sub(y, op.Mul(derivative, x)), "implicit", product)


@elementwise("Tanh")
def tanh(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Sub(1.0, op.Mul(y, y))


@elementwise("Elu", note="c = y - d x; derivative alpha at 0")
def elu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    # x <= 0: alpha exp(x) = y + alpha, which is also right at 0
    return op.Where(op.Greater(x, 0.0), 1.0, op.Add(y, alpha))


@elementwise("Selu")
def selu(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    *,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
) -> ir.Value:
    return op.Where(op.Greater(x, 0.0), gamma, op.Add(y, gamma * alpha))


@elementwise("Celu")
def celu(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    return op.Where(op.Greater(x, 0.0), 1.0, op.Exp(op.Min(op.Div(x, alpha), 0.0)))


@elementwise("Softplus")
def softplus(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Sigmoid(x)


@elementwise("Softsign")
def softsign(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    root = op.Sub(1.0, op.Abs(y))
    return op.Mul(root, root)


@elementwise("Gelu")
def gelu(op: Emitter, y: ir.Value, x: ir.Value, *, approximate: str = "none") -> ir.Value:
    if approximate == "tanh":
        # u = k (x + a x^3); d = (1 + tanh u)/2 + x (1 - tanh^2 u) u'/2
        k, a = math.sqrt(2.0 / math.pi), 0.044715
        square = op.Mul(x, x)
        t = op.Tanh(op.Mul(op.Mul(x, k), op.Add(op.Mul(square, a), 1.0)))
        slope = op.Mul(op.Add(op.Mul(square, 3.0 * a), 1.0), 0.5 * k)
        return op.Add(op.Mul(op.Add(t, 1.0), 0.5), op.Mul(op.Mul(x, op.Sub(1.0, op.Mul(t, t))), slope))
    cdf = op.Mul(op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0), 0.5)
    pdf = op.Mul(op.Exp(op.Mul(op.Mul(x, x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return op.Add(cdf, op.Mul(x, pdf))


@elementwise("Mish")
def mish(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    t = op.Tanh(op.Softplus(x))
    return op.Add(t, op.Mul(op.Mul(x, op.Sigmoid(x)), op.Sub(1.0, op.Mul(t, t))))


@elementwise("Swish")
def swish(op: Emitter, y: ir.Value, x: ir.Value, *, alpha: float = 1.0) -> ir.Value:
    # y = x s(alpha x): s + alpha x s (1 - s) = s + alpha y (1 - s)
    s = op.Sigmoid(x if alpha == 1.0 else op.Mul(x, alpha))
    return op.Add(s, op.Mul(op.Mul(y, op.Sub(1.0, s)), alpha))


# Mathematical functions.


@elementwise("Erf")
def erf(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Mul(op.Exp(op.Neg(op.Mul(x, x))), 2.0 / math.sqrt(math.pi))


@elementwise("Exp")
def exp(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return y


@elementwise("Log")
def log(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Reciprocal(x)


@rule("Sqrt", family="homogeneous", note="c = y / 2 (degree 1/2); derivative infinite at 0")
def sqrt(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    return Local(lambda g: op.Div(op.Mul(g, 0.5), y), op.Mul(y, 0.5), "implicit")


@rule("Reciprocal", family="homogeneous", note="c = 2 y (degree -1)")
def reciprocal(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
    return Local(lambda g: op.Neg(op.Mul(g, op.Mul(y, y))), op.Add(y, y), "implicit")


@elementwise("Sin")
def sin(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Cos(x)


@elementwise("Cos")
def cos(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Neg(op.Sin(x))


@elementwise("Tan")
def tan(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Add(op.Mul(y, y), 1.0)


@elementwise("Sinh")
def sinh(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Cosh(x)


@elementwise("Cosh")
def cosh(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Sinh(x)


@elementwise("Asin")
def asin(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Reciprocal(op.Sqrt(op.Sub(1.0, op.Mul(x, x))))


@elementwise("Acos")
def acos(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Neg(asin(op, y, x))


@elementwise("Atan")
def atan(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Reciprocal(op.Add(op.Mul(x, x), 1.0))


@elementwise("Asinh")
def asinh(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Reciprocal(op.Sqrt(op.Add(op.Mul(x, x), 1.0)))


@elementwise("Acosh")
def acosh(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Reciprocal(op.Sqrt(op.Sub(op.Mul(x, x), 1.0)))


@elementwise("Atanh")
def atanh(op: Emitter, y: ir.Value, x: ir.Value) -> ir.Value:
    return op.Reciprocal(op.Sub(1.0, op.Mul(x, x)))


# Piecewise constant: no cotangent, the whole value is intercept.


def _constant_pieces(op_type: str) -> None:
    @rule(op_type, family="elementwise", note="derivative 0 everywhere, c = y")
    def step(op: Emitter, y: ir.Value, x: ir.Value) -> Local:
        return Local(lambda g: [None], y, "implicit")


for _op_type in ("Floor", "Ceil", "Round", "Sign"):
    _constant_pieces(_op_type)


@rule("Hardmax", since=13, family="elementwise", note="derivative 0 everywhere, c = y")
def hardmax(op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1) -> Local:
    return Local(lambda g: [None], y, "implicit")


# saturate and round_mode apply to 8-bit and smaller types alone, which have no cotangent.


def _casting(op_type: str) -> None:
    @rule(op_type, family="linear", note="c = 0 between floating-point types of 16 bits and more")
    def cast(
        op: Emitter,
        y: ir.Value,
        x: ir.Value,
        like: ir.Value | None = None,
        *,
        to: int = 0,
        saturate: int = 1,
        round_mode: str = "up",
    ) -> Local:
        source = dtype_of(x).value
        return Local(lambda g: op.Cast(g, to=source))


for _op_type in ("Cast", "CastLike"):
    _casting(_op_type)


@linear("Identity")
def identity(op: Emitter, y: ir.Value, x: ir.Value) -> Vjp:
    return lambda g: g


@rule("Dropout", family="linear", note="inference only: the identity")
def dropout(
    op: Emitter,
    y: ir.Value | tuple[ir.Value, ...],
    x: ir.Value,
    ratio: ir.Value | None = None,
    training_mode: ir.Value | None = None,
    *,
    seed: int = 0,
) -> Local:
    training = op.array(training_mode)
    if training_mode is not None and (training is None or bool(np.any(training))):
        raise Unsupported("it is in training mode", "Export the model for inference")
    return Local(lambda g, *_: g)
