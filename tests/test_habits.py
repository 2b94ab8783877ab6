"""Habits of the code that no linter holds: short lists of parameters, and the formatter's last word."""

from __future__ import annotations

import ast
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST = 8
#: Where a function of an operator takes what the standard gives the operator: its inputs and attributes, by name.
OF_OPERATORS = (
    "fgonnx/engine/rules",
    "fgonnx/engine/normal/expand",
    "fgonnx/engine/walk/witness/elementwise.py",
    "fgonnx/engine/walk/witness/operators.py",
    "fgonnx/engine/walk/witness/windows.py",
    "fgonnx/training/network.py",
)
#: The command line's functions have a parameter for every option.
COMMANDS = "fgonnx/cli"

SOURCES = sorted(p for folder in ("fgonnx", "converters") for p in (ROOT / folder).rglob("*.py"))
EVERYTHING = [
    p for folder in ("fgonnx", "converters", "tests", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py")
]


def long_lists(path: Path) -> dict[str, int]:
    """Return the functions of a file that have too many parameters, and how many these are."""
    found = {}
    inside = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))]
            operator = (
                bool(names)
                and inside.startswith(OF_OPERATORS)
                and names[0] in {"op", "self"}
                and not _private(node.name)
            )
            count = len([n for n in names if n not in {"self", "cls"}])
            if count > MOST and not operator:
                found[f"{inside}:{node.name}"] = count
    return found


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


LONG = {name: n for path in SOURCES if not path.is_relative_to(ROOT / COMMANDS) for name, n in long_lists(path).items()}


def test_no_function_has_more_than_eight_parameters() -> None:
    assert LONG == {}


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_formatter_has_the_last_word(path: Path) -> None:
    with tokenize.open(path) as file:
        comments = [t for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT]
    assert [f"line {t.start[0]}" for t in comments if "fmt: skip" in t.string or "fmt: off" in t.string] == []
