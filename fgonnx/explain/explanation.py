"""The result of an explanation, with its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.maps.sites import Site
from fgonnx.engine.model.arrangement import Arrangement

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Explanation:
    """The arrays of an explanation of N samples, one where the input has no batch axis: see `fgonnx.Explanation`."""

    saliency: Array
    target: Array | None
    score: Array
    outputs: dict[str, Array]
    sites: tuple[Site, ...]
    contributions: Array | None = None
    completeness: Array | None = None
    attribution: Array | None = None
    delta: Array | None = None
    input_gradient: Array | None = None
    bias_gradients: dict[str, Array] = field(default_factory=dict)
    exposed: dict[str, Array] = field(default_factory=dict)
    scores: Array | None = None
    head: str = ""
    head_stripped: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    described: tuple[str, ...] = ()
    contrast: Array | None = None
    blocks: dict[str, Array] = field(default_factory=dict)
    model_score: Array | None = None

    def __len__(self) -> int:
        return int(self.score.shape[0])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed in the model to explain it, which of its choices are held fixed, and what targets lack."""
        said = [
            f"sample {i}: {text}" if len(self) > 1 else text
            for i, text in enumerate(self.settings.get("remarks", ()))
            if text
        ]
        return (*self.settings.get("notes", ()), *said)

    def relative_residual(self) -> Array:
        """Return |residual| / |score| per sample, (N,): the relative error of the certificate."""
        residual = np.abs(self._certificate()[1].astype(np.float64))
        score = np.abs(self.score.astype(np.float64))
        return residual / np.maximum(score, np.finfo(np.float64).tiny)

    def rounding_residual(self) -> Array:
        """Return |residual| / sum of |contributions| per sample, (N,): the error relative to the terms of the sum.

        Where a small score is the difference of large contributions, this distinguishes rounding from a missing term.
        """
        contributions, residual = self._certificate()
        scale = np.abs(contributions.astype(np.float64)).sum(axis=1)
        return np.abs(residual.astype(np.float64)) / np.maximum(scale, np.finfo(np.float64).tiny)

    def block_residuals(self) -> dict[str, Array]:
        """Return score minus the sum of each block, relative to the sum of |contributions|, (N,) by name."""
        scale = np.maximum(np.abs(self._certificate()[0].astype(np.float64)).sum(axis=1), np.finfo(np.float64).tiny)
        return {name: (self.score.astype(np.float64) - total) / scale for name, total in self.blocks.items()}

    def localised(self) -> Array:
        """Return the sum of the contributions shown in the map, in units of the score, (N,)."""
        contributions, _ = self._certificate()
        return contributions.astype(np.float64)[:, self._in_map()].sum(axis=1)

    def localised_share(self) -> Array:
        """Return the share of the absolute contributions that is shown in the map, 0..1, (N,).

        Signed contributions may cancel; a share of absolute values does not exceed one.
        """
        contributions, _ = self._certificate()
        weights = np.abs(contributions.astype(np.float64))
        return weights[:, self._in_map()].sum(axis=1) / np.maximum(weights.sum(axis=1), np.finfo(np.float64).tiny)

    def table(self, sample: int = 0) -> list[tuple[Site, float]]:
        """Return the sites of one sample with their contributions, in the order of the network."""
        contributions, _ = self._certificate()
        return [(site, float(value)) for site, value in zip(self.sites, contributions[sample], strict=True)]

    def _in_map(self) -> npt.NDArray[np.bool_]:
        return np.array([s.in_map for s in self.sites])

    def _certificate(self) -> tuple[Array, Array]:
        if self.contributions is None or self.completeness is None:
            raise ValueError(
                "this explanation holds no certificate: it was made without 'contributions' and 'completeness'"
            )
        return self.contributions, self.completeness


def turned_back(e: Explanation, frame: Arrangement, x: Array | Mapping[str, Array]) -> Explanation:
    """Return an explanation whose arrays of the shape of an input or output are in the model's own layout."""
    name = frame.explained
    shape = np.shape(x.get(name, next(iter(x.values()))) if isinstance(x, Mapping) else x)

    def of_the_input(array: Array | None) -> Array | None:
        return array if array is None else frame.back(frame.axis, array, single=len(shape) < array.ndim)

    return replace(
        e,
        input_gradient=of_the_input(e.input_gradient),
        attribution=of_the_input(e.attribution),
        outputs={n: frame.back(frame.outputs.get(n, 0), array) for n, array in e.outputs.items()},
    )
