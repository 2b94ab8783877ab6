"""Insertion and deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.data import Data, Explains
from fgonnx.audit.evaluate.fill import filled
from fgonnx.audit.evaluate.registry import Measured, measure

Array = npt.NDArray[Any]

_SOURCE = "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation, BMVC 2018, section 3.3"


@measure("deletion", better="lower", source=_SOURCE, runs=51, axes=("share of pixels removed", "probability"))
def deletion(
    explainer: Explains, data: Data, *, fill: str = "mean", of: str = "probability", steps: int = 50
) -> Measured:
    """Area under the probability while pixels are removed, the most salient first.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.
    fill : {"mean", "black", "blur", "noise"}
        What takes their place.
    of : {"probability", "logit"}
        The score.
    steps : int
        In how many equal steps; the paper takes one per row of pixels, 224.

    Returns
    -------
    Measured
        "auc"; the curve by share of pixels.
    """
    return _curve(explainer, data, of, steps, lambda i: (data.x[i], filled(data, i, fill)))


@measure("insertion", better="higher", source=_SOURCE, runs=51, axes=("share of pixels inserted", "probability"))
def insertion(
    explainer: Explains, data: Data, *, fill: str = "blur", of: str = "probability", steps: int = 50
) -> Measured:
    """Area under the probability while pixels come into a blurred picture, the most salient first.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.
    fill : {"blur", "mean", "black", "noise"}
        What they come into.
    of : {"probability", "logit"}
        The score.
    steps : int
        In how many equal steps; the paper takes one per row of pixels, 224.

    Returns
    -------
    Measured
        "auc"; the curve by share of pixels.
    """
    return _curve(explainer, data, of, steps, lambda i: (filled(data, i, fill), data.x[i]))


def _curve(
    explainer: Explains, data: Data, of: str, steps: int, ends: Callable[[int], tuple[Array, Array]]
) -> Measured:
    maps = data.maps(explainer)
    at = np.linspace(0.0, 1.0, steps + 1)

    def variants(i: int) -> Iterator[Array]:
        first, last = ends(i)
        places = data.order(maps[i], i)[::-1]
        for share in at:
            changed = np.zeros(places.size, bool)
            changed[places[: round(share * places.size)]] = True
            yield np.where(data.onto(changed.reshape(data.grid)), last, first)

    curve = data.scores(explainer, variants, of)
    return Measured({"auc": (curve[:, 1:] + curve[:, :-1]).mean(axis=1) / 2}, at, curve)  # the trapezoidal rule
