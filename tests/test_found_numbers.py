"""What random graphs found (`benchmarks/fuzz/`): numbers that cancel, overflow or are rounded."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from fgonnx.errors import ModelError
from tests.support import model
from tests.test_found import draw, explained

HALF_MASKS = {
    "a mask of minus infinity": "m = Where(keep, zero, endless) s = Add(x, m) y = Softmax(s)",
    "two masks that overflow together": "a = Add(x, lowest) s = Add(a, lowest) y = Softmax(s)",
    "a mask that is scaled": "m = Mul(lowest, big) s = Add(x, m) y = Softmax(s)",
    "hidden entries replaced": "y0 = Where(keep, x, endless) l = LogSoftmax(y0) y = Max(l, lowest)",
    "the largest of what is left": "s = Add(x, hidden) y = ReduceMax<keepdims=1>(s, last)",
}


@pytest.mark.parametrize("name", HALF_MASKS)
def test_infinities_of_half_precision_leave_the_certificate_finite(name):
    graph = f"""(float16[N,4] x) => (float16[N,k] y) <int64[1] last = {{1}}, bool[4] keep = {{1, 0, 1, 1}}> {{
        {HALF_MASKS[name]}
    }}"""
    weights = {
        "zero": np.zeros((), np.float16),
        "endless": np.array(-np.inf, np.float16),
        "lowest": np.array([0, -65504, 0, 0], np.float16),
        "hidden": np.array([0, -np.inf, 0, 0], np.float16),
        "big": np.array(3, np.float16),
    }
    found = explained(model(graph, weights=weights), draw(2, 4, dtype=np.float16))
    assert np.isfinite(found.input_gradient).all()
    assert np.isfinite(found.saliency).all()


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_the_standards_attention_in_half_precision(kind, causal):
    dtype = {np.float16: "float16", np.float32: "float"}[kind]
    graph = f"({dtype}[N,2,3,4] x) => ({dtype}[N,2,3,4] y) {{ y = Attention<is_causal={causal}>(x, x, x) }}"
    found = explained(model(graph, 23, 10), draw(2, 2, 3, 4, dtype=kind))
    assert np.isfinite(found.completeness).all()


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize("opset", [14, 17, 22])
def test_variances_of_numbers_far_from_zero_do_not_cancel(opset, kind):
    graph = f"""({kind}[N,2,3] x) => ({kind}[N,2,3] y) {{
        a = Add(x, far) n = MeanVarianceNormalization<axes=[2]>(a) y = Tanh(n)
    }}"""
    dtype = {"float": np.float32, "float16": np.float16}[kind]
    far = np.array(900 if kind == "float" else 20, dtype)
    explained(model(graph, opset, weights={"far": far}), draw(2, 2, 3, dtype=dtype))


def test_statistics_of_float64_are_computed_in_it():
    graph = """(double[N,2,3] x) => (double[N,2,3] y) <double[3] w = {1, -2, 0.5}> {
        y = RMSNormalization<axis=-1, epsilon=0.1>(x, w)
    }"""
    found = explained(model(graph, 23, 10), draw(2, 2, 3, dtype=np.float64))
    assert np.abs(found.completeness).max() < 1e-12


@pytest.mark.parametrize(("size", "length", "step"), [(8, 4, 2), (9, 4, 4), (11, 5, 2), (7, 3, 5)])
def test_a_short_time_transform_of_float64(size, length, step):
    frames = (size - length) // step + 1
    graph = f"""(double[N,{size},1] x) => (double[N,{frames * (length // 2 + 1) * 2}] y)
        <int64 step = {{{step}}}, int64[2] flat = {{0, -1}}> {{ t = STFT(x, step, w) y = Reshape(t, flat) }}"""
    w = np.linspace(1, 2, length)
    x = draw(2, size, 1, dtype=np.float64)
    found = explained(model(graph, weights={"w": w}), x)
    transform = np.fft.rfft(np.eye(length) * w, axis=1)  # (place, bin)
    parts = np.stack([transform.real, transform.imag], 2).reshape(length, -1)
    for i, target in enumerate(found.target):
        frame, bin_ = divmod(int(np.ravel(target)[0]), parts.shape[1])
        right = np.zeros(size)
        right[frame * step : frame * step + length] = parts[:, bin_]
        np.testing.assert_allclose(found.input_gradient[i, :, 0], right, atol=1e-12)


def test_raising_an_old_file_is_not_blamed_for_rounding():
    # Behind Ceil, numbers of 0 to 1 are all 1: what is left of a constant row is rounding, divided by 1e-9.
    graph = """(float[N,1,2,3] x) => (float[N,1,2,3] y) {
        c = Ceil(x) t = Tanh(c) m = MeanVarianceNormalization<axes=[2, 3]>(t) s = Sin(x) y = Add(m, s)
    }"""
    explained(model(graph, 15), 3 * draw(2, 1, 2, 3))


@pytest.mark.parametrize("body", ["y = Mul(c, w)", "m = Mul(c, w) y = Abs(m)", "m = Add(c, w) y = Neg(m)"])
def test_bytes_in_a_graph_of_float64(body):
    graph = f"(uint8[N,4] x) => (double[N,4] y) <double w = {{0.3}}> {{ c = Cast<to=11>(x) {body} }}"
    found = explained(model(graph), np.array([[1, 20, 3, 250], [9, 8, 0, 7]], np.uint8))
    assert np.abs(found.completeness).max() < 1e-4


# Rounding and what is left of it.

SIDE_BY_SIDE = {
    # quantisers of one value on two scales, one of which saturates at the second entry
    "a sum with its negative": ("n = Neg(x)", "a = DequantizeLinear(qa, sa, z) b = DequantizeLinear(qb, sb, z)"),
    "turned in between": (
        "n = Neg(x)",
        """a0 = DequantizeLinear(qa, sa, z) b0 = DequantizeLinear(qb, sb, z)
        a = Unsqueeze(a0, axis) b = Unsqueeze(b0, axis)""",
    ),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_two_quantisers_side_by_side_have_the_slopes_of_both(name):
    before, after = SIDE_BY_SIDE[name]
    graph = f"""(float[N,3] x) => (float[N,k] y) <float sa = {{0.01}}, float sb = {{0.004}}, int8 z = {{0}},
        int64[1] axis = {{1}}, int64[2] flat = {{0, -1}}> {{
        {before} qa = QuantizeLinear(x, sa, z) qb = QuantizeLinear(n, sb, z) {after}
        t = Add(a, b) y = Reshape(t, flat)
    }}"""
    x = np.array([[0.2, 0.9, -0.3]], np.float32)
    found = fgonnx.Explainer(model(graph), input_gradient=True, cache=False, threads=1)(x, 1)
    np.testing.assert_allclose(found.input_gradient, [[0, 1, 0]])


BEFORE_A_QUANTISER = {
    "a value between two entries": """f = Floor(x) w = Sub(x, f) k = Cast<to=7>(f) a = Gather(table, k)
        up = Add(k, one) b = Gather(table, up) d = Sub(b, a) m = Mul(w, d) v = Add(a, m)""",
    "the rest alone": "f = Floor(x) v = Sub(x, f)",
    "normalised by groups": """e = Unsqueeze(x, at) v0 = GroupNormalization<num_groups=1, epsilon=0.1>(e, g, g)
        v = Squeeze(v0, at)""",
}


@pytest.mark.parametrize("name", BEFORE_A_QUANTISER)
def test_a_quantiser_behind_or_before_a_residue_is_none(name):
    """The gradient is that of the same graph without the quantiser."""
    maps = []
    for quantiser in ("q = QuantizeLinear(v, s, z) y = DequantizeLinear(q, s2, z)", "y = Mul(v, two)"):
        graph = f"""(float[N,3] x) => (float[N,3] y) <float s = {{0.02}}, float s2 = {{0.04}}, float two = {{2}},
            int8 z = {{0}}, int64 one = {{1}}, int64[1] at = {{1}}, float[5] table = {{0.3, -1, 0.7, 0.2, 0.5}},
            float[1] g = {{0.9}}> {{ {BEFORE_A_QUANTISER[name]} {quantiser} }}"""
        x = np.array([[0.31, 1.44, 2.57]], np.float32)
        found = fgonnx.Explainer(model(graph, 20, 9), input_gradient=True, cache=False, threads=1)(x, 1)
        maps.append(found.input_gradient)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-6)
    assert np.abs(maps[0]).max() > 0.1


def test_a_quantiser_that_is_subtracted_from_itself_keeps_its_slope():
    graph = """(float[N,3] x) => (float[N,3] y) <float s = {0.02}, int8 z = {0}, float[3] w = {1, 2, 3}> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) n = Neg(d) e = Sum(d, n, w) y = Add(e, d)
    }"""
    x = np.array([[0.2, 0.9, -0.3]], np.float32)
    found = fgonnx.Explainer(model(graph), input_gradient=True, cache=False, threads=1)(x, 1)
    np.testing.assert_allclose(found.input_gradient, [[0, 1, 0]])


def test_a_quantised_group_normalisation_has_its_slopes():
    graph = """(float[N,4,2] x) => (float[N,4,2] y) <float s = {0.03}, float s2 = {0.07}, uint8 z = {120}> {
        q = QuantizeLinear(x, s, z) v = DequantizeLinear(q, s2, z)
        y = GroupNormalization<num_groups=2, epsilon=0.1>(v, g, g)
    }"""
    found = explained(model(graph, 19, 9, weights={"g": np.array([0.9, -0.4], np.float32)}), draw(2, 4, 2))
    assert np.abs(found.input_gradient).max() > 0.1


@pytest.mark.parametrize("reads", ["v = DequantizeLinear(u, s, z)", "c = Cast<to=1>(u) v = Mul(c, s)"])
def test_a_head_that_integers_stand_for_is_called_as_the_model_calls_it(reads):
    graph = f"""(float[N,3] x) => (float[N,3] y) <float s = {{0.02}}, int8 z = {{0}}> {{
        n = Sign(x) q = QuantizeLinear(n, s, z) u = Relu(q) {reads} y = Sigmoid(v)
    }}"""
    with pytest.raises(ModelError, match=r"the gradient of '[cvy]' with respect to its input is zero everywhere"):
        fgonnx.Explainer(model(graph), cache=False, threads=1)(draw(1, 3))
