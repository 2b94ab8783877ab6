"""Performance and calibration with intervals, and cohorts: what their evidence has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.jobs.audit.evidence import GRID
from fgonnx.jobs.audit.report.columns import Columns, class_name, vectors
from fgonnx.jobs.audit.shardfiles import count_of

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]

CONFIDENCE, BINS = 0.95, 10
_NORMAL = 1.959964  # half the width of a 95 % interval, in standard errors
_RESAMPLES = 1000
_MOST = 20_000  # rows that intervals by resampling are computed from
_POSITIONS = 100  # of a head of several axes: those that are decided most are cohorts
_PLACES = ("border", "top_left", "top_right", "bottom_left", "bottom_right", "object")


@dataclass(frozen=True)
class Cohort:
    """Rows that belong together.

    Attributes
    ----------
    kind, name : str
        Such as "class" and "cat"; kind is "all", "decision", "class" or "slice".
    rows : numpy array of bool, (N,)
        Which rows.
    """

    kind: str
    name: str
    rows: Bool


def cohorts(columns: Columns, labels: Sequence[str] | None) -> list[Cohort]:
    """Return the cohorts of a run: all, right, wrong and unsure rows, and those of each class and slice."""
    done = ~columns.failed
    found = [Cohort("all", "all", done)]
    for name, rows in (
        ("right", columns.correct == 1),
        ("wrong", columns.correct == 0),
        ("unsure", columns.unsure & done),
    ):
        if rows.any():
            found.append(Cohort("decision", name, np.asarray(rows)))
    judged = (columns.truth >= 0).any()
    classes = columns.truth if judged else columns.predicted
    indices, counts = np.unique(classes[(classes >= 0) & done], return_counts=True)
    if columns.positions is not None and not judged:  # of a segmenter, nearly as many as rows
        indices = np.sort(indices[np.argsort(-counts, kind="stable")[:_POSITIONS]])
    for index in indices.tolist():
        name = columns.name(index, labels) if not judged else class_name(index, labels)
        found.append(Cohort("class", name, np.asarray((classes == index) & done)))
    for slice_, (codes, values) in columns.slices.items():
        for code in np.argsort(np.array(values)):
            found.append(Cohort("slice", f"{slice_}={values[code] or '(empty)'}", np.asarray((codes == code) & done)))
    return [c for c in found if c.rows.any()]


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the bounds of Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def performance(columns: Columns, parts: Sequence[Cohort]) -> list[dict[str, Any]]:
    """Return the accuracy of every cohort that says which rows are right, with Wilson's interval."""
    found = []
    for cohort in parts:
        if cohort.kind == "decision" and cohort.name != "unsure":
            continue
        judged = columns.correct[cohort.rows]
        judged = judged[np.isfinite(judged)]
        if judged.size:
            right = int(judged.sum())
            low, high = wilson(right, judged.size)
            found.append(
                {
                    "cohort": cohort.name,
                    "kind": cohort.kind,
                    "count": int(judged.size),
                    "right": right,
                    "accuracy": right / judged.size,
                    "low": low,
                    "high": high,
                }
            )
    return found


def calibration(columns: Columns, seed: int) -> dict[str, Any] | None:
    """Return how often decisions are right by their probability, and the expected calibration error with its interval.

    The error is the mean over ten bins of |accuracy - mean probability|, weighted by the rows in them (Guo et al., On
    Calibration of Modern Neural Networks, ICML 2017); its interval is a bootstrap over rows.
    """
    known = np.isfinite(columns.correct) & np.isfinite(columns.probability)
    if not known.any():
        return None
    p, right = columns.probability[known], columns.correct[known]
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = []
    for b in range(BINS):
        inside = at == b
        if inside.any():
            low, high = wilson(int(right[inside].sum()), int(inside.sum()))
            bins.append(
                {
                    "from": b / BINS,
                    "to": (b + 1) / BINS,
                    "count": int(inside.sum()),
                    "probability": float(p[inside].mean()),
                    "accuracy": float(right[inside].mean()),
                    "low": low,
                    "high": high,
                }
            )
    rng, few = np.random.default_rng(seed), slice(0, _MOST)
    drawn = [
        expected_error(at[few][i], p[few][i], right[few][i])
        for i in (rng.integers(0, len(p[few]), len(p[few])) for _ in range(_RESAMPLES if len(p) > 1 else 0))
    ]
    bounds = (
        [float(v) for v in np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])] if drawn else [None, None]
    )
    error = expected_error(at, p, right)
    return {"bins": bins, "error": error, "low": bounds[0], "high": bounds[1], "count": int(known.sum())}


def expected_error(at: Array, p: Array, right: Array) -> float:
    """Return the expected calibration error of rows in bins."""
    gap = np.bincount(at, right - p, BINS)
    return float(np.abs(gap).sum() / len(p))


def means(files: Sequence[Path], columns: Columns, parts: Sequence[Cohort], sites: int) -> list[dict[str, Any]]:
    """Return for every cohort its mean grid, where its evidence lies, and what each layer contributes.

    Shares have normal intervals of the mean over rows; a layer's share is that of its absolute contributions.
    """
    sums = [_Sums(sites) for _ in parts]
    start = 0
    for shard, length in _with_lengths(files, columns, sites):
        for cohort, total in zip(parts, sums, strict=True):
            total.add(shard.grids, shard.contributions, cohort.rows[start : start + length][shard.rows])
        start += length
    found = []
    for cohort, total in zip(parts, sums, strict=True):
        area = columns.evidence["object_area"][cohort.rows]
        found.append(
            {
                "cohort": cohort.name,
                "kind": cohort.kind,
                "count": int(cohort.rows.sum()),
                "explained": total.count,
                "grid": total.grid(),
                "places": _intervals({place: columns.evidence[place] for place in _PLACES}, cohort.rows),
                "measures": _intervals(columns.measures, cohort.rows),
                "object_area": float(np.nanmean(area)) if np.isfinite(area).any() else None,
                "layers": total.layers(),
                "localised": _mean(columns.localised[cohort.rows]),
            }
        )
    return found


def _intervals(values: Mapping[str, Array], rows: Bool) -> dict[str, dict[str, float | None]]:
    """Return the means over rows, with normal intervals, of what is known of them."""
    found = {}
    for name, of_rows in values.items():
        known = of_rows[rows & np.isfinite(of_rows)]
        if known.size:
            half = _NORMAL * float(known.std(ddof=1)) / known.size**0.5 if known.size > 1 else None
            mean = float(known.mean())
            bounds = (None, None) if half is None else (mean - half, mean + half)
            found[name] = {"mean": mean, "low": bounds[0], "high": bounds[1]}
    return found


def _with_lengths(files: Sequence[Path], columns: Columns, sites: int) -> Iterator[tuple[Any, int]]:
    """Yield the vectors of every shard with the number of its rows."""
    for file, shard in zip(files, vectors(files, sites), strict=True):
        yield shard, count_of(file)


def _mean(values: Array) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


class _Sums:
    """Sums over the rows of a cohort."""

    def __init__(self, sites: int) -> None:
        self.count = self.certified = 0
        self._grid, self._layers = np.zeros(GRID**2), np.zeros(sites)

    def add(self, grids: Array, contributions: Array, inside: Bool) -> None:
        if not inside.any():
            return
        self.count += int(inside.sum())
        self._grid += grids[inside].sum(axis=0, dtype=np.float64)
        weights = np.abs(contributions[inside])
        weights = weights[np.isfinite(weights).all(axis=1)]
        if weights.size:
            total = np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            self._layers += (weights / total).sum(axis=0)
            self.certified += len(weights)

    def grid(self) -> list[float] | None:
        return (self._grid / self.count).tolist() if self.count else None

    def layers(self) -> list[float] | None:
        return (self._layers / self.certified).tolist() if self.certified else None


def by_name(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Return the row of a cohort."""
    return next((row for row in rows if row["cohort"] == name), None)
