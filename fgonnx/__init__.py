"""Full-gradient explanations of deployed ONNX networks: saliency map and certificate as one ONNX file."""

from __future__ import annotations

from pathlib import Path

from fgonnx._version import __version__
from fgonnx.aggregate import Site
from fgonnx.comparison import Comparison, compare
from fgonnx.errors import FgonnxError
from fgonnx.explainer import Explainer
from fgonnx.explanation import Explanation
from fgonnx.gradient import grad
from fgonnx.gradient_operator import lower_gradients
from fgonnx.read.preprocess import Preprocessing
from fgonnx.rewrite import rewrite
from fgonnx.rules.registry import Local, rule

# From a source checkout, `fgonnx.converters` is the folder beside this one.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file() and (_root / "converters" / "__init__.py").is_file():
    __path__.append(str(_root))

__all__ = [
    "Comparison",
    "Explainer",
    "Explanation",
    "FgonnxError",
    "Local",
    "Preprocessing",
    "Site",
    "__version__",
    "compare",
    "grad",
    "lower_gradients",
    "rewrite",
    "rule",
]
