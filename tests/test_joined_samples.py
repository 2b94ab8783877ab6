"""Graphs that join the samples of a batch or need several rows of it, and bound values that fit no integer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.errors import FgonnxError, ModelError, NumericError
from tests.support import model, run

RNG = np.random.default_rng(0)
WEIGHTS = {
    "a": RNG.normal(size=(6, 4)).astype(np.float32),
    "pairs": RNG.normal(size=(12, 4)).astype(np.float32),
    "g": RNG.normal(size=(4, 5)).astype(np.float32),
    "none": np.float32(0),
    "none_at": np.int64(0),
    "small": np.float32(0.03),
    "whole": RNG.integers(-90, 90, (6, 4)).astype(np.int8),
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


QUANTISE = "q, s, z = DynamicQuantizeLinear(x)\nxd = DequantizeLinear(q, s, z)\nh = MatMul(xd, a)\n"
INTEGER = """q, s, z = DynamicQuantizeLinear(x)
    i = MatMulInteger(q, whole, z)
    cast = Cast<to=1>(i)
    s2 = Mul(s, small)
    h = Mul(cast, s2)
"""
TAIL = "\nt = Mul(joined, small)\nd = Sub(h, t)\nr = Relu(d)\ny = MatMul(r, g)"
JOINED_BEHIND_A_SCALE = {
    "the mean of all": QUANTISE + "joined = ReduceMean(h, first)",
    "the largest of all": QUANTISE + "joined = ReduceMax(h, first)",
    "shares of all": QUANTISE + "joined = Softmax<axis=0>(h)",
    "the row of another": QUANTISE + "joined = Slice(h, last, start, first, last)",
    "the rows before": QUANTISE + "joined = CumSum(h, none_at)",
    "the mean of all, in integers": INTEGER + "joined = ReduceMean(h, first)",
}


# Powers of integers times the scale: not what other scales make of them.
SQUARED = [
    "k = Mul(i, i)\ncast = Cast<to=1>(k)",
    "f = Cast<to=1>(i)\ncast = Mul(f, f)",
    "f = Cast<to=1>(i)\ng2 = Mul(f, f)\ncast = Mul(g2, f)",
]
SCALED = "s2 = Mul(s, small)\nh = Mul(cast, s2)\nr = Relu(h)\ny = MatMul(r, g)"


class TestDynamicScales:
    """One scale for all samples of a batch hides nothing else that joins them, and is said itself."""

    @pytest.mark.parametrize("case", JOINED_BEHIND_A_SCALE)
    def test_what_joins_samples_beside_them_is_refused(self, case: str) -> None:
        explainer = fgonnx.Explainer(_source(JOINED_BEHIND_A_SCALE[case] + TAIL))
        x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
        assert explainer(x[:1]).saliency.shape == (1, 6)
        with pytest.raises(ModelError, match="the samples of a batch influence each other"):
            explainer(x)

    @pytest.mark.parametrize("head", [QUANTISE, INTEGER])
    def test_a_scale_alone_is_noted(self, head: str) -> None:
        source = _source(head + "r = Relu(h)\ny = MatMul(r, g)")
        x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
        found = fgonnx.Explainer(source)(x)
        assert "takes one scale for all samples of a batch" in "".join(found.notes)
        for row in range(3):  # every sample with its own scale
            alone = run(source, {"x": x[row : row + 1]}, optimise=False)["y"]
            np.testing.assert_allclose(found.outputs["y"][row : row + 1], alone, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("cast", SQUARED)
    def test_a_scale_that_makes_another_output_is_named(self, cast: str) -> None:
        source = _source(f"q, s, z = DynamicQuantizeLinear(x)\ni = MatMulInteger(q, whole, z)\n{cast}\n{SCALED}")
        x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
        with pytest.raises(NumericError, match=r"'.+' \(DynamicQuantizeLinear\) takes one scale for all") as caught:
            fgonnx.Explainer(source)(x)
        assert "Give one sample at a time" in str(caught.value)
        assert "layout=" not in str(caught.value)
        assert fgonnx.Explainer(source)(x[:1]).saliency.shape == (1, 6)

    def test_advice_that_is_followed_already_is_left_out(self) -> None:
        source = _source(JOINED_BEHIND_A_SCALE["the mean of all"] + TAIL)
        x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
        for size, said in ((1, False), (8, True)):
            with pytest.raises(ModelError, match="Give one sample at a time") as caught:
                fgonnx.Explainer(source, batch_size=size)(x)
            assert ("batch_size=1" in str(caught.value)) is said


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
