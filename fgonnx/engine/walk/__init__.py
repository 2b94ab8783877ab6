"""Engines: where cotangents come from. fgonnx's own rules, or ONNX Runtime's gradient builder as a second witness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.walk import backward, recurrence
from fgonnx.engine.walk.witness import ort_training

Walker = Callable[[Emitter, Sequence[ir.Node], ir.Value, ir.Value, int], backward.Walk]

#: By name, what walks back from the head.
ENGINES: dict[str, Walker] = {"fgonnx": backward.walk, "ort-training": ort_training.walk}

__all__ = ["ENGINES", "Walker", "backward", "recurrence"]  # recurrence has rules, which are registered by its import
