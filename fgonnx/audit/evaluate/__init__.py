"""Is a map right? Measures that need an ONNX model and pictures, and no training framework."""

from __future__ import annotations

from fgonnx.audit.evaluate import (
    average_drop,
    axioms,
    distribution,
    infidelity,
    insertion,
    localisation,
    perturbation,
    random_logit,
    randomisation,
    road,
    sensitivity_n,
    stability,
)
from fgonnx.audit.evaluate.data import Data, Explains, Subject
from fgonnx.audit.evaluate.registry import Measure, Measured, get, names

__all__ = [
    "Data",
    "Explains",
    "Measure",
    "Measured",
    "Subject",
    "average_drop",
    "axioms",
    "distribution",
    "get",
    "infidelity",
    "insertion",
    "localisation",
    "names",
    "perturbation",
    "random_logit",
    "randomisation",
    "road",
    "sensitivity_n",
    "stability",
]
