"""Measures of single maps in an audit: what `fgonnx evaluate` measures, in records, tables and cards."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import fgonnx
from fgonnx import evaluate
from fgonnx.errors import OptionError
from fgonnx.jobs.schema import json_schema
from tests import skips
from tests.audit_support import classifier, folder, ray, shard_bytes
from tests.cli_support import refused
from tests.cli_support import run as run_command

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.jobs.audit import arrow, formats  # noqa: E402
from fgonnx.jobs.audit.job import AuditJob, audit, records  # noqa: E402
from fgonnx.jobs.audit.options import Auditing, Runner  # noqa: E402
from fgonnx.jobs.audit.request import Request  # noqa: E402

MEASURES = ("deletion:steps=4", "average-drop", "infidelity:patches=8:fill=noise", "sparseness", "energy")
LIGHT = {"sanity": 0, "pictures": False, "measures": ("sparseness",)}
COMMON = {"shard_size": 4, "sanity": 0, "pictures": False, "measures": MEASURES}
ABS = {"psi": "abs"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of twelve pictures, of which one cannot be read and one says where the object is."""
    base = tmp_path_factory.mktemp("measured")
    data = folder(base / "data", 12)
    (data / "bee" / "005.png").write_bytes(b"no picture")
    annotations = [{"image_id": 1, "bbox": [0, 0, 4, 8]}]
    coco = {"images": [{"id": 1, "file_name": "ant/000.png"}], "annotations": annotations}
    (base / "coco.json").write_text(json.dumps(coco))
    return audit(classifier(base / "net.onnx"), data, base / "run", objects=base / "coco.json", **COMMON, **ABS)


@pytest.fixture(scope="module")
def rows(run: Path) -> dict[str, dict]:
    return {row["row"]["name"]: row for row in arrow.records(records(run))}


def alone(run: Path, name: str, text: str, number: int) -> dict[str, float]:
    """Measure one picture alone."""
    pixels = cv2.imread(str(run.parent / "data" / name))[:, :, ::-1].transpose(2, 0, 1)[None]
    x = ((pixels / 255 - 0.5) / 0.25).astype(np.float32)
    explainer = fgonnx.Explainer(run.parent / "net.onnx")
    data = evaluate.Data.of(explainer, x, numbers=[number], black=np.float32(-2))
    return {k: float(v[0]) for k, v in evaluate.get(text)(explainer, data).values.items()}


class TestRecords:
    @pytest.mark.parametrize("name", ["cat/002.png", "ant/008.png"])
    @pytest.mark.parametrize("text", [m for m in MEASURES if m != "energy"])
    def test_a_row_has_what_the_measure_says_of_its_picture(self, run, rows, name, text):
        wanted = alone(run, name, text, rows[name]["row"]["number"])
        found = {q: rows[name]["measures"][f"{text}.{q}"] for q in wanted}
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-6)

    def test_what_needs_an_object_is_null_where_none_is_known(self, run, rows):
        row = rows["ant/000.png"]
        shard, name = row["files"]["map"].split("/")
        map_ = np.load(run / "shards" / shard)[name]
        assert row["measures"]["energy.inside"] == pytest.approx(map_[:, :4].sum() / map_.sum(), rel=1e-6)
        assert rows["ant/004.png"]["measures"]["energy.inside"] is None

    def test_records_obey_the_schema(self, rows):
        validator = skips.without("jsonschema").Draft202012Validator(json_schema())
        assert [error.message for row in rows.values() for error in validator.iter_errors(row)] == []

    def test_a_row_with_an_error_has_none(self, rows):
        assert rows["bee/005.png"]["measures"] == {}

    def test_rows_that_are_not_explained_have_none(self, run, tmp_path):
        to = audit(run.parent / "net.onnx", run.parent / "data", tmp_path, only="correct == true", **LIGHT)
        for row in arrow.records(records(to)):
            assert (row["measures"] == {}) == (row["map"] is None)

    def test_nothing_is_measured_that_was_not_asked_for(self, run, tmp_path):
        to = audit(run.parent / "net.onnx", run.parent / "data", tmp_path, limit=4, sanity=0)
        assert [row["measures"] for row in arrow.records(records(to))] == [{}] * 4
        assert json.loads((to / "report.json").read_text())["measures"] == []


class TestRunners:
    @pytest.mark.parametrize(
        "runner",
        [
            Runner(part=(1, 1)),
            pytest.param(Runner(workers=2), marks=pytest.mark.slow),
            pytest.param(Runner(runner="ray", workers=2), marks=pytest.mark.slow),
        ],
        ids=["part", "processes", "ray"],
    )
    def test_all_write_the_same_bytes(self, run, tmp_path, runner):
        (tmp_path / "shards").mkdir()
        for name in ("run.json", "plan.parquet"):
            shutil.copy(run / name, tmp_path / name)
        auditing = Auditing(**COMMON, objects=run.parent / "coco.json")
        job = AuditJob(Request(run.parent / "net.onnx", run.parent / "data", tmp_path, auditing=auditing), runner)
        with ray() if runner.runner == "ray" else contextlib.nullcontext():
            list(job.run())
        assert shard_bytes(tmp_path) == shard_bytes(run)


class TestReport:
    def test_means_of_cohorts_are_what_pandas_averages(self, run):
        skips.without("pandas")
        frame = records(run, ["correct", "measures"]).to_pandas()
        frame["drop"] = [dict(m).get("average-drop.drop") for m in frame.measures]
        summary = json.loads((run / "report.json").read_text())
        for name, chosen in (("right", frame.correct == True), ("wrong", frame.correct == False)):  # noqa: E712
            (cohort,) = (c for c in summary["cohorts"] if c["cohort"] == name)
            assert cohort["measures"]["average-drop.drop"]["mean"] == pytest.approx(frame["drop"][chosen].mean())

    def test_the_card_and_the_page_have_them(self, run):
        (component,) = json.loads((run / formats.CARD).read_text())["components"]
        metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        assert {m["slice"] for m in metrics if m["type"] == "sparseness.gini"} >= {"all", "ant"}
        page = (run / "report.html").read_text(encoding="utf-8")
        assert "Measures of the maps" in page
        assert "deletion:steps=4 (lower is better)" in page


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"measures": ("deletoin",)}, r"there is no measure .deletoin. .did you mean .deletion."),
            ({"measures": ("randomisation",)}, "'randomisation' cannot be taken in an audit: it changes the model"),
            ({"measures": ("part-deletion",)}, "it needs pictures without each part"),
            ({"measures": ("energy",)}, "it needs to know where the object is: give objects"),
            ({"measures": ("deletion:fil=black",)}, "has no option 'fil'"),
            ({"measures": ("deletion",), "contrast": "next"}, "measures ask for the score of one class"),
        ],
    )
    def test_what_cannot_be_measured_is_refused_before_anything_is_written(self, run, tmp_path, options, message):
        with pytest.raises(OptionError, match=message):
            audit(run.parent / "net.onnx", run.parent / "data", tmp_path / "to", sanity=0, **options)
        assert not (tmp_path / "to").exists()

    def test_the_command_line_names_its_flags(self, run, tmp_path):
        asked = ("audit", run.parent / "net.onnx", run.parent / "data", "-o", tmp_path / "to", "--sanity", "0")
        assert "give --objects" in refused(*asked, "--measures", "energy")
        assert "12 rows" in run_command(*asked, "--measures", "sparseness,complexity").output
        row = arrow.records(records(tmp_path / "to"))[0]
        assert set(row["measures"]) <= {"sparseness.gini", "complexity.entropy"}
