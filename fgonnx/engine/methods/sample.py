"""What a method is given that takes several runs: one sample, and a way to run the model on variations of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.maps.psi import ABS, POSITIVE
from fgonnx.errors import OptionError

Array = npt.NDArray[Any]
Compute = Callable[[ir.Model, dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Sample:
    """One sample, and a way to run the model on variations of it.

    Attributes
    ----------
    x : numpy array of float64, (1, ...)
        The explained input.
    index : int
        Its position in the batch; random draws depend on it and on the seed alone.
    layout : str
        Axes of the input.
    step : int
        Largest number of variations in one run.
    clean : mapping of str to numpy array
        Results of the graph for the sample itself, one row each.
    psi, profile : str
        Options of the explanation.
    run : callable
        Takes variations (n, ...), n up to `step`, and names of results of the graph; returns these, n rows each.
    compute : callable
        Takes another graph, of the method's own, and its inputs by name; returns its outputs by name.
    """

    x: Array
    index: int
    layout: str
    step: int
    clean: Mapping[str, Array]
    psi: str
    profile: str
    run: Callable[[Array, Sequence[str]], dict[str, Array]]
    compute: Compute

    @property
    def spatial(self) -> tuple[int, ...]:
        """Spatial axes of the input."""
        return tuple(i for i, letter in enumerate(self.layout[: self.x.ndim]) if letter in "DHWF")

    @property
    def grid(self) -> tuple[int, ...]:
        """Spatial sizes of the input."""
        return tuple(self.x.shape[i] for i in self.spatial)

    @property
    def score(self) -> float:
        """The score of the sample itself."""
        return float(self.clean["score"][0])

    def scores(self, variations: Array) -> Array:
        """Return the scores of variations (n, ...) of the sample, any number of them, as (n,) of float64."""
        return self._of_all(variations, "score")

    def gradients(self, variations: Array) -> Array:
        """Return the gradients of their scores with respect to the variations, (n, ...) of float64.

        Raises
        ------
        OptionError
            The method was registered without ``gradient=True``.
        """
        if "attribution" not in self.clean:
            raise OptionError("gradients are computed for methods that ask for them: @fgonnx.method(gradient=True)")
        return self._of_all(variations, "attribution")

    def _of_all(self, variations: Array, name: str) -> Array:
        given = np.asarray(variations, np.float64)
        if given.shape[1:] != self.x.shape[1:]:
            raise OptionError(f"variations have the shape (n, {str(self.x.shape[1:])[1:-1]}); this is {given.shape}")
        found = [self.run(given[part], [name])[name] for part in self.parts(len(given))]
        return np.concatenate(found).astype(np.float64) if found else np.empty((0,), np.float64)

    def parts(self, count: int) -> Iterator[slice]:
        """Split a number of variations into runs."""
        for start in range(0, count, self.step):
            yield slice(start, min(start + self.step, count))

    def generator(self, random_state: int) -> np.random.Generator:
        """Return a random generator for this sample."""
        return np.random.default_rng([random_state, self.index])

    def column(self, values: Array) -> Array:
        """Reshape one number per variation to (n, 1, ...)."""
        return values.reshape(-1, *([1] * (self.x.ndim - 1)))

    def spread(self, maps: Array) -> Array:
        """Reshape maps (n, *grid) so that they broadcast to the input's shape."""
        shape = [len(maps), *([1] * (self.x.ndim - 1))]
        for axis in self.spatial:
            shape[axis] = self.x.shape[axis]
        return maps.reshape(shape)

    def rectified(self, signed: Array) -> Array:
        """Apply psi, entry by entry."""
        return np.abs(signed) if self.psi == ABS else np.maximum(signed, 0) if self.psi == POSITIVE else signed

    def attributed(self, attribution: Array) -> dict[str, Array]:
        """Return an attribution (1, ...) with its map: psi of every entry, summed over channels."""
        v = self.rectified(attribution)
        channels = tuple(i for i in range(1, v.ndim) if i not in self.spatial)
        return {"saliency": v.sum(axis=channels), "attribution": attribution}

    def baseline(self, given: Any) -> Array:
        """Return a baseline, a number or an array of one sample's shape, as (1, ...)."""
        array = np.asarray(given, np.float64)
        if array.ndim and array.shape not in (self.x.shape, self.x.shape[1:]):
            raise OptionError(f"the baseline has the shape {array.shape}; give a number or one of {self.x.shape[1:]}")
        return np.broadcast_to(array, self.x.shape)


Drive = Callable[[Sample, Any], dict[str, Array]]
