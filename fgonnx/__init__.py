"""Full-gradient explanations of deployed ONNX networks: saliency map and certificate as one ONNX file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import fgonnx.explain  # noqa: F401
from fgonnx import _checkout, _interrupts  # noqa: F401
from fgonnx._version import __version__

if TYPE_CHECKING:
    from fgonnx import bounds, methods, rules, targets
    from fgonnx.audit.check import check
    from fgonnx.audit.comparison import Comparison, compare
    from fgonnx.audit.found import CheckResult
    from fgonnx.audit.inspection import inspect
    from fgonnx.bounds import Bounds, bounded
    from fgonnx.engine.graph.running import Running
    from fgonnx.engine.maps.sites import Site
    from fgonnx.engine.methods.own import method
    from fgonnx.engine.rewrite.gradient import grad
    from fgonnx.engine.rewrite.gradient_operator import lower_gradients
    from fgonnx.engine.rewrite.options import Options
    from fgonnx.engine.rewrite.rewrite import rewrite
    from fgonnx.engine.rules.registry import Local, rule
    from fgonnx.errors import FgonnxError
    from fgonnx.interactive.explainer import Explainer
    from fgonnx.interactive.explanation import Explanation
    from fgonnx.interactive.once import explain
    from fgonnx.interactive.text import TextExplanation
    from fgonnx.pictures.read.preprocess import Preprocessing
else:
    # The package `fgonnx.explain` is imported above, once, and its name given to the function: a package that is
    # imported for the first time takes its name in the package around it.
    del explain

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
    "TextExplanation",
    "__version__",
    "bounded",
    "bounds",
    "check",
    "compare",
    "explain",
    "grad",
    "inspect",
    "lower_gradients",
    "method",
    "methods",
    "rewrite",
    "rule",
    "rules",
    "targets",
]

_WHERE = {
    "Bounds": "bounds",
    "CheckResult": "audit.found",
    "Comparison": "audit.comparison",
    "Explainer": "interactive.explainer",
    "Explanation": "interactive.explanation",
    "FgonnxError": "errors",
    "Local": "engine.rules.registry",
    "Options": "engine.rewrite.options",
    "Preprocessing": "pictures.read.preprocess",
    "Running": "engine.graph.running",
    "Site": "engine.maps.sites",
    "TextExplanation": "interactive.text",
    "bounded": "bounds",
    "check": "audit.check",
    "compare": "audit.comparison",
    "explain": "interactive.once",
    "grad": "engine.rewrite.gradient",
    "inspect": "audit.inspection",
    "lower_gradients": "engine.rewrite.gradient_operator",
    "method": "engine.methods.own",
    "rewrite": "engine.rewrite.rewrite",
    "rule": "engine.rules.registry",
}
"""The modules of the public names: each is imported when one of its names is first used."""

_MODULES = ("auditing", "bounds", "converters", "errors", "evaluate", "methods", "rules", "targets", "training")
"""Public modules, imported when first used."""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        found = getattr(importlib.import_module(f"fgonnx.{_WHERE[name]}"), name)
    elif name in _MODULES:
        found = importlib.import_module(f"fgonnx.{name}")
    else:
        raise AttributeError(f"module 'fgonnx' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
