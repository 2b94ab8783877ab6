"""Pixel perturbation, the measure of the FullGrad paper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.data import Data, Explains, ratio
from fgonnx.audit.evaluate.fill import filled
from fgonnx.audit.evaluate.registry import Measured, measure
from fgonnx.errors import OptionError

Array = npt.NDArray[Any]

SHARES = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
"""Shares of pixels that are removed: 0.1 % to 10 %, as published."""

ORDERS = ("least", "most")

_AXES = ("share of pixels removed", "absolute fractional change")
_SOURCE = (
    "Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019, section 5.1"
)


@measure("pixel-perturbation", better="lower", source=_SOURCE, runs=12, axes=_AXES)
@measure("pixel-perturbation-most", better="higher", source=_SOURCE, runs=12, axes=_AXES, order="most")
def pixel_perturbation(
    explainer: Explains, data: Data, *, order: str = "least", fill: str = "black", of: str = "logit"
) -> Measured:
    """Absolute fractional change of the score when the least (or most) salient 0.1 to 10 % of the pixels are removed.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.
    order : {"least", "most"}
        Which pixels go first.
    fill : {"black", "mean", "blur", "noise"}
        What takes their place.
    of : {"logit", "probability"}
        The score.

    Returns
    -------
    Measured
        "change": the mean over the shares; the curve, |f(x) - f(x')| / |f(x)| by share.
    """
    if order not in ORDERS:
        raise OptionError(f"order='{order}' does not exist; choose one of: {', '.join(ORDERS)}")
    maps = data.maps(explainer)

    def variants(i: int) -> Iterator[Array]:
        yield data.x[i]
        places, content = data.order(maps[i], i), filled(data, i, fill)
        places = places if order == "least" else places[::-1]
        for share in SHARES:
            gone = np.zeros(places.size, bool)
            gone[places[: max(1, round(share * places.size))]] = True
            yield np.where(data.onto(gone.reshape(data.grid)), content, data.x[i])

    scores = data.scores(explainer, variants, of)
    before = scores[:, :1]
    curve = ratio(np.abs(scores[:, 1:] - before), np.abs(before))
    return Measured({"change": curve.mean(axis=1)}, np.array(SHARES), curve)
