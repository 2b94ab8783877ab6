"""The tutorials in docs/converters do what they say, where their framework installs."""

import pytest

from tests.frameworks import needed
from tests.tutorials import PAGES, follow

PACKAGES = {
    "keras": ("keras", "tf2onnx"),
    "tensorflow": ("tensorflow", "tf2onnx"),
    "tflite": ("tensorflow", "tf2onnx", "ai_edge_litert"),
    "jax": ("jax", "flax", "jax2onnx"),
    "sklearn": ("sklearn", "skl2onnx"),
    "paddle": ("paddle", "paddle2onnx"),
}


def test_every_page_is_followed():
    assert {p.stem for p in PAGES.glob("*.md")} == {*PACKAGES, "torch", "README"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PACKAGES)
def test_following_a_tutorial(name, tmp_path, monkeypatch):
    needed(*PACKAGES[name])
    follow(name, tmp_path, monkeypatch)
