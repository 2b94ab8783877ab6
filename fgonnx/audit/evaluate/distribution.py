"""How a map spreads over the picture: sparseness and complexity."""

from __future__ import annotations

import numpy as np

from fgonnx.audit.evaluate.data import Data, Explains, Float
from fgonnx.audit.evaluate.registry import Measured, measure


@measure(
    "sparseness",
    better="higher",
    source="Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training, ICML 2020, section 3",
    runs=1,
)
def sparseness(explainer: Explains, data: Data) -> Measured:
    """Gini index of the absolute map: 0 where all pixels are equal, towards 1 where a single one is not zero.

    Parameters
    ----------
    explainer, data
        See `Measure`.

    Returns
    -------
    Measured
        "gini"; 0 for an empty map.
    """
    maps = _absolute(data, explainer)
    maps.sort(axis=1)
    count = maps.shape[1]
    weights = (2 * np.arange(1, count + 1) - count - 1) / count
    return Measured({"gini": maps @ weights / np.maximum(maps.sum(axis=1), np.finfo(np.float64).tiny)})


@measure(
    "complexity",
    better="lower",
    source="Bhatt, Weller and Moura, Evaluating and Aggregating Feature-based Model Explanations, IJCAI 2020, sec. 3.3",
    runs=1,
)
def complexity(explainer: Explains, data: Data) -> Measured:
    """Entropy of the absolute map, in nats: the logarithm of the number of pixels it is spread over.

    Parameters
    ----------
    explainer, data
        See `Measure`.

    Returns
    -------
    Measured
        "entropy"; 0 for an empty map.
    """
    maps = _absolute(data, explainer)
    shares = maps / np.maximum(maps.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return Measured({"entropy": -(shares * logs).sum(axis=1)})


def _absolute(data: Data, explainer: Explains) -> Float:
    return np.abs(data.maps(explainer)).reshape(len(data), -1)
