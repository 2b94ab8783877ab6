"""Probabilities of classical models are explained before their sigmoids, where the file shows these."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

import fgonnx

W = "float[3,1] w = {1, -2, 0.5}, float[1] b = {0.3}, float[3,3] v = {1, 0, -1, 2, 1, 0, 0, -1, 1}, float one = {1}"
SIGMOID = "z = MatMul(x, w) s = Add(z, b) p = Sigmoid(s)"
SEVERAL = "s = MatMul(x, v) n = Neg(s) e = Exp(n) a = Add(e, one) p = Reciprocal(a)"
TOTAL = "t = ReduceSum(p, axis)"

#: Nodes, and what is explained: logits of two classes, of three, or nothing behind the probabilities.
CASES = {
    "1 - p beside p": (f"{SIGMOID} q = Sub(one, p) y = Concat <axis = 1> (q, p)", "two"),
    "written out": (
        "z = MatMul(x, w) s = Add(z, b) n = Neg(s) e = Exp(n) a = Add(one, e) p = Div(one, a) "
        "q = Sub(one, p) y = Concat <axis = 1> (q, p)",
        "two",
    ),
    "their mean alone": (f"{SIGMOID} q = Sub(one, p) c = Concat <axis = 1> (q, p) m = Sum(c) y = Div(m, one)", "two"),
    "over their sum": (f"{SEVERAL} {TOTAL} y = Div(p, t)", "three"),
    "columns over their sum": (
        "s = MatMul(x, v) g = Sigmoid(s) p0 = Slice(g, i0, i1, axis) "
        "p1 = Slice(g, i1, i2, axis) p = Concat <axis = 1> (p1, p0) t = ReduceSum(p, axis) y = Div(p, t)",
        "swapped",
    ),
    "normalised": (f"{SEVERAL} y = LpNormalization <axis = 1, p = 1> (p)", "three"),
    "normalised to length one": (f"{SEVERAL} y = LpNormalization <axis = 1, p = 2> (p)", ""),
    "where all may be zero": (
        f"{SEVERAL} {TOTAL} k = Cast <to = 9> (t) o = Not(k) m = Cast <to = 1> (o) r = Add(p, m) "
        "c = Mul(m, count) d = Add(t, c) y = Div(r, d)",
        "three",
    ),
    "mean of two sigmoids": (
        f"{SIGMOID} s2 = Mul(s, half) p2 = Sigmoid(s2) q = Sub(one, p) q2 = Sub(one, p2) "
        "c = Concat <axis = 1> (q, p) c2 = Concat <axis = 1> (q2, p2) m = Sum(c, c2) "
        "y = Mul(m, half)",
        "",
    ),
    "sigmoids beside each other": (f"{SIGMOID} s2 = Mul(s, half) p2 = Sigmoid(s2) y = Concat <axis = 1> (p2, p)", ""),
    "over the sum of others": (f"{SEVERAL} u = Mul(s, s) t = ReduceSum(u, axis) y = Div(p, t)", ""),
    "two minus p": (f"{SIGMOID} two = Add(one, one) q = Sub(two, p) y = Concat <axis = 1> (q, p)", ""),
    "over their sum down the batch": (f"{SEVERAL} t = ReduceSum(p, last) y = Div(p, t)", ""),
}


def model(nodes: str) -> object:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1,3] x) => (float[1,C] y)
        <{W}, float half = {{0.5}}, float count = {{3}}, int64[1] axis = {{1}}, int64[1] i0 = {{0}},
        int64[1] i1 = {{1}}, int64[1] i2 = {{2}}, int64[1] last = {{0}}> {{ {nodes} }}"""
    )


@pytest.mark.parametrize("case", CASES)
def test_the_logit_is_explained_where_there_is_one(case: str) -> None:
    nodes, kind = CASES[case]
    x = np.array([[0.5, -0.4, 0.8]], np.float32)
    z = float((x @ [[1], [-2], [0.5]])[0, 0]) + 0.3
    several = (x @ [[1, 0, -1], [2, 1, 0], [0, -1, 1]])[0]
    expected = {"two": [-z, z], "three": several, "swapped": several[[1, 0]]}
    explainer = fgonnx.Explainer(model(nodes), input_gradient=True)
    found = explainer(x, 1)
    assert found.head_stripped == ("Sigmoid" if kind else "")
    if kind:
        np.testing.assert_allclose(explainer.head(x)[0], expected[kind], rtol=1e-5)
        gradients = {"two": [1, -2, 0.5], "three": [0, 1, -1], "swapped": [1, 2, 0]}
        np.testing.assert_allclose(found.input_gradient[0], gradients[kind], rtol=1e-5)
    assert found.rounding_residual()[0] < 1e-5


def test_the_largest_probability_has_the_largest_logit() -> None:
    x = np.random.default_rng(0).normal(size=(20, 1, 3)).astype(np.float32)
    explainer = fgonnx.Explainer(model(CASES["over their sum"][0]))
    found = [explainer(one) for one in x]
    assert [int(e.target[0]) for e in found] == [int(e.outputs["y"][0].argmax()) for e in found]


def test_probabilities_are_explained_where_they_are_asked_for() -> None:
    found = fgonnx.Explainer(model(CASES["1 - p beside p"][0]), head="output")(np.ones((1, 3), np.float32))
    assert found.head == "y"


def test_slopes_of_the_logit_hold() -> None:
    assert fgonnx.check(model(CASES["1 - p beside p"][0]), np.ones((1, 3), np.float32)).passed
