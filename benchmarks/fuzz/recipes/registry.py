"""Which operators the fuzzer has to draw: those of fgonnx's own registries; and how: the recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from benchmarks.fuzz.builder import Builder, Value
from fgonnx.engine import rules
from fgonnx.engine.normal import integers, quantised
from fgonnx.engine.normal.expand import EXPANDERS, functions

Recipe = Callable[[Builder, str], Value]

RECIPES: dict[str, list[Recipe]] = {}
"""By operator, with its domain in front where it is not a standard one: the ways to draw it."""

EXCEPTIONS = {
    "CausalConvWithState": "of opset 27, which onnxruntime has not",
    "LinearAttention": "of opset 27, which onnxruntime has not",
    "SwiGLU": "of opset 28, which onnxruntime has not",
    "Bernoulli": "what it draws is not a function of its input",
    "com.microsoft:EmbedLayerNormalization": "of ids, and no graph drawn here has any",
    "SequenceMap": "its body is a graph of sequences, which no recipe makes yet",
    "OptionalGetElement": "of optional values, which no recipe makes yet",
    "OptionalHasElement": "of optional values, which no recipe makes yet",
    **dict.fromkeys(
        [
            f"ai.onnx.ml:{name}"
            for name in (
                *("ArrayFeatureExtractor", "FeatureVectorizer", "Imputer"),
                *("LinearClassifier", "LinearRegressor", "Normalizer", "Scaler"),
            )
        ],
        "of classical machine learning, tested on graphs as converters write them",
    ),
}
"""Operators that are not drawn, and why."""

#: Conditions, comparisons and indices: cuts of the path that are declared.
CHOICES = ("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "OneHot", "Not", "And")


def recipe(*op_types: str) -> Callable[[Recipe], Recipe]:
    """Register a function that draws these operators: it gets the builder and the operator."""

    def register(function: Recipe) -> Recipe:
        for op_type in op_types:
            RECIPES.setdefault(op_type, []).append(function)
        return function

    return register


def known_operators() -> set[str]:
    """Return every operator that fgonnx has a rule, an expansion or a twin for."""

    def named(domain: str, op_type: str) -> str:
        return f"{domain}:{op_type}" if domain else op_type

    found = {named(r.domain, r.op_type) for r in rules.rules()}
    found |= {named(*key) for key in (*EXPANDERS, *quantised.FAMILIES)}
    found |= {*quantised.MOVES, *integers.ORDERED, *integers.ARITHMETIC, *CHOICES}
    found |= {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    own = {name for name in found if name.startswith("fgonnx:")}  # comes with quantised and recurrent graphs
    return (found | set(_bodies())) - own


def _bodies() -> list[str]:
    """Return the operators on floating-point values that the standard defines by a function body."""
    schemas: dict[str, Any] = {s.name: s for s in onnx.defs.get_all_schemas() if not s.domain}
    return [
        name
        for name, s in schemas.items()
        if functions.has_body(name, s.since_version)
        and any("float" in t for i in s.inputs for t in i.types)
        and any("float" in t for o in s.outputs for t in o.types)
    ]
