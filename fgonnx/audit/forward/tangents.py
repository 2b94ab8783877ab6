"""Tangents through one operator: the derivative of its outputs along the derivatives of its inputs.

Tangents are (K, ...) for K directions. What is linear is applied to them, what has kinks is written out, everything
else is differenced in float64 about the values that the model computes. On ties, the conventions are those of the
rules (docs/operators.md), and it is counted that there were some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper

from fgonnx.audit.forward.kinks import KINKS
from fgonnx.audit.forward.operators import Array, Floats, Operators, Unmeasured, plain
from fgonnx.audit.forward.through import Tangents, Through, Ties, aligned, differences, first_of
from fgonnx.engine.walk.declared import INDEX, INPUTS, OUTPUTS

# Inputs in which an operator is linear, together; those of them that stay as they are count as zero.
_ALL = range(1 << 10)
LINEAR: dict[str, Sequence[int]] = {
    **dict.fromkeys(("Add", "Concat", "Mean", "Sub", "Sum"), _ALL),
    **dict.fromkeys(("Compress", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"), (0,)),
    **dict.fromkeys(("Identity", "Neg", "ReduceMean", "ReduceSum", "Reshape", "ReverseSequence", "Slice"), (0,)),
    **dict.fromkeys(("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"), (0,)),
    **dict.fromkeys(("AveragePool", "CumSum", "GlobalAveragePool", "Resize", "Upsample"), (0,)),
    **dict.fromkeys(("Conv", "ConvTranspose"), (0, 2)),
    "Pad": (0, 2),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Where": (1, 2),
}
# Products: linear in each factor, what is added to them set to zero.
_PRODUCTS = {"Mul": 2, "MatMul": 2, "Gemm": 2, "Conv": 2, "ConvTranspose": 2}
_HELD = ("Shape", "Size", "ConstantOfShape", "EyeLike", "IsNaN", "IsInf", "And", "Or", "Not", "Xor", "Range")
_STEPS = ("Ceil", "Floor", "Hardmax", "Round", "Sign", "BitShift")
_NOWHERE = ("If", "Loop", "Scan", "SequenceMap", "Det", "RandomNormalLike", "RandomUniformLike", "Bernoulli")


def propagate(t: Through) -> list[Tangents]:
    """Return the tangents of a node's outputs.

    Raises
    ------
    Unmeasured
        The operator is a step, has graphs inside, or nobody computes it in real numbers.
    """
    op_type, count = t.node.op_type, len(t.node.output)
    if op_type in _HELD or not t.moving:
        return [None] * count
    if not t.node.domain and op_type in OUTPUTS and 0 in OUTPUTS[op_type][0]:
        return [None] * count
    if op_type in _STEPS and not t.node.domain and t.node.output[0] in t.ties.held:
        return [None]
    if op_type in _STEPS and not t.node.domain and t.node.output[0] in t.ties.straight:
        return [first_of(t)]
    if op_type in _STEPS or op_type in _NOWHERE:
        raise Unmeasured(f"'{t.node.name or t.node.output[0]}' is a {op_type}")
    if t.node.domain:
        return differences(t)
    if any(INPUTS.get(op_type, {}).get(i) == INDEX for i in t.moving):
        raise Unmeasured(f"'{t.node.name or t.node.output[0]}' ({op_type}) looks up numbers in a table")
    if op_type in _WRITTEN:
        return [*_WRITTEN[op_type](t), *[None] * (count - 1)]
    if op_type in LINEAR and set(t.moving) <= set(LINEAR[op_type]) and not (op_type == "Conv" and 2 in t.moving):
        return _linear(t, LINEAR[op_type])
    if op_type in _PRODUCTS and max(t.moving) < _PRODUCTS[op_type]:
        return [_product(t)]
    return differences(t)


def _linear(t: Through, group: Sequence[int]) -> list[Tangents]:
    parts = []
    for k in range(len(first_of(t))):
        given = [
            a if i not in group or a is None else np.zeros(a.shape) if (d := t.tangents[i]) is None else d[k]
            for i, a in enumerate(t.inputs)
        ]
        parts.append(t.compute(t.node, given, len(t.node.output)))
    return [np.stack(p).astype(np.float64) for p in zip(*parts, strict=True)]


def _product(t: Through) -> Floats:
    total: Floats | None = None
    for i in t.moving:
        moved = t.tangents[i]
        assert moved is not None
        rest = [None if a is None else a if j < 2 else np.zeros(a.shape) for j, a in enumerate(t.inputs)]
        rest = [a if a is None or a.dtype.kind not in "iu" else a.astype(np.float64) for a in rest]
        parts = np.stack([t.compute(t.node, [*rest[:i], d, *rest[i + 1 :]])[0] for d in moved])
        total = parts.astype(np.float64) if total is None else total + parts
    assert total is not None
    return total


def _normalised(t: Through) -> list[Tangents]:
    """BatchNormalization of known statistics is linear."""
    if t.moving != [0] or t.fields.get("training_mode"):
        return differences(t)
    scale, var = t.value(1), t.value(4)
    factor = scale / np.sqrt(var + float(t.fields.get("epsilon", 1e-5)))
    return [first_of(t) * factor.reshape(1, 1, -1, *[1] * (t.value(0).ndim - 2))]


def _remainder(t: Through) -> list[Tangents]:
    """y = x - q d, the quotient q being a whole number that is held."""
    own = t.outputs[0]
    if own is None:
        raise Unmeasured(f"no value of '{t.node.output[0]}' (Mod) can be read")
    x, divisor = t.value(0), t.value(1)
    total = np.zeros((len(first_of(t)), *own.shape))
    if (d := t.tangents[0]) is not None:
        total = total + aligned(d, own.ndim)
    if (d := t.tangents[1]) is not None:
        total = total - aligned(d, own.ndim) * np.rint((x - own) / divisor)
    return [total]


def _dropout(t: Through) -> list[Tangents]:
    if len(t.inputs) > 2 and t.inputs[2] is not None and bool(np.asarray(t.inputs[2]).any()):
        raise Unmeasured(f"'{t.node.output[0]}' (Dropout) draws numbers")
    return [first_of(t)]


def _cast(t: Through) -> list[Tangents]:
    """Rounding to another floating-point type passes tangents; so do integers where they are read as numbers."""
    to = int(t.fields["to"])
    if to == onnx.TensorProto.BOOL:
        return [None]
    whole = np.dtype(helper.tensor_dtype_to_np_dtype(to)).kind in "iu"
    if whole and t.inputs[0] is not None and t.inputs[0].dtype.kind == "f" and not _quantised_by_hand(t):
        raise Unmeasured(f"'{t.node.output[0]}' (Cast) rounds to integers")
    return [first_of(t)]


def _quantised_by_hand(t: Through) -> bool:
    """Tell whether a cast to integers changes no value, in a model whose quantisers round before it."""
    x, own = t.inputs[0], t.outputs[0]
    return bool(t.ties.straight) and x is not None and own is not None and np.array_equal(x, own)


_WRITTEN: dict[str, Callable[[Through], list[Tangents]]] = {
    **KINKS,
    "BatchNormalization": _normalised,
    "Mod": _remainder,
    "Dropout": _dropout,
    "Cast": _cast,
}


def in_reals(
    op_type: str,
    values: Sequence[Array],
    moved: Sequence[Tangents],
    compute: Operators,
    ties: Ties,
    **fields: object,
) -> tuple[Array, Tangents]:
    """Return what an operator of the standard gives in real numbers, and its tangents."""
    node = plain(op_type, **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    y = compute(node, list(values))[0].astype(np.float64)
    return y, propagate(Through(node, list(values), [y], list(moved), compute, ties))[0]
