"""Noisy copies of the input, and means over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.fields import MOST_RUNS, documented, option


@documented
@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noisy copies of the input."""

    samples: int = option(25, "Copies per input, 1 or more.", least=1, most=MOST_RUNS)
    sigma: float = option(
        0.15, "Standard deviation of the noise as a fraction of max - min of the input, 0 or more.", least=0
    )
    random_state: int = option(0, "Seed.", least=0)


def means(
    sample: Sample, noise: Noise, names: Sequence[str], of: Callable[[Array], Array] = lambda v: v
) -> dict[str, Array]:
    """Return the means of `of(result)` over noisy copies for the named results of the graph, one row each.

    Sums are accumulated run by run, so that memory does not grow with the number of copies.
    """
    rng = sample.generator(noise.random_state)
    scale = noise.sigma * float(sample.x.max() - sample.x.min())
    sums: dict[str, Array] = {}
    for part in sample.parts(noise.samples):
        count = part.stop - part.start
        results = sample.run(sample.x + rng.standard_normal((count, *sample.x.shape[1:])) * scale, names)
        for k, v in results.items():
            total = of(v.astype(np.float64)).sum(axis=0, keepdims=True)
            sums[k] = sums[k] + total if k in sums else total
    return {k: (v / noise.samples).astype(sample.clean[k].dtype) for k, v in sums.items()}
