"""The tutorials as notebooks: written from the pages, and every cell runs."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.support import script

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in (ROOT / "docs" / "tutorials").glob("*.md") if p.name != "README.md")

nbformat = skips.without("nbformat")
exceptions = skips.without("nbclient").exceptions
skips.without("ipykernel")
build = script(ROOT / "docs" / "build_notebooks.py")


def committed(page: Path) -> Any:
    return nbformat.read(page.with_suffix(".ipynb"), as_version=4)


def kinds(notebook: Any) -> list[list[str]]:
    """What the code cells show: streams by name, and types of data."""
    return [
        [output.get("name", "") or ", ".join(sorted(output["data"])) for output in cell["outputs"]]
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_notebook_says_what_its_page_says(page: Path) -> None:
    there = [(cell["id"], cell["cell_type"], cell["source"]) for cell in committed(page).cells]
    asked = [(cell["id"], cell["cell_type"], cell["source"]) for cell in build.notebook(page).cells]
    assert there == asked, "run python docs/build_notebooks.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_notebook_runs_and_shows_what_it_showed(page: Path) -> None:
    assert kinds(build.executed(build.notebook(page))) == kinds(committed(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_notebook_shows_a_picture_and_nothing_of_the_machine_that_ran_it(page: Path) -> None:
    nbformat.validate(committed(page))
    assert any("image/png" in kind for shown in kinds(committed(page)) for kind in shown)
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|Users)/|\x1b", page.with_suffix(".ipynb").read_text("utf-8"))


def test_a_command_that_fails_is_an_error() -> None:
    page = build.notebook(PAGES[0])
    failing = copy.deepcopy(page)
    failing.cells = [*page.cells[:2], build.v4.new_code_cell("!fgonnx explain nowhere.onnx")]
    with pytest.raises(exceptions.CellExecutionError, match="_exit_code == 0"):
        build.executed(failing)


def test_a_name_alone_ends_a_cell() -> None:
    assert build._shown("a = 1\na  # shown\nb = a\n\nb\n") == ["a = 1\na  # shown", "b = a\n\nb"]
