"""The report of a float model and of its int8 form on photographs, used as a reader uses it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests import skips
from tests.conftest import SHARED

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.auditing import Drift, against, audit, records, report  # noqa: E402

pytestmark = [pytest.mark.slow, skips.when(not (SHARED / "data" / "imagenet50").is_dir(), skips.SHARED)]

COUNT = 16
MODELS = {"mobilenet_v2_tf_fp32": "tf", "mobilenet_v2_tf_qdq_uint8io": "raw,resize=crop"}
PAPER = 718  # width of A4 within usual margins, in pixels of a browser
ANIMALS = 2_500_000  # identifiers of WordNet below this one are animals, in these fifty


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Audits of both models, the second compared with the first."""
    base = tmp_path_factory.mktemp("imagenet")
    pictures = sorted((SHARED / "data" / "imagenet50").iterdir())[:: 50 // COUNT][:COUNT]
    with (base / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "kind"])
        for picture in pictures:
            shutil.copy(picture, base)
            wnid = picture.name.partition("_")[0]
            table.writerow([picture.name, wnid, "animal" if int(wnid[1:]) < ANIMALS else "thing"])
    found = []
    for name, preprocess in MODELS.items():
        options = {"preprocess": preprocess, "labels": SHARED / "labels" / "synset.txt", "slices": ("kind",)}
        model = SHARED / "models" / f"{name}.onnx"
        found.append(audit(model, base / "list.csv", base / name, sanity=0, threads=1, **options))
    against(found[1], found[0], Drift(against=found[0], min_same=0.9, min_maps=0.8))
    report(found[1])
    return found


def test_the_int8_form_decides_as_the_float_model_does(runs):
    drift = json.loads((runs[1] / "report.json").read_text())["against"]
    assert drift["compared"] == COUNT
    assert all(limit["holds"] for limit in drift["limits"])
    assert drift["cohorts"][0]["maps"] > 0.9


def test_two_tables_of_the_report_are_what_duckdb_computes(runs):
    duckdb = skips.without("duckdb")
    summary = json.loads((runs[1] / "report.json").read_text())
    new, old = (f"'{run}/shards/records-*.parquet'" for run in runs)
    accuracy = duckdb.sql(
        f"SELECT slices['kind'], count(*), avg(CAST(correct AS INT)) FROM {new} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    ours = {p["cohort"][5:]: (p["count"], p["accuracy"]) for p in summary["performance"] if p["kind"] == "slice"}
    assert ours == {kind: (count, pytest.approx(share)) for kind, count, share in accuracy}
    same = duckdb.sql(
        f"""SELECT a.slices['kind'], avg(CAST(a.top5[1].index = b.top5[1].index AS INT))
            FROM {new} a JOIN {old} b ON a.row.name = b.row.name AND a.input.sha256 = b.input.sha256 GROUP BY 1"""
    ).fetchall()
    ours = {c["cohort"][5:]: c["same"] for c in summary["against"]["cohorts"] if c["kind"] == "slice"}
    assert ours == pytest.approx(dict(same))


def test_the_report_is_used_with_mouse_and_keyboard_on_screens_of_both_widths(runs):
    browser = skips.without("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        skips.now(skips.BROWSER)
    rows = {r["row"]["name"]: r for r in records(runs[1]).to_pylist()}
    animals = [n for n, r in rows.items() if dict(r["slices"])["kind"] == "animal"]
    wrong: list[str] = []
    with browser.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1200, "height": 900})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((runs[1] / "report.html").as_uri())
        listed = page.locator("#t tbody tr")
        assert page.locator("#count").inner_text() == f"{COUNT} of {COUNT} rows"
        page.locator("#q").fill("kind=animal")
        assert listed.count() == len(animals)
        page.locator("#o").select_option("name")
        assert [t.split("\n")[0] for t in listed.locator("td.name").all_inner_texts()] == sorted(animals)
        listed.first.click()
        assert page.locator("#name").inner_text() == sorted(animals)[0]
        assert rows[sorted(animals)[0]]["tensor"]["sha256"] in page.locator("#body").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("#name").inner_text() == sorted(animals)[1]
        assert page.locator("#body img").count() == 2
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.dataset.row") == str(rows[sorted(animals)[1]]["row"]["number"])
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        assert page.locator("#name").inner_text() == sorted(animals)[0]
        page.keyboard.press("Escape")
        page.locator("#r").click()
        page.locator("#d").select_option("wrong")
        assert listed.count() == sum(r["correct"] is False for r in rows.values())
        assert page.locator("#against ~ .wide").first.locator("tr", has_text="kind=animal").count() == 1
        first = page.locator("#performance ~ .wide").first.locator("tbody td:first-child").all_inner_texts()[:4]
        assert [name for name in first if name.startswith("kind=")] == ["kind=animal", "kind=thing"]
        for media, width in (("screen", 1200), ("screen", 360), ("print", PAPER)):
            page.emulate_media(media=media)
            page.set_viewport_size({"width": width, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, media
        opened.close()
    assert wrong == []
