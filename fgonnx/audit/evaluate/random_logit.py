"""The random-logit check: a map of another class should be another map."""

from __future__ import annotations

import numpy as np

from fgonnx.audit.comparison import measures
from fgonnx.audit.evaluate.data import Data, Explains
from fgonnx.audit.evaluate.registry import Measured, measure


@measure(
    "random-logit",
    better="lower",
    source="Sixt, Granz and Landgraf, When Explanations Lie: Why Many Modified BP Attributions Fail, ICML 2020, sec. 4",
    runs=3,
)
def random_logit(explainer: Explains, data: Data) -> Measured:
    """How alike the map is to that of another class, drawn at random.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.

    Returns
    -------
    Measured
        "ssim", as published; "rank": rank correlation. NaN for models of one entry.
    """
    maps = data.maps(explainer)
    entries = int(np.prod(explainer.head(data.x[:1]).shape[1:], initial=1))
    if entries == 1:
        return Measured({"ssim": np.full(len(data), np.nan), "rank": np.full(len(data), np.nan)})
    steps = np.array([data.rng(i, "class").integers(1, entries) for i in range(len(data))])
    others = explainer(data.x, ((data.target + steps) % entries).tolist()).saliency
    return Measured(
        {
            "ssim": np.array([measures.ssim(a, b) for a, b in zip(maps, others, strict=True)]),
            "rank": np.array([measures.rank_correlation(a, b) for a, b in zip(maps, others, strict=True)]),
        }
    )
