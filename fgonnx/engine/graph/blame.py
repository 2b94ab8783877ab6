"""The first value of a graph that goes wrong: NaN and infinity, or another number than in a second graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.session import Session


def first_not_finite(
    model: ir.Model,
    runs: Iterable[Mapping[str, npt.NDArray[Any]]],
    folder: Path | None = None,
    allowed: Collection[float] = (),
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
    allowed : collection of float
        Infinities that are none of it, as in masks.

    Raises
    ------
    ModelError
        If onnxruntime rejects the model with all its values as outputs, or fails to run it.
    """
    copy = model.clone()
    values = _exposed(copy, {v.name for node in copy.graph for v in node.outputs if not node.domain})
    session = Session(copy, folder=folder, providers=["cpu"], optimise=False)
    for i, feeds in enumerate(runs):
        found = session.run(dict(feeds))
        for node, v in values:
            array = found.get(str(v.name))
            if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            if not np.isin(array[~np.isfinite(array)], list(allowed)).all():
                return i, node
    return None


def first_zero(
    model: ir.Model,
    runs: Iterable[Mapping[str, npt.NDArray[Any]]],
    op_types: Collection[str],
    folder: Path | None = None,
) -> tuple[int, ir.Node] | None:
    """Return the first run, and the first node of some operators in it, whose result holds a zero.

    Parameters
    ----------
    model : ir.Model
        The model; it is not changed.
    runs : iterable of mapping of str to numpy array
        Inputs by name, for each run.
    op_types : collection of str
        Which operators to look at.
    folder : Path, optional
        Folder of external weights.

    Raises
    ------
    ModelError
        If onnxruntime rejects the model with these values as outputs, or fails to run it.
    """
    copy = model.clone()
    looked_at = [node for node in copy.graph if node.op_type in op_types and not node.domain]
    values = _exposed(copy, {v.name for node in looked_at for v in node.outputs})
    session = Session(copy, folder=folder, providers=["cpu"], optimise=False)
    for i, feeds in enumerate(runs):
        found = session.run(dict(feeds))
        for node, v in values:
            if v.name in found and (found[v.name] == 0).any():
                return i, node
    return None


def first_difference(
    models: tuple[ir.Model, ir.Model],
    feeds: tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]],
    allowed: float,
    folder: Path | None = None,
) -> ir.Node | None:
    """Return the first node of a model whose result differs from the value of the same name in a second model.

    Parameters
    ----------
    models : pair of ir.Model
        The models; they are not changed.
    feeds : pair of mapping of str to numpy array
        Inputs of each, by name.
    allowed : float
        Difference relative to the largest value that is none.
    folder : Path, optional
        Folder of external weights.

    Raises
    ------
    ModelError
        If onnxruntime does not take a model with these values as outputs, or does not run it.
    """
    copies = [model.clone() for model in models]
    names = [{v.name for node in copy.graph for v in node.outputs} for copy in copies]
    values = [_exposed(copy, names[0] & names[1]) for copy in copies]
    first, second = (
        Session(copy, folder=folder, providers=["cpu"], optimise=False).run(dict(given))
        for copy, given in zip(copies, feeds, strict=True)
    )
    for node, v in values[0]:
        a, b = first.get(str(v.name)), second.get(str(v.name))
        if a is None or b is None or a.dtype.kind != "f":
            continue
        if a.size != b.size or np.abs(a - b.reshape(a.shape)).max(initial=0) > allowed * np.abs(a).max(initial=1e-3):
            return node
    return None


def _exposed(model: ir.Model, names: set[str | None]) -> list[tuple[ir.Node, ir.Value]]:
    """Make floating-point values outputs of a graph; return them with their nodes, in order."""
    values = [
        (node, v)
        for node in model.graph
        for v in node.outputs
        if v.name and v.name in names and (v.dtype is None or v.dtype.is_floating_point())
    ]
    for _, v in values:
        v.shape = None
        if not v.is_graph_output():
            model.graph.outputs.append(v)
    return values
