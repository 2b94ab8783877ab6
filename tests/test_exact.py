"""Outputs are the model's on exactly the arrays given, or it is refused: samples that influence each other."""

import re

import numpy as np
import onnxruntime as ort
import pytest

import fgonnx
from fgonnx.engine.model.load import load
from fgonnx.engine.normal.normalise import normalise
from fgonnx.errors import NumericError
from fgonnx.explain.exact import Witness
from tests.support import model as parsed

RNG = np.random.default_rng(7)
A = RNG.normal(size=(6, 4)).astype(np.float32)
G = RNG.normal(size=(4, 5)).astype(np.float32)
TAIL = "h = MatMul(d, A) r = Relu(h) y = MatMul(r, G)"
LOUD = RNG.normal(size=(4, 6)).astype(np.float32) * np.float32([[1], [30], [1], [1]])
QUIET = (LOUD * 0.01).astype(np.float32)

# A value of all samples that bites for large inputs alone.
COUPLED = {
    "a peak": "a = Abs(x) m = ReduceMax<keepdims = 0>(a) k = Max(m, one) d = Div(x, k)",
    "a range": "m = ReduceMax<keepdims = 0>(x) c = Greater(m, limit) s = Div(x, limit) d = Where(c, s, x)",
    "a mean": "m = ReduceMean<keepdims = 0>(x) k = Add(m, one) d = Min(x, k)",
    "a branch": """m = ReduceMax<keepdims = 0>(x) c = Greater(m, limit)
        d = If(c) <then_branch = t () => (float[B,6] u) { u = Div(x, limit) },
                   else_branch = e () => (float[B,6] v) { v = Identity(x) }>""",
}


def model(text, **values):
    return parsed(text, weights=values)


def weights(text, **more):
    known = {"A": A, "G": G, "one": np.float32(1), "limit": np.float32(8), **more}
    return {name: value for name, value in known.items() if re.search(rf"\b{name}\b", text)}


def coupled(batch, how):
    text = f"(float[{batch},6] x) => (float[{batch},5] y) {{ {COUPLED[how].replace('B', str(batch))} {TAIL} }}"
    return model(text, **weights(text))


def ran(source, **feeds):
    session = ort.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def refused_or_right(source, x, explainer):
    try:
        found = explainer(x)
    except NumericError:
        return
    np.testing.assert_allclose(found.outputs["y"], ran(source, x=x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", ["N", 4])
@pytest.mark.parametrize("how", COUPLED)
@pytest.mark.parametrize("calls", [[LOUD], [QUIET, LOUD], [QUIET, QUIET, LOUD, QUIET]])
def test_samples_that_influence_each_other_are_refused_or_explained_as_the_model_has_them(batch, how, calls):
    source = coupled(batch, how)
    explainer = fgonnx.Explainer(source)
    for x in calls:
        refused_or_right(source, x, explainer)


@pytest.mark.parametrize("how", ["a peak", "a mean"])
def test_a_check_fails_where_samples_influence_each_other(how):
    assert fgonnx.check(coupled("N", how), LOUD).verdict == "failed"


@pytest.mark.parametrize("how", COUPLED)
@pytest.mark.parametrize("calls", [[LOUD], [QUIET, LOUD]])
def test_a_batch_fixed_to_one_stays_so_where_one_value_may_stand_for_all_samples(how, calls):
    source = coupled(1, how)
    explainer = fgonnx.Explainer(source)
    found = [explainer(x) for x in calls][-1]
    alone = np.concatenate([ran(source, x=row[None]) for row in calls[-1]])
    np.testing.assert_allclose(found.outputs["y"], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", COUPLED)
def test_the_file_of_such_a_model_takes_one_sample(how):
    x = fgonnx.rewrite(coupled(1, how)).graph.input[0]
    assert x.type.tensor_type.shape.dim[0].dim_value == 1


def test_it_can_be_switched_off():
    assert len(fgonnx.Explainer(coupled("N", "a peak"), verify=False)(LOUD).score) == 4


STATE = RNG.normal(size=(3, 4)).astype(np.float32)
CONTEXT = RNG.normal(size=(5, 3, 4)).astype(np.float32)
SUM = "h = MatMul(x, A) k = Add(h, t) r = Relu(k) y = MatMul(r, G)"
ROWS = {
    "bound rows": ("float[N,4] s", "t = Identity(s)", {}, {"s": STATE}),
    "a context with its batch second": ("float[5,b,4] s", "t = ReduceMean<keepdims = 0>(s, first)", {"s": CONTEXT}, {}),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_of_another_input_are_those_of_the_samples_or_it_is_refused(case):
    declared, made, given, bound = ROWS[case]
    text = f"(float[N,6] x, {declared}) => (float[N,5] y) {{ {made} {SUM} }}"
    source = model(text, A=A, G=G, **({"first": np.array([0], np.int64)} if "first" in made else {}))
    x = LOUD[:3]
    explainer = fgonnx.Explainer(source, input="x", bind=bound or None)
    with pytest.raises(NumericError, match=r"shape \(9, 5\), the model's \(3, 5\).*bind"):
        explainer({"x": x, **given} if given else x)


def test_positions_of_a_square_input_are_not_taken_for_samples():
    source = model(
        """(float[N,T,6] x, float[T] w) => (float[N,5] y) {
            u = Unsqueeze(w, axis) d = Mul(x, u) h = MatMul(d, A) r = Relu(h)
            p = ReduceMean<keepdims = 0>(r, axis) y = MatMul(p, G)
        }""",
        A=A,
        G=G,
        axis=np.array([1], np.int64),
    )
    x, w = RNG.normal(size=(3, 3, 6)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
    e = fgonnx.Explainer(source, input="x")({"x": x, "w": w})
    np.testing.assert_allclose(e.outputs["y"], ran(source, x=x, w=w), rtol=1e-4, atol=1e-5)


def test_constants_of_single_places_of_a_fixed_batch_are_held_against_the_whole_batch():
    text = f"(float[4,6] x) => (float[4,5] y) {{ d = Max(x, floor) {TAIL} }}"
    source = model(text, A=A, G=G, floor=np.float32([[-10], [-20], [-30], [-40]]))
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    explainer = fgonnx.Explainer(source)
    np.testing.assert_allclose(explainer(x).outputs["y"], ran(source, x=x), rtol=1e-4, atol=1e-5)
    with pytest.raises(NumericError, match="influence each other"):
        explainer(x * 25)


def test_an_output_of_all_samples_is_not_given_once_for_each():
    text = f"(float[N,6] x) => (float[N,5] y, float m) {{ d = Identity(x) {TAIL} m = ReduceMean<keepdims = 0>(y) }}"
    source = model(text, A=A, G=G)
    explainer = fgonnx.Explainer(source)
    assert len(explainer(LOUD[:1]).score) == 1
    np.testing.assert_allclose(explainer(LOUD).outputs["m"], ran(source, x=LOUD).mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("body", "proved"),
    [
        ("d = Softmax<axis = 1>(x)", True),
        ("t = Transpose(x) s = Softmax<axis = 0>(t) d = Transpose(s)", True),
        ("m = ReduceMean(x, one) d = Sub(x, m)", True),
        ("s = Shape<start = 0, end = 1>(x) e = Concat<axis = 0>(s, six) d = Reshape(x, e)", True),
        ("k = ReduceMax<keepdims = 0>(x) m = Mul(k, zero) d = Add(x, m)", False),
        ("t = Transpose(x) k = ReduceMax(t, one) m = Mul(k, zero) n = Transpose(m) d = Add(x, n)", False),
    ],
)
def test_independence_is_read_off_the_operators(body, proved):
    text = f"(float[N,6] x) => (float[N,5] y) {{ {body} {TAIL} }}"
    known = {"one": np.array([1], np.int64), "six": np.array([6], np.int64), "zero": np.float32(0)}
    used = {name: value for name, value in known.items() if f" {name})" in body}
    assert normalise(load(model(text, A=A, G=G, **used))).independent == proved


def test_what_is_proved_is_run_beside_the_source_once(monkeypatch):
    calls = []
    monkeypatch.setattr(Witness, "compare", lambda *_: calls.append(1))
    text = f"(float[N,6] x) => (float[N,5] y) {{ d = Identity(x) {TAIL} }}"
    explainer = fgonnx.Explainer(model(text, A=A, G=G))
    for _ in range(3):
        explainer(LOUD)
    assert not calls
