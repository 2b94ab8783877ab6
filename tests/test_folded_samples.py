"""One sample whose channels, frames or patches are folded into its first axis; inputs that all samples share."""

import re

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import Explainer
from fgonnx.errors import InputError, ModelError, NumericError
from tests.cli_support import good
from tests.support import draw, model, run

NUMBERS = {
    "zero": np.array(0),
    "first": np.array([0]),
    "second": np.array([1]),
    "third": np.array([2]),
    "grid": np.array([2, 3]),
    "corner": np.array([0, 0]),
    "inside": np.array([2, 2]),
    "far": np.array([6, 6]),
    "end": np.array([8, 8]),
    "windows": np.array([-1, 3, 2, 4, 2, 4]),
    "crops": np.array([2, -1, 5]),
    "scale": np.ones(1, np.float32),
    "shift": np.zeros(1, np.float32),
}
POOL = "r = Relu(p) g = GlobalAveragePool(r) "

#: The input behind its first axis, the graph, its weights, and the target shapes that hold the batch in front.
FOLDED = {
    "a blur of every channel": (
        (3, 6, 6),
        "d = Reshape(x, apart) p = Conv(d, k) q = Reshape(p, back) t = Tanh(q) m = GlobalAveragePool(t) "
        "f = Flatten(m) y = MatMul(f, w)",
        {"k": (1, 1, 3, 3), "w": (3, 3)},
        {"apart": (3, 1, 6, 6), "back": (1, 3, 4, 4)},
    ),
    "the mean of frames": (
        (4, 3, 6, 6),
        f"d = Reshape(x, apart) p = Conv(d, k) {POOL} q = Reshape(g, back) "
        "m = ReduceMean<keepdims=0>(q, second) y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        {"apart": (4, 3, 6, 6), "back": (1, 4, 5)},
    ),
    "frames in an LSTM": (
        (4, 3, 6, 6),
        f"d = Reshape(x, apart) p = Conv(d, k) {POOL} q = Reshape(g, back) t = Transpose<perm=[1,0,2]>(q) "
        "a, h = LSTM<hidden_size=4>(t, gates, again) u = Squeeze(h, first) y = MatMul(u, w)",
        {"k": (5, 3, 3, 3), "gates": (1, 16, 5), "again": (1, 16, 4), "w": (4, 3)},
        {"apart": (4, 3, 6, 6), "back": (1, 4, 5)},
    ),
    "an output of every channel": (
        (3, 6, 6),
        "d = Reshape(x, apart) p = Conv<pads=[1,1,1,1]>(d, k) q = Reshape(p, back) y = Tanh(q)",
        {"k": (1, 1, 3, 3)},
        {"apart": (3, 1, 6, 6), "back": (1, 3, 6, 6)},
    ),
    "an output of every frame": (
        (4, 3, 6, 6),
        f"d = Reshape(x, apart) p = Conv(d, k) {POOL} q = Reshape(g, back) y = MatMul(q, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        {"apart": (4, 3, 6, 6), "back": (1, 4, 5)},
    ),
    "patches": (
        (3, 8, 8),
        "d = Reshape(x, windows) t = Transpose<perm=[0,2,4,1,3,5]>(d) e = Reshape(t, apart) "
        f"p = Conv(e, k) {POOL} q = Reshape(g, back) m = ReduceMax<keepdims=0>(q, second) y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        {"apart": (4, 3, 4, 4), "back": (1, 4, 5)},
    ),
    "crops of one picture": (
        (3, 8, 8),
        "a = Slice(x, corner, far, grid) b = Slice(x, inside, end, grid) c = Concat<axis=0>(a, b) "
        f"p = Conv(c, k) {POOL} f = Flatten(g) q = Reshape(f, crops) m = ReduceMean<keepdims=0>(q, first) "
        "y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        {},
    ),
    "the scores of crops": (
        (4, 3, 6, 6),
        f"c = Reshape(x, apart) p = Conv(c, k) {POOL} f = Flatten(g) u = MatMul(f, w) v = Softmax<axis=1>(u) "
        "q = Reshape(v, back) y = ReduceMean<keepdims=0>(q, second)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        {"apart": (4, 3, 6, 6), "back": (1, 4, 3)},
    ),
    "groups of a normalisation": (
        (6, 5, 5),
        "d = Reshape(x, apart) n = InstanceNormalization(d, scale, shift) q = Reshape(n, back) "
        f"p = Conv(q, k) {POOL} f = Flatten(g) y = MatMul(f, w)",
        {"k": (4, 6, 3, 3), "w": (4, 3)},
        {"apart": (6, 1, 5, 5), "back": (1, 6, 5, 5)},
    ),
    "channels folded and unfolded again": (
        (3, 6, 6),
        f"d = Reshape(x, apart) t = Tanh(d) q = Reshape(t, back) p = Conv(q, k) {POOL} f = Flatten(g) y = MatMul(f, w)",
        {"k": (4, 3, 3, 3), "w": (4, 3)},
        {"apart": (3, 1, 6, 6), "back": (1, 3, 6, 6)},
    ),
    "an LSTM of every channel": (
        (5, 7),
        "d = Reshape(x, apart) t = Transpose<perm=[1,0,2]>(d) a, h = LSTM<hidden_size=4>(t, gates, again) "
        "u = Squeeze(h, first) q = Reshape(u, back) y = MatMul(q, w)",
        {"gates": (1, 16, 1), "again": (1, 16, 4), "w": (20, 3)},
        {"apart": (5, 7, 1), "back": (1, 20)},
    ),
}

#: Where the first axis is taken away: these run on one sample alone.
TAKEN = {
    "a first axis that is squeezed": (
        (4, 3, 6, 6),
        f"c = Squeeze(x, first) p = Conv(c, k) {POOL} f = Flatten(g) m = ReduceMean(f, first) y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
    ),
    "the first entry": (
        (4, 3, 6, 6),
        f"c = Gather<axis=0>(x, zero) p = Conv(c, k) {POOL} f = Flatten(g) m = ReduceMax(f, first) y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
    ),
}


def folded(case: str, batch: str, *, inferred: bool = False) -> onnx.ModelProto:
    """Return the model with a free or a fixed batch; of shapes that are written out or not."""
    shape, body, weights, targets = FOLDED[case]
    sizes = {name: np.array(t if batch == "1" else (-1, *t[1:])) for name, t in targets.items()}
    used = {n: a for n, a in (draw(seed=2, **weights) | NUMBERS | sizes).items() if re.search(rf"\b{n}\b", body)}
    first = ",".join([batch, *map(str, shape)])
    source = model(f"(float[{first}] x) => (float y) {{ {body} }}", 18, weights=used)
    source.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(source) if inferred else source


def picture(shape: tuple[int, ...], count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("inferred", [False, True], ids=["bare", "with shapes"])
@pytest.mark.parametrize("case", FOLDED)
def test_a_fixed_batch_of_one_is_explained_as_a_free_one(case, inferred):
    x = picture(FOLDED[case][0])
    free = Explainer(folded(case, "N"), input_gradient=True)(x)
    found = Explainer(folded(case, "1", inferred=inferred), input_gradient=True)(x)
    assert found.saliency.shape == free.saliency.shape
    np.testing.assert_array_equal(found.target, free.target)
    for name in ("score", "saliency", "input_gradient"):
        np.testing.assert_allclose(getattr(found, name), getattr(free, name), rtol=1e-4, atol=1e-6, err_msg=name)


def _slope(source, x, explained) -> None:
    """Hold a gradient against finite differences of the source, and the score against its output."""
    direction = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    ahead, here, behind = (run(source, {"x": x + step * direction})["y"].reshape(-1) for step in (1e-3, 0, -1e-3))
    np.testing.assert_allclose(explained.score, here[explained.target], rtol=1e-5)
    slope = (ahead.astype(np.float64) - behind)[explained.target] / 2e-3
    np.testing.assert_allclose((explained.input_gradient * direction).sum(), slope, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("case", FOLDED)
def test_gradients_of_folded_samples_are_the_slopes_of_the_source(case):
    source, x = folded(case, "1"), picture(FOLDED[case][0])
    _slope(source, x, Explainer(source, input_gradient=True)(x))


@pytest.mark.parametrize("case", TAKEN)
def test_a_first_axis_that_is_taken_away_leaves_one_sample(case):
    shape, body, weights = TAKEN[case]
    used = {n: a for n, a in (draw(seed=2, **weights) | NUMBERS).items() if re.search(rf"\b{n}\b", body)}
    source = model(f"(float[1,{','.join(map(str, shape))}] x) => (float[1,3] y) {{ {body} }}", 18, weights=used)
    x = picture(shape)
    _slope(source, x, Explainer(source, input_gradient=True)(x))


@pytest.mark.parametrize("layout", ["NCHW", "CDHW", "DCHW"])
def test_folded_channels_take_any_layout_of_one_sample(layout):
    case = "a blur of every channel"
    x = picture(FOLDED[case][0])
    assert Explainer(folded(case, "1"), layout=layout)(x).score.shape == (1,)


def test_folded_samples_pass_a_check_and_the_command_line(tmp_path):
    case = "a blur of every channel"
    source, x = folded(case, "1"), picture(FOLDED[case][0])
    assert fgonnx.check(source, x).verdict == "passed"
    onnx.save(source, tmp_path / "blur.onnx")
    good("rewrite", tmp_path / "blur.onnx", "-o", tmp_path / "written.onnx")
    written = run(str(tmp_path / "written.onnx"), {"x": x}, ["saliency"])["saliency"]
    np.testing.assert_allclose(written, Explainer(source)(x).saliency, rtol=1e-5, atol=1e-7)


def test_frames_with_an_output_each_are_samples_as_they_are_rows():
    """Where the output has no axis of one sample, its rows are what is explained."""
    body = f"d = Reshape(x, apart) p = Conv(d, k) {POOL} f = Flatten(g) y = MatMul(f, w)"
    weights = draw(k=(5, 3, 3, 3), w=(5, 3)) | {"apart": np.array([-1, 3, 6, 6])}
    source = model(f"(float[1,4,3,6,6] x) => (float[4,3] y) {{ {body} }}", weights=weights)
    assert len(Explainer(source)(picture((4, 3, 6, 6)))) == 4


ATTENTION = (
    "gt = Transpose<perm=[1,0]>(g) a = MatMul(x, gt) p = Softmax<axis=1>(a) r = MatMul(p, g) y = MatMul(r, w)",
    {"w": (6, 3)},
)
SHARED = {
    "a gallery of another name": ("float[N,6] x, float[M,6] g", *ATTENTION),
    "a gallery without a name": ("float[N,6] x, float[?,6] g", *ATTENTION),
    "a gallery beside a fixed batch": ("float[1,6] x, float[M,6] g", *ATTENTION),
    "a gallery beside a batch of three": ("float[3,6] x, float[M,6] g", *ATTENTION),
    "prototypes": (
        "float[N,6] x, float[K,6] g",
        "u = Unsqueeze(x, second) d = Sub(u, g) q = Mul(d, d) s = ReduceSum<keepdims=0>(q, third) y = Neg(s)",
        {},
    ),
    "keys and values": (
        "float[N,6] x, float[M,6] g, float[M,4] v",
        "gt = Transpose<perm=[1,0]>(g) a = MatMul(x, gt) p = Softmax<axis=1>(a) y = MatMul(p, v)",
        {},
    ),
    "a codebook of pictures": (
        "float[N,3,5,5] x, float[M,4] g",
        f"p = Conv(x, k) {POOL} f = Flatten(g0) gt = Transpose<perm=[1,0]>(g) y = MatMul(f, gt)".replace(
            "g = ", "g0 = "
        ),
        {"k": (4, 3, 3, 3)},
    ),
}


def shared(case: str) -> onnx.ModelProto:
    inputs, body, weights = SHARED[case]
    used = {n: a for n, a in (draw(seed=2, **weights) | NUMBERS).items() if re.search(rf"\b{n}\b", body)}
    return model(f"({inputs}) => (float[N,C] y) {{ {body} }}", weights=used)


@pytest.mark.parametrize("entries", [1, 3, 5])
@pytest.mark.parametrize("case", SHARED)
def test_an_input_that_samples_share_is_taken_whole(case, entries):
    source, rng = shared(case), np.random.default_rng(4)
    shape = (3, 3, 5, 5) if "pictures" in case else (1 if "fixed" in case else 3, 6)
    x = rng.standard_normal(shape).astype(np.float32)
    width = 4 if "pictures" in case else 6
    others = {"g": rng.standard_normal((entries, width)).astype(np.float32)}
    if "values" in case:
        others["v"] = rng.standard_normal((entries, 4)).astype(np.float32)
    explainer = Explainer(source, input="x", input_gradient=True)
    found, count = explainer({"x": x, **others}), np.arange(len(x))
    direction = rng.standard_normal(shape).astype(np.float32)
    ahead, here, behind = (run(source, {"x": x + s * direction, **others})["y"] for s in (1e-3, 0, -1e-3))
    np.testing.assert_allclose(found.score, here[count, found.target], rtol=1e-5, atol=1e-6)
    slopes = (ahead.astype(np.float64) - behind)[count, found.target] / 2e-3
    np.testing.assert_allclose(
        (found.input_gradient * direction).reshape(len(x), -1).sum(1), slopes, rtol=5e-3, atol=2e-3
    )
    for i in count:
        alone = explainer({"x": x[i : i + 1], **others}, int(found.target[i]))
        np.testing.assert_allclose(alone.saliency, found.saliency[i : i + 1], rtol=1e-4, atol=1e-6)


def test_an_input_of_another_name_with_a_row_for_each_sample_stays_one():
    source = model("(float[A,6] x, float[B,6] g) => (float[A,6] y) { d = Mul(x, g) y = Tanh(d) }")
    x, g = (np.random.default_rng(s).standard_normal((3, 6)).astype(np.float32) for s in (1, 2))
    assert len(Explainer(source, input="x")({"x": x, "g": g})) == 3
    with pytest.raises(InputError, match=r"give as many of both, or bind an input .*bind="):
        Explainer(source, input="x")({"x": x, "g": g[:2]})


def test_a_file_asks_for_the_size_of_an_input_that_samples_share():
    source, rng = shared("a gallery of another name"), np.random.default_rng(4)
    with pytest.raises(ModelError, match=r"g \(float \[M, 6\]\).*input_shape=\{'g': \(1, 6\)\}"):
        fgonnx.rewrite(source, input="x")
    x, g = (rng.standard_normal((n, 6)).astype(np.float32) for n in (3, 5))
    written = fgonnx.rewrite(source, input="x", input_shape={"g": (5, 6)})
    found = run(written, {"x": x, "g": g}, ["saliency"])["saliency"]
    np.testing.assert_allclose(found, Explainer(source, input="x")({"x": x, "g": g}).saliency, rtol=1e-4, atol=1e-6)


POINTS = (
    "h = MatMul(x, a) r = Relu(h) m = ReduceMax<keepdims={kept}>(r, first) y = MatMul(m, w)",
    {"a": (3, 8), "w": (8, 4)},
)
NO_BATCH = {
    "points": ("float[N,3] x", POINTS[0].replace("{kept}", "0"), POINTS[1], (9, 3)),
    "points of an output of one row": ("float[N,3] x", POINTS[0].replace("{kept}", "1"), POINTS[1], (9, 3)),
    "nodes of a graph": (
        "float[V,3] x, float[V,V] near",
        "h = MatMul(near, x) c = MatMul(h, a) r = Relu(c) q = MatMul(near, r) y = MatMul(q, w)",
        {"a": (3, 8), "w": (8, 4)},
        (4, 3),
    ),
    "a fixed number of frames": (
        "float[4,3,6,6] x",
        f"p = Conv(x, k) {POOL} f = Flatten(g) m = ReduceMean(f, first) y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        (4, 3, 6, 6),
    ),
    "frames": (
        "float[N,3,6,6] x",
        f"p = Conv(x, k) {POOL} f = Flatten(g) m = ReduceMax(f, first) y = MatMul(m, w)",
        {"k": (5, 3, 3, 3), "w": (5, 3)},
        (4, 3, 6, 6),
    ),
}


@pytest.mark.parametrize("case", NO_BATCH)
def test_refusals_name_the_layout_that_works_where_the_first_axis_is_no_batch(case):
    inputs, body, weights, shape = NO_BATCH[case]
    used = {n: a for n, a in (draw(seed=2, **weights) | NUMBERS).items() if re.search(rf"\b{n}\b", body)}
    source = model(f"({inputs}) => (float[{'V,4' if 'near' in inputs else 'R'}] y) {{ {body} }}", weights=used)
    if "near" not in inputs:
        source.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": picture(shape[1:], shape[0])}
    if "near" in inputs:
        feeds["near"] = np.abs(picture((4,), 4))
    with pytest.raises(ModelError, match=r"\(layout='\w+'\)") as refused:
        Explainer(source, input="x")(feeds)
    layout = re.search(r"layout='(\w+)'", str(refused.value)).group(1)
    found = Explainer(source, input="x", layout=layout, input_gradient=True)(feeds)
    assert found.input_gradient.shape == shape
    np.testing.assert_allclose(found.score, run(source, feeds)["y"].reshape(-1)[found.target], rtol=1e-5)


def test_an_input_of_the_name_of_the_batch_is_bound_where_samples_share_it():
    _, body, weights = SHARED["a gallery of another name"]
    source = model(f"(float[N,6] x, float[N,6] g) => (float[N,3] y) {{ {body} }}", weights=draw(**weights))
    x, g = (np.random.default_rng(s).standard_normal((3, 6)).astype(np.float32) for s in (1, 2))
    with pytest.raises(ModelError, match=r"Bind inputs that have no row for each sample \(bind=\)"):
        Explainer(source, input="x")({"x": x, "g": g})
    assert len(Explainer(source, bind={"g": g})(x)) == 3


def test_samples_that_join_at_some_values_alone_are_refused_with_the_layout_that_works():
    source = model(
        "(float[N,6] x) => (float[N,6] y) { m = ReduceMax<keepdims=1>(x, first) d = Max(x, level) "
        "far = Max(m, level) e = Sub(far, level) s = Add(d, e) y = MatMul(s, w) }",
        weights=draw(w=(6, 6)) | {"first": np.array([0]), "level": np.float32(4)},
    )
    x = np.random.default_rng(1).uniform(3, 6, (3, 6)).astype(np.float32)
    with pytest.raises((ModelError, NumericError), match=r"no batch.*\(layout='TF'\)"):
        Explainer(source)(x)
    assert len(Explainer(source, layout="TF")(x)) == 1
