"""AttnLRP (Achtibat et al., ICML 2024) as a reverse walk: a value's relevance is the cotangent times the value.

Sums distribute relevance as the gradient does, and softmax by its Taylor expansion, which is its gradient too: both
leave to their intercepts what belongs to these. A product of k values gives a k-th to each. Normalisations and
activations pass relevance on unchanged: what they multiply a value by is held. The stabiliser of the paper's divisions
is not needed, since no value is divided by: its limit, zero, is what is computed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import inputs_of, required
from fgonnx.engine.rules.fast.masks import nonzero
from fgonnx.engine.rules.registry import Local, Rule, Unsupported
from fgonnx.engine.walk.held import LINEARISATIONS, Linearise, shared_product, sources, weighs

_DIVISORS = {"Pow", "Reciprocal", "Sqrt"}
_GATES = {"Clip", "Erf", "HardSigmoid", "Sigmoid", "Tanh"}
# h(0) = 0: the relevance of h(x) is passed on as h(x) / x.
_THROUGH_ZERO = {
    *("Asin", "Asinh", "Atan", "Atanh", "Celu", "Elu", "Erf", "Selu", "Shrink", "Sin", "Sinh", "Softsign", "Sqrt"),
    *("Tan", "Tanh"),
}
_TAYLOR = {"Softmax"}
_ENTRYWISE = {"Add", "Cast", "Div", "Identity", "Mul", "Pow", "Sub", "Sum"}
_OTHER = "Choose the backward pass 'libra', which takes every operator, or 'gradient'"


def attnlrp(r: Rule) -> Rule:
    """Return the relevance rule that AttnLRP has for an operator."""
    special: dict[str, Linearise] = {**LINEARISATIONS, **dict.fromkeys(("Einsum", "MatMul", "Mul"), _product)}
    write = special.get(r.op_type) if not r.domain else None

    @functools.wraps(r.linearise)
    def linearise(op: Emitter, y: Any, *inputs: ir.Value, **attributes: Any) -> Local:
        found = write(r, op, y, *inputs, **attributes) if write is not None else None
        if found is not None:
            return found
        local = r.linearise(op, y, *inputs, **attributes)
        if local.intercept is None or local.kind != "implicit" or (r.op_type in _TAYLOR and not r.domain):
            return local
        if r.domain or not _through_zero(op, r.op_type, inputs):
            raise Unsupported(
                "AttnLRP has no rule for it"
                if r.family != "elementwise"
                else "AttnLRP has no rule for a function that is not zero at zero",
                _OTHER,
            )
        slope = op.Div(y, nonzero(op, inputs[0]))
        return Local(lambda g: op.Mul(g, slope))

    return replace(r, linearise=linearise)


def _through_zero(op: Emitter, op_type: str, inputs: Sequence[ir.Value]) -> bool:
    """Tell whether an operator is a function of its first input alone, and zero where it is."""
    if any(op.is_active(v) for v in inputs[1:]):
        return False
    if op_type == "Pow":
        exponent = op.array(inputs[1])
        return exponent is not None and bool((exponent > 0).all())
    if op_type == "Clip":
        bounds = [op.array(v) for v in (*inputs, None, None)[1:3]]
        return all(
            given is None or (b is not None and bool((sign * b >= 0).all()))
            for given, b, sign in zip((*inputs, None, None)[1:3], bounds, (-1, 1), strict=True)
        )
    return op_type in _THROUGH_ZERO


def _product(r: Rule, op: Emitter, y: ir.Value, *factors: ir.Value, **attributes: Any) -> Local | None:
    """Hold the divisor of a normalisation and the gate of an activation; share the cotangent among the others."""
    active = [v for v in factors if op.is_active(v)]
    if len(active) < 2:
        return None
    held = [v for v in active if _holds(op, v, [o for o in active if o is not v])]
    if len(held) == len(active):
        held = []
    return shared_product(r, op, y, factors, held, **attributes)


def _holds(op: Emitter, v: ir.Value, others: Sequence[ir.Value]) -> bool:
    """Tell whether a factor is one by a standard deviation, or the gate h(x) of an activation x h(x)."""
    for node in sources(op, v):
        if node.domain or not weighs(op, node):
            continue
        if node.op_type in _DIVISORS:
            return True
        if node.op_type in _GATES:
            return bool(others) and all(_function_of(op, required(node, 0), _multiples(op, o)) for o in others)
    return False


def _multiples(op: Emitter, v: ir.Value) -> set[ir.Value]:
    """Return a value and those that it is a number times, or a number more than."""
    found = {v}
    while (node := v.producer()) is not None and _by_numbers(op, node):
        active = [s for s in inputs_of(node) if op.is_active(s)]
        if len(active) != 1:
            break
        v = active[0]
        found.add(v)
    return found


def _function_of(op: Emitter, v: ir.Value, roots: set[ir.Value]) -> bool:
    """Tell whether a value is computed entry by entry from one of `roots`, with numbers alone."""
    if v in roots:
        return True
    node = v.producer()
    if node is None or not _by_numbers(op, node):
        return False
    return all(_function_of(op, s, roots) for s in inputs_of(node) if op.is_active(s))


def _by_numbers(op: Emitter, node: ir.Node) -> bool:
    if node.domain or node.op_type not in _ENTRYWISE:
        return False
    constants = [op.array(s) for s in inputs_of(node) if not op.is_active(s)]
    return all(c is not None and c.size == 1 for c in constants)
