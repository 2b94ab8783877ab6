"""One sample through a method that needs several runs of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine import methods
from fgonnx.engine.graph.session import Session
from fgonnx.engine.rewrite.rewritten import Rewritten

Array = npt.NDArray[Any]


def explain(r: Rewritten, session: Session, fed: Mapping[str, Array], index: int, step: int) -> dict[str, Array]:
    """Explain one sample.

    Parameters
    ----------
    r : Rewritten
        The graph.
    session : Session
        Its session.
    fed : mapping of str to numpy array
        The sample, one row.
    index : int
        Its place in the batch. What is drawn at random depends on it and on the seed alone, not on the batch size.
    step : int
        Largest number of variations in one run.

    Returns
    -------
    dict of str to numpy array
        The model's own outputs, of the sample itself, by their names; what the graph and the method give, as
        `named` calls it.
    """
    method = methods.find(r.options.method)
    assert method.drive is not None
    name = r.normal.input_name
    clean = session.run(dict(fed))
    fixed = dict(fed)
    if "target" in r.names:
        fixed[r.selector] = clean[r.names["target"]]
    free = {str(v.name) for v in r.model.graph.inputs if v.shape and not isinstance(v.shape.dims[0], int)}

    def run(variations: Array, names: Sequence[str]) -> dict[str, Array]:
        copies = {k: np.repeat(v, len(variations), axis=0) if k in free else v for k, v in fixed.items()}
        copies[name] = _typed(variations, fed[name].dtype)
        results = session.run(copies, [r.names[n] for n in names])
        return {n: results[r.names[n]] for n in names}

    given = {n: clean[where] for n, where in r.names.items()}
    sample = methods.Sample(
        fed[name].astype(np.float64), index, r.normal.layout, step, given, r.options.psi, r.options.profile, run
    )
    made = method.drive(sample, r.options.settings)
    single = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in made.items()}
    return {**clean, **{named(r, k): v for k, v in single.items()}}


def named(r: Rewritten, name: str) -> str:
    """Return what a result is called beside the model's own outputs: the graph's name for it, or one no model has."""
    return r.names.get(name, f"fg/{name}")


def _typed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return variations as the model takes them; integers are rounded and stay in range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)
