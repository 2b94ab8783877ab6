"""The map of a series channel by channel, and of a row of a table feature by feature.

The map of a series has one number for each step. It is the sum of two parts: the input times its gradient, which has a
channel and a step, and the terms of the layers, whose channels are not those of the input, so that they have a step
alone. The first part is a lane for each channel, the second a lane of its own; together they are the map.

The score of a row is the sum of what its features add and of the biases: everything that is added where the features
are mixed already. What is added to a feature alone, by a scaler in front of the network, is that feature's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.maps.aggregate import EPS
from fgonnx.engine.maps.psi import POSITIVE, SIGNED
from fgonnx.explain.explanation import Explanation

Array = npt.NDArray[Any]

METHODS = ("fullgrad", "simple-fullgrad")
"""Methods whose map is such a sum; those that write an attribution have it in channels themselves."""


@dataclass(frozen=True)
class Lanes:
    """The map of one sample in lanes that sum to it.

    Attributes
    ----------
    channels : numpy array, (C, T)
        What the values of every channel add.
    inside : numpy array, (T,), or None
        What the layers of the network add; None where a method knows the input alone.
    """

    channels: Array
    inside: Array | None

    def shares(self) -> tuple[list[float], float]:
        """Return the share of the absolute map of every channel, and of the network, 0..1."""
        each = np.abs(self.channels).sum(axis=1)
        inside = float(np.abs(self.inside).sum()) if self.inside is not None else 0.0
        total = float(each.sum()) + inside or 1.0
        return [float(v) / total for v in each], inside / total


@dataclass(frozen=True)
class Features:
    """The score of one row of a table as a sum.

    Attributes
    ----------
    contributions : numpy array, (F,)
        What every feature adds.
    biases : float
        What the biases of the network add.
    residual : float
        What is missing of the score.
    """

    contributions: Array
    biases: float
    residual: float


def features(e: Explanation, sample: int) -> Features | None:
    """Return the score of one row of a table as a sum; None where the map of the method is none with a sign."""
    if e.settings["psi"] != SIGNED or e.saliency.ndim != 2:
        return None
    own = e.saliency[sample].astype(np.float64)
    score = float(e.score[sample])
    if e.contributions is None or e.completeness is None:
        return Features(own, score - float(own.sum()), 0.0) if e.attribution is not None else None
    in_map = np.array([s.in_map for s in e.sites])
    biases = float(e.contributions[sample].astype(np.float64)[~in_map].sum())
    return Features(own, biases, score - biases - float(own.sum()))


def lanes(e: Explanation, sample: int, x: Array, layout: str) -> Lanes | None:
    """Return the map of one sample of a series in lanes.

    Parameters
    ----------
    e : Explanation
        The explanation, with the gradient of the input or an attribution.
    sample : int
        Which of its samples.
    x : numpy array
        That sample, without the batch.
    layout : str
        Axes of the input, samples first: "NCW" or "NWC"; "NF" of a single channel.

    Returns
    -------
    Lanes or None
        None where the map is none of a series, or not a sum over channels.
    """
    if e.saliency.ndim != 2 or layout not in ("NCW", "NWC", "NF"):
        return None
    map_ = e.saliency[sample].astype(np.float64)
    if e.attribution is not None:
        own, psi = e.attribution[sample], e.settings["psi"]
        values = _channels_first(own.astype(np.float64), layout)
        shown = values if psi == SIGNED else np.maximum(values, 0) if psi == POSITIVE else np.abs(values)
        return Lanes(shown, None) if np.allclose(shown.sum(axis=0), map_, rtol=1e-3, atol=1e-6) else None
    if e.settings["method"] not in METHODS or e.input_gradient is None:
        return None
    gradient = e.input_gradient[sample] if e.input_gradient.ndim > x.ndim else e.input_gradient
    product = _channels_first(x.astype(np.float64) * gradient, layout)
    shown = product
    if e.settings["psi"] != SIGNED:
        size = np.maximum(product, 0) if e.settings["psi"] == POSITIVE else np.abs(product)
        spread = size.max() - size.min()
        eps = 0.0 if e.settings["profile"] == "paper" else EPS
        shown = (size - size.min()) / (spread + eps) if spread + eps else np.zeros_like(size)
    return Lanes(shown, map_ - shown.sum(axis=0))


def _channels_first(array: Array, layout: str) -> Array:
    return array[None] if layout == "NF" else array.T if layout == "NWC" else array
