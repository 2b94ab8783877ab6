"""Drift of tables, recordings and texts: what the own features, steps or words of a row add, with their signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import parser

from fgonnx.errors import InputError
from tests import skips
from tests.cli_support import run as command
from tests.word_models import WORDS, sums, tokenizer

skips.without("pyarrow")
skips.without("sklearn")

from fgonnx.jobs.audit import added  # noqa: E402  # they import pyarrow
from fgonnx.jobs.audit.drift import against  # noqa: E402
from fgonnx.jobs.audit.job import audit  # noqa: E402
from fgonnx.jobs.audit.options import Drift  # noqa: E402

OLD = (1, 2, 3, 4)


def linear(path: Path, weights: tuple[float, ...]) -> Path:
    """Write a model that always decides for class 0, whose features add their value times their weight."""
    both = ", ".join(f"{w}, 0" for w in weights)
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[N,{len(weights)}] x) => (float[N,2] y)
        <float[{len(weights)},2] w = {{{both}}}, float[2] b = {{100, 0}}> {{ y = Gemm(x, w, b) }}"""
    )
    onnx.save(model, path)
    return path


def table(folder: Path, features: int, rows: int = 3, value: float = 1.0) -> Path:
    path = folder / "t.csv"
    names = ",".join("abcd"[:features])
    path.write_text(names + "\n" + "".join(",".join([f"{value + i}"] * features) + "\n" for i in range(rows)))
    return path


def of_tables(folder: Path, old: tuple[float, ...], new: tuple[float, ...], **how: Any) -> tuple[Path, Path]:
    data = table(folder, len(old))
    first = audit(linear(folder / "old.onnx", old), data, folder / "first", sanity=0, shard_size=2)
    second = audit(linear(folder / "new.onnx", new), data, folder / "second", sanity=0, seed=3, **how)
    return second, first


CORRELATE = {
    "the same": (OLD, 1.0),
    "twice as much": ((2, 4, 6, 8), 1.0),
    "signs turned": ((-1, -2, -3, -4), -1.0),
    "order turned": ((4, 3, 2, 1), -1.0),
    "neighbours swapped": ((2, 1, 4, 3), 0.6),
    "largest turned": ((1, 2, 3, -4), -0.2),
    "nothing adds": ((0, 0, 0, 0), 0.0),
}


@pytest.mark.parametrize("case", CORRELATE)
def test_features_correlate_with_their_signs(tmp_path: Path, case: str) -> None:
    new, wanted = CORRELATE[case]
    found = against(*of_tables(tmp_path, OLD, new), Drift(against=tmp_path, min_maps=0.9))
    assert found["cohorts"][0]["maps"] == pytest.approx(wanted)
    assert found["cohorts"][0]["measured"] == 3
    assert found["limits"][0]["holds"] is (wanted == 1)


def test_a_limit_of_few_features_is_not_measured_and_fails_everywhere(tmp_path: Path) -> None:
    second, first = of_tables(tmp_path, (1, 2), (1, 2))
    result = command("report", second, "--against", first, "--min-maps", "0.1")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    assert "at least 0.1: not measured" in said
    assert added.SHORT in said
    report = json.loads((second / "report.json").read_text())
    assert report["against"]["limits"][0]["holds"] is False
    assert any("is not measured: 3 rows" in finding for finding in report["findings"])
    assert "not measured, so that it does not hold" in (second / "report.html").read_text()
    statement = json.loads((second / "statement.intoto.json").read_text())
    assert statement["predicate"]["result"] == "FAILED"
    assert statement["predicate"]["failedTests"] == ["rank correlation of maps: at least 0.1 (not measured)"]


def test_maps_without_signs_are_not_measured(tmp_path: Path) -> None:
    found = against(*of_tables(tmp_path, OLD, OLD, psi="positive"), Drift(against=tmp_path, min_maps=-1))
    assert found["unmeasured"] == {added.GONE: 3}
    assert found["limits"][0]["holds"] is False


def of_texts(folder: Path, scale: float, texts: list[str], words: tuple[str, ...] = WORDS) -> tuple[Path, Path]:
    for name, by, known in (("a", 1.0, WORDS), ("b", scale, words)):
        (folder / name).mkdir()
        onnx.save(sums(scale=by), folder / name / "m.onnx")
        tokenizer(folder / name / "tokenizer.json", known)
    (folder / "t.txt").write_text("\n".join(texts))
    first, second = (
        audit(folder / n / "m.onnx", folder / "t.txt", folder / n / "run", target="1", sanity=0, shard_size=2)
        for n in "ab"
    )
    return second, first


TEXTS = {
    "the same": (1.0, ["the film was superb", "not good film"], WORDS, 1.0, {}),
    "signs turned": (-1.0, ["the film was superb", "not good film"], WORDS, -1.0, {}),
    "short ones": (1.0, ["bad film", "superb"], WORDS, None, {added.SHORT: 2}),
    "other ids": (1.0, ["superb film was good"], (*WORDS[:5], *WORDS[:4:-1]), None, {added.OTHER: 1}),
    "some of other ids": (1.0, ["was the film", "superb film was"], (*WORDS[:5], *WORDS[:4:-1]), 1.0, {added.OTHER: 1}),
}


@pytest.mark.parametrize("case", TEXTS)
def test_words_correlate_where_they_are_the_same(tmp_path: Path, case: str) -> None:
    scale, texts, words, wanted, why = TEXTS[case]
    found = against(*of_texts(tmp_path, scale, texts, words), Drift(against=tmp_path, min_maps=0.5))
    maps = found["cohorts"][0]["maps"]
    assert maps == (pytest.approx(wanted) if wanted is not None else None)
    assert found["unmeasured"] == why
    assert found["limits"][0]["holds"] is (wanted == 1 and not why)


@pytest.mark.parametrize(("maps", "turned", "wanted"), [("exact", 1, 1), ("half", -1, -1), ("none", 1, None)])
def test_steps_of_recordings_correlate_where_maps_are_kept(
    tmp_path: Path, maps: str, turned: int, wanted: float | None
) -> None:
    lines = [f"{r},{(i + 1) * 0.5},{i * 0.25}" for r in "ab" for i in range(6)]
    (tmp_path / "r.csv").write_text("id,left,right\n" + "\n".join(lines))
    runs = []
    for name, by in (("old", 1), ("new", turned)):
        model = parser.parse_model(
            f"""<ir_version: 8, opset_import: ["": 18]> g (float[N,2,6] x) => (float[N,2] y)
            <float[2,2,1] k = {{{by}, 0, 0, {by}}}, int64[1] t = {{2}}> {{
                c = Conv(x, k) y = ReduceMean<keepdims=0>(c, t) }}"""
        )
        onnx.save(model, tmp_path / f"{name}.onnx")
        how = {"sanity": 0, "maps": maps}
        runs.append(audit(tmp_path / f"{name}.onnx", tmp_path / "r.csv", tmp_path / name, target="0", **how))
    found = against(runs[1], runs[0])
    assert found["cohorts"][0]["maps"] == (pytest.approx(wanted) if wanted is not None else None)


def test_rows_that_no_run_has_in_common_are_no_pictures(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx", OLD)
    first = audit(model, table(tmp_path, 4), tmp_path / "first", sanity=0)
    second = audit(model, table(tmp_path, 4, value=7.0), tmp_path / "second", sanity=0)
    with pytest.raises(InputError, match="have no row in common: a row is known by its name and its content"):
        against(second, first)
