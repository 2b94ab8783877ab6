"""The libra backward pass (Mehri et al., CVPR 2025): what only weighs other values is held on the way back.

A normalisation's standard deviation, a gate's value and the weights of attention count as constants; what they multiply
gets the whole cotangent. A product of two values of equal standing gives half to each. Then J z = y without an implicit
intercept, and the score is split between the input and the biases alone. Wherever none of this applies, the rule of the
gradient does, with its intercept: the certificate holds for every network.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.registry import Local, Rule
from fgonnx.engine.walk.held import LINEARISATIONS, Linearise, shared_product, sources, weighs

# What makes an operand a weight, the strongest first: of two gates the later kind gets the cotangent.
_WEIGHTS = (
    {"Softmax", "Sigmoid", "HardSigmoid"},
    {"Pow", "Reciprocal", "Sqrt"},
    {"Clip", "Erf", "Tanh"},
)


def libra(r: Rule) -> Rule:
    """Return the rule that the libra backward pass has in place of one of the gradient."""
    special: dict[str, Linearise] = {**LINEARISATIONS, **dict.fromkeys(("Einsum", "MatMul", "Mul"), _product)}
    write = special.get(r.op_type)
    if r.domain or write is None:
        return r

    @functools.wraps(r.linearise)
    def linearise(op: Emitter, y: Any, *inputs: ir.Value, **attributes: Any) -> Local:
        found = write(r, op, y, *inputs, **attributes)
        return found if found is not None else r.linearise(op, y, *inputs, **attributes)

    return replace(r, linearise=linearise)


def _product(r: Rule, op: Emitter, y: ir.Value, *factors: ir.Value, **attributes: Any) -> Local | None:
    """Hold the factors that are weights; share the cotangent among those that remain."""
    active = [v for v in factors if op.is_active(v)]
    if len(active) < 2:
        return None
    ranks = [_weight(op, v) for v in active]
    held = [v for v, rank in zip(active, ranks, strict=True) if rank < max(ranks)]
    return shared_product(r, op, y, factors, held, **attributes)


def _weight(op: Emitter, v: ir.Value) -> int:
    """Return how much of a weight a value is, 0 the most: which of `_WEIGHTS` it comes from without being mixed."""
    for node in sources(op, v):
        for rank, operators in enumerate(_WEIGHTS):
            if not node.domain and node.op_type in operators and weighs(op, node):
                return rank
    return len(_WEIGHTS)
