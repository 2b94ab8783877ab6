"""Audits of wide rows: the page shows what adds most and one bar of the rest, the records have it all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import skips

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.jobs.audit.job import audit, records  # noqa: E402  # they import pyarrow
from fgonnx.jobs.audit.report.parts import BARS, strongest  # noqa: E402

ROW_BYTES = 3000
"""What a row may take of a page, however wide it is."""


def linear(path: Path, features: int) -> Path:
    """Write a model of two scores, the sums of features times random weights."""
    w = np.random.default_rng(1).normal(size=(features, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.array([0.5, 1], np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def channels(path: Path, count: int) -> Path:
    """Write a model of two scores, the means of channels times random weights."""
    w = np.random.default_rng(1).normal(size=(count, 2)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x", "t"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", count, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.array([2]), "t")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def table(path: Path, rows: int, features: int) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, features)).round(4)
    names = ",".join(f"gene {i:04}" for i in range(features))
    path.write_text(names + "\n" + "\n".join(",".join(map(str, row)) for row in x) + "\n")
    return path


def bars_of(run: Path) -> dict[int, list[tuple[str, float]]]:
    text = (run / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return {row["n"]: [(name, value) for name, value in row["parts"]["bars"]] for row in json.loads(found[1])["rows"]}


def of_features(base: Path, rows: int, features: int, **how: Any) -> Path:
    model, data = linear(base / "m.onnx", features), table(base / "t.csv", rows, features)
    return audit(model, data, base / "run", sanity=0, **how)


def test_a_page_does_not_grow_with_the_features(tmp_path: Path) -> None:
    sizes = {}
    for rows in (20, 60):
        (tmp_path / str(rows)).mkdir()
        run = of_features(tmp_path / str(rows), rows, 3000, shard_size=32)
        sizes[rows] = (run / "report.html").stat().st_size
        assert [len(r["contributions"]) for r in records(run, ["features"]).column("features").to_pylist()] == [
            3000
        ] * rows
    assert (sizes[60] - sizes[20]) / 40 < ROW_BYTES


@pytest.mark.parametrize(("features", "shown"), [(3, 3), (BARS, BARS), (BARS + 1, BARS + 1), (BARS + 2, BARS)])
def test_the_largest_are_shown_and_the_others_are_one_bar(tmp_path: Path, features: int, shown: int) -> None:
    run = of_features(tmp_path, 5, features)
    bars = bars_of(run)
    for row in records(run, ["row", "features"]).to_pylist():
        added = dict(zip(row["features"]["names"], row["features"]["contributions"], strict=True))
        order = sorted(added, key=lambda name: -abs(added[name]))
        *own, (biases, _) = bars[row["row"]["number"]]
        assert biases == "biases of the network"
        assert [name.partition(" = ")[0] for name, _ in own[:shown]] == order[:shown]
        rest = [added[name] for name in order[shown:]]
        folded = [(f"{len(rest)} other features, in sum", pytest.approx(sum(rest), rel=1e-3))] if rest else []
        assert own[shown:] == folded


@pytest.mark.parametrize(("count", "shown"), [(4, 4), (60, BARS)])
def test_so_are_channels(tmp_path: Path, count: int, shown: int) -> None:
    model = channels(tmp_path / "m.onnx", count)
    (tmp_path / "arrays").mkdir()
    x = np.random.default_rng(0).normal(size=(4, count, 8)).astype(np.float32)
    np.save(tmp_path / "arrays" / "x.npy", x)
    run = audit(model, tmp_path / "arrays", tmp_path / "run", sanity=0)
    bars = bars_of(run)
    for row in records(run, ["row", "series"]).to_pylist():
        shares = row["series"]["shares"]
        own = bars[row["row"]["number"]]
        assert sorted(value for _, value in own[:shown]) == pytest.approx(sorted(shares)[-shown:], rel=1e-3)
        rest = sorted(shares)[:-shown]
        folded = [(f"{len(rest)} other channels, in sum", pytest.approx(sum(rest), rel=1e-3))] if rest else []
        assert own[shown:] == folded


def test_the_strongest_of_cohorts_are_over_all_features(tmp_path: Path) -> None:
    run = of_features(tmp_path, 12, 200, shard_size=5)
    added = np.array([r["contributions"] for r in records(run, ["features"]).column("features").to_pylist()])
    group = np.arange(12) % 3 == 0
    files = sorted((run / "shards").glob("records-*.parquet"))
    found = strongest(files, [group, np.zeros(12, bool)])
    order = np.argsort(-np.abs(added[group]).sum(axis=0))[:10]
    assert [one["name"] for one in found[0]] == [f"gene {i:04}" for i in order]
    assert [one["mean"] for one in found[0]] == pytest.approx(added[group][:, order].mean(axis=0).tolist())
    assert {one["count"] for one in found[0]} == {4}
    assert found[1] == []
