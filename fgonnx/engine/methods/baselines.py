"""Null baselines: maps that do not depend on the model. A measure on which they score well measures something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgonnx.engine.methods.registry import Plain, driven, nothing
from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.fields import documented, option


@documented
@dataclass(frozen=True, kw_only=True)
class Seed:
    """The random numbers."""

    random_state: int = option(0, "Seed.", least=0)


@driven(
    "edge",
    nothing,
    source="Null baseline; Adebayo et al., NeurIPS 2018.",
    cost="1 forward",
    gradient=False,
    psis=("abs",),
)
def edge(sample: Sample, settings: Plain) -> dict[str, Array]:
    """The edges of the input: the length of the Sobel gradient of its mean over channels."""
    picture = sample.x.mean(axis=tuple(i for i in range(sample.x.ndim) if i not in sample.spatial))
    squares = np.zeros_like(picture)
    for axis in range(picture.ndim):
        slope = picture
        for other in range(picture.ndim):
            slope = _filtered(slope, other, (-1.0, 0.0, 1.0) if other == axis else (1.0, 2.0, 1.0))
        squares += np.square(slope)
    return {"saliency": np.sqrt(squares)[None]}


def _filtered(picture: Array, axis: int, kernel: tuple[float, ...]) -> Array:
    """Correlate along an axis with a kernel of three entries; the border is replicated."""
    padded = np.pad(picture, [(int(i == axis),) * 2 for i in range(picture.ndim)], mode="edge")
    size = picture.shape[axis]
    return sum(k * np.take(padded, range(i, i + size), axis=axis) for i, k in enumerate(kernel))  # type: ignore[return-value]


@driven("random", nothing, source="Null baseline.", cost="1 forward", settings=Seed, gradient=False, psis=("abs",))
def random(sample: Sample, seed: Seed) -> dict[str, Array]:
    """Independent uniform numbers."""
    return {"saliency": sample.generator(seed.random_state).random((1, *sample.grid))}
