"""The head, the tensor whose entries are explained: its shape, class names, and values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import TargetError
from fgonnx.labels import align, resolve

Array = npt.NDArray[Any]

ONLY = "the only entry"
LARGEST = ", the largest"
"""Behind the name of an entry that is explained because it is the largest."""


@dataclass(frozen=True)
class Head:
    """The head that a target is resolved against.

    Attributes
    ----------
    shape : tuple of int
        Shape for one sample.
    count : int
        Number of samples.
    axes : tuple of int or None
        Which axis of the input's grid each axis of the head is; None for classes, or if unknown.
    labels : sequence of str
        Class names, as they were given.
    values : callable
        Returns the model's output for the head, (count, *shape).
    outputs : callable
        Returns the model's outputs by name.
    """

    shape: tuple[int, ...]
    count: int
    axes: tuple[int | None, ...] = ()
    labels: Sequence[str] = ()
    values: Callable[[], Array] = field(default=lambda: np.zeros(0))
    outputs: Callable[[], Mapping[str, Array]] = field(default=dict)

    @property
    def entries(self) -> int:
        """Number of entries for one sample."""
        return int(np.prod(self.shape, initial=1))

    @property
    def indices(self) -> Array:
        """The flat index of every entry, in the head's shape."""
        return np.arange(self.entries).reshape(self.shape)

    def name(self, index: int) -> str:
        """Return the name of an entry: its index with its label, or its position."""
        if sum(s > 1 for s in self.shape) > 1:
            return str(tuple(int(i) for i in np.unravel_index(index, self.shape)))
        try:
            labels, _ = align(self.labels, self.entries)
        except TargetError:
            return str(index)
        return f"{index} '{labels[index]}'"

    def entry(self, given: int | str, classes: int) -> int:
        """Return the class, of `classes`, that an index or a label stands for."""
        labels = self.labels if isinstance(given, str) else ()
        text = str(given)
        if labels and not re.fullmatch("[0-9]+", text.strip()):
            labels, _ = align(labels, classes)
        return resolve(text, labels, classes)

    def class_name(self, entry: int, classes: int) -> str:
        """Return the name of a class, of `classes`."""
        try:
            return f"'{align(self.labels, classes)[0][entry]}'"
        except TargetError:
            return f"class {entry}"
