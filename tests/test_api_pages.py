"""docs/api is what the docstrings say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests import skips
from tests.support import script

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "api"

skips.without("griffe")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    found: dict[str, str] = script(ROOT / "docs" / "build_api.py").pages()
    return found


def test_the_pages_are_up_to_date(pages: dict[str, str]) -> None:
    committed = {p.name: p.read_text(encoding="utf-8") for p in PAGES.glob("*.md")}
    assert sorted(committed) == sorted(pages), "run python docs/build_api.py"
    stale = [name for name, text in pages.items() if committed[name] != text]
    assert stale == [], "run python docs/build_api.py"


@pytest.mark.parametrize("module", ["fgonnx", "fgonnx.methods", "fgonnx.rules", "fgonnx.targets", "fgonnx.evaluate"])
def test_every_exported_name_has_its_place(module: str, pages: dict[str, str]) -> None:
    exported = [n for n in importlib.import_module(module).__all__ if not n.startswith("__")]
    text = pages[f"{module}.md"]
    missing = [n for n in exported if f"`{n}`" not in text and f"`{n}." not in text]
    assert missing == []
