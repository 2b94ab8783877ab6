"""Measures on objects of parts that are also drawn without each part: what every part is worth is known."""

from __future__ import annotations

import numpy as np

from fgonnx.audit.comparison.measures import rank_correlation
from fgonnx.audit.evaluate.accepted import Quantity
from fgonnx.audit.evaluate.data import SPATIAL, Array, Bool, Data, Explains
from fgonnx.audit.evaluate.registry import Measured, measure
from fgonnx.errors import InputError


@measure(
    "part-removal",
    better="higher",
    source="Hesse, Schaub-Meyer and Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of "
    "Explainable AI Methods, ICCV 2023, section 4.2 (single deletion)",
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
