"""Class names: read from files, matched with what a user types, aligned with the model's outputs."""

from __future__ import annotations

from fgonnx.labels.formats import from_config, from_json, from_ultralytics, gaps_in, load, to_json
from fgonnx.labels.label import HF_LABELS_KEY, METADATA_KEY, ULTRALYTICS_KEY, Label, Unnamed
from fgonnx.labels.matching import align, check_count, names_of, resolve

__all__ = [
    "HF_LABELS_KEY",
    "METADATA_KEY",
    "ULTRALYTICS_KEY",
    "Label",
    "Unnamed",
    "align",
    "check_count",
    "from_config",
    "from_json",
    "from_ultralytics",
    "gaps_in",
    "load",
    "names_of",
    "resolve",
    "to_json",
]
