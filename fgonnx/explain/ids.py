"""Ids of tokens among the inputs: those that the model has, and the rows that they select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.normal.cut import selecting
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import InputError

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


def check(where: str, r: Rewritten, arrays: dict[str, Array]) -> None:
    """Check ids, and give whole numbers beside them the types of their inputs; the arrays are changed.

    Raises
    ------
    InputError
        They are no whole numbers, are none at all, or the model has no row for one of them.
    """
    name = r.normal.given
    array = arrays[name]
    if array.dtype.kind == "f" and (wrong := not_whole(array)) is not None:
        raise InputError(f"{where}: the ids '{name}' hold {wrong}; ids are whole numbers")
    if array.dtype.kind not in "iuf":
        raise InputError(
            f"{where}: the ids '{name}' are no array of whole numbers (it is of {array.dtype}); texts of several "
            "lengths are padded to one, or given one at a time"
        )
    if not array.size:
        raise InputError(f"{where}: the ids '{name}' of the shape {array.shape} hold no tokens; give at least one")
    if r.normal.vocabulary is not None:
        least, most = r.normal.vocabulary
        outside = (array < least) | (array > most)
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            raise InputError(
                f"{where}: the ids '{name}' hold {int(array[at])} at {at}, and the model's table has the ids 0 to "
                f"{most}; encode the text with the tokenizer that the model was trained with"
            )
    kinds = {str(v.name): dtype_of(v).numpy() for v in r.model.graph.inputs}
    for key, given in arrays.items():
        wanted = kinds[key]
        if given.dtype != wanted and given.dtype.kind in "iub" and (key == name or wanted.kind in "iu"):
            limits = np.iinfo(wanted) if wanted.kind in "iu" else None
            if limits is None or not given.size or (limits.min <= given.min() and given.max() <= limits.max):
                arrays[key] = given.astype(wanted)


def not_whole(array: Array) -> str | None:
    """Say which floating-point number is no whole one, the first of them, and where; None where all are whole."""
    wrong = ~np.isfinite(array) | (array != np.rint(array))
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{array[at]} at {at[0] if len(at) == 1 else at}"


class Rows:
    """Computes the rows that ids select, for methods that vary them.

    Parameters
    ----------
    r : Rewritten
        A graph that takes the rows as an input of its own.
    running : Running
        How models run.
    folder : path, optional
        Folder of external weights.
    """

    def __init__(self, r: Rewritten, running: Running, folder: Any) -> None:
        self._model = selecting(r.normal)
        self._names = [str(v.name) for v in self._model.graph.inputs]
        self._given, self._batched = r.normal.given, r.normal.batched
        self._dtype = dtype_of(r.normal.x).numpy()
        self._session: Session = running.session(self._model, folder)

    def __call__(self, fed: Feeds) -> Array:
        """Return the rows of ids, among inputs by name; one sample after the other where the graph takes no batch."""
        count = len(fed[self._given])
        step = count if self._batched else 1
        found = []
        for start in range(0, count, step):
            part = {
                name: fed[name][start : start + step] if fed[name].ndim and len(fed[name]) == count else fed[name]
                for name in self._names
            }
            found.append(next(iter(self._session.run(part).values())))
        return np.concatenate(found).astype(self._dtype)


def of_the_source(r: Rewritten, fed: Feeds) -> tuple[Rewritten, dict[str, Array]]:
    """Return a rewritten graph and its inputs as those of the source: without the rows that are varied."""
    name = r.normal.input_name
    if name == r.normal.given:
        return r, dict(fed)
    return replace(r, normal=replace(r.normal, input_name=r.normal.given)), {k: v for k, v in fed.items() if k != name}
