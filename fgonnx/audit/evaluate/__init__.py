"""Measures of the quality of maps; they need an ONNX model and pictures, and no training framework."""

from __future__ import annotations

from fgonnx.audit.evaluate import axioms, distribution, faithfulness, localisation, parts, randomisation, road
from fgonnx.audit.evaluate.data import Data, Explains, Subject
from fgonnx.audit.evaluate.registry import Measure, Measured, get, names
from fgonnx.audit.evaluate.texts import text_measures

__all__ = [
    "Data",
    "Explains",
    "Measure",
    "Measured",
    "Subject",
    "axioms",
    "distribution",
    "faithfulness",
    "get",
    "localisation",
    "names",
    "parts",
    "randomisation",
    "road",
    "text_measures",
]
