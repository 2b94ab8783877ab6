"""CONTRIBUTING.md does what it says: every example is run, every path exists."""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fgonnx.converters
import numpy as np
import onnx
import pytest
from fgonnx.converters import finish, network, options
from onnx import helper, numpy_helper, parser

import fgonnx
import fgonnx.evaluate
from fgonnx.audit.evaluate import registry as measures
from fgonnx.cli import guarded, terminal
from fgonnx.cli.app import app
from fgonnx.cli.options import Group, ModelPath, takes
from fgonnx.engine.methods import registry as methods
from fgonnx.engine.model.load import load
from fgonnx.engine.rules import registry as rules
from fgonnx.fields import RUNNING, documented, option
from tests import linearisation, rule_cases
from tests.cli_support import SHAPES, good, refused
from tests.support import draw, pictures, small_cnn

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python (\w+)\n(.*?)```", TEXT, re.DOTALL))
NEW = {
    "converters/NAME.py",
    "fgonnx/cli/NAME.py",
    "docs/converters/NAME.md",
    "converters/perceptron.py",
    "fgonnx/cli/size.py",
}


def run(name: str, *modules: Mapping[str, Any], **names: Any) -> dict[str, Any]:
    """Run an example as part of the modules that it names, with what else its own imports would give."""
    place = {k: v for module in modules for k, v in module.items() if not k.startswith("__")} | names
    exec(compile(BLOCKS[name], f"CONTRIBUTING.md, {name}", "exec"), place)
    return place


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the examples register."""
    monkeypatch.setattr(rules, "_RULES", {key: list(entries) for key, entries in rules._RULES.items()})
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    monkeypatch.setattr(measures, "_MEASURES", dict(measures._MEASURES))
    monkeypatch.setattr(rule_cases, "CASES", [])
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))


def test_every_example_is_run_here() -> None:
    assert set(BLOCKS) == {name.rpartition("_")[2] for name in globals() if name.startswith("test_the_example_of_")}


@pytest.mark.parametrize("name", BLOCKS)
def test_an_example_is_ten_lines_and_says_where_it_belongs(name: str) -> None:
    lines = [line for line in BLOCKS[name].splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 10
    assert BLOCKS[name].startswith("# ")


def test_every_path_exists() -> None:
    paths = set(re.findall(r"[`(# ]((?:fgonnx|tests|converters|docs|benchmarks|\.ci)/[\w./]*)", TEXT))
    assert len(paths) > 20
    assert sorted(p for p in paths - NEW if not (ROOT / p).exists()) == []
    assert paths >= NEW
    assert [p for p in NEW if (ROOT / p).exists()] == []


def test_the_example_of_operator() -> None:
    run("operator", vars(rule_cases), vars(rules))
    rule = rules.find("Softsign", 18)
    (case,) = rule_cases.CASES
    assert rule is not None
    assert rule.note == "dy/dx = 1 / (1 + |x|)^2"
    linearisation.check(case)
    linearisation.check_batch(case)


def test_the_example_of_method() -> None:
    run("method", vars(methods))
    model, x = small_cnn(), pictures(2)
    squared = fgonnx.Explainer(model, method="gradient-squared", threads=1)(x)
    plain = fgonnx.Explainer(model, method="gradient", threads=1)(x)
    assert squared.attribution is not None
    assert plain.attribution is not None
    np.testing.assert_allclose(squared.attribution, plain.attribution**2, rtol=1e-6)
    assert fgonnx.methods.describe("gradient-squared").startswith("The square of the gradient")


def test_the_example_of_measure() -> None:
    run("measure", vars(measures))
    explainer = fgonnx.Explainer(SHAPES, threads=1)
    x = pictures(3, (3, 64, 64))
    data = fgonnx.evaluate.Data.of(explainer, x)
    found = fgonnx.evaluate.get("central")(explainer, data).values["share"]
    maps = explainer(x).saliency
    np.testing.assert_allclose(found, [m[16:48, 16:48].sum() / m.sum() for m in maps], rtol=1e-6)


def test_the_example_of_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fgonnx.converters.perceptron")
    used = {"helper": helper, "parser": parser, "numpy_helper": numpy_helper}
    module.__dict__.update(run("converter", vars(network), finish=finish.finish, Conversion=options.Conversion, **used))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(fgonnx.converters, "FRAMEWORKS", (*fgonnx.converters.FRAMEWORKS, "perceptron"))
    weights = list(draw(a=(5, 7), b=(7, 3)).values())
    report = fgonnx.converters.convert(weights, tmp_path / "p.onnx", "perceptron")
    assert report.passed
    explained = fgonnx.rewrite(tmp_path / "p.onnx")
    assert "completeness" in [o.name for o in explained.graph.output]


def test_the_example_of_command() -> None:
    names = run("command", math=math, terminal=terminal, load=load, ModelPath=ModelPath)
    app.command("size")(guarded.command(names["command"]))
    counted = sum(math.prod(t.dims) for t in onnx.load(SHAPES).graph.initializer)
    assert f"{counted:,}" in good("size", SHAPES)
    assert "how many numbers" in good("size", "--help")


def test_the_example_of_option() -> None:
    names = {"documented": documented, "dataclass": dataclass, "option": option, "RUNNING": RUNNING}
    made = run("option", **names, __name__=__name__)["Running"]
    assert "retries : int\n    How often a run that fails is tried again." in made.__doc__

    @takes(running=Group(made))
    def command(model: ModelPath, *, running: Any) -> None:
        """Print it."""
        terminal.say("retries", str(running.retries))

    app.command("retry")(guarded.command(command))
    assert good("retry", SHAPES) == "retries 0"
    assert good("retry", SHAPES, "--retries", "3") == "retries 3"
    assert "--retries" in refused("retry", SHAPES, "--retries", "-1")
    assert "How often a run that fails" in good("retry", "--help")
