"""The report of an audit: its tables recomputed from the Parquet files, clusters that name a mark, a page in use."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fgonnx.jobs.schema import FIELDS, json_schema, table
from tests import skips
from tests.audit_support import CLASSES, classifier, encoded, folder
from tests.cli_support import ROOT, good
from tests.support import script

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.jobs.audit import arrow, formats  # noqa: E402
from fgonnx.jobs.audit.job import audit, records  # noqa: E402
from fgonnx.jobs.audit.report import measures  # noqa: E402
from fgonnx.jobs.audit.report.build import report  # noqa: E402

EXAMPLES = ROOT / "examples"
COUNT = 360
ODD = '<new> & "x"'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of a table with slices, of which one picture cannot be read."""
    base = tmp_path_factory.mktemp("audit")
    data = folder(base / "data", 60)
    (data / "bee" / "005.png").write_bytes(b"no picture")
    names = [f"{CLASSES[i % 4]}/{i:03}.png" for i in range(60)]
    with (data / "list.csv").open("w", newline="") as file:
        listed = csv.writer(file)
        listed.writerow(["path", "label", "camera"])
        listed.writerows([name, name[:3], "old" if i % 3 else ODD] for i, name in enumerate(names))
    net = classifier(base / "net.onnx")
    options = {"slices": ("camera",), "shard_size": 16, "remarks": {"purpose": "</script>"}}
    return audit(net, data / "list.csv", base / "run", **options)


@pytest.fixture(scope="module")
def summary(run: Path) -> dict:
    return json.loads((run / "report.json").read_text())


class TestRecords:
    def test_the_json_schema_in_the_package_is_the_one_of_the_code(self):
        stored = json.loads((ROOT / "fgonnx" / "jobs" / "record.schema.json").read_text())
        assert stored == json_schema()

    def test_the_pages_have_the_tables_of_the_code(self):
        assert table() in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
        assert table("audit") in (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")

    def test_records_of_both_commands_obey_the_schema(self, run, tmp_path):
        jsonschema = skips.without("jsonschema")
        validator = jsonschema.Draft202012Validator(json_schema())
        good("explain", run.parent / "net.onnx", run.parent / "data" / "ant" / "000.png", "-o", tmp_path, "--no-cache")
        explained = json.loads((tmp_path / "000.json").read_text())
        assert list(validator.iter_errors(explained)) == []
        assert list(explained) == [f.name for f in FIELDS if f.name in explained]
        for row in arrow.records(records(run)):
            assert list(validator.iter_errors(row)) == []

    def test_files_have_the_schema_of_arrow(self, run):
        parquet = skips.without("pyarrow.parquet")
        for file in sorted((run / "shards").glob("*.parquet")):
            assert parquet.read_schema(file).remove_metadata().equals(arrow.COLUMNS)

    def test_keys_have_one_kind_in_json_and_parquet(self):
        assert arrow.COLUMNS.names == [f.name for f in FIELDS if f.of != "explain"]


class TestTables:
    def test_performance_is_what_duckdb_counts(self, run, summary):
        duckdb = skips.without("duckdb")
        found = duckdb.sql(
            f"""SELECT truth.label, count(*), sum(CAST(correct AS INT)) FROM '{run}/shards/records-*.parquet'
                WHERE correct IS NOT NULL GROUP BY 1"""
        ).fetchall()
        ours = {(p["cohort"], p["count"], p["right"]) for p in summary["performance"] if p["kind"] == "class"}
        assert ours == {(label, n, int(right)) for label, n, right in found}
        by_camera = duckdb.sql(
            f"""SELECT slices['camera'], avg(CAST(correct AS INT)) FROM '{run}/shards/records-*.parquet'
                WHERE correct IS NOT NULL GROUP BY 1"""
        ).fetchall()
        ours = {p["cohort"]: p["accuracy"] for p in summary["performance"] if p["kind"] == "slice"}
        assert ours == pytest.approx({f"camera={camera}": share for camera, share in by_camera})

    def test_evidence_of_cohorts_is_what_pandas_averages(self, run, summary):
        skips.without("pandas")
        frame = records(run, ["correct", "evidence", "grid"]).to_pandas()
        frame = frame[frame.evidence.notna()]
        for name, chosen in (("right", frame.correct == True), ("wrong", frame.correct == False)):  # noqa: E712
            cohort = measures.by_name(summary["cohorts"], name)
            mean = frame[chosen].evidence.map(lambda e: e["bottom_left"]).mean()
            assert cohort["places"]["bottom_left"]["mean"] == pytest.approx(mean)
            np.testing.assert_allclose(cohort["grid"], np.stack(frame[chosen].grid).mean(axis=0), rtol=1e-6)

    def test_calibration_is_the_mean_gap_of_ten_bins(self, run, summary):
        skips.without("pandas")
        frame = records(run, ["correct", "top5"]).to_pandas()
        frame = frame[frame.correct.notna()]
        p = frame.top5.map(lambda top: top[0]["probability"])
        bins = np.minimum((p * 10).astype(int), 9)
        gaps = (frame.correct.astype(float) - p).groupby(bins).mean().abs() * p.groupby(bins).count()
        assert summary["calibration"]["error"] == pytest.approx(gaps.sum() / len(p))
        assert summary["calibration"]["low"] <= summary["calibration"]["error"] <= summary["calibration"]["high"]

    def test_wilsons_interval_is_the_published_one(self):
        # Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, 2001, equation 4
        n, right, z = 50, 48, 1.959964
        p, centre = right / n, (right + z**2 / 2) / (n + z**2)
        half = z * n**0.5 / (n + z**2) * (p * (1 - p) + z**2 / (4 * n)) ** 0.5
        assert measures.wilson(right, n) == pytest.approx((centre - half, centre + half), rel=1e-6)

    def test_the_worst_certificates_are_the_worst(self, run, summary):
        found = [r["completeness"]["rounding"] for r in arrow.records(records(run)) if r["completeness"]]
        worst = [w["rounding"] for w in summary["certificates"]["worst"]]
        assert worst == sorted(found, reverse=True)[: len(worst)]

    def test_the_sanity_of_the_run_is_in_it(self, summary):
        verdicts = {t["name"]: t["verdict"] for t in summary["sanity"]["tests"]}
        assert verdicts["outputs unchanged"] == verdicts["completeness"] == "passed"
        assert "random weights" in verdicts

    def test_a_run_that_is_not_finished_says_so(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "half")
        (tmp_path / "half" / "shards" / "records-000002.parquet").unlink()
        found = report(tmp_path / "half")
        assert found["counts"]["shards_done"] == 3
        assert "incomplete: 3 of 4 shards are done" in found["findings"]

    def test_the_report_again_is_the_same(self, run, summary):
        page = (run / "report.html").read_bytes()
        assert report(run) == summary
        assert (run / "report.html").read_bytes() == page


class TestFormats:
    def test_sums_are_those_of_the_files(self, run):
        assert formats.read_sums(run) == []
        lines = (run / "SHA256SUMS").read_text().splitlines()
        names = {line.partition("  ")[2] for line in lines}
        assert {"run.json", "plan.parquet", "report.html", "shards/maps-000000.npz"} <= names
        if shutil.which("sha256sum"):
            subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=run, check=True)

    def test_a_changed_file_is_seen(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "copy")
        (tmp_path / "copy" / "plan.parquet").write_bytes(b"other")
        assert formats.read_sums(tmp_path / "copy") == ["plan.parquet"]

    def test_the_statement_is_about_the_model(self, run):
        statement = json.loads((run / formats.STATEMENT).read_text())
        model = hashlib.sha256((run.parent / "net.onnx").read_bytes()).hexdigest()
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["subject"] == [{"name": "net.onnx", "digest": {"sha256": model}}]
        assert statement["predicate"]["result"] == "FAILED"
        assert "every row has a result" in statement["predicate"]["failedTests"]

    def test_the_statement_is_valid_to_those_who_wrote_the_format(self, run):
        skips.without("in_toto_attestation")
        from google.protobuf import json_format
        from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
        from in_toto_attestation.v1 import statement

        text = json.loads((run / formats.STATEMENT).read_text())
        predicate = json_format.ParseDict(text["predicate"], test_result_pb2.TestResult())
        assert list(predicate.failed_tests) == text["predicate"]["failedTests"]
        parsed = json_format.ParseDict(text, statement.Statement([], "", {}).pb)
        statement.Statement.copy_from_pb(parsed).validate()

    def test_the_card_obeys_the_published_schema(self, run):
        skips.without("cyclonedx.validation.json")
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((run / formats.CARD).read_text()) is None

    def test_the_card_has_every_metric_with_its_interval(self, run, summary):
        card = json.loads((run / formats.CARD).read_text())
        (component,) = card["components"]
        assert (card["bomFormat"], component["type"]) == ("CycloneDX", "machine-learning-model")
        metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        accuracy = {m["slice"]: m for m in metrics if m["type"] == "accuracy"}
        assert set(accuracy) == {p["cohort"] for p in summary["performance"]}
        interval = accuracy["all"]["confidenceInterval"]
        assert float(interval["lowerBound"]) < float(accuracy["all"]["value"]) < float(interval["upperBound"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """Shapes of which some stars carry a mark in the lower right corner, and which do."""
    to = tmp_path_factory.mktemp("marked") / "pictures"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        names = script(EXAMPLES / "marked.py").write(to, COUNT, 7)
    return to, set(names)


class TestCleverHans:
    def test_a_mark_that_decides_is_a_cluster_of_its_own(self, pictures, tmp_path):
        data, marked = pictures
        to = audit(EXAMPLES / "marked.onnx", data, tmp_path, sanity=0)
        found = report(to)
        (cluster,) = [c for c in found["clusters"] if c["place"] is not None]
        assert cluster["place"] == "bottom_right"
        assert cluster["predicted"] == "star"
        names = records(to, ["row"]).column("row").to_pylist()
        typical = [names[n]["name"] for n in cluster["typical"]]
        assert set(typical) <= marked
        assert cluster["count"] >= 0.8 * len(marked)
        assert any("in the bottom right corner" in f and "'star'" in f for f in found["findings"])

    def test_a_network_that_never_saw_the_mark_in_training_has_no_such_cluster(self, pictures, tmp_path):
        data, _ = pictures
        found = report(audit(EXAMPLES / "shapes.onnx", data, tmp_path, sanity=0))
        assert [c for c in found["clusters"] if c["place"] is not None] == []
        assert not any("corner" in f for f in found["findings"])


class TestPage:
    def test_it_asks_nothing_of_any_network(self, run):
        text = (run / "report.html").read_text(encoding="utf-8")
        assert "http://" not in text
        assert "https://" not in text
        assert "<link" not in text
        assert text.count("<script") == 2

    def test_names_cannot_break_out(self, run):
        text = (run / "report.html").read_text(encoding="utf-8")
        assert "<new>" not in text
        assert text.count("</script>") == 2
        assert "&lt;/script&gt;" in text

    def test_it_can_be_used(self, run):
        browser = skips.without("playwright.sync_api")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            skips.now(skips.BROWSER)
        wrong = []
        with browser.sync_playwright() as play:
            opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = opened.new_page(viewport={"width": 1200, "height": 900})
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
            page.goto((run / "report.html").as_uri())
            assert page.locator("#count").inner_text() == "60 of 60 rows"
            page.locator("#q").fill("bee/ new")
            assert page.locator("#t tbody tr").count() == 5
            page.locator("#d").select_option("error")
            assert page.locator("#t tbody tr").count() == 0
            page.locator("#r").click()
            page.locator("#d").select_option("error")
            page.locator("#t tbody tr").first.focus()
            page.keyboard.press("Enter")
            assert "bee/005.png" in page.locator("#name").inner_text()
            assert "cannot be decoded" in page.locator("#body").inner_text()
            page.keyboard.press("Escape")
            page.locator("#r").click()
            page.locator("#t tbody tr").first.click()
            first = page.locator("#name").inner_text()
            page.keyboard.press("ArrowRight")
            assert page.locator("#name").inner_text() != first
            assert page.locator("#body img").count() == 2
            page.keyboard.press("Escape")
            page.set_viewport_size({"width": 360, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert page.locator("#performance ~ .wide").first.locator("th", has_text="interval").is_visible()
            page.locator("h1").evaluate("e => { e.textContent = 'Audit of /' + 'long_path'.repeat(30) }")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            opened.close()
        assert wrong == []


def test_an_empty_value_of_a_slice_is_said(tmp_path):
    data = folder(tmp_path / "data", 4, classes=False)
    (data / "t.csv").write_text("path,camera,label\n000.png,,ant\n001.png,b,ant\n002.png,,bee\n003.png,b,cat\n")
    options = {"slices": ("camera",), "sanity": 0}
    summary = report(audit(classifier(tmp_path / "net.onnx"), data / "t.csv", tmp_path / "run", **options))
    assert {p["cohort"] for p in summary["performance"] if p["kind"] == "slice"} == {"camera=(empty)", "camera=b"}


def test_pictures_may_be_left_out(tmp_path):
    data = folder(tmp_path / "data", 4)
    (data / "ant" / "100.png").write_bytes(encoded(100))
    audit(classifier(tmp_path / "net.onnx"), data, tmp_path / "run", pictures=False, sanity=0)
    text = (tmp_path / "run" / "report.html").read_text()
    assert '"seen": null' in text
    assert "<th>seen</th>" not in text
