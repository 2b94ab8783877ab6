"""Networks with a branch of integer values, and slopes of explanations held against those of differences."""

from __future__ import annotations

import numpy as np
import onnx

import fgonnx
from fgonnx.engine.graph.session import Session
from tests.support import model

RNG = np.random.default_rng(0)
W = (0.25 * RNG.normal(size=(4, 3, 3, 3))).astype(np.float32)
B = (0.2 * RNG.normal(size=4)).astype(np.float32)
STEPS = 0.03 * (np.arange(256) - 128)
SILU = (STEPS / (1 + np.exp(-STEPS))).astype(np.float32)
CONSTANTS = {
    "w": W,
    "b": B,
    "fc": RNG.normal(size=(4, 5)).astype(np.float32),
    # scales and zero points
    "s": np.float32(0.03),
    "s2": np.float32(0.025),
    "sc": np.array([0.02, 0.03, 0.04, 0.025], np.float32),
    "sc4": np.array([0.02, 0.03, 0.04, 0.025], np.float32).reshape(4, 1, 1),
    "z0": np.int8(0),
    "z3": np.int8(3),
    "zu": np.uint8(128),
    "zc": np.array([0, 3, -2, 1], np.int8),
    "zc4": np.array([0, 3, -2, 1], np.float32).reshape(4, 1, 1),
    # bounds
    "low": np.int8(-40),
    "high": np.int8(35),
    "l32": np.int32(-100),
    "h32": np.int32(90),
    "row": np.array([-128, 4, 30, -3], np.int8).reshape(4, 1, 1),
    # numbers
    "one8": np.int8(1),
    "oneu": np.uint8(1),
    "i2": np.int32(2),
    "i3": np.int32(3),
    "i5": np.array([5, -20, 0, 9], np.int32).reshape(4, 1, 1),
    "i7": np.int32(7),
    "i128": np.int32(128),
    "f0": np.float32(0),
    "f3": np.float32(3),
    "grey": np.float32(0.02),
    "i4": np.int32(4),
    "minus4": np.int32(-4),
    "square": np.int32(2),
    "thousand": np.int32(1000),
    "four": np.array([4], np.int64),
    "line": np.array([-1], np.int64),
    "by4": np.array([1, 4, 1, 1], np.int64),
    "map": np.array([-1, 4, 8, 8], np.int64),
    "shift": np.uint8(1),
    "shift32": np.uint32(3),
    "rows32": np.array([-128, 4, 30, -3], np.int32).reshape(4, 1, 1),
    "w32": np.random.default_rng(2).integers(-9, 9, (8, 8)).astype(np.int32),
    "fine": np.float32(0.0005),
    "z16": np.int16(5),
    "some4": np.array([0, 1, 2, 0], np.int64),
    "w8": np.random.default_rng(6).integers(-60, 60, (8, 8)).astype(np.int8),
    "columns": np.arange(-4, 4).astype(np.int8),
    "k8": np.random.default_rng(7).integers(-60, 60, (4, 4, 3, 3)).astype(np.int8),
    "pad8": np.int8(5),
    "hundredths": np.float32(1 / 255),
    "z0u": np.uint8(0),
    # scales and zero points of channels in reverse
    "sr": np.array([0.025, 0.04, 0.03, 0.02], np.float32),
    "zr": np.array([1, -2, 3, 0], np.int8),
    # tables of what 256 numbers mean: x sigmoid(x) and sigmoid(x) of steps of 0.03, from -128 on or from 0 on
    "silu": SILU,
    "silu8": np.roll(SILU, 128),
    "logistic": np.round(255 / (1 + np.exp(-STEPS))).astype(np.uint8),
    "names": np.random.default_rng(3).normal(size=(256, 4)).astype(np.float32),
    # axes, sizes and places
    "ax1": np.array([1], np.int64),
    "ax23": np.array([2, 3], np.int64),
    "ax3": np.array([3], np.int64),
    "last": np.int64(3),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "larger": np.array([1, 1, 1.5, 1.5], np.float32),
    "twice": np.array([1, 1, 2, 1], np.int64),
    "same": np.array([1, 4, 8, 8], np.int64),
    "flat": np.array([0, 4, 64], np.int64),
    "first": np.array([7], np.int64),
    "end": np.array([-9], np.int64),
    "back": np.array([-1], np.int64),
    "some": np.array([True, False, True, True]),
    "mask": np.array([True, False, True, True]).reshape(4, 1, 1),
    "order": np.array([2, 0, 1, 3], np.int64),
    "pick": np.array([1], np.int64),
    "at": np.array([[2]], np.int64),
    "k": np.array([2], np.int64),
    "wide": np.array([0, 0, 8, 8], np.int64),
    "onoff": np.array([0, 1], np.float32),
    "two": np.int64(2),
}


def network(
    branch: str, *, opset: int = 18, dtype: str = "float", more: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """Convolution y of x, then what the branch computes of it, t, then a dense head."""
    front = "y = Conv(x, w, b)" if dtype == "float" else ""
    text = f"""({dtype}[N,3,10,10] x) => (float[N,5] logits) {{
        {front}
        {branch}
        p = GlobalAveragePool(t)
        f = Flatten(p)
        logits = MatMul(f, fc)
    }}"""
    constants = CONSTANTS | (more or {})
    return model(text, opset, 9, {n: a for n, a in constants.items() if n in _words(text)})


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


def slope(source: onnx.ModelProto, x: np.ndarray, step: float, directions: int = 60) -> tuple[float, float]:
    """Return how the slopes of ONNX Runtime regress on those of the explanation, and their correlation."""
    explanation = fgonnx.Explainer(source, input_gradient=True)(x, 2)
    assert explanation.rounding_residual().max() < 1e-5
    assert explanation.input_gradient is not None
    session = Session(source)
    rng = np.random.default_rng(1)
    found, expected = [], []
    for _ in range(directions):
        v = np.sign(rng.normal(size=x.shape)).astype(np.float32)
        ends = [session.run({"x": (x + k * step * v).astype(x.dtype)})["logits"][:, 2] for k in (1, -1)]
        expected.append((ends[0] - ends[1]) / (2 * step))
        found.append((explanation.input_gradient * v).reshape(len(x), -1).sum(axis=1))
    g, t = np.array(found), np.array(expected)
    return float((g * t).sum() / (g * g).sum()), float(np.corrcoef(g.ravel(), t.ravel())[0, 1])


def pictures() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(3, 3, 10, 10)).astype(np.float32)


Q = "q = QuantizeLinear(y, s, z0)\n"
Q3 = "q = QuantizeLinear(y, s, z3)\n"
D = "\nd = DequantizeLinear(q2, s, z0)\nt = Add(y, d)"
D3 = "\nt = DequantizeLinear(q2, s, z3)"

DYNAMIC = """[dyn] q, qs, qz = DynamicQuantizeLinear(y)
        c = Cast<to=1>(q)
        z = Cast<to=1>(qz)
        c1 = Sub(c, z)
        t = Mul(c1, qs)"""
