"""The tutorials, followed from top to bottom as a reader would: Python and commands, in an empty folder."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_support import ROOT, good
from tests.support import forgetting

FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(p for p in FOLDER.glob("*.md") if p.name != "README.md")


def follow(page: Path) -> None:
    """Run every block of a page in one namespace."""
    namespace = {"__name__": page.stem}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        if language == "python":
            exec(compile(text, page.name, "exec"), namespace)
            continue
        assert language == "sh"
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            if program == "python":
                subprocess.run([sys.executable, *arguments], check=True, env={"PYTHONPATH": str(ROOT)})
            else:
                assert program == "fgonnx"
                good(*arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_tutorial_does_what_it_says(page, tmp_path, monkeypatch):
    forgetting(monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", "train_*"))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    try:
        follow(page)
    finally:
        logging.disable(logging.NOTSET)
        for name in {"shapes", "marked", "scene", "tones"} & (set(sys.modules) - before):
            del sys.modules[name]


def test_every_tutorial_is_listed():
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [p.name for p in PAGES]


def test_the_wrong_decision_takes_twelve_lines():
    (block,) = re.findall(
        r"```python\n(import fgonnx\n.*?)```", (FOLDER / "misclassification.md").read_text(), re.DOTALL
    )
    assert len([line for line in block.splitlines() if line]) <= 12
