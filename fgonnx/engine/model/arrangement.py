"""Where the samples lie in a model's inputs and outputs; arrays turned so that samples come first, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.model.layouts import own_layout
from fgonnx.errors import InputError

Array = npt.NDArray[Any]
Place = int | None
"""Which axis is the batch; None where there is none."""


@dataclass(frozen=True)
class Arrangement:
    """Where the samples lie in a model whose graph was given an input with samples first.

    Attributes
    ----------
    explained : str
        The explained input.
    axis : int or None
        Which of its own axes is the batch; None where the whole input is one sample.
    inputs, outputs : mapping of str to int or None
        The same for all inputs and outputs whose batch is not their first axis.
    filled : int
        The number of samples that the model always takes: a sample is repeated that often. 1 where it takes any.
    given : str or None
        The layout that the user gave, in the order of the input's own axes.
    reads : str
        "T" where the only axis of the input is known to be time.
    """

    explained: str = ""
    axis: Place = 0
    inputs: Mapping[str, Place] = field(default_factory=dict)
    outputs: Mapping[str, Place] = field(default_factory=dict)
    filled: int = 1
    given: str | None = None
    reads: str = ""

    def first(self, name: str, array: Array, rank: int) -> Array:
        """Turn an array of an input so that samples come first.

        Parameters
        ----------
        name : str
            The input.
        array : numpy array
            In the model's own layout; for an input without a batch axis also several samples, (N, ...).
        rank : int
            Number of axes with samples first.

        Raises
        ------
        InputError
            The array has another number of axes.
        """
        place = self.inputs.get(name, 0)
        if place is None and array.ndim == rank - 1:
            return array[None]
        if place != 0 and array.ndim != rank:
            axes = rank - 1 if place is None else rank
            more = f", or {rank} for several samples" if place is None else f", axis {place} of them its samples"
            raise InputError(f"the input '{name}' has {axes} axes{more}; the array has the shape {array.shape}")
        return np.moveaxis(array, place, 0) if place else array

    def back(self, place: Place, array: Array, *, single: bool = True) -> Array:
        """Turn an array with samples first into the model's own layout; `single` drops the axis of a single sample."""
        if place is None:
            return array[0] if single and len(array) == 1 else array
        return np.moveaxis(array, 0, place) if place else array

    def layout(self, known: str) -> str:
        """Return the name of a layout with samples first, in the order of the input's own axes."""
        return self.given if self.given and self.axis != 0 else own_layout(known, self.axis, self.reads)

    def own_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the input's own shape for one sample, of the shape with samples first."""
        rest = list(shape[1:])
        if self.axis is not None:
            rest.insert(self.axis, shape[0])
        return tuple(rest)
