"""Whether the words that an explanation puts on top decide: deletion, insertion, comprehensiveness, sufficiency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError
from fgonnx.explain.targets import Target
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found

Array = npt.NDArray[Any]

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Shares of the words taken, over which comprehensiveness and sufficiency are means (DeYoung et al., ACL 2020)."""

_STEPS = 10


def faithfulness(
    explainer: TextExplainer, texts: Sequence[Any], target: Target = None, *, steps: int = _STEPS
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
        "deletion": the mean probability while words are taken away, those that add most first (lower is better);
        "insertion": while they are put back into padding (higher); "comprehensiveness": the fall without the words on
        top (higher); "sufficiency": the fall with these alone (lower).

    Raises
    ------
    OptionError
        What is explained is not a single class.
    """
    if steps < 1:
        raise OptionError(f"steps={steps} is out of range; give 1 or more")
    found = explainer(list(texts), target)
    if not found:
        raise InputError("there is no text; give at least one")
    rows = [_of_one(explainer, one, steps) for one in found]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _of_one(explainer: TextExplainer, found: Found, steps: int) -> dict[str, float]:
    if found.arrays.target is None:
        raise OptionError("measures take single classes as targets, not sums or similarities")
    words = [(w.tokens, value) for w, value in found.words if not w.special]
    order = [places for places, _ in sorted(words, key=lambda w: -w[1])]
    counts = sorted({round(len(order) * i / steps) for i in range(steps + 1)})
    tops = [max(1, round(share * len(order))) for share in SHARES]
    hidden = [order[:k] for k in counts] + [order[k:] for k in counts]
    hidden += [order[:k] for k in tops] + [order[k:] for k in tops]
    p = _probabilities(explainer, found, hidden)
    curves, rest = p[: 2 * len(counts)], p[2 * len(counts) :]
    return {
        "deletion": float(curves[: len(counts)].mean()),
        "insertion": float(curves[len(counts) :].mean()),
        "comprehensiveness": float(p[0] - rest[: len(tops)].mean()),
        "sufficiency": float(p[0] - rest[len(tops) :].mean()),
    }


def _probabilities(explainer: TextExplainer, found: Found, hidden: Sequence[Sequence[tuple[int, ...]]]) -> Array:
    """Return the probability of the explained class with words replaced by padding, one number per set of them."""
    pad = explainer.pad or 0
    fed = {n: np.repeat(v, len(hidden), axis=0) for n, v in explainer.arrays([found.tokens]).items()}
    for row, places in enumerate(hidden):
        fed[explainer.name][row, [found.start + i for word in places for i in word]] = pad
    heads = explainer.explainer.head(fed).reshape(len(hidden), -1).astype(np.float64)
    assert found.arrays.target is not None
    index = int(found.arrays.target[0])
    if heads.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(-heads[:, 0])))
    grown = np.exp(heads - heads.max(axis=1, keepdims=True))
    return np.asarray((grown / grown.sum(axis=1, keepdims=True))[:, index])
