"""Is a map right? Measures of methods (public names of `fgonnx.audit.evaluate`)."""

from __future__ import annotations

from fgonnx.audit.evaluate import *  # noqa: F403
from fgonnx.audit.evaluate import __all__ as _names
from fgonnx.audit.evaluate.registry import measure

__all__ = [*_names, "measure"]
