"""Examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fgonnx
from fgonnx import converters, evaluate, methods, targets
from tests import skips
from tests.support import forgetting

ROOT = Path(__file__).resolve().parents[1]
SHOWN: dict[str, Any] = {
    "Explainer": fgonnx.Explainer,
    "Explanation": fgonnx.Explanation,
    "Preprocessing": fgonnx.Preprocessing,
    "check": fgonnx.check,
    "compare": fgonnx.compare,
    "grad": fgonnx.grad,
    "inspect": fgonnx.inspect,
    "rewrite": fgonnx.rewrite,
    "rule": fgonnx.rule,
    "methods.driven": methods.driven,
    "methods.written": methods.written,
    "evaluate.Measure": evaluate.Measure,
    "evaluate.measure": evaluate.measure,
    "targets.Cotangent": targets.Cotangent,
    "targets.Detection": targets.Detection,
    "targets.Region": targets.Region,
    "targets.Similarity": targets.Similarity,
    "converters.convert": converters.convert,
}
"""Where a person would look for an example first."""

NEEDS = {"converters.convert": ("torch", "onnxscript")}


@pytest.fixture(autouse=True)
def _as_a_reader_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder that has the shipped example; what is registered there is forgotten afterwards."""
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "shapes.onnx", tmp_path / "examples")
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "examples" / "images")
    monkeypatch.chdir(tmp_path)
    forgetting(monkeypatch)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_example_does_what_it_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for package in NEEDS.get(name, ()):
        if importlib.util.find_spec(package) is None:
            skips.now(skips.PACKAGE, package)
    shown: Callable[..., Any] = SHOWN[name]
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = (t for t in finder.find(shown, name, globs={}) if t.name == name)
    assert found.examples, f"{name} has no example"
    failed, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found)
    assert not failed, capsys.readouterr().out
