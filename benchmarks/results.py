"""Results of a study of maps: values by method, measure and picture; paired differences, corrected p-values, ranks."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.page import number
from fgonnx.audit.evaluate.summary import interval

__all__ = ["Difference", "Results", "difference", "half", "holm", "number", "only", "ranks", "read", "whole"]

Float = npt.NDArray[np.float64]

#: Quantities that are shown besides the first one of their measure.
MORE: Mapping[str, tuple[str, ...]] = {"random-logit": ("rank",), "completeness": ("cut",)}

_RESAMPLES = 99_999  # so fine that a p-value survives the correction for hundreds of comparisons
_ROUNDING = 1e-12


@dataclass
class Results:
    """What was measured on one network.

    Attributes
    ----------
    values : dict of (method, measure) to dict of image to float
        The first quantity of every measure, and "MEASURE QUANTITY" for those of `MORE`; NaN where an image has none.
    left_out : dict of str to str
        Methods and measures that could not be run, and why.
    better : dict of str to str
        Which values of a measure are better, "higher", "lower" or "".
    """

    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """The difference of a method from the one it is compared with: mean, 95 % interval and p-value over images."""

    mean: float
    low: float
    high: float
    p: float


def read(journal: Path, prefix: str, found: Results) -> None:
    """Add all that the journal of a run holds; methods get the prefix."""
    with journal.open(encoding="utf-8") as file:
        next(file)
        for line in map(json.loads, file):
            if "measure" not in line:
                continue
            measure, quantities = line["measure"], line["values"]
            shown = {measure: next(iter(quantities))}
            shown |= {f"{measure} {q}": q for q in MORE.get(measure, ()) if q in quantities}
            for name, quantity in shown.items():
                found.better[name] = evaluate.get(measure).better
                row = found.values.setdefault((prefix + line["method"], name), {})
                pairs = zip(line["images"], quantities[quantity], strict=True)
                row.update({image: float("nan") if v is None else float(v) for image, v in pairs})


def half(found: Results, which: str) -> Results:
    """Return the results on every other image, in the order of their names: the first, the second, or all of them."""
    if which == "all":
        return found
    names = sorted({image for values in found.values.values() for image in values})
    kept = set(names[which == "report" :: 2])
    values = {key: {i: v for i, v in given.items() if i in kept} for key, given in found.values.items()}
    return Results(values, found.left_out, found.better)


def only(found: Results, methods: Collection[str]) -> Results:
    """Return the results of some methods."""
    values = {key: given for key, given in found.values.items() if key[0] in methods}
    return Results(values, found.left_out, found.better)


def whole(found: Results) -> Results:
    """Return the results without methods that a measure was not finished for: those with fewer images than others."""
    count = max((len(given) for given in found.values.values()), default=0)
    values = {key: given for key, given in found.values.items() if len(given) == count}
    return Results(values, found.left_out, found.better)


def difference(values: Mapping[str, float], base: Mapping[str, float], seed: int = 0) -> Difference | None:
    """Return the paired difference of two methods on the images that both have a value of; None for fewer than two.

    The p-value is that of the test that flips the signs of the differences at random.
    """
    pairs = (values[i] - base[i] for i in sorted(values.keys() & base.keys()))
    return _difference(tuple(d for d in pairs if np.isfinite(d)), seed)


@functools.cache
def _difference(differences: tuple[float, ...], seed: int) -> Difference | None:
    pairs = np.array(differences)
    low, high = interval(pairs, seed)
    if low is None or high is None:
        return None
    signs = _signs(len(pairs), seed)
    found = np.abs(signs @ pairs) >= abs(pairs.sum()) * (1 - _ROUNDING)
    drawn = len(signs) < 2 ** len(pairs)  # the signs as they are count as one more draw
    return Difference(float(pairs.mean()), low, high, (int(found.sum()) + drawn) / (len(signs) + drawn))


@functools.cache
def _signs(count: int, seed: int) -> Float:
    """Return all choices of signs for so many differences, or draws of them, (choices, count)."""
    if 2**count <= _RESAMPLES:
        return np.array(list(itertools.product((-1.0, 1.0), repeat=count)))
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (_RESAMPLES, count))


def holm(ps: Iterable[float]) -> Float:
    """Return p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    given = np.array(list(ps), np.float64)
    order = np.argsort(given, kind="stable")
    factors = len(given) - np.arange(len(given))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return corrected


def ranks(
    networks: Mapping[str, Results], measure: str, *, without: Collection[str] = ()
) -> tuple[dict[str, float], int, int]:
    """Rank methods by the mean of a measure on every network.

    Returns
    -------
    dict of str to float
        Mean rank of every method that was measured on all networks that have the measure; 1 is best.
    int
        How many methods these are.
    int
        How many networks.
    """
    tables = []
    for found in networks.values():
        means = {
            method: float(np.nanmean(list(values.values())))
            for (method, name), values in found.values.items()
            if name == measure and method not in without and np.isfinite(list(values.values())).any()
        }
        if means:
            tables.append((means, -1 if found.better[measure] == "higher" else 1))
    common = [m for m in (tables[0][0] if tables else {}) if all(m in means for means, _ in tables)]
    places = [rankdata([sign * means[m] for m in common]) for means, sign in tables]
    mean = np.mean(places, axis=0) if places and common else []
    return dict(zip(common, map(float, mean), strict=True)), len(common), len(tables)
