"""Runs of a model that tell which axis of an input is the batch, and which axes of the outputs answer to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph import probe
from fgonnx.engine.graph.session import Session
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.arrangement import Place
from fgonnx.engine.model.inputs import described, free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.rows import alike, doubled, free, mixing, position, row_of
from fgonnx.errors import ModelError

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

_SIZES = (32, 64, 224, 9)
"""Sizes that are tried where they are free and not given."""
_ELSEWHERE = ((2, 0.5), (4, 3.0), (6, 3.0))
"""Where a fixed batch is tried again: seeds, and the spread of the input around zero."""
_MOST = 1 << 23  # numbers that are fed at most


class Trials:
    """Runs of a model as it was given, on seeded inputs.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    x : ir.Value
        The explained input.
    shape : sequence of int, optional
        Its sizes, where they are free.
    output : str, optional
        The explained output.

    Attributes
    ----------
    head : str
        The explained output, or the first one where that is none of the model's.
    """

    def __init__(self, loaded: LoadedModel, x: ir.Value, shape: Sequence[int] | None, output: str | None) -> None:
        self._loaded, self._x = loaded, x
        fits = shape is not None and len(shape) == len(dims_of(x))
        self._shape = tuple(shape) if fits and shape is not None else None
        tensors = [v for v in loaded.ir.graph.outputs if v.type is None or isinstance(v.type, ir.TensorType)]
        self._outputs = [str(v.name) for v in tensors]
        floating = [str(v.name) for v in tensors if v.dtype is None or v.dtype.is_floating_point()]
        self.head = output if output in self._outputs else (floating or self._outputs or [""])[0]
        self._tied: dict[str, int] = {}
        self._single: set[int] = set()
        self._joined: dict[int, dict[str, int]] = {}
        self._answered: dict[int, dict[str, int]] = {}

    @cached_property
    def _session(self) -> Session:
        return Session(self._loaded.ir, folder=self._loaded.folder, providers=["cpu"], optimise=False)

    @cached_property
    def _entries(self) -> dict[str, int]:
        """Other inputs' own free first axes beside a fixed batch, in a number that is not that of the samples."""
        dims = dims_of(self._x)
        if dims[0] == 1 or not all(isinstance(d, int) for d in dims):
            return {}
        others = [v for v in free_inputs(self._loaded.ir.graph) if v.shape is not None and v.shape.rank()]
        symbols = {symbol for v in others if (symbol := self._symbol(v, 0)) is not None}
        found = dict.fromkeys(symbols, 16 if dims[0] != 16 else 17)
        try:
            if found:
                self._run(self._feeds(1, found))
        except ModelError:
            return {}
        return found

    @cached_property
    def _size(self) -> int | None:
        """A size for all that is free with which the model runs; None if there is none among those tried."""
        for size in _SIZES:
            if sum(math.prod(shape) for shape in self._shapes(size, {}).values()) > _MOST:
                continue
            try:
                self._run(self._feeds(size, self._entries))
            except ModelError:
                continue
            return size
        return None

    @property
    def runs(self) -> bool:
        """Whether the model runs on the sizes that are given, or on some."""
        try:
            return self._size is not None
        except ModelError:
            return False

    def _run(self, feeds: Feeds) -> Feeds:
        return self._session.run(feeds, self._outputs)

    def _symbol(self, v: ir.Value, axis: int) -> str | None:
        d = dims_of(v)[axis]
        if isinstance(d, int):
            return None
        if self._tied.get(str(v.name)) == axis:
            v, axis = self._x, self._tied[str(self._x.name)]
            d = dims_of(v)[axis]
        return str(d.value) if not isinstance(d, int) and d.value is not None else f"{v.name}:{axis}"

    def _shapes(self, size: int, symbols: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Return the sizes of inputs: `symbols` says the size of free axes, `size` that of other ones of the input."""
        known = dict(symbols)
        if self._shape is not None:
            for i, given in enumerate(self._shape):
                symbol = self._symbol(self._x, i)
                if symbol is not None:
                    known.setdefault(symbol, int(given))
        for i in range(len(dims_of(self._x))):
            if (symbol := self._symbol(self._x, i)) is not None:
                known.setdefault(symbol, size)
        return {
            str(v.name): tuple(
                d if isinstance(d, int) else known.get(self._symbol(v, i) or "", 1)
                for i, d in enumerate(dims_of(v) if v.shape is not None else ())
            )
            for v in free_inputs(self._loaded.ir.graph)
        }

    def _feeds(self, size: int, symbols: Mapping[str, int], seed: int = 0) -> Feeds:
        """Return seeded inputs, of the sizes that `_shapes` returns."""
        rng = np.random.default_rng(seed)
        feeds: Feeds = {}
        shapes, graph = self._shapes(size, symbols), self._loaded.ir.graph
        for v in free_inputs(graph):
            name, dtype = str(v.name), v.dtype or ir.DataType.FLOAT
            if dtype.is_floating_point():
                feeds[name] = probe.floats(rng, graph, v, shapes[name])
            else:
                feeds[name] = probe.whole_numbers(rng, graph, v, shapes[name], self._x)
        return feeds

    def joins(self, axis: int) -> bool:
        """Tell whether two samples side by side along an axis of free size give what they give alone."""
        return self.joined(axis) is not None

    def joined(self, axis: int) -> int | None:
        """Return the axis of the explained output along which they lie side by side; None without."""
        if axis not in self._joined:
            try:
                self._joined[axis] = self._join(axis)
            except ModelError:
                self._joined[axis] = {}
        return self._joined[axis].get(self.head)

    def takes_one(self, axis: int) -> bool:
        """Tell whether the model runs on one entry along an axis of free size, but not on two."""
        self.joins(axis)
        return axis in self._single

    @property
    def shared(self) -> bool:
        """Whether other inputs may have a row for every entry of the first axis, though their names do not say so."""
        known = {d.value for d in dims_of(self._x) if not isinstance(d, int) and d.value is not None}
        if not known.issuperset(d.value for d in dims_of(self._x)[:1] if not isinstance(d, int)):
            return len(free_inputs(self._loaded.ir.graph)) > 1
        return any(
            v.shape is None or any(not isinstance(d, int) and d.value not in known for d in v.shape.dims)
            for v in free_inputs(self._loaded.ir.graph)
            if v.name != self._x.name
        )

    def tie(self, axis: int) -> dict[str, int]:
        """Return which unnamed axes of other inputs, behind their first, are the batch: tried together, or none."""
        graph, d = self._loaded.ir.graph, dims_of(self._x)[axis]
        if isinstance(d, int) or d.value is not None:
            return {}
        tied: dict[str, int] = {}
        for v in free_inputs(graph):
            dims = v.shape.dims if v.shape is not None and v.name != self._x.name else ()
            unnamed = [i for i, size in enumerate(dims) if not isinstance(size, int) and size.value is None]
            if len(unnamed) == 1 and unnamed[0]:
                tied[str(v.name)] = unnamed[0]
        if not tied:
            return {}
        self._tied = {**tied, str(self._x.name): axis}
        self._joined.pop(axis, None)
        if self.joins(axis):
            return tied
        self._tied = {}
        self._joined.pop(axis, None)
        return {}

    def _join(self, axis: int) -> dict[str, int]:
        symbol, size = self._symbol(self._x, axis), self._size
        if symbol is None or size is None:
            return {}
        alone = [self._feeds(size, {symbol: 1}, seed) for seed in (0, 1)]
        places = {
            str(v.name): i
            for v in free_inputs(self._loaded.ir.graph)
            for i in range(len(dims_of(v)) if v.shape is not None else 0)
            if self._symbol(v, i) == symbol
        }
        both = {
            k: np.concatenate([one[k] for one in alone], axis=places[k]) if k in places else array
            for k, array in alone[0].items()
        }
        alone[1] = {k: array if k in places else alone[0][k] for k, array in alone[1].items()}
        first, second = self._run(alone[0]), self._run(alone[1])
        self._single.add(axis)
        joined = self._run(both)
        self._single.discard(axis)
        found = {}
        for name in self._outputs:
            place = doubled(first[name], second[name], joined[name])
            if place is not None:
                found[name] = place
        return found

    def apart(self, axis: int, names: Sequence[str]) -> list[str]:
        """Return which other inputs, with a free first axis of their own, the head takes whole: keys, or a gallery.

        The head has then one row for each sample, whatever the number of entries of the other input.
        """
        inputs = {str(v.name): v for v in free_inputs(self._loaded.ir.graph)}
        asked = {name: self._symbol(inputs[name], 0) for name in names}
        symbols = sorted({symbol for symbol in asked.values() if symbol is not None})
        for tried in ([symbols] if symbols[1:] else []) + [[symbol] for symbol in symbols]:
            try:
                if self._whole(axis, tried):
                    return [name for name, symbol in asked.items() if symbol in tried]
            except ModelError:
                continue
        return []

    def _whole(self, axis: int, symbols: Sequence[str]) -> bool:
        """Tell whether the head has a row for each sample beside three entries of other axes."""
        batch, size = self._symbol(self._x, axis), self._size
        if size is None or batch in symbols:
            return False
        beside = dict.fromkeys(symbols, 3)
        if batch is None:
            if dims_of(self._x)[axis] != 1:
                return bool(self._entries) and self.answer(axis) is not None
            return self._run(self._feeds(size, beside))[self.head].shape[:1] == (1,)
        both, one = (self._feeds(size, {**beside, batch: count}) for count in (2, 1))
        at = {k: np.not_equal(v.shape, one[k].shape).nonzero()[0] for k, v in both.items()}
        alone = [
            self._run({k: np.take(v, [i], int(at[k][0])) if len(at[k]) else v for k, v in both.items()}) for i in (0, 1)
        ]
        first, second, joined = (run[self.head] for run in (*alone, self._run(both)))
        return doubled(first, second, joined) is not None

    def answer(self, axis: int) -> int | None:
        """Return the axis of the explained output whose rows answer to the samples of a fixed batch; None without."""
        return self._answers(axis).get(self.head)

    def _answers(self, axis: int) -> dict[str, int]:
        if axis not in self._answered:
            try:
                self._answered[axis] = self._perturb(axis)
            except ModelError:
                self._answered[axis] = {}
        return self._answered[axis]

    @cached_property
    def _points(self) -> list[tuple[Feeds, Feeds]]:
        """Pairs of inputs at which a fixed batch is tried: what chooses, or saturates, shows at some of them alone."""
        found = []
        for seed, spread in ((0, 0.0), *_ELSEWHERE):
            far = 3 * spread  # so that the largest of all may be another one
            pair = [
                self._spread(self._feeds(self._size or 1, self._entries, s), s, r)
                for s, r in ((seed, spread), (seed + 1, far))
            ]
            try:
                if spread:
                    self._run(pair[0])
            except ModelError:  # places in a table that is smaller
                continue
            found.append((pair[0], pair[1]))
        return found

    def _spread(self, feeds: Feeds, seed: int, spread: float) -> Feeds:
        """Return other inputs: to both sides of zero, and 0 or 1 where whole numbers are given beside."""
        if not spread:
            return feeds
        rng = np.random.default_rng(seed)
        return {
            k: rng.normal(0.0, spread, v.shape).astype(v.dtype)
            if v.dtype.kind == "f"
            else v
            if k == self._x.name
            else rng.integers(0, 2, v.shape).astype(v.dtype)
            for k, v in feeds.items()
        }

    def _perturb(self, axis: int) -> dict[str, int]:
        """Return the axes that answer at every point."""
        count = dims_of(self._x)[axis]
        if self._size is None or not isinstance(count, int):
            return {}
        found: dict[str, int] | None = None
        for feeds, other in self._points:
            there = self._perturbed(axis, count, feeds, other)
            found = there if found is None else {n: place for n, place in found.items() if there.get(n) == place}
            if not found:
                break
        return found or {}

    def _perturbed(self, axis: int, count: int, feeds: Feeds, other: Feeds) -> dict[str, int]:
        """Return which axis of every output answers to the first and the last sample at one point."""
        name = str(self._x.name)
        clean = self._run(feeds)
        changed = []
        for i in (0, count - 1):
            x = feeds[name].copy()
            at = (slice(None),) * axis + (i,)
            x[at] = other[name][at]
            changed.append(self._run({**feeds, name: x}))
        found = {}
        for output in self._outputs:
            place = row_of(clean[output], [c[output] for c in changed], count)
            if place is not None:
                found[output] = place
        return found

    def refuse_mixing(self, axis: int, layout: str) -> None:
        """Refuse a fixed batch whose samples influence each other, or do not all stand for the same.

        Messages name a layout that makes one sample of all, if there is one.

        Raises
        ------
        ModelError
            No axis of the explained output answers to the samples, or the result depends on the place of a sample.
        """
        if not self.runs:
            return
        if self.answer(axis) is None:
            raise ModelError(mixing(self._loaded.name, self.head, described([self._x]), layout))
        # A sample that is repeated takes the first place of the batch: all places have to be alike.
        count = dims_of(self._x)[axis]
        if self.head not in self._alike(axis):
            raise ModelError(
                f"{self._loaded.name}: the result for a sample depends on its place in the batch of {count} that the "
                f"input {described([self._x])} holds: constants of the model differ from place to place; export it "
                "with batch size 1 or a free one"
            )

    def _alike(self, axis: int) -> dict[str, int]:
        """Return the axes of those outputs that answer to the samples, wherever in a fixed batch these are."""
        count = dims_of(self._x)[axis]
        assert isinstance(count, int)
        places = self.positions(axis)
        found = dict(self._answers(axis))
        for feeds, _ in self._points:
            clean = self._run(feeds)
            rolled = self._run({k: np.roll(v, 1, places[k]) if k in places else v for k, v in feeds.items()})
            found = {
                name: place
                for name, place in found.items()
                if alike(rolled[name], np.roll(clean[name], clean[name].shape[place] // count, place))
            }
        return found

    def places(self, axis: Place) -> dict[str, Place]:
        """Return which axis of every output answers to the batch."""
        graph = self._loaded.ir.graph
        if axis is None:
            return {
                str(v.name): 0 if v.shape is not None and v.shape.rank() and v.shape.dims[0] == 1 else None
                for v in graph.outputs
                if v.name in self._outputs
            }
        symbol = self._symbol(self._x, axis)
        if symbol is None:
            return dict(self._answers(axis)) if dims_of(self._x)[axis] != 1 else {}
        found: dict[str, Place] = {}
        for v in graph.outputs:
            dims = v.shape.dims if v.shape is not None else ()
            same = [i for i, d in enumerate(dims) if not isinstance(d, int) and d.value == symbol]
            if len(same) == 1:
                found[str(v.name)] = same[0]
        if (axis or self._tied) and any(name not in found for name in self._outputs):
            self.joins(axis)
        return {**self._joined.get(axis, {}), **found}

    def positions(self, axis: int) -> dict[str, int]:
        """Return which axis of every input is a fixed batch, of those that have it."""
        name, count = str(self._x.name), dims_of(self._x)[axis]
        assert isinstance(count, int)
        found = {str(v.name): position(v, name, axis, count) for v in free_inputs(self._loaded.ir.graph)}
        return {k: place for k, place in found.items() if place is not None}

    def rows(self, axis: int) -> dict[str, int]:
        """Return how many rows of every output belong to one sample of a fixed batch, wherever in it that is."""
        count = dims_of(self._x)[axis]
        places = self._alike(axis)
        assert isinstance(count, int)
        clean = self._run(self._feeds(self._size or 1, self._entries))
        return {name: clean[name].shape[place] // count for name, place in places.items()}

    def freed(self, axis: int) -> ir.Model | None:
        """Return the model with a fixed batch made free, if it then gives the same for any number of samples."""
        count, size = dims_of(self._x)[axis], self._size
        if size is None or not isinstance(count, int) or self.answer(axis) is None:
            return None
        model = self._loaded.ir.clone()
        free(model, str(self._x.name), axis, count)
        placed = self.positions(axis)
        try:
            session = Session(model, folder=self._loaded.folder, providers=["cpu"], optimise=False)
            if all(self._holds(session, feeds, axis, count, placed) for feeds, _ in self._points):
                return model
        except ModelError:
            pass
        return None

    def _holds(self, session: Session, feeds: Feeds, axis: int, count: int, placed: Mapping[str, int]) -> bool:
        """Tell whether a model of free batch gives, for all samples and for one alone, what the fixed one does."""
        truth, whole = self._run(feeds), session.run(feeds, self._outputs)
        alone = [
            session.run({k: np.take(v, [i], placed[k]) if k in placed else v for k, v in feeds.items()}, self._outputs)
            for i in range(min(count, 3))
        ]
        for name in self._outputs:
            place = self._answers(axis).get(name)
            if place is None or not alike(whole[name], truth[name]):
                return False
            rows = truth[name].shape[place] // count
            for i, one in enumerate(alone):
                if not alike(one[name], np.take(truth[name], range(i * rows, (i + 1) * rows), place)):
                    return False
        return True
