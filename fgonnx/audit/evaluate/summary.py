"""Summarise the rows of a run: means with bootstrap confidence intervals, and curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fgonnx.audit.evaluate.journal import Row
from fgonnx.audit.evaluate.registry import Float

CONFIDENCE, RESAMPLES = 0.95, 2000


@dataclass(frozen=True)
class Entry:
    """The mean of one quantity over images.

    Attributes
    ----------
    method, measure, quantity : str
        What was measured.
    count : int
        Number of images with a value.
    mean : float or None
        None where no image has a value.
    low, high : float or None
        Bounds of the confidence interval; None for fewer than two images.
    """

    method: str
    measure: str
    quantity: str
    count: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """The mean curve of a measure, with the bounds of its confidence interval."""

    method: str
    measure: str
    at: Float
    mean: Float
    low: Float
    high: Float


def summarise(
    rows: Iterable[Row], methods: Sequence[str], measures: Sequence[str], seed: int
) -> tuple[list[Entry], list[Curve]]:
    """Average over images.

    Intervals are 95 % percentile bootstrap intervals over images (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13).

    Parameters
    ----------
    rows : iterable of Row
        Results.
    methods, measures : sequence of str
        The methods and measures to include, in this order.
    seed : int
        Seed of the resampling.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.method, row.measure), []).append(row)
    entries, curves = [], []
    for measure in measures:
        for method in methods:
            parts = sorted(found.get((method, measure), []), key=lambda row: row.shard)
            for quantity in parts[0].measured.values if parts else ():
                values = np.concatenate([p.measured.values[quantity] for p in parts])
                values = values[np.isfinite(values)]
                mean = float(values.mean()) if values.size else None
                low, high = interval(values, seed)
                entries.append(Entry(method, measure, quantity, values.size, mean, low, high))
            if (curve := _curve(method, measure, parts, seed)) is not None:
                curves.append(curve)
    return entries, curves


def _curve(method: str, measure: str, parts: Sequence[Row], seed: int) -> Curve | None:
    """Return the mean curve over images that have one."""
    found = [p.measured.curve for p in parts if p.measured.curve is not None]
    whole = np.concatenate(found) if found else np.zeros((0, 0))
    whole = whole[np.isfinite(whole).all(axis=1)]
    if not len(whole) or parts[0].measured.at is None:
        return None
    mean = whole.mean(axis=0)
    bounds = [interval(column, seed) for column in whole.T]
    low, high = (
        np.array([m if b[side] is None else b[side] for m, b in zip(mean, bounds, strict=True)]) for side in (0, 1)
    )
    return Curve(method, measure, parts[0].measured.at, mean, low, high)


def interval(values: Float, seed: int) -> tuple[float | None, float | None]:
    """Return the bounds of the confidence interval of a mean; None for fewer than two values."""
    from scipy.stats import bootstrap

    if values.size < 2:
        return None, None
    if not np.ptp(values):
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=max(1, 10_000_000 // values.size),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
