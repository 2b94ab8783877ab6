"""docs/operators.md is what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from benchmarks import operators

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
WRITTEN_WITH = re.compile(r"onnx\n(\S+) \(opset \d+\)")


def rows(page: str) -> set[tuple[str, ...]]:
    """Return operator and versions of every row of the standard."""
    return {tuple(line.split(" | ")[:2]) for line in page.splitlines() if line.startswith("| ")}


def without(page: str, left_out: set[tuple[str, ...]]) -> list[str]:
    """Return the lines of a page, the version of onnx and the rows of some operators left out."""
    lines = WRITTEN_WITH.sub("onnx", page).splitlines()
    return [line for line in lines if tuple(line.split(" | ")[:2]) not in left_out]


def test_the_page_of_operators_is_up_to_date() -> None:
    committed, today = PAGE.read_text(encoding="utf-8"), operators.page()
    # Another version of onnx has other operators, or other versions of them: the page has to agree on all the rest.
    versions = {WRITTEN_WITH.findall(page)[0] for page in (committed, today)}
    differing = rows(committed) ^ rows(today) if len(versions) > 1 else set()
    assert without(today, differing) == without(committed, differing), (
        "run python -m benchmarks.operators > docs/operators.md"
    )


def test_most_of_the_page_does_not_depend_on_the_version_of_onnx() -> None:
    assert len(rows(PAGE.read_text(encoding="utf-8")) & rows(operators.page())) > 150


def test_every_operator_with_a_derivative_is_on_it() -> None:
    schemas = [s for s in onnx.defs.get_all_schemas() if not s.domain]
    differentiable = onnx.defs.OpSchema.DifferentiationCategory.Differentiable
    marked = {s.name for s in schemas if any(i.differentiation_category == differentiable for i in s.inputs)}
    found = {row[0]: row[2] for row in operators.standard()}
    assert marked <= set(found)
    assert {name for name in marked if found[name].startswith(("refused", "no derivative"))} == set()
