"""Max-sensitivity: does a map stay when the picture hardly changes?"""

from __future__ import annotations

import numpy as np

from fgonnx.audit.evaluate.data import Data, Explains, ratio
from fgonnx.audit.evaluate.registry import Measured, measure


@measure(
    "max-sensitivity",
    better="lower",
    source="Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, definition 4.1",
    runs=30,
)
def max_sensitivity(explainer: Explains, data: Data, *, radius: float = 0.02, samples: int = 10) -> Measured:
    """The largest relative change of the map under small uniform noise on the picture.

    Parameters
    ----------
    explainer : Explainer or Subject
        The method.
    data : Data
        Samples.
    radius : float
        Largest noise, as a share of max - min of the sample.
    samples : int
        Noisy copies.

    Returns
    -------
    Measured
        "change": max over copies of |S(x') - S(x)| / |S(x)|, norms of Frobenius; NaN for an empty map.
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
