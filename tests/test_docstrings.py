"""Sections "Parameters" and "Attributes" of public docstrings say what the signatures say."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "fgonnx",
    "fgonnx.methods",
    "fgonnx.rules",
    "fgonnx.evaluate",
    "fgonnx.training",
    "fgonnx.targets",
    "fgonnx.errors",
    "fgonnx.labels",
    "fgonnx.converters",
)
#: Read from their source, for they import only beside their framework.
FRAMEWORKS = ("jax", "keras", "paddle", "sklearn", "tensorflow", "tflite", "torch")
HEADING = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)


@dataclass(frozen=True)
class Public:
    """A public function, class or method: its docstring, the names in its signature, and its fields, if it has any."""

    name: str
    doc: str
    parameters: frozenset[str]
    fields: frozenset[str] | None = None
    attributes: frozenset[str] = frozenset()

    def section(self, title: str) -> set[str] | None:
        """Return what a section of the docstring describes: `a, b : type` is both, stars do not count."""
        parts = HEADING.split(inspect.cleandoc(self.doc))
        found = dict(zip(parts[1::2], parts[2::2], strict=True))
        if title not in found:
            return None
        heads = [line for line in found[title].splitlines() if line and not line[0].isspace()]
        return {name.strip().lstrip("*") for head in heads for name in head.partition(" : ")[0].split(",")}

    def __str__(self) -> str:
        return self.name


def imported(module: ModuleType) -> Iterator[Public]:
    """Return what a module offers: what it lists, or else what it defines."""
    listed = getattr(module, "__all__", None)
    for name in listed or [n for n in vars(module) if not n.startswith("_")]:
        value = getattr(module, name)
        if not inspect.isfunction(value) and not inspect.isclass(value):
            continue
        if not value.__module__.startswith("fgonnx.") or (listed is None and value.__module__ != module.__name__):
            continue
        yield described(f"{module.__name__}.{name}", value)
        for attribute, method in members(value).items() if inspect.isclass(value) else ():
            function = getattr(method, "__func__", method)  # of a class method or a static one
            if inspect.isfunction(function) and not attribute.startswith("_"):
                yield described(f"{module.__name__}.{name}.{attribute}", function)


def members(value: type) -> dict[str, Any]:
    """Return what a class defines, and what it takes from an inner class of its name."""
    alike = [c for c in value.__mro__ if c.__name__ == value.__name__]
    return {name: member for c in reversed(alike) for name, member in vars(c).items()}


def described(name: str, value: Any) -> Public:
    own = frozenset(f.name for f in fields(value) if not f.name.startswith("_")) if is_dataclass(value) else None
    own_init = not inspect.isclass(value) or is_dataclass(value) or inspect.isfunction(vars(value).get("__init__"))
    function = value.__init__ if inspect.isclass(value) and issubclass(value, BaseException) else value
    taken = inspect.signature(function).parameters if own_init else ()
    return Public(name, value.__doc__ or "", visible(taken), own, frozenset(dir(value)))


def visible(names: Any) -> frozenset[str]:
    return frozenset(n for n in names if n not in {"self", "cls"} and not n.startswith("_"))


def read(path: Path) -> Iterator[Public]:
    """Return the public functions of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            a = node.args
            taken = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            name = f"fgonnx.converters.{path.stem}.{node.name}"
            yield Public(name, ast.get_docstring(node) or "", visible(x.arg for x in taken))


PUBLIC = [
    *(p for name in MODULES for p in imported(importlib.import_module(name))),
    *(p for name in FRAMEWORKS for p in read(ROOT / "converters" / f"{name}.py")),
]


def test_public_names_are_found() -> None:
    names = {p.name for p in PUBLIC}
    assert {"fgonnx.Explainer.engine", "fgonnx.rewrite", "fgonnx.converters.torch.convert"} <= names
    assert len(names) > 100


@pytest.mark.parametrize("public", [p for p in PUBLIC if p.section("Parameters") is not None], ids=str)
def test_parameters_are_those_of_the_signature(public: Public) -> None:
    assert public.section("Parameters") == public.parameters


@pytest.mark.parametrize("public", [p for p in PUBLIC if p.fields and p.section("Attributes") is not None], ids=str)
def test_attributes_of_a_dataclass_are_its_fields(public: Public) -> None:
    documented = public.section("Attributes") or set()
    assert (public.fields or set()) <= documented | (public.section("Parameters") or set())
    assert documented - (public.fields or set()) <= public.attributes


@pytest.mark.parametrize("public", PUBLIC, ids=str)
def test_what_takes_several_parameters_describes_them(public: Public) -> None:
    assert public.doc
    if len(public.parameters) > 2:
        assert public.section("Parameters") or public.section("Attributes")
