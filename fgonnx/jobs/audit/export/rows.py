"""Rows of a run with their maps and the pictures they are of, as exporters take them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files
from fgonnx.errors import InputError
from fgonnx.jobs.audit import arrow, data, handed, intact
from fgonnx.jobs.audit.plan import SHARDS, shard_files
from fgonnx.jobs.audit.report.build import Run
from fgonnx.jobs.audit.shardfiles import table_of
from fgonnx.jobs.record import flat
from fgonnx.pictures.read import images
from fgonnx.pictures.read.preprocess import Preprocessing

_COLUMNS = [name for name in arrow.COLUMNS.names if name not in ("pictures", "settings", "preprocessing")]


@dataclass(frozen=True)
class Row:
    """A row that has a picture.

    Attributes
    ----------
    record : dict
        Its record.
    content : bytes
        Its picture's file.
    path : Path or None
        That file; None where it is in a table or an archive.
    rgb : numpy array of uint8, (H, W, 3)
        The picture.
    map : numpy array of float32, (h, w), or None
        Its map; None where none was made or kept.
    """

    record: dict[str, Any]
    content: bytes
    path: Path | None
    rgb: npt.NDArray[np.uint8]
    map: npt.NDArray[np.float32] | None


def preprocessing(run: Run) -> Preprocessing:
    """Return how the pictures of a run were prepared.

    Raises
    ------
    InputError
        That is not known: no picture was read.
    """
    found = run.about["request"]["preprocessing"]
    if found is None:
        raise handed.no_pictures(run.folder, "arrays")
    return Preprocessing.from_json(json.dumps(found))


def rows(run: Run) -> Iterator[Row]:
    """Yield the rows of a run that have a result and a picture, in the order of the plan.

    Raises
    ------
    InputError
        A picture is not where it was, or not what it was.
    """
    table, size = intact.plan_of(run.folder, run.about), run.size
    asked = run.about["request"]["auditing"]
    given = Path(run.about["data"]["path"])
    base = given if given.is_dir() else given.parent
    for file in run.files:
        found = arrow.records(table_of(file, _COLUMNS))
        k = found[0]["row"]["shard"]
        maps = _maps(run, k, found)
        for planned, record in zip(table.slice(k * size, size).to_pylist(), found, strict=True):
            if record["error"] is None and Path(planned["path"]).suffix.lower() != ".npy":
                yield _row(planned, record, base, asked["column"], maps.get(record["row"]["number"]))


def _maps(run: Run, k: int, records: list[dict[str, Any]]) -> dict[int, npt.NDArray[np.float32]]:
    """Return the maps of a shard, in the units of the score."""
    kept = run.about["request"]["auditing"]["maps"]
    path = shard_files(run.folder, run.about, k).maps
    if path is None:
        return {}
    names = {r["row"]["number"]: r["files"]["map"].rpartition("/")[2] for r in records if r["map"] is not None}
    found = files.read_arrays(run.folder / SHARDS / path.name, list(names.values()), InputError)
    units = {r["row"]["number"]: _unit(r["map"]) if kept == "half" else 1.0 for r in records if r["map"] is not None}
    return {n: (flat(found[name]) * units[n]).astype(np.float32) for n, name in names.items()}


def _unit(about: Mapping[str, Any]) -> float:
    return max(abs(about["min"]), abs(about["max"]))


def _row(
    planned: Mapping[str, Any],
    record: dict[str, Any],
    base: Path,
    column: str | None,
    map_: npt.NDArray[np.float32] | None,
) -> Row:
    content = data.content(planned, base, column)
    if hashlib.sha256(content).hexdigest() != planned["sha256"]:
        raise InputError(f"'{base / planned['path']}' is not what it was when the audit was planned")
    picture = images.decode(np.frombuffer(content, np.uint8), Path(planned["name"]))
    path = base / planned["path"] if planned["first"] is None else None
    return Row(record, content, path, picture.rgb, map_)
