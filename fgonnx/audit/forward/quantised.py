"""Tangents through quantised operators: those of the numbers that integers stand for.

A quantised value q with scale s and zero point z represents s (q - z); its tangent is that of q as a real number.
Rounding passes tangents on, and what is saturated has none. Scales that depend on the input are held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fgonnx.audit.forward.operators import Array, Floats, Unmeasured
from fgonnx.audit.forward.tangents import LINEAR, in_reals, propagate
from fgonnx.audit.forward.through import Tangents, Through

_ONE = np.ones(())


def _placed(parameter: Array | None, rank: int, axis: int) -> Floats:
    """Return a scale or zero point that broadcasts along an axis; a missing zero point is 0."""
    if parameter is None:
        return np.zeros(())
    found = np.asarray(parameter, np.float64)
    if found.size == 1:
        return found.reshape(())
    if found.ndim != 1:
        raise Unmeasured("it holds blocks of scales")
    return found.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


class _Operand:
    """A quantised input in real numbers."""

    def __init__(self, t: Through, at: int, scale: int, zero: int | None, axis: int = 1) -> None:
        q = t.value(at)
        s = t.inputs[scale] if scale < len(t.inputs) else None
        z = t.inputs[zero] if zero is not None and zero < len(t.inputs) else None
        step = _ONE if s is None else _placed(s, q.ndim, axis)
        if any(i < len(t.tangents) and t.tangents[i] is not None for i in (scale, zero or scale)):
            raise Unmeasured(f"a scale of '{t.node.output[0]}' moves")
        self.real = (q - _placed(z, q.ndim, axis)) * step
        moved = t.tangents[at]
        self.tangent: Tangents = None if moved is None else moved * step


def _whole(t: Through, at: int, zero: int | None, axis: int = 1) -> tuple[Floats, Tangents]:
    """Return an integer input without its zero point."""
    q = t.value(at)
    z = t.inputs[zero] if zero is not None and zero < len(t.inputs) else None
    return q - _placed(z, q.ndim, axis), t.tangents[at]


def _rounded(t: Through, real: Array, moved: Tangents, scale: int, zero: int, axis: int = 1) -> list[Tangents]:
    """Return the tangent of a real result in steps of a scale, where it is inside the range of its type."""
    if moved is None:
        return [None]
    s = t.inputs[scale] if scale < len(t.inputs) else None
    z = t.inputs[zero] if zero < len(t.inputs) else None
    kind = t.outputs[0].dtype if t.outputs[0] is not None else np.dtype(np.uint8) if z is None else z.dtype
    if kind.kind not in "iu":
        raise Unmeasured(f"'{t.node.output[0]}' ({t.node.op_type}) is of a type that cannot be read")
    step = _placed(s, real.ndim, axis)
    steps = real / step + _placed(z, real.ndim, axis)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    own = t.outputs[0]
    if own is not None:
        # The model's own rounding: to one step, or to another where kernels sum in another order.
        apart = np.abs(np.clip(steps, low, high) - own.astype(np.float64))
        if float(apart.max(initial=0)) > 2:
            raise Unmeasured(f"'{t.node.output[0]}' ({t.node.op_type}) is read in another way")
    inside = (steps >= low) & (steps <= high)
    ends = (steps == low) | (steps == high)
    t.tied(ends & moved.any(0))
    if t.ties.other:
        inside &= ~ends
    return [moved / step * inside]


def _axis(t: Through) -> int:
    if t.fields.get("block_size"):
        raise Unmeasured("it holds blocks of scales")
    return int(t.fields.get("axis", 1))


def _quantise(t: Through) -> list[Tangents]:
    if t.moving != [0]:
        raise Unmeasured(f"a scale of '{t.node.output[0]}' moves")
    return _rounded(t, t.value(0), t.tangents[0], 1, 2, _axis(t))


def _dequantise(t: Through) -> list[Tangents]:
    return [_Operand(t, 0, 1, 2, _axis(t)).tangent]


def _dynamic(t: Through) -> list[Tangents]:
    """The scale is held; on its own range nothing saturates."""
    moved, scale = t.tangents[0], t.outputs[1]
    if moved is None or scale is None:
        return [None, None, None]
    return [moved / float(scale), None, None]


def _kept(t: Through, *dropped: str) -> dict[str, Any]:
    return {
        k: v.decode() if isinstance(v, bytes) else v
        for k, v in t.fields.items()
        if k not in (*dropped, "channels_last", "opset")
    }


def _refuse_last(t: Through) -> None:
    if t.fields.get("channels_last"):
        raise Unmeasured(f"'{t.node.output[0]}' ({t.node.op_type}) has its channels last")


def _real(t: Through, op_type: str, *operands: _Operand, **fields: Any) -> tuple[Array, Tangents]:
    return in_reals(op_type, [o.real for o in operands], [o.tangent for o in operands], t.compute, t.ties, **fields)


def _conv(t: Through) -> list[Tangents]:
    _refuse_last(t)
    x, w = _Operand(t, 0, 1, 2), _Operand(t, 3, 4, 5, 0)
    y, moved = _real(t, "Conv", x, w, **_kept(t))
    if len(t.inputs) > 8 and t.inputs[8] is not None:
        scales = np.asarray(t.inputs[1], np.float64).reshape(-1) * np.asarray(t.inputs[4], np.float64).reshape(-1)
        y = y + (t.value(8) * scales).reshape(1, -1, *[1] * (y.ndim - 2))
    return _rounded(t, y, moved, 6, 7)


def _matmul(t: Through) -> list[Tangents]:
    a, b = _Operand(t, 0, 1, 2, -2), _Operand(t, 3, 4, 5, -1)
    return _rounded(t, *_real(t, "MatMul", a, b), 6, 7)


def _gemm(t: Through) -> list[Tangents]:
    turned = bool(t.fields.get("transB", 0))
    a, b = _Operand(t, 0, 1, 2, 0), _Operand(t, 3, 4, 5, 0 if turned else 1)
    y, moved = _real(t, "Gemm", a, b, **_kept(t))
    if len(t.inputs) > 6 and t.inputs[6] is not None:
        y = y + t.value(6) * float(t.fields.get("alpha", 1.0)) * t.value(1) * t.value(4)
    if len(t.inputs) > 7 and t.inputs[7] is not None:
        return _rounded(t, y, moved, 7, 8)
    return [moved]


def _conv_integer(t: Through) -> list[Tangents]:
    (x, dx), (w, dw) = _whole(t, 0, 2), _whole(t, 1, 3, 0)
    return [in_reals("Conv", [x, w], [dx, dw], t.compute, t.ties, **_kept(t))[1]]


def _matmul_integer(t: Through) -> list[Tangents]:
    (a, da), (b, db) = _whole(t, 0, 2, -2), _whole(t, 1, 3, -1)
    return [in_reals("MatMul", [a, b], [da, db], t.compute, t.ties)[1]]


def _matmul_to_float(t: Through) -> list[Tangents]:
    a, b = _Operand(t, 0, 2, 4, -2), _Operand(t, 1, 3, 5, -1)
    return [_real(t, "MatMul", a, b)[1]]


def _dynamic_matmul(t: Through) -> list[Tangents]:
    """The first operand is quantised inside, on its own range."""
    b = _Operand(t, 1, 2, 3, -1)
    moved = t.tangents[0]
    return [in_reals("MatMul", [t.value(0), b.real], [moved, None], t.compute, t.ties)[1]]


def _two(op_type: str) -> Callable[[Through], list[Tangents]]:
    def rule(t: Through) -> list[Tangents]:
        return _rounded(t, *_real(t, op_type, _Operand(t, 0, 1, 2), _Operand(t, 3, 4, 5)), 6, 7)

    return rule


def _concat(t: Through) -> list[Tangents]:
    parts = [_Operand(t, i, i + 1, i + 2) for i in range(2, len(t.inputs), 3)]
    return _rounded(t, *_real(t, "Concat", *parts, axis=int(t.fields["axis"])), 0, 1)


def _one(op_type: str) -> Callable[[Through], list[Tangents]]:
    def rule(t: Through) -> list[Tangents]:
        _refuse_last(t)
        return _rounded(t, *_real(t, op_type, _Operand(t, 0, 1, 2), **_kept(t)), 3, 4)

    return rule


QUANTISED: dict[tuple[str, str], Callable[[Through], list[Tangents]]] = {
    **{(domain, "QuantizeLinear"): _quantise for domain in ("", "com.microsoft")},
    **{(domain, "DequantizeLinear"): _dequantise for domain in ("", "com.microsoft")},
    ("", "DynamicQuantizeLinear"): _dynamic,
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    ("", "ConvInteger"): _conv_integer,
    ("", "MatMulInteger"): _matmul_integer,
    ("com.microsoft", "QGemm"): _gemm,
    ("com.microsoft", "QLinearAdd"): _two("Add"),
    ("com.microsoft", "QLinearMul"): _two("Mul"),
    ("com.microsoft", "QLinearConcat"): _concat,
    **{
        ("com.microsoft", f"QLinear{name}"): _one(name)
        for name in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
    },
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul_to_float,
    ("com.microsoft", "DynamicQuantizeMatMul"): _dynamic_matmul,
}

_MOVES = (*LINEAR, "MaxPool", "Identity")


def through(t: Through) -> list[Tangents]:
    """Return the tangents of the outputs of any node.

    Raises
    ------
    Unmeasured
        It has no real numbers behind it that are known here.
    """
    rule = QUANTISED.get((t.node.domain, t.node.op_type))
    if rule is not None:
        return [*rule(t), *[None] * (len(t.node.output) - 1)][: len(t.node.output)]
    rounds = "Quant" in t.node.op_type or t.node.op_type.startswith(("QLinear", "QAttention", "QEmbed", "QOrdered"))
    if t.node.domain and rounds and t.moving:
        raise Unmeasured(f"'{t.node.name or t.node.output[0]}' is a {t.node.domain}.{t.node.op_type}")
    whole = any(t.inputs[i] is not None and t.inputs[i].dtype.kind in "iu" for i in t.moving)  # type: ignore[union-attr]
    if whole and t.node.op_type not in (*_MOVES, "Cast", "Mul", "Relu", "Clip", "Max", "Min"):
        raise Unmeasured(f"'{t.node.name or t.node.output[0]}' ({t.node.op_type}) computes with integers")
    return propagate(t)


def step_behind(node: Any, inputs: list[Array | None]) -> tuple[Array | None, Array | None]:
    """Return the scale and zero point of the integers that a node gives, if it is a quantiser."""
    places = {
        "QuantizeLinear": (1, 2),
        "QLinearConv": (6, 7),
        "QLinearMatMul": (6, 7),
        "QLinearAdd": (6, 7),
        "QLinearMul": (6, 7),
        "QLinearConcat": (0, 1),
        "QGemm": (7, 8),
    }
    at = places.get(node.op_type, (3, 4) if node.op_type.startswith("QLinear") else None)
    if at is None or len(inputs) <= at[0]:
        return None, None
    return inputs[at[0]], inputs[at[1]] if len(inputs) > at[1] else None
