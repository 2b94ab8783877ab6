"""The version: from the tag where the package was built or installed, the fallback where neither was done."""

from __future__ import annotations

try:
    from fgonnx._built import __version__
except ImportError:
    __version__ = "0.1.0.dev0"  # as in pyproject.toml, [tool.setuptools_scm]

__all__ = ["__version__"]
