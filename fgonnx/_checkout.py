"""Make `fgonnx.converters` importable in a source checkout, where it is a folder next to this package."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_CONVERTERS = Path(__file__).resolve().parents[1] / "converters" / "__init__.py"


class _Converters(importlib.abc.MetaPathFinder):
    """Finds `fgonnx.converters` and nothing else; its modules are found through its own path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "fgonnx.converters":
            return None
        return importlib.util.spec_from_file_location(
            fullname, _CONVERTERS, submodule_search_locations=[str(_CONVERTERS.parent)]
        )


def install() -> None:
    """Let `import fgonnx.converters` find the checkout's folder, after every other place where it might be."""
    if _CONVERTERS.is_file() and (_CONVERTERS.parents[1] / "setup.py").is_file():
        sys.meta_path.append(_Converters())
