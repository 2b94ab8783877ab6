"""What is installed: every package, one version, and nothing of the checkout besides."""

from __future__ import annotations

import importlib.util
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import setuptools
from fgonnx.converters import network

import fgonnx
from fgonnx.pictures.show.text import FONT

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    given: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path("setup.py")
    return given


def test_every_folder_with_code_is_packaged(arguments: dict[str, Any]) -> None:
    folders = {str(p.parent.relative_to(ROOT)) for p in (ROOT / "fgonnx").rglob("*.py")}
    folders |= {str(Path("fgonnx") / p.parent.relative_to(ROOT)) for p in (ROOT / "converters").rglob("*.py")}
    assert sorted(arguments["packages"]) == sorted(f.replace("/", ".").replace("\\", ".") for f in folders)


def test_the_font_of_the_pictures_is_packaged_with_its_licence(arguments: dict[str, Any]) -> None:
    licence = FONT.with_suffix(".LICENSE")
    found = {path for pattern in arguments["package_data"][""] for path in FONT.parent.glob(pattern)}
    assert {FONT, licence} <= found
    assert licence.relative_to(ROOT).as_posix() in PROJECT["project"]["license-files"]


def test_every_file_of_the_page_is_packaged(arguments: dict[str, Any]) -> None:
    room = ROOT / "fgonnx" / "view"
    found = {path for pattern in arguments["package_data"]["fgonnx.view"] for path in room.glob(pattern)}
    assert {p for p in room.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")} == found


@pytest.mark.parametrize("name", ["tests", "benchmarks", "setup", "examples", "docs"])
def test_nothing_else_of_the_checkout_is_part_of_the_package(name: str) -> None:
    assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists()
    assert importlib.util.find_spec(f"fgonnx.{name}") is None


def test_without_history_the_version_is_the_same_by_either_way() -> None:
    (fallback,) = re.findall(r'__version__ = "(.+)"', (ROOT / "fgonnx" / "_version.py").read_text(encoding="utf-8"))
    assert fallback == PROJECT["tool"]["setuptools_scm"]["fallback_version"]


def test_the_version_has_the_form_that_packaging_asks_for() -> None:
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(\.dev\d+|rc\d+)?(\+[\w.]+)?", fgonnx.__version__)


@pytest.mark.parametrize("tool", ["ruff", "mypy"])
def test_tools_whose_verdict_changes_with_their_version_are_pinned(tool: str) -> None:
    extra = PROJECT["project"]["optional-dependencies"]["test"]
    (pin,) = (r for r in extra if re.match(rf"{tool}\b", r))
    assert re.fullmatch(rf"{tool}==[\d.]+", pin)


def of_extra(name: str) -> set[str]:
    """Return the names of the packages of an extra, those of the extras in it included."""
    found = set()
    for requirement in PROJECT["project"]["optional-dependencies"][name]:
        package, inner = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()  # type: ignore[union-attr]
        found |= set().union(*map(of_extra, inner.split(","))) if package == "fgonnx" else {package}
    return found


@pytest.mark.parametrize("extra", network.PACKAGES)
def test_what_a_converter_tells_to_install_is_its_extra(extra: str) -> None:
    assert set(network.PACKAGES[extra].split()) == of_extra(extra)


def test_no_message_names_a_package_under_a_name_that_is_not_ours_yet() -> None:
    sources = [*(ROOT / "fgonnx").rglob("*.py"), *(ROOT / "converters").rglob("*.py"), *ROOT.glob("*.md")]
    sources += (ROOT / "docs").rglob("*.md")
    named = re.compile(r"pip install (?:[^.\n]* )?\"?fgonnx\b")
    assert [str(p) for p in sources if named.search(p.read_text(encoding="utf-8"))] == []


def test_no_window_is_opened_so_that_headless_opencv_will_do() -> None:
    windows = re.compile(r"cv2\.(imshow|namedWindow|waitKey|destroy\w*|createTrackbar|selectROI)\b")
    assert [str(p) for p in (ROOT / "fgonnx").rglob("*.py") if windows.search(p.read_text(encoding="utf-8"))] == []
