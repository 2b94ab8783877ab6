"""Attribution methods: list them, add one (public names of `fgonnx.engine.methods`)."""

from __future__ import annotations

from fgonnx.engine.methods import Method, Sample, View, Written, describe, find, names
from fgonnx.engine.methods.own import method
from fgonnx.engine.methods.registry import driven, written

__all__ = ["Method", "Sample", "View", "Written", "describe", "driven", "find", "method", "names", "written"]
