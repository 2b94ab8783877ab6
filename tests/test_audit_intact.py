"""A run is held against its plan and its checksums before anything is said of it or signed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgonnx.errors import FgonnxError
from tests import skips
from tests.audit_support import classifier, folder, shard_bytes
from tests.cli_support import refused

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from fgonnx.jobs.audit import formats  # noqa: E402
from fgonnx.jobs.audit.job import audit  # noqa: E402
from fgonnx.jobs.audit.report.build import report  # noqa: E402

OPTIONS = {"shard_size": 4, "sanity": 0, "seed": 3, "pictures": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("intact")
    audit(classifier(base / "net.onnx"), folder(base / "data"), base / "run", **OPTIONS)
    return base


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def again(made: Path, run: Path) -> Path:
    return audit(made / "net.onnx", made / "data", run, **OPTIONS)


def maps(run: Path, k: int) -> Path:
    return run / "shards" / f"maps-{k:06}.npz"


def records(run: Path, k: int) -> Path:
    return run / "shards" / f"records-{k:06}.parquet"


def changed_map(run: Path) -> None:
    with np.load(maps(run, 1)) as stored:
        found = dict(stored)
    first = next(iter(found))
    np.savez_compressed(maps(run, 1), **{**found, first: found[first] + 1})


def changed_names(run: Path) -> None:
    with np.load(maps(run, 1)) as stored:
        np.savez_compressed(maps(run, 1), **dict(list(stored.items())[1:]))


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.ParquetFile(path).read()
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def relabelled(run: Path) -> None:
    """Give the records of one shard the mark of another."""
    table = pq.ParquetFile(records(run, 0)).read()
    other = pq.read_schema(records(run, 1)).metadata
    pq.write_table(table.replace_schema_metadata(other), records(run, 1))


def edited(run: Path) -> None:
    rewritten(
        records(run, 1),
        lambda t: t.set_column(
            t.schema.get_field_index("reviewer"), "reviewer", pa.array(["somebody"] * len(t), pa.string())
        ),
    )


def truncated(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def planned_otherwise(run: Path) -> None:
    rewritten(run / "plan.parquet", lambda t: t.slice(0, len(t) - 1))


def requested_otherwise(run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    about["request"]["options"]["psi"] = "positive"
    (run / "run.json").write_text(json.dumps(about))


TAMPERED = {
    "a map": (changed_map, r"maps-000001.npz': the map of row 4 is not the one that its record names", False),
    "maps left out": (changed_names, r"maps-000001.npz' does not hold the maps of the records", False),
    "no maps": (lambda r: maps(r, 2).unlink(), r"maps-000002.npz' is missing", False),
    "maps cut off": (lambda r: truncated(maps(r, 1), 0.5), r"maps-000001.npz' is damaged", False),
    "records cut off": (lambda r: truncated(records(r, 1), 0.5), r"records-000001.parquet' holds no records", False),
    "no bytes": (lambda r: truncated(records(r, 1), 0), r"records-000001.parquet' holds no records", False),
    "another shard": (lambda r: shutil.copy(records(r, 0), records(r, 1)), r"000001.parquet' is no shard of", False),
    "relabelled": (relabelled, r"records-000001.parquet' does not hold the rows that are planned", False),
    "rows twice": (
        lambda r: rewritten(records(r, 1), lambda t: pa.concat_tables([t, t])),
        r"records-000001.parquet' does not hold the rows",
        False,
    ),
    "a row less": (lambda r: rewritten(records(r, 1), lambda t: t.slice(1)), r"does not hold the rows", False),
    "stray records": (lambda r: shutil.copy(records(r, 0), records(r, 99)), r"000099.parquet' belongs to no", False),
    "stray maps": (lambda r: shutil.copy(maps(r, 0), maps(r, 99)), r"maps-000099.npz' belongs to no shard", False),
    "a record's text": (edited, r"records-000001.parquet' is not the file whose checksum", True),
    "the plan": (planned_otherwise, r"plan.parquet' was changed", False),
    "no plan": (lambda r: (r / "plan.parquet").unlink(), r"plan.parquet' cannot be read", False),
    "the request": (requested_otherwise, r"run.json' was changed", False),
}


@pytest.mark.parametrize("sums", [True, False], ids=["with sums", "without"])
@pytest.mark.parametrize("case", TAMPERED)
def test_a_run_that_was_changed_has_no_report_and_no_new_sums(run, case, sums):
    tamper, message, needs_sums = TAMPERED[case]
    if needs_sums and not sums:
        return
    before = (run / "SHA256SUMS").read_bytes()
    if not sums:
        (run / "SHA256SUMS").unlink()
    tamper(run)
    with pytest.raises(FgonnxError, match=message):
        report(run)
    assert not sums or (run / "SHA256SUMS").read_bytes() == before
    assert (run / "SHA256SUMS").exists() == sums


def test_the_command_refuses_by_name(run):
    truncated(records(run, 1), 0.5)
    message = refused("report", run)
    assert "records-000001.parquet" in message
    assert "remove both files of the shard" in message


@pytest.mark.parametrize("case", [c for c in TAMPERED if c not in ("no maps", "no plan", "the request")])
def test_an_audit_goes_on_with_no_changed_run(made, run, case):
    before = (run / "SHA256SUMS").read_bytes()
    tamper, message, _ = TAMPERED[case]
    tamper(run)
    with pytest.raises(FgonnxError, match=message):
        again(made, run)
    assert (run / "SHA256SUMS").read_bytes() == before


@pytest.mark.parametrize(
    "gone",
    [
        ("shards/maps-000002.npz",),
        ("shards/records-000001.parquet",),
        ("shards/records-000001.parquet", "shards/maps-000001.npz"),
        ("plan.parquet",),
    ],
    ids=" ".join,
)
def test_what_is_missing_is_done_again(made, run, gone):
    before = shard_bytes(run)
    for name in gone:
        (run / name).unlink()
    again(made, run)
    assert shard_bytes(run) == before
    assert formats.read_sums(run) == []


def test_a_shard_done_again_has_its_new_checksum(made, run):
    lines = (run / "SHA256SUMS").read_text().splitlines()
    other = [f"{'0' * 64}{line[64:]}" if "000001" in line else line for line in lines]  # from another processor
    (run / "SHA256SUMS").write_text("\n".join(other) + "\n")
    records(run, 1).unlink()
    again(made, run)
    assert (run / "SHA256SUMS").read_text().splitlines() == lines


def test_the_tests_of_a_run_are_evidence_too(made, tmp_path):
    options = {**OPTIONS, "sanity": 1}
    run = audit(made / "net.onnx", made / "data", tmp_path / "run", **options)
    kept = (run / "sanity.json").read_text()
    (run / "sanity.json").write_text(kept.replace("failed", "passed") + "\n")
    assert "sanity.json' is not the file whose checksum" in refused("report", run)
    (run / "sanity.json").unlink()
    assert "sanity.json' is listed in SHA256SUMS and missing" in refused("report", run)
    audit(made / "net.onnx", made / "data", run, **options)
    assert formats.read_sums(run) == []


def test_half_maps_and_none_are_whole(made, tmp_path):
    for kind in ("half", "none"):
        run = audit(made / "net.onnx", made / "data", tmp_path / kind, **OPTIONS, maps=kind)
        assert report(run)["counts"]["shards_done"] == 3


def test_a_list_of_checksums_that_is_none_is_named(run):
    (run / "SHA256SUMS").write_text("nothing\n")
    assert "SHA256SUMS' is no list of checksums" in refused("report", run)
