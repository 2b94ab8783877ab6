"""Graphs that join the samples of a batch or need several rows of it, and bound values that fit no integer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.errors import FgonnxError
from tests.support import model

RNG = np.random.default_rng(0)
WEIGHTS = {
    "a": RNG.normal(size=(6, 4)).astype(np.float32),
    "pairs": RNG.normal(size=(12, 4)).astype(np.float32),
    "g": RNG.normal(size=(4, 5)).astype(np.float32),
    "none": np.float32(0),
    "first": np.array([0], np.int64),
    "second": np.array([1], np.int64),
    "last": np.array([-1], np.int64),
    "start": np.array([-(10**6)], np.int64),
    "end": np.array([10**6], np.int64),
    "halves": np.array([2, -1, 5], np.int64),
    "two": np.array([2], np.int64),
    "by_pair": np.array([-1, 12], np.int64),
}


def _source(body: str, output: str = "float[N,5]") -> onnx.ModelProto:
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in body).split())
    used = {n: a for n, a in WEIGHTS.items() if n in words}
    return model(f"(float[N,6] x) => ({output} y) {{ {body} }}", 18, 8, used)


JOINED = {
    "a flipped copy": """flipped = Slice(x, last, start, second, last)
        both = Concat<axis=0>(x, flipped)
        h = MatMul(both, a)
        r = Relu(h)
        k = MatMul(r, g)
        parted = Reshape(k, halves)
        y = ReduceMean<keepdims=0>(parted, first)""",
    "a copy without its condition": """bare = Mul(x, none)
        both = Concat<axis=0>(x, bare)
        h = MatMul(both, a)
        r = Relu(h)
        k = MatMul(r, g)
        p, q = Split<num_outputs=2, axis=0>(k)
        d = Sub(p, q)
        y = Add(p, d)""",
}


@pytest.mark.parametrize("case", JOINED)
def test_copies_joined_along_the_batch_are_explained_one_sample_at_a_time(case: str) -> None:
    source = _source(JOINED[case])
    x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    assert fgonnx.check(source, x).verdict == "passed"
    assert fgonnx.Explainer(source)(x).saliency.shape == (3, 6)


REFUSED = {
    "differences of rows": (
        """later = Slice(x, second, end, first)
        before = Slice(x, first, last, first)
        d = Sub(later, before)
        h = MatMul(d, a)
        r = Relu(h)
        p = ReduceMean<keepdims=0>(r, first)
        y = MatMul(p, g)""",
        "float[5]",
    ),
    "pairs of rows": ("q = Reshape(x, by_pair)\nh = MatMul(q, pairs)\nr = Relu(h)\ny = MatMul(r, g)", "float[M,5]"),
    "the two largest rows": (
        """s = ReduceSum<keepdims=0>(x, second)
        v, i = TopK(s, two)
        y = Gather<axis=0>(x, i)""",
        "float[2,6]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_takes_several_rows_is_refused_with_a_way_out(case: str) -> None:
    source = _source(*REFUSED[case])
    with pytest.raises(FgonnxError) as caught:
        fgonnx.Explainer(source)(RNG.normal(size=(4, 6)).astype(np.float32))
    said = str(caught.value)
    assert "layout" in said
    assert "fault of fgonnx" not in said
    assert "does not take the model" not in said


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_number_that_fits_no_integer_is_refused_as_a_bound_value(value: float) -> None:
    source = model("(float[N,6] x, int64[1] k) => (float[N,6] y) { c = Cast<to=1>(k) y = Mul(x, c) }", 18, 8, {})
    with pytest.raises(FgonnxError, match="'k' is int64; its bound value does not fit that type"):
        fgonnx.Explainer(source, bind={"k": value})


def test_a_guessed_layout_of_an_input_without_a_batch_has_the_axes_of_the_input() -> None:
    source = model("(float[12,14] x) => (float[1,1] y) { s = Mul(x, x) t = ReduceSum(s) y = Flatten(t) }", 18, 8, {})
    notes = fgonnx.Explainer(source)(RNG.normal(size=(12, 14)).astype(np.float32)).notes
    assert any(n.startswith("the layout CT of the input 'x' is a guess") for n in notes)
