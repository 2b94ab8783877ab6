"""Sensitivity-n: do sums of a map go with changes of the score?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.comparison.measures import correlation
from fgonnx.audit.evaluate.data import Bool, Data, Explains
from fgonnx.audit.evaluate.fill import filled
from fgonnx.audit.evaluate.registry import Measured, measure

Array = npt.NDArray[Any]

SHARES = (0.01, 0.03, 0.1, 0.3, 0.8)
"""What n is, as a share of the pixels."""


@measure(
    "sensitivity-n",
    better="higher",
    source="Ancona et al., Towards better understanding of gradient-based attribution methods for Deep Neural "
    "Networks, ICLR 2018, section 4",
    runs=101,
    axes=("n, as a share of the pixels", "correlation"),
)
def sensitivity_n(
    explainer: Explains, data: Data, *, fill: str = "mean", of: str = "logit", subsets: int = 20
) -> Measured:
    """Correlation of the saliency within random sets of n pixels with what the score loses without them.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.
    fill : {"mean", "black", "blur", "noise"}
        What takes the place of pixels.
    of : {"logit", "probability"}
        The score.
    subsets : int
        Random sets for every n; the paper takes 100.

    Returns
    -------
    Measured
        "correlation": Pearson's, mean over n; the curve by n.
    """
    maps = data.maps(explainer)

    def sets(i: int) -> Iterator[Bool]:
        rng, size = data.rng(i, "sets"), maps[i].size
        for share in SHARES:
            for _ in range(subsets):
                gone = np.zeros(size, bool)
                gone[rng.choice(size, max(1, round(share * size)), replace=False)] = True
                yield gone.reshape(data.grid)

    def variants(i: int) -> Iterator[Array]:
        content = filled(data, i, fill)
        yield data.x[i]
        for gone in sets(i):
            yield np.where(data.onto(gone), content, data.x[i])

    scores = data.scores(explainer, variants, of)
    lost = (scores[:, :1] - scores[:, 1:]).reshape(len(data), len(SHARES), subsets)
    sums = np.array([[maps[i][gone].sum() for gone in sets(i)] for i in range(len(data))]).reshape(lost.shape)
    curve = np.array([[correlation(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(sums, lost, strict=True)])
    return Measured({"correlation": curve.mean(axis=1)}, np.array(SHARES), curve)
