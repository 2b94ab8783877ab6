"""Batches of arrays, shuffled and mirrored by a seed alone, so that a resumed run continues with the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError
from fgonnx.fields import accepted
from fgonnx.wording import parameter

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
        If `size` is below 1, `mirror` is no axis of a sample, or a value is of another type.
    """

    x: Array
    labels: Array
    size: int = 64
    seed: int = 0
    mirror: int | None = None
    prepare: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        for name, kind, least in (("size", int, 1), ("seed", int, 0), ("mirror", int | None, None)):
            object.__setattr__(self, name, accepted(name, getattr(self, name), kind, least=least))
        if self.prepare is not None and not callable(self.prepare):
            raise OptionError(f"prepare is of the type {type(self.prepare).__name__}; give a function of a batch")
        for name, array in (("x", self.x), ("labels", self.labels)):
            if not isinstance(array, np.ndarray) or not array.ndim:
                raise InputError(f"{name} is of the type {type(array).__name__}; give a numpy array")
        if self.labels.dtype.kind not in "iu" or self.labels.ndim != 1:
            raise InputError(f"labels are {self.labels.dtype} of shape {self.labels.shape}; give whole numbers, (N,)")
        if self.mirror is not None and not 1 <= self.mirror % max(self.x.ndim, 1) < self.x.ndim:
            raise OptionError(f"{parameter('mirror', self.mirror)} is no axis of a sample of shape {self.x.shape[1:]}")
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
