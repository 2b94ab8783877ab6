"""Quantisation by hand: slopes are those of differences over steps far above the quantum."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError
from tests.integer_networks import network, pictures, slope
from tests.support import model

MORE = {
    "least": np.float32(-128),
    "most": np.float32(127),
    "zero": np.float32(0),
    "all": np.array([1, 2, 3], np.int64),
    "many": np.float32(1 / 0.03),
    "half": np.float32(0.5),
    "full": np.float32(255),
}

BY_HAND = {
    "in a chain": "a = Div(y, s)\nr = Round(a)\nc = Clip(r, least, most)\nt = Mul(c, s)",
    "beside a skip": "a = Div(y, s)\nr = Round(a)\nc = Clip(r, least, most)\nd = Mul(c, s)\nt = Add(y, d)",
    "bounds first": "a = Div(y, s)\nc = Clip(a, least, most)\nr = Round(c)\nd = Mul(r, s)\nt = Add(y, d)",
    "a zero point": """a = Mul(y, many)
        a1 = Add(a, f3)
        r = Floor(a1)
        c = Clip(r, least, most)
        c1 = Sub(c, f3)
        t = Mul(c1, s)""",
    "rounded by Floor": "a = Div(y, s)\na1 = Add(a, half)\nr = Floor(a1)\nt = Mul(r, s)",
    "undone by a division": "a = Mul(y, many)\nr = Ceil(a)\nt = Div(r, many)",
    "scales by channel": "a = Div(y, sc4)\nr = Round(a)\nd = Mul(r, sc4)\nt = Add(y, d)",
    "a scale that follows from the input": """a = Abs(y)
        m = ReduceMax<keepdims=1>(a, all)
        scale = Div(m, most)
        a1 = Div(y, scale)
        r = Round(a1)
        t = Mul(r, scale)""",
    "stored as int8": """a = Div(y, s)
        r = Round(a)
        c = Clip(r, least, most)
        q = Cast<to=3>(c)
        e = Cast<to=1>(q)
        d = Mul(e, s)
        t = Add(y, d)""",
    "multiplied as integers": """a = Div(y, s)
        r = Round(a)
        c = Clip(r, least, most)
        q = Cast<to=3>(c)
        m = MatMulInteger(q, w8)
        e = Cast<to=1>(m)
        d = Mul(e, fine)
        t = Add(y, d)""",
    "stored as int32": "a = Div(y, s)\nr = Round(a)\nq = Cast<to=6>(r)\ne = Cast<to=1>(q)\nt = Mul(e, s)",
    "stored as uint8, read by DequantizeLinear": """a = Div(y, s)
        a1 = Add(a, i128f)
        r = Round(a1)
        c = Clip(r, zero, full)
        q = Cast<to=2>(c)
        d = DequantizeLinear(q, s, zu)
        t = Add(y, d)""",
}


@pytest.mark.parametrize("case", BY_HAND)
def test_slopes_through_quantisation_by_hand_are_those_of_differences(case: str) -> None:
    regression, correlation = slope(network(BY_HAND[case], more=MORE | {"i128f": np.float32(128)}), pictures(), 0.04)
    assert regression == pytest.approx(1, abs=0.05)
    assert correlation > 0.98


def test_its_rounding_is_a_term_of_its_own() -> None:
    sites = fgonnx.Explainer(network(BY_HAND["in a chain"], more=MORE))(pictures()).sites
    assert [s.name for s in sites if s.kind == "quantisation"] == ["rounded/r::real"]


def test_whole_numbers_that_may_be_out_of_range_are_refused_by_name() -> None:
    branch = "a = Div(y, s)\nr = Round(a)\n[bad] q = Cast<to=3>(r)\ne = Cast<to=1>(q)\nd = Mul(e, s)\nt = Add(y, d)"
    with pytest.raises(UnsupportedError) as caught:
        fgonnx.rewrite(network(branch, more=MORE))
    assert [(r.node, r.op_type) for r in caught.value.refusals] == [("bad", "Cast")]


def test_places_that_are_rounded_are_a_choice() -> None:
    source = network(
        """g = Sigmoid(y)
        a = Mul(g, seven)
        r = Floor(a)
        q = Cast<to=7>(r)
        [places] t = GatherElements<axis=3>(y, q)""",
        more={"seven": np.float32(7)},
    )
    notes = fgonnx.Explainer(source)(pictures()).settings["notes"]
    assert "`GatherElements` 'places' chooses by index; its choice is held fixed" in notes


#: Of what is rounded: few steps of the input of 0 to 1 that models are tried on, many, or as many as bounds leave.
STAIRCASES = {
    "bare": "r = Round(x)",
    "between two factors of 1": "a = Mul(x, one) k = Round(a) r = Mul(k, one)",
    "between two divisions by 1": "a = Div(x, one) k = Round(a) r = Div(k, one)",
    "a coarse step": "a = Div(x, coarse) k = Floor(a) r = Mul(k, coarse)",
    "a coarse step, of another size behind it": "a = Mul(x, two) k = Ceil(a) r = Mul(k, coarse)",
    "bounded to four levels": "a = Div(x, coarse) k = Round(a) c = Clip(k, zero, three) r = Mul(c, coarse)",
    "bounded to four levels before": "a = Div(x, coarse) c = Clip(a, zero, three) k = Round(c) r = Mul(k, coarse)",
    "used twice": "a = Div(x, coarse) k = Floor(a) q = Mul(k, coarse) e = Sub(x, q) f = Mul(e, two) r = Add(q, f)",
}
QUANTISERS = {
    "a fine step": "a = Div(x, fine) k = Floor(a) r = Mul(k, fine)",
    "many levels, of another size behind them": "a = Div(x, fine) k = Ceil(a) r = Mul(k, finer)",
    "many levels that are read as they are": "a = Div(x, fine) r = Round(a)",
    "bounded to 256 levels": "a = Div(x, coarse) k = Round(a) c = Clip(k, least, most) r = Mul(c, coarse)",
    "behind a zero point": """a = Div(x, coarse) a1 = Add(a, three) k = Round(a1) c = Clip(k, least, most)
        b = Sub(c, three) r = Mul(b, coarse)""",
    "stored in eight bits": """a = Div(x, fine) b = Round(a) k = Clip(b, least, most) i = Cast<to=3>(k)
        r0 = Cast<to=1>(i) r = Mul(r0, fine)""",
    "used twice": "a = Div(x, fine) k = Floor(a) q = Mul(k, fine) e = Sub(x, q) f = Mul(e, two) r = Add(q, f)",
}
NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "zero": 0,
    "coarse": 1.5,
    "fine": 0.01,
    "finer": 0.005,
    "least": -128,
    "most": 127,
}


def stepped(body: str) -> onnx.ModelProto:
    text = f"(float[N,5] x) => (float[N,2] y) {{ {body} t = Sin(x) v = Add(r, t) y = MatMul(v, weights) }}"
    weights = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
    return model(text, 13, weights={"weights": weights, **{k: np.float32(v) for k, v in NUMBERS.items()}})


POINT = np.array([[0.31, -1.44, 2.57, 0.93, -0.6]], np.float32)


@pytest.mark.parametrize("case", STAIRCASES)
def test_few_steps_are_a_staircase_with_the_slope_of_differences(case: str) -> None:
    source = stepped(STAIRCASES[case])
    found = fgonnx.Explainer(source, input_gradient=True, cache=False)(POINT, 0)
    assert any("constant between its steps" in n for n in found.notes)
    run, step = Session(source), np.float32(1e-2)
    ends = [[run.run({"x": POINT + t * step * e})["y"][0, 0] for e in np.eye(5, dtype=np.float32)] for t in (1, -1)]
    slopes = (np.array(ends[0]) - np.array(ends[1])) / (2 * step)
    np.testing.assert_allclose(found.input_gradient[0], slopes, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("case", QUANTISERS)
def test_many_steps_are_passed_straight_through_by_name(case: str) -> None:
    found = fgonnx.Explainer(stepped(QUANTISERS[case]), input_gradient=True, cache=False)(POINT, 0)
    assert [n for n in found.notes if "passed straight through as a quantiser" in n]
    linear = re.sub(r"(Round|Floor|Ceil)\(", "Identity(", QUANTISERS[case])
    linear = re.sub(r"i = Cast<to=3>\(k\)\s+r0 = Cast<to=1>\(i\)", "r0 = Identity(k)", linear)
    truth = fgonnx.Explainer(stepped(linear), input_gradient=True, cache=False)(POINT, 0)
    np.testing.assert_allclose(found.input_gradient, truth.input_gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("q = QuantizeLinear(x, fine, z) r = DequantizeLinear(q, fine, z)", "`QuantizeLinear` 'QuantizeLinear_1' is"),
        (
            "a = Div(x, fine) b = Round(a) c = Div(t0, fine) d = Round(c) e = Add(b, d) r = Mul(e, fine)",
            "`Round` 'Round_2', 'Round_4' are",
        ),
    ],
)
def test_what_is_passed_straight_through_is_named(body: str, said: str) -> None:
    source = stepped(f"t0 = Tanh(x) {body}")
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "z"))
    assert any(said in n for n in fgonnx.Explainer(source, cache=False)(POINT, 0).notes)


@pytest.mark.parametrize("op_type", ["Round", "Floor", "Ceil", "Sign", "Hardmax"])
def test_steps_that_are_no_quantisation_are_noted(op_type: str) -> None:
    source = network(f"[stairs] r = {op_type}(y)\nt = Add(y, r)", more=MORE)
    explanation = fgonnx.Explainer(source)(pictures())
    note = f"`{op_type}` 'stairs' is constant between its steps; its derivative is 0"
    assert note in explanation.settings["notes"]


#: Steps whose scales undo each other by chance: what is read is a place, or what rounding left over.
LEFT_OVER = {
    "a remainder": "a = Div(x, s) f = Floor(a) b = Mul(f, s) y = Sub(x, b)",
    "a fraction, scaled back": "a = Mul(x, two) f = Floor(a) b = Sub(a, f) y = Mul(b, half)",
    "a grid of 2 by 2 pixels": """u = Reshape(x, square) v = Reshape(x, points)
        y = GridSample<align_corners=1, padding_mode="border">(u, v)""",
    "a grid of 3 by 1 pixels": """w = Concat<axis=1>(x, x) u0 = Slice(w, zero, six, one) u = Reshape(u0, column)
        v = Reshape(x, points) y = GridSample<align_corners=1, padding_mode="border">(u, v)""",
    "a row looked up between two entries": """a = Mul(x, half) f = Floor(a) b = Sub(a, f) k0 = Clip(f, low, high)
        k = Cast<to=7>(k0) k2 = Mul(k, twice) t = Gather(table, k2) m = Mul(t, b) y = Add(m, x)""",
}


@pytest.mark.parametrize("case", LEFT_OVER)
def test_steps_that_are_read_as_places_or_leave_a_rest_have_the_slope_of_differences(case: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 16]> net (float[1,4] x) => (y)
        <float s = {{0.8}}, float two = {{2.0}}, float half = {{0.5}}, float low = {{0.0}}, float high = {{1.0}},
         int64 twice = {{2}}, float[3] table = {{0.3, -1.0, 0.7}}, int64[4] square = {{1, 1, 2, 2}},
         int64[4] column = {{1, 2, 3, 1}}, int64[4] points = {{1, 1, 2, 2}}, int64[1] zero = {{0}},
         int64[1] six = {{6}}, int64[1] one = {{1}}> {{ {LEFT_OVER[case]} }}"""
    source = onnx.parser.parse_model(text)
    x = np.array([[0.31, -0.44, 0.57, 0.13]], np.float32)
    gradient = fgonnx.grad(source)
    ran, plain = Session(gradient), Session(source)
    seed = np.random.default_rng(0).standard_normal(plain.run({"x": x})["y"].shape).astype(np.float32)
    found = ran.run({"x": x, "y_grad": seed})["x_grad"].ravel()
    step = np.float32(1e-2)
    ends = [
        [(plain.run({"x": x + t * step * e})["y"] * seed).sum() for e in np.eye(4, dtype=np.float32)] for t in (1, -1)
    ]
    np.testing.assert_allclose(found, (np.array(ends[0]) - np.array(ends[1])) / (2 * step), rtol=2e-3, atol=2e-3)


RESIDUES = {
    "a wrapped phase": "a = Div(y, f3)\nr = Round(a)\nd = Mul(r, f3)\nt = Sub(y, d)",
    "the other sign": "a = Div(y, f3)\nr = Floor(a)\nd = Mul(r, f3)\nt = Sub(d, y)",
    "a shifted grid": """a0 = Sub(y, half)
        a = Div(a0, f3)
        r = Ceil(a)
        d = Mul(r, f3)
        d1 = Add(d, half)
        t = Sub(y, d1)""",
    "a negated multiple": "a = Mul(y, many)\nr = Round(a)\nd = Div(r, many)\nn = Neg(d)\nt = Add(y, n)",
    "a period that follows from the input": """m = ReduceMax<keepdims=1>(y, all)
        a = Div(y, m)
        r = Round(a)
        d = Mul(r, m)
        t = Sub(y, d)""",
    "a fractional part by a cast": "r = Floor(y)\nq = Cast<to=6>(r)\nd = Cast<to=1>(q)\nt = Sub(y, d)",
    "stored, moved": """y1 = Transpose<perm=[0, 1, 3, 2]>(y)
        q = QuantizeLinear(y1, half, z0)
        e = DequantizeLinear(q, half, z0)
        t1 = Sub(y1, e)
        t = Transpose<perm=[0, 1, 3, 2]>(t1)""",
    "of QuantizeLinear": "q = QuantizeLinear(y, half, z0)\nd = DequantizeLinear(q, half, z0)\nt = Sub(y, d)",
}


@pytest.mark.parametrize("case", RESIDUES)
def test_what_serves_for_its_residue_is_held_fixed_and_noted(case: str) -> None:
    source = network(RESIDUES[case], more=MORE)
    explainer = fgonnx.Explainer(source, input_gradient=True)
    found = explainer(pictures())
    assert any("constant between its steps" in n for n in found.notes)
    assert np.linalg.norm(found.input_gradient) > 0.1


ESTIMATORS = {
    "the difference added": "a = Div(y, s)\nr = Round(a)\nd = Mul(r, s)\ne = Sub(d, y)\nt = Add(y, e)",
    "half of it": "a = Div(y, s)\nr = Round(a)\nd = Mul(r, s)\ne = Sub(d, y)\nh = Mul(e, half)\nt = Add(y, h)",
    "in two stages": """q = QuantizeLinear(y, half, z0)
        d = DequantizeLinear(q, half, z0)
        e = Sub(y, d)
        q2 = QuantizeLinear(e, s, z0)
        d2 = DequantizeLinear(q2, s, z0)
        t = Add(d, d2)""",
}


@pytest.mark.parametrize("case", ESTIMATORS)
def test_a_difference_that_is_added_again_is_a_quantiser(case: str) -> None:
    regression, correlation = slope(network(ESTIMATORS[case], more=MORE), pictures(), 0.04)
    assert regression == pytest.approx(1, abs=0.05)
    assert correlation > 0.98


def test_the_places_of_a_sampler_are_no_steps_of_its_result() -> None:
    text = """<ir_version: 8, opset_import: ["" : 16]> net (float[1,8] x) => (y)
        <int64[4] square = {1, 2, 2, 2}, float[1,1,3,3] picture = {0.3, -1.0, 0.7, 0.1, 2.0, 0.4, -0.6, 0.9, 0.2}>
        { g = Tanh(x) u = Reshape(g, square) y = GridSample(picture, u) }"""
    x = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    found = fgonnx.Explainer(onnx.parser.parse_model(text), input_gradient=True)(x, 0)
    assert np.linalg.norm(found.input_gradient) > 0.01
    assert not any("constant between its steps" in n for n in found.notes)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("coarse", "`Round in Loop` 'loop' is constant between its steps; its derivative is 0"),
        ("fine", "`Round in Loop` 'loop' is passed straight through as a quantiser"),
    ],
)
def test_roundings_in_a_body_are_those_outside(step: str, said: str) -> None:
    source = stepped(f"""[loop] r = Loop<body = b (int64 i, bool go, float[N,5] s) => (bool on, float[N,5] next) {{
        on = Identity(go) a = Div(s, {step}) k = Round(a) next = Mul(k, {step})
    }}>(twice, yes, x)""")
    for name, array in (("twice", np.array(2)), ("yes", np.array(True))):
        source.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    found = fgonnx.Explainer(source, input_gradient=True, cache=False)(POINT, 0)
    outside = stepped(f"a = Div(x, {step}) k = Round(a) r = Mul(k, {step})")
    right = fgonnx.Explainer(outside, input_gradient=True, cache=False)(POINT, 0)
    assert said in found.notes
    np.testing.assert_allclose(found.input_gradient, right.input_gradient, atol=1e-5)
