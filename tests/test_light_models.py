"""Nine real architectures from the onnx wheel, with synthetic weights: each is rewritten and explained completely."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from fgonnx import Explainer

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# Most of their weights are one constant per layer, some computed in the graph (ConstantOfShape). All terms then have
# one sign and add up to as much as 1e31, without cancelling: the residual stays a matter of digits.
TOLERANCE = 1e-4

every_model = pytest.mark.parametrize(
    ("name", "opset", "softmax"),
    [
        ("bvlc_alexnet", 9, True),
        ("densenet121", 9, False),
        ("inception_v1", 9, True),
        ("inception_v2", 9, True),
        ("resnet50", 9, True),
        ("shufflenet", 9, True),
        ("squeezenet", 9, True),
        pytest.param("vgg19", 9, True, marks=pytest.mark.slow),
        ("zfnet512", 9, True),
    ],
)


@cache
def explained(name):
    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 224, 224)).astype(np.float32)
    return Explainer(FOLDER / f"light_{name}.onnx")(x)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="this onnx wheel carries no light models")
@every_model
class TestLightModel:
    def test_is_complete(self, name, opset, softmax):
        assert explained(name).relative_residual().max() < TOLERANCE

    def test_map_has_the_size_of_the_input(self, name, opset, softmax):
        assert explained(name).saliency.shape == (2, 224, 224)

    def test_map_is_finite_and_not_flat(self, name, opset, softmax):
        assert np.isfinite(explained(name).saliency).all()
        assert np.ptp(explained(name).saliency, axis=(1, 2)).min() > 0

    def test_takes_a_batch(self, name, opset, softmax):
        assert explained(name).settings["batch"] == "any"

    def test_is_explained_before_its_softmax(self, name, opset, softmax):
        assert explained(name).head_stripped == ("Softmax" if softmax else "")
