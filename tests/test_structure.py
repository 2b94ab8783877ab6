"""The figures of docs/house.md: what counts as a room, an arrow, a floor, a parameter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.structure import Checkout, circles, figures, floors, lines, of_an_operator, parameters, repeated

ROOT = Path(__file__).resolve().parents[1]


def _function(source: str) -> ast.FunctionDef:
    found = ast.parse(source).body[0]
    assert isinstance(found, ast.FunctionDef)
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    files = {
        "fgonnx/__init__.py": "from fgonnx.top import f",
        "fgonnx/base.py": "",
        "fgonnx/middle/__init__.py": "",
        "fgonnx/middle/one.py": "from fgonnx import base\nfrom fgonnx.middle import two",
        "fgonnx/middle/two.py": "import fgonnx.base",
        "fgonnx/top.py": "from fgonnx.middle.one import g",
        "converters/__init__.py": "from .inner import h",
        "converters/inner.py": "from fgonnx.top import f",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    return Checkout(tmp_path)


def test_rooms_are_what_stands_directly_in_a_package(checkout: Checkout) -> None:
    assert checkout.rooms("fgonnx") == {"base": set(), "middle": {"base"}, "top": {"middle"}}
    assert checkout.rooms("fgonnx.middle") == {"one": {"two"}, "two": set()}


def test_imports_lead_to_modules_relative_ones_too(checkout: Checkout) -> None:
    assert checkout.imports["fgonnx.middle.one"] == {"fgonnx.base", "fgonnx.middle.two"}
    assert checkout.imports["converters"] == {"converters.inner"}


def test_floors_are_the_longest_chain_and_a_circle_is_one_of_them(checkout: Checkout) -> None:
    assert floors(checkout.rooms("fgonnx")) == 3
    assert floors({"a": {"b"}, "b": {"a", "c"}, "c": set()}) == 2
    assert circles({"a": {"b"}, "b": {"a", "c"}, "c": set()}) == 2


def test_parameters_and_lines_of_a_function() -> None:
    f = _function('def f(self, a, /, b, *args, c=1, **kwargs):\n    """One.\n\n    Two.\n    """\n    return a')
    assert parameters(f) == 5
    assert lines(f) == 2


def test_what_takes_an_operators_attributes_is_told_apart() -> None:
    assert of_an_operator(_function("def conv(op, y, x, w, *, strides): ..."))
    assert not of_an_operator(_function("def conv(x, op): ..."))
    assert not of_an_operator(_function("def _conv(op, x): ..."))


def test_repeated_lines_are_counted_in_both_places_whatever_the_layout() -> None:
    block = "".join(f"x{i} = f({i}, 0)\n" for i in range(7))
    spread = "".join(f"x{i} = f(  # a comment\n    {i},\n    0,\n)\n" for i in range(7))
    files = [f"import a\na = 0\n{block}", f'"""A docstring."""\nb = 0\n{spread}', "x0 = f(0, 0)\nx1 = f(1, 0)\n"]
    assert repeated(map(ast.parse, files)) == 14


def test_this_version_has_no_circle_between_rooms() -> None:
    found = figures(Checkout(ROOT))
    assert found["rooms that import each other in a circle"] == "0"
