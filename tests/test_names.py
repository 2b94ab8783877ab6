"""Names of fgonnx in documents and docstrings are names that exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"`+(?:~|!)?(fgonnx(?:\.\w+)+)(?:\([^`]*\)|\[[^`]*\])?`+")

#: Keys of a model file's metadata, which look like names of Python.
METADATA = {"fgonnx.conversion", "fgonnx.preprocessing", "fgonnx.rate", "fgonnx.sites"}
#: Modules that only import where the training build of ONNX Runtime, or a framework, is installed.
ELSEWHERE = ("fgonnx.engine.walk.witness.builder", "fgonnx.converters.")

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [p for folder in ("fgonnx", "converters") for p in sorted((ROOT / folder).rglob("*.py"))]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Return the docstrings of a file, those of attributes too, with the lines they begin in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else ():
            value = child.value if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield child.lineno, value.value


def names(path: Path) -> list[tuple[int, str]]:
    """Return the backticked names of fgonnx in a file, with their lines."""
    if path.suffix == ".md":
        parts = list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    else:
        parts = [(line + i, text) for line, doc in docstrings(path) for i, text in enumerate(doc.splitlines())]
    return [(line, name) for line, text in parts for name in NAME.findall(text)]


def resolves(name: str) -> bool:
    """Tell whether a dotted name is a module, or an attribute of a module or of a class in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        try:
            if importlib.util.find_spec(module) is None:
                continue
        except ModuleNotFoundError:  # its parent is no package
            continue
        if end == len(parts):
            return True  # it need not import here
        return _has(importlib.import_module(module), parts[end:])
    return False


def _has(found: object, attributes: list[str]) -> bool:
    for attribute in attributes:
        annotated = {a for c in getattr(found, "__mro__", ()) for a in vars(c).get("__annotations__", {})}
        if attribute in annotated:
            return True  # a field: what it holds is there in an instance alone
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


@pytest.mark.parametrize("path", [p for p in (*PAGES, *SOURCES) if names(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_names_in_backticks_are_there(path: Path) -> None:
    wrong = [f"line {line}: {name}" for line, name in names(path) if name not in METADATA and not resolves(name)]
    assert wrong == []


def test_keys_of_metadata_are_written_by_the_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert [key for key in sorted(METADATA) if f'"{key}"' not in source] == []


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("fgonnx.Explainer", True),
        ("fgonnx.Explainer.engine", True),
        ("fgonnx.Explanation.saliency", True),
        ("fgonnx.engine.maps.psi", True),
        ("fgonnx.engine.maps.psy", False),
        ("fgonnx.Explainer.motor", False),
        ("fgonnx.inputs.bind", False),
    ],
)
def test_a_name_resolves_if_it_exists(name: str, there: bool) -> None:
    assert resolves(name) == there
