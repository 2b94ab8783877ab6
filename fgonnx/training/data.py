"""Batches of arrays, shuffled and mirrored by a seed alone, so that a resumed run continues with the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batches:
    """Samples and their classes.

    Parameters
    ----------
    x : numpy array
        (N, ...): inputs of the model, or of `prepare`.
    labels : numpy array
        (N,) integers.
    size : int
        Samples in a batch; the last, smaller one of an epoch is dropped.
    seed : int
        Seed of order and mirroring. Epoch e is seeded with (seed, e).
    mirror : int, optional
        Axis along which half of the samples are flipped; none by default.
    prepare : callable, optional
        Turns a batch into the model's input.

    Raises
    ------
    InputError
        If there is not one class for each sample, or less than one full batch.
    OptionError
        If `size` is below 1.
    """

    x: Array
    labels: Array
    size: int = 64
    seed: int = 0
    mirror: int | None = None
    prepare: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"size={self.size} is not a number of samples; give 1 or more")
        if len(self.x) != len(self.labels) or len(self.x) < self.size:
            raise InputError(
                f"{len(self.x)} samples and {len(self.labels)} classes do not make batches of {self.size}: give one "
                "class for each sample, and one full batch at least"
            )

    def __len__(self) -> int:
        return len(self.x) // self.size

    def epoch(self, number: int) -> Iterator[tuple[Array, Array]]:
        """Yield the batches of an epoch: input and classes."""
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(len(self.x))
        for i in range(len(self)):
            rows = order[i * self.size : (i + 1) * self.size]
            x = self.x[rows]
            if self.mirror is not None:
                turned = rng.random(self.size) < 0.5
                x[turned] = np.flip(x[turned], self.mirror)
            yield self.ready(x), self.labels[rows]

    def ready(self, x: Array) -> Array:
        """Return samples as inputs of the model."""
        return self.prepare(x) if self.prepare is not None else x
