"""Gradients along paths from a baseline to the input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgonnx.engine.methods.gradients import gradient
from fgonnx.engine.methods.registry import driven
from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.errors import OptionError
from fgonnx.fields import MOST_RUNS, documented, option
from fgonnx.wording import parameter

_MOST_STEPS = 4096  # the nodes of the quadrature are eigenvalues of a matrix of that size


@documented
@dataclass(frozen=True, kw_only=True)
class Path:
    """A straight path to the input."""

    steps: int = option(50, "Points of the Gauss-Legendre quadrature, 1 or more.", least=1, most=_MOST_STEPS)
    baseline: float | Array = option(
        0.0, "Start of the path, in units of the model's input: a number, or an array of one sample's shape."
    )


@documented
@dataclass(frozen=True, kw_only=True)
class References:
    """Paths from reference samples."""

    references: Array | None = option(
        None, "Reference inputs of the model, (R, ...), such as a part of the training set."
    )
    samples: int = option(
        200, "Number of random pairs of a reference and a point on its path, 1 or more.", least=1, most=MOST_RUNS
    )
    random_state: int = option(0, "Seed.", least=0)

    def __post_init__(self) -> None:
        if self.references is None or not len(self.references):
            raise OptionError(
                f"expected-gradients needs {parameter('references')}, an array of inputs to compare with, samples first"
            )


@driven(
    "integrated-gradients",
    gradient,
    ("attribution",),
    source="Sundararajan, Taly, Yan, ICML 2017, section 3.",
    cost="52 forward, 51 backward",
    settings=Path,
    true_gradient=True,
)
def integrated_gradients(sample: Sample, path: Path) -> dict[str, Array]:
    """The input minus a baseline, times the mean gradient on the straight path between them.

    `delta` is the sum of the attribution minus the difference of the scores at the ends of the path: zero if exact.
    """
    start = sample.baseline(path.baseline)
    points, weights = np.polynomial.legendre.leggauss(path.steps)  # on -1..1, with weights that sum to 2
    along, shares = sample.column((points + 1) / 2), weights / 2
    mean = np.zeros_like(sample.x)
    for part in sample.parts(path.steps):
        gradients = sample.run(start + along[part] * (sample.x - start), ["attribution"])["attribution"]
        mean += np.tensordot(shares[part], gradients.astype(np.float64), axes=1)
    attribution = (sample.x - start) * mean
    rise = sample.score - float(sample.run(start, ["score"])["score"][0])
    return {**sample.attributed(attribution), "delta": np.array([attribution.sum() - rise])}


@driven(
    "expected-gradients",
    gradient,
    ("attribution",),
    source="Erion, Janizek, Sturmfels, Lundberg, Lee, Nature Machine Intelligence 3, 2021.",
    cost="201 forward, 201 backward",
    settings=References,
    true_gradient=True,
)
def expected_gradients(sample: Sample, given: References) -> dict[str, Array]:
    """The expectation of integrated gradients over baselines drawn from references."""
    references = np.asarray(given.references, np.float64)
    if references.shape[1:] != sample.x.shape[1:]:
        raise OptionError(f"the references have the shape {references.shape}; give (R, {sample.x.shape[1:]})")
    rng = sample.generator(given.random_state)
    drawn = rng.integers(len(references), size=given.samples)
    along = sample.column(rng.random(given.samples))
    total = np.zeros_like(sample.x)
    for part in sample.parts(given.samples):
        difference = sample.x - references[drawn[part]]
        gradients = sample.run(sample.x - along[part] * difference, ["attribution"])["attribution"]
        total += (difference * gradients).sum(axis=0, keepdims=True)
    return sample.attributed(total / given.samples)
