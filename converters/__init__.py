"""Converters from training frameworks to ONNX files that fgonnx explains (installed as `fgonnx.converters`)."""

from __future__ import annotations

if __name__ != "fgonnx.converters":
    raise ImportError(
        f"this package is fgonnx.converters; it was imported as {__name__!r}: use 'import fgonnx.converters'"
    )

#: Frameworks that have a converter module of their own.
FRAMEWORKS: tuple[str, ...] = ()
