"""The explanation of one text: what its tokens and words add, and what lies on padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.explain.explanation import Explanation
from fgonnx.text.tokens import Tokens, Word

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """The explanation of one text.

    Attributes
    ----------
    tokens : Tokens
        The text as the model took it.
    values : numpy array, (T,)
        What every token adds, special ones included: of the map.
    arrays : Explanation
        The explanation of the sample, padding included: score, target, certificate.
    notes : tuple of str
        What was done to the text.
    start : int
        The place of its first token in the arrays, behind padding.
    """

    tokens: Tokens
    values: Array
    arrays: Explanation
    notes: tuple[str, ...] = ()
    start: int = 0

    @property
    def words(self) -> list[tuple[Word, float]]:
        """The words of the text and the special tokens, each with the sum of what its tokens add."""
        return [(w, float(self.values[list(w.tokens)].sum())) for w in self.tokens.words]

    @property
    def score(self) -> float:
        """The value explained."""
        return float(self.arrays.score[0])

    @property
    def model_score(self) -> float:
        """The score that the model gives the text: the value explained, unless that is a mean over noisy copies."""
        return self.score if self.arrays.model_score is None else float(self.arrays.model_score[0])

    @property
    def described(self) -> str:
        """What is explained."""
        return self.arrays.described[0]

    @property
    def padding(self) -> float:
        """The part of the map that lies on padding: zero where the model leaves it out."""
        return float(self.arrays.saliency[0].sum() - self.values[self._own].sum())

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the map, of absolute values: of the "words", of "special" tokens and of "padding"."""
        special = np.array([t.special for t in self.tokens.tokens], bool)
        absolute = np.abs(self.values.astype(np.float64))
        parts = {"words": absolute[self._own & ~special].sum(), "special": absolute[self._own & special].sum()}
        whole = np.abs(self.arrays.saliency[0].astype(np.float64)).sum()
        parts["padding"] = max(0.0, whole - sum(parts.values()))
        return {name: float(value / whole) if whole else 0.0 for name, value in parts.items()}

    @property
    def _own(self) -> npt.NDArray[np.bool_]:
        """Which tokens are no padding."""
        return np.array([not t.padding for t in self.tokens.tokens], bool)


def row_of(e: Explanation, i: int) -> Explanation:
    """Return the explanation of one sample."""

    def row(array: Any) -> Any:
        return None if array is None else array[i : i + 1]

    taken: dict[str, Any] = {
        name: row(getattr(e, name))
        for name in (
            "saliency",
            "target",
            "contrast",
            "score",
            "scores",
            "contributions",
            "completeness",
            "attribution",
            "model_score",
        )
    }
    count = len(e)
    settings = dict(e.settings)
    if "remarks" in settings:
        settings["remarks"] = settings["remarks"][i : i + 1]
    return replace(
        e,
        **taken,
        delta=row(e.delta),
        input_gradient=row(e.input_gradient),
        outputs={n: a[i : i + 1] if len(a) == count else a for n, a in e.outputs.items()},
        bias_gradients={n: a[i : i + 1] for n, a in e.bias_gradients.items()},
        blocks={n: a[i : i + 1] for n, a in e.blocks.items()},
        described=e.described[i : i + 1],
        settings=settings,
    )
