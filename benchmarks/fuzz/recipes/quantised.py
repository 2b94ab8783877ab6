"""Quantised values: rounded and read again, moved and compared as integers, multiplied as integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from benchmarks.fuzz.builder import MICROSOFT, Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe


def _code(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def parameters(b: Builder, array: np.ndarray, kind: Any = None) -> tuple[Value, Value]:
    """Return a scale and a zero point for numbers like these; now and then too small for the largest, never just so."""
    if b.dtype != np.float32:
        raise Undrawn("onnxruntime quantises float32")
    kind = np.dtype(kind or b.any([np.uint8, np.int8]))
    array = np.asarray(array, np.float64)
    largest = float(np.abs(array).max(initial=0)) or 1.0
    scale = largest / 127 * b.any([1.03, 1.03, 1.3, 0.7])
    zero = 128 + b.whole(-20, 20) if kind == np.uint8 else b.any([0, 0, b.whole(-20, 20)])
    if kind == np.uint8 and array.min(initial=0) >= 0:
        scale, zero = scale / 2, 0
    return b.const(np.array(scale, np.float32)), b.const(np.array(zero, kind))


def rounded(b: Builder, v: Value, kind: Any = None) -> tuple[Value, Value, Value]:
    """Return a quantised value, its scale and its zero point."""
    s, z = parameters(b, v.array, kind)
    return b.emit("QuantizeLinear", v, s, z), s, z


def fixed(b: Builder, *shape: int, kind: Any = np.int8) -> tuple[Value, Value, Value]:
    """Return quantised weights, their scale and zero point."""
    fan = int(np.prod(shape[1:], initial=1)) if len(shape) > 2 else shape[0]
    low, high = (0, 255) if np.dtype(kind) == np.uint8 else (-127, 127)
    w = b.const(b.rng.integers(low, high + 1, shape).astype(kind))
    zero = b.whole(110, 140) if np.dtype(kind) == np.uint8 else 0
    return w, b.const(np.array(1 / 70 / np.sqrt(fan), np.float32)), b.const(np.array(zero, kind))


@recipe("QuantizeLinear", "DequantizeLinear")
def pair(b: Builder, op_type: str) -> Value:
    """Rounded, and read again; sometimes on a scale for every channel."""
    v = b.data(b.any([2, 3, 4]))
    if b.chance(0.3) and v.rank > 1:
        largest = np.abs(np.moveaxis(v.array, 1, 0).reshape(v.shape[1], -1)).max(1) + 0.01
        if b.dtype != np.float32:
            raise Undrawn("onnxruntime quantises float32")
        s, z = b.const((largest / 120).astype(np.float32)), b.const(np.zeros(v.shape[1], np.int8))
        return b.emit("DequantizeLinear", b.emit("QuantizeLinear", v, s, z, axis=1), s, z, axis=1)
    q, s, z = rounded(b, v)
    return b.emit("DequantizeLinear", q, s, z)


@recipe("Relu", "Clip", "Max", "Min")
def ordered(b: Builder, op_type: str) -> Value:
    """Compared as integers."""
    v = b.data(b.any([2, 3, 4]))
    kind = np.int8 if op_type == "Relu" else b.any([np.int8, np.uint8])
    q, s, z = rounded(b, v, kind)
    edge = [b.const(np.array(n, kind)) for n in ((-50, 60) if kind == np.int8 else (100, 180))]
    if op_type == "Relu":
        found = b.emit(op_type, q)
    elif op_type == "Clip":
        found = b.emit(op_type, q, *edge)
    elif b.chance(0.5):
        found = b.emit(op_type, q, edge[0])
    else:
        found = b.emit(op_type, q, b.emit("QuantizeLinear", b.emit("Neg", v), s, z))
    return b.emit("DequantizeLinear", found, s, z)


@recipe(
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
)
def moved(b: Builder, op_type: str) -> Value:
    """Moved as integers, between rounding and reading."""
    rank = {"MaxPool": 4, "Resize": 4, "DepthToSpace": 4, "SpaceToDepth": 4, "Squeeze": 3}.get(op_type, b.any([2, 3]))
    v = b.data(rank, least=2 if op_type == "MaxPool" else 1)
    if op_type in ("DepthToSpace", "SpaceToDepth"):
        sizes = [4, 1, 2] if op_type == "DepthToSpace" else [1, 4, 2]
        v = b.ranked(v, 2) if v.rank != 2 else v
        v = b.reshape(b.emit("MatMul", v, b.weights(v.shape[1], 8)), [v.shape[0], *sizes])
    q, s, z = rounded(b, v)
    return b.emit("DequantizeLinear", _move(b, op_type, q, (s, z), v), s, z)


def _move(b: Builder, op_type: str, q: Value, by: tuple[Value, Value], v: Value) -> Value:
    axis = b.axis(q) % q.rank
    size = q.shape[axis]
    one_sample = b.form != "free"
    few = b.const(b.rng.integers(0, size, 2).astype(np.int64))
    if op_type in ("Identity", "Flatten", "Transpose"):
        perm = [0, *map(int, b.rng.permutation(range(1, q.rank)))]
        return b.emit(op_type, q, **({"perm": perm} if op_type == "Transpose" else {}))
    if op_type == "Concat":
        other = b.emit("QuantizeLinear", b.emit("Neg", v), *by)
        return b.emit(op_type, q, other, axis=axis)
    if op_type == "Where":
        condition = b.emit("Greater", v, b.scalar(0.1))
        return b.emit(op_type, condition, q, b.emit("QuantizeLinear", b.emit("Tanh", v), *by))
    if op_type == "Gather":
        return b.emit(op_type, q, few, axis=axis)
    if op_type == "Slice":
        return b.emit(op_type, q, b.ints(0), b.ints(max(size - 1, 1)), b.ints(axis))
    if op_type == "Split":
        if size < 2:
            raise Undrawn("one entry")
        return b.emit(op_type, q, b.ints(1, size - 1), axis=axis, outputs=2)[1]
    if op_type in ("Unsqueeze", "Squeeze"):
        more = b.emit("Unsqueeze", q, b.ints(1))
        return more if op_type == "Unsqueeze" else b.emit("Squeeze", more, b.ints(1))
    if op_type == "Tile":
        return b.emit(op_type, q, b.ints(*[2 if i == axis else 1 for i in range(q.rank)]))
    if op_type == "Expand":
        return b.emit(op_type, b.emit("Unsqueeze", q, b.ints(-1)), b.ints(*[1] * q.rank, 2))
    if op_type == "Pad":
        pads = [0] * q.rank * 2
        pads[axis] = 1
        return b.emit(op_type, q, b.ints(*pads), b.const(by[1].array))
    if op_type == "Reshape":
        return b.reshape(q, [q.shape[0], 1, int(np.prod(q.shape[1:]))])
    if op_type == "MaxPool":
        return b.emit(op_type, q, kernel_shape=[2, 2])
    if op_type == "Resize":
        scales = b.const(np.array([1, 1, 2, 1], np.float32))
        return b.emit(op_type, q, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric")
    if op_type == "DepthToSpace":
        return b.emit(op_type, q, blocksize=2, mode=b.any(["DCR", "CRD"]))
    if op_type == "SpaceToDepth":
        return b.emit(op_type, q, blocksize=2)
    if not one_sample:
        raise Undrawn("places for every sample")
    if op_type == "GatherND":
        return b.emit(op_type, q, b.const(b.rng.integers(0, q.shape[1], (q.shape[0], 2, 1))), batch_dims=1)
    places = list(q.shape)
    places[axis] = 1
    index = b.const(b.rng.integers(0, size, places).astype(np.int64))
    if op_type == "GatherElements":
        return b.emit(op_type, q, index, axis=axis)
    if op_type == "ScatterElements":
        update = b.emit("Slice", q, b.ints(0), b.ints(1), b.ints(axis))
        return b.emit(op_type, q, index, update, axis=axis)
    return b.emit(
        op_type, q, b.const(np.array([[0]], np.int64)), b.emit("Gather", q, b.const([q.shape[0] - 1]), axis=0)
    )


@recipe("Abs", "Add", "Cast", "Mul", "Neg", "Sub")
def by_hand(b: Builder, op_type: str) -> Value:
    """Read by arithmetic instead of DequantizeLinear."""
    q, s, z = rounded(b, b.data(b.any([2, 3, 4])))
    kind = b.any([np.int32, np.float32]) if op_type == "Cast" else np.int32
    wide = b.emit("Cast", q, to=_code(kind))
    wide = b.emit("Sub", wide, b.const(z.array.astype(kind)))
    if op_type in ("Abs", "Neg"):
        wide = b.emit(op_type, wide)
    elif op_type in ("Add", "Mul"):
        wide = b.emit(op_type, wide, b.const(np.array(b.whole(-3, 3) or 2, kind)))
    if kind == np.int32:
        wide = b.emit("Cast", wide, to=_code(np.float32))
    return b.emit("Mul", wide, s)


@recipe("DynamicQuantizeLinear", "MatMulInteger", f"{MICROSOFT}:MatMulIntegerToFloat")
def dynamic(b: Builder, op_type: str) -> Value:
    """Rounded on the range of the data, multiplied as integers, scaled back."""
    if b.dtype != np.float32:
        raise Undrawn("onnxruntime quantises float32")
    v = b.data(b.any([2, 3]))
    if op_type == "MatMulInteger" and b.chance(0.4):
        q, s, z = rounded(b, v, np.uint8)
    else:
        q, s, z = b.emit("DynamicQuantizeLinear", v, outputs=3)
    if op_type == "DynamicQuantizeLinear" and b.chance(0.5):
        return b.emit("DequantizeLinear", q, s, z)
    w, ws, wz = fixed(b, v.shape[-1], b.whole(2, 5), kind=b.any([np.int8, np.uint8]))
    if op_type.startswith(MICROSOFT):
        bias = [b.weights(w.shape[1])] if b.chance(0.5) else []
        return b.emit("MatMulIntegerToFloat", q, w, s, ws, z, wz, *bias, domain=MICROSOFT)
    product = b.emit("MatMulInteger", q, w, z, *([wz] if wz.array.any() or b.chance(0.5) else []))
    number = b.emit("Cast", product, to=_code(np.float32))
    return b.emit("Mul", number, b.emit("Mul", s, ws, batch=False))


@recipe(f"{MICROSOFT}:DynamicQuantizeMatMul")
def dynamic_matmul(b: Builder, op_type: str) -> Value:
    """All of that in one operator."""
    v = b.data(b.any([2, 3]))
    w, ws, wz = fixed(b, v.shape[-1], b.whole(2, 5))
    bias = [b.weights(w.shape[1])] if b.chance(0.5) else []
    return b.emit("DynamicQuantizeMatMul", v, w, ws, wz, *bias, domain=MICROSOFT)


@recipe("ConvInteger")
def conv_integer(b: Builder, op_type: str) -> Value:
    """A convolution of integers, scaled back."""
    v = b.data(4, least=2)
    q, s, z = rounded(b, v, np.uint8)
    w, ws, _ = fixed(b, 2, v.shape[1], 2, 2, kind=np.uint8 if b.chance(0.5) else np.int8)
    zero = b.const(np.array(120, np.uint8)) if w.dtype == np.uint8 else None
    product = b.emit(op_type, q, w, z, *([zero] if zero else []), kernel_shape=[2, 2], pads=b.any([None, [1, 0, 0, 1]]))
    return b.emit("Mul", b.emit("Cast", product, to=_code(np.float32)), b.const(s.array * ws.array))


@recipe("QLinearConv", f"{MICROSOFT}:QLinearConv", f"{MICROSOFT}:NhwcMaxPool")
def linear_conv(b: Builder, op_type: str) -> Value:
    """A convolution of quantised values; channels first or last."""
    v = b.data(4, least=2)
    kind = b.any([np.uint8, np.int8])
    q, s, z = rounded(b, v, kind)
    last = op_type.startswith(MICROSOFT)
    if last:
        q = b.emit("Transpose", q, perm=[0, 2, 3, 1])
    if op_type.endswith("NhwcMaxPool"):
        q = b.emit("NhwcMaxPool", q, domain=MICROSOFT, kernel_shape=[2, 2])
        return b.emit("DequantizeLinear", b.emit("Transpose", q, perm=[0, 3, 1, 2]), s, z)
    w, ws, wz = fixed(b, 2, v.shape[1], 2, 2)
    if b.chance(0.3):
        ws, wz = b.const(np.array([1, 0.6], np.float32) * ws.array), b.const(np.zeros(2, np.int8))
    bias = [b.const(b.rng.integers(-300, 300, 2).astype(np.int32))] if b.chance(0.6) else []
    ys, yz = parameters(b, v.array, kind)
    fields = {"channels_last": 1} if last else {}
    name, domain = ("QLinearConv", MICROSOFT if last else "")
    found = b.emit(name, q, s, z, w, ws, wz, ys, yz, *bias, domain=domain, kernel_shape=[2, 2], **fields)
    if last:
        found = b.emit("Transpose", found, perm=[0, 3, 1, 2])
    return b.emit("DequantizeLinear", found, ys, yz)


@recipe("QLinearMatMul", f"{MICROSOFT}:QGemm")
def linear_matmul(b: Builder, op_type: str) -> Value:
    """A product of quantised values."""
    v = b.data(2 if op_type.endswith("QGemm") else b.any([2, 3]))
    kind = b.any([np.uint8, np.int8])
    q, s, z = rounded(b, v, kind)
    w, ws, wz = fixed(b, v.shape[-1], b.whole(2, 5))
    ys, yz = parameters(b, v.array, kind)
    if op_type == "QLinearMatMul":
        return b.emit("DequantizeLinear", b.emit(op_type, q, s, z, w, ws, wz, ys, yz), ys, yz)
    bias = b.const(b.rng.integers(-300, 300, w.shape[1]).astype(np.int32)) if b.chance(0.6) else None
    if b.chance(0.3):
        return b.emit("QGemm", q, s, z, w, ws, wz, bias, domain=MICROSOFT)
    found = b.emit("QGemm", q, s, z, w, ws, wz, bias, ys, yz, domain=MICROSOFT)
    return b.emit("DequantizeLinear", found, ys, yz)


@recipe(*(f"{MICROSOFT}:QLinear{name}" for name in ("Add", "Mul", "Concat")))
def linear_binary(b: Builder, op_type: str) -> Value:
    """Of two quantised values, each on its own scale."""
    v = b.data(b.any([2, 3, 4]))
    other = b.emit(b.any(["Tanh", "Neg"]), v)
    kind = b.any([np.uint8, np.int8])
    one, two = rounded(b, v, kind), rounded(b, other, kind)
    name = op_type.partition(":")[2]
    size = v.array + other.array if name == "QLinearAdd" else v.array * other.array
    ys, yz = parameters(b, v.array if name == "QLinearConcat" else size, kind)
    if name == "QLinearConcat":
        found = b.emit(name, ys, yz, *one, *two, domain=MICROSOFT, axis=b.axis(v) % v.rank)
    else:
        found = b.emit(name, *one, *two, ys, yz, domain=MICROSOFT)
    return b.emit("DequantizeLinear", found, ys, yz)


@recipe(
    *(f"{MICROSOFT}:QLinear{name}" for name in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"))
)
def linear_unary(b: Builder, op_type: str) -> Value:
    """Of one quantised value."""
    name = op_type.partition(":")[2]
    v = b.data(4 if name.endswith("Pool") else b.any([2, 3]), least=2 if name.endswith("Pool") else 1)
    kind = np.uint8 if name != "QLinearLeakyRelu" else b.any([np.uint8, np.int8])
    q, s, z = rounded(b, v, kind)
    if name in ("QLinearSigmoid", "QLinearSoftmax"):
        ys, yz = b.const(np.array(1 / 256, np.float32)), b.const(np.array(0, kind))
    else:
        ys, yz = parameters(b, v.array, kind)
    fields: dict[str, object] = {
        "QLinearAveragePool": {"kernel_shape": [2, 2]},
        "QLinearGlobalAveragePool": {"channels_last": 0},
        "QLinearLeakyRelu": {"alpha": 0.2},
        "QLinearSoftmax": {"opset": b.opset, "axis": -1},
    }.get(name, {})
    return b.emit("DequantizeLinear", b.emit(name, q, s, z, ys, yz, domain=MICROSOFT, **fields), ys, yz)


@recipe(f"{MICROSOFT}:QuantizeLinear", f"{MICROSOFT}:DequantizeLinear")
def contrib_pair(b: Builder, op_type: str) -> Value:
    """The optimiser's own rounding, also to 16 bits."""
    v = b.data()
    kind = b.any([np.uint8, np.int8, np.uint16, np.int16])
    if np.dtype(kind).itemsize == 1:
        s, z = parameters(b, v.array, kind)
    else:
        s, z = b.const(np.array(2e-4, np.float32)), b.const(np.array(30000 if kind == np.uint16 else 0, kind))
    q = b.emit("QuantizeLinear", v, s, z, domain=MICROSOFT)
    return b.emit("DequantizeLinear", q, s, z, domain=MICROSOFT)


@recipe(f"{MICROSOFT}:QLinearWhere")
def linear_where(b: Builder, op_type: str) -> Value:
    """A choice between quantised values, each on its own scale."""
    v = b.data(b.any([2, 3]))
    kind = b.any([np.uint8, np.int8])
    one, two = rounded(b, v, kind), rounded(b, b.emit("Neg", v), kind)
    ys, yz = parameters(b, v.array, kind)
    condition = b.emit("Greater", v, b.scalar(0.1))
    found = b.emit("QLinearWhere", condition, *one, *two, ys, yz, domain=MICROSOFT)
    return b.emit("DequantizeLinear", found, ys, yz)


@recipe(f"{MICROSOFT}:QAttention")
def quantised_attention(b: Builder, op_type: str) -> Value:
    """Attention with its projections on integers."""
    v = b.data(2)
    size, steps = 4, 2
    rows = b.emit("MatMul", v, b.weights(v.shape[1], steps * size))
    q, s, z = rounded(b, b.reshape(rows, [v.shape[0], steps, size]), np.uint8)
    w, ws, wz = fixed(b, size, 3 * size)
    bias = b.weights(3 * size)
    return b.emit("QAttention", q, w, bias, s, ws, None, z, wz, domain=MICROSOFT, num_heads=2)


@recipe(f"{MICROSOFT}:DynamicQuantizeLSTM")
def quantised_lstm(b: Builder, op_type: str) -> Value:
    """An LSTM with weights of 8 bits, whose other operands are rounded on a scale of their own."""
    v = b.data(3)
    if b.dtype != np.float32:
        raise Undrawn("onnxruntime quantises float32")
    units = b.whole(2, 3)
    kind = b.any([np.int8, np.uint8])
    given: list[Value | None] = [b.emit("Transpose", v, perm=[1, 0, 2], batch=False)]
    scales: list[Value] = []
    for rows in (v.shape[2], units):
        w, _, zero = fixed(b, 1, rows, 4 * units, kind=kind)
        given.append(w)
        scales += [b.const(np.full(1, 0.02, np.float32)), b.const(np.full(1, zero.array, kind))]
    bias = b.weights(1, 8 * units) if b.chance(0.6) else None
    given += [bias, None, None, None, None, *scales]
    _, last = b.emit(op_type.partition(":")[2], *given, outputs=2, batch=False, domain=MICROSOFT, hidden_size=units)
    return b.emit("Transpose", last, perm=[1, 0, 2], batch=v.batch)
