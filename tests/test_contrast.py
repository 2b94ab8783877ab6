"""Why this and not that: one entry of the head minus another, with map, certificate, picture and record."""

import json

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import Explainer, Options, rewrite
from fgonnx.engine.rewrite.rewritten import sites_of
from fgonnx.errors import OptionError, TargetError
from fgonnx.evaluate import Subject
from fgonnx.pictures.read import images
from fgonnx.pictures.show import visual
from fgonnx.targets import Cotangent, Detection, Region
from tests.cli_support import CIRCLE, SHAPES, good, refused, written
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(4)
CNN = small_cnn()
NAMES = ["cat", "dog", "tiger cat", "fox", "lynx"]
LOGITS = run(CNN, {"x": X})["y"]
ORDER = np.argsort(-LOGITS, axis=1)

SEGMENTATION = model(
    "(float[N,3,8,6] x) => (float[N,2,8,6] y) { y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }",
    weights=draw(w=(2, 3, 3, 3), b=(2,)),
)
#: Methods that are linear in the cotangent of the head; score, relevance and averages of gradients are, too.
LINEAR = [
    "fullgrad",
    "gradient",
    "gradient-x-input",
    "smoothgrad",
    "integrated-gradients",
    "lrp-epsilon",
    "grad-cam",
    "xgrad-cam",
    "hires-cam",
    "occlusion",
    "smooth-fullgrad",
]
UNSIGNED = ["smoothgrad-squared", "vargrad", "eigen-cam", "score-cam", "rise", "edge", "random"]


def explain(x=X, target=None, source=CNN, contrast=None, **options):
    return Explainer(source, threads=1, **{"labels": NAMES, **options})(x, target, contrast=contrast)


@pytest.mark.parametrize("name", LINEAR)
def test_the_map_is_the_difference_of_two(name):
    few = {"samples": 4} if name.startswith("smooth") else {"steps": 8} if name.startswith("integ") else {}
    found = explain(method=name, target=3, contrast=1, **few)
    this, that = (explain(method=name, target=t, psi="signed", **few) for t in (3, 1))
    expected = this.saliency.astype(np.float64) - that.saliency
    np.testing.assert_allclose(found.saliency, expected, rtol=0, atol=1e-5 * max(np.abs(this.saliency).max(), 1))
    np.testing.assert_allclose(found.score, this.score - that.score, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["fullgrad", "net-fullgrad", "fullgrad+", "smooth-fullgrad"])
def test_the_certificate_closes_on_the_difference(name):
    few = {"samples": 4} if name == "smooth-fullgrad" else {}
    found = explain(method=name, target=3, contrast=1, **few)
    this, that = (explain(method=name, target=t, **few).contributions for t in (3, 1))
    np.testing.assert_allclose(found.contributions, this - that, rtol=0, atol=1e-5)
    assert found.rounding_residual().max() < 1e-6


@pytest.mark.parametrize(
    "name", ["fullgrad", "net-fullgrad", "fullgrad+", "simple-fullgrad", "guided-backprop", "layer-cam"]
)
def test_it_is_what_a_seed_of_one_and_minus_one_gives(name):
    seed = np.array([0, -1, 0, 1, 0], np.float32)
    found = explain(method=name, target=3, contrast=1)
    expected = Explainer(CNN, method=name, psi="signed", threads=1)(X, seed=seed)
    np.testing.assert_allclose(found.saliency, expected.saliency, rtol=1e-4, atol=1e-5)


CHOICES = [
    # target, contrast, the entries compared
    (3, 1, [(3, 1)] * 4),
    (3, "dog", [(3, 1)] * 4),
    ("Fox", "tiger_cat", [(3, 2)] * 4),
    ("3", "1", [(3, 1)] * 4),
    (None, "next", [tuple(o[:2]) for o in ORDER]),
    (None, "NEXT", [tuple(o[:2]) for o in ORDER]),
    (list(ORDER[:, 2]), "next", [(o[2], o[0]) for o in ORDER]),
    (list(ORDER[:, 0]), list(ORDER[:, 4]), [(o[0], o[4]) for o in ORDER]),
    (None, ORDER[:, 3], [(o[0], o[3]) for o in ORDER]),
    ([0, 1, 2, 3], ["next", 0, "lynx", "next"], [(0, None), (1, 0), (2, 4), (3, None)]),
    ((3,), (1,), [(3, 1)] * 4),
]


@pytest.mark.parametrize(("target", "contrast", "pairs"), CHOICES, ids=lambda v: None)
def test_entries_are_given_as_targets_are(target, contrast, pairs):
    found = explain(target=target, contrast=contrast)
    for i, (this, that) in enumerate(pairs):
        that = next(o for o in ORDER[i] if o != this) if that is None else that
        assert (found.target[i], found.contrast[i]) == (this, that)
        assert found.described[i] == f"{this} '{NAMES[this]}' rather than {that} '{NAMES[that]}'"
        np.testing.assert_allclose(found.score[i], LOGITS[i, this] - LOGITS[i, that], rtol=0, atol=1e-5)


def test_positions_compare_entries_of_any_head():
    found = explain(source=SEGMENTATION, target=(1, 3, 2), contrast=(0, 3, 2))
    truth = run(SEGMENTATION, {"x": X})["y"]
    np.testing.assert_allclose(found.score, truth[:, 1, 3, 2] - truth[:, 0, 3, 2], rtol=0, atol=1e-6)
    assert found.described[0] == "(1, 3, 2) rather than (0, 3, 2)"


@pytest.mark.parametrize("given", ["options", "call"])
def test_options_and_calls_take_it(given):
    options, call = ({"contrast": "dog"}, {}) if given == "options" else ({}, {"contrast": "dog"})
    found = Explainer(CNN, labels=NAMES, **options)(X, 3, **call)
    np.testing.assert_array_equal(found.contrast, 1)
    assert (found.settings["contrast"], found.settings["psi"]) == ("dog", "signed")


def test_a_call_may_differ_from_the_options():
    explainer = Explainer(CNN, contrast=1)
    assert [set(explainer(X, 3, contrast=c).contrast) for c in (None, 0)] == [{1}, {0}]


def test_a_call_leaves_the_next_one_alone():
    explainer = Explainer(CNN)
    before = explainer(X, 3)
    explainer(X, 3, contrast=1)
    after = explainer(X, 3)
    np.testing.assert_array_equal(before.saliency, after.saliency)
    assert after.contrast is None
    assert (before.settings["psi"], "contrast" in after.settings) == ("abs", False)


@pytest.mark.parametrize(("psi", "shown"), [("abs", "signed"), ("positive", "positive"), ("signed", "signed")])
def test_a_difference_has_a_sign(psi, shown):
    assert Options(contrast=1, psi=psi).psi == shown
    assert (explain(psi=psi, target=3, contrast=1).saliency.min() < 0) == (shown == "signed")


@pytest.mark.parametrize(
    "source",
    [small_cnn(batch=1), small_cnn(layout="NHWC"), small_cnn(batch="N", opset=13)],
    ids=["a fixed batch", "channels last", "opset 13"],
)
def test_other_forms_of_the_model_are_the_same(source):
    dims = source.graph.input[0].type.tensor_type.shape.dim
    x = X if dims[1].dim_value == 3 else np.moveaxis(X, 1, -1)
    found, expected = explain(x, 3, source, 1), explain(target=3, contrast=1)
    np.testing.assert_allclose(found.saliency, expected.saliency, rtol=0, atol=1e-5)


def test_samples_do_not_depend_on_the_batch_size():
    found = explain(contrast="next", batch_size=3)
    np.testing.assert_allclose(found.saliency, explain(contrast="next", batch_size=1).saliency, rtol=0, atol=1e-5)


def test_a_cached_graph_is_the_same(tmp_path):
    first, again = (explain(contrast="next", cache=tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first.saliency, again.saliency)
    assert again.described == first.described


def test_half_precision_is_explained_in_float32():
    source = model(
        """(float16[N,3,8,6] x) => (float16[N,4] y) {
            a = Conv<kernel_shape=[3,3]>(x, w, b)
            p = GlobalAveragePool(a)
            y = Flatten(p)
        }""",
        weights={k: v.astype(np.float16) for k, v in draw(w=(4, 3, 3, 3), b=(4,)).items()},
    )
    found = explain(X.astype(np.float16), None, source, "next", labels=None)
    assert found.score.dtype == np.float32
    assert found.score.min() > 0
    assert found.rounding_residual().max() < 1e-3


class TestFiles:
    def test_a_file_has_a_second_index(self):
        proto = rewrite(CNN, contrast="next")
        assert [i.name for i in proto.graph.input] == ["x", "target_index", "contrast_index"]
        assert "contrast" in [o.name for o in proto.graph.output]
        found = run(proto, {"x": X})
        np.testing.assert_array_equal(found["target"], ORDER[:, 0])
        np.testing.assert_array_equal(found["contrast"], ORDER[:, 1])
        np.testing.assert_allclose(found["saliency"], explain(contrast="next").saliency, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("form", ["fast", "portable"])
    def test_its_default_is_the_option(self, form):
        found = run(rewrite(CNN, contrast=1, target=3, form=form), {"x": X})
        np.testing.assert_allclose(found["score"], LOGITS[:, 3] - LOGITS[:, 1], rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["completeness"], 0, atol=1e-5)

    def test_indices_are_one_or_one_per_sample(self):
        proto = rewrite(CNN, contrast="next")
        one = run(proto, {"x": X, "target_index": np.array([3]), "contrast_index": np.array([0])})
        each = run(proto, {"x": X, "target_index": np.array([3, 1, 2, 3]), "contrast_index": np.array([0, 0, -1, 4])})
        np.testing.assert_array_equal(one["contrast"], 0)
        np.testing.assert_array_equal(each["contrast"][[0, 1, 3]], [0, 0, 4])
        assert each["contrast"][2] == next(o for o in ORDER[2] if o != 2)

    def test_an_input_of_that_name_stays_the_models_own(self):
        source = small_cnn()
        source.graph.input[0].name = "contrast_index"
        source.graph.node[0].input[0] = "contrast_index"
        names = [i.name for i in rewrite(source, contrast="next").graph.input]
        assert names == ["contrast_index", "target_index", "fg_contrast_index"]

    def test_the_metadata_says_so(self):
        proto = rewrite(CNN, contrast=1)
        assert {p.key: p.value for p in proto.metadata_props}["fgonnx.contrast"] == "1"
        assert len(sites_of(proto)) == len(sites_of(rewrite(CNN)))

    def test_a_label_becomes_an_index_on_the_command_line(self, tmp_path):
        out = tmp_path / "contrast.onnx"
        good("rewrite", SHAPES, "-o", out, "--target", "star", "--contrast", "ring")
        proto = onnx.load(out)
        metadata = {p.key: p.value for p in proto.metadata_props}
        assert [metadata[f"fgonnx.{name}"] for name in ("target", "contrast")] == ["3", "5"]
        assert [i.name for i in proto.graph.input] == ["image"]


ONE_ENTRY = model(
    "(float[N,3,8,6] x) => (float[N,1] y) { f = Flatten(x)\n y = MatMul(f, w) }", weights=draw(w=(144, 1))
)
DETECTOR = model(
    "(float[N,3,8,6] x) => (float[N,4,7] y) { f = Flatten(x)\n d = MatMul(f, w)\n y = Reshape(d, s) }",
    weights={**draw(w=(144, 28)), "s": np.array([0, 4, 7])},
)


@pytest.mark.parametrize(
    ("source", "target", "contrast", "said"),
    [
        (CNN, 3, 3, "sample 0: target and contrast are both 3 'fox', so there is nothing to explain"),
        (CNN, "fox", 3, "sample 0: target and contrast are both 3 'fox'"),
        (CNN, [0, 1, 2, 3], [1, 0, 2, 0], "sample 2: target and contrast are both 2 'tiger cat'"),
        (CNN, None, ORDER[:, 0], "sample 0: target and contrast are both"),
        (CNN, None, [ORDER[0, 1], ORDER[1, 0], 0, 0], "sample 1: target and contrast are both"),
        (CNN, 3, "wolf", "wolf"),
        (CNN, 3, 5, "contrast 5 is out of range: the model has 5 entries"),
        (CNN, 3, -1, "contrast -1 is out of range"),
        (CNN, 3, 1.5, "contrast 1.5 is not an index or a label"),
        (CNN, 3, True, "contrast True is not an index or a label"),
        (CNN, 3, [0, 1], r"2 contrasts were given for 4 sample\(s\)"),
        (CNN, 3, (0, 1), "has 2 axes, the head has 1"),
        (CNN, 3, (slice(0, 2),), "compares two single entries"),
        (CNN, (slice(0, 2),), 3, "compares two single entries"),
        (CNN, Cotangent(np.ones(5)), 3, "compares two single entries"),
        (CNN, 3, "seed=weights.npy", "weights.npy"),
        (ONE_ENTRY, None, "next", "'y' has one entry per sample: there is nothing to contrast it with"),
        (ONE_ENTRY, 0, 0, "'y' has one entry"),
        (DETECTOR, None, "next", r"the head has the shape \(4, 7\); give target and contrast as positions such as 0,0"),
        (DETECTOR, Detection(2), 3, r"the head has the shape \(4, 7\)"),
        (DETECTOR, 5, 6, r"the head has the shape \(4, 7\)"),
        (DETECTOR, (1, 5), "next", r"the head has the shape \(4, 7\)"),
        (SEGMENTATION, Region((0, 0, 1, 1), 1), 0, r"the head has the shape \(2, 8, 6\)"),
    ],
)
def test_what_is_no_contrast_is_refused(source, target, contrast, said):
    with pytest.raises((TargetError, OptionError), match=said):
        explain(target=target, source=source, contrast=contrast)


@pytest.mark.parametrize("name", UNSIGNED)
def test_a_method_without_a_sign_is_refused(name):
    with pytest.raises(
        OptionError, match=f"contrast='next' has no effect: a difference has a sign, and the map of {name} has none"
    ):
        Explainer(CNN, method=name, contrast="next")
    with pytest.raises(OptionError, match="a difference has a sign"):
        Explainer(CNN, method=name)(X, contrast="next")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Explainer(CNN, contrast=1)(X, seed=np.ones(5)), "give a contrast or a seed, not both"),
        (lambda: rewrite(CNN, contrast=1, seed=True), "contrast=1 has no effect: the cotangent says what is explained"),
        (lambda: rewrite(CNN, contrast=3, target=3), "target and contrast are both 3, so there is nothing to explain"),
        (lambda: rewrite(CNN, contrast=7), "contrast 7 is out of range: 'y' has 5 entries"),
        (lambda: rewrite(CNN, contrast="dog"), "contrast='dog' is a name; a file takes an index, or 'next'"),
        (lambda: rewrite(ONE_ENTRY, contrast="next"), "'y' has one entry per sample"),
        (lambda: rewrite(DETECTOR, contrast=1), r"compares two classes, and 'y' has \(4, 7\) entries"),
        (lambda: Options(contrast=1.5), "contrast=1.5 is of the type float"),
        (lambda: Options(contrast=True), "contrast=True is of the type bool"),
        (lambda: rewrite(CNN, outputs=("contrast",)), "there is no output 'contrast'"),
        (lambda: fgonnx.check(CNN, contrast=1), "contrast=1 has no effect: a check explains"),
        (lambda: fgonnx.inspect(CNN, contrast=1), "contrast=1 has no effect: an inspection explains"),
        (lambda: fgonnx.compare(CNN, CNN, X, contrast=1), "contrast=1 has no effect: two models are compared"),
        (lambda: Subject(CNN, contrast=1), "contrast=1 has no effect: measures ask for"),
        (lambda: fgonnx.grad(CNN, contrast=1), "contrast=1 has no effect: a plain gradient"),
    ],
)
def test_what_has_no_contrast_refuses_it(call, said):
    with pytest.raises((OptionError, TargetError), match=said):
        call()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return where a circle was explained rather than a ring."""
    folder = tmp_path_factory.mktemp("contrast")
    asked = ("--target", "circle", "--contrast", "ring", "--picture", "heat")
    good("explain", SHAPES, CIRCLE, "-o", folder, *asked, "--threads", 1)
    return folder


class TestExplain:
    def record(self, folder):
        return json.loads((folder / "circle.json").read_text(encoding="utf-8"))

    def test_the_record_holds_both_entries(self, folder):
        found = self.record(folder)
        assert (found["target"]["label"], found["contrast"]["label"]) == ("circle", "ring")
        assert found["score"] == pytest.approx(found["target"]["score"] - found["contrast"]["score"], abs=1e-4)
        assert (found["settings"]["contrast"], found["settings"]["psi"]) == ("ring", "signed")
        assert found["explained"]["described"] == "0 'circle' rather than 5 'ring'"
        assert found["completeness"]["rounding"] < 1e-6

    def test_the_picture_is_of_two_colours_about_white(self, folder):
        map_ = np.load(folder / "circle.npy")
        assert map_.min() < 0 < map_.max()
        drawn = images.read(folder / "circle.png").rgb.astype(int)
        assert (drawn[..., 0] - drawn[..., 2]).max() > 100  # red
        assert (drawn[..., 2] - drawn[..., 0]).max() > 100  # blue
        assert (visual.heat(np.zeros((2, 2)), signed=True) >= 254).all()

    def test_resume_tells_contrasts_apart(self, folder):
        def stamp():
            return (folder / "circle.json").stat().st_mtime_ns

        first, asked = stamp(), ("--target", "circle", "--picture", "heat", "--resume", "--threads", 1)
        good("explain", SHAPES, CIRCLE, "-o", folder, *asked, "--contrast", "ring")
        assert stamp() == first
        good("explain", SHAPES, CIRCLE, "-o", folder, *asked, "--contrast", "next")
        assert stamp() > first

    def test_the_picture_whose_choice_is_the_contrast_is_named(self, tmp_path):
        asked = ("--contrast", "ring", "--threads", 1)
        said = refused(
            "explain", SHAPES, CIRCLE.parent / "circle.png", CIRCLE.parent / "ring.png", "-o", tmp_path, *asked
        )
        assert "ring.png': target and contrast are both 5 'ring'" in said
        assert written(tmp_path) == ["circle.json", "circle.npy", "circle.png"]

    def test_the_panel_names_both(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")  # narrower, cells are folded and their words no longer stand side by side
        said = good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--contrast", "next", "--threads", 1)
        found = self.record(tmp_path)
        assert f"circle rather than {found['contrast']['label']}" in said

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (("--target", "ring", "--contrast", "ring"), "target and contrast are both 5 'ring'"),
            (("--contrast", "circle"), "target and contrast are both 0 'circle'"),
            (("--contrast", "hexagon"), "hexagon"),
            (("--contrast", "9"), "out of range"),
            (("--contrast", " "), "the contrast is empty"),
            (("--contrast", "region=0:0:1:1"), "compares two single entries"),
            (("--contrast", "ring", "--method", "rise"), "--contrast ring has no effect: a difference has a sign"),
            (("--contrast", "ring", "--target", "best=star"), "compares two single entries"),
        ],
    )
    def test_refuses_what_is_none(self, tmp_path, asked, said):
        assert said in refused("explain", SHAPES, CIRCLE, "-o", tmp_path, *asked)
