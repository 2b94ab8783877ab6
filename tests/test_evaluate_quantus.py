"""Our measures and those of Quantus, where both define the same; needs quantus and torch."""

import numpy as np
import pytest

from fgonnx import Explainer
from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.randomisation import permuted
from tests import skips
from tests.evaluate_support import SIDE, draw, relu_net

quantus = skips.without("quantus")
skips.without("torch")

from fgonnx.audit.evaluate import quantus as bridge  # noqa: E402

SILENT = {"disable_warnings": True, "display_progressbar": False}
QUIET = {**SILENT, "normalise": False, "abs": True}


@pytest.fixture(scope="module")
def case():
    explainer = Explainer(relu_net())
    mask = np.zeros((4, SIDE, SIDE), bool)
    mask[:, 2:6, 3:8] = True
    return explainer, evaluate.Data.of(explainer, draw(7, 4, 1, SIDE, SIDE), masks=mask)


def by_quantus(metric, case, **known):
    explainer, data = case
    return np.array(
        metric(
            model=bridge.model(explainer),
            x_batch=data.x,
            y_batch=data.target,
            s_batch=data.masks[:, None],
            explain_func=bridge.explain,
            channel_first=True,
            **known,
        ),
        float,
    )


@pytest.mark.parametrize(
    ("metric", "measure", "quantity"),
    [
        ("Sparseness", "sparseness", "gini"),
        ("Complexity", "complexity", "entropy"),
        ("PointingGame", "pointing-game:tolerance=0", "hit"),
        ("RelevanceMassAccuracy", "energy", "inside"),
    ],
)
def test_the_same_number_comes_out(metric, measure, quantity, case):
    ours = evaluate.get(measure)(*case).values[quantity]
    assert by_quantus(getattr(quantus, metric)(**QUIET), case) == pytest.approx(ours, rel=1e-5)


def test_deletion_is_pixel_flipping(case):
    explainer, data = case
    steps = 16
    flipping = quantus.PixelFlipping(features_in_step=SIDE * SIDE // steps, perturb_baseline=0.0, **QUIET)
    maps = np.abs(draw(9, 4, SIDE, SIDE))  # without ties, which we break at random
    ours = evaluate.get(f"deletion:fill=black:steps={steps}")(
        explainer, evaluate.Data.of(explainer, data.x, saliency=maps)
    )
    assert by_quantus(flipping, case, softmax=True, a_batch=maps[:, None]) == pytest.approx(ours.curve[:, 1:], rel=1e-4)


def test_max_sensitivity_is_the_same_norm(case):
    explainer, data = case
    shift = 0.05 * np.ones((1, SIDE * SIDE), np.float32)
    metric = quantus.MaxSensitivity(
        nr_samples=1, perturb_func=lambda arr, **_: (arr + shift).astype(np.float32), **QUIET
    )
    maps, moved = (
        explainer(x, data.target.tolist()).saliency for x in (data.x, data.x + shift.reshape(1, 1, SIDE, SIDE))
    )
    ours = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(maps, moved, strict=True)]
    assert by_quantus(metric, case) == pytest.approx(ours, rel=1e-4)


def test_entropy_rises_as_in_efficient_mprt(case):
    subject = evaluate.Subject(relu_net(), "gradient-x-input")
    data = case[1].explained(subject)
    found = evaluate.get("randomisation-entropy")(subject, data).values
    metric = quantus.EfficientMPRT(skip_layers=True, abs=False, normalise=False, **SILENT)
    for quantity, x in (("entropy", data.maps(subject)), ("entropy_random", random_maps(subject, data))):
        theirs = [metric.complexity_func(a=m, x=m[None], n_bins=100) for m in x]
        assert theirs == pytest.approx(found[quantity], rel=1e-9)


def random_maps(subject, data):
    twin = subject.on(permuted(subject.loaded, ("w1", "b1", "w2", "b2", "w3", "b3"), data.seed))
    return twin(data.x, data.target.tolist()).saliency.astype(np.float64)


def test_models_that_take_channels_last_are_fed_rightly():
    import onnx

    proto = relu_net()
    proto.graph.input[0].type.tensor_type.shape.CopyFrom(
        onnx.helper.make_tensor_value_info("x", 1, ["N", SIDE, SIDE, 1]).type.tensor_type.shape
    )
    proto.graph.input[0].name = "image"
    proto.graph.node.insert(0, onnx.helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2]))
    first, last = Explainer(relu_net()), Explainer(proto)
    x = draw(7, 2, 1, SIDE, SIDE)
    assert bridge.explain(bridge.model(last), x, [0, 1]) == pytest.approx(
        bridge.explain(bridge.model(first), x, [0, 1]), abs=1e-5
    )
