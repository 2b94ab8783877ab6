"""Full-gradient explanations of deployed ONNX networks: saliency map and certificate as one ONNX file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fgonnx import _checkout, _interrupts, bounds, methods, rules, targets  # noqa: F401
from fgonnx._version import __version__
from fgonnx.audit.check import CheckResult, check
from fgonnx.audit.comparison import Comparison, compare
from fgonnx.audit.inspection import inspect
from fgonnx.bounds import Bounds, bounded
from fgonnx.engine.graph.running import Running
from fgonnx.engine.maps.aggregate import Site
from fgonnx.engine.rewrite.gradient import grad
from fgonnx.engine.rewrite.gradient_operator import lower_gradients
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewrite import rewrite
from fgonnx.engine.rules.registry import Local, rule
from fgonnx.errors import FgonnxError
from fgonnx.interactive.once import explain
from fgonnx.pictures.read.preprocess import Preprocessing

if TYPE_CHECKING:
    from fgonnx.interactive.explainer import Explainer
    from fgonnx.interactive.explanation import Explanation

_checkout.install()

__all__ = [
    "Bounds",
    "CheckResult",
    "Comparison",
    "Explainer",
    "Explanation",
    "FgonnxError",
    "Local",
    "Options",
    "Preprocessing",
    "Running",
    "Site",
    "__version__",
    "bounded",
    "bounds",
    "check",
    "compare",
    "explain",
    "grad",
    "inspect",
    "lower_gradients",
    "methods",
    "rewrite",
    "rule",
    "rules",
    "targets",
]

_LATER = {"Explainer": "fgonnx.interactive.explainer", "Explanation": "fgonnx.interactive.explanation"}
"""Names whose modules are imported when they are first used: they draw pictures."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'fgonnx' has no attribute '{name}'")
    found = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
