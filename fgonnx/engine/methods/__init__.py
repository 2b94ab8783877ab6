"""Attribution methods: each writes its map into the graph, or runs the model several times."""

from __future__ import annotations

# ruff: noqa: I001  (imported in the order of `names`)
from fgonnx.engine.methods import fullgrad, gradients, smoothgrad, path, relevance, cams, masks, baselines  # noqa: F401
from fgonnx.engine.methods.own import method, named
from fgonnx.engine.methods.registry import Method, describe, find, names
from fgonnx.engine.methods.sample import Sample
from fgonnx.engine.methods.view import View, Written

__all__ = ["Method", "Sample", "View", "Written", "describe", "find", "method", "named", "names"]
