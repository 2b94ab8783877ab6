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
        assert repr(e).endswith(f"{record.score_of(e.to_dict()):.3g}")
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
        assert any(f"{shown:.5g}" in line for line in lines)
        assert f"mean over the noisy copies {mean:.5g}" in lines

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


def test_where_the_models_is_not_known_the_mean_is_named_as_one():
    softmax = model(KINKED.replace("y = Mul(r, z)", "h = Mul(r, z)\n y = Softmax(h)"))
    told = fgonnx.explain(softmax, X, **FEW).to_dict()
    if told["target"]["score"] is None:
        assert any(line.startswith("mean score") for line in panel._lines(told))
    else:
        assert record.score_of(told) == told["target"]["score"]


def test_the_command_lists_both(tmp_path):
    said = good("explain", SHAPES, STAR, "-o", tmp_path, "--method", "smooth-fullgrad", "--samples", 2)
    assert "mean of copies" in said
    assert "3.876" in said
