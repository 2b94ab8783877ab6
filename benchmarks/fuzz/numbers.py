"""The operators of quantised graphs in real numbers, for `onnx.reference`: rounding is recorded once, then held fixed.

At the point of a recording everything rounds as the model does. From there on every rounding adds the same error as
there, and what was saturated stays so: a smooth function through the same point, whose derivative is the
straight-through one. Integers are real numbers in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from onnx.reference.op_run import OpRun

from benchmarks.fuzz.builder import BLOCKED, MICROSOFT, Array
from benchmarks.fuzz.fused import attended, blocked, floating, plain, standard_ones

LEAN = "Lean"
"""The operator before operators with a kink, which moves what it takes by a little."""

KINKED = {
    **dict.fromkeys(("Abs", "Celu", "Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu"), 1e-4),
    **dict.fromkeys(("Selu", "Shrink", "ThresholdedRelu", "Max", "Min", "ReduceL1", "LpPool", "Softsign"), 1e-4),
    **dict.fromkeys(("GlobalMaxPool", "MaxPool", "NhwcMaxPool", "ReduceMax", "ReduceMin", "Sign"), 1e-3),
    **dict.fromkeys(("FusedGemm", "QLinearLeakyRelu"), 1e-2),
}
"""Operators with a kink, and by how much their first operand is moved: little beside values, much beside steps."""

LEANINGS = ("down", "up", *range(6))
"""Ways to move them: all to one side, or each to one of its own."""


class Tape:
    """What was rounded and chosen at the point of the recording, in the order of the calls.

    Attributes
    ----------
    lean : str or int or None
        How the operands of operators with a kink are moved, one of `LEANINGS`; None leaves them where they are.
    """

    def __init__(self) -> None:
        self.lean: str | int | None = None
        self.kept: list[tuple[Array, Array, Array]] = []
        self.choices: list[Any] = []
        self.recording = True
        self.at = self.chosen = 0

    def start(self, *, recording: bool) -> None:
        """Begin a run."""
        self.recording, self.at, self.chosen = recording, 0, 0
        if recording:
            self.kept.clear()
            self.choices.clear()

    def rounded(self, real: Array, low: float, high: float, way: Any = np.rint, *, saturates: bool = True) -> Array:
        """Round: now, or as it was recorded. What is rounded on its own range saturates nowhere."""
        real = np.asarray(real, np.float64)
        if self.recording:
            q = np.clip(way(real), low, high)
            inside = ((real >= low) & (real <= high)) | (not saturates)
            self.kept.append((q - real, inside, q))
        delta, inside, q = self.kept[self.at]
        self.at += 1
        return np.where(inside, real + delta, q)

    def leant(self, x: Array, size: float) -> Array:
        """Move a value off the kinks that it may stand on, alike in every run."""
        if self.lean is None or np.asarray(x).dtype.kind != "f":
            return x
        ramp = np.linspace(1, 2, x.size).reshape(x.shape)
        if isinstance(self.lean, str):
            return x + size * (ramp if self.lean == "up" else -ramp)
        return x + size * np.random.default_rng(self.lean).choice((-1.0, 1.0), x.shape) * ramp

    def held(self, value: Any) -> Any:
        """Return a choice as it was recorded."""
        if self.recording:
            self.choices.append(value)
        self.chosen += 1
        return self.choices[self.chosen - 1]


def span(dtype: Any) -> tuple[float, float]:
    """Return the smallest and largest number of an integer type."""
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


def placed(parameter: Array, rank: int, axis: int) -> Array:
    """Return a scale or zero point that broadcasts along an axis."""
    parameter = np.asarray(parameter, np.float64)
    if parameter.ndim != 1 or parameter.size == 1:
        return parameter.reshape(()) if parameter.size == 1 else parameter
    return parameter.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def real(q: Array, s: Array, z: Array | None, axis: int = 1) -> Array:
    """Return s (q - z)."""
    q = np.asarray(q, np.float64)
    zero = 0.0 if z is None else placed(z, q.ndim, axis)
    return (q - zero) * placed(s, q.ndim, axis)


def operators(tape: Tape, constant: frozenset[str] = frozenset()) -> list[type[OpRun]]:
    """Return the implementations that take the place of those of `onnx.reference`.

    Parameters
    ----------
    tape : Tape
        What is held fixed.
    constant : set of str
        Quantisers whose results are held fixed, not what they add.
    """

    def define(name: str, run: Any, domain: str = "") -> type[OpRun]:
        return type(name, (OpRun,), {"op_domain": domain, "_run": run})

    def quantise(self: Any, x: Array, s: Array, z: Array | None = None, axis: int = 1, **_: Any) -> tuple[Array]:
        zero = np.zeros((), np.uint8) if z is None else z
        if getattr(self.onnx_node, "name", "") in constant:
            low, high = span(zero.dtype)
            q = np.clip(np.rint(x / placed(s, x.ndim, axis) + placed(zero, x.ndim, axis)), low, high)
            return (np.asarray(tape.held(q), np.float64),)
        return (tape.rounded(x / placed(s, x.ndim, axis) + placed(zero, x.ndim, axis), *span(zero.dtype)),)

    def lean(self: Any, x: Array, size: float) -> tuple[Array]:
        return (tape.leant(x, size),)

    def dequantise(self: Any, q: Array, s: Array, z: Array | None = None, axis: int = 1, **_: Any) -> tuple[Array]:
        return (real(q, s, z, axis),)

    def dynamic(self: Any, x: Array) -> tuple[Array, Array, Array]:
        low, high = np.float32(min(x.min(), 0)), np.float32(max(x.max(), 0))
        scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
        zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
        scale, zero = tape.held((np.float64(scale), np.array(zero, np.uint8)))
        return tape.rounded(x / scale + float(zero), 0, 255, saturates=False), np.asarray(scale), zero

    def cast(self: Any, x: Array, to: int, **_: Any) -> tuple[Array]:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(to))
        if kind.kind in "iu" and np.asarray(x).dtype.kind == "f":
            return (tape.rounded(x, *span(kind), way=np.trunc),)
        if kind.kind == "f":
            return (np.asarray(x, np.float64),)
        return (np.asarray(x).astype(kind),)

    def equal(self: Any, a: Array, b: Array) -> tuple[Array]:
        return (tape.held(np.asarray(np.isclose(a, b, rtol=0, atol=1e-9) if a.dtype.kind == "f" else a == b)),)

    def matmul_integer(self: Any, a: Array, b: Array, za: Any = None, zb: Any = None) -> tuple[Array]:
        return (real(a, np.ones(()), za) @ real(b, np.ones(()), zb),)

    def conv_integer(self: Any, x: Array, w: Array, zx: Any = None, zw: Any = None, **fields: Any) -> tuple[Array]:
        return (plain("Conv", real(x, np.ones(()), zx), real(w, np.ones(()), zw, 0), **fields),)

    def requantise(y: Array, s: Array, z: Array) -> tuple[Array]:
        return (tape.rounded(y / placed(s, y.ndim, 1) + placed(z, y.ndim, 1), *span(z.dtype)),)

    def qlinear_conv(
        self: Any, x: Any, s: Any, z: Any, w: Any, ws: Any, wz: Any, ys: Any, yz: Any, bias: Any = None, **fields: Any
    ) -> tuple[Array]:
        last = fields.pop("channels_last", 0)
        x = real(x, s, z)
        x = np.moveaxis(x, -1, 1) if last else x
        added = None if bias is None else bias * (np.asarray(s, np.float64) * ws)
        y = plain("Conv", x, real(w, ws, wz, 0), added, **fields)
        return requantise(np.moveaxis(y, 1, -1) if last else y, ys, yz)

    def qlinear_matmul(self: Any, a: Any, s: Any, z: Any, b: Any, bs: Any, bz: Any, ys: Any, yz: Any) -> tuple[Array]:
        return requantise(real(a, s, z) @ real(b, bs, bz), ys, yz)

    def qgemm(
        self: Any, a: Any, s: Any, z: Any, b: Any, bs: Any, bz: Any, c: Any = None, ys: Any = None, yz: Any = None
    ) -> tuple[Array]:
        y = real(a, s, z) @ real(b, bs, bz) + (0 if c is None else c * (np.asarray(s, np.float64) * bs))
        return (y,) if ys is None else requantise(y, ys, yz)

    def qlinear_two(name: str) -> Any:
        def run(self: Any, a: Any, s: Any, z: Any, b: Any, bs: Any, bz: Any, ys: Any, yz: Any) -> tuple[Array]:
            one, two = real(a, s, z), real(b, bs, bz)
            return requantise(one + two if name == "Add" else one * two, ys, yz)

        return run

    def qlinear_concat(self: Any, ys: Any, yz: Any, *parts: Any, axis: int = 0) -> tuple[Array]:
        found = [real(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
        return requantise(np.concatenate(found, axis), ys, yz)

    def qlinear_one(name: str) -> Any:
        def run(self: Any, x: Any, s: Any, z: Any, ys: Any, yz: Any, **fields: Any) -> tuple[Array]:
            for extra in ("channels_last", "opset"):
                fields.pop(extra, None)
            return requantise(plain(name, real(x, s, z), **fields), ys, yz)

        return run

    def dynamic_matmul(self: Any, a: Any, b: Any, bs: Any, bz: Any = None, bias: Any = None, **_: Any) -> tuple[Array]:
        q, s, z = dynamic(self, a)
        return (real(q, s, z) @ real(b, bs, bz) + (0 if bias is None else bias),)

    def to_float(
        self: Any, a: Any, b: Any, s: Any, bs: Any, z: Any = None, bz: Any = None, bias: Any = None
    ) -> tuple[Array]:
        return (real(a, s, z) @ real(b, bs, bz) + (0 if bias is None else bias),)

    def nhwc_pool(self: Any, x: Any, **fields: Any) -> tuple[Array]:
        return (np.moveaxis(plain("MaxPool", np.moveaxis(x, -1, 1), **fields), 1, -1),)

    def where(self: Any, c: Any, a: Any, s: Any, z: Any, b: Any, bs: Any, bz: Any, ys: Any, yz: Any) -> tuple[Array]:
        return requantise(np.where(c, real(a, s, z), real(b, bs, bz)), ys, yz)

    def attention(
        self: Any, x: Any, w: Any, bias: Any, s: Any, ws: Any, mask: Any = None, z: Any = None, wz: Any = None, **f: Any
    ) -> tuple[Array]:
        return (attended(*np.split(real(x, s, z) @ real(w, ws, wz) + bias, 3, -1), f["num_heads"]),)

    def lstm(self: Any, x: Array, w: Array, r: Array, bias: Any = None, *rest: Any, **fields: Any) -> Any:
        ws, wz, rs, rz = rest[4:]
        units = fields["hidden_size"]
        added = 0.0 if bias is None else bias[0, : 4 * units] + bias[0, 4 * units :]
        h = c = np.zeros((x.shape[1], units))
        q, s, z = dynamic(self, x)
        for step in real(q, s, z) @ real(w[0], ws, wz):
            q, s, z = dynamic(self, h)
            i, o, f, g = np.split(step + real(q, s, z) @ real(r[0], rs, rz) + added, 4, -1)
            i, o, f = (1 / (1 + np.exp(-v)) for v in (i, o, f))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
        return np.zeros(0), h[None]

    standard = {
        **standard_ones(),
        "QuantizeLinear": quantise,
        "DequantizeLinear": dequantise,
        "DynamicQuantizeLinear": dynamic,
        "Cast": cast,
        "Equal": equal,
        "MatMulInteger": matmul_integer,
        "ConvInteger": conv_integer,
        "QLinearConv": qlinear_conv,
        "QLinearMatMul": qlinear_matmul,
    }
    fused = {
        "QuantizeLinear": quantise,
        "DequantizeLinear": dequantise,
        "QLinearConv": qlinear_conv,
        "QGemm": qgemm,
        "QLinearAdd": qlinear_two("Add"),
        "QLinearMul": qlinear_two("Mul"),
        "QLinearConcat": qlinear_concat,
        "QLinearAveragePool": qlinear_one("AveragePool"),
        "QLinearGlobalAveragePool": qlinear_one("GlobalAveragePool"),
        "QLinearLeakyRelu": qlinear_one("LeakyRelu"),
        "QLinearSigmoid": qlinear_one("Sigmoid"),
        "QLinearSoftmax": qlinear_one("Softmax"),
        "DynamicQuantizeMatMul": dynamic_matmul,
        "MatMulIntegerToFloat": to_float,
        "NhwcMaxPool": nhwc_pool,
        "QLinearWhere": where,
        "QAttention": attention,
        "DynamicQuantizeLSTM": lstm,
        **floating(),
        LEAN: lean,
    }
    found = [define(name, run) for name, run in standard.items()]
    found += [define(name, run, MICROSOFT) for name, run in fused.items()]
    return found + [define(name, run, BLOCKED) for name, run in blocked().items()]
