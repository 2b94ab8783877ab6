"""Layer-wise relevance propagation as a reverse walk with modified rules.

A value's relevance is its cotangent times itself, R_v = v g_v. For `z = W a + b`, R_a = a W^T (R_z / (z + eps sign z))
is the vjp of `g z / (z + eps sign z)`; an activation keeps its relevance, R_x = R_y, which is `g_x = g_y y / x`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.maps.sites import at_least_float32
from fgonnx.engine.methods.registry import written
from fgonnx.engine.methods.view import View, Written
from fgonnx.engine.rules.fast.masks import nonzero
from fgonnx.engine.rules.registry import Cotangent, Local, Rule, Unsupported
from fgonnx.engine.walk.backward import Modify
from fgonnx.fields import documented, option

_SUMS = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "Mean",
    "ReduceMean",
    "ReduceSum",
    "Sub",
    "Sum",
}
# Homogeneous of degree one, elementwise or by selecting an entry: the plain vjp conserves relevance.
_CHOICES = {
    "Abs",
    "Div",
    "GlobalMaxPool",
    "LeakyRelu",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "PRelu",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "StraightThrough",
    "ThresholdedRelu",
    "TopK",
    "Where",
}
_OTHER = "Choose a method without relevance rules, such as gradient-x-input or integrated-gradients"


@documented
@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """The stabiliser."""

    epsilon: float = option(1e-6, "Added to the absolute value of every divisor; above 0.", above=0)


def relevance_rules(settings: Epsilon) -> Modify:
    """Return the `modify` that turns every rule into its relevance rule."""

    def modify(r: Rule) -> Rule:
        @functools.wraps(r.linearise)
        def linearise(op: Emitter, y: Any, *inputs: ir.Value, **attributes: Any) -> Local:
            local = r.linearise(op, y, *inputs, **attributes)
            if r.family == "elementwise" and isinstance(y, ir.Value):
                return Local(lambda g: op.Mul(g, op.Div(y, nonzero(op, inputs[0]))))
            if r.op_type in _SUMS | _CHOICES and not (local.intercept is not None and local.kind == "implicit"):
                return Local(_stabilised(op, y, local, settings.epsilon)) if r.op_type in _SUMS else local
            if r.family == "linear" and r.op_type not in _SUMS:
                return local
            raise Unsupported("relevance propagation has no rule for it", _OTHER)

        return replace(r, linearise=linearise)

    return modify


def _stabilised(op: Emitter, y: ir.Value, local: Local, epsilon: float) -> Any:
    def vjp(g: ir.Value) -> Cotangent | Any:
        divisor = op.Where(op.Less(y, 0.0), op.Sub(y, epsilon), op.Add(y, epsilon))
        return local.vjp(op.Mul(g, op.Div(y, divisor)))

    return vjp


@written(
    "lrp-epsilon",
    source="Bach et al., PLoS ONE 10(7), 2015, equation 58.",
    writes=("saliency", "attribution"),
    settings=Epsilon,
    modify=relevance_rules,
)
def lrp_epsilon(view: View) -> Mapping[str, Written]:
    """Relevance: the score redistributed layer by layer, to every input of a sum in proportion to its share."""
    return view.attributed(view.op.Mul(view.gradient, at_least_float32(view.op, view.x)))
