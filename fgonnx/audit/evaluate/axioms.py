"""Properties a map should have: completeness and weak dependence, which are mutually exclusive, and stability.

That the first two do is section 3 of the FullGrad paper.
"""

from __future__ import annotations

import numpy as np

from fgonnx.audit.evaluate.accepted import Amount, Count
from fgonnx.audit.evaluate.data import Array, Data, Explains, Subject, ratio
from fgonnx.audit.evaluate.registry import Measured, measure

_PAPER = "Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019"
_HALVINGS = 12
_ROUNDING = 1e-5  # relative change of a gradient up to which it is rounding; curvature exceeds it at the smallest step


@measure("completeness", better="lower", source=f"{_PAPER}, proposition 2", runs=3)
def completeness(explainer: Explains, data: Data) -> Measured:
    """Relative difference of the score and the sum of the contributions; for path methods, their convergence delta.

    Parameters
    ----------
    explainer, data
        See `Measure`.

    Returns
    -------
    Measured
        "residual": relative to the score; "rounding": relative to the sum of the absolute contributions. "cut": the
        largest of that at the values where a block of the network begins, for `fullgrad+`, whose maps are sums over
        these cuts. NaN for methods without a certificate, and without cuts.
    """
    found = explainer(data.x, data.target.tolist())
    unknown = np.full(len(data), np.nan)
    measured = {"residual": unknown, "rounding": unknown, "cut": unknown}
    if found.delta is not None:
        return Measured({**measured, "residual": np.abs(found.delta / found.score)})
    if found.contributions is None or found.completeness is None:
        return Measured(measured)
    if found.blocks:
        measured["cut"] = np.max([np.abs(r) for r in found.block_residuals().values()], axis=0)
    return Measured({**measured, "residual": found.relative_residual(), "rounding": found.rounding_residual()})


@measure("weak-dependence", better="", source=f"{_PAPER}, definition 2", runs=20, needs="model")
def weak_dependence(subject: Subject, data: Data) -> Measured:
    """Relative change of the map per relative change of the picture, within one linear piece of the model.

    A step in a random direction is halved until the gradient does not change.

    Parameters
    ----------
    subject : Subject
        The method and its model, piecewise linear.
    data : Data
        Number of samples.

    Returns
    -------
    Measured
        "change": 0 where the map depends on the linear piece alone, about 1 where it is proportional to the picture;
        NaN where no step stays within a piece, as in models that are not piecewise linear.
    """
    maps = data.maps(subject)
    found = np.full(len(data), np.nan)
    for i in range(len(data)):
        x = data.x[i]
        direction = data.rng(i, "direction").standard_normal(x.shape)
        direction *= np.linalg.norm(x) / np.linalg.norm(direction)
        gradient = _gradient(subject, data, i, x)
        for k in range(1, _HALVINGS):
            moved = (x + 2.0**-k * direction).astype(x.dtype)
            change = np.linalg.norm(_gradient(subject, data, i, moved) - gradient)
            if change <= _ROUNDING * np.linalg.norm(gradient):
                changed = subject(moved[None], data.target[i : i + 1].tolist()).saliency[0]
                step = np.linalg.norm(moved - x) / np.linalg.norm(x)
                found[i] = ratio(np.linalg.norm(changed - maps[i]), np.linalg.norm(maps[i]) * step)
                break
    return Measured({"change": found})


@measure(
    "max-sensitivity",
    better="lower",
    source="Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, definition 4.1",
    runs=30,
)
def max_sensitivity(explainer: Explains, data: Data, *, radius: Amount = 0.02, samples: Count = 10) -> Measured:
    """The largest relative change of the map under small uniform noise on the picture.

    Parameters
    ----------
    explainer, data
        See `Measure`.
    radius : float
        Largest noise, as a fraction of max - min of the sample.
    samples : int
        Noisy copies.

    Returns
    -------
    Measured
        "change": max over copies of |S(x') - S(x)| / |S(x)| in the Frobenius norm; NaN for an empty map.
    """
    maps = data.maps(explainer)
    norms = np.array([np.linalg.norm(m) for m in maps])
    reach = np.array([radius * float(np.ptp(x.astype(np.float64))) for x in data.x])
    generators = [data.rng(i, "noise") for i in range(len(data))]
    largest = np.zeros(len(data))
    for _ in range(samples):
        noisy = np.stack([x + rng.uniform(-r, r, x.shape) for x, rng, r in zip(data.x, generators, reach, strict=True)])
        changed = explainer(data.as_input(noisy), data.target.tolist()).saliency
        distance = np.array([np.linalg.norm(b - a) for a, b in zip(maps, changed, strict=True)])
        largest = np.maximum(largest, distance)
    return Measured({"change": ratio(largest, norms)})


def _gradient(subject: Subject, data: Data, i: int, x: Array) -> Array:
    gradient = subject.gradient(x[None], data.target[i : i + 1].tolist())
    return np.asarray(gradient[0], np.float64)
