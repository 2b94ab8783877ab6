"""Heads of several axes in an audit: entries are shown by their position along each axis, as `explain` shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from fgonnx.errors import OptionError
from tests import skips
from tests.audit_support import classifier, folder
from tests.cli_support import WEIGHTS
from tests.word_models import WORDS, tokenizer

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.jobs.audit.drift import against  # noqa: E402  # they import pyarrow
from fgonnx.jobs.audit.export import export  # noqa: E402
from fgonnx.jobs.audit.job import audit, records  # noqa: E402

HEAD = '<ir_version: 8, opset_import: ["": 18]> '
Made = tuple[Path, Path]


def save(text: str, path: Path) -> Path:
    onnx.save(parser.parse_model(HEAD + text), path)
    return path


def segmenter(base: Path, nodes: str = "y = Conv<pads=[1,1,1,1]>(x, w, b)", out: str = "4,8,8") -> Made:
    """Scores of four classes at every pixel."""
    text = f"""{HEAD} g (float[N,3,8,8] x) => (float[N,{out}] y)
        <float[4,3,3,3] w = {{{WEIGHTS}}}, float[4] b = {{0.1, 0.2, -0.3, 0.4}}> {{ {nodes} }}"""
    return classifier(base / "seg.onnx", text), folder(base / "pictures", 20, classes=False)


def channels_last(base: Path) -> Made:
    nodes = "c = Conv<pads=[1,1,1,1]>(x, w, b) y = Transpose<perm=[0,2,3,1]>(c)"
    return segmenter(base, nodes, "8,8,4")


def steps(base: Path) -> Made:
    """Scores of three classes at each of five steps, of arrays."""
    text = """g (float[N,2,5] x) => (float[N,5,3] y) <float[2,3] w = {1, -1, 2, 0, 3, -2}>
        { t = Transpose<perm=[0,2,1]>(x) y = MatMul(t, w) }"""
    (base / "arrays").mkdir()
    np.save(base / "arrays" / "x.npy", np.random.default_rng(0).normal(size=(20, 2, 5)).astype(np.float32))
    return save(text, base / "steps.onnx"), base / "arrays"


def recordings(base: Path) -> Made:
    model, _ = steps(base)
    values = np.random.default_rng(1).normal(size=(40, 2)).round(3)
    lines = [f"{i // 5},{a},{b}" for i, (a, b) in enumerate(values)]
    (base / "r.csv").write_text("id,left,right\n" + "\n".join(lines))
    return model, base / "r.csv"


def rows(base: Path) -> Made:
    """Two scores for each of three questions, of rows of a table."""
    text = """g (float[N,2] x) => (float[N,3,2] y)
        <float[2,6] w = {1, -1, 2, 0, 3, -2, -3, 1, 0, 4, 1, 2}, int64[3] s = {-1, 3, 2}>
        { m = MatMul(x, w) y = Reshape(m, s) }"""
    (base / "t.csv").write_text("a,b\n1,2\n-1,4\n3,-2\n0.5,1\n")
    return save(text, base / "rows.onnx"), base / "t.csv"


def tags(base: Path) -> Made:
    """Scores of three tags at every token, of texts of different lengths."""
    values = np.random.default_rng(2).normal(size=(len(WORDS), 3)).round(2)
    numbers = ", ".join(str(float(v)) for v in values.ravel())
    text = f"""tags (int64[N,T] ids) => (float[N,T,3] y)
        <float[{len(WORDS)},3] table = {{{numbers}}}, float[3,3] w = {{1, 0, 0, 0, 1, 0, 0, 0, 1}}>
        {{ r = Gather(table, ids) y = MatMul(r, w) }}"""
    tokenizer(base / "tokenizer.json")
    (base / "t.txt").write_text("the film was superb\nbad film\nnot good\nthe bad film was not good\nsuperb\n")
    return save(text, base / "tags.onnx"), base / "t.txt"


KINDS: dict[str, Callable[[Path], Made]] = {
    "a segmenter": segmenter,
    "a segmenter with channels last": channels_last,
    "steps of arrays": steps,
    "steps of recordings": recordings,
    "rows with several questions": rows,
    "tags of tokens": tags,
}


def page_rows(run: Path) -> list[dict[str, Any]]:
    text = (run / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return list(json.loads(found[1])["rows"])


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_positions_as_explain_names_them(tmp_path: Path, kind: str) -> None:
    run = audit(*KINDS[kind](tmp_path), tmp_path / "run", sanity=0, shard_size=8)
    known = {r["row"]["number"]: r for r in records(run).to_pylist()}
    shown = page_rows(run)
    assert {row["n"] for row in shown} == set(known)
    for row in shown:
        one = known[row["n"]]
        assert row["pred"] == str(tuple(one["target"]["position"]))
        if sum(size > 1 for size in one["explained"]["shape"]) > 1:
            assert row["pred"] == one["explained"]["described"].removesuffix(", the largest")
        assert [name for name, *_ in row["top"]] == [str(tuple(e["position"])) for e in one["top5"]]
        assert [np.ravel_multi_index(e["position"], one["explained"]["shape"]) for e in one["top5"]] == [
            e["index"] for e in one["top5"]
        ]
    summary = json.loads((run / "report.json").read_text())
    cohorts = {c["cohort"]: c["count"] for c in summary["cohorts"] if c["kind"] == "class"}
    decided = [row["pred"] for row in shown]
    assert cohorts == {name: decided.count(name) for name in decided}
    assert {c["predicted"] for c in summary["clusters"]} <= set(decided)


def test_cohorts_are_of_the_positions_decided_most(tmp_path: Path) -> None:
    text = "g (float[N,150] x) => (float[N,50,3] y) <int64[3] s = {-1, 50, 3}> { y = Reshape(x, s) }"
    (tmp_path / "arrays").mkdir()
    x = np.eye(150, dtype=np.float32)[[*range(150), *range(140, 150)]]
    np.save(tmp_path / "arrays" / "x.npy", x)
    run = audit(save(text, tmp_path / "m.onnx"), tmp_path / "arrays", tmp_path / "run", sanity=0)
    summary = json.loads((run / "report.json").read_text())
    classes = [c for c in summary["cohorts"] if c["kind"] == "class"]
    assert len(classes) == 100
    assert [c["cohort"] for c in classes if c["count"] == 2] == [f"({i // 3}, {i % 3})" for i in range(140, 150)]


def test_a_head_of_one_axis_keeps_its_indices(tmp_path: Path) -> None:
    text = "g (float[N,4] x) => (float[N,1,4] y) <int64[3] s = {-1, 1, 4}> { y = Reshape(x, s) }"
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", np.eye(4, dtype=np.float32))
    run = audit(save(text, tmp_path / "m.onnx"), tmp_path / "arrays", tmp_path / "run", sanity=0)
    assert sorted(row["pred"] for row in page_rows(run)) == ["0", "1", "2", "3"]


class TestDrift:
    def test_a_head_with_an_axis_of_one_entry_decides_the_same(self, tmp_path: Path) -> None:
        model, data = steps(tmp_path)
        text = """g (float[N,2,5] x) => (float[N,1,5,3] y)
            <float[2,3] w = {1, -1, 2, 0, 3, -2}, int64[1] a = {1}>
            { t = Transpose<perm=[0,2,1]>(x) m = MatMul(t, w) y = Unsqueeze(m, a) }"""
        first = audit(model, data, tmp_path / "first", sanity=0)
        second = audit(save(text, tmp_path / "other.onnx"), data, tmp_path / "second", sanity=0)
        assert against(second, first)["cohorts"][0]["same"] == 1

    def test_positions_are_compared_and_not_flat_indices(self, tmp_path: Path) -> None:
        """Entry 1 of both is the largest: class 0 at step 1 of the one, class 1 at step 0 of the other."""
        (tmp_path / "arrays").mkdir()
        np.save(tmp_path / "arrays" / "x.npy", np.tile(np.array([[1, 5, 2, 3]], np.float32), (3, 1)))
        runs = []
        for name, shape, perm in (("first", "2, 2", "0,1,2"), ("second", "2, 2", "0,2,1")):
            text = f"""g (float[N,4] x) => (float[N,2,2] y) <int64[3] s = {{-1, {shape}}}>
                {{ r = Reshape(x, s) y = Transpose<perm=[{perm}]>(r) }}"""
            model = save(text, tmp_path / f"{name}.onnx")
            runs.append(audit(model, tmp_path / "arrays", tmp_path / name, sanity=0))
        assert against(runs[1], runs[0])["cohorts"][0]["same"] == 0
        assert {c["cohort"] for c in against(runs[1], runs[0])["cohorts"]} == {"all", "unsure", "(1, 0)"}

    def test_texts_of_other_lengths_decide_at_their_tokens(self, tmp_path: Path) -> None:
        model, data = tags(tmp_path)
        first = audit(model, data, tmp_path / "first", sanity=0)
        second = audit(model, data, tmp_path / "second", sanity=0, seed=5)
        found = against(second, first)
        assert found["cohorts"][0]["same"] == 1
        assert all(re.fullmatch(r"\(\d, \d\)", c["cohort"]) for c in found["cohorts"] if c["kind"] == "class")


class TestConditions:
    def test_decisions_are_compared_with_positions(self, tmp_path: Path) -> None:
        model, data = steps(tmp_path)
        whole = audit(model, data, tmp_path / "all", sanity=0)
        wanted = page_rows(whole)[0]["pred"]
        run = audit(model, data, tmp_path / "run", sanity=0, only=f"predicted == '{wanted}'")
        explained = {row["n"]: row["where"] is not None for row in page_rows(run)}
        assert explained == {row["n"]: row["pred"] == wanted for row in page_rows(whole)}

    @pytest.mark.parametrize("value", ["7", "'7'", "'(1)'", "'(1, 2, 0)'"])
    def test_anything_else_is_refused(self, tmp_path: Path, value: str) -> None:
        with pytest.raises(OptionError, match=r"several axes, \(5, 3\): write a position, such as predicted == '\(0"):
            audit(*steps(tmp_path), tmp_path / "run", sanity=0, only=f"predicted == {value}")
        assert not (tmp_path / "run").exists()


class TestExports:
    @pytest.mark.parametrize("kind", ["a segmenter", "a segmenter with channels last"])
    def test_other_tools_are_told_positions(self, tmp_path: Path, kind: str) -> None:
        h5py = skips.without("h5py")
        run = audit(*KINDS[kind](tmp_path), tmp_path / "run", sanity=0)
        decided = {row["n"]: row["pred"] for row in page_rows(run)}
        samples = json.loads((export(run, "fiftyone") / "samples.json").read_text())["samples"]
        assert {s["row"]: s["prediction"]["label"] for s in samples} == decided
        to = export(run, "virelay")
        names = {label["word_net_id"]: label["name"] for label in json.loads((to / "label-map.json").read_text())}
        with h5py.File(to / "analysis.h5") as groups:
            of = {names[g]: groups[g]["index"][()].tolist() for g in groups if g != "all"}
        assert {name: len(rows) for name, rows in of.items()} == {
            name: list(decided.values()).count(name) for name in decided.values()
        }
