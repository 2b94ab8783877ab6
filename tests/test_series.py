"""Series with channels: a lane for each, which add up to the map, and lie on the evidence where it is known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.parts import lanes
from fgonnx.jobs.reading import Reading
from fgonnx.pictures.read import images
from fgonnx.pictures.show import lanes as plotted
from fgonnx.pictures.show.sheet import Certificate
from tests import beats, skips
from tests.cli_support import good
from tests.support import model
from tests.test_columns import series
from tests.test_steps_in_time import frames

X = np.random.default_rng(5).normal(size=(3, 3, 12)).astype(np.float32)


class TestLanes:
    @pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
    @pytest.mark.parametrize("last", [False, True])
    def test_add_up_to_the_map(self, psi, last, tmp_path):
        x = X.transpose(0, 2, 1) if last else X
        e = fgonnx.Explainer(series(tmp_path / "m.onnx", last=last), psi=psi, input_gradient=True)(x, 1)
        for i in range(len(x)):
            found = lanes(e, i, x[i], "NWC" if last else "NCW")
            assert found.channels.shape == (3, 12)
            np.testing.assert_allclose(found.channels.sum(axis=0) + found.inside, e.saliency[i], rtol=1e-5, atol=1e-6)

    def test_those_with_a_sign_are_the_input_times_its_gradient(self, tmp_path):
        e = fgonnx.Explainer(series(tmp_path / "m.onnx"), psi="signed", input_gradient=True)(X, 1)
        found = lanes(e, 0, X[0], "NCW")
        np.testing.assert_allclose(found.channels, X[0] * e.input_gradient[0], rtol=1e-6)
        np.testing.assert_allclose(found.channels.sum(), e.contributions[0, 0], rtol=1e-5)

    def test_without_a_sign_they_are_not_negative(self, tmp_path):
        e = fgonnx.Explainer(series(tmp_path / "m.onnx"), input_gradient=True)(X)
        found = [lanes(e, i, X[i], "NCW") for i in range(3)]
        assert min(f.channels.min() for f in found) >= 0
        assert min(f.inside.min() for f in found) > -1e-6

    def test_of_a_method_that_writes_an_attribution(self, tmp_path):
        e = fgonnx.Explainer(series(tmp_path / "m.onnx"), method="gradient-x-input", psi="signed")(X)
        found = lanes(e, 0, X[0], "NCW")
        assert found.inside is None
        np.testing.assert_allclose(found.channels, e.attribution[0], rtol=1e-6)

    def test_of_a_recurrent_network(self):
        x = np.random.default_rng(1).normal(size=(2, 2, 24)).astype("f4")
        e = fgonnx.Explainer(frames(), psi="signed", input_gradient=True)(x, 1)
        found = lanes(e, 0, x[0], "NCW")
        np.testing.assert_allclose(found.channels.sum() + found.inside.sum(), e.localised()[0], rtol=1e-5)

    @pytest.mark.parametrize("method", ["net-fullgrad", "fullgrad+", "grad-cam"])
    def test_a_map_that_is_no_sum_over_channels_has_none(self, method, tmp_path):
        e = fgonnx.Explainer(series(tmp_path / "m.onnx"), method=method)(X)
        assert lanes(e, 0, X[0], "NCW") is None


class TestPictures:
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("count", [1, 3, 40])
    def test_of_any_number_of_channels(self, count, signed):
        rng = np.random.default_rng(0)
        values, found = rng.normal(size=(count, 50)), np.abs(rng.normal(size=(count, 50)))
        names = [f"lead {i}" for i in range(count)]
        drawn = plotted.draw(
            plotted.Series(values, found, found.sum(axis=0), names, "mV", 50.0, 100, 5), Certificate("t"), signed=signed
        )
        assert drawn.shape[0] == 480
        assert drawn.shape[2] == 3

    def test_the_strongest_channels_are_drawn(self):
        found = np.zeros((20, 4))
        found[[3, 19]] = 1
        assert {3, 19} < set(plotted.chosen(found, 5))
        assert plotted.chosen(found, 5) == sorted(plotted.chosen(found, 5))

    def test_what_does_not_belong_together_is_refused(self):
        with pytest.raises(InputError, match="do not belong together"):
            plotted.draw(plotted.Series(np.zeros((2, 5)), np.zeros((3, 5)), None, ["a", "b"]), Certificate("t"))

    def test_a_session_shows_several_by_their_plots(self, tmp_path):
        shown = fgonnx.explain(series(tmp_path / "m.onnx"), X)._repr_html_()
        assert shown.count("<img") == 3
        assert len(shown) < 1_000_000

    def test_a_session_shows_lanes(self, tmp_path):
        e = fgonnx.explain(series(tmp_path / "m.onnx"), X[0])
        assert e.to_dict()["series"]["channels"] == ["channel 0", "channel 1", "channel 2"]
        assert e.picture().shape[0] == 480


@pytest.mark.parametrize("last", [False, True])
def test_the_beat_of_another_shape_is_where_the_map_is(last):
    """In at least 95 % of new recordings, the strongest step of all lanes is in the odd beat, in its channel."""
    skips.without("torch")
    source, right = beats.trained(last=last)
    assert right > 0.95
    x, y, where = beats.drawn(200, 99)
    x = x.transpose(0, 2, 1) if last else x
    e = fgonnx.Explainer(source, psi="signed", input_gradient=True)(x, 1)
    odd = [i for i in range(len(x)) if y[i] and e.outputs["y"][i].argmax()]
    assert len(odd) > 80
    found = [lanes(e, i, x[i], "NWC" if last else "NCW").channels for i in odd]
    inside = [where[i][np.unravel_index(v.argmax(), v.shape)] for i, v in zip(odd, found, strict=True)]
    assert np.mean(inside) >= 0.95
    in_time = [where[i].any(axis=0)[e.saliency[i].argmax()] for i in odd]
    assert np.mean(in_time) >= 0.95


class TestSpectrograms:
    @pytest.mark.parametrize("axes", ["frequency,time", "time,frequency"])
    def test_are_drawn_with_time_across_and_frequency_up(self, axes, tmp_path):
        text = """(float[N,1,6,9] x) => (float[N,2] y) <float[2,1,3,3] k = {1,0,1,0,2,0,1,0,1, 0,1,0,1,1,1,0,1,0}> {
            c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) g = GlobalAveragePool(r) y = Flatten(g) }"""
        onnx.save(model(text), tmp_path / "m.onnx")
        x = np.zeros((1, 6, 9), np.float32)
        x[0, 0, -1] = 1  # the lowest frequency at the end, or the first moment at the highest
        np.save(tmp_path / "a.npy", x)
        good("explain", tmp_path / "m.onnx", tmp_path / "a.npy", "-o", tmp_path / "out", "--axes", axes, "--rate", 3)
        drawn = images.read(tmp_path / "out" / "a.png").rgb.astype(int).sum(axis=2)
        unit = 480 / 360
        left, right, top, bottom = (round(v * unit) for v in (14 + 64, 14 + 64 + 520, 30, 162))
        shown = drawn[top:bottom, left:right]
        rows, columns_ = np.nonzero(shown > 600)
        low, late = rows.mean() > shown.shape[0] / 2, columns_.mean() > shown.shape[1] / 2
        assert (low, late) == ((True, True) if axes == "frequency,time" else (False, False))

    @pytest.mark.parametrize("axes", ["frequency", "frequency,height", "time,time", "time,frequency,channel"])
    def test_of_other_axes_are_refused(self, axes):
        with pytest.raises(OptionError):
            Reading(axes=tuple(axes.split(",")))
