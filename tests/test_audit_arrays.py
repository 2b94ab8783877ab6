"""Audits of arrays: vectors and series are recorded and shown as tables and recordings are, grids as pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from fgonnx.errors import OptionError
from tests import skips
from tests.audit_support import shard_bytes

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.jobs.audit.drift import against  # noqa: E402  # they import pyarrow
from fgonnx.jobs.audit.job import audit, records  # noqa: E402

VECTOR = """g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, -1, 2, 0, 3, -2}, float[2] b = {0.5, 0}>
    { h = Relu(x) y = Gemm(h, w, b) }"""
SERIES = """g (float[N,2,8] x) => (float[N,2] y)
    <float[2,2,3] k = {1, 0, 2, 0, 1, -1, 1, 1, 0, -1, 2, 1}, int64[1] t = {2}>
    { c = Conv<pads=[1,1]>(x, k) r = Relu(c) y = ReduceMean<keepdims=0>(r, t) }"""
LAST = """g (float[N,8,2] x) => (float[N,2] y)
    <float[2,2,3] k = {1, 0, 2, 0, 1, -1, 1, 1, 0, -1, 2, 1}, int64[1] t = {2}>
    { s = Transpose<perm=[0,2,1]>(x) c = Conv<pads=[1,1]>(s, k) r = Relu(c) y = ReduceMean<keepdims=0>(r, t) }"""
STRIP = """g (float[N,2,1,8] x) => (float[N,2] y)
    <float[2,2,1,3] k = {1, 0, 2, 0, 1, -1, 1, 1, 0, -1, 2, 1}, int64[2] t = {2, 3}>
    { c = Conv<pads=[0,1,0,1]>(x, k) r = Relu(c) y = ReduceMean<keepdims=0>(r, t) }"""
IDS = """g (int64[N,4] ids) => (float[N,2] y) <float[5,2] table = {1, 0, 0, 1, 2, -1, 0, 0, 3, 1}, int64[1] t = {1}>
    { r = Gather(table, ids) y = ReduceSum<keepdims=0>(r, t) }"""
GRID = """g (float[N,2,6,8] x) => (float[N,2] y) <float[2,2,1,1] k = {1, 0, 2, -1}, int64[2] t = {2, 3}>
    { c = Conv(x, k) r = Relu(c) y = ReduceMean<keepdims=0>(r, t) }"""

WITHOUT_PICTURES = {
    "vectors": (VECTOR, (3,), {"features"}),
    "series": (SERIES, (2, 8), {"series"}),
    "series with channels last": (LAST, (8, 2), {"series"}),
    "series as strips of one row": (STRIP, (2, 1, 8), set()),
    "ids": (IDS, (4,), set()),
}


def made(base: Path, text: str, shape: tuple[int, ...], count: int = 24) -> tuple[Path, Path]:
    onnx.save(parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}'), base / "m.onnx")
    rng = np.random.default_rng(0)
    whole = "int64[N" in text
    x = rng.integers(0, 5, (count, *shape)) if whole else rng.normal(size=(count, *shape)).astype(np.float32)
    (base / "arrays").mkdir()
    np.save(base / "arrays" / "x.npy", x)
    return base / "m.onnx", base / "arrays"


def page(run: Path) -> tuple[str, dict[str, Any]]:
    """Return what a page says without its script, and the rows that it knows."""
    text = (run / "report.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    return re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL), json.loads(data[1])


@pytest.mark.parametrize("kind", WITHOUT_PICTURES)
def test_nothing_has_a_place_in_a_picture(tmp_path: Path, kind: str) -> None:
    text, shape, fields = WITHOUT_PICTURES[kind]
    run = audit(*made(tmp_path, text, shape), tmp_path / "run", sanity=2, shard_size=10)
    for row in records(run, ["evidence", "pictures", "features", "series", "map"]).to_pylist():
        assert row["map"] is not None
        assert set(row["evidence"].values()) == {None}
        assert row["pictures"] is None
        assert {name for name in ("features", "series") if row[name] is not None} == fields
    summary = json.loads((run / "report.json").read_text())
    assert summary["kind"] == "array"
    assert all(c["grid"] is None and not c["places"] for c in summary["cohorts"])
    said, data = page(run)
    assert "picture" not in said
    assert "corner" not in said
    assert ("no named features or channels" in said) == (not fields)
    assert all(row["seen"] is None and row["over"] is None for row in data["rows"])
    assert not data["pictures"]


def test_grids_keep_their_pictures(tmp_path: Path) -> None:
    run = audit(*made(tmp_path, GRID, (2, 6, 8)), tmp_path / "run", sanity=0)
    row = records(run, ["evidence", "pictures"]).to_pylist()[0]
    assert row["evidence"]["border"] is not None
    assert row["pictures"]["overlay"] is not None
    assert json.loads((run / "report.json").read_text())["kind"] == "pictures"


class TestAsTables:
    """What is known of an array is what is known of the same numbers in a table."""

    def test_vectors_are_rows_of_features(self, tmp_path: Path) -> None:
        model, data = made(tmp_path, VECTOR, (3,), 5)
        x = np.load(data / "x.npy")
        table = "\n".join(",".join(repr(float(v)) for v in row) for row in x)
        (tmp_path / "t.csv").write_text("feature 0,feature 1,feature 2\n" + table)
        one, other = audit(model, data, tmp_path / "a"), audit(model, tmp_path / "t.csv", tmp_path / "t")
        found, wanted = ({r["row"]["name"][-2:]: r for r in records(run).to_pylist()} for run in (one, other))
        for name in found:
            assert found[name]["features"] == wanted[name]["features"]
            assert found[name]["grid"] == wanted[name]["grid"]
        a, b = (json.loads((run / "report.json").read_text())["cohorts"] for run in (one, other))
        assert [c["strongest"] for c in a] == [c["strongest"] for c in b]
        assert {s["name"] for s in a[0]["strongest"]} == {"feature 0", "feature 1", "feature 2"}

    def test_series_are_recordings(self, tmp_path: Path) -> None:
        model, data = made(tmp_path, SERIES, (2, 8), 4)
        x = np.load(data / "x.npy")
        lines = [f"{i},{a!r},{b!r}" for i, one in enumerate(x.tolist()) for a, b in zip(*one, strict=True)]
        (tmp_path / "r.csv").write_text("id,channel 0,channel 1\n" + "\n".join(lines))
        one, other = (audit(model, d, tmp_path / n, sanity=0) for d, n in ((data, "a"), (tmp_path / "r.csv", "t")))
        found, wanted = ({r["row"]["name"][-2:]: r["series"] for r in records(run).to_pylist()} for run in (one, other))
        for name in found:
            assert found[name]["shares"] == pytest.approx(wanted[name]["shares"])
            assert (found[name]["channels"], found[name]["peaks"]) == (
                wanted[name]["channels"],
                wanted[name]["peaks"],
            )


def test_shards_are_the_same_from_every_process(tmp_path: Path) -> None:
    model, data = made(tmp_path, SERIES, (2, 8))
    run = audit(model, data, tmp_path / "run", sanity=0, shard_size=10)
    before = shard_bytes(run)
    for file in (run / "shards").glob("*000001*"):
        file.unlink()
    (run / "SHA256SUMS").unlink()
    audit(model, data, run, sanity=0, shard_size=10, workers=2)
    assert shard_bytes(run) == before


@pytest.mark.parametrize("kind", ["vectors", "series", "series as strips of one row"])
def test_drift_is_of_what_they_add(tmp_path: Path, kind: str) -> None:
    text, shape, _ = WITHOUT_PICTURES[kind]
    model, data = made(tmp_path, text, shape)
    first = audit(model, data, tmp_path / "first", sanity=0)
    second = audit(model, data, tmp_path / "second", sanity=0, seed=1)
    whole = against(second, first)["cohorts"][0]
    assert (whole["maps"], whole["measured"]) == (pytest.approx(1), 24)


def test_objects_are_in_pictures(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    with pytest.raises(OptionError, match="objects are in pictures"):
        audit(*made(tmp_path, VECTOR, (3,)), tmp_path / "run", objects=tmp_path / "masks")
