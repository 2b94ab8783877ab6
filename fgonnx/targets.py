"""What can be explained (public names of `fgonnx.explain.targets`)."""

from __future__ import annotations

from fgonnx.explain.choice import parse
from fgonnx.explain.detection import Detection
from fgonnx.explain.targets import Cotangent, Position, Region, Similarity, Target

__all__ = ["Cotangent", "Detection", "Position", "Region", "Similarity", "Target", "parse"]
