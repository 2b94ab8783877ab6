"""What is public: the names a user may rely on, written out, so that none comes or goes unseen."""

import importlib

import pytest

PUBLIC = {
    "fgonnx": "Bounds CheckResult Comparison Explainer Explanation FgonnxError Local Options Preprocessing Running "
    "Site TextExplanation __version__ bounded bounds check compare explain grad inspect lower_gradients method methods "
    "rewrite rule rules targets",
    "fgonnx.methods": "Method Sample View Written describe driven find method names written",
    "fgonnx.rules": "Local Rule Unsupported elementwise find homogeneous rule rules",
    "fgonnx.auditing": "Auditing Drift Runner against audit export records report sign",
    "fgonnx.targets": "Cotangent Detection Position Region Similarity Target parse",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_exported_names_are_these(module):
    assert sorted(importlib.import_module(module).__all__) == PUBLIC[module].split()


@pytest.mark.parametrize("module", [*PUBLIC, "fgonnx.evaluate", "fgonnx.training", "fgonnx.converters"])
def test_exported_names_are_there(module):
    found = importlib.import_module(module)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []
