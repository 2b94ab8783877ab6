"""Plots of what is no picture: a recording over time, a row of a table by its features."""

import wave

import numpy as np
import pandas as pd
import pytest

import fgonnx
from fgonnx.errors import OptionError
from tests.support import model

TABLE = """(float[N,4] x) => (float[N,2] y) <float[4,2] w = {1, 0, -2, 1, 3, -1, 0.5, 2}, float[2] b = {0.5, -1}> {
    y = Gemm(x, w, b)
}"""
NAMES = ["age", "height", "weight", "dose"]


def tone(folder):
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((np.sin(np.arange(64)) * 9000).astype("<i2").tobytes())
    net = model("(float[N,64] x) => (float[N,64] y) { y = Tanh(x) }")
    return fgonnx.explain(net, folder / "tone.wav", 3, rate=8000)


def channels(folder):
    net = model("(float[N,3,20] x) => (float[N,3] y) { g = GlobalAveragePool(x)\n y = Flatten(g) }")
    return fgonnx.explain(net, np.random.default_rng(0).normal(size=(1, 3, 20)).astype(np.float32))


def one_step(folder):
    return fgonnx.explain(model("(float[N,1] x) => (float[N,1] y) { y = Tanh(x) }"), np.ones((1, 1), np.float32))


def frame(folder):
    rows = pd.DataFrame([[1, -1, 0.5, 2], [0, 3, 1, -1]], columns=NAMES).astype(np.float32)
    return fgonnx.explain(model(TABLE), rows, 0, psi="signed")


CASES = [tone, channels, one_step, frame]


@pytest.mark.parametrize("made", CASES)
class TestWhatIsNoPicture:
    def test_is_plotted(self, made, tmp_path):
        e = made(tmp_path)
        figure = e.plot()
        figure.savefig(tmp_path / "plot.png")
        assert len(figure.axes) == 3 * len(e)
        assert all(axis.axison for axis in figure.axes)

    def test_has_nothing_to_lay_a_map_over(self, made, tmp_path):
        with pytest.raises(OptionError, match=r"no picture .*: use plot\(\), picture\(\) or save\(\)"):
            made(tmp_path).overlay()


def test_a_recording_is_drawn_over_seconds(tmp_path):
    e = tone(tmp_path)
    left, right, *_ = e.plot().axes
    steps, values = left.lines[0].get_data()
    np.testing.assert_allclose(steps, np.arange(64) / 8000)
    np.testing.assert_allclose(values, e.origin.samples[0].x)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), e.saliency[0])
    assert left.get_xlabel() == right.get_xlabel() == "seconds"


@pytest.mark.parametrize("bars", [2, 10])
def test_features_are_drawn_by_name_the_largest_first(tmp_path, bars):
    e = frame(tmp_path)
    _, right, *_ = e.plot(0, bars=bars).axes
    order = np.argsort(-np.abs(e.saliency[0]))[:bars]
    names = [text.get_text() for text in right.get_yticklabels()]
    widths = [bar.get_width() for bar in right.patches]
    assert names[: len(order)] == [NAMES[i] for i in order]
    np.testing.assert_allclose(widths[: len(order)], e.saliency[0][order])
    assert sum(widths) == pytest.approx(float(e.saliency[0].sum()), abs=1e-5)
    assert (names[-1] == "2 others") == (bars == 2)
