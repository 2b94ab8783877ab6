"""What the features, words or steps of every row of a run add, with their signs, and how alike that is in two runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files
from fgonnx.audit.comparison.measures import rank_correlation
from fgonnx.errors import InputError
from fgonnx.jobs.audit.plan import shard_files
from fgonnx.jobs.audit.report.parts import FIELDS
from fgonnx.jobs.audit.shardfiles import key, shard_of, table_of

Array = npt.NDArray[Any]

LEAST = 3
"""Features, words or steps that a rank correlation needs at least."""

SHORT = "they have fewer than three features, words or steps"
OTHER = "their features, words or steps are not the same"
GONE = "they have no map with a sign, or it was not kept"


@dataclass(frozen=True)
class Added:
    """What the parts of one row add.

    Attributes
    ----------
    names : str
        What the parts are: equal where they are the same.
    values : numpy array, (n,), or None
        What each adds; None where that is not known.
    """

    names: str
    values: Array | None


def of_run(folder: Path, about: Mapping[str, Any], records: Sequence[Path]) -> list[Added | None]:
    """Return what the parts of every row of a run add, None for rows that are not explained."""
    signed = about["request"]["options"]["psi"] == "signed"
    found: list[Added | None] = []
    for file in records:
        table = table_of(file, ["row", "map", *FIELDS])
        rows = table.to_pylist()
        maps = _maps(folder, about, file, rows) if signed else {}
        for row in rows:
            one = _of_row(row, maps.get(key(row["row"]["number"]))) if row["map"] is not None else None
            found.append(one if one is None or signed else Added(one.names, None))
    return found


def _maps(folder: Path, about: Mapping[str, Any], file: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Return the maps of rows whose record does not say what each part adds."""
    path = shard_files(folder, about, shard_of(file)[1]).maps
    wanted = [
        key(r["row"]["number"]) for r in rows if r["map"] is not None and r["text"] is None and r["features"] is None
    ]
    return files.read_arrays(path, wanted, InputError) if path is not None and wanted else {}


def _of_row(row: Mapping[str, Any], map_: Array | None) -> Added:
    if row["text"] is not None:
        text = json.loads(row["text"])
        words = [w for w in text["words"] if not w["special"]]
        ids = [t["id"] for t in text["tokens"]]
        known = [[w["text"], [ids[t] for t in w["tokens"]]] for w in words]
        return Added(json.dumps(known), np.array([w["value"] for w in words]))
    if row["features"] is not None:
        return Added(json.dumps(row["features"]["names"]), np.array(row["features"]["contributions"]))
    series = row["series"] or {"channels": [], "padded": 0}
    names = json.dumps([series["channels"], row["map"]["shape"]])
    if map_ is None:
        return Added(names, None)
    return Added(names, map_[..., : map_.shape[-1] - series["padded"]].ravel())


def correlations(a: Sequence[Added | None], b: Sequence[Added | None]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the rank correlation of what the parts of rows add in two runs, and why it is not known.

    Parameters
    ----------
    a, b : sequence of Added or None
        The same rows of both.

    Returns
    -------
    numpy array of float, (n,)
        -1..1; 0 where the parts add the same in one run alone, 1 where they do in both; NaN where it is not known.
    list of str
        For each row `SHORT`, `OTHER`, `GONE`, or "".
    """
    found, why = np.full(len(a), np.nan), [""] * len(a)
    for n, (x, y) in enumerate(zip(a, b, strict=True)):
        if x is None or y is None:
            continue
        if x.values is None or y.values is None or not (np.isfinite(x.values).all() and np.isfinite(y.values).all()):
            why[n] = GONE
        elif x.names != y.names:
            why[n] = OTHER
        elif len(x.values) < LEAST:
            why[n] = SHORT
        else:
            found[n] = rank_correlation(x.values, y.values)
    return found, why
