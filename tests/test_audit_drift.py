"""One run against another: decisions, maps and layers, cohort by cohort, and limits that set the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fgonnx.errors import InputError, OptionError
from tests import skips
from tests.audit_support import classifier, encoded, folder
from tests.cli_support import good, refused, run

skips.without("pyarrow")
skips.without("filelock")

from fgonnx.jobs.audit import arrow  # noqa: E402
from fgonnx.jobs.audit.drift import against  # noqa: E402
from fgonnx.jobs.audit.job import audit, records  # noqa: E402
from fgonnx.jobs.audit.options import Drift  # noqa: E402

BIAS = np.array([0.1, 0.2, -0.3, 0.4], np.float32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of a network, of itself again in another order, of one whose bias differs, and of one with other weights."""
    base = tmp_path_factory.mktemp("drift")
    data = folder(base / "data", 40)
    net = classifier(base / "net.onnx")
    other = classifier(base / "other.onnx", w=np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32))
    shifted = classifier(base / "shifted.onnx", b=BIAS + np.float32([0, 0, 0.4, 0]))
    common = {"sanity": 0, "pictures": False, "shard_size": 16}
    made = {
        "net": audit(net, data, base / "run", **common),
        "again": audit(net, data, base / "again", **{**common, "shard_size": 7}, seed=5),
        "shifted": audit(shifted, data, base / "shifted", **common),
        "other": audit(other, data, base / "other", **common),
    }
    return {**made, "data": data, "model": net}


def decided(to: Path) -> dict[str, int]:
    return {r["row"]["name"]: r["top5"][0]["index"] for r in arrow.records(records(to))}


def test_the_same_model_has_not_drifted_whatever_the_order(runs):
    whole = against(runs["again"], runs["net"])["cohorts"][0]
    assert (whole["count"], whole["same"], whole["gained"], whole["lost"]) == (40, 1.0, 0, 0)
    assert whole["maps"] == pytest.approx(1)
    assert whole["layers"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["shifted", "other"])
def test_decisions_that_changed_are_counted(runs, name):
    before, after = decided(runs["net"]), decided(runs[name])
    whole = against(runs[name], runs["net"])["cohorts"][0]
    kept = sum(before[k] == after[k] for k in before)
    assert 0 < kept < 40
    assert whole["same"] == kept / 40
    assert whole["maps"] < 1


def test_layers_that_moved_are_half_the_sum_of_what_they_moved(runs):
    def shares(to: Path) -> dict[str, np.ndarray]:
        found = {}
        for row in arrow.records(records(to)):
            weights = np.abs([s["contribution"] for s in row["sites"]])
            found[row["row"]["name"]] = weights / weights.sum()
        return found

    a, b = shares(runs["net"]), shares(runs["shifted"])
    moved = np.mean([np.abs(a[k] - b[k]).sum() / 2 for k in a])
    assert against(runs["shifted"], runs["net"])["cohorts"][0]["layers"] == pytest.approx(moved, rel=1e-3)


def test_pictures_that_are_not_the_same_are_left_out(runs, tmp_path):
    data = folder(tmp_path / "data", 40)
    (data / "ant" / "000.png").write_bytes(encoded(999))
    to = audit(runs["model"], data, tmp_path / "run", sanity=0, pictures=False)
    found = against(to, runs["net"])
    assert (found["compared"], found["left_out"]) == (39, 1)


def test_runs_without_a_picture_in_common_are_refused(runs, tmp_path):
    for i in range(2):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{i}.png").write_bytes(encoded(500 + i))
    to = audit(runs["model"], tmp_path / "data", tmp_path / "run", sanity=0, pictures=False)
    with pytest.raises(InputError, match="have no picture in common"):
        against(to, runs["net"])


def test_limits_set_the_exit_code_and_are_in_the_report(runs):
    assert "holds" in good("report", runs["again"], "--against", runs["net"], "--min-same", "1", "--max-layers", "0.01")
    result = run("report", runs["other"], "--against", runs["net"], "--min-same", "0.99")
    assert result.exit_code == 1
    assert "does not hold" in result.stdout
    summary = json.loads((runs["other"] / "report.json").read_text())
    assert "drift: decisions that stay the same: at least 0.99 does not hold" in summary["findings"]
    assert 'id="against"' in (runs["other"] / "report.html").read_text()


def test_limits_without_a_reference_have_no_effect(runs):
    assert "--min-same 0.9 has no effect" in refused("report", runs["net"], "--min-same", "0.9")
    with pytest.raises(OptionError, match="there is no run to compare with"):
        Drift(min_maps=0.5)
