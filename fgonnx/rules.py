"""Rules of operators: how to look one up, and how to add one (public names of `fgonnx.engine.rules`)."""

from __future__ import annotations

from fgonnx.engine.rules import Local, Rule, Unsupported, elementwise, find, homogeneous, rule, rules

__all__ = ["Local", "Rule", "Unsupported", "elementwise", "find", "homogeneous", "rule", "rules"]
