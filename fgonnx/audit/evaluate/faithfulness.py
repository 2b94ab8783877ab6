"""Faithfulness: does the score change as the map predicts when pixels are removed, dimmed or inserted?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.comparison.measures import correlation
from fgonnx.audit.evaluate.accepted import Count, Fill, OneOf, Quantity
from fgonnx.audit.evaluate.data import Bool, Data, Explains, ratio
from fgonnx.audit.evaluate.fill import filled
from fgonnx.audit.evaluate.registry import Measured, measure

Array = npt.NDArray[Any]

REMOVED = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
"""Shares of pixels that pixel perturbation removes: 0.1 % to 10 %, as published."""

ORDERS = ("least", "most")
"""Which pixels it removes first."""

Order = Annotated[str, OneOf(ORDERS)]

SETS = (0.01, 0.03, 0.1, 0.3, 0.8)
"""Values of n of sensitivity-n, as shares of the pixels."""

_SIDES = 0.1, 0.5  # of a patch of infidelity, as shares of the sides of the picture
_PETSIUK = "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation, BMVC 2018, section 3.3"
_SRINIVAS = (
    "Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019, section 5.1"
)
_AXES = ("share of pixels removed", "absolute fractional change")


@measure("deletion", better="lower", source=_PETSIUK, runs=51, axes=("share of pixels removed", "probability"))
def deletion(
    explainer: Explains, data: Data, *, fill: Fill = "mean", of: Quantity = "probability", steps: Count = 50
) -> Measured:
    """Area under the probability while pixels are removed, the most salient first.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    fill : {"mean", "black", "blur", "noise"}
        What replaces them.
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


@measure("insertion", better="higher", source=_PETSIUK, runs=51, axes=("share of pixels inserted", "probability"))
def insertion(
    explainer: Explains, data: Data, *, fill: Fill = "blur", of: Quantity = "probability", steps: Count = 50
) -> Measured:
    """Area under the probability while pixels are inserted into a blurred picture, the most salient first.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    fill : {"blur", "mean", "black", "noise"}
        What they are inserted into.
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


@measure("pixel-perturbation", better="lower", source=_SRINIVAS, runs=12, axes=_AXES)
@measure("pixel-perturbation-most", better="higher", source=_SRINIVAS, runs=12, axes=_AXES, order="most")
def pixel_perturbation(
    explainer: Explains, data: Data, *, order: Order = "least", fill: Fill = "black", of: Quantity = "logit"
) -> Measured:
    """Absolute fractional change of the score when the least (or most) salient 0.1 to 10 % of the pixels are removed.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    order : {"least", "most"}
        Which pixels go first.
    fill : {"black", "mean", "blur", "noise"}
        What replaces them.
    of : {"logit", "probability"}
        The score.

    Returns
    -------
    Measured
        "change": the mean over the shares; the curve, |f(x) - f(x')| / |f(x)| by share.
    """
    maps = data.maps(explainer)

    def variants(i: int) -> Iterator[Array]:
        yield data.x[i]
        places, content = data.order(maps[i], i), filled(data, i, fill)
        places = places if order == "least" else places[::-1]
        for share in REMOVED:
            gone = np.zeros(places.size, bool)
            gone[places[: max(1, round(share * places.size))]] = True
            yield np.where(data.onto(gone.reshape(data.grid)), content, data.x[i])

    scores = data.scores(explainer, variants, of)
    before = scores[:, :1]
    curve = ratio(np.abs(scores[:, 1:] - before), np.abs(before))
    return Measured({"change": curve.mean(axis=1)}, np.array(REMOVED), curve)


@measure(
    "average-drop",
    better="lower",
    source="Chattopadhay et al., Grad-CAM++, WACV 2018, section 4.1",
    runs=2,
)
def average_drop(explainer: Explains, data: Data) -> Measured:
    """Share of the probability that is lost when every pixel is scaled by its saliency.

    The map is rescaled to 0..1 and multiplied with the picture, relative to `Data.black`.

    Parameters
    ----------
    explainer, data
        See `Measure`.

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


@measure(
    "infidelity",
    better="lower",
    source="Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, definition 2.1 with square "
    "removal and the optimal scaling of section 3",
    runs=65,
)
def infidelity(
    explainer: Explains, data: Data, *, fill: Fill = "black", of: Quantity = "logit", patches: Count = 64
) -> Measured:
    """How badly the saliency within random patches predicts the drop of the score without them, 0..1.

    With `a` the sums of a map within patches and `d` the drops, `min over b of mean((b a - d)**2) / mean(d**2)`: the
    best scaling `b` makes maps of any unit comparable, the division does so for scores.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    fill : {"black", "mean", "blur", "noise"}
        What replaces the patches.
    of : {"logit", "probability"}
        The score.
    patches : int
        Number of patches; sides are random, a tenth to half of the picture's.

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


@measure(
    "sensitivity-n",
    better="higher",
    source="Ancona et al., Towards better understanding of gradient-based attribution methods for Deep Neural "
    "Networks, ICLR 2018, section 4",
    runs=101,
    axes=("n, as a share of the pixels", "correlation"),
)
def sensitivity_n(
    explainer: Explains, data: Data, *, fill: Fill = "mean", of: Quantity = "logit", subsets: Count = 20
) -> Measured:
    """Correlation of the saliency within random sets of n pixels with the drop of the score without them.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    fill : {"mean", "black", "blur", "noise"}
        What replaces the pixels.
    of : {"logit", "probability"}
        The score.
    subsets : int
        Random sets for every n; 100 in the paper.

    Returns
    -------
    Measured
        "correlation": Pearson's, mean over n; the curve by n.
    """
    maps = data.maps(explainer)

    def sets(i: int) -> Iterator[Bool]:
        rng, size = data.rng(i, "sets"), maps[i].size
        for share in SETS:
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
    lost = (scores[:, :1] - scores[:, 1:]).reshape(len(data), len(SETS), subsets)
    sums = np.array([[maps[i][gone].sum() for gone in sets(i)] for i in range(len(data))]).reshape(lost.shape)
    curve = np.array([[correlation(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(sums, lost, strict=True)])
    return Measured({"correlation": curve.mean(axis=1)}, np.array(SETS), curve)
