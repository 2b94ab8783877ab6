"""Infidelity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.data import Bool, Data, Explains
from fgonnx.audit.evaluate.fill import filled
from fgonnx.audit.evaluate.registry import Measured, measure

Array = npt.NDArray[Any]

_SIDES = 0.1, 0.5  # of a patch, as shares of the sides of the picture


@measure(
    "infidelity",
    better="lower",
    source="Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, definition 2.1 with square "
    "removal and the optimal scaling of section 3",
    runs=65,
)
def infidelity(
    explainer: Explains, data: Data, *, fill: str = "black", of: str = "logit", patches: int = 64
) -> Measured:
    """How badly the saliency within random patches predicts what the score loses without them, 0..1.

    With `a` the sums of a map within patches and `d` the losses, `min over b of mean((b a - d)**2) / mean(d**2)`: the
    best scaling `b` makes maps of any unit comparable, the division does so for scores.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.
    fill : {"black", "mean", "blur", "noise"}
        What takes the place of patches.
    of : {"logit", "probability"}
        The score.
    patches : int
        How many; sides are random, a tenth to half of the picture's.

    Returns
    -------
    Measured
        "unexplained"; "infidelity", the same without the division.
    """
    maps = data.maps(explainer)

    def boxes(i: int) -> Iterator[Bool]:
        rng = data.rng(i, "patches")
        for _ in range(patches):
            gone = np.zeros(data.grid, bool)
            share = rng.uniform(*_SIDES)
            sides = [max(1, round(share * s)) for s in data.grid]
            corner = [int(rng.integers(0, s - w + 1)) for s, w in zip(data.grid, sides, strict=True)]
            gone[tuple(slice(c, c + w) for c, w in zip(corner, sides, strict=True))] = True
            yield gone

    def variants(i: int) -> Iterator[Array]:
        content = filled(data, i, fill)
        yield data.x[i]
        for gone in boxes(i):
            yield np.where(data.onto(gone), content, data.x[i])

    scores = data.scores(explainer, variants, of)
    lost = scores[:, :1] - scores[:, 1:]
    sums = np.array([[maps[i][gone].sum() for gone in boxes(i)] for i in range(len(data))])
    tiny = np.finfo(np.float64).tiny
    scale = (sums * lost).sum(axis=1) / np.maximum((sums**2).sum(axis=1), tiny)
    error = ((scale[:, None] * sums - lost) ** 2).mean(axis=1)
    return Measured({"unexplained": error / np.maximum((lost**2).mean(axis=1), tiny), "infidelity": error})
