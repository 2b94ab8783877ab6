"""Audits of texts, of rows of features and of recordings: what is recorded, shown, resumed, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from fgonnx.errors import InputError, OptionError
from tests import skips
from tests.word_models import LABELS, written

pa = skips.without("pyarrow")
skips.without("sklearn")

from fgonnx.jobs.audit.job import audit, records  # noqa: E402  # they import pyarrow
from fgonnx.jobs.audit.plan import planned  # noqa: E402
from fgonnx.jobs.audit.request import Request  # noqa: E402
from fgonnx.jobs.audit.shard import explain_shard  # noqa: E402

READ = [("the film was superb", "good", "fi"), ("bad film", "bad", "fr"), ("not good", "bad", "fi"), ("", "good", "fr")]
HOW: dict[str, Any] = {"labels": ",".join(LABELS), "sanity": 0, "shard_size": 2}


def of_texts(folder: Path, name: str = "t.csv") -> Path:
    """Write texts with their classes and languages, one of them empty."""
    path = folder / name
    rows = [{"text": t, "label": label, "language": spoken} for t, label, spoken in READ]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("text,label,language\n" + "".join(f"{t},{c},{s}\n" for t, c, s in READ))
    return path


def labels(folder: Path) -> dict[str, Any]:
    return {**HOW, "labels": folder / "labels.txt"}


def by_name(run: Path) -> dict[str, dict[str, Any]]:
    return {row["row"]["name"]: row for row in records(run).to_pylist()}


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_texts_carry_their_words(tmp_path: Path, name: str) -> None:
    model = written(tmp_path)
    run = audit(model, of_texts(tmp_path, name), tmp_path / "run", slices=("language",), **labels(tmp_path))
    found = by_name(run)
    first = found[f"{name}#0"]
    words = {w["text"]: w["value"] for w in json.loads(first["text"])["words"]}
    assert words == pytest.approx({"the": 0, "film": 0.25, "was": 0, "superb": 4})
    assert (first["correct"], dict(first["slices"])) == (True, {"language": "fi"})
    assert found[f"{name}#2"]["score"] == pytest.approx(1)
    assert found[f"{name}#2"]["correct"] is False
    assert "there is no text" in found[f"{name}#3"]["error"]
    assert first["evidence"]["border"] is None
    report = json.loads((run / "report.json").read_text())
    whole = report["cohorts"][0]
    assert whole["strongest"][0] == {"name": "superb", "mean": pytest.approx(4), "count": 1}
    assert "superb" in (run / "report.html").read_text()


def test_a_run_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    model, table = written(tmp_path), of_texts(tmp_path)
    run = audit(model, table, tmp_path / "run", **labels(tmp_path))
    before = {f.name: f.read_bytes() for f in (run / "shards").iterdir()}
    for file in (run / "shards").glob("*000001*"):
        file.unlink()
    (run / "SHA256SUMS").unlink()
    audit(model, table, run, **labels(tmp_path))
    assert {f.name: f.read_bytes() for f in (run / "shards").iterdir()} == before


def test_shards_depend_on_no_other(tmp_path: Path) -> None:
    model, table = written(tmp_path), of_texts(tmp_path)
    one = audit(model, table, tmp_path / "run", **labels(tmp_path))
    plan = planned_again(one, model, table, labels(tmp_path)["labels"])
    for k in reversed(range(plan.shards)):
        wanted = [f.read_bytes() for f in plan.files(k)]
        explain_shard(plan, k)
        assert [f.read_bytes() for f in plan.files(k)] == wanted


def planned_again(run: Path, model: Path, table: Path, names: Path) -> Any:
    """Return the plan of a run, as another process opens it."""
    from fgonnx.jobs.audit.options import Auditing
    from fgonnx.jobs.reading import Reading

    request = Request(model, table, run, reading=Reading(labels=names), auditing=Auditing(sanity=0, shard_size=2))
    return planned(request)


def test_a_text_that_changed_since_is_an_error_of_its_row(tmp_path: Path) -> None:
    model, table = written(tmp_path), of_texts(tmp_path)
    run = audit(model, table, tmp_path / "run", **labels(tmp_path))
    plan = planned_again(run, model, table, labels(tmp_path)["labels"])
    plan.tools.rows.table.rows[0][0] = "another film"
    with pytest.raises(InputError, match="not what it was"):
        plan.tools.read(next(row for k in range(plan.shards) for row in plan.rows(k) if row["name"] == "t.csv#0"))


def test_conditions_choose_texts(tmp_path: Path) -> None:
    model = written(tmp_path)
    run = audit(model, of_texts(tmp_path), tmp_path / "run", only="correct == false", **labels(tmp_path))
    explained = {name for name, row in by_name(run).items() if row["map"] is not None}
    assert explained == {"t.csv#2"}


def of_features(folder: Path) -> Path:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N,2] x) => (float[N,2] y)
        <float[2,2] w = {1, -1, 2, 0}, float[2] b = {0.5, 0}> { l = Gemm(x, w, b) y = Softmax(l) }"""
    )
    onnx.save(model, folder / "risk.onnx")
    return folder / "risk.onnx"


def test_rows_of_a_table_carry_their_features(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,age,dose,label,site\n7,1,2,0,a\n8,-3,0,1,b\n9,x,0,1,b\n")
    run = audit(of_features(tmp_path), tmp_path / "p.csv", tmp_path / "run", slices=("site",), sanity=2)
    found = by_name(run)
    first = found["p.csv#0"]["features"]
    assert (first["names"], first["contributions"], first["biases"]) == (["age", "dose"], [1, 4], 0.5)
    assert found["p.csv#1"]["correct"] is True
    assert "line 4, column 'age'" in found["p.csv#2"]["error"]
    report = json.loads((run / "report.json").read_text())
    assert {w["name"] for w in report["cohorts"][0]["strongest"]} == {"age", "dose"}
    assert {t["verdict"] for t in report["sanity"]["tests"]} <= {"passed", "undecided", "failed"}


def test_recordings_carry_their_channels(tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N,2,8] x) => (float[N,2] y)
        <float[2,2,1] k = {1, 0, 0, 1}, int64[1] t = {2}> {
            c = Conv(x, k) r = Relu(c) y = ReduceMean<keepdims=0>(r, t) }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    values = np.random.default_rng(0).random((16, 2)).round(3)
    lines = [f"{'ab'[i // 8]},{u},{v}" for i, (u, v) in enumerate(values)]
    (tmp_path / "r.csv").write_text("id,left,right\n" + "\n".join(lines))
    run = audit(tmp_path / "m.onnx", tmp_path / "r.csv", tmp_path / "run", sanity=0)
    assert set(by_name(run)) == {"r.csv#a", "r.csv#b"}
    assert by_name(run)["r.csv#a"]["series"]["channels"] == ["left", "right"]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "windows": ({"long": "windows"}, OptionError, "several records of a row"),
    "a column that is not there": ({"column": "review"}, InputError, "no column 'review'"),
    "a slice that is not there": ({"slices": ("site",)}, OptionError, "no column 'site'"),
    "measures of pictures": ({"measures": ("deletion",)}, OptionError, "pixels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_for_texts_is_refused(tmp_path: Path, case: str) -> None:
    options, error, said = REFUSED[case]
    with pytest.raises(error, match=said):
        audit(written(tmp_path), of_texts(tmp_path), tmp_path / "run", **{**labels(tmp_path), **options})
