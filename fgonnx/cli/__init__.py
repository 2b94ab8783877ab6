"""The command line. It knows the engine; the engine does not know it."""

from __future__ import annotations

from fgonnx.cli.app import main

__all__ = ["main"]
