"""Clusters of tables and texts: rows that rest on other features, signs or words are not of one cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from tests import skips

skips.without("pyarrow")
skips.without("sklearn")

from fgonnx.jobs.audit.job import audit  # noqa: E402  # it imports pyarrow

ROWS = 40
CASES: dict[str, Callable[[np.ndarray], None]] = {}


def case(name: str) -> Callable[[Callable[[np.ndarray], None]], None]:
    return lambda change: CASES.__setitem__(name, change)


@case("neighbours in a row of cells")
def _first_and_second(x: np.ndarray) -> None:
    x[:ROWS, 0] += 10
    x[ROWS:, 1] += 10


@case("neighbours in a column of cells")
def _one_row_of_cells_apart(x: np.ndarray) -> None:
    x[:ROWS, 0] += 10
    x[ROWS:, 16] += 10


@case("features that share a cell")
def _all_cells_apart(x: np.ndarray) -> None:
    x[:ROWS, 1] += 10
    x[ROWS:, 257] += 10


@case("the same feature with another sign")
def _signs(x: np.ndarray) -> None:
    x[:ROWS, 2] += 10
    x[ROWS:, 2] -= 10


@pytest.mark.parametrize("name", CASES)
def test_rows_that_rest_on_other_features_are_of_other_clusters(tmp_path: Path, name: str) -> None:
    x = np.abs(np.random.default_rng(0).normal(size=(2 * ROWS, 260))) * 0.001
    CASES[name](x)
    weights = ",".join(["1, 0"] * 260)
    text = f"""<ir_version: 8, opset_import: ["": 18]> g (float[N,260] x) => (float[N,2] y)
        <float[260,2] w = {{{weights}}}, float[2] b = {{100, 0}}> {{ y = Gemm(x, w, b) }}"""
    onnx.save(parser.parse_model(text), tmp_path / "m.onnx")
    lines = [",".join(f"f{i}" for i in range(260)), *(",".join(f"{v:.6f}" for v in row) for row in x)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    run = audit(tmp_path / "m.onnx", tmp_path / "t.csv", tmp_path / "run", sanity=0)
    found = json.loads((run / "report.json").read_text())["clusters"]
    assert [c["count"] for c in found] == [ROWS, ROWS]


APART = {
    "ids beside each other": (2, 3),
    "ids of one cell": (2, 258),
}


@pytest.mark.parametrize("name", APART)
def test_texts_that_rest_on_other_words_are_of_other_clusters(tmp_path: Path, name: str) -> None:
    one, other = APART[name]
    tokenizers = skips.without("tokenizers")
    words = ["[PAD]", *(f"w{i}" for i in range(1, 300))]
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[PAD]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.enable_padding(pad_id=0, pad_token="[PAD]")
    own.save(str(tmp_path / "tokenizer.json"))
    worth = [4.0 if i in (one, other) else 0.01 * (i % 7) for i in range(300)]
    table = ",".join(f"0, {v}" for v in worth)
    text = f"""<ir_version: 8, opset_import: ["": 18]> g (int64[N,T] ids) => (float[N,2] y)
        <float[300,2] table = {{{table}}}, int64[1] axis = {{1}}> {{
            rows = Gather(table, ids) y = ReduceSum<keepdims=0>(rows, axis) }}"""
    onnx.save(parser.parse_model(text), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(2 * ROWS):  # at any place of the text
        said = [f"w{one if i < ROWS else other}", *(f"w{k}" for k in rng.integers(20, 40, 3))]
        lines.append(" ".join(said[k] for k in rng.permutation(4)))
    (tmp_path / "t.txt").write_text("\n".join(lines))
    run = audit(tmp_path / "m.onnx", tmp_path / "t.txt", tmp_path / "run", sanity=0)
    found = json.loads((run / "report.json").read_text())["clusters"]
    assert [c["count"] for c in found] == [ROWS, ROWS]
