"""Tangents through one operator: the derivative of its outputs along the derivatives of its inputs.

Tangents are (K, ...) for K directions. What is linear is applied to them, what has kinks is written out, everything
else is differenced in float64 about the values that the model computes. On ties, the conventions are those of the
rules (docs/operators.md), and it is counted that there were some.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from fgonnx.audit.forward.operators import Array, Floats, Operators, Unmeasured, plain
from fgonnx.engine.rules.linear import explicit_pads
from fgonnx.engine.walk.declared import OUTPUTS

_STEP = 1e-6  # of differences, as a share of the largest value
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
_STEPS = ("Ceil", "Floor", "Hardmax", "Mod", "Round", "Sign", "BitShift")
_NOWHERE = ("If", "Loop", "Scan", "SequenceMap", "Det", "RandomNormalLike", "RandomUniformLike", "Bernoulli")

Tangents = Floats | None


@dataclass
class Ties:
    """Values on a kink, of which another choice is as right.

    Attributes
    ----------
    other : bool
        Whether to choose otherwise than the rules do.
    met : bool
        Whether there were some that move.
    """

    other: bool = False
    met: bool = False


@dataclass
class Through:
    """One node with the values that the model computes for it.

    Attributes
    ----------
    node : onnx.NodeProto
        The node.
    inputs, outputs : list of numpy array or None
        Their values; None for one that is left out, or that cannot be read.
    tangents : list of numpy array, (K, ...), or None
        Of the inputs; None for one that does not move.
    compute : Operators
        Computes single nodes.
    ties : Ties
        Which of equal values is chosen, and where there were some.
    """

    node: onnx.NodeProto
    inputs: list[Array | None]
    outputs: list[Array | None]
    tangents: list[Tangents]
    compute: Operators
    ties: Ties = field(default_factory=lambda: Ties())

    @property
    def moving(self) -> list[int]:
        """The inputs that move."""
        return [i for i, t in enumerate(self.tangents) if t is not None]

    @property
    def fields(self) -> dict[str, object]:
        """The attributes."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    def value(self, i: int) -> Floats:
        """Return an input in float64."""
        found = self.inputs[i] if i < len(self.inputs) else None
        if found is None:
            raise Unmeasured(f"no value of '{self.node.name or self.node.output[0]}' ({self.node.op_type}) can be read")
        return np.asarray(found, np.float64)

    def tied(self, where: Array) -> None:
        """Note that values lie on a kink, where they move."""
        self.ties.met |= bool(where.any())


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
    if op_type in OUTPUTS and 0 in OUTPUTS[op_type][0]:
        return [None] * count
    if op_type in _STEPS or op_type in _NOWHERE:
        raise Unmeasured(f"'{t.node.name or t.node.output[0]}' is a {op_type}")
    if op_type in _WRITTEN:
        return [*_WRITTEN[op_type](t), *[None] * (count - 1)]
    if op_type in LINEAR and set(t.moving) <= set(LINEAR[op_type]) and not (op_type == "Conv" and 2 in t.moving):
        return _linear(t, LINEAR[op_type])
    if op_type in _PRODUCTS and max(t.moving) < _PRODUCTS[op_type]:
        return [_product(t)]
    return _differences(t)


def _linear(t: Through, group: Sequence[int]) -> list[Tangents]:
    parts = []
    for k in range(len(_first(t))):
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
        parts = np.stack([t.compute(t.node, [*rest[:i], d, *rest[i + 1 :]])[0] for d in moved])
        total = parts.astype(np.float64) if total is None else total + parts
    assert total is not None
    return total


def _differences(t: Through) -> list[Tangents]:
    """Central differences in float64, about values that have to be those of the model."""
    count = len(t.node.output)
    given: list[Array | None] = [np.asarray(a, np.float64) if i in t.moving else a for i, a in enumerate(t.inputs)]
    if any(given[i] is None for i in t.moving):
        raise Unmeasured(f"no value of '{t.node.name or t.node.output[0]}' ({t.node.op_type}) can be read")
    here = t.compute(t.node, given, count)
    for own, found in zip(t.outputs, here, strict=True):
        if own is not None and own.dtype.kind == "f":
            allowed = {2: 2e-2, 4: 1e-3}.get(own.dtype.itemsize, 1e-6)
            apart = float(np.abs(found - own).max(initial=0)) if found.shape == own.shape else np.inf
            if not apart <= allowed * max(float(np.abs(found).max(initial=0)), 1e-6):
                raise Unmeasured(f"'{t.node.name or t.node.output[0]}' ({t.node.op_type}) is read in another way")
    parts = []
    for k in range(len(_first(t))):
        moves = {i: d[k] for i in t.moving if (d := t.tangents[i]) is not None}
        size = max(float(np.abs(np.asarray(given[i])).max(initial=0)) for i in moves) or 1.0
        fast = max(float(np.abs(d).max(initial=0)) for d in moves.values())
        if fast == 0:
            parts.append([np.zeros(a.shape) for a in here])
            continue
        h = _STEP * size / fast
        ends = [
            t.compute(t.node, [a if i not in moves else a + s * moves[i] for i, a in enumerate(given)], count)
            for s in (h, -h)
        ]
        parts.append([(up.astype(np.float64) - down) / (2 * h) for up, down in zip(*ends, strict=True)])
    return [np.stack(p) if here[i].dtype.kind == "f" else None for i, p in enumerate(zip(*parts, strict=True))]


def _first(t: Through) -> Floats:
    return next(d for d in t.tangents if d is not None)


def _gated(
    gate: Callable[[Through], Array],
    kinks: Callable[[Through], Sequence[float]] = lambda t: (0.0,),
    kinked: Callable[[Through], Any] = lambda t: 1.0,
) -> Callable[[Through], list[Tangents]]:
    def rule(t: Through) -> list[Tangents]:
        if t.moving != [0]:
            return _differences(t)
        moved, passed = _first(t), gate(t)
        x = t.value(0)
        for kink in kinks(t):
            on = x == kink
            t.tied(on & moved.any(0))
            passed = np.where(on & t.ties.other, kinked(t), passed)
        return [moved * passed]

    return rule


def _bounds(t: Through) -> tuple[float, float]:
    low, high = (
        t.value(i).reshape(-1)[0] if i < len(t.inputs) and t.inputs[i] is not None else t.fields.get(name, ends)
        for i, name, ends in ((1, "min", -np.inf), (2, "max", np.inf))
    )
    return float(low), float(high)  # type: ignore[arg-type]


def _clip(t: Through) -> Array:
    x, (low, high) = t.value(0), _bounds(t)
    return np.asarray((x > low) & (x < high))


def _leaky(t: Through) -> Array:
    return np.where(t.value(0) > 0, 1.0, t.fields.get("alpha", 0.01))


def _prelu(t: Through) -> Array:
    return np.where(t.value(0) > 0, 1.0, t.value(1))


def _extremum(t: Through) -> list[Tangents]:
    """Operands that tie share alike."""
    values = [t.value(i) for i in range(len(t.inputs))]
    best = np.max if t.node.op_type == "Max" else np.min
    y = best(np.stack(np.broadcast_arrays(*values)), axis=0)
    wins = [v == y for v in np.broadcast_arrays(*values)]
    t.tied(np.sum(wins, axis=0) > 1)
    if t.ties.other:  # the first of them
        wins = [w & ~np.any([np.zeros_like(w), *wins[:i]], axis=0) for i, w in enumerate(wins)]
    count = np.sum(wins, axis=0)
    total = np.zeros((len(_first(t)), *y.shape))
    for i, won in enumerate(wins):
        if (d := t.tangents[i]) is not None:
            total = total + _aligned(d, y.ndim) * (won / count)
    return [total]


def _aligned(d: Floats, rank: int) -> Floats:
    """Return tangents whose axes behind the first one broadcast to a rank."""
    return d.reshape(len(d), *[1] * (rank - (d.ndim - 1)), *d.shape[1:])


def _reduced(t: Through) -> list[Tangents]:
    """Elements that tie share alike."""
    x, fields = t.value(0), t.fields
    given = t.inputs[1] if len(t.inputs) > 1 and t.inputs[1] is not None else fields.get("axes")
    axes = tuple(int(a) % x.ndim for a in np.reshape(given, -1)) if given is not None else tuple(range(x.ndim))
    if not axes and not fields.get("noop_with_empty_axes"):
        axes = tuple(range(x.ndim))
    best = x.max(axes, keepdims=True) if t.node.op_type == "ReduceMax" else x.min(axes, keepdims=True)
    wins = x == best
    t.tied(wins.sum(axes, keepdims=True) > 1)
    if t.ties.other:  # the largest tangent of them, of the first direction
        order = np.where(wins, _first(t)[0], -np.inf)
        wins = wins & (order == order.max(axes, keepdims=True))
    count = wins.sum(axes, keepdims=True)
    kept = bool(fields.get("keepdims", 1))
    return [(_first(t) * (wins / count)).sum(tuple(a + 1 for a in axes), keepdims=kept)]


def _max_pool(t: Through) -> list[Tangents]:
    """The first of equal elements."""
    x, moved = t.value(0).astype(np.float32), _first(t)
    fields = {k: v.decode() if isinstance(v, bytes) else v for k, v in t.fields.items() if k != "storage_order"}
    y, where = t.compute(helper.make_node("MaxPool", [], ["MaxPool"], **fields), [x], 2)
    if t.outputs[0] is not None and y.shape != t.outputs[0].shape:
        raise Unmeasured(f"'{t.node.output[0]}' (MaxPool) is read in another way")
    found = moved.reshape(len(moved), -1)[:, where.reshape(-1)].reshape(len(moved), *where.shape)
    last = _last(x, y, moved, fields)
    t.tied(last != found)
    return [last if t.ties.other else found]


def _last(x: Array, y: Array, moved: Floats, fields: Mapping[str, Any]) -> Floats:
    """Return the tangents of the last of equal elements."""
    rank, kernel = x.ndim - 2, list(fields["kernel_shape"])
    steps, gaps = (list(fields.get(name) or [1] * rank) for name in ("strides", "dilations"))
    sizes, made = x.shape[2:], y.shape[2:]
    begins = explicit_pads(fields.get("auto_pad", "NOTSET"), fields.get("pads"), sizes, made, kernel, steps, gaps)
    ends = [(o - 1) * s + (k - 1) * g + 1 for o, s, k, g in zip(made, steps, kernel, gaps, strict=True)]
    pads = [(b, max(0, e - b - n)) for b, e, n in zip(begins[:rank], ends, sizes, strict=True)]
    wide = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=-np.inf)
    turned = np.pad(moved, [(0, 0), (0, 0), (0, 0), *pads])
    last = np.zeros((len(moved), *y.shape))
    for places in itertools.product(*map(range, kernel)):
        cut = tuple(
            slice(p * g, p * g + (o - 1) * s + 1, s) for p, g, o, s in zip(places, gaps, made, steps, strict=True)
        )
        last = np.where(wide[(..., *cut)] == y, turned[(..., *cut)], last)
    return last


def _global_max(t: Through) -> list[Tangents]:
    """The first of equal elements."""
    x, moved = t.value(0), _first(t)
    rows = x.reshape(*x.shape[:2], -1)
    at = (rows.shape[-1] - 1 - rows[..., ::-1].argmax(-1) if t.ties.other else rows.argmax(-1))[..., None]
    flat = moved.reshape(len(moved), *rows.shape)
    t.tied((rows == rows.max(-1, keepdims=True)).sum(-1) > 1)
    found = np.take_along_axis(flat, np.broadcast_to(at, (len(moved), *at.shape)), -1)
    return [found.reshape(len(moved), *x.shape[:2], *[1] * (x.ndim - 2))]


def _top(t: Through) -> list[Tangents]:
    places, moved = t.outputs[1] if len(t.outputs) > 1 else None, _first(t)
    axis = int(t.fields.get("axis", -1)) % t.value(0).ndim  # type: ignore[call-overload]
    if places is None:
        raise Unmeasured(f"'{t.node.output[0]}' (TopK) gives no places")
    return [np.take_along_axis(moved, np.broadcast_to(places, (len(moved), *places.shape)), axis + 1)]


def _normalised(t: Through) -> list[Tangents]:
    """BatchNormalization of known statistics is linear."""
    if t.moving != [0] or t.fields.get("training_mode"):
        return _differences(t)
    scale, var = t.value(1), t.value(4)
    factor = scale / np.sqrt(var + float(t.fields.get("epsilon", 1e-5)))  # type: ignore[arg-type]
    return [_first(t) * factor.reshape(1, 1, -1, *[1] * (t.value(0).ndim - 2))]


def _dropout(t: Through) -> list[Tangents]:
    if len(t.inputs) > 2 and t.inputs[2] is not None and bool(np.asarray(t.inputs[2]).any()):
        raise Unmeasured(f"'{t.node.output[0]}' (Dropout) draws numbers")
    return [_first(t)]


def _cast(t: Through) -> list[Tangents]:
    """Rounding to another floating-point type passes tangents; so do integers where they are read as numbers."""
    to = int(t.fields["to"])  # type: ignore[call-overload]
    if to == onnx.TensorProto.BOOL:
        return [None]
    whole = np.dtype(helper.tensor_dtype_to_np_dtype(to)).kind in "iu"
    if whole and t.inputs[0] is not None and t.inputs[0].dtype.kind == "f":
        raise Unmeasured(f"'{t.node.output[0]}' (Cast) rounds to integers")
    return [_first(t)]


_WRITTEN: dict[str, Callable[[Through], list[Tangents]]] = {
    "Relu": _gated(lambda t: t.value(0) > 0),
    "LeakyRelu": _gated(_leaky),
    "PRelu": _gated(_prelu),
    "Abs": _gated(lambda t: np.sign(t.value(0))),
    "Clip": _gated(_clip, _bounds),
    "Max": _extremum,
    "Min": _extremum,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _global_max,
    "TopK": _top,
    "BatchNormalization": _normalised,
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
