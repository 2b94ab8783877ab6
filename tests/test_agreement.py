"""Gradients are autograd's, outputs are the model's, and every explanation is complete: over all torch networks."""

from functools import cache

import numpy as np
import pytest

from tests import skips

torch = skips.without("torch")

import fgonnx  # noqa: E402
from tests.support import evaluate, run  # noqa: E402
from tests.witness import autograd  # noqa: E402
from tests.witness.torchnets import CLASSES, NETS, export  # noqa: E402

SAMPLES = 5
TOLERANCE = 1e-5

every_net = pytest.mark.parametrize("name", NETS)
both_forms = pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])


@cache
def case(name):
    """A network, five inputs and a target for each. No pre-activation is within float32 rounding of a kink."""
    build, shape = NETS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, *shape[1:])).astype(np.float32)
    return build(0), x, rng.integers(CLASSES, size=SAMPLES)


@cache
def exported(name, folded, exporter="torchscript"):
    module, x, _ = case(name)
    return export(module, x.shape, folded=folded, exporter=exporter)


@cache
def explained(name, folded):
    _, x, target = case(name)
    return fgonnx.Explainer(exported(name, folded), input_gradient=True, threads=1, batch_size=3)(x, target)


@cache
def explained_in_float64(name, folded, exporter="torchscript"):
    _, x, target = case(name)
    outputs = ("score", "completeness", "input_gradient")
    rewritten = fgonnx.rewrite(exported(name, folded, exporter), outputs=outputs)
    return evaluate(rewritten, {"x": x[:2], "target_index": target[:2]})


def distance(found, truth):
    return np.abs(found - truth).max() / np.abs(truth).max()


@both_forms
@every_net
def test_input_gradient_in_float64(name, folded):
    module, x, target = case(name)
    truth = autograd.input_gradient(module, x[:2], target[:2])
    assert distance(explained_in_float64(name, folded)["input_gradient"], truth) < TOLERANCE


@both_forms
@every_net
def test_input_gradient_in_float32(name, folded):
    module, x, target = case(name)
    assert distance(explained(name, folded).input_gradient, autograd.input_gradient(module, x, target)) < TOLERANCE


@both_forms
@every_net
def test_score_is_the_logit(name, folded):
    module, x, target = case(name)
    truth = autograd.pick(torch.from_numpy(autograd.logits(module, x)), target).numpy()
    assert distance(explained(name, folded).score, truth) < TOLERANCE


@both_forms
@every_net
def test_every_sample_is_complete(name, folded):
    assert explained(name, folded).relative_residual().max() < TOLERANCE


@both_forms
@every_net
def test_the_residual_is_rounding_alone(name, folded):
    # constants such as 1 / (H W) are float32 numbers in the graph, and no more precise in float64
    found = explained_in_float64(name, folded)
    assert np.abs(found["completeness"] / found["score"]).max() < 1e-6


@both_forms
@every_net
def test_outputs_are_the_source_models(name, folded):
    _, x, _ = case(name)
    np.testing.assert_allclose(
        explained(name, folded).outputs["logits"], run(exported(name, folded), {"x": x})["logits"], rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folded"), [("resnet", True), ("resnet", False), ("se_silu", True), ("se_silu", False), ("shuffle", True)]
)
def test_dynamo_exports_agree_too(name, folded):
    skips.without("onnxscript")
    module, x, target = case(name)
    truth = autograd.input_gradient(module, x[:2], target[:2])
    assert distance(explained_in_float64(name, folded, "dynamo")["input_gradient"], truth) < TOLERANCE
