"""Measures on objects of parts that are also drawn without each part: what every part is worth is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fgonnx.audit.comparison.measures import rank_correlation
from fgonnx.audit.evaluate.accepted import Quantity
from fgonnx.audit.evaluate.data import SPATIAL, Array, Bool, Data, Explains, Float
from fgonnx.audit.evaluate.registry import Measured, measure
from fgonnx.errors import InputError

_SOURCE = (
    "Hesse, Schaub-Meyer and Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of Explainable AI "
    "Methods, ICCV 2023"
)


@measure(
    "part-removal",
    better="higher",
    source=f"{_SOURCE} (single deletion)",
    runs=8,
    needs="parts",
)
def part_removal(explainer: Explains, data: Data, *, of: Quantity = "logit") -> Measured:
    """Rank correlation of the map's sum over each part with the drop of the score in the picture drawn without it.

    Nothing is inpainted: `Data.without` holds the pictures without each part, and a part is where they differ from the
    sample. With P_k these pixels, sum of S over P_k is compared with f(x) - f(x without k) by Spearman's correlation.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    of : {"logit", "probability"}
        The score.

    Returns
    -------
    Measured
        "correlation": over the parts of the sample, -1..1, 0 for a map with equal sums over all parts; "best": 1 where
        the part with the largest sum is the one with the largest drop, else 0. NaN for samples with fewer than two
        parts, or whose parts are worth the same.
    """
    without = _without(data)
    maps = data.maps(explainer)
    scores = data.scores(explainer, lambda i: (data.x[i], *without[i]), of)
    drops = scores[:, :1] - scores[:, 1:]
    found = np.full((2, len(data)), np.nan)
    for i in range(len(data)):
        areas = part_masks(data, i)
        seen = areas.reshape(len(areas), -1).any(axis=1)
        true = drops[i, seen]
        if len(true) > 1 and np.ptp(true) > 0:
            sums = np.array([maps[i][area].sum() for area in areas[seen]])
            found[0, i] = rank_correlation(sums[None], true[None]) if np.ptp(sums) > 0 else 0.0
            found[1, i] = np.ptp(sums) > 0 and true[sums.argmax()] == true.max()
    return Measured({"correlation": found[0], "best": found[1]})


@measure("part-deletion", better="lower", source=f"{_SOURCE} (deletion check)", runs=8, needs="parts")
def part_deletion(explainer: Explains, data: Data, *, of: Quantity = "probability") -> Measured:
    """Area under the probability while parts are removed, those with the largest sum of the map first.

    The picture without several parts has, on each of them, the pixels of the picture drawn without it.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    of : {"probability", "logit"}
        The score.

    Returns
    -------
    Measured
        "auc": by the trapezoidal rule over the number of parts removed, none to all, scaled to 0..1; 0..1 for
        probabilities. NaN for samples without parts, or whose parts overlap: what is behind one is not known then.
    """
    return _area(explainer, data, of, first="most")


@measure("part-preservation", better="higher", source=f"{_SOURCE} (preservation check)", runs=8, needs="parts")
def part_preservation(explainer: Explains, data: Data, *, of: Quantity = "probability") -> Measured:
    """Area under the probability while parts are removed, those with the smallest sum of the map first.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    of : {"probability", "logit"}
        The score.

    Returns
    -------
    Measured
        "auc", as for `part_deletion`: high where the parts that are kept longest suffice.
    """
    return _area(explainer, data, of, first="least")


def _area(explainer: Explains, data: Data, of: str, first: str) -> Measured:
    maps = data.maps(explainer)
    found = np.full(len(data), np.nan)
    for i in range(len(data)):
        areas = part_masks(data, i)
        seen = np.flatnonzero(areas.reshape(len(areas), -1).any(axis=1))
        if seen.size and areas.sum(axis=0).max() == 1:
            sums = np.array([maps[i][areas[part]].sum() for part in seen])
            order = seen[np.lexsort((data.rng(i, "ties").random(sums.size), sums))]
            heads = explainer.head(np.stack([*_removed(data, i, areas, order[::-1] if first == "most" else order)]))
            found[i] = _trapezoid(data.score(heads, i, of))
    return Measured({"auc": found})


def _removed(data: Data, i: int, areas: Bool, order: npt.NDArray[np.int64]) -> Iterator[Array]:
    """Yield sample i without ever more of its parts, in the given order."""
    x = data.x[i]
    yield x
    for part in order:
        x = np.where(data.onto(areas[part]), _without(data)[i, part], x)
        yield x


def _trapezoid(curve: Float) -> float:
    return float((curve[1:] + curve[:-1]).mean() / 2)


def part_masks(data: Data, i: int) -> Bool:
    """Return where the parts of sample i are: where it differs from the pictures without them.

    Parameters
    ----------
    data : Data
        Samples with `without`.
    i : int
        Index of the sample.

    Returns
    -------
    numpy array of bool, (K, H, W)
        All False for a part that the sample does not have.

    Raises
    ------
    InputError
        The data holds no pictures without parts.
    """
    differs = _without(data)[i] != data.x[i]
    other = tuple(a for a, letter in enumerate(data.layout) if a and letter not in SPATIAL)
    return np.asarray(differs.any(axis=other))


def _without(data: Data) -> Array:
    if data.without is None:
        raise InputError(
            "this measure needs pictures without each part; give Data(without=...), or 'without' in the .npz"
        )
    return data.without
