"""Links and places on the pages lead somewhere; heads of measured pages are those of their generators."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import engines

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]
PLACE = re.compile(r"`((?:fgonnx|converters|tests|benchmarks|docs|examples)/[\w/.]*)`")
TO_BE_NAMED = "NAME"  # stands for a name of one's own in CONTRIBUTING.md


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Return the fragments that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lost = []
    for target, fragment in re.findall(r"\]\(((?!https?:)[^)#]*)(?:#([^)]+))?\)", text):
        there = page.parent / target if target else page
        if not there.exists() or (fragment and fragment not in anchors(there.read_text(encoding="utf-8"))):
            lost.append(f"{target}#{fragment}")
    assert lost == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "api"], ids=named)
def test_every_place_is_there(page: Path) -> None:
    places = set(PLACE.findall(page.read_text(encoding="utf-8")))
    assert sorted(p for p in places if TO_BE_NAMED not in p and not (ROOT / p).exists()) == []


def test_the_head_of_the_page_of_engines_is_its_generators() -> None:
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    pieces = re.split(r"\{[^}]*\}", engines.HEAD)
    assert len(pieces) > 3
    assert [piece for piece in pieces if piece not in page] == []
