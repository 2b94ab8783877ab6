"""Measures on models with random weights, against a literal computation and on maps whose value is known."""

import numpy as np
import pytest
from onnx import parser
from scipy.stats import entropy, spearmanr

from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.randomisation import permuted
from fgonnx.errors import FgonnxError, OptionError
from tests.evaluate_support import SIDE, measured, of_net, subject

WEIGHTS = ("w1", "b1", "w2", "b2", "w3", "b3")


def random_twin(explainer, given, weights=WEIGHTS):
    return explainer.on(permuted(explainer.loaded, weights, given.seed))


@pytest.mark.parametrize("method", ["fullgrad", "gradient-x-input", "grad-cam"])
@pytest.mark.parametrize("bins", [7, 100])
def test_entropy_rises_by_that_of_the_histogram(method, bins):
    given, explainer = of_net(), subject(method)
    found = measured("randomisation-entropy", explainer, given, bins=bins).values
    target = given.target.tolist()
    pairs = zip(
        explainer(given.x, target).saliency, random_twin(explainer, given)(given.x, target).saliency, strict=True
    )
    for i, maps in enumerate(pairs):
        before, after = (entropy(np.histogram(m.astype(np.float64), bins)[0]) for m in maps)
        assert found["entropy"][i] == pytest.approx(before)
        assert found["entropy_random"][i] == pytest.approx(after)
        assert found["rise"][i] == pytest.approx((after - before) / before)


class Told:
    """A subject whose map is told, before and after its weights are made random."""

    def __init__(self, before, after):
        self.loaded, self._before, self._after = subject().loaded, before, after

    def __call__(self, x, target=None):
        return Result(np.broadcast_to(self._before, (len(x), SIDE, SIDE)))

    def altered(self, key, make):
        return Told(self._after, self._after)


class Result:
    def __init__(self, saliency):
        self.saliency = saliency


FLAT = np.ones((SIDE, SIDE))
HALVES = np.repeat([0.0, 1.0], SIDE * SIDE // 2).reshape(SIDE, SIDE)
EVEN = np.arange(SIDE * SIDE, dtype=float).reshape(SIDE, SIDE)


@pytest.mark.parametrize(
    ("before", "after", "rise"),
    [
        (HALVES, HALVES, 0.0),
        (HALVES, FLAT, -1.0),
        (HALVES, EVEN, np.log2(SIDE * SIDE) - 1),
        (EVEN, HALVES, 1 / np.log2(SIDE * SIDE) - 1),
        (HALVES, 5.0 - 2e-9 * HALVES, 0.0),
        (FLAT, EVEN, np.nan),
        (FLAT * 0, FLAT, np.nan),
    ],
)
def test_entropy_of_known_maps(before, after, rise):
    found = measured("randomisation-entropy", Told(before, after), of_net(2), bins=SIDE * SIDE).values["rise"]
    assert found == pytest.approx([rise, rise], nan_ok=True)


def test_maps_that_do_not_look_at_the_model_do_not_become_more_complex():
    assert (measured("randomisation-entropy", subject("edge"), of_net()).values["rise"] == 0).all()


@pytest.mark.parametrize("method", ["fullgrad", "gradient-x-input"])
def test_smooth_randomisation_compares_means_over_the_same_noisy_copies(method):
    given, explainer = of_net(2), subject(method)
    found = measured("randomisation-smooth", explainer, given, stages=3, samples=4, noise=0.2)
    target = given.target.tolist()
    generators = [given.rng(i, "noise") for i in range(2)]
    copies = [
        np.stack(
            [
                (x + 0.2 * (float(x.max()) - float(x.min())) * rng.standard_normal(x.shape)).astype(np.float32)
                for x, rng in zip(given.x, generators, strict=True)
            ]
        )
        for _ in range(4)
    ]
    maps = np.mean([explainer(x, target).saliency.astype(float) for x in copies], axis=0)
    for stage, weights in enumerate((WEIGHTS[4:], WEIGHTS[2:], WEIGHTS)):
        other = random_twin(explainer, given, weights)
        changed = np.mean([other(x, target).saliency.astype(float) for x in copies], axis=0)
        wanted = [spearmanr(np.abs(a), np.abs(b), axis=None).statistic for a, b in zip(maps, changed, strict=True)]
        assert found.curve[:, stage] == pytest.approx(wanted, abs=1e-6)
    assert found.values["rank"] == pytest.approx(found.curve[:, -1])


def test_without_noise_it_is_randomisation_itself():
    given, explainer = of_net(), subject("gradient-x-input")
    smooth = measured("randomisation-smooth:noise=0:samples=1", explainer, given)
    plain = measured("randomisation", explainer, given)
    assert smooth.curve == pytest.approx(plain.curve)
    assert all(smooth.values[name] == pytest.approx(plain.values[name]) for name in plain.values)


def test_smooth_randomisation_does_not_reward_noise():
    """Noise that is drawn anew for every run: as unlike as it gets by randomisation, not by the mean."""

    class Noisy(Told):
        _rng = np.random.default_rng(0)

        def __call__(self, x, target=None):
            maps = EVEN / EVEN.max() + 2.0 * self._rng.standard_normal((len(x), SIDE, SIDE))
            return Result(maps)

        def altered(self, key, make):
            return self

    given = of_net(2)
    single = measured("randomisation:stages=1", Noisy(EVEN, EVEN), given).values["rank_signed"]
    smooth = measured("randomisation-smooth:stages=1:samples=200", Noisy(EVEN, EVEN), given).values["rank_signed"]
    assert (single < 0.3).all()
    assert (smooth > 0.7).all()


@pytest.mark.parametrize("name", ["randomisation", "randomisation-smooth", "randomisation-entropy"])
def test_a_model_without_weights_is_refused(name):
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        net (float[N,1,8,8] x) => (float[N,1] y) { r = Relu(x) p = GlobalAveragePool(r) y = Flatten(p) }"""
    )
    given = of_net(1, target=[0])
    with pytest.raises(FgonnxError, match="holds no weights"):
        measured(name, subject("gradient-x-input", model), given)


@pytest.mark.parametrize("text", ["randomisation-entropy:bins=0", "randomisation-smooth:samples=0"])
def test_nothing_to_count_is_refused(text):
    with pytest.raises(OptionError, match="out of range"):
        evaluate.get(text)
