"""Local linearisations, one per operator, in files by family; importing this package registers all of them."""

from __future__ import annotations

from fgonnx.engine.rules import (
    activation,
    arithmetic,
    linear,
    normalisation,
    pooling,
    reduction,
    selection,
    shape,
    spectral,
)
from fgonnx.engine.rules.registry import Local, Rule, Unsupported, elementwise, find, homogeneous, rule, rules

__all__ = [
    "Local",
    "Rule",
    "Unsupported",
    "activation",
    "arithmetic",
    "elementwise",
    "find",
    "homogeneous",
    "linear",
    "normalisation",
    "pooling",
    "reduction",
    "rule",
    "rules",
    "selection",
    "shape",
    "spectral",
]
