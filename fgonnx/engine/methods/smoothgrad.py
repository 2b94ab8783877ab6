"""Gradients over noisy copies of the input: their mean, the mean of their squares, their variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgonnx.engine.methods.gradients import gradient
from fgonnx.engine.methods.noise import Noise, means
from fgonnx.engine.methods.registry import driven
from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.fields import MOST_RUNS, documented, option


@documented
@dataclass(frozen=True, kw_only=True)
class MoreNoise(Noise):
    """Noise with as many copies as in the SmoothGrad paper."""

    samples: int = option(50, "Copies per input, 1 or more.", least=1, most=MOST_RUNS)


@driven(
    "smoothgrad",
    gradient,
    ("attribution",),
    source="Smilkov, Thorat, Kim, Viégas, Wattenberg, arXiv:1706.03825, 2017.",
    cost="51 forward, 51 backward",
    settings=MoreNoise,
)
def smoothgrad(sample: Sample, noise: Noise) -> dict[str, Array]:
    """The mean gradient over noisy copies of the input."""
    return sample.attributed(means(sample, noise, ["attribution"])["attribution"])


@driven(
    "smoothgrad-squared",
    gradient,
    ("attribution",),
    source="Hooker, Erhan, Kindermans, Kim, NeurIPS 2019.",
    cost="51 forward, 51 backward",
    settings=MoreNoise,
    psis=("abs",),
)
def smoothgrad_squared(sample: Sample, noise: Noise) -> dict[str, Array]:
    """The mean of the squared gradient over noisy copies of the input."""
    return sample.attributed(means(sample, noise, ["attribution"], np.square)["attribution"])


@driven(
    "vargrad",
    gradient,
    ("attribution",),
    source="Adebayo, Gilmer, Goodfellow, Kim, ICLR workshop 2018.",
    cost="51 forward, 51 backward",
    settings=MoreNoise,
    psis=("abs",),
)
def vargrad(sample: Sample, noise: Noise) -> dict[str, Array]:
    """The variance of the gradient over noisy copies of the input."""
    # of the deviation from the clean gradient: the same variance, without the cancellation of E[g^2] - E[g]^2
    clean = sample.clean["attribution"]
    moments = means(sample, noise, ["attribution"], lambda v: np.stack([v - clean, np.square(v - clean)], axis=1))
    mean, square = moments["attribution"][:, 0], moments["attribution"][:, 1]
    return sample.attributed(np.maximum(square - np.square(mean), 0))
