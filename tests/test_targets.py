"""What can be explained: entries, positions, regions, detections, similarities, as objects and as text."""

import numpy as np
import pytest

from fgonnx import Explainer
from fgonnx.errors import OptionError, TargetError
from fgonnx.explain.choice import parse, takes_seed
from fgonnx.explain.detection import Detection
from fgonnx.explain.targets import Cotangent, Region, Similarity
from tests.support import draw, model, pictures

X = pictures(3)
SEGMENTS = model(
    "(float[N,3,8,6] x) => (float[N,4,8,6] y) { y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }",
    weights=draw(w=(4, 3, 3, 3), b=(4,)),
)
SEGMENTS_LAST = model(
    """(float[N,8,6,3] x) => (float[N,8,6,4] y) {
        t = Transpose<perm=[0,3,1,2]>(x)
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(t, w, b)
        y = Transpose<perm=[0,2,3,1]>(c)
    }""",
    weights=draw(w=(4, 3, 3, 3), b=(4,)),
)
#: 12 anchors; columns are four of a box, the objectness, three classes; beside it a head with columns first.
DETECTS = model(
    """(float[N,3,8,6] x) => (float[N,12,8] y, float[N,8,12] z, float[N,12,4] boxes) {
        c = Conv<kernel_shape=[2,2], strides=[2,2]>(x, w, b)
        shape = Constant<value_ints=[0,8,12]>()
        z = Reshape(c, shape)
        y = Transpose<perm=[0,2,1]>(z)
        from = Constant<value_ints=[0]>() to = Constant<value_ints=[4]>() axis = Constant<value_ints=[2]>()
        part = Slice(y, from, to, axis)
        boxes = Add(part, part)
    }""",
    weights=draw(w=(8, 3, 2, 2), b=(8,)),
)
NAMES = ("cat", "dog", "hen")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7", "7"),
        ("tabby, tabby cat", "tabby, tabby cat"),
        ("120,4", (120, 4)),
        (":,15", (slice(None), 15)),
        ("2:5, :3", (slice(2, 5), slice(None, 3))),
        ("10:20", (slice(10, 20),)),
        ("best=dog", Detection("dog")),
        ("best=tabby, tabby cat,first=5,column=0", Detection("tabby, tabby cat", first=5, column=0)),
        ("best=1,by=scores,column=0", Detection("1", by="scores", column=0)),
        ("anchor=12,column=4", Detection(anchor=12, column=4)),
        ("ratio=wide", "ratio=wide"),
    ],
)
def test_text_is_read(text, meant):
    assert parse(text) == meant


def test_text_of_a_region_is_read():
    region = parse("region=0.25:0:0.75:0.5,class=dog,reduce=sum")
    assert (region.where, region.entry, region.reduce) == ((0.25, 0.0, 0.75, 0.5), "dog", "sum")


def test_files_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4.0))
    found = [parse(f"{key}={tmp_path / 'a.npy'}") for key in ("region", "similar", "seed")]
    assert [type(f) for f in found] == [Region, Similarity, Cotangent]
    np.testing.assert_array_equal([found[0].where, found[1].reference, found[2].weights], [np.arange(4.0)] * 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region=left", "neither a box such as 0.2:0.1:0.8:0.9 nor a .npy file"),
        ("region=0:0:1:1,column=3", "'column' means nothing here; it takes: region, class, reduce"),
        ("region=0:0:1:1,reduce=max", "reduce='max' does not exist; choose one of: mean, sum"),
        ("region=none.npy", "'none.npy' does not exist"),
        ("best=", "'best=' is not of the form NAME=VALUE"),
        ("best=dog,first=-1", "first=-1 is not a whole number"),
        ("anchor=3", "say which column"),
        ("best=dog,by=scores", "say which column"),
    ],
)
def test_text_that_means_nothing_is_refused(text, message):
    with pytest.raises(TargetError, match=message):
        parse(text)


def test_a_detection_is_one_thing_or_the_other():
    with pytest.raises(TargetError, match=r"either the best of a class .* or an anchor"):
        Detection("dog", anchor=3, column=0)


def test_only_what_is_more_than_an_entry_takes_a_cotangent():
    assert [takes_seed(t) for t in (None, 3, "dog", (1, 2), "1,2", Detection("dog"), [1, "best=dog"])] == [False] * 7
    assert [takes_seed(t) for t in (":,2", (slice(3), 1), "region=0:0:1:1", [1, Similarity(X)])] == [True] * 4


class TestPositions:
    def test_are_one_entry(self):
        e = Explainer(SEGMENTS)(X, (1, 4, 2))
        np.testing.assert_array_equal(e.score, e.outputs["y"][:, 1, 4, 2])
        assert (list(e.target), e.described[0]) == ([np.ravel_multi_index((1, 4, 2), (4, 8, 6))] * 3, "(1, 4, 2)")

    def test_of_several_entries_are_their_sum(self):
        e = Explainer(SEGMENTS)(X, "2,:,1:3")
        np.testing.assert_allclose(e.score, e.outputs["y"][:, 2, :, 1:3].sum((1, 2)), rtol=1e-5, atol=1e-5)
        assert (e.target, e.described[0]) == (None, "sum of [2, :, 1:3]")
        assert e.rounding_residual().max() < 1e-6

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ((1, 2), r"has 2 axes, the head has 3: \(4, 8, 6\)"),
            ((4, 0, 0), "out of range"),
            ((0, slice(3, 3), 0), "selects nothing"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, target, message):
        with pytest.raises(TargetError, match=message):
            Explainer(SEGMENTS)(X, target)


class TestRegions:
    def test_are_the_mean_of_a_class_inside(self):
        e = Explainer(SEGMENTS, labels=("sky", "road", "car", "tree"))(X, "region=0.5:0.25:1:0.75,class=car")
        np.testing.assert_allclose(e.score, e.outputs["y"][:, 2, 2:6, 3:].mean((1, 2)), rtol=1e-5, atol=1e-6)
        assert e.described[0] == "mean of 'car' in the box 0.5:0.25:1:0.75"

    def test_find_the_grid_of_a_head_with_channels_last(self):
        x = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
        e = Explainer(SEGMENTS_LAST)(x, Region((0.5, 0.25, 1, 0.75), 2, "sum"))
        np.testing.assert_allclose(e.score, e.outputs["y"][:, 2:6, 3:, 2].sum((1, 2)), rtol=1e-5, atol=1e-6)

    def test_may_be_masks(self):
        mask = np.random.default_rng(0).random((8, 6)) > 0.5
        e = Explainer(SEGMENTS)(X, Region(mask, 1))
        np.testing.assert_allclose(e.score, e.outputs["y"][:, 1][:, mask].mean(1), rtol=1e-5, atol=1e-6)

    def test_take_the_class_that_is_largest_inside_by_default(self):
        e = Explainer(SEGMENTS)(X, Region((0, 0, 0.5, 0.5)))
        means = e.outputs["y"][:, :, :4, :3].mean((2, 3))
        np.testing.assert_allclose(e.score, means.max(1), rtol=1e-5, atol=1e-6)
        assert e.described[1].startswith(f"mean of class {means[1].argmax()} in")

    def test_smaller_than_a_cell_are_that_cell(self):
        e = Explainer(SEGMENTS)(X, Region((0.5, 0.5, 0.51, 0.51), 0))
        np.testing.assert_allclose(e.score, e.outputs["y"][:, 0, 4, 3], rtol=1e-5)

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (Region((0.5, 0, 0.2, 1), 0), "is not one: give shares of the picture"),
            (Region((0, 0, 100, 100), 0), "is not one: give shares of the picture"),
            (Region((0, 1), 0), r"neither a box x0:y0:x1:y1 nor a mask of shape \(8, 6\)"),
            (Region(np.zeros((8, 6)), 0), "selects nothing"),
            (Region((0, 0, 1, 1), 4), "out of range"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, target, message):
        with pytest.raises(TargetError, match=message):
            Explainer(SEGMENTS)(X, target)

    def test_need_a_grid(self):
        with pytest.raises(TargetError, match="needs a head with a value per position"):
            Explainer(DETECTS, output="boxes")(X, Region((0, 0, 1, 1)))


class TestDetections:
    def expected(self, e, entry):
        """Anchor and score by hand: class times objectness."""
        y = e.outputs["y"]
        return (y[:, :, 5 + entry] * y[:, :, 4]).argmax(1)

    def test_are_the_best_of_a_class(self):
        e = Explainer(DETECTS, labels=NAMES)(X, "best=dog")
        anchors = self.expected(e, 1)
        np.testing.assert_array_equal(e.target, anchors * 8 + 6)
        assert e.described[0].startswith("best 'dog' (")
        assert e.described[0].endswith(f"), column 6 of anchor {anchors[0]}")

    def test_do_not_count_a_background_among_the_labels(self):
        e = Explainer(DETECTS, labels=("__background", *NAMES))(X, "best=hen")
        np.testing.assert_array_equal(e.target % 8, [7, 7, 7])

    def test_may_be_explained_by_a_coordinate(self):
        e = Explainer(DETECTS)(X, Detection(2, column=0, first=5))
        np.testing.assert_array_equal(e.target, self.expected(e, 2) * 8)

    def test_may_have_their_columns_first(self):
        e = Explainer(DETECTS, output="z")(X, Detection(1, first=5))
        np.testing.assert_array_equal(e.target, 6 * 12 + self.expected(e, 1))

    def test_may_be_ranked_by_another_output(self):
        e = Explainer(DETECTS, output="boxes")(X, "best=1,first=5,by=y,column=3")
        np.testing.assert_array_equal(e.target, self.expected(e, 1) * 4 + 3)

    def test_may_be_an_anchor(self):
        e = Explainer(DETECTS)(X, Detection(anchor=3, column=4))
        np.testing.assert_array_equal(e.score, e.outputs["y"][:, 3, 4])

    def test_one_per_sample(self):
        e = Explainer(DETECTS)(X, ["anchor=3,column=4", 0, (2, 1)])
        np.testing.assert_array_equal(e.target, [28, 0, 17])

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (Detection(anchor=12, column=0), "out of range: the head has 12 anchors, 8 columns"),
            (Detection(1, first=9), "none is left for the classes"),
            (Detection(5, first=5), "out of range"),
            (Detection(1, by="scores", column=0), "has no such output; it has: y, z, boxes"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, target, message):
        with pytest.raises(TargetError, match=message):
            Explainer(DETECTS)(X, target)

    def test_need_a_head_of_detections(self):
        source = model("(float[N,4] x) => (float[N,5] y) { y = Gemm(x, w, b) }", weights=draw(w=(4, 5), b=(5,)))
        with pytest.raises(TargetError, match="holds no detections"):
            Explainer(source)(X[:, 0, 0, :4], "best=1")


class TestSimilarities:
    SOURCE = model("(float[N,4] x) => (float[N,5] y) { y = Gemm(x, w, b) }", weights=draw(w=(4, 5), b=(5,)))
    E = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)

    def test_are_projections_on_the_reference(self):
        reference = np.array([3.0, 0, 4, 0, 0])
        e = Explainer(self.SOURCE)(self.E, Similarity(reference))
        np.testing.assert_allclose(e.score, e.outputs["y"] @ reference / 5, rtol=1e-5)
        assert e.described[0] == "projection on the reference"

    def test_may_be_of_every_sample(self):
        e = Explainer(self.SOURCE)(self.E, [Similarity(np.eye(5)[i]) for i in range(3)])
        np.testing.assert_allclose(e.score, np.diag(e.outputs["y"]), rtol=1e-5)

    def test_may_stand_beside_entries(self):
        e = Explainer(self.SOURCE)(self.E, [Similarity(np.eye(5)[1]), 2, "3"])
        np.testing.assert_allclose(e.score, e.outputs["y"][[0, 1, 2], [1, 2, 3]], rtol=1e-5)

    def test_weights_are_taken_as_they_are(self):
        weights = np.array([1.0, -2, 0, 0, 3])
        found = Explainer(self.SOURCE)(self.E, Cotangent(weights))
        np.testing.assert_array_equal(found.score, Explainer(self.SOURCE)(self.E, seed=weights).score)

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            (np.ones(4), r"the reference must have the head's shape \(5,\), it has \(4,\)"),
            (np.zeros(5), "is zero everywhere"),
            (np.full(5, np.nan), "holds NaN or infinity"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, reference, message):
        with pytest.raises(TargetError, match=message):
            Explainer(self.SOURCE)(self.E, Similarity(reference))


def test_check_takes_one_entry():
    from fgonnx.audit.check import check

    with pytest.raises(OptionError, match="check takes one entry of the head"):
        check(SEGMENTS, target="region=0:0:1:1")
