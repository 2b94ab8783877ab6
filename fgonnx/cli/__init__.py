"""The command line. It imports the library, never the reverse."""

from __future__ import annotations

from fgonnx.cli.app import main

__all__ = ["main"]
