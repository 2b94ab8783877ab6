"""The second engine where its runtime is not installed, and the lowerings as a table."""

from pathlib import Path

import pytest

import fgonnx
from benchmarks import engines
from fgonnx import training
from fgonnx.engine.graph import providers
from fgonnx.engine.walk.witness.lower import LOWERINGS, TAKEN
from fgonnx.errors import ProviderError
from tests import skips
from tests.support import pictures, small_cnn

stock = skips.when(providers.TRAINING, skips.INFERENCE)


@stock
def test_explaining_says_what_to_install():
    with pytest.raises(ProviderError, match="pip install onnxruntime-training=="):
        fgonnx.Explainer(small_cnn(), engine="ort-training")(pictures(1))


@stock
def test_training_says_what_to_install():
    with pytest.raises(ProviderError, match="pip install onnxruntime-training=="):
        training.Network(small_cnn())


def test_an_operator_is_taken_as_it_is_or_written_out():
    assert not set(LOWERINGS) & set(TAKEN)


def test_every_lowering_says_what_it_is():
    assert all(lowering.__doc__ for lowering in LOWERINGS.values())


def test_the_page_of_engines_has_the_operators_of_today():
    page = Path(__file__).resolve().parents[1] / "docs" / "engines.md"
    assert engines.operators() in page.read_text(encoding="utf-8"), "run python -m benchmarks.engines > docs/engines.md"
