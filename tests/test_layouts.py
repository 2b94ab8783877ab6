"""Where channels and the grid of the map lie: read off the operators, given and held against them, or guessed."""

import re

import numpy as np
import pytest

import fgonnx
from fgonnx import Explainer
from fgonnx.errors import OptionError
from tests.support import draw, model, pictures, small_cnn

HEAD = "r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, fc)"
WEIGHTS = draw(0, w=(4, 1, 3, 3), w1=(4, 6, 3), w3=(4, 3, 3, 3), fc=(4, 5), k=(3, 5), W=(1, 16, 6), R=(1, 16, 4))
WEIGHTS |= {"one": np.array([1]), "last": np.array(-1), "nhw": np.array([0, 1, 7, 6]), "half": np.float32(0.5)}


def network(inputs, body):
    used = {k: v for k, v in WEIGHTS.items() if k in re.findall(r"\w+", body)}
    return model(f"(float[{inputs}] x) => (float[N,5] y) {{ {body} }}", weights=used)


# What takes the input, and the layout that follows from it. The grid is what the map has.
READ = {
    "channels behind Unsqueeze": ("N,7,6", f"u = Unsqueeze(x, one) c = Conv(u, w) {HEAD}", "NHW", (7, 6)),
    "channels behind Reshape": ("N,7,6", f"u = Reshape(x, nhw) c = Conv(u, w) {HEAD}", "NHW", (7, 6)),
    "a flat picture": ("N,42", f"u = Reshape(x, nhw) c = Conv(u, w) {HEAD}", "NF", (42,)),
    "turned": (
        "N,6,7",
        f"t = Transpose<perm=[0,2,1]>(x) u = Unsqueeze(t, one) c = Conv(u, w) {HEAD}",
        "NHW",
        (6, 7),
    ),
    "a sequence, channels first": ("N,6,7", f"c = Conv(x, w1) {HEAD}", "NCW", (7,)),
    "a sequence, channels last": ("N,7,6", f"t = Transpose<perm=[0,2,1]>(x) c = Conv(t, w1) {HEAD}", "NWC", (7,)),
    "channels last, centred first": (
        "N,7,6,3",
        f"s = Sub(x, half) t = Transpose<perm=[0,3,1,2]>(s) c = Conv(t, w3) {HEAD}",
        "NHWC",
        (7, 6),
    ),
    "an LSTM, batch first": (
        "N,7,6",
        "t = Transpose<perm=[1,0,2]>(x) h = LSTM<hidden_size=4>(t, W, R) s = Squeeze(h, one) "
        "l = Gather<axis=0>(s, last) y = MatMul(l, fc)",
        "NWC",
        (7,),
    ),
    "a dense layer over the last axis": ("N,7,3", "m = MatMul(x, k) y = ReduceMean<keepdims=0>(m, one)", "NWC", (7,)),
}
read = pytest.mark.parametrize(("inputs", "body", "layout", "grid"), READ.values(), ids=READ)


@read
def test_a_layout_is_read_off_the_operators(inputs, body, layout, grid):
    explanation = fgonnx.inspect(network(inputs, body))["explanation"]
    assert explanation["layout"] == layout
    assert not any("guess" in note for note in explanation["notes"])


@read
def test_the_map_has_the_grid_of_the_input(inputs, body, layout, grid):
    x = pictures(2, tuple(int(d) for d in inputs.split(",")[1:]))
    found = Explainer(network(inputs, body))(x)
    assert found.saliency.shape == (2, *grid)
    assert found.rounding_residual().max() < 1e-5


def test_a_map_moves_with_the_input():
    """The one pixel that is not zero is found where it is, seen through Unsqueeze and a convolution without bias."""
    x = np.zeros((1, 7, 6), np.float32)
    x[0, 4, 2] = 1
    inputs, body, *_ = READ["channels behind Unsqueeze"]
    found = Explainer(network(inputs, body), method="gradient-x-input")(x)
    assert np.argwhere(found.saliency[0]).tolist() == [[4, 2]]


class TestGuesses:
    """Nothing tells the axes apart before they are merged: the layout is one by sizes, and a note says so."""

    SOURCE = model("(float[N,3,8,6] x) => (float[N,5] y) { f = Flatten(x) y = MatMul(f, v) }", weights=draw(v=(144, 5)))

    def test_are_noted(self):
        notes = fgonnx.inspect(self.SOURCE)["explanation"]["notes"]
        assert [n for n in notes if "guess" in n and "NCHW" in n and "layout" in n]

    def test_are_noted_in_the_explanation(self):
        explanation = Explainer(self.SOURCE)(pictures(1, (3, 8, 6)))
        assert any("guess" in note for note in explanation.settings["notes"])

    def test_are_not_needed_where_the_layout_is_given(self):
        notes = fgonnx.inspect(self.SOURCE, layout="NCHW")["explanation"]["notes"]
        assert not [n for n in notes if "guess" in n]


# A layout that was given, the model, and what of it the operators contradict.
WRONG = {
    "channels last of a convolution": (small_cnn(), "NHWC", "axis 1 of the input .3. .*grid.*'a'.*as channels"),
    "a volume without channels": (small_cnn(), "NDHW", "axis 1 of the input .3.*'a' .Conv. reads it as channels"),
    "channels first behind a Transpose": (small_cnn(layout="NHWC"), "NCHW", "axis 1 of the input .8. channels"),
    "rows as channels": (network(*READ["turned"][:2]), "NCW", "axis 1 of the input .6. channels.*as a row or column"),
    "features as time": (network(*READ["an LSTM, batch first"][:2]), "NCT", "axis 1.* channels.*LSTM.*as time"),
    "rows and columns of a sequence": (network(*READ["a sequence, channels first"][:2]), "NHW", "reads it as channels"),
}


@pytest.mark.parametrize(("source", "layout", "message"), WRONG.values(), ids=WRONG)
def test_a_layout_that_an_operator_contradicts_is_refused(source, layout, message):
    with pytest.raises(OptionError, match=message):
        fgonnx.inspect(source, layout=layout)


@pytest.mark.parametrize(
    ("given", "known"), [("NCT", "NCW"), ("NFT", "NCW"), ("NCW", "NCW")], ids=["time", "features", "width"]
)
def test_time_and_width_are_two_words_for_one_axis(given, known):
    inputs, body, *_ = READ["a sequence, channels first"]
    assert fgonnx.inspect(network(inputs, body), layout=given)["explanation"]["layout"] == known


@pytest.mark.parametrize("layout", ["NCHWD", "CHW ", "nchw", "XYZ"])
def test_an_unknown_layout_lists_those_that_exist(layout):
    with pytest.raises(OptionError, match="choose one of: NCHW, NHWC"):
        fgonnx.inspect(small_cnn(), layout=layout)


ASIDE = {
    "samples added up": "y = Relu(x) z = CumSum(x, zero)",
    "one number of all": "y = Relu(x) z = ReduceMax<keepdims=0>(x)",
    "samples in another order": "y = Relu(x) z = Gather<axis=0>(x, order)",
    "weights for every place": "y = Relu(x) z = Mul(x, w)",
}


@pytest.mark.parametrize("case", ASIDE)
def test_outputs_of_all_samples_of_a_fixed_batch_are_left_out_with_a_note(case: str) -> None:
    given = "int64 zero = {0}, int64[4] order = {0, 2, 1, 3}, float[4,1] w = {1.0, 2.0, 3.0, 4.0}"
    source = model(f"(float[4,3] x) => (y, z) <{given}> {{ {ASIDE[case]} }}")
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    explanation = fgonnx.Explainer(source, output="y", head="output")(x)
    np.testing.assert_array_equal(explanation.outputs["y"], np.maximum(x, 0))
    assert list(explanation.outputs) == ["y"]
    assert "left out of the outputs, as no axis of it answers to the samples alone: 'z'" in explanation.notes
