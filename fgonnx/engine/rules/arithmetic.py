"""Arithmetic with broadcasting: Add, Sub, Mul, Div, Pow, Sum, Mean, Max, Min, Where."""

from __future__ import annotations

from functools import cache

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter, Recipe
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.rules.fast.blocked import spread
from fgonnx.engine.rules.fast.masks import finite, indicator, nonzero, summed
from fgonnx.engine.rules.registry import Cotangent, Local, Unsupported, rule


@rule("Add", note="c = the constant operand; 0 where both are active")
def add(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        return [op.unbroadcast(g, y, v) if op.is_active(v) else None for v in (a, b)]

    constant = [v for v in (a, b) if not op.is_active(v)]
    return Local(vjp, finite(op, constant[0]) if constant else None)


@rule("Sub", note="c = the constant operand; 0 where both are active")
def sub(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        return [
            op.unbroadcast(g, y, a) if op.is_active(a) else None,
            op.unbroadcast(op.Neg(g), y, b) if op.is_active(b) else None,
        ]

    if op.is_active(a) and op.is_active(b):
        return Local(vjp)
    return Local(vjp, op.Neg(finite(op, b)) if op.is_active(a) else finite(op, a))


@rule("Mul", note="c = 0 with a constant factor, -y with two active ones")
def mul(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local:
    whole = [v for v in (a, b) if op.is_active(v) and op.dims(v) == op.dims(y)]
    # y = a b: the cotangents are g b and g a, and c = -y with two active factors. A sigmoid comes last: its rule needs
    # g y alone, so that its own cotangent may never be written.
    whole.sort(key=lambda v: (node := v.producer()) is not None and node.op_type == "Sigmoid")

    @cache
    def cotangent_of(g: ir.Value, of: ir.Value) -> ir.Value:
        other = b if of is a else a
        return op.Mul(g, other if op.array(other) is not None else spread(op, other, y))

    @cache
    def product(g: ir.Value) -> ir.Value:
        # g y as a factor times its cotangent: both exist, and y, which nothing else may need, is not kept.
        return shaped(op.Mul(cotangent_of(g, whole[0]), whole[0]) if whole else op.Mul(g, y), y)

    def pulled_back(g: ir.Value, of: ir.Value, other: ir.Value) -> Cotangent:
        if not op.is_active(of):
            return None
        if op.dims(of) != op.dims(y):
            return summed(op, op.Mul(g, other), y, of)
        cotangent = cotangent_of(g, of)
        if op.is_active(other):
            op.recipes[cotangent] = Recipe(times_primal=product(g), primal=of)
        return cotangent

    def vjp(g: ir.Value) -> list[Cotangent]:
        return [pulled_back(g, a, b), pulled_back(g, b, a)]

    both = op.is_active(a) and op.is_active(b)
    return Local(vjp, op.Neg(y) if both else None, "implicit", lambda g: op.Neg(product(g)))


@rule("Div", note="c = 0 with a constant divisor, 2 y with a constant dividend, y with both active")
def div(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        ratio = op.Div(g, b)
        return [
            op.unbroadcast(ratio, y, a) if op.is_active(a) else None,
            op.unbroadcast(op.Neg(op.Mul(ratio, y)), y, b) if op.is_active(b) else None,
        ]

    # a / b has degree 1 in a and -1 in b: c = (1 - degree) y
    if not op.is_active(b):
        return Local(vjp)
    return Local(vjp, y if op.is_active(a) else op.Add(y, y), "implicit")


@rule("Pow", note="c = (1 - p) y; with an active exponent y (1 - p - p log x)")
def power(op: Emitter, y: ir.Value, x: ir.Value, p: ir.Value) -> Local:
    exponent = op.CastLike(p, x) if p.dtype != x.dtype else p

    def vjp(g: ir.Value) -> list[Cotangent]:
        gx = gp = None
        if op.is_active(x):  # p x^(p-1), as a power so that x = 0 is right; 0 where p = 0, also at x = 0
            known, less = op.array(p), op.Sub(exponent, 1.0)
            if known is None or not known.all():
                less = op.Where(op.Equal(exponent, 0.0), 0.0, less)
            gx = op.unbroadcast(op.Mul(g, op.Mul(exponent, op.Pow(x, less))), y, x)
        if op.is_active(p):
            gp = op.unbroadcast(op.Mul(op.Mul(g, y), logarithm), y, p)
        return [gx, gp]

    logarithm = op.Log(nonzero(op, x)) if op.is_active(p) else None  # 0^p log 0 counts as 0

    factor: ir.Value | None = None
    if op.is_active(x):
        factor = op.Sub(1.0, exponent)
    if op.is_active(p):
        drift = op.Mul(exponent, logarithm)
        factor = op.Sub(factor if factor is not None else 1.0, drift)
    return Local(vjp, op.Mul(y, factor), "implicit")


@rule("Sum", note="c = the sum of the constant operands")
def total(op: Emitter, y: ir.Value, *terms: ir.Value) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        return [op.unbroadcast(g, y, v) if op.is_active(v) else None for v in terms]

    constant = [v for v in terms if not op.is_active(v)]
    return Local(vjp, None if not constant else constant[0] if len(constant) == 1 else op.Sum(*constant))


@rule("Mean", note="c = the constant operands' share")
def mean(op: Emitter, y: ir.Value, *terms: ir.Value) -> Local:
    share = 1.0 / len(terms)

    def vjp(g: ir.Value) -> list[Cotangent]:
        scaled = op.Mul(g, share)
        return [op.unbroadcast(scaled, y, v) if op.is_active(v) else None for v in terms]

    constant = [v for v in terms if not op.is_active(v)]
    return Local(vjp, op.Mul(op.Sum(*constant), share) if constant else None)


def _extremum(op_type: str) -> None:
    @rule(op_type, family="homogeneous", note="c = the constant operand where it wins; operands that tie share alike")
    def extremum(op: Emitter, y: ir.Value, *terms: ir.Value) -> Local:
        equal = [indicator(op, op.Equal(y, v), y) for v in terms]
        count = op.Sum(*equal)
        wins = [op.Div(e, count) for e in equal]

        def vjp(g: ir.Value) -> list[Cotangent]:
            return [
                op.unbroadcast(op.Mul(g, w), y, v) if op.is_active(v) else None
                for v, w in zip(terms, wins, strict=True)
            ]

        constant = [w for v, w in zip(terms, wins, strict=True) if not op.is_active(v)]
        if not constant:
            return Local(vjp)
        mask = constant[0] if len(constant) == 1 else op.Sum(*constant)
        known = [v for v in terms if not op.is_active(v) and op.array(v) is not None]
        value = finite(op, known[0]) if len(constant) == 1 and known else y  # equal where the mask is not 0
        return Local(vjp, op.Mul(value, mask), "implicit")


for _op_type in ("Max", "Min"):
    _extremum(_op_type)


@rule("Mod", family="general", note="c = y - x; with an active divisor x, with both active 0")
def mod(op: Emitter, y: ir.Value, x: ir.Value, divisor: ir.Value, *, fmod: int = 0) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        # y = x - q divisor, the quotient q being a whole number
        quotient = op.Div(op.Sub(x, y), divisor) if op.is_active(divisor) else None
        return [
            op.unbroadcast(g, y, x) if op.is_active(x) else None,
            op.unbroadcast(op.Neg(op.Mul(g, quotient)), y, divisor) if op.is_active(divisor) else None,
        ]

    if op.is_active(x) and op.is_active(divisor):
        return Local(vjp)
    return Local(vjp, op.Sub(y, x) if op.is_active(x) else x, "implicit")


@rule("Where", note="c = the constant branch where it is chosen")
def where(op: Emitter, y: ir.Value, condition: ir.Value, a: ir.Value, b: ir.Value) -> Local:
    if op.is_active(condition):
        raise Unsupported("its condition is differentiated")

    def vjp(g: ir.Value) -> list[Cotangent]:
        return [
            None,
            op.unbroadcast(op.Where(condition, g, 0.0), y, a) if op.is_active(a) else None,
            op.unbroadcast(op.Where(condition, 0.0, g), y, b) if op.is_active(b) else None,
        ]

    if op.is_active(a) and op.is_active(b):
        return Local(vjp)
    chosen = op.Where(condition, 0.0, finite(op, b)) if op.is_active(a) else op.Where(condition, finite(op, a), 0.0)
    return Local(vjp, chosen, "implicit")
