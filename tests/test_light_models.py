"""Nine real architectures from the onnx wheel, with synthetic weights: each is rewritten and explained completely."""

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

from fgonnx import Explainer
from tests import skips

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# Most of their weights are one constant per layer, computed in the graph (ConstantOfShape). Terms reach 1e31 and do not
# cancel. DenseNet's last layer sums 50,000 equal numbers, whose rounding does not cancel either: 3e-5 in float32, and
# 2e-8 when the same graph is evaluated in float64.
TOLERANCE = 1e-4

SLOW = ("bvlc_alexnet", "densenet121", "inception_v2", "resnet50", "vgg19", "zfnet512")
MODELS = [
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
]

pytestmark = skips.when(not FOLDER.is_dir(), skips.PACKAGE, "this wheel of onnx carries no light models")


# One model after another, so that the weights of one are held at a time: those of VGG-19 alone take 575 MB.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS],
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def explained(name):
    x = np.random.default_rng(0).uniform(0, 1, (1, 3, 224, 224)).astype(np.float32)
    gc.collect()  # of the model before, whose graph refers to itself
    return Explainer(FOLDER / f"light_{name}.onnx")(x)


def test_is_complete(explained):
    assert explained.relative_residual().max() < TOLERANCE


def test_map_has_the_size_of_the_input(explained):
    assert explained.saliency.shape == (1, 224, 224)


def test_map_is_not_flat(explained):
    assert np.ptp(explained.saliency, axis=(1, 2)).min() > 0


def test_takes_a_batch(explained):
    assert explained.settings["batch"] == "any"


def test_is_explained_before_its_softmax(name, explained):
    assert explained.head_stripped == ("" if name == "densenet121" else "Softmax")
