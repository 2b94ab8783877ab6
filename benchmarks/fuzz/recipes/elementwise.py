"""Elementwise functions and arithmetic."""

from __future__ import annotations

import numpy as np
from onnx import helper

from benchmarks.fuzz.builder import Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe


@recipe(
    "Relu",
    "Abs",
    "Neg",
    "Sigmoid",
    "Tanh",
    "Sin",
    "Cos",
    "Atan",
    "Erf",
    "Softplus",
    "Softsign",
    "HardSwish",
    "Mish",
    "Sign",
    "Floor",
    "Ceil",
    "Round",
    "Identity",
    "Asinh",
    "Selu",
    "Sinh",
)
def plain(b: Builder, op_type: str) -> Value:
    """One value in, one out."""
    return b.emit(op_type, b.data())


@recipe("Exp", "Cosh", "Tan")
def steep(b: Builder, op_type: str) -> Value:
    """Of a small number."""
    return b.emit(op_type, b.between(b.data(), 1.0))


@recipe("Log", "Sqrt", "Reciprocal")
def of_positive(b: Builder, op_type: str) -> Value:
    """Of a positive number."""
    return b.emit(op_type, b.positive(b.data()))


@recipe("Acosh")
def above_one(b: Builder, op_type: str) -> Value:
    """Of a number above 1."""
    return b.emit(op_type, b.positive(b.data(), 1.2))


@recipe("Asin", "Acos", "Atanh")
def inside_one(b: Builder, op_type: str) -> Value:
    """Of a number between -1 and 1."""
    return b.emit(op_type, b.between(b.data()))


@recipe("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "Swish")
def with_alpha(b: Builder, op_type: str) -> Value:
    """With an attribute alpha, or its default."""
    alpha = round(float(b.rng.uniform(0.05, 1.5)), 3) if b.chance(0.7) else None
    return b.emit(op_type, b.data(), alpha=alpha)


@recipe("Gelu")
def gelu(b: Builder, op_type: str) -> Value:
    """Both forms."""
    return b.emit(op_type, b.data(), approximate=b.any([None, "none", "tanh"]))


@recipe("HardSigmoid")
def hard_sigmoid(b: Builder, op_type: str) -> Value:
    """With or without attributes."""
    if b.chance(0.5):
        return b.emit(op_type, b.data())
    return b.emit(op_type, b.data(), alpha=0.3, beta=0.4)


@recipe("Shrink")
def shrink(b: Builder, op_type: str) -> Value:
    """With a threshold and a bias."""
    return b.emit(op_type, b.data(), lambd=b.any([0.2, 0.5]), bias=b.any([0.0, 0.3]))


@recipe("Clip")
def clip(b: Builder, op_type: str) -> Value:
    """With both bounds, one, or none; bounds from 0 to 6 among them."""
    low, high = b.any([(0.0, 6.0), (-0.5, 0.8), (None, 0.6), (-0.3, None), (None, None), (0.0, 1.0)])
    return b.emit(op_type, b.data(), None if low is None else b.scalar(low), None if high is None else b.scalar(high))


@recipe("Add", "Sub", "Mul")
def binary(b: Builder, op_type: str) -> Value:
    """Of two values of the graph, or of one and a constant, in either order."""
    v = b.data()
    pair = [v, b.like(v)] if b.chance(0.9) else [v, v]
    return b.emit(op_type, *(pair[::-1] if b.chance(0.3) else pair))


@recipe("Div")
def div(b: Builder, op_type: str) -> Value:
    """By a number that is not near 0, from the graph or constant."""
    v = b.data()
    if b.chance(0.3):
        return b.emit(op_type, v, b.scalar(float(b.any([0.5, -2.0, 3.0]))))
    below = b.positive(b.like(v)) if b.chance(0.7) else b.positive(v)
    return b.emit(op_type, b.scalar(1.0) if b.chance(0.2) else v, below)


@recipe("Pow")
def power(b: Builder, op_type: str) -> Value:
    """By a constant, or of two values."""
    v = b.data()
    way = b.whole(0, 3)
    if way == 0:
        return b.emit(op_type, v, b.const(np.array(b.any([2, 3]), b.any([np.int64, b.dtype]))))
    if way == 1:
        return b.emit(op_type, b.positive(v), b.scalar(b.any([0.5, -1.0, 1.7])))
    if way == 2:
        return b.emit(op_type, b.positive(v), b.between(b.like(v)))
    return b.emit(op_type, b.scalar(2.0), b.between(v))


@recipe("Mod")
def mod(b: Builder, op_type: str) -> Value:
    """As C has it, the sign of the dividend."""
    return b.emit(op_type, b.data(), b.scalar(b.any([0.7, 1.5])), fmod=1)


@recipe("Max", "Min", "Sum", "Mean")
def several(b: Builder, op_type: str) -> Value:
    """Of one to three values."""
    v = b.data()
    return b.emit(op_type, v, *(b.like(v) for _ in range(b.whole(0, 2))))


@recipe("PRelu")
def prelu(b: Builder, op_type: str) -> Value:
    """With a slope of one entry or by channels."""
    v = b.data()
    slope = b.weights(1) if v.rank < 2 or b.chance(0.4) else b.weights(*[v.shape[1], *[1] * (v.rank - 2)])
    return b.emit(op_type, v, slope)


@recipe("Cast", "CastLike")
def cast(b: Builder, op_type: str) -> Value:
    """To another floating-point type, something there, and back."""
    v = b.data()
    to = b.any([t for t in (np.float16, np.float32, np.float64) if np.dtype(t) != b.dtype])

    def turned(u: Value, kind: np.dtype) -> Value:
        if op_type == "CastLike":
            return b.emit(op_type, u, b.const(np.zeros(1, kind)))
        return b.emit(op_type, u, to=int(helper.np_dtype_to_tensor_dtype(kind)))

    other = turned(v, np.dtype(to))
    if b.chance(0.5):
        other = b.emit(b.any(["Relu", "Tanh", "Neg"]), other)
    return turned(other, b.dtype)


@recipe("Where", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Equal")
def where(b: Builder, op_type: str) -> Value:
    """A choice by a comparison of values of the graph, of constants, or of its sizes."""
    v = b.data()
    other = b.like(v)
    compare = op_type if op_type in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual") else "Greater"
    if op_type == "Equal":
        rounded = b.emit("Cast", v, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(np.int64))))
        condition = b.emit("Equal", rounded, b.const(np.array(0, np.int64)))
    elif op_type == "Where" and b.chance(0.3):
        shape = [1 if i == 0 or b.chance(0.3) else d for i, d in enumerate(v.shape)]
        condition = b.const(b.rng.random(shape) < 0.5)
    else:
        condition = b.emit(compare, v, b.like(v) if b.chance(0.4) else b.scalar(b.any([0.0, 0.3])))
    if op_type == "And":
        condition = b.emit("And", condition, b.emit("Less", v, b.scalar(0.9)))
    if op_type == "Not":
        condition = b.emit("Not", condition)
    if b.chance(0.3):
        return b.emit("Where", condition, v, b.scalar(b.any([0.0, -1.0])))
    return b.emit("Where", condition, other, v)


@recipe("Dropout")
def dropout(b: Builder, op_type: str) -> Value:
    """As it is left in files for inference."""
    v = b.data()
    if b.chance(0.4):
        return b.emit(op_type, v)
    if b.chance(0.5):
        return b.emit(op_type, v, b.scalar(0.3), outputs=2)[0]
    return b.emit(op_type, v, b.scalar(0.3), b.const(np.array(False)))


@recipe("Hardmax")
def hardmax(b: Builder, op_type: str) -> Value:
    """Along an axis."""
    v = b.data()
    return b.emit(op_type, v, axis=b.axis(v))


@recipe("Range")
def ramp(b: Builder, op_type: str) -> Value:
    """A row of numbers that begins where the input says."""
    v = b.data()
    if v.dtype != np.float32 or b.form == "free":
        raise Undrawn("one number for all samples")
    start = b.emit("ReduceMean", v, keepdims=0, batch=False)
    row = b.emit(op_type, start, b.emit("Add", start, b.scalar(3.5)), b.scalar(1.0))
    return b.emit("Add", b.emit("ReduceMean", v, keepdims=1), row)
