"""What is shown of smooth-fullgrad is the model's score; the mean over noisy copies, which adds up, is named beside."""

import numpy as np
import pytest

import fgonnx
from fgonnx.jobs import panel, record
from tests.cli_support import good
from tests.support import model, run

SHAPES, STAR = "examples/shapes.onnx", "examples/images/star.png"
FEW = {"method": "smooth-fullgrad", "samples": 3}

KINKED = """
    (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1, 0, -2, 1, 3, -1, 0.5, 2}, float[2] b = {0.5, -1}> {
        z = Gemm(x, w, b)
        r = Relu(z)
        y = Mul(r, z)
    }"""
X = np.array([[0.2, -0.1, 0.1, 0.3]], np.float32)


def a_picture():
    e = fgonnx.explain(SHAPES, STAR, **FEW)
    return e, float(np.ravel(next(iter(e.outputs.values())))[3])


def a_row():
    source = model(KINKED)
    return fgonnx.explain(source, X, 0, sigma=0.8, **FEW), float(run(source, {"x": X})["y"][0, 0])


def a_contrast():
    source = model(KINKED)
    y = run(source, {"x": X})["y"][0]
    return fgonnx.explain(source, X, 1, contrast=0, sigma=0.8, **FEW), float(y[1] - y[0])


CASES = [a_picture, a_row, a_contrast]


@pytest.mark.parametrize("made", CASES)
class TestAMeanOverNoisyCopies:
    def test_is_not_shown_as_the_score(self, made):
        e, score = made()
        assert abs(float(e.score[0]) - score) > 0.01
        assert record.score_of(e.to_dict()) == pytest.approx(score, rel=1e-5)
        assert repr(e).endswith(f"{record.score_of(e.to_dict()):.4g}")
        assert f"{record.score_of(e.to_dict()):.4g}" in e._repr_html_()

    def test_is_a_column_of_its_own(self, made):
        e, score = made()
        table = e.to_dataframe()
        assert table["score"][0] == pytest.approx(score, rel=1e-5)
        assert table["mean score"][0] == pytest.approx(float(e.score[0]))

    def test_is_named_in_a_note_and_on_the_panel(self, made):
        e, _ = made()
        told = e.to_dict()
        shown, mean = record.score_of(told), float(e.score[0])
        assert any(f"{shown:.4g}, the mean over the noisy copies {mean:.4g}" in note for note in told["notes"])
        lines = panel._lines(told)
        assert any(f"{shown:.4g}" in line for line in lines)
        assert f"mean over the noisy copies {mean:.4g}" in lines

    def test_is_what_the_record_holds_and_the_contributions_add_up_to(self, made):
        e, _ = made()
        told = e.to_dict()
        assert told["score"] == float(e.score[0])
        assert e.contributions.sum() + e.completeness[0] == pytest.approx(told["score"], abs=1e-5)


def test_a_score_that_is_the_models_is_shown_alone():
    told = fgonnx.explain(SHAPES, STAR).to_dict()
    assert record.score_of(told) == told["score"]
    assert record.mean_of(told) is None
    assert not any("mean" in line for line in panel._lines(told))


def behind_softmax():
    source = model(KINKED.replace("y = Mul(r, z)", "h = Mul(r, z)\n y = Softmax(h)"))
    return fgonnx.explain(source, X, sigma=0.8, **FEW), float(run(model(KINKED), {"x": X})["y"].max())


def of_a_region():
    source = model(KINKED)
    e = fgonnx.explain(source, X, fgonnx.targets.Cotangent(np.array([[0.5, 0.5]], np.float32)), sigma=0.8, **FEW)
    return e, float(run(source, {"x": X})["y"].mean())


@pytest.mark.parametrize("made", [behind_softmax, of_a_region])
def test_the_models_score_is_known_where_no_output_holds_it(made):
    e, score = made()
    told = e.to_dict()
    assert abs(told["score"] - score) > 0.01
    assert told["model_score"] == record.score_of(told) == pytest.approx(score, rel=1e-5)
    assert any(line.startswith(f"score {score:.4g}") for line in panel._lines(told))


def test_some_of_the_samples_keep_their_own():
    e = fgonnx.explain(model(KINKED), np.concatenate([X, 2 * X, 3 * X]), 0, sigma=0.8, **FEW)
    assert [float(one.model_score[0]) for one in e] == e.model_score.tolist()
    assert e[1:].model_score.tolist() == e.model_score[1:].tolist()


WORDS = """
    (int64[N,T] ids) => (float[N,2] y)
        <float[4,2] e = {0, 0, 1, 2, 0.5, -1, -1, 2}, float[2,2] w = {1, -1, 0.5, 2}, int64[1] at = {1}> {
        g = Gather(e, ids)
        s = ReduceMean<keepdims=0>(g, at)
        r = Relu(s)
        q = Mul(r, s)
        y = MatMul(q, w)
    }"""
IDS = [1, 2, 3]


class TestOfATextTheMean:
    @pytest.fixture
    def explained(self):
        return fgonnx.explain(model(WORDS), text=[IDS, IDS[:2]], sigma=0.9, **FEW)

    @pytest.fixture
    def scores(self):
        source = model(WORDS)
        return [float(run(source, {"ids": np.array([ids])})["y"].max()) for ids in (IDS, IDS[:2])]

    def test_is_not_shown_as_the_score(self, explained, scores):
        for i, score in enumerate(scores):
            assert abs(explained[i].score - score) > 0.01
            assert explained[i].model_score == pytest.approx(score, rel=1e-5)
            assert f"{score:.4g}" in repr(explained)
            assert f"  {score:.4g}" in explained.html(i)

    def test_is_what_adds_up_and_is_named_so(self, explained, scores):
        page = explained.html(0)
        assert f"mean score {explained[0].score:.4g} = sum of contributions" in page
        assert f"{scores[0]:.4g}, the mean over the noisy copies {explained[0].score:.4g}" in page

    def test_is_in_the_dictionary_beside_the_models(self, explained, scores):
        made = explained.to_dict(0)
        assert (made["score"], made["model_score"]) == (explained[0].score, pytest.approx(scores[0], rel=1e-5))


@pytest.mark.parametrize("method", ["fullgrad", "smoothgrad", "vargrad", "occlusion", "integrated-gradients"])
def test_other_methods_of_texts_have_one_score(method):
    settings = {"samples": 3} if "grad" in method and method not in ("fullgrad", "integrated-gradients") else {}
    made = fgonnx.explain(model(WORDS), text=IDS, method=method, **settings)
    own = float(run(model(WORDS), {"ids": np.array([IDS])})["y"].max())
    assert made[0].score == pytest.approx(own, rel=1e-5)
    assert "model_score" not in made.to_dict()


def test_the_command_lists_both(tmp_path):
    said = good("explain", SHAPES, STAR, "-o", tmp_path, "--method", "smooth-fullgrad", "--samples", 2)
    assert "mean of copies" in said
    assert "3.876" in said
