"""Sequences and volumes: maps over time and in space, of every kind, and their pictures."""

import json

import numpy as np
import onnx
import pytest

from fgonnx import Explainer
from fgonnx.errors import InputError, OptionError
from fgonnx.pictures.show import plots
from fgonnx.pictures.show.sheet import NEGATIVE, POSITIVE, Certificate
from tests.cli_support import good
from tests.support import draw, model, pictures

TIME = model(
    """(float[N,2,40] x) => (float[N,3] y) {
        a = Conv<kernel_shape=[5], strides=[2]>(x, w, b)
        r = Relu(a)
        m = MaxPool<kernel_shape=[2], strides=[2]>(r)
        c = Conv<kernel_shape=[3], pads=[1,1]>(m, v, d)
        s = Sigmoid(c)
        g = Mul(c, s)
        p = GlobalAveragePool(g)
        y = Flatten(p)
    }""",
    weights=draw(w=(4, 2, 5), b=(4,), v=(3, 4, 3), d=(3,)),
)
TIME_LAST = model(
    """(float[N,40,2] x) => (float[N,3] y) {
        t = Transpose<perm=[0,2,1]>(x)
        a = Conv<kernel_shape=[5]>(t, w, b)
        r = Relu(a)
        p = GlobalAveragePool(r)
        y = Flatten(p)
    }""",
    weights=draw(w=(3, 2, 5), b=(3,)),
)
SAMPLES = model(
    """(float[N,T] x) => (float[N,3] y) {
        one = Constant<value_ints=[1]>()
        t = Unsqueeze(x, one)
        a = Conv<kernel_shape=[5], strides=[3]>(t, w, b)
        r = Relu(a)
        p = GlobalMaxPool(r)
        y = Flatten(p)
    }""",
    weights=draw(w=(3, 1, 5), b=(3,)),
)
RECURRENT = model(
    """(float[N,6,4] x) => (float[N,3] y) {
        axis = Constant<value_ints=[0]>()
        t = Transpose<perm=[1,0,2]>(x)
        all, last = GRU<hidden_size=3>(t, w, r, b)
        y = Squeeze(last, axis)
    }""",
    weights=draw(w=(1, 9, 4), r=(1, 9, 3), b=(1, 18)),
)
VOLUME = model(
    """(float[N,1,6,8,10] x) => (float[N,3] y) {
        a = Conv<kernel_shape=[3,3,3], pads=[1,1,1,1,1,1], strides=[2,2,2]>(x, w, b)
        r = Relu(a)
        c = Conv<kernel_shape=[3,3,3], pads=[1,1,1,1,1,1]>(r, v, d)
        p = GlobalAveragePool(c)
        y = Flatten(p)
    }""",
    weights=draw(w=(4, 1, 3, 3, 3), b=(4,), v=(3, 4, 3, 3, 3), d=(3,)),
)
CASES = {
    "channels first": (TIME, (2, 40), (40,), {}),
    "channels last": (TIME_LAST, (40, 2), (40,), {}),
    "samples": (SAMPLES, (40,), (40,), {}),
    "recurrent": (RECURRENT, (6, 4), (6,), {"layout": "NWC"}),
    "volume": (VOLUME, (1, 6, 8, 10), (6, 8, 10), {}),
}
every_case = pytest.mark.parametrize(("proto", "shape", "grid", "options"), CASES.values(), ids=CASES.keys())


@every_case
@pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
@pytest.mark.parametrize("profile", ["full", "reference", "paper"])
def test_maps_have_the_grid_of_the_input(proto, shape, grid, options, psi, profile):
    e = Explainer(proto, psi=psi, profile=profile, **options)(pictures(3, shape))
    assert e.saliency.shape == (3, *grid)
    assert np.isfinite(e.saliency).all()


@every_case
def test_certificates_close(proto, shape, grid, options):
    assert Explainer(proto, **options)(pictures(3, shape)).rounding_residual().max() < 1e-6


@every_case
def test_signed_maps_sum_to_what_they_localise(proto, shape, grid, options):
    e = Explainer(proto, psi="signed", **options)(pictures(3, shape))
    np.testing.assert_allclose(e.saliency.reshape(3, -1).sum(1), e.localised(), rtol=1e-4, atol=1e-5)


@every_case
@pytest.mark.parametrize("psi", ["abs", "signed"])
def test_smooth_maps_without_noise_are_the_same(proto, shape, grid, options, psi):
    x = pictures(2, shape)
    found = Explainer(proto, method="smooth-fullgrad", psi=psi, samples=2, sigma=0, **options)(x).saliency
    np.testing.assert_allclose(found, Explainer(proto, psi=psi, **options)(x).saliency, rtol=1e-4, atol=1e-5)


def test_a_map_over_time_is_where_the_input_is():
    """Only one place of the input is not zero: without biases, nothing else can matter."""
    proto = model(
        """(float[N,1,40] x) => (float[N,2] y) {
            a = Conv<kernel_shape=[3], pads=[1,1]>(x, w)
            p = GlobalAveragePool(a)
            y = Flatten(p)
        }""",
        weights=draw(w=(2, 1, 3)),
    )
    x = np.zeros((1, 1, 40), np.float32)
    x[0, 0, 17] = 1
    assert Explainer(proto)(x).saliency[0].nonzero()[0].tolist() == [17]


class TestPictures:
    WAVE, MAP = np.sin(np.arange(3000) / 40), np.linspace(0, 1, 3000)

    def test_of_a_sequence_fill_their_height(self):
        assert plots.sequence(self.WAVE, self.MAP, Certificate("t"), height=300).shape[::2] == (300, 3)

    def test_show_for_and_against(self):
        found = plots.sequence(self.WAVE, self.MAP - 0.5, Certificate("t"), signed=True).reshape(-1, 3)
        assert all((found == np.array(colour)).all(1).any() for colour in (POSITIVE, NEGATIVE))

    def test_are_larger_where_the_map_is(self):
        found = plots.sequence(self.WAVE, self.MAP, Certificate("t"), height=480)
        red = (found == np.array(POSITIVE)).all(2)
        left, right = red[:, :350].sum(), red[:, 350:700].sum()
        assert right > 2 * left > 0

    @pytest.mark.parametrize("length", [2, 37, 692, 693, 5000])
    def test_take_any_length(self, length):
        plots.sequence(np.ones(length), np.arange(length), Certificate("t"))

    def test_of_several_channels_are_rows(self):
        plots.sequence(np.arange(80.0).reshape(2, 40), np.arange(40), Certificate("t"), rate=100)

    def test_of_nothing_but_silence(self):
        plots.sequence(np.zeros(50), np.zeros(50), Certificate("t"))

    def test_of_a_volume_show_the_strongest_place(self):
        map_ = np.zeros((4, 6, 8))
        map_[1, 2, 3] = 1
        values = np.random.default_rng(0).random((4, 6, 8))
        assert not np.array_equal(
            plots.volume(values, map_, Certificate("t")), plots.volume(values, np.zeros_like(map_), Certificate("t"))
        )

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 400, 2), (700, 1, 1)])
    def test_take_volumes_of_any_proportions(self, shape):
        assert plots.volume(np.zeros(shape), np.ones(shape), Certificate("t"), height=200).shape[0] == 200

    @pytest.mark.parametrize(
        ("draw_", "values", "map_", "message"),
        [
            (plots.sequence, np.ones(5), np.ones(6), "do not belong together"),
            (plots.sequence, np.full(5, np.nan), np.ones(5), "NaN or infinity"),
            (plots.volume, np.ones((2, 3, 4)), np.ones((3, 4)), "cannot be drawn together"),
        ],
    )
    def test_of_what_does_not_fit_are_refused(self, draw_, values, map_, message):
        with pytest.raises(InputError, match=message):
            draw_(values, map_, Certificate("t"))

    @pytest.mark.parametrize("draw_", [plots.sequence, plots.volume])
    def test_need_room(self, draw_):
        with pytest.raises(OptionError, match="needs 200 pixels or more"):
            draw_(np.ones(5), np.ones(5), Certificate("t"), height=100)


@pytest.mark.parametrize(("proto", "shape"), [(TIME, (2, 40)), (VOLUME, (1, 6, 8, 10))], ids=["time", "volume"])
@pytest.mark.parametrize("picture", ["panel", "heat", "overlay"])
def test_the_command_line_draws_them(tmp_path, proto, shape, picture):
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", pictures(1, shape)[0])
    good(
        "explain",
        tmp_path / "m.onnx",
        tmp_path / "x.npy",
        "-o",
        tmp_path / "out",
        "--picture",
        picture,
        "--target",
        "seed=" + str(_saved(tmp_path / "w.npy", np.array([1.0, 0, -1]))),
    )
    record = json.loads((tmp_path / "out" / "x.json").read_text())
    assert (record["target"], record["explained"]["described"]) == (None, "sum weighted by the seed")
    assert len(record["settings"]["target_sha256"]) == 64


def _saved(path, array):
    np.save(path, array)
    return path
