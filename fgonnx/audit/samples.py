"""Samples to check on: random ones, and what lies beside a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph import probe
from fgonnx.engine.rewrite.rewritten import Rewritten

Array = npt.NDArray[Any]


def random_inputs(r: Rewritten, samples: int, random_state: int = 0) -> dict[str, Array]:
    """Return seeded random samples for all inputs of a rewritten model; masks of whole numbers hide nothing."""
    graph = r.model.graph
    x = next(v for v in graph.inputs if v.name == r.normal.input_name)
    found = probe.random_feeds(graph, x, r.normal.input_shape, samples, random_state)
    for name, array in found.items():
        if name != x.name and "mask" in name.lower() and array.dtype.kind in "iub":
            found[name] = np.ones_like(array)
    return found


def nudged(feeds: Mapping[str, Array], name: str, units: float = 8.0) -> dict[str, Array]:
    """Return the inputs with every entry of one of them moved by some units in its last place."""
    x = feeds[name]
    if x.dtype.kind != "f":
        return dict(feeds)
    signs = np.random.default_rng(0).choice((-units, units), x.shape)
    return {**feeds, name: (x + signs * np.spacing(np.abs(x)).astype(np.float64)).astype(x.dtype)}
