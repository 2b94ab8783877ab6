"""A score is written alike wherever it is shown: four digits, and what is zero without a sign."""

import pytest

import fgonnx
from fgonnx.jobs import panel
from fgonnx.wording import amount
from tests.cli_support import good

SHAPES, STAR = "examples/shapes.onnx", "examples/images/star.png"

WRITTEN = [
    (3.87653, "3.877", "+3.877"),
    (-0.00012345, "-0.0001234", "-0.0001234"),
    (0.0, "0", "0"),
    (-0.0, "0", "0"),
    (12, "12", "+12"),
    (123456.0, "1.235e+05", "+1.235e+05"),
]


@pytest.mark.parametrize(("value", "plain", "signed"), WRITTEN)
def test_amounts_have_four_digits(value, plain, signed):
    assert (amount(value), amount(value, signed=True)) == (plain, signed)


def test_every_place_that_shows_a_score_writes_the_same(tmp_path):
    e = fgonnx.explain(SHAPES, STAR)
    score = amount(float(e.score[0]))
    assert repr(e).endswith(f"'star' {score}")
    assert f"score {score}" in e._repr_html_()
    assert any(line.startswith(f"score {score}") for line in panel._lines(e.to_dict()))
    assert f" {score} " in good("explain", SHAPES, STAR, "-o", tmp_path / "e")
    assert good("compare", SHAPES, SHAPES, STAR, "-o", tmp_path / "c").split().count(score) == 2
