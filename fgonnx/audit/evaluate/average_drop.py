"""Average drop and increase in confidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.data import Data, Explains
from fgonnx.audit.evaluate.registry import Measured, measure

Array = npt.NDArray[Any]


@measure(
    "average-drop",
    better="lower",
    source="Chattopadhay et al., Grad-CAM++, WACV 2018, section 4.1",
    runs=2,
)
def average_drop(explainer: Explains, data: Data) -> Measured:
    """Share of the probability that is lost when every pixel is dimmed by its saliency.

    The map is rescaled to 0..1 and multiplied with the picture, whose black is what `Data.black` says.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.

    Returns
    -------
    Measured
        "drop": max(0, p - p') / p; "increase": 1 where p' > p, else 0.
    """
    maps = data.maps(explainer)

    def variants(i: int) -> Iterator[Array]:
        low, spread = maps[i].min(), np.ptp(maps[i])
        level = data.onto((maps[i] - low) / (spread or 1.0))
        yield data.x[i]
        yield data.as_input(data.black + level * (data.x[i].astype(np.float64) - data.black))

    before, after = data.scores(explainer, variants, "probability").T
    drop = np.maximum(0.0, before - after) / np.maximum(before, np.finfo(np.float64).tiny)
    return Measured({"drop": drop, "increase": (after > before).astype(np.float64)})
