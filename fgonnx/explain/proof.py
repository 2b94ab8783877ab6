"""A written file is run before it gets its name: what it computes is held against its source."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fgonnx.engine.graph.probe import random_feeds
from fgonnx.engine.graph.session import run_file
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.training import random_values
from fgonnx.engine.rewrite.outputs import TARGET_INPUT
from fgonnx.errors import FgonnxError, NumericError
from fgonnx.explain.source import allowed_difference, as_defined, difference, parting

Feeds = dict[str, npt.NDArray[Any]]

_SIZES = (32, 64, 224, 8)
"""Sizes that are tried where a file leaves them free."""


def prover(source: LoadedModel, proto: onnx.ModelProto) -> Callable[[Path], None]:
    """Return the function that holds a written file against its source, for `save`.

    Parameters
    ----------
    source : LoadedModel
        The model that was rewritten.
    proto : onnx.ModelProto
        What is written.

    Returns
    -------
    callable
        Takes the path of the file. Raises `ModelError` where onnxruntime does not take it, `NumericError` where one of
        the source's outputs is another one there, on a seeded random input. A source that runs on none of the inputs
        that are tried says nothing.
    """

    def prove(path: Path) -> None:
        known = {p.key: p.value for p in proto.metadata_props}
        drawn = {v.name for v in random_values(source.ir.graph)}
        names = [name for name in json.loads(known["fgonnx.source_outputs"]) if name not in drawn]
        x = next((v for v in source.ir.graph.inputs if v.name == known["fgonnx.input"]), None)
        if x is None or not names:
            run_file(path, None, ())
            return
        if not _same_sizes(x, proto):  # samples of a fixed batch are explained one by one
            run_file(path, None, ())
            return
        fed, expected = _example(source, x, proto, names)
        found = run_file(path, None if fed is None else fed | _own_inputs(proto, fed), names)
        allowed = allowed_difference(source.ir.graph)
        for name in names if fed is not None else ():
            if difference(np.atleast_1d(found[name]), np.atleast_1d(expected[name])) > allowed:
                raise NumericError(
                    f"{parting(source, name, found[name], expected[name])}. The file is not written; please report the "
                    "model"
                )

    return prove


def _example(source: LoadedModel, x: ir.Value, proto: onnx.ModelProto, names: list[str]) -> tuple[Feeds | None, Feeds]:
    """Return inputs on which the source runs, and its outputs; None where none was found."""
    session = as_defined(source.ir, source.folder)
    for shape in _shapes(x, proto):
        try:
            fed = _of_written_sizes(random_feeds(source.ir.graph, x, shape, 1), proto)
            return fed, session.run(dict(fed), names)
        except FgonnxError:
            continue
    return None, {}


def _of_written_sizes(fed: Feeds, proto: onnx.ModelProto) -> Feeds:
    """Return values of the sizes that the written file fixes."""
    written = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    return {
        name: np.resize(array, [w if w > 0 else s for w, s in zip(written[name], array.shape, strict=True)])
        if len(written.get(name, ())) == array.ndim
        else array
        for name, array in fed.items()
    }


def _same_sizes(x: ir.Value, proto: onnx.ModelProto) -> bool:
    written = next(v for v in proto.graph.input if v.name == x.name).type.tensor_type.shape.dim
    sizes = [d.dim_value for d in written]
    own = dims_of(x)
    return len(own) == len(sizes) and all(
        w < 1 or not isinstance(d, int) or d == w for d, w in zip(own, sizes, strict=True)
    )


def _shapes(x: ir.Value, proto: onnx.ModelProto) -> Iterator[tuple[int, ...]]:
    """Yield shapes to try: the first free size is the batch, where the written file fixes the others or does not."""
    written = next(v for v in proto.graph.input if v.name == x.name)
    fixed = [d.dim_value if d.dim_value > 0 else None for d in written.type.tensor_type.shape.dim]
    dims = [d if isinstance(d, int) else w for d, w in zip(dims_of(x), fixed or dims_of(x), strict=False)]
    free = [i for i, d in enumerate(dims) if d is None]
    for size in _SIZES if len(free) > 1 or (free and free[0]) else (1,):
        yield tuple(d if isinstance(d, int) else 1 if i == free[0] and not i else size for i, d in enumerate(dims))


def _own_inputs(proto: onnx.ModelProto, fed: Feeds) -> Feeds:
    """Return values of the inputs that fgonnx added and that need one."""
    given = {t.name for t in proto.graph.initializer} | set(fed)
    found = {}
    for v in (v for v in proto.graph.input if v.name not in given):
        shape = [d.dim_value if d.dim_value > 0 else 1 for d in v.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
        found[v.name] = np.full(shape, -1 if v.name == TARGET_INPUT else 0, dtype)
    return found
