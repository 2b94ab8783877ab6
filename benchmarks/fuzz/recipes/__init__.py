"""How every operator is drawn: recipes by operator, in files by family; importing this package collects all of them."""

from __future__ import annotations

from benchmarks.fuzz.recipes import control, elementwise, layers, linear, pooling, quantised, selection, shape
from benchmarks.fuzz.recipes.registry import EXCEPTIONS, RECIPES, Recipe, known_operators, recipe

__all__ = [
    "EXCEPTIONS",
    "RECIPES",
    "Recipe",
    "control",
    "elementwise",
    "known_operators",
    "layers",
    "linear",
    "pooling",
    "quantised",
    "recipe",
    "selection",
    "shape",
]
