"""Linearisations with factors held: the divisor of a normalisation, the gate of an activation, a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import inputs_of, required
from fgonnx.engine.rules.fast.masks import nonzero
from fgonnx.engine.rules.linear import per_channel
from fgonnx.engine.rules.normalisation import of_the_values
from fgonnx.engine.rules.registry import Cotangent, Local, Rule

#: What a backward pass has in place of a rule; None where the rule itself applies.
Linearise = Callable[..., Local | None]

# y = x h(x), and h(0).
_GATED = {"Gelu": 0.5, "HardSwish": 0.5, "Mish": float(np.tanh(np.log(2.0))), "Swish": 0.5}
_CARRIES = {
    "Cast",
    "Dropout",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
}
_AFFINE = {"Add", "Div", "Mul", "Sub"}


def gated(r: Rule, op: Emitter, y: ir.Value, x: ir.Value, **attributes: Any) -> Local:
    """Linearise y = x [h(x)]."""
    gate = op.Where(op.Equal(x, 0.0), _GATED[r.op_type], op.Div(y, nonzero(op, x)))
    return Local(lambda g: op.Mul(g, gate))


def quotient(r: Rule, op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local | None:
    """Linearise a / [b]."""
    return r.linearise(op.holding([b]), y, a, b) if op.is_active(a) and op.is_active(b) and a is not b else None


def shared_product(
    r: Rule, op: Emitter, y: ir.Value, factors: Sequence[ir.Value], held: Sequence[ir.Value], **attributes: Any
) -> Local:
    """Linearise a product with some factors held; those that remain share the cotangent."""
    left = sum(op.is_active(v) for v in factors) - len(held)
    local = r.linearise(op.holding(list(held)), y, *factors, **attributes)
    if left == 1:
        return local
    return Local(lambda g: local.vjp(op.Mul(g, 1.0 / left)))


def sources(op: Emitter, v: ir.Value) -> Sequence[ir.Node]:
    """Return the nodes that a value comes from without being mixed, the nearest first."""
    found: list[ir.Node] = []
    while (node := v.producer()) is not None:
        if node.op_type == "StraightThrough":  # of a value in half precision or in eight bits
            v = required(node, 0)
            continue
        found.append(node)
        active = [s for s in inputs_of(node) if op.is_active(s)]
        if node.domain or node.op_type not in _CARRIES | _AFFINE or len(active) != 1:
            break
        v = active[0]
    return found


def weighs(op: Emitter, node: ir.Node) -> bool:
    """Tell whether an operator can be used as a weight: a Clip between two bounds, a negative power."""
    if node.op_type == "Pow":
        exponent = op.array(node.inputs[1])
        return exponent is not None and bool((exponent < 0).all())
    return node.op_type != "Clip" or len(inputs_of(node)) == 3


def _standardised(
    op: Emitter, x: ir.Value, scale: ir.Value, shift: ir.Value | None, axes: Sequence[int], epsilon: float
) -> Local:
    """Linearise scale (x - mean) / [sigma] + shift."""
    centred = op.Sub(x, op.ReduceMean(x, list(axes), keepdims=1))
    var = op.ReduceMean(op.Mul(centred, centred), list(axes), keepdims=1)
    sigma = op.Sqrt(op.Add(var, epsilon))

    def vjp(g: ir.Value) -> Cotangent:
        h = op.Div(op.Mul(g, scale), sigma)
        return op.Sub(h, op.ReduceMean(h, list(axes), keepdims=1))

    return Local(vjp, shift, "bias")


def _instance_normalisation(
    r: Rule, op: Emitter, y: ir.Value, x: ir.Value, scale: ir.Value, b: ir.Value, *, epsilon: float = 1e-5
) -> Local | None:
    if op.is_active(scale) or op.is_active(b):
        return None
    rank = op.rank(x)
    return _standardised(op, x, per_channel(op, scale, rank), per_channel(op, b, rank), range(2, rank), epsilon)


def _layer_normalisation(
    r: Rule, op: Emitter, y: ir.Value | tuple[ir.Value, ...], *inputs: ir.Value, **attributes: Any
) -> Local | None:
    x, scale, b = (*inputs, None)[:3]
    if op.is_active(scale) or op.is_active(b):
        return None
    assert x is not None
    assert scale is not None
    rank = op.rank(x)
    axes = range(attributes.get("axis", -1) % rank, rank)
    local = _standardised(op, x, scale, b, axes, attributes.get("epsilon", 1e-5))
    return replace(local, vjp=of_the_values(local.vjp))


def _unit_length(r: Rule, op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1, p: int = 2) -> Local:
    norm = op.ReduceL1(x, [axis], keepdims=1) if p == 1 else op.ReduceL2(x, [axis], keepdims=1)
    return Local(lambda g: op.Div(g, nonzero(op, norm)))


#: Of normalisations, quotients and activations with a gate, by operator.
LINEARISATIONS: dict[str, Linearise] = {
    **dict.fromkeys(_GATED, gated),
    "Div": quotient,
    "InstanceNormalization": _instance_normalisation,
    "LayerNormalization": _layer_normalisation,
    "LpNormalization": _unit_length,
}
