"""Full-gradient explanations of deployed ONNX networks: saliency map and certificate as one ONNX file."""

from __future__ import annotations

from fgonnx import _checkout, methods, rules, targets
from fgonnx._version import __version__
from fgonnx.audit.check import CheckResult, check
from fgonnx.audit.comparison import Comparison, compare
from fgonnx.audit.inspection import inspect
from fgonnx.engine.graph.running import Running
from fgonnx.engine.maps.aggregate import Site
from fgonnx.engine.rewrite.gradient import grad
from fgonnx.engine.rewrite.gradient_operator import lower_gradients
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewrite import rewrite
from fgonnx.engine.rules.registry import Local, rule
from fgonnx.errors import FgonnxError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.pictures.read.preprocess import Preprocessing

_checkout.install()

__all__ = [
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
    "check",
    "compare",
    "grad",
    "inspect",
    "lower_gradients",
    "methods",
    "rewrite",
    "rule",
    "rules",
    "targets",
]
