"""Maps are those of a literal FullGrad in torch: every profile, method and psi that one was published for."""

from functools import cache

import numpy as np
import pytest

from tests import skips

torch = skips.without("torch")

from fgonnx import Explainer  # noqa: E402
from tests.witness import literal  # noqa: E402
from tests.witness.torchnets import CLASSES, NETS, export  # noqa: E402

TOLERANCE = 1e-4  # of the map's maximum
SAMPLES = 3

# A map depends on the folding of BatchNormalization; the literal one knows the unfolded network.
every_net = pytest.mark.parametrize("name", NETS)
either_psi = pytest.mark.parametrize("psi", ["abs", "positive"])
RELU_NETS = ["plain", "vgg", "resnet", "densenet", "inception", "shuffle"]


@cache
def case(name):
    build, shape = NETS[name]
    rng = np.random.default_rng(2)
    module, x = build(1), rng.standard_normal((SAMPLES, *shape[1:])).astype(np.float32)
    return module, x, rng.integers(CLASSES, size=SAMPLES), export(module, shape, folded=False)


def explain(name, method="fullgrad", **options):
    _, x, target, model = case(name)
    return Explainer(model, method=method, threads=1, **options)(x, target)


def distance(found, truth):
    """Return the largest difference as a share of each map's maximum."""
    return (np.abs(found - truth).max((1, 2)) / truth.max((1, 2))).max()


@either_psi
@every_net
def test_reference_profile(name, psi):
    module, x, target, _ = case(name)
    truth = literal.saliency(module, x, target, "reference", psi)
    assert distance(explain(name, profile="reference", psi=psi).saliency, truth) < TOLERANCE


@either_psi
@pytest.mark.parametrize("name", [n for n in NETS if n != "convtranspose"])
def test_paper_profile(name, psi):
    # A transposed convolution is a linear block of the engine's, and unknown to the literal implementation.
    module, x, target, _ = case(name)
    truth = literal.saliency(module, x, target, "paper", psi)
    assert distance(explain(name, profile="paper", psi=psi).saliency, truth) < TOLERANCE


@either_psi
@every_net
def test_simple_fullgrad(name, psi):
    module, x, target, _ = case(name)
    truth = literal.simple_fullgrad(module, x, target, psi)
    assert distance(explain(name, "simple-fullgrad", profile="reference", psi=psi).saliency, truth) < TOLERANCE


@pytest.mark.parametrize("profile", ["reference", "paper"])
@pytest.mark.parametrize("name", ["vgg", "resnet", "se_silu"])
def test_smooth_fullgrad(name, profile):
    module, x, target, _ = case(name)
    samples, sigma, random_state = 7, 0.15, 4
    noise = [np.random.default_rng([random_state, i]).standard_normal((samples, *x.shape[1:])) for i in range(SAMPLES)]
    scale = [sigma * float(sample.max() - sample.min()) for sample in x]
    scaled = np.stack([s * n for s, n in zip(scale, noise, strict=True)], axis=1)
    truth = literal.smooth_fullgrad(module, x, target, scaled, profile)
    options = {"samples": samples, "sigma": sigma, "random_state": random_state, "batch_size": 3}
    found = explain(name, "smooth-fullgrad", profile=profile, **options)
    assert distance(found.saliency, truth) < TOLERANCE


@every_net
def test_bias_gradients_are_the_literal_ones(name):
    module, x, target, _ = case(name)
    _, truth = literal.full_gradient_decompose(module, x, target)
    found = explain(name, profile="reference", bias_gradients=True)
    ours = [found.bias_gradients[s.name] for s in found.sites if s.op_type in ("Conv", "BatchNormalization")]
    difference = max(np.abs(o - t).max() / np.abs(t).max() for o, t in zip(ours, truth, strict=True))
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", RELU_NETS)
def test_full_is_reference_on_relu_nets(name):
    np.testing.assert_array_equal(explain(name).saliency, explain(name, profile="reference").saliency)


@pytest.mark.parametrize("name", ["mobilenet_v2", "se_silu", "se_hardswish"])
def test_full_shows_more_than_reference_on_other_nets(name):
    assert explain(name).localised_share().min() > explain(name, profile="reference").localised_share().max()


@pytest.mark.parametrize("profile", ["full", "reference", "paper"])
@every_net
def test_a_signed_map_sums_to_what_is_localised(name, profile):
    found = explain(name, profile=profile, psi="signed")
    scale = np.abs(found.contributions).sum(1)
    assert (np.abs(found.saliency.sum((1, 2)) - found.localised()) / scale).max() < 1e-6


@pytest.mark.parametrize("psi", ["abs", "positive"])
@every_net
def test_a_rescaled_map_is_not_negative(name, psi):
    assert explain(name, psi=psi).saliency.min() >= 0
