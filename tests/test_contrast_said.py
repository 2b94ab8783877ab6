"""A refused contrast is named as it was given."""

import pytest

import fgonnx
from fgonnx.errors import OptionError

SHAPES, STAR = "examples/shapes.onnx", "examples/images/star.png"


@pytest.mark.parametrize("method", ["random", "score-cam", "vargrad", "smoothgrad-squared"])
@pytest.mark.parametrize("contrast", ["circle", 0, "no such label", 99, "next"])
def test_a_contrast_for_a_map_without_sign(method, contrast):
    with pytest.raises(OptionError, match=rf"^contrast={contrast!r} has no effect: .*the map of {method} has none"):
        fgonnx.explain(SHAPES, STAR, method=method, contrast=contrast)


def test_contrasts_of_several_samples():
    with pytest.raises(OptionError, match=r"circle.*has no effect"):
        fgonnx.explain(SHAPES, [STAR, STAR], method="random", contrast=["circle", "ring"])
