"""Contributions that do not sum to the score are loud, wherever they come out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import fgonnx
from fgonnx.errors import CertificateWarning
from fgonnx.explain.closing import UNCLOSED, unclosed
from fgonnx.explain.explanation import Explanation
from tests import skips
from tests.cli_support import run
from tests.serve_support import post, served
from tests.support import draw, forgetting, model

GRAPH = """(float[N,6] x) => (float[N,3] y) { r = Relu(x) h = MatMul(r, w) y = Tanh(h) }"""
SMALL, LARGE = np.full(6, 0.5, np.float32), np.full(6, 5, np.float32)


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model explained by a rule that is wrong above 3."""
    forgetting(monkeypatch)

    @fgonnx.rule("Relu", note="wrong above 3")
    def relu(op: Any, y: ir.Value, x: ir.Value) -> fgonnx.Local:
        slope = [op.Cast(op.Greater(x, bound), to=ir.DataType.FLOAT.value) for bound in (0.0, 3.0)]
        return fgonnx.Local(lambda g: op.Mul(g, op.Add(*slope)))

    path = tmp_path / "wrong.onnx"
    onnx.save(model(GRAPH, weights={"w": draw(w=(6, 3))["w"] / 8}), path)
    return path


def graph_of(kind: ir.DataType) -> ir.Model:
    """Return a graph that computes in a type."""
    x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(kind))
    node = ir.Node("", "Relu", [x], num_outputs=1)
    node.outputs[0].type = ir.TensorType(kind)
    return ir.Model(ir.Graph([x], [], nodes=[node], opset_imports={"": 18}), ir_version=8)


@pytest.mark.parametrize(
    ("residual", "kind", "loud"),
    [
        (0.0, ir.DataType.FLOAT, False),
        (5e-4, ir.DataType.FLOAT, False),
        (2e-3, ir.DataType.FLOAT, True),
        (2e-3, ir.DataType.DOUBLE, True),
        (0.02, ir.DataType.FLOAT16, False),
        (0.05, ir.DataType.FLOAT16, True),
        (0.05, ir.DataType.BFLOAT16, False),
        (0.4, ir.DataType.BFLOAT16, True),
    ],
)
def test_what_rounding_explains_is_not_loud(residual: float, kind: ir.DataType, loud: bool) -> None:
    found = Explanation(
        np.zeros((2, 4)),
        None,
        np.array([1.0, 1.0]),
        {},
        (),
        contributions=np.array([[0.5, 0.5], [-0.25, 0.75]]),
        completeness=np.array([residual, 0.0]),
    )
    assert [UNCLOSED in text for text in unclosed(found, graph_of(kind))] == [loud, False]


def test_an_explanation_warns_and_notes_the_sample(wrong: Path) -> None:
    explainer = fgonnx.Explainer(wrong, threads=1)
    with pytest.warns(CertificateWarning, match=f"sample 1: {UNCLOSED}"):
        found = explainer(np.stack([SMALL, LARGE]), 0)
    assert [note for note in found.notes if UNCLOSED in note] == [n for n in found.notes if n.startswith("sample 1")]
    assert found.notes


def test_a_sample_that_closes_and_a_method_without_certificate_are_silent(wrong: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fgonnx.Explainer(wrong, threads=1)(SMALL[None], 0)
        fgonnx.Explainer(wrong, method="gradient-x-input", threads=1)(LARGE[None], 0)


def test_the_command_names_it_and_does_the_others(wrong: Path, tmp_path: Path) -> None:
    for name, x in (("a", SMALL), ("b", LARGE), ("c", SMALL)):
        np.save(tmp_path / f"{name}.npy", x[None])
    out = tmp_path / "out"
    result = run("explain", wrong, *(tmp_path / f"{name}.npy" for name in "abc"), "-o", out, "--batch-size", 1)
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "error: the contributions do not sum to the score: b.npy [0]." in said
    assert "warning" not in said
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    assert [any(UNCLOSED in n for n in r["notes"]) for r in records] == [False, True, False]
    assert len(list(out.glob("*.png"))) == 3
    again = run("explain", wrong, tmp_path / "b.npy", "-o", out, "--batch-size", 1, "--resume", "--json")
    assert again.exit_code == 1
    assert len(json.loads(again.stdout)["records"]) == 1


def test_the_service_notes_it(wrong: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        with served(wrong) as service:
            asked = {"instances": [SMALL.tolist(), LARGE.tolist()]}
            answer = post(service, f"/v1/models/{wrong.stem}:explain", asked)
    notes = [one["certificate"].get("note", "") for one in answer.body["explanations"]]
    assert [UNCLOSED in note for note in notes] == [False, True]


def test_an_audit_notes_the_row_and_finds_it(wrong: Path, tmp_path: Path) -> None:
    skips.without("pyarrow")
    lines = [",".join("abcdef"), *(",".join(str(v) for v in row) for row in (SMALL, LARGE, SMALL))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run("audit", wrong, tmp_path / "rows.csv", "-o", tmp_path / "run")
    assert result.exit_code == 1, result.output
    assert "in 1 row the contributions do not sum" in " ".join(result.stderr.split())
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["certificates"]["unclosed"] == 1
    assert any("in 1 row the contributions do not sum" in text for text in report["findings"])


def test_windows_are_counted(wrong: Path, tmp_path: Path) -> None:
    lines = ["I", *(str(v) for v in np.concatenate([SMALL, LARGE, LARGE / 12, LARGE]))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run("explain", wrong, tmp_path / "a.csv", "-o", tmp_path / "out", "--slide", 6, "--target", 0)
    assert result.exit_code == 1, result.output
    assert "a.csv" in result.stderr
    record = json.loads(next((tmp_path / "out").glob("*.json")).read_text(encoding="utf-8"))
    assert f"in 2 of 4 windows {UNCLOSED}: do not rely on this map" in record["notes"]


def test_a_comparison_warns_and_ends_with_1(wrong: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LARGE[None])
    result = run("compare", wrong, wrong, tmp_path / "a.npy", "-o", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert f"warning: {UNCLOSED}" in " ".join(result.stderr.split())


def test_a_check_fails_without_a_warning(wrong: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LARGE[None])
    result = run("check", wrong, tmp_path / "a.npy")
    assert result.exit_code == 1, result.output
    assert "warning" not in result.stderr
