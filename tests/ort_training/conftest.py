"""Skips everything here where the training build is not installed."""

from fgonnx.engine.graph.providers import TRAINING
from tests import skips


def pytest_collection_modifyitems(items):
    for item in items:
        if "ort_training" in item.path.parts:
            item.add_marker("ort_training")
            item.add_marker(skips.when(not TRAINING, skips.TRAINING))
