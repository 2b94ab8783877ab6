"""Where samples lie: inputs without a batch axis, with another one than the first, of fixed size; outputs without one.

Every case is held against onnxruntime on the very input given, and against differences of its scores.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import fgonnx
from fgonnx import Explainer
from fgonnx.errors import InputError, ModelError, OptionError
from tests.support import draw, model, run

K = 5
TAIL = "a = Softplus(c) p = GlobalAveragePool(a) f = Flatten(p) y = MatMul(f, fc)"
STEPS = "s = Squeeze(h, one) l = Gather<axis=0>(s, last) y = MatMul(l, fc)"
WEIGHTS = draw(0, w1=(4, 1, 3), w2=(4, 1, 3, 3), w3=(4, 3, 3, 3), v1=(4, 6, 3), v3=(4, 1, 3, 3, 3), u3=(4, 2, 3, 3, 3))
WEIGHTS |= draw(
    1, fc=(4, K), k3=(3, K), k6=(6, K), kt=(K, 6), W=(1, 16, 6), R=(1, 16, 4), tokens=(4, 1, 6), bias4=(4, 6)
)
WEIGHTS |= {"h4": np.zeros((1, 4, 4), np.float32), "alike": np.ones((4, 1, 6), np.float32)}
WEIGHTS |= {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "last": np.array(-1)}
WEIGHTS |= {"zero_one": np.array([0, 1]), "to_chw": np.array([1, 3, 8, 7]), "scale": np.float32(1 / 255)}
WEIGHTS |= {"flat4": np.array([4, -1]), "rows4": np.array([4, 3, 56]), "wide4": np.array([4, 7, 6])}
WEIGHTS |= {"all_of_it": np.array([-1]), "rows_of_it": np.array([0, -1]), "low": np.array([0.3], np.float32)}
WEIGHTS |= {"boxes": np.array([0, 4, -1]), "iou": np.array([0.99], np.float32), "both": np.array([0, 2])}
WEIGHTS |= {"one_row": np.array([1, -1]), "most": np.array([4])}


def network(inputs, body, output="N,5", kind="float"):
    used = {k: v for k, v in WEIGHTS.items() if k in re.findall(r"\w+", body)}
    return model(f"({kind}[{inputs}] x) => (float[{output}] y) {{ {body} }}", weights=used)


def drawn(shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows(array, axis, count):
    """Bring scores to (samples, entries)."""
    return array.reshape(1, -1) if axis is None else np.moveaxis(array, axis, 0).reshape(count, -1)


def held(source, x, axis, grid, *, answers=None):
    """Hold an explanation against onnxruntime: scores on the exact input, slopes by central differences."""
    answers = axis if answers is None else answers
    count = 1 if axis is None else x.shape[axis]
    e = Explainer(source, input_gradient=True)(x)
    assert e.saliency.shape == (count, *grid)
    assert e.input_gradient.shape == x.shape
    truth = run(source, {"x": x})["y"]
    np.testing.assert_array_equal(e.outputs["y"].shape, truth.shape)
    np.testing.assert_allclose(e.outputs["y"], truth, rtol=1e-4, atol=1e-5)
    samples = np.arange(count)
    np.testing.assert_allclose(e.score, rows(truth, answers, count)[samples, e.target], rtol=1e-4, atol=1e-5)
    assert e.rounding_residual().max() < 1e-5
    rng, slopes = np.random.default_rng(0), []
    for _ in range(6):
        v = rng.standard_normal(x.shape).astype(np.float32)
        up, down = (
            rows(run(source, {"x": x + h * v})["y"], answers, count) for h in (np.float32(1e-2), np.float32(-1e-2))
        )
        slopes.append(((up - down)[samples, e.target].sum() / 2e-2, float((e.input_gradient * v).sum())))
    found, expected = np.array(slopes).T
    assert np.linalg.norm(found - expected) < 2e-2 * np.linalg.norm(expected)
    return e


# An input without a batch axis: its axes, what takes it, its output, an array; layout and grid of the map.
ALONE = {
    "CHW": ("3,8,7", f"u = Unsqueeze(x, zero) c = Conv(u, w3) {TAIL}", "1,5", "CHW", (8, 7)),
    "CHW of free size": ("3,h,w", f"u = Unsqueeze(x, zero) c = Conv(u, w3) {TAIL}", "1,5", "CHW", (8, 7)),
    "CHW by Reshape": ("3,8,7", f"u = Reshape(x, to_chw) c = Conv(u, w3) {TAIL}", "1,5", "CHW", (8, 7)),
    "HWC": (
        "8,7,3",
        f"t = Transpose<perm=[2,0,1]>(x) u = Unsqueeze(t, zero) c = Conv(u, w3) {TAIL}",
        "1,5",
        "HWC",
        (8, 7),
    ),
    "HWC of free size": (
        "h,w,3",
        f"t = Transpose<perm=[2,0,1]>(x) u = Unsqueeze(t, zero) c = Conv(u, w3) {TAIL}",
        "1,5",
        "HWC",
        (8, 7),
    ),
    "HW": ("8,7", f"u = Unsqueeze(x, zero_one) c = Conv(u, w2) {TAIL}", "1,5", "HW", (8, 7)),
    "HW, output without a batch": (
        "8,7",
        "u = Unsqueeze(x, zero_one) c = Conv(u, w2) a = Softplus(c) p = GlobalAveragePool(a) f = Flatten(p) "
        "m = MatMul(f, fc) y = Squeeze(m, zero)",
        "5",
        "HW",
        (8, 7),
    ),
    "a waveform": ("40", f"u = Unsqueeze(x, zero_one) c = Conv(u, w1) {TAIL}", "1,5", "T", (40,)),
    "a feature vector": ("6", "t = Tanh(x) y = MatMul(t, k6)", "5", "F", (6,)),
    "a feature vector as a row": ("6", "u = Unsqueeze(x, zero) t = Tanh(u) y = Gemm(t, k6)", "1,5", "F", (6,)),
    "a sequence, channels first": ("6,9", f"u = Unsqueeze(x, zero) c = Conv(u, v1) {TAIL}", "1,5", "CT", (9,)),
    "a recurrent layer": ("9,6", f"u = Unsqueeze(x, one) h = LSTM<hidden_size=4>(u, W, R) {STEPS}", "1,5", "TC", (9,)),
    "a mean over time": ("9,6", "t = Tanh(x) m = MatMul(t, k6) y = ReduceMean<keepdims=0>(m, zero)", "5", "TC", (9,)),
    "a volume": ("4,8,7", f"u = Unsqueeze(x, zero_one) c = Conv(u, v3) {TAIL}", "1,5", "DHW", (4, 8, 7)),
    "a volume with channels": ("2,4,8,7", f"u = Unsqueeze(x, zero) c = Conv(u, u3) {TAIL}", "1,5", "CDHW", (4, 8, 7)),
}
SIZES = {"h": 8, "w": 7}
alone = pytest.mark.parametrize(("inputs", "body", "output", "layout", "grid"), ALONE.values(), ids=ALONE)


def sizes(inputs, **free):
    return tuple(int(d) if d.isdigit() else (SIZES | free)[d] for d in inputs.split(","))


@alone
def test_an_input_without_a_batch_is_one_sample(inputs, body, output, layout, grid):
    held(network(inputs, body, output), drawn(sizes(inputs)), None, grid)


@alone
def test_its_layout_is_named_without_a_batch(inputs, body, output, layout, grid):
    found = fgonnx.inspect(network(inputs, body, output), input_shape=sizes(inputs))["explanation"]
    assert (found["layout"], found["batch_axis"], found["input_shape"]) == (layout, None, list(sizes(inputs)))


@alone
def test_its_layout_can_be_given(inputs, body, output, layout, grid):
    x = drawn(sizes(inputs))
    source = network(inputs, body, output)
    np.testing.assert_array_equal(Explainer(source, layout=layout)(x).saliency, Explainer(source)(x).saliency)


@alone
def test_several_of_them_are_explained_one_by_one(inputs, body, output, layout, grid):
    explainer = Explainer(network(inputs, body, output), input_gradient=True)
    many = [drawn(sizes(inputs), seed) for seed in (1, 2, 3)]
    found = explainer(np.stack(many))
    np.testing.assert_array_equal(found.saliency, np.concatenate([explainer(x).saliency for x in many]))
    np.testing.assert_array_equal(found.input_gradient, np.stack([explainer(x).input_gradient for x in many]))


@alone
def test_the_written_file_takes_the_input_as_it_is(inputs, body, output, layout, grid):
    source, x = network(inputs, body, output), drawn(sizes(inputs))
    written = fgonnx.rewrite(source, input_gradient=True, input_shape=sizes(inputs))
    found = run(written, {"x": x})
    np.testing.assert_allclose(found["y"], run(source, {"x": x})["y"], rtol=1e-4, atol=1e-5)
    explanation = Explainer(source, input_gradient=True)(x)
    np.testing.assert_allclose(found["saliency"], explanation.saliency, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["input_gradient"], explanation.input_gradient, rtol=1e-4, atol=1e-6)


@alone
def test_check_passes(inputs, body, output, layout, grid):
    assert fgonnx.check(network(inputs, body, output), drawn(sizes(inputs)), directions=3).passed


def test_preprocessing_in_the_graph_takes_pixels():
    scaled = "n = Cast<to=1>(x) s = Mul(n, scale) t = Transpose<perm=[2,0,1]>(s)"
    source = network("h,w,3", f"{scaled} u = Unsqueeze(t, zero) c = Conv(u, w3) {TAIL}", "1,5", "uint8")
    x = np.random.default_rng(0).integers(0, 256, (8, 7, 3)).astype(np.uint8)
    e = Explainer(source)(x)
    assert e.saliency.shape == (1, 8, 7)
    np.testing.assert_allclose(e.score, run(source, {"x": x})["y"].max(1), rtol=1e-5)


# An input whose batch is any axis: its axes, what takes it, its output, sizes; the axis, layout and grid.
ORDERS = {
    "NCHW": ("N,3,8,7", f"c = Conv(x, w3) {TAIL}", "N,5", 0, "NCHW", (8, 7)),
    "NHWC": ("N,8,7,3", f"t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, w3) {TAIL}", "N,5", 0, "NHWC", (8, 7)),
    "CHWN": ("3,8,7,N", f"t = Transpose<perm=[3,0,1,2]>(x) c = Conv(t, w3) {TAIL}", "N,5", 3, "CHWN", (8, 7)),
    "HWCN": ("8,7,3,N", f"t = Transpose<perm=[3,2,0,1]>(x) c = Conv(t, w3) {TAIL}", "N,5", 3, "HWCN", (8, 7)),
    "HWN": (
        "8,7,N",
        f"t = Transpose<perm=[2,0,1]>(x) u = Unsqueeze(t, one) c = Conv(u, w2) {TAIL}",
        "N,5",
        2,
        "HWN",
        (8, 7),
    ),
    "NCW": ("N,6,9", f"c = Conv(x, v1) {TAIL}", "N,5", 0, "NCW", (9,)),
    "NWC, recurrent": (
        "N,9,6",
        f"t = Transpose<perm=[1,0,2]>(x) h = LSTM<hidden_size=4>(t, W, R) {STEPS}",
        "N,5",
        0,
        "NWC",
        (9,),
    ),
    "TNF, recurrent": ("9,N,6", f"h = LSTM<hidden_size=4>(x, W, R) {STEPS}", "N,5", 1, "TNF", (9,)),
    "TNF of free length": ("T,N,6", f"h = LSTM<hidden_size=4>(x, W, R) {STEPS}", "N,5", 1, "TNF", (9,)),
    "TNF, convolved": ("9,N,6", f"t = Transpose<perm=[1,2,0]>(x) c = Conv(t, v1) {TAIL}", "N,5", 1, "TNF", (9,)),
    "CTN": ("6,9,N", f"t = Transpose<perm=[2,0,1]>(x) c = Conv(t, v1) {TAIL}", "N,5", 2, "FTN", (9,)),
    "FN, found by running": (
        "6,samples_",
        "t = Tanh(x) m = MatMul(kt, t) y = Transpose(m)",
        "samples_,5",
        1,
        "FN",
        (6,),
    ),
}
orders = pytest.mark.parametrize(("inputs", "body", "output", "axis", "layout", "grid"), ORDERS.values(), ids=ORDERS)
BATCH = {"N": 3, "T": 9, "samples_": 3}


@orders
def test_every_sample_is_explained_wherever_the_batch_lies(inputs, body, output, axis, layout, grid):
    held(network(inputs, body, output), drawn(sizes(inputs, **BATCH)), axis, grid, answers=0)


@orders
def test_the_layout_says_where_the_batch_lies(inputs, body, output, axis, layout, grid):
    found = fgonnx.inspect(network(inputs, body, output), input_shape=sizes(inputs, **BATCH))["explanation"]
    assert (found["layout"], found["batch_axis"], found["batch"]) == (layout, axis, "any")


@orders
def test_the_written_file_has_the_batch_where_it_was(inputs, body, output, axis, layout, grid):
    shape = sizes(inputs, **BATCH)
    source, x = network(inputs, body, output), drawn(shape)
    found = run(fgonnx.rewrite(source, input_gradient=True, input_shape=shape), {"x": x})
    np.testing.assert_allclose(found["y"], run(source, {"x": x})["y"], rtol=1e-4, atol=1e-5)
    explanation = Explainer(source, input_gradient=True)(x)
    np.testing.assert_allclose(found["saliency"], explanation.saliency, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["input_gradient"], explanation.input_gradient, rtol=1e-4, atol=1e-6)


@orders
def test_check_passes_wherever_the_batch_lies(inputs, body, output, axis, layout, grid):
    assert fgonnx.check(network(inputs, body, output), drawn(sizes(inputs, **BATCH)), directions=3).passed


class TestOutputs:
    """Outputs whose batch is not the first axis."""

    def test_every_step_of_a_recurrent_layer(self):
        body = "h = LSTM<hidden_size=4>(x, W, R) s = Squeeze(h, one) y = MatMul(s, fc)"
        held(network("9,N,6", body, "9,N,5"), drawn((9, 2, 6)), 1, (9,), answers=1)

    def test_the_values_before_a_softmax_are_the_head(self):
        body = "h = LSTM<hidden_size=4>(x, W, R) s = Squeeze(h, one) m = MatMul(s, fc) y = Softmax(m)"
        e = Explainer(network("9,N,6", body, "9,N,5"), scores=True)(drawn((9, 2, 6)))
        assert (e.head_stripped, e.scores.shape, e.outputs["y"].shape) == ("Softmax", (2, 9, 5), (9, 2, 5))

    def test_of_a_batch_that_is_the_first_axis_of_the_input(self):
        body = "t = Transpose<perm=[1,0,2]>(x) n = Tanh(t) y = MatMul(n, k6)"
        held(network("N,9,6", body, "9,N,5"), drawn((2, 9, 6)), 0, (9,), answers=1)


def test_other_inputs_have_their_batch_where_the_same_symbol_stands():
    weights = {k: WEIGHTS[k] for k in ("W", "R", "one", "last", "fc")}
    source = model(
        f"(float[9,N,6] x, float[1,N,4] h0, float[1,N,4] c0) => (float[N,5] y) "
        f"{{ h = LSTM<hidden_size=4>(x, W, R, , , h0, c0) {STEPS} }}",
        weights=weights,
    )
    x = {"x": drawn((9, 3, 6)), "h0": drawn((1, 3, 4), 4), "c0": drawn((1, 3, 4), 5)}
    e = Explainer(source, input="x")(x)
    assert e.saliency.shape == (3, 9)
    np.testing.assert_allclose(e.score, run(source, x)["y"].max(1), rtol=1e-4)


# A batch of four: what takes it, sizes, the axis, grid, whether it can be made free.
TANH = "t = Tanh(r) m = ReduceMean<keepdims=0>(t, two) y = MatMul(m, k3)"
FIXED = {
    "nothing holds it": ("4,3,8,7", f"c = Conv(x, w3) {TAIL}", 0, (8, 7), True),
    "a Reshape": ("4,3,8,7", f"r = Reshape(x, rows4) {TANH}", 0, (8, 7), True),
    "two Reshapes": (
        "4,42",
        "r = Reshape(x, wide4) t = Tanh(r) m = MatMul(t, k6) s = Reshape(m, flat4) y = Slice(s, zero, most, one)",
        0,
        (42,),
        True,
    ),
    "time-major": ("9,4,6", f"h = LSTM<hidden_size=4>(x, W, R) {STEPS}", 1, (9,), True),
    "a state": ("9,4,6", f"h = LSTM<hidden_size=4>(x, W, R, , , h4, h4) {STEPS}", 1, (9,), False),
    "tokens": (
        "4,8,6",
        "t = Concat<axis=1>(alike, x) n = Tanh(t) m = ReduceMean<keepdims=0>(n, one) y = MatMul(m, k6)",
        0,
        (8,),
        False,
    ),
}
fixed = pytest.mark.parametrize(("inputs", "body", "axis", "grid", "free"), FIXED.values(), ids=FIXED)


def of_four(inputs, body):
    return network(inputs, body, "4,4" if "most" in body else "4,5")


@fixed
def test_a_batch_of_fixed_size_is_made_free_where_the_model_allows(inputs, body, axis, grid, free):
    notes = fgonnx.inspect(of_four(inputs, body))["explanation"]["notes"]
    assert any("was made free" in note for note in notes) == free
    assert any("repeated 4 times" in note for note in notes) != free


@fixed
def test_every_sample_of_a_fixed_batch_is_explained(inputs, body, axis, grid, free):
    held(of_four(inputs, body), drawn(sizes(inputs)), axis, grid, answers=0)


@fixed
def test_any_number_of_samples_is_explained(inputs, body, axis, grid, free):
    x = drawn(sizes(inputs))
    explainer = Explainer(of_four(inputs, body))
    found = explainer(np.take(x, [2, 0, 1, 3, 1], axis)).saliency
    np.testing.assert_allclose(found, explainer(x).saliency[[2, 0, 1, 3, 1]], rtol=1e-4, atol=1e-6)


@fixed
def test_check_passes_on_a_fixed_batch(inputs, body, axis, grid, free):
    assert fgonnx.check(of_four(inputs, body), drawn(sizes(inputs)), directions=3).passed


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ("4,6", "b = Add(x, bias4) t = Tanh(b) y = MatMul(t, k6)"),
        ("4,8,6", "t = Concat<axis=1>(tokens, x) n = Tanh(t) m = ReduceMean<keepdims=0>(n, one) y = MatMul(m, k6)"),
    ],
    ids=["a bias per sample", "a token per sample"],
)
def test_a_model_whose_samples_have_weights_of_their_own_is_refused(inputs, body):
    with pytest.raises(ModelError, match=r"depends on its place in the batch of 4.*export it with batch size 1"):
        Explainer(network(inputs, body, "4,5"))


class TestWhatIsRefused:
    CHW, TNF = network(*ALONE["CHW"][:3]), network(*ORDERS["TNF, recurrent"][:3])

    @pytest.mark.parametrize(
        ("layout", "message"),
        [
            ("HWC", "layout='HWC' makes axis 0 of the input .3. .* grid, but 'c' .Conv. reads it as channels"),
            ("NCHW", "layout='NCHW' is none of an input of 3 axes; choose one of: NCW, NWC, NHW"),
        ],
    )
    def test_a_layout_that_does_not_fit_an_input_without_a_batch(self, layout, message):
        with pytest.raises(OptionError, match=message):
            fgonnx.inspect(self.CHW, layout=layout)

    @pytest.mark.parametrize("layout", ["NTF", "NCW", "NHW"])
    def test_a_batch_that_an_operator_reads_as_time(self, layout):
        with pytest.raises(OptionError, match=r"does not make axis 1 of the input the batch, but .*LSTM"):
            fgonnx.inspect(self.TNF, layout=layout)

    def test_an_array_of_other_axes(self):
        with pytest.raises(InputError, match=r"'x' has 3 axes, or 4 for several samples; .* .8, 7."):
            Explainer(self.CHW)(drawn((8, 7)))
        with pytest.raises(InputError, match=r"'x' has 3 axes, axis 1 of them its samples; .* .6,."):
            Explainer(self.TNF)(drawn((6,)))


# What makes another first axis than the samples: a network (N,3,8,7) -> y, and tensors that have a row per sample.
GRID = "c = Conv(x, w3) a = Softplus(c)"
ENTANGLED = {
    "a mean over the batch": (
        f"{GRID} p = GlobalAveragePool(a) f = Flatten(p) m = MatMul(f, fc) y = ReduceMean<keepdims=0>(m, zero)",
        "5",
        ["m", "f"],
    ),
    "the largest of all": (f"{GRID} r = Reshape(a, all_of_it) y, i = TopK(r, most)", "4", ["a", "c"]),
    "a similarity matrix": (f"{GRID} f = Flatten(a) t = Transpose(f) y = MatMul(f, t)", "N,N", ["f"]),
    "centred over the batch": (
        f"{GRID} p = GlobalAveragePool(a) f = Flatten(p) m = ReduceMean(f, zero) y = Sub(f, m)",
        "N,4",
        ["f"],
    ),
    "a softmax over the batch": (
        f"{GRID} p = GlobalAveragePool(a) f = Flatten(p) s = Softmax<axis=0>(f) y = MatMul(s, fc)",
        "N,5",
        ["s"],
    ),
    "a sum over all": (f"{GRID} y = ReduceSum<keepdims=0>(a)", "", ["a", "c"]),
}
entangled = pytest.mark.parametrize(("body", "output", "rows"), ENTANGLED.values(), ids=ENTANGLED)


@entangled
def test_samples_that_influence_each_other_are_refused_together(body, output, rows):
    explainer = Explainer(network("N,3,8,7", body, output))
    with pytest.raises(ModelError, match="the samples of a batch influence each other") as refused:
        explainer(drawn((2, 3, 8, 7)))
    assert all(f"'{name}'" in str(refused.value) for name in rows[:1])
    assert "fg/" not in str(refused.value)


@entangled
def test_one_of_them_is_explained_as_the_model_computes_it(body, output, rows):
    source, x = network("N,3,8,7", body, output), drawn((1, 3, 8, 7))
    e = Explainer(source, input_gradient=True)(x)
    truth = run(source, {"x": x})["y"].reshape(-1)
    np.testing.assert_allclose(e.score, truth[e.target], rtol=1e-4)
    v = drawn(x.shape, 9)
    up, down = (run(source, {"x": x + np.float32(h) * v})["y"].reshape(-1)[e.target] for h in (1e-2, -1e-2))
    np.testing.assert_allclose((e.input_gradient * v).sum(), (up - down)[0] / 2e-2, rtol=2e-2, atol=2e-3)


@entangled
def test_check_takes_one_of_them(body, output, rows):
    assert fgonnx.check(network("N,3,8,7", body, output), directions=3).passed


BOXES = (
    "c = Conv<strides=[2,2]>(x, w3) s = Sigmoid(c) f = Reshape(s, boxes) bt = Transpose<perm=[0,2,1]>(f) "
    "k = ReduceMax(f, one) n = NonMaxSuppression(bt, k, most, iou, low)"
)
# Heads with as many rows as something is found, and what the message names instead.
COUNTED = {
    "boxes that are kept": (
        f"{BOXES} i = Gather<axis=1>(n, two) q = Squeeze(i, one) y = Gather<axis=1>(bt, q)",
        "1,K,4",
        ["bt", "k"],
    ),
    "rows of boxes": (f"{BOXES} i = Gather<axis=1>(n, both) y = GatherND(bt, i)", "K,4", ["bt", "k"]),
    "what is above a threshold": (
        f"{GRID} g = Greater(a, low) n = NonZero(g) t = Transpose(n) y = GatherND(a, t)",
        "K",
        ["a"],
    ),
    "compressed": (f"{GRID} f = Reshape(a, all_of_it) g = Greater(f, low) y = Compress<axis=0>(f, g)", "K", ["a"]),
    "unique": (f"{GRID} y = Unique(a)", "K", ["a"]),
    "sorted, then weighed": (
        f"{GRID} g = Greater(a, low) n = NonZero(g) t = Transpose(n) v = GatherND(a, t) y = Mul(v, low)",
        "K",
        ["a"],
    ),
}
counted = pytest.mark.parametrize(("body", "output", "rows"), COUNTED.values(), ids=COUNTED)


@counted
@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_head_with_as_many_rows_as_are_found_is_refused(body, output, rows, batch):
    source = network(f"{batch},3,8,7", body, output)
    with pytest.raises(
        ModelError, match=r"has as many rows as .* finds, and no axis that answers to the batch"
    ) as refused:
        Explainer(source)(drawn((1, 3, 8, 7)))
    assert all(f"'{name}'" in str(refused.value) for name in rows)
    assert "fg/" not in str(refused.value)
    assert fgonnx.inspect(source)["obstacle"] == str(refused.value)


@counted
def test_what_the_message_names_is_explained(body, output, rows):
    source = network("N,3,8,7", body, output)
    for name in rows:
        found = Explainer(source, output=name)(drawn((2, 3, 8, 7)))
        assert found.saliency.shape == (2, 8, 7)
        assert found.rounding_residual().max() < 1e-5


def test_a_fixed_number_of_the_best_is_explained():
    """What is found is cut to a number of rows that is always the same: the head has a shape."""
    body = f"{GRID} r = Reshape(a, rows_of_it) v, i = TopK(r, most) y = Tanh(v)"
    source, x = network("N,3,8,7", body, "N,4"), drawn((3, 3, 8, 7))
    held(source, x, 0, (8, 7))


class TestSizesOfOtherInputs:
    """They are those of the arrays of the call, with a batch or without."""

    def two(self, inputs, gather, output):
        body = f"u = Unsqueeze(x, zero) c = Conv(u, w3) {TAIL.replace('y = MatMul(f, fc)', '')}"
        table = {"table": drawn((20, 4)), **{k: WEIGHTS[k] for k in ("zero", "one", "w3", "fc")}}
        return model(
            f"(float[3,h,w] x, {inputs}) => (float[{output}] y) {{ {body} {gather} g = Mul(f, e) y = MatMul(g, fc) }}",
            weights=table,
        )

    @pytest.mark.parametrize("length", [1, 4, 7])
    def test_a_list_of_free_length_beside_an_input_without_a_batch(self, length):
        source = self.two("int64[L] ids", "t = Gather<axis=0>(table, ids) e = ReduceMean(t, zero)", "1,5")
        x = {"x": drawn((3, 8, 7)), "ids": np.arange(length)}
        e = Explainer(source)(x)
        assert e.saliency.shape == (1, 8, 7)
        np.testing.assert_allclose(e.score, run(source, x)["y"].max(1), rtol=1e-4)

    @pytest.mark.parametrize("length", [1, 5])
    def test_a_mask_over_free_time(self, length):
        weights = {k: WEIGHTS[k] for k in ("W", "R", "one", "two", "last", "fc")}
        source = model(
            "(float[T,N,6] x, float[T,N] mask) => (float[N,5] y) "
            f"{{ m = Unsqueeze(mask, two) xm = Mul(x, m) h = LSTM<hidden_size=4>(xm, W, R) {STEPS} }}",
            weights=weights,
        )
        x = {"x": drawn((length, 2, 6)), "mask": np.abs(drawn((length, 2), 4))}
        e = Explainer(source, input="x")(x)
        assert e.saliency.shape == (2, length)
        np.testing.assert_allclose(e.score, run(source, x)["y"].max(1), rtol=1e-4)

    def test_a_state_whose_batch_is_second_beside_an_input_whose_batch_is_first(self):
        weights = {k: WEIGHTS[k] for k in ("W", "R", "one", "last", "fc")}
        source = model(
            "(float[N,9,6] x, float[1,N,4] h0, float[1,N,4] c0) => (float[N,5] y) { t = Transpose<perm=[1,0,2]>(x) "
            f"h = LSTM<hidden_size=4>(t, W, R, , , h0, c0) {STEPS} }}",
            weights=weights,
        )
        x = {"x": drawn((3, 9, 6)), "h0": drawn((1, 3, 4), 4), "c0": drawn((1, 3, 4), 5)}
        e = Explainer(source, input="x")(x)
        assert (e.settings["batch"], e.saliency.shape) == ("any", (3, 9))
        np.testing.assert_allclose(e.score, run(source, x)["y"].max(1), rtol=1e-4)

    def test_a_state_whose_axes_have_no_names(self):
        weights = {k: WEIGHTS[k] for k in ("W", "R", "one", "last", "fc")}
        source = model(
            "(float[N,9,6] x, float[1,N,4] h0) => (float[N,5] y, float[1,N,4] s) { t = Transpose<perm=[1,0,2]>(x) "
            f"h, s = LSTM<hidden_size=4>(t, W, R, , , h0) {STEPS.replace('s = ', 'q = ').replace('(s, ', '(q, ')} }}",
            weights=weights,
        )
        for value in (*source.graph.input, *source.graph.output):
            for d in value.type.tensor_type.shape.dim:
                d.ClearField("dim_param")
        x = {"x": drawn((3, 9, 6)), "h0": drawn((1, 3, 4), 4)}
        e = Explainer(source, input="x")(x)
        truth = run(source, x)
        np.testing.assert_allclose(e.score, truth["y"].max(1), rtol=1e-4)
        np.testing.assert_allclose(e.outputs["s"], truth["s"], rtol=1e-4, atol=1e-6)
        assert e.settings["batch"] == "any"

    def test_a_second_input_of_a_fixed_batch(self):
        weights = {k: WEIGHTS[k] for k in ("w3", "fc")}
        body = TAIL.replace("y = MatMul(f, fc)", "g = Mul(f, s) y = MatMul(g, fc)")
        source = model(
            f"(float[4,3,8,7] x, float[4,4] s) => (float[4,5] y) {{ c = Conv(x, w3) {body} }}", weights=weights
        )
        x = {"x": drawn((4, 3, 8, 7)), "s": drawn((4, 4), 4)}
        e = Explainer(source, input="x")(x)
        np.testing.assert_allclose(e.score, run(source, x)["y"].max(1), rtol=1e-4)


METHODS = ("gradient-x-input", "integrated-gradients", "grad-cam", "occlusion", "smooth-fullgrad")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["CHW", "a waveform"])
def test_every_kind_of_method_explains_an_input_without_a_batch(method, name):
    inputs, body, output, _, grid = ALONE[name]
    found = Explainer(network(inputs, body, output), method=method)(drawn(sizes(inputs)))
    assert found.saliency.shape == (1, *grid)
    assert found.attribution is None or found.attribution.shape == sizes(inputs)


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_method_explains_a_batch_elsewhere(method):
    inputs, body, output, *_ = ORDERS["TNF, convolved"]
    found = Explainer(network(inputs, body, output), method=method)(drawn((9, 2, 6)))
    assert found.saliency.shape == (2, 9)
    assert found.attribution is None or found.attribution.shape == (9, 2, 6)


@pytest.mark.parametrize(("name", "shape"), [("CHW", (3, 8, 7)), ("TNF, recurrent", (9, 6))])
def test_a_stream_takes_samples(name, shape):
    source = network(*{**ALONE, **ORDERS}[name][:3])
    found = [e.saliency for e in Explainer(source).stream([drawn(shape, seed) for seed in range(3)])]
    assert sum(map(len, found)) == 3


def test_a_cached_graph_is_the_same(tmp_path):
    for name, shape in (("CHW", (3, 8, 7)), ("TNF, recurrent", (9, 2, 6))):
        source, x = network(*{**ALONE, **ORDERS}[name][:3]), drawn(shape)
        twice = [Explainer(source, cache=tmp_path, input_gradient=True)(x) for _ in range(2)]
        np.testing.assert_array_equal(twice[0].saliency, twice[1].saliency)
        np.testing.assert_array_equal(twice[0].input_gradient, twice[1].input_gradient)


def test_samples_are_told_from_tokens_in_attention():
    """The product of two values that both depend on the input contracts an axis that is no channels."""
    source = model(
        """(float[T,6] x) => (float[5] y) {
            t = Transpose<perm=[1,0]>(x)
            s = MatMul(x, t)
            p = Softmax(s)
            o = MatMul(p, x)
            m = ReduceMean<keepdims=0>(o, zero)
            y = MatMul(m, k6)
        }""",
        weights={k: WEIGHTS[k] for k in ("zero", "k6")},
    )
    for length in (9, 7):
        held(source, drawn((length, 6)), None, (length,))


def test_the_example_of_the_page_runs():
    page = Path(__file__).parents[1] / "docs" / "layouts.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "layouts.md", "exec"), {})


def test_a_first_axis_without_a_name_of_which_the_graph_takes_one_entry_is_the_batch():
    source = network("rows_,6", "r = Reshape(x, one_row) t = Tanh(r) y = MatMul(t, k6)", "1,5")
    held(source, drawn((1, 6)), 0, (6,))
