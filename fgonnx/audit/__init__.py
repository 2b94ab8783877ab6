"""Checks of an explanation, comparison of two models, and measures of methods."""
