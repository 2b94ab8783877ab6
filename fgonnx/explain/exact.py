"""The model as it was loaded, on exactly the arrays that were given: what an explanation's outputs must be.

How fgonnx splits a batch, turns and fills it up is left out here, so that a mistake in it cannot be made twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.arrangement import Arrangement
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.quantised import is_quantised
from fgonnx.engine.normal.training import random_values
from fgonnx.engine.normal.whole import no_batch
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import ModelError, NumericError
from fgonnx.explain.source import (
    ADVICE,
    MOST,
    allowed_difference,
    as_defined,
    difference,
    hold_against_source,
    parting,
    score_apart,
)
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

_LEAST = 1e-2
"""Of the largest value of all samples, what a sample's own values are measured by at least."""


class Witness:
    """Runs a model as it was loaded, beside its explanation.

    Parameters
    ----------
    loaded : LoadedModel
        The model, with samples first or as it was loaded, and with the values that are bound.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._frame = loaded.arrangement or Arrangement()
        self._model = loaded.own or loaded.ir
        self._graph = self._model.graph
        self._sessions: dict[str, Session] = {}

    def _session(self, inner: str) -> Session:
        """Return a session that gives an inner value, too ("" for none)."""
        if inner not in self._sessions:
            self._sessions[inner] = as_defined(self._model, self._loaded.folder, inner)
        return self._sessions[inner]

    def hold(self, loaded: LoadedModel, r: Rewritten, fed: Feeds, results: Feeds, *, first: bool) -> dict[str, Array]:
        """Hold results against the source: outputs once, on the arrays as they were given or samples first.

        Parameters
        ----------
        loaded : LoadedModel
            The model with samples first.
        r, fed, results
            As for `compare`.
        first : bool
            Whether it is the first time for a size: then everything is compared, later what samples might influence.

        Returns
        -------
        dict of str to numpy array
            As of `compare`.

        Raises
        ------
        NumericError
            An output or the score differs.
        """
        found: dict[str, Array] = {}
        needed = self.needed(r, len(fed[r.normal.input_name]), first=first)
        if needed:
            try:
                found = self.compare(r, fed, results)
            except NumericError:
                if first:
                    hold_against_source(loaded, r, fed, results)  # which names the first node that parts
                raise
        if first:
            hold_against_source(loaded, r, fed, results, outputs=not needed)
        return found

    def needed(self, r: Rewritten, count: int, *, first: bool) -> bool:
        """Tell whether outputs of `count` samples are to be compared.

        Always, unless the graph proves that no sample depends on another, or the model takes one sample at a time. What
        is proved is compared once where samples were turned or there are several inputs. Where sizes follow from
        values, what held for one input says nothing of the next: all are compared.
        """
        if r.normal.sized:
            return True
        several = len(free_inputs(self._graph)) > 1
        if r.normal.independent and not several:
            return first and (bool(self._frame.inputs or self._frame.outputs) or self._loaded.own is not None)
        if r.normal.independent or count == 1:
            return first
        alone = not r.normal.batched and self._frame.filled == 1
        return several or not alone or self._batch(r.normal.input_name) not in (1, None)

    def compare(self, r: Rewritten, fed: Feeds, results: Feeds) -> dict[str, Array]:
        """Compare the outputs of an explanation with those of the model on the same arrays.

        Parameters
        ----------
        r : Rewritten
            The rewritten graph.
        fed : mapping of str to numpy array
            Its inputs, samples first.
        results : mapping of str to numpy array
            The model's outputs, score and target as they were computed of them, samples first.

        Returns
        -------
        dict of str to numpy array
            Outputs that are not what is explained, where they are of all samples together: the model's own.

        Raises
        ------
        NumericError
            One differs in shape, or in value beyond rounding.
        """
        frame, count = self._frame, len(fed[r.normal.input_name])
        own = {
            name: np.asarray(frame.back(frame.inputs.get(name, 0), array))
            for name, array in fed.items()
            if name not in (r.selector, r.contrast)
        }
        ours = {n: frame.back(frame.outputs.get(n, 0), a) for n, a in results.items() if n in r.source_outputs}
        if r.normal.independent and count > MOST and len(own) == 1 and frame.axis is not None:
            name, array = next(iter(own.items()))
            own = {name: np.take(array, range(MOST), frame.axis)}
            ours = {n: _part(a, frame.outputs.get(n, 0), count, MOST) for n, a in ours.items()}
            count = MOST
        inner = r.head if r.options.output not in (None, *r.source_outputs) and self._holds(r.head) else ""
        theirs = self._run(own, r.normal.input_name, count, inner)
        replaced: dict[str, Array] = {}
        drawn = {v.name for v in random_values(self._graph)}
        for name, array in ours.items():
            if name in drawn or self._same(array, theirs[name], name, r):
                continue
            if not inner and name == _explained(r, theirs):
                raise NumericError(f"{parting(self._loaded, name, array, theirs[name])}{self._reason(count)}")
            place = frame.outputs.get(name, 0)
            replaced[name] = np.moveaxis(theirs[name], place, 0) if place else theirs[name]
        if inner and "score" in r.names:
            for name, array, other in score_apart(r, results, theirs[inner], count, allowed_difference(self._graph)):
                raise NumericError(f"{parting(self._loaded, name, array, other)}{self._reason(count)}")
        return replaced

    def _holds(self, name: str) -> bool:
        return any(v.name == name for node in self._graph for v in node.outputs)

    def _run(self, own: dict[str, Array], explained: str, count: int, inner: str) -> dict[str, Array]:
        """Run all samples together; one by one where the model does not take them so."""
        session = self._session(inner)
        try:
            return session.run(own)
        except ModelError as error:
            refused = error
        try:
            parts = [session.run(one) for one in self._alone(own, explained, count)]
        except ModelError:
            raise NumericError(
                f"{self._loaded.name}: the source model does not run on the input that was explained, neither on all "
                f"of it nor on one sample after the other, so its explanation cannot be held against it: {refused}"
            ) from refused
        declared = self._batch(explained)
        taken = declared if isinstance(declared, int) else 1
        joined = {}
        for name in parts[0]:
            place = self._frame.outputs.get(name, 0)
            arrays = [_part(np.atleast_1d(part[name]), place, taken, 1) for part in parts]
            if place is None:
                joined[name] = np.stack(arrays) if count > 1 else arrays[0]
            else:
                joined[name] = np.concatenate(arrays, axis=place)
        return joined

    def _alone(self, own: dict[str, Array], explained: str, count: int) -> Iterator[dict[str, Array]]:
        """Yield the inputs of every sample, of the sizes that the model declares."""
        declared = {str(v.name): dims_of(v) if v.shape is not None else () for v in free_inputs(self._graph)}
        places = {name: self._place(name, array, declared, explained) for name, array in own.items()}
        for i in range(count):
            one = {}
            for name, array in own.items():
                place, dims = places[name], declared.get(name, ())
                if array.ndim == len(dims) + 1:
                    one[name] = np.asarray(array[i])
                elif place is None:
                    one[name] = array
                else:
                    size = dims[place]
                    part = np.take(array, [i if array.shape[place] == count else 0], place)
                    one[name] = np.repeat(part, size if isinstance(size, int) else 1, place)
            yield one

    def _place(self, name: str, array: Array, declared: Mapping[str, Any], explained: str) -> int | None:
        """Return the axis along which an input has samples: another size than declared, or the batch's symbol."""
        dims = declared.get(name, ())
        if name == explained:
            return self._frame.axis
        other = [i for i, (d, s) in enumerate(zip(dims, array.shape, strict=False)) if isinstance(d, int) and d != s]
        batch = self._frame.axis
        symbol = declared[explained][batch] if batch is not None else 0
        if not isinstance(symbol, int) and symbol.value is not None:
            other += [i for i, d in enumerate(dims) if not isinstance(d, int) and d.value == symbol.value]
        return other[0] if len(other) == 1 else None

    def _batch(self, explained: str) -> int | ir.SymbolicDim | None:
        """Return the declared size of the batch; None without one."""
        x = next((v for v in self._graph.inputs if v.name == explained), None)
        axis = self._frame.axis
        return dims_of(x)[axis] if x is not None and x.shape is not None and axis is not None else None

    def _same(self, ours: Array, theirs: Array, name: str, r: Rewritten) -> bool:
        if np.squeeze(ours).shape != np.squeeze(theirs).shape:
            return False
        allowed, place = allowed_difference(self._graph), self._frame.outputs.get(name, 0)
        quantised = is_quantised(self._graph) and not r.normal.batched and ours.shape == theirs.shape
        if quantised and ours.ndim and place is not None:  # one scale for all: small samples show what it does to them
            rows, truth = np.moveaxis(ours, place, 0), np.moveaxis(theirs, place, 0)
            if truth.dtype.kind == "f":
                least = _LEAST * float(np.abs(truth).max(initial=0.0))
                apart = np.abs(rows - truth).reshape(len(rows), -1).max(axis=1, initial=0.0)
                sizes = np.abs(truth).reshape(len(rows), -1).max(axis=1, initial=least)
                return bool((apart <= allowed * sizes + 1e-6).all())
        return difference(ours, theirs) <= allowed

    def _reason(self, count: int) -> str:
        """Return why a comparison of so many samples may fail, and what to do."""
        if count == 1:
            return f". {ADVICE}"
        joining = [
            n for n in ir.traversal.RecursiveGraphIterator(self._graph) if n.op_type.startswith("DynamicQuantize")
        ]
        if joining:
            first = f"'{joining[0].name or joining[0].outputs[0].name}' ({joining[0].op_type})"
            which = f"{first}, and {len(joining) - 1} more, take" if len(joining) > 1 else f"{first} takes"
            return (
                f": {which} one scale for all samples of a batch, so that the model's outputs for one depend on the "
                "others. No explanation is given. Give one sample at a time; verify=False (--no-verify) explains every "
                "sample with a scale of its own"
            )
        return f"{self._together()}. {ADVICE}"

    def _together(self) -> str:
        whole = no_batch(self._loaded, self._frame.explained) if self._frame.explained else ""
        if len(free_inputs(self._graph)) > 1 or self._loaded.bound:
            return (
                ": its samples influence each other, or the rows of another input are not those of the samples. Give "
                f"one sample at a time, or bind inputs that have no row for each sample ({parameter('bind')}){whole}"
            )
        either = ", or its first axis is no batch" if whole else ""
        return f": its samples influence each other{either}. Give one sample at a time{whole}"


def _explained(r: Rewritten, outputs: Mapping[str, Array]) -> str:
    """Return the output that is computed from the head: the one chosen, else the first floating-point one."""
    if r.options.output in outputs:
        return str(r.options.output)
    return next((n for n in r.source_outputs if outputs[n].dtype.kind == "f"), r.source_outputs[0])


def _part(array: Array, place: int | None, of: int, count: int) -> Array:
    """Return the rows of the first `count` of `of` samples."""
    if place is None or array.ndim <= place or array.shape[place] % of:
        return array
    return np.take(array, range(array.shape[place] // of * count), place)
