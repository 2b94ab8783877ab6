"""The benchmarks run on their smallest settings, and the documents are what the stored results render to."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests import skips

torch = skips.without("torch")

import onnx  # noqa: E402

import fgonnx  # noqa: E402
from benchmarks import networks, pipeline, profile, scaling  # noqa: E402
from benchmarks.fullgrad import FullGrad  # noqa: E402
from benchmarks.networks import SMALLEST  # noqa: E402
from benchmarks.peers import __main__ as peers  # noqa: E402
from benchmarks.speed import __main__ as speed  # noqa: E402
from benchmarks.speed import report  # noqa: E402
from benchmarks.speed.clock import Cell, Plan, measure  # noqa: E402
from benchmarks.speed.columns import BY_KEY, OWN, Setting  # noqa: E402
from tests.witness import literal  # noqa: E402

ROOT = Path(__file__).parents[1]
STORED = ROOT / speed.RESULTS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGONNX_BENCHMARKS", str(tmp_path / "networks"))


def cell(column: str, median: float, **more: object) -> Cell:
    return replace(Cell("ResNet-50", 1, column, calls=3, median=median, low=median, high=median), **more)


def results(*cells: Cell) -> report.Results:
    machine = {"processor": "P", "cores": 2, "memory_gib": 4, "system": "S"}
    settings = {"threads": 2, "rounds": 3}
    return report.Results("2026-01-31", machine, {"onnxruntime": "1", "torch": "2"}, settings, list(cells))


# Speed.


@pytest.mark.slow
def test_the_smallest_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in speed.THREAD_VARIABLES:
        monkeypatch.setenv(name, "2")  # main sets them for good
    out = tmp_path / "speed.json"
    assert speed.main(["--smallest", "--peers", "torch-gradient", "fullgrad", "rise", "-o", str(out)]) == 0
    found = report.Results.read(json.loads(out.read_text(encoding="utf-8")))
    measured = {c.column for c in found.cells if not c.failure and c.median > 0 and c.calling > c.imported}
    assert measured >= {*OWN, "torch-gradient", "fullgrad"}
    assert "| explain with certificate |" in report.page(found)


def test_a_column_that_is_not_there_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    column = replace(BY_KEY["rise"], modules=("no_such_module",))
    (found,) = measure([column], Setting(SMALLEST, 1, 1), Plan(rounds=1), lambda _: None)
    assert found.failure == "no_such_module is not installed"


def test_a_column_that_takes_too_long_has_its_reason() -> None:
    (found,) = measure([BY_KEY["infer"]], Setting(SMALLEST, 1, 1), Plan(rounds=1, limit=0.0), lambda _: None)
    assert found.failure == "not prepared after 0 s"


def test_a_column_of_single_pictures_stays_out_of_batches() -> None:
    column = replace(BY_KEY["rise"], modules=())
    (found,) = measure([column], Setting(SMALLEST, 8, 1), Plan(rounds=1), lambda _: None)
    assert found.failure == "takes one picture at a time"


def test_full_gradients_of_tokens_are_left_out() -> None:
    setting = Setting(replace(SMALLEST, convolutional=False), 1, 1)
    (found,) = measure([BY_KEY["fullgrad"]], setting, Plan(rounds=1), lambda _: None)
    assert found.failure == "defined for convolutional networks"


@pytest.mark.parametrize(
    ("column", "first", "count"),
    [("explain", 0.01, 30), ("explain", 1.0, 12), ("explain", 100.0, 5), ("rise", 2.0, 2), ("rise", 6.0, 0)],
)
def test_what_takes_long_is_called_less_often(column: str, first: float, count: int) -> None:
    assert Plan(rounds=30, share=5.0).count(column, first) == count


def test_ratios_of_the_readme() -> None:
    found = report.block(
        results(
            cell("infer", 0.010, calling=30, imported=10),
            cell("explain", 0.025, calling=60, imported=10),
            cell("certificate", 0.030),
            cell("fullgrad", 2.0),
            cell("rise", 0.0, failure="dianna is not installed"),
        )
    )
    assert "| ResNet-50 | 1 | 10.0 | 25.0 | 2.50 | +20% | 2.50 | – | – | 80.0 x | – | – |" in found


def test_missed_targets_are_named() -> None:
    found = report.targets(results(cell("infer", 0.010), cell("explain", 0.025), cell("fullgrad", 2.0)))
    assert "1 of 2 targets are missed." in found
    assert "| explain / infer | ResNet-50 | 1 | at most 2.3 | 2.50 | **missed** |" in found
    assert "| literal FullGrad / explain | ResNet-50 | 1 | at least 40 | 80.0 |  |" in found


IN_BOTH = (cell("infer", 0.010), cell("explain", 0.025), cell("openvino-infer", 0.008), cell("openvino-explain", 0.016))


def test_the_better_runtime_is_the_one_with_the_smaller_ratio_to_its_own_inference() -> None:
    found = report.targets(results(*IN_BOTH))
    assert "| explain / infer, the better runtime | ResNet-50 | 1 | at most 2.2 | 2.00 |  |" in found


def test_the_readme_has_the_other_runtime_where_it_was_measured() -> None:
    assert "| ResNet-50 | 1 | 10.0 | 25.0 | 2.50 | 16.0 | 2.00 | – |" in report.block(results(*IN_BOTH))
    assert "OpenVINO" not in report.block(results(*IN_BOTH[:2]))


def test_results_of_another_machine_are_not_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in speed.THREAD_VARIABLES:
        monkeypatch.setenv(name, "2")
    out = tmp_path / "speed.json"
    out.write_text(json.dumps(asdict(results(cell("infer", 0.010)))), encoding="utf-8")
    with pytest.raises(SystemExit, match="on another machine"):
        speed.main(["--smallest", "--peers", "--resume", "-o", str(out)])


def test_failures_are_listed_with_their_reasons() -> None:
    page = report.page(results(cell("infer", 0.010), cell("rise", 0.0, failure="dianna is not installed")))
    assert "- dianna RISE, 1,000 masks, batch 1: dianna is not installed." in page


def stored() -> report.Results | None:
    return report.Results.read(json.loads(STORED.read_text(encoding="utf-8"))) if STORED.exists() else None


def test_the_readme_holds_what_the_results_render_to() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.insert(readme, report.block(stored())) == readme, "run python -m benchmarks.speed --readme"


def test_the_page_is_what_the_results_render_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = stored()
    expected = speed.page(found) if found is not None else None
    written = speed.PAGE.read_text(encoding="utf-8") if speed.PAGE.exists() else None
    assert written == expected, "run python -m benchmarks.speed --readme"


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md must hold the lines"):
        report.insert("# fgonnx", "text")


# The yardstick.


def test_the_literal_algorithm_is_the_published_one() -> None:
    module, x = SMALLEST.module(), SMALLEST.inputs(2)
    with torch.no_grad():
        target = module(torch.from_numpy(x)).argmax(1).numpy()
    found = FullGrad(module)(torch.from_numpy(x))[:, 0].numpy()
    np.testing.assert_allclose(found, literal.saliency(module, x, target, "reference", "abs"), rtol=1e-3, atol=1e-3)


# The others.


def test_a_profile_tells_what_fgonnx_wrote_from_what_was_there(tmp_path: Path) -> None:
    path = SMALLEST.path()
    source = onnx.load(path)
    x = networks.noise(source, 2)
    explain = fgonnx.rewrite(path, outputs=["saliency"])
    found, shortest = profile.measure({"infer": source, "explain": explain}, x, 1, 2, {"again": source})
    assert all(shortest[name] > 0 for name in ("infer", "explain", "again"))
    assert not any(n.written for n in found["infer"].nodes)
    assert any(n.written for n in found["explain"].nodes)
    assert any(not n.written and n.operator == "Conv" for n in found["explain"].nodes)
    assert all(p.milliseconds > 0 and p.kernels() > 0 and sum(n.bytes for n in p.nodes) > 0 for p in found.values())


def test_a_stored_profile_becomes_a_section(tmp_path: Path) -> None:
    record = tmp_path / "profile.json"
    assert profile.main(["smallest", "--rounds", "1", "--nodes", "2", "-o", str(record)]) == 0
    section = profile.section(json.loads(record.read_text(encoding="utf-8")))
    assert "**smallest**, batch 1" in section
    assert "of fullgrad" in section
    assert "| Conv |" in section


def test_the_profile_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["smallest", "--rounds", "1", "--nodes", "2"]) == 0
    assert "ReorderOutput" in capsys.readouterr().out


def test_scaling_writes_its_results_and_a_figure(tmp_path: Path) -> None:
    skips.without("matplotlib")
    out, drawn = tmp_path / "scaling.json", tmp_path / "scaling.png"
    arguments = ["--axes", "resolution", "--largest", "2", "--rounds", "1", "-o", str(out), "--figure", str(drawn)]
    assert scaling.main(arguments) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert [c["point"]["resolution"] for c in content["costs"]] == [32, 64]
    assert "around batch 1, resolution 128, depth 12, width 32;" in scaling.section(content)
    assert drawn.stat().st_size > 0


@pytest.mark.slow
def test_the_pipeline_in_all_ways_and_watched(tmp_path: Path) -> None:
    out, common = tmp_path / "pipeline.json", ["--model", "smallest", "--count", "3", "--size", "48", "40"]
    assert pipeline.main([*common, "--rounds", "1", "-o", str(out)]) == 0
    assert pipeline.main([*common, "--watch", "-o", str(out)]) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert [r["way"] for r in content["rates"]["rates"]] == ["bare session", "in Python", "command"]
    assert all(r["per_second"] > 0 for r in content["rates"]["rates"])
    assert content["memory"]["early"] > 0
    section = pipeline.section(content)
    assert "| bare session |" in section
    assert "3 pictures in a row through smallest" in section


@pytest.mark.parametrize(
    ("samples", "found"), [([0, 0, 5, 5, 6, 6, 7, 7], (5, 2)), ([9, 9, 4, 4, 4, 4, 4, 4], (4, 0)), ([3], (3, 0))]
)
def test_growth_leaves_the_start_out(samples: list[int], found: tuple[int, int]) -> None:
    assert pipeline.growth(samples) == found


def test_the_page_of_peers_holds_what_the_results_render_to() -> None:
    results = json.loads(peers.RESULTS.read_text(encoding="utf-8"))
    assert peers.PAGE.read_text(encoding="utf-8") == peers.page(results)
    for peer, found in results["peers"].items():
        for job, one in found["jobs"].items():
            assert one["lines"] == peers.lines_of(peers.JOBS / f"{peer}_{job}.py")
