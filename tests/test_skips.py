"""Tests skip for reasons that are listed, and the summary of a run counts them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from _pytest import outcomes

from tests import conftest, skips

SKIPPED: Any = outcomes.Skipped
ROOT = Path(__file__).resolve().parents[1]
DIRECT = {f"pytest.{name}" for name in ("skip", "importorskip", "xfail", "mark.skip", "mark.skipif", "mark.xfail")}


@pytest.mark.parametrize(
    "path", [p for p in sorted((ROOT / "tests").rglob("*.py")) if p.name != "skips.py"], ids=lambda p: p.stem
)
def test_no_test_skips_past_the_list(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) in DIRECT]
    assert [f"line {n.lineno}: {ast.unparse(n)}" for n in called] == []


@pytest.mark.parametrize("reason", skips.REASONS, ids=lambda r: r.name)
def test_a_reason_is_found_by_what_pytest_reports(reason: skips.Reason) -> None:
    with pytest.raises(SKIPPED) as skipped:
        skips.now(reason, "for a try")
    assert skips.find(f"Skipped: {skipped.value}") is reason
    assert skips.find(reason.message()) is reason


def test_a_package_that_is_there_is_imported() -> None:
    assert skips.without("pytest") is pytest
    with pytest.raises(SKIPPED, match="package: no_such_package is not installed"):
        skips.without("no_such_package")


class Report:
    def __init__(self, nodeid: str, message: str) -> None:
        self.nodeid, self.longrepr = nodeid, ("file", 1, f"Skipped: {message}")


def test_the_summary_counts_by_reason_and_a_module_once() -> None:
    shared, missing = skips.SHARED.message(), skips.PACKAGE.message("torch is not installed")
    reports = [Report("a", shared), Report("b", shared), Report("m", missing), Report("m", missing), Report("c", "?")]
    lines = list(conftest._skipped(reports))
    assert lines[0].startswith("skipped: 2 for want of trained models; they run with the folder")
    assert lines[1].startswith("skipped: 1 for want of a package; they run where")
    assert lines[2] == "skipped: 1 for a reason that tests/skips.py does not list"
