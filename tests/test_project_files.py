"""Files that other services read: they parse, and say the same as pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
FILES = [
    ".pre-commit-config.yaml",
    "CITATION.cff",
    *(str(p.relative_to(ROOT)) for p in (ROOT / ".github").rglob("*.yml")),
]


def parsed(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_parses(name: str) -> None:
    assert isinstance(parsed(name), dict)


def test_before_a_commit_the_pinned_ruff_runs() -> None:
    (rev,) = (r["rev"] for r in parsed(".pre-commit-config.yaml")["repos"] if r["repo"].endswith("ruff-pre-commit"))
    assert f"ruff=={rev.removeprefix('v')}" in EXTRAS["test"]


def test_the_workflow_runs_the_lowest_onnxruntime() -> None:
    jobs = parsed(".github/workflows/ci.yml")["jobs"]
    (lowest,) = {row["onnxruntime"] for row in jobs["tests"]["strategy"]["matrix"]["include"]} - {"newest"}
    (stated,) = (r.partition(">=")[2] for r in EXTRAS["cpu"] if r.startswith("onnxruntime>="))
    assert lowest == f"{stated}.0"


def test_the_workflow_runs_sessions_that_there_are() -> None:
    sessions = re.findall(r"@nox\.session.*\n(?:@nox.*\n)?def (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    jobs = parsed(".github/workflows/ci.yml")["jobs"]
    assert set(jobs["checks"]["strategy"]["matrix"]["session"]) <= set(sessions)


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_a_form_asks_for_what_is_needed(name: str) -> None:
    form = parsed(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked)
    assert any(field.get("validations", {}).get("required") for field in asked)
