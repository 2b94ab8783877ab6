"""A run held against its plan and its checksums, before anything is said of it or signed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fgonnx.errors import InputError
from fgonnx.jobs import provenance
from fgonnx.jobs.audit import formats
from fgonnx.jobs.audit.plan import PLAN, RUN, SHARDS, shard_files

_OLD = "put back the file that was there, or give another folder to fgonnx audit"
_SANITY = "sanity.json"


def check(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse a run whose files are not those of its plan, or not those that its checksums name.

    Shards without records are not done, which is no fault. Of those with records, rows and maps are compared with the
    plan and the records; what SHA256SUMS lists of the plan, the shards and the tests has to have its checksum.

    Parameters
    ----------
    folder : Path
        The run's folder.
    about : mapping
        What `run.json` holds.

    Raises
    ------
    FgonnxError
        Something was changed, removed or added; the message names it and what to do.
    """
    if provenance.identity(about["request"]) != about["id"]:
        raise InputError(f"'{folder / RUN}' was changed: its request is not the one of its id; {_OLD}")
    table = plan_of(folder, about)
    size, count = int(about["request"]["auditing"]["shard_size"]), int(about["shards"])
    shards = [shard_files(folder, about, k) for k in range(count)]
    _check_strays(folder, [f for s in shards for f in (s.records, s.maps) if f is not None])
    for k, shard in enumerate(shards):
        if not shard.records.is_file():
            continue
        if not shard.done:
            raise InputError(
                f"'{shard.maps}' is missing, the maps of '{shard.records.name}': give the fgonnx audit command again, "
                "which does the shard anew"
            )
        shard.check(table.slice(k * size, size), exact=about["request"]["auditing"]["maps"] == "exact")
    _check_sums(folder, {shard.maps for shard in shards if not shard.records.is_file()})


def plan_of(folder: Path, about: Mapping[str, Any]) -> pa.Table:
    """Return the plan of a run.

    Raises
    ------
    InputError
        It is missing, or is not the one that `run.json` names.
    """
    path = folder / PLAN
    try:
        table = pq.read_table(path)
        columns = [table.column(name).to_pylist() for name in ("name", "sha256", "truth", "slices")]
        numbers, shards = (table.column(name).to_pylist() for name in ("number", "shard"))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(f"'{path}' cannot be read as the plan of an audit; {_OLD}") from error
    size = int(about["request"]["auditing"]["shard_size"])
    rows = [list(row) for row in zip(*columns, strict=True)]
    same = provenance.identity({"rows": rows}) == about["request"]["data"]
    placed = numbers == list(range(len(rows))) and shards == [n // size for n in numbers]
    if not (same and placed and len(rows) == about["rows"] and -(-len(rows) // size) == about["shards"]):
        raise InputError(f"'{path}' was changed: its rows are not those of '{RUN}'; {_OLD}")
    return table


def _check_strays(folder: Path, planned: Iterable[Path]) -> None:
    known = {path.name for path in planned}
    found = sorted(f.name for pattern in ("records-*", "maps-*") for f in (folder / SHARDS).glob(pattern))
    stray = [name for name in found if name not in known]
    if stray:
        raise InputError(f"'{folder / SHARDS / stray[0]}' belongs to no shard of the plan; move it out of the run")


def _check_sums(folder: Path, left: Iterable[Path | None]) -> None:
    """Refuse evidence whose checksum is another one; maps whose records are not written yet are none."""
    listed = formats.listed(folder)
    without = {f"{SHARDS}/{path.name}" for path in left if path is not None}
    evidence = {
        n for n in listed if n in (RUN, PLAN, _SANITY) or n.startswith((f"{SHARDS}/records-", f"{SHARDS}/maps-"))
    }
    gone = {n for n in evidence if not (folder / n).is_file()}
    if _SANITY in gone:
        raise InputError(
            f"'{folder / _SANITY}' is listed in {formats.SUMS} and missing; give the fgonnx audit command again"
        )
    wrong = formats.read_sums(folder, evidence - gone - without)
    if wrong:
        what = "remove both files of the shard and give the fgonnx audit command again" if "/" in wrong[0] else _OLD
        raise InputError(
            f"'{folder / wrong[0]}' is not the file whose checksum is in {formats.SUMS}: it was changed since; {what}"
        )
