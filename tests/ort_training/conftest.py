"""Skips everything here where the training build is not installed."""

import pytest

from fgonnx.engine.graph.session import TRAINING


def pytest_collection_modifyitems(items):
    here = [item for item in items if "ort_training" in item.path.parts]
    reason = "onnxruntime here is not the training build; .ci/run tests this in an environment of its own"
    for item in here:
        item.add_marker("ort_training")
        if not TRAINING:
            item.add_marker(pytest.mark.skip(reason=reason))
