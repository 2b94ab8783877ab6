"""The documentation site: it builds without a warning, works from a folder, and all of its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks import gallery
from tests import skips

ROOT = Path(__file__).resolve().parents[1]
PAGES = {p.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for p in (ROOT / "docs").rglob("*.md")}


class Page(HTMLParser):
    """Links, pictures and fragments of a page, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.links, self.fragments, self.loaded, self.without = path, [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.fragments |= {known[key] for key in ("id", "name") if known.get(key)}
        if tag == "a" and known.get("href"):
            self.links.append(known["href"])
        if tag in ("img", "script") and known.get("src"):
            self.loaded.append(known["src"])
        if tag == "link" and known.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(known["href"])
        if tag == "img" and not known.get("alt"):
            self.without.append(known.get("src"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    if find_spec("material") is None:
        skips.now(skips.PACKAGE, "mkdocs-material")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return {path: Page(path) for path in folder.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_there(site: dict[Path, Page]) -> None:
    folder = next(p.parent for p in site if p.name == "cli.html")
    there = {p.relative_to(folder).as_posix() for p in site}
    assert {p.replace("README.html", "index.html") for p in PAGES} <= there
    assert {"CHANGELOG.html", "CONTRIBUTING.html", "SECURITY.html", "examples/index.html"} <= there


def test_every_page_is_in_the_navigation(site: dict[Path, Page]) -> None:
    start = next(page for path, page in site.items() if path.name == "cli.html")
    linked = {(start.path.parent / unquote(urlsplit(link).path)).resolve() for link in start.links}
    assert sorted(str(p) for p in site if p.resolve() not in linked) == []


def test_links_lead_somewhere_in_the_folder(site: dict[Path, Page]) -> None:
    lost = []
    for page in site.values():
        for link in [*page.links, *page.loaded]:
            there = urlsplit(link)
            if there.scheme or there.netloc:
                continue
            target = (page.path.parent / unquote(there.path)).resolve() if there.path else page.path
            known = site.get(target)
            if not target.is_file() or (there.fragment and known and unquote(there.fragment) not in known.fragments):
                lost.append(f"{page.path.name}: {link}")
    assert lost == []


def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Page]) -> None:
    assert sorted({src for page in site.values() for src in page.loaded if urlsplit(src).netloc}) == []
    for path in next(iter(site)).parent.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", path.read_text(encoding="utf-8"))


def test_every_picture_has_a_text(site: dict[Path, Page]) -> None:
    assert [f"{page.path.name}: {src}" for page in site.values() for src in page.without] == []


def test_the_gallery_is_that_of_its_generator() -> None:
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page()
    assert {p.stem for p in gallery.PICTURES.glob("*.png")} == {one.name for one in gallery.GALLERY}
