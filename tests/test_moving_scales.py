"""QuantizeLinear and DequantizeLinear by a scale that the input decides: as the same quantiser written by hand."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError
from tests.support import model

SCALE = "a = Abs(x) m = ReduceMax<keepdims=0>(a) s = Div(m, most)"
RANGE = """low = ReduceMin<keepdims=0>(x) high = ReduceMax<keepdims=0>(x) wide = Sub(high, low) s = Div(wide, full)
    n = Neg(low) zf = Div(n, s) zr = Round(zf) zc = Clip(zr, zero, full)"""
WEIGHTS = {
    "w": np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32),
    "w8": np.random.default_rng(6).integers(-127, 128, (6, 6)).astype(np.int8),
    "least": np.float32(-128),
    "most": np.float32(127),
    "full": np.float32(255),
    "zero": np.float32(0),
    "z": np.int8(0),
    "z3": np.int8(3),
    "three": np.float32(3),
    "fixed": np.float32(0.02),
}
POINT = np.random.default_rng(1).normal(size=(1, 6)).astype(np.float32)

#: With the operators, and by hand.
PAIRS = {
    "both": (
        f"{SCALE} [Q] q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)",
        f"{SCALE} b = Div(x, s) [Q] r = Round(b) k = Clip(r, least, most) d = Mul(k, s)",
    ),
    "a zero point": (
        f"{SCALE} [Q] q = QuantizeLinear(x, s, z3) d = DequantizeLinear(q, s, z3)",
        f"""{SCALE} b = Div(x, s) [Q] r = Round(b) r3 = Add(r, three) k = Clip(r3, least, most) k3 = Sub(k, three)
            d = Mul(k3, s)""",
    ),
    "a zero point that follows from the input": (
        f"{RANGE} zi = Cast<to=2>(zc) [Q] q = QuantizeLinear(x, s, zi) d = DequantizeLinear(q, s, zi)",
        f"""{RANGE} b = Div(x, s) [Q] r = Round(b) rz = Add(r, zc) k = Clip(rz, zero, full) kz = Sub(k, zc)
            d = Mul(kz, s)""",
    ),
    "read by the scale alone": (
        f"{SCALE} [Q] q = QuantizeLinear(x, fixed, z) d = DequantizeLinear(q, s, z)",
        f"{SCALE} b = Div(x, fixed) [Q] r = Round(b) k = Clip(r, least, most) d = Mul(k, s)",
    ),
    "rounded by the scale alone": (
        f"{SCALE} [Q] q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, fixed, z)",
        f"{SCALE} b = Div(x, s) [Q] r = Round(b) k = Clip(r, least, most) d = Mul(k, fixed)",
    ),
    "moved between": (
        f"""{SCALE} [Q] q = QuantizeLinear(x, s, z) t = Transpose<perm=[1,0]>(q) u = Transpose<perm=[1,0]>(t)
            d = DequantizeLinear(u, s, z)""",
        f"{SCALE} b = Div(x, s) [Q] r = Round(b) k = Clip(r, least, most) d = Mul(k, s)",
    ),
    "compared between": (
        f"{SCALE} [Q] q = QuantizeLinear(x, s, z) t = Max(q, z) d = DequantizeLinear(t, s, z)",
        f"{SCALE} b = Div(x, s) [Q] r = Round(b) k0 = Clip(r, least, most) k = Relu(k0) d = Mul(k, s)",
    ),
    "multiplied as integers": (
        f"{SCALE} [Q] q = QuantizeLinear(x, s, z) i = MatMulInteger(q, w8, z, z) c = Cast<to=1>(i) d = Mul(c, s)",
        f"""{SCALE} b = Div(x, s) [Q] r = Round(b) k = Clip(r, least, most) wf = Cast<to=1>(w8) c = MatMul(k, wf)
            d = Mul(c, s)""",
    ),
    "weights": (
        f"{SCALE} f = DequantizeLinear(w8, s, z) [Q] d = MatMul(x, f)",
        f"{SCALE} wf = Cast<to=1>(w8) f = Mul(wf, s) [Q] d = MatMul(x, f)",
    ),
    "scales by channel": (
        """a = Abs(x) m = ReduceMax<axes=[0], keepdims=0>(a) h = Add(m, three) s = Div(h, most)
            [Q] q = QuantizeLinear<axis=1>(x, s) d = DequantizeLinear<axis=1>(q, s)""",
        """a = Abs(x) m = ReduceMax<axes=[0], keepdims=1>(a) h = Add(m, three) s = Div(h, most) b = Div(x, s)
            [Q] r = Round(b) k = Clip(r, zero, full) d = Mul(k, s)""",
    ),
    "a residue": (
        f"{SCALE} [Q] q = QuantizeLinear(x, s, z) e = DequantizeLinear(q, s, z) g = Sub(x, e) d = Mul(g, most)",
        f"""{SCALE} b = Div(x, s) [Q] r = Round(b) k = Clip(r, least, most) e = Mul(k, s) g = Sub(x, e)
            d = Mul(g, most)""",
    ),
}


def network(body: str, opset: int = 13) -> onnx.ModelProto:
    text = f"(float[1,6] x) => (float[1,3] y) {{ {body} u1 = Tanh(d) y = MatMul(u1, w) }}"
    return model(text, opset, weights=WEIGHTS)


@pytest.mark.parametrize("case", PAIRS)
def test_it_is_explained_as_the_same_quantiser_by_hand(case: str) -> None:
    source, by_hand = map(network, PAIRS[case])
    found, right = (fgonnx.Explainer(m, input_gradient=True, cache=False)(POINT, 1) for m in (source, by_hand))
    np.testing.assert_allclose(found.outputs["y"], Session(source).run({"x": POINT})["y"], atol=1e-5)
    np.testing.assert_allclose(found.input_gradient, right.input_gradient, rtol=1e-4, atol=1e-5)
    named, by_hand_named = (
        {("straight" in n, q) for n in e.notes for q in re.findall("'.*?'", n)} for e in (found, right)
    )
    assert named == by_hand_named


REFUSED = {
    "QLinearMatMul": f"""{SCALE} q = QuantizeLinear(x, fixed, z)
        [bad] i = QLinearMatMul(q, fixed, z, w8, fixed, z, s, z) d = DequantizeLinear(i, fixed, z)""",
    "float8": f"{SCALE} [bad] q = QuantizeLinear(x, s, z8) d = DequantizeLinear(q, s, z8)",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_by_hand_is_refused_by_the_models_own_names(case: str) -> None:
    source = network(REFUSED[case], 21)
    source.graph.initializer.append(onnx.helper.make_tensor("z8", onnx.TensorProto.FLOAT8E4M3FN, (), [0.0]))
    with pytest.raises(UnsupportedError) as caught:
        fgonnx.rewrite(source)
    own = {(n.name or f"{n.op_type}_{i}") for i, n in enumerate(source.graph.node)}
    assert "bad" in {r.node for r in caught.value.refusals} <= own
    assert any("its scale depends on the input" in r.why for r in caught.value.refusals)


def test_what_a_dynamic_quantiser_picks_stays_held_fixed() -> None:
    body = "[Q] q, s, o = DynamicQuantizeLinear(x) d = DequantizeLinear(q, s, o)"
    found = fgonnx.Explainer(network(body), input_gradient=True, cache=False)(POINT, 1)
    slope = fgonnx.Explainer(network("d = Identity(x)"), input_gradient=True, cache=False)(POINT, 1).input_gradient
    np.testing.assert_allclose(found.input_gradient, slope, rtol=0.05, atol=0.01)
    assert "`DynamicQuantizeLinear` 'Q' is passed straight through as a quantiser" in found.notes
