"""Find the origin of NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.session import Session


def first_not_finite(
    model: ir.Model, runs: Iterable[Mapping[str, npt.NDArray[Any]]], folder: Path | None = None
) -> tuple[int, ir.Node] | None:
    """Return the first run, and the first node in it, with a result that holds NaN or infinity.

    Parameters
    ----------
    model : ir.Model
        The model; it is not changed.
    runs : iterable of mapping of str to numpy array
        Inputs by name, for each run.
    folder : Path, optional
        Folder of external weights.

    Raises
    ------
    ModelError
        If onnxruntime rejects the model with all its values as outputs, or fails to run it.
    """
    copy = model.clone()
    values = [
        (node, v)
        for node in copy.graph
        for v in node.outputs
        if v.name and (v.dtype is None or v.dtype.is_floating_point()) and not node.domain
    ]
    for _, v in values:
        v.shape = None
        if not v.is_graph_output():
            copy.graph.outputs.append(v)
    session = Session(copy, folder=folder, providers=["cpu"], optimise=False)
    for i, feeds in enumerate(runs):
        found = session.run(dict(feeds))
        for node, v in values:
            if v.name in found and found[v.name].dtype.kind == "f" and not np.isfinite(found[v.name]).all():
                return i, node
    return None
