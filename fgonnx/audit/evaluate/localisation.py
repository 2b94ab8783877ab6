"""Measures where the true evidence is known: the pointing game, and the energy inside a mask."""

from __future__ import annotations

import cv2
import numpy as np

from fgonnx.audit.comparison.measures import TOLERANCE
from fgonnx.audit.evaluate.accepted import Share
from fgonnx.audit.evaluate.data import Bool, Data, Explains
from fgonnx.audit.evaluate.registry import Measured, measure
from fgonnx.errors import InputError


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
            inside[i] = maps[i][mask].sum() / max(maps[i].sum(), np.finfo(np.float64).tiny)
    return Measured({"inside": inside, "gain": inside / area})


def _masks(data: Data) -> Bool:
    if data.masks is None:
        raise InputError("this measure needs masks of the true evidence; give Data(masks=...), or --masks")
    return data.masks
