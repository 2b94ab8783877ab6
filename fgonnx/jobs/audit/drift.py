"""One run against another of the same data: what became of decisions, maps and layers, cohort by cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from fgonnx import files
from fgonnx.errors import InputError
from fgonnx.jobs.audit import added
from fgonnx.jobs.audit.evidence import GRID
from fgonnx.jobs.audit.options import Drift
from fgonnx.jobs.audit.report.build import Run, read
from fgonnx.jobs.audit.report.columns import vectors
from fgonnx.jobs.audit.report.measures import wilson
from fgonnx.jobs.audit.shardfiles import table_of

Array = npt.NDArray[Any]

FILE = "against.json"
_CHANGED = 12  # rows that are named


@dataclass
class _Rows:
    """What is compared of a run, by the name of the row."""

    at: dict[str, int]
    sha256: list[str | None]
    decided: Array
    correct: Array
    grids: npt.NDArray[np.float16]
    shares: npt.NDArray[np.float32]


def against(run: str | Path, reference: str | Path, drift: Drift | None = None) -> dict[str, Any]:
    """Compare a run with a reference run of the same data, and write what was found into the run's folder.

    Parameters
    ----------
    run, reference : path
        Folders of two audits, of one model or of two.
    drift : Drift, optional
        Limits.

    Returns
    -------
    dict
        Of each cohort: "same" decisions with Wilson's interval; "maps", the mean rank correlation of maps on 16 x 16
        cells, or of what the features, words or steps of each row of a table or a text add, with their signs, over the
        "measured" rows; "layers", the mean of half the sum of absolute differences of the layers' shares of the
        contributions, 0..1, where both runs have the same layers. "unmeasured": why some rows are not measured, with
        their number. "limits": those given, and whether each holds; one that is not measured does not.

    Raises
    ------
    InputError
        A folder holds no run, or they have no row in common.
    """
    new, old = read(Path(run)), read(Path(reference))
    mine, theirs = _rows(new), _rows(old)
    pairs = [
        (here, there)
        for name, here in mine.at.items()
        if (there := theirs.at.get(name)) is not None and mine.sha256[here] == theirs.sha256[there]
    ]
    if not pairs:
        what, of = ("picture", "bytes") if new.kind == old.kind == "pictures" else ("row", "content")
        raise InputError(f"'{run}' and '{reference}' have no {what} in common: a row is known by its name and its {of}")
    i, j = np.array(pairs).T
    a, b = (rows.decided[n] for rows, n in ((mine, i), (theirs, j)))
    same = (a == b).all(axis=1) if a.shape == b.shape else np.zeros(len(i), bool)
    same_layers = [s["name"] for s in new.sites] == [s["name"] for s in old.sites]
    maps, why = _alike(new, old, (mine, theirs), pairs)
    layers = np.abs(mine.shares[i] - theirs.shares[j]).sum(axis=1) / 2 if same_layers else np.full(len(i), np.nan)
    cohorts = []
    for cohort in new.cohorts:
        inside = cohort.rows[i]
        if inside.any():
            count, kept = int(inside.sum()), int(same[inside].sum())
            low, high = wilson(kept, count)
            cohorts.append(
                {
                    "cohort": cohort.name,
                    "kind": cohort.kind,
                    "count": count,
                    "same": kept / count,
                    "low": low,
                    "high": high,
                    "gained": int((mine.correct[i][inside] > theirs.correct[j][inside]).sum()),
                    "lost": int((mine.correct[i][inside] < theirs.correct[j][inside]).sum()),
                    "maps": _mean(maps[inside]),
                    "measured": int(np.isfinite(maps[inside]).sum()),
                    "layers": _mean(layers[inside]),
                }
            )
    limits = _limits(drift or Drift(), cohorts[0], why, same_layers)
    order = np.argsort(np.where(np.isfinite(maps), maps, 2.0), kind="stable")[:_CHANGED]
    found = {
        "reference": {"run": old.about["id"], "time": old.about["time"], "model": old.about["model"]["path"]},
        "compared": len(pairs),
        "left_out": len(mine.at) - len(pairs),
        "cohorts": cohorts,
        "unmeasured": why,
        "changed": [{"number": int(new.columns.number[i[n]]), "maps": _number(maps[n])} for n in order],
        "limits": limits,
        "verdict": "every limit holds" if all(limit["holds"] for limit in limits) else "a limit does not hold",
    }
    files.write_json(new.folder / FILE, found)
    return found


def _rows(run: Run) -> _Rows:
    at: dict[str, int] = {}
    sha256: list[str | None] = []
    count, sites = len(run.columns), len(run.sites)
    cells = GRID**2 if run.kind == "pictures" else 0
    grids = np.full((count, cells), np.nan, np.float16)
    shares = np.full((count, sites), np.nan, np.float32)
    start = 0
    for file, shard in zip(run.files, vectors(run.files, sites), strict=True):
        table = table_of(file, ["row", "input"])
        for name in table.column("row").combine_chunks().field("name").to_pylist():
            at[name] = len(at)
        sha256 += table.column("input").combine_chunks().field("sha256").to_pylist()
        grids[start + shard.rows] = GRID**2 * shard.grids[:, :cells]  # shares as they are would underflow
        weights = np.abs(shard.contributions)
        total = np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        shares[start + shard.rows] = weights / total
        start += len(table)
    return _Rows(at, sha256, _decided(run), run.columns.correct, grids, shares)


def _decided(run: Run) -> Array:
    """Return the index of the largest entry of every row along each axis of the head that has several entries."""
    predicted, positions = run.columns.predicted, run.columns.positions
    if positions is None:
        return predicted[:, None]
    if not len(positions):
        return np.full((len(predicted), 0), -1)
    kept = [axis for axis, size in enumerate(run.about["head"]) if size > 1]
    return np.where(predicted[:, None] >= 0, positions[predicted][:, kept], -1)


def _alike(
    new: Run, old: Run, rows: tuple[_Rows, _Rows], pairs: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.float64], dict[str, int]]:
    """Return the rank correlation of what rows rest on, NaN where it is not known, and why it is not, with numbers."""
    i, j = np.array(pairs).T
    if new.kind == "pictures":
        return _correlations(rows[0].grids[i], rows[1].grids[j]), {}
    mine, theirs = (added.of_run(run.folder, run.about, run.files) for run in (new, old))
    maps, why = added.correlations([mine[n] for n in i], [theirs[n] for n in j])
    return maps, dict(Counter(filter(None, why)))


def _correlations(a: Array, b: Array, step: int = 4096) -> npt.NDArray[np.float64]:
    """Return the rank correlation of rows; 0 where one is constant, NaN where both are, or one is not known."""
    found = np.full(len(a), np.nan)
    for first in range(0, len(a), step):
        x, y = (v[first : first + step].astype(np.float64) for v in (a, b))
        known = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        u, v = (rankdata(part[known], axis=1) for part in (x, y))
        u, v = (part - part.mean(axis=1, keepdims=True) for part in (u, v))
        scale = np.sqrt((u * u).sum(axis=1) * (v * v).sum(axis=1))
        constant = ((u * u).sum(axis=1) == 0) & ((v * v).sum(axis=1) == 0)
        values = np.divide((u * v).sum(axis=1), scale, out=np.where(constant, np.nan, 0.0), where=scale > 0)
        found[first + np.flatnonzero(known)] = values
    return found


def _mean(values: Array) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _limits(drift: Drift, whole: dict[str, Any], why: dict[str, int], same_layers: bool) -> list[dict[str, Any]]:
    """Return the limits that were given; one of maps holds only where every row that could be compared was."""
    missing = {
        "same": "",
        "maps": _missing(why) if whole["maps"] is None or set(why) - {added.SHORT} else "",
        "layers": ("no row has contributions in both runs" if same_layers else "the layers are not the same")
        if whole["layers"] is None
        else "",
    }
    asked = (
        ("decisions that stay the same", "same", drift.min_same, 1),
        ("rank correlation of maps", "maps", drift.min_maps, 1),
        ("layers' shares moved", "layers", drift.max_layers, -1),
    )
    return [
        {
            "text": f"{text}: {'at least' if sign > 0 else 'at most'} {limit:g}",
            "value": whole[key] if not missing[key] else None,
            "holds": not missing[key] and sign * (whole[key] - limit) >= 0,
            "missing": missing[key],
        }
        for text, key, limit, sign in asked
        if limit is not None
    ]


def _missing(why: dict[str, int]) -> str:
    """Return why the maps of rows are not measured."""
    return "; ".join(f"{count} rows: {text}" for text, count in why.items()) or "no row has a map in both runs"
