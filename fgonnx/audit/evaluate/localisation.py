"""Measures where the true evidence is known: the pointing game, and the energy inside a mask."""

from __future__ import annotations

import numpy as np

from fgonnx.audit.comparison.measures import TOLERANCE
from fgonnx.audit.evaluate.accepted import Share
from fgonnx.audit.evaluate.data import Bool, Data, Explains, ratio
from fgonnx.audit.evaluate.registry import Measured, measure
from fgonnx.errors import InputError
from fgonnx.opencv import cv2

_TINY = np.finfo(np.float64).tiny


@measure(
    "pointing-game",
    better="higher",
    source="Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, section 4.1",
    runs=1,
    needs="masks",
)
def pointing_game(explainer: Explains, data: Data, *, tolerance: Share = TOLERANCE) -> Measured:
    """Whether the largest value of the map lies on the object, or close to it.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    tolerance : float
        How far off it may be, as a fraction of the longer side: 15 pixels of 224, as published.

    Returns
    -------
    Measured
        "hit": 1 or 0; NaN without a mask.
    """
    maps = data.maps(explainer)
    hits = np.full(len(data), np.nan)
    for i, mask in enumerate(_masks(data)):
        if mask.any():
            peak = np.unravel_index(int(data.order(maps[i], i)[-1]), mask.shape)
            distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            hits[i] = distance[peak] <= tolerance * max(mask.shape)
    return Measured({"hit": hits})


@measure(
    "energy",
    better="higher",
    source="Wang et al., Score-CAM, CVPR Workshops 2020, section 4.3 (energy-based pointing game)",
    runs=1,
    needs="masks",
)
def energy(explainer: Explains, data: Data) -> Measured:
    """Share of the map that lies on the object; negative values count as zero.

    Parameters
    ----------
    explainer, data
        See `Measure`.

    Returns
    -------
    Measured
        "inside": the share; "gain": the same, divided by the object's share of the picture. NaN without a mask, 0 for a
        map that is nowhere positive.
    """
    maps = np.maximum(data.maps(explainer), 0.0)
    inside, area = np.full(len(data), np.nan), np.full(len(data), np.nan)
    for i, mask in enumerate(_masks(data)):
        if mask.any():
            area[i] = mask.mean()
            inside[i] = maps[i][mask].sum() / max(maps[i].sum(), _TINY)
    return Measured({"inside": inside, "gain": inside / area})


@measure(
    "polarity",
    better="higher",
    source="Cedro and Chlebus, Scaling Vision Models Does Not Consistently Improve Localisation-Based Explanation "
    "Quality, 2026, arXiv:2605.10142 (dual-polarity precision)",
    runs=1,
    needs="masks",
)
def polarity(explainer: Explains, data: Data) -> Measured:
    """Share of a signed map whose sign is right: positive on the object, negative beside it (dual-polarity precision).

    With S+ and S- the positive and the negative part of the map, both at least 0, and M the object, (sum of S+ over M +
    sum of S- outside of M) / sum of |S|, 0..1. For a map without negative values this is the share inside, `energy`.

    Parameters
    ----------
    explainer, data
        See `Measure`.

    Returns
    -------
    Measured
        "precision": the share; "positive": the share of S+ that is inside; "negative": the share of S- that is outside,
        NaN for a map that is nowhere negative. All are NaN without a mask; "precision" and "positive" are 0 for a map
        that is zero, or nowhere positive.
    """
    maps = data.maps(explainer)
    found = np.full((3, len(data)), np.nan)
    for i, mask in enumerate(_masks(data)):
        if mask.any():
            plus, minus = np.maximum(maps[i], 0.0), np.maximum(-maps[i], 0.0)
            inside, outside = plus[mask].sum(), minus[~mask].sum()
            found[0, i] = (inside + outside) / max(np.abs(maps[i]).sum(), _TINY)
            found[1, i] = inside / max(plus.sum(), _TINY)
            found[2, i] = ratio(outside, minus.sum())
    return Measured(dict(zip(("precision", "positive", "negative"), found, strict=True)))


def _masks(data: Data) -> Bool:
    if data.masks is None:
        raise InputError("this measure needs masks of the true evidence; give Data(masks=...), or --masks")
    return data.masks
