"""Whether the words that an explanation puts on top decide: deletion, insertion, comprehensiveness, sufficiency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError
from fgonnx.explain.targets import Target
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found

Float = npt.NDArray[np.float64]

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Shares of the words taken, over which comprehensiveness and sufficiency are means (DeYoung et al., ACL 2020)."""

STEPS = 10
"""Steps of the curves."""


@dataclass(frozen=True)
class Removal:
    """How the probability of the explained class changes as the words of one text are replaced by padding.

    Attributes
    ----------
    deletion, insertion : numpy array, (steps + 1,)
        Probabilities while words are taken away, those that add most first; and while they are put back into padding.
    comprehensiveness, sufficiency : float
        The fall of the probability without the words on top, and with these alone; means over `SHARES`.
    """

    deletion: Float
    insertion: Float
    comprehensiveness: float
    sufficiency: float


def faithfulness(
    explainer: TextExplainer, texts: Sequence[Any], target: Target = None, *, steps: int = STEPS
) -> dict[str, npt.NDArray[np.float64]]:
    """Return how the probability of the explained class changes as words are replaced by padding, one number per text.

    Parameters
    ----------
    explainer : TextExplainer
        What explains; its tokenizer names the padding, else it is id 0.
    texts : sequence
        Texts, as it takes them.
    target : optional
        What is explained; by default the model's own choice of each.
    steps : int
        Steps of the curves, 1 or more.

    Returns
    -------
    dict of str to numpy array, (N,)
        "deletion": the area under the probability while words are taken away, those that add most first (lower is
        better); "insertion": while they are put back into padding (higher); "comprehensiveness": the fall without the
        words on top (higher); "sufficiency": the fall with these alone (lower).

    Raises
    ------
    OptionError
        What is explained is not a single class.
    """
    if steps < 1:
        raise OptionError(f"steps={steps} is out of range; give 1 or more")
    if not (found := explainer(list(texts), target)):
        raise InputError("there is no text; give at least one")
    rows = [removal(explainer, one, steps) for one in found]
    return {
        "deletion": np.array([area(row.deletion) for row in rows]),
        "insertion": np.array([area(row.insertion) for row in rows]),
        "comprehensiveness": np.array([row.comprehensiveness for row in rows]),
        "sufficiency": np.array([row.sufficiency for row in rows]),
    }


def area(curve: Float) -> float:
    """Return the area under a curve at even steps from 0 to 1."""
    return float(np.trapezoid(curve, np.linspace(0, 1, len(curve))))


def removal(explainer: TextExplainer, found: Found, steps: int = STEPS) -> Removal:
    """Replace the words of an explained text by padding, those that add most first.

    Raises
    ------
    OptionError
        What is explained is not a single class.
    """
    if found.arrays.target is None:
        raise OptionError("measures take single classes as targets, not sums or similarities")
    words = [(w.tokens, value) for w, value in found.words if not w.special]
    order = [places for places, _ in sorted(words, key=lambda w: -w[1])]
    counts = [round(len(order) * i / steps) for i in range(steps + 1)]
    tops = [max(1, round(share * len(order))) for share in SHARES]
    sets = [order[:k] for k in counts] + [order[k:] for k in counts]
    sets += [order[:k] for k in tops] + [order[k:] for k in tops]
    p = probabilities(explainer, found, sets)
    deletion, insertion, rest = p[: steps + 1], p[steps + 1 : 2 * steps + 2], p[2 * steps + 2 :]
    return Removal(deletion, insertion, float(p[0] - rest[: len(tops)].mean()), float(p[0] - rest[len(tops) :].mean()))


def probabilities(
    explainer: TextExplainer, found: Found, hidden: Sequence[Sequence[tuple[int, ...]]]
) -> npt.NDArray[np.float64]:
    """Return the probability of the explained class with words replaced by padding, one number per set of them.

    It is the softmax of the head over its classes; the sigmoid if there is one entry or the model ends in a sigmoid. Of
    a head with an entry for each token, classes are those of the token explained.
    """
    pad = explainer.pad or 0
    fed = {n: np.repeat(v, len(hidden), axis=0) for n, v in explainer.arrays([found.tokens]).items()}
    for row, places in enumerate(hidden):
        fed[explainer.name][row, [found.start + i for word in places for i in word]] = pad
    heads = explainer.explainer.head(fed).astype(np.float64)
    assert found.arrays.target is not None
    place = np.unravel_index(int(found.arrays.target[0]), heads.shape[1:])
    axis = explainer.entries.place_axis(fed)
    if axis is not None and heads.ndim > 2:
        heads = np.take(heads, place[axis], axis=1 + axis)
        place = place[:axis] + place[axis + 1 :]
    index = int(np.ravel_multi_index(place, heads.shape[1:]))
    heads = heads.reshape(len(hidden), -1)
    if heads.shape[1] == 1 or found.arrays.head_stripped == "Sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -heads[:, index])))
    grown = np.exp(heads - heads.max(axis=1, keepdims=True))
    return np.asarray((grown / grown.sum(axis=1, keepdims=True))[:, index])
