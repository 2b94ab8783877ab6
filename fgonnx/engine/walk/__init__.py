"""Engines: where cotangents come from. fgonnx's own rules, or ONNX Runtime's gradient builder as a second witness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.walk import backward, recurrence
from fgonnx.engine.walk.attnlrp import attnlrp
from fgonnx.engine.walk.backward import Modify
from fgonnx.engine.walk.libra import libra
from fgonnx.engine.walk.witness import ort_training

Walker = Callable[[Emitter, Sequence[ir.Node], ir.Value, ir.Value, int], backward.Walk]

#: By name, what walks back from the head.
ENGINES: dict[str, Walker] = {"fgonnx": backward.walk, "ort-training": ort_training.walk}

#: By name, what changes the rules of the gradient into those of another backward pass.
PASSES: dict[str, Modify] = {"libra": libra, "attnlrp": attnlrp}

__all__ = [
    "ENGINES",
    "PASSES",
    "Walker",
    "backward",
    "recurrence",
]  # recurrence has rules, which are registered by its import
