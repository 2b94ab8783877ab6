"""The libra backward pass (Mehri et al., CVPR 2025): what only weighs other values is held on the way back.

A normalisation's standard deviation, a gate's value and the weights of attention count as constants; what they multiply
gets the whole cotangent. A product of two values of equal standing gives half to each. Then J z = y without an implicit
intercept, and the score is split between the input and the biases alone. Wherever none of this applies, the rule of the
gradient does, with its intercept: the certificate holds for every network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import inputs_of, required
from fgonnx.engine.rules.fast.masks import nonzero
from fgonnx.engine.rules.linear import per_channel
from fgonnx.engine.rules.registry import Cotangent, Local, Rule, Unsupported

# y = x h(x), and h(0).
_GATED = {"Gelu": 0.5, "HardSwish": 0.5, "Mish": float(np.tanh(np.log(2.0))), "Swish": 0.5}
# What makes an operand a weight, the strongest first: of two gates the later kind gets the cotangent.
_WEIGHTS = (
    {"Softmax", "Sigmoid", "HardSigmoid"},
    {"Pow", "Reciprocal", "Sqrt"},
    {"Clip", "Erf", "Tanh"},
)
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

Linearise = Callable[..., Local]


def libra(r: Rule) -> Rule:
    """Return the rule that the libra backward pass has in place of one of the gradient."""
    special: dict[str, Callable[..., Local | None]] = {
        "Div": _quotient,
        "Einsum": _product,
        "InstanceNormalization": _instance_normalisation,
        "LayerNormalization": _layer_normalisation,
        "LpNormalization": _unit_length,
        "MatMul": _product,
        "Mul": _product,
    }
    write = _gated if r.op_type in _GATED else special.get(r.op_type)
    if r.domain or write is None:
        return r

    @functools.wraps(r.linearise)
    def linearise(op: Emitter, y: Any, *inputs: ir.Value, **attributes: Any) -> Local:
        found = write(r, op, y, *inputs, **attributes)
        return found if found is not None else r.linearise(op, y, *inputs, **attributes)

    return replace(r, linearise=linearise)


def _gated(r: Rule, op: Emitter, y: ir.Value, x: ir.Value, **attributes: Any) -> Local:
    gate = op.Where(op.Equal(x, 0.0), _GATED[r.op_type], op.Div(y, nonzero(op, x)))
    return Local(lambda g: op.Mul(g, gate))


def _quotient(r: Rule, op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local | None:
    return r.linearise(op.holding([b]), y, a, b) if op.is_active(a) and op.is_active(b) and a is not b else None


def _product(r: Rule, op: Emitter, y: ir.Value, *factors: ir.Value, **attributes: Any) -> Local | None:
    """Hold the factors that are weights; share the cotangent among those that remain."""
    active = [v for v in factors if op.is_active(v)]
    if len(active) < 2:
        return None
    ranks = [_weight(op, v) for v in active]
    held = [v for v, rank in zip(active, ranks, strict=True) if rank < max(ranks)]
    op = op.holding(held)
    local = r.linearise(op, y, *factors, **attributes)
    left = len(active) - len(held)
    if left == 1:
        return local
    return Local(lambda g: local.vjp(op.Mul(g, 1.0 / left)))


def _weight(op: Emitter, v: ir.Value) -> int:
    """Return how much of a weight a value is, 0 the most: which of `_WEIGHTS` it comes from without being mixed."""
    while (node := v.producer()) is not None:
        if node.op_type == "StraightThrough":  # of a value in half precision or in eight bits
            v = required(node, 0)
            continue
        for rank, operators in enumerate(_WEIGHTS):
            if not node.domain and node.op_type in operators and _weighs(op, node):
                return rank
        sources = [s for s in inputs_of(node) if op.is_active(s)]
        if node.domain or node.op_type not in _CARRIES | _AFFINE or len(sources) != 1:
            break
        v = sources[0]
    return len(_WEIGHTS)


def _weighs(op: Emitter, node: ir.Node) -> bool:
    """Tell whether an operator of `_WEIGHTS` is used as a weight: a Clip between two bounds, a negative power."""
    if node.op_type == "Pow":
        exponent = op.array(node.inputs[1])
        return exponent is not None and bool((exponent < 0).all())
    return node.op_type != "Clip" or len(inputs_of(node)) == 3


def _standardised(
    op: Emitter, x: ir.Value, scale: ir.Value, shift: ir.Value | None, axes: Sequence[int], epsilon: float
) -> Local:
    """Linearise scale (x - mean) / [sigma] + shift with sigma held."""
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

    def vjp(g: ir.Value | None, *others: ir.Value | None) -> Cotangent | Sequence[Cotangent]:
        if g is None or any(o is not None for o in others):
            raise Unsupported("its mean or standard deviation is used on the path")
        return local.vjp(g)

    return replace(local, vjp=vjp)


def _unit_length(r: Rule, op: Emitter, y: ir.Value, x: ir.Value, *, axis: int = -1, p: int = 2) -> Local:
    norm = op.ReduceL1(x, [axis], keepdims=1) if p == 1 else op.ReduceL2(x, [axis], keepdims=1)
    return Local(lambda g: op.Div(g, nonzero(op, norm)))
