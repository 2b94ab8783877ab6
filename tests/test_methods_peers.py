"""Every method is what its paper says and what captum and grad-cam compute, on networks exported from torch."""

import warnings
from functools import cache

import numpy as np
import pytest

from tests import skips

torch = skips.without("torch")

from fgonnx import Explainer  # noqa: E402
from tests.witness import cams  # noqa: E402
from tests.witness.torchnets import CLASSES, NETS, export  # noqa: E402

TOLERANCE = 1e-4  # of the largest value of a sample
SAMPLES = 2
STEPS = 5
NAMES = ["plain", "vgg", "resnet", "densenet", "inception", "shuffle"]
# The child of the network whose output the engine chooses by itself.
LAYERS = {"plain": 2, "vgg": 6, "resnet": 4, "densenet": 7, "inception": 3, "shuffle": 5}
# Their ReLUs are all modules, which captum needs to see them.
OF_MODULES = ["plain", "vgg", "densenet", "inception", "shuffle"]


@cache
def case(name, scale=1.0):
    """Return module, inputs, targets and the exported model; `scale` multiplies the logits."""
    build, shape = NETS[name]
    module = build(1)
    last = [m for m in module.modules() if isinstance(m, torch.nn.Linear)][-1]
    last.weight.data *= scale
    rng = np.random.default_rng(3)
    x = rng.standard_normal((SAMPLES, *shape[1:])).astype(np.float32)
    return module, x, rng.integers(CLASSES, size=SAMPLES).tolist(), export(module, shape, folded=False)


def explain(name, method, scale=1.0, **options):
    _, x, target, model = case(name, scale)
    return Explainer(model, method=method, threads=1, **options)(x, target)


def distance(found, truth):
    """Return the largest difference as a share of each sample's largest absolute value."""
    truth = np.asarray(truth)
    axes = tuple(range(1, truth.ndim))
    return (np.abs(found - truth).max(axes) / np.abs(truth).max(axes)).max()


def attribute(build, name, **options):
    """Return what a method of captum gives, in float64."""
    captum = skips.without("captum.attr")
    module, x, target, _ = case(name)
    module.double()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its hooks
            inputs = torch.from_numpy(x.astype(np.float64)).requires_grad_()
            found = build(captum, module).attribute(inputs, target=target, **options)
    finally:
        module.float()
    pair = found if isinstance(found, tuple) else (found, None)
    return [v.detach().numpy() if v is not None else None for v in pair]


class TestCaptum:
    @pytest.mark.parametrize("name", NAMES)
    def test_gradient(self, name):
        truth, _ = attribute(lambda c, m: c.Saliency(m), name, abs=False)
        found = explain(name, "gradient")
        assert distance(found.attribution, truth) < TOLERANCE
        assert distance(found.saliency, np.abs(truth).sum(1)) < TOLERANCE

    @pytest.mark.parametrize("name", NAMES)
    def test_gradient_x_input(self, name):
        truth, _ = attribute(lambda c, m: c.InputXGradient(m), name)
        assert distance(explain(name, "gradient-x-input").attribution, truth) < TOLERANCE
        assert distance(explain(name, "gradient-x-input", psi="signed").saliency, truth.sum(1)) < TOLERANCE

    @pytest.mark.parametrize("name", OF_MODULES)
    def test_guided_backprop(self, name):
        truth, _ = attribute(lambda c, m: c.GuidedBackprop(m), name)
        assert distance(explain(name, "guided-backprop").attribution, truth) < TOLERANCE

    @pytest.mark.parametrize("name", OF_MODULES)
    def test_deconvnet(self, name):
        truth, _ = attribute(lambda c, m: c.Deconvolution(m), name)
        assert distance(explain(name, "deconvnet").attribution, truth) < TOLERANCE

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("baseline", [0.0, 0.5])
    def test_integrated_gradients(self, name, baseline):
        # Few steps: at any of them a value may lie within rounding of a kink, and float32 on the other side of it.
        truth, delta = attribute(
            lambda c, m: c.IntegratedGradients(m),
            name,
            baselines=baseline,
            n_steps=STEPS,
            return_convergence_delta=True,
        )
        found = explain(name, "integrated-gradients", baseline=baseline, steps=STEPS)
        assert distance(found.attribution, truth) < TOLERANCE
        np.testing.assert_allclose(found.delta, delta, atol=TOLERANCE * np.abs(found.score).max())

    @pytest.mark.parametrize("name", ["plain", "resnet"])
    @pytest.mark.parametrize(("window", "stride"), [(8, 4), (7, 5)])
    def test_occlusion(self, name, window, stride):
        shapes = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
        truth, _ = attribute(lambda c, m: c.Occlusion(m), name, baselines=0.25, **shapes)
        found = explain(name, "occlusion", window=window, stride=stride, baseline=0.25, psi="signed")
        assert distance(found.saliency, truth[:, 0]) < TOLERANCE

    @pytest.mark.parametrize("epsilon", [1e-6, 0.1])
    @pytest.mark.parametrize("name", ["plain", "vgg"])
    def test_lrp_epsilon(self, name, epsilon):
        def build(captum, module):
            rules = skips.without("captum.attr._utils.lrp_rules")
            sums = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
            for m in module.modules():
                if not list(m.children()) and not isinstance(m, torch.nn.ReLU):
                    m.rule = rules.EpsilonRule(epsilon if isinstance(m, sums) else 1e-300)  # a pool only chooses
            return captum.LRP(module)

        truth, _ = attribute(build, name)
        assert distance(explain(name, "lrp-epsilon", epsilon=epsilon).attribution, truth) < TOLERANCE

    @pytest.mark.parametrize("name", NAMES)
    def test_grad_cam(self, name):
        truth, _ = attribute(lambda c, m: c.LayerGradCam(m, m[LAYERS[name]]), name, relu_attributions=True)
        size = case(name)[1].shape[2:]
        enlarged = torch.nn.functional.interpolate(torch.from_numpy(truth), size, mode="bilinear", align_corners=False)
        assert distance(explain(name, "grad-cam").saliency, enlarged[:, 0]) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [*cams.CAMS, "score-cam"])
def test_class_activation_maps_are_those_of_the_papers(method, name):
    module, x, target, _ = case(name)
    truth = cams.saliency(module, LAYERS[name], x.astype(np.float64), target, method)
    assert distance(explain(name, method).saliency, truth) < TOLERANCE


def grad_cam():
    try:
        return skips.without("pytorch_grad_cam")
    except RuntimeError as error:  # a torchvision that was built for another torch
        skips.now(skips.PACKAGE, f"pytorch_grad_cam does not import: {error}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("grad-cam", "GradCAM"),
        ("grad-cam++", "GradCAMPlusPlus"),
        ("xgrad-cam", "XGradCAM"),
        ("layer-cam", "LayerCAM"),
        ("hires-cam", "HiResCAM"),
        ("score-cam", "ScoreCAM"),
    ],
)
def test_class_activation_maps_are_those_of_grad_cam(method, theirs, name):
    peer = grad_cam()
    # Its constants beside denominators (1e-6) vanish before gradients of such logits.
    scale = 1e4 if method in ("grad-cam++", "xgrad-cam") else 1.0
    module, x, target, _ = case(name, scale)
    targets = [peer.utils.model_targets.ClassifierOutputTarget(t) for t in target]
    with getattr(peer, theirs)(module, [module[LAYERS[name]]]) as cam:
        truth = cam(torch.from_numpy(x), targets)
    found = explain(name, method, scale).saliency
    low, high = found.min((1, 2), keepdims=True), found.max((1, 2), keepdims=True)
    assert distance((found - low) / (high - low), truth) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_eigen_cam_is_the_projection_of_grad_cam(name):
    # The sign of a principal direction is arbitrary, and the package takes the positive part of whichever comes out.
    peer, (module, x, _, _) = grad_cam(), case(name)
    with torch.no_grad():
        a = module[: LAYERS[name] + 1](torch.from_numpy(x)).numpy()
    projected = peer.utils.svd_on_activations.get_2d_projection(a)
    largest = [p.flat[np.abs(p).argmax()] for p in projected]
    positive = torch.from_numpy(np.maximum(projected * np.sign(largest)[:, None, None], 0))[:, None]
    enlarged = torch.nn.functional.interpolate(positive.float(), x.shape[2:], mode="bilinear", align_corners=False)
    assert distance(explain(name, "eigen-cam").saliency, enlarged[:, 0]) < TOLERANCE


class TestNoise:
    """SmoothGrad's family against torch's gradient at the very copies that the seed gives."""

    OPTIONS = {"samples": 9, "sigma": 0.2, "random_state": 5, "batch_size": 4}  # noqa: RUF012

    @staticmethod
    @cache
    def gradients():
        module, x, target, _ = case("vgg")
        found = []
        module.double()
        for i, sample in enumerate(x.astype(np.float64)):
            noise = np.random.default_rng([5, i]).standard_normal((9, *sample.shape))
            copies = torch.from_numpy(sample + 0.2 * (sample.max() - sample.min()) * noise).requires_grad_()
            found.append(torch.autograd.grad(module(copies)[:, target[i]].sum(), copies)[0].numpy())
        module.float()
        return np.stack(found)

    @pytest.mark.parametrize(
        ("method", "moment"),
        [
            ("smoothgrad", lambda g: g.mean(1)),
            ("smoothgrad-squared", lambda g: (g**2).mean(1)),
            ("vargrad", lambda g: g.var(1)),
        ],
    )
    def test_is_the_moment_of_the_gradients(self, method, moment):
        truth = moment(self.gradients())
        found = explain("vgg", method, **self.OPTIONS)
        assert distance(found.attribution, truth) < TOLERANCE
        assert distance(found.saliency, np.abs(truth).sum(1)) < TOLERANCE


def test_expected_gradients():
    module, x, target, _ = case("vgg")
    references = np.random.default_rng(8).standard_normal((4, *x.shape[1:])).astype(np.float32)
    truth = []
    module.double()
    for i, sample in enumerate(x.astype(np.float64)):
        rng = np.random.default_rng([7, i])
        start = references[rng.integers(4, size=11)].astype(np.float64)
        between = torch.from_numpy(sample - rng.random(11)[:, None, None, None] * (sample - start)).requires_grad_()
        (g,) = torch.autograd.grad(module(between)[:, target[i]].sum(), between)
        truth.append(((sample - start) * g.numpy()).mean(0))
    module.float()
    found = explain("vgg", "expected-gradients", references=references, samples=11, random_state=7, batch_size=3)
    assert distance(found.attribution, np.stack(truth)) < TOLERANCE
