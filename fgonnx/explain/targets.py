"""Targets: what to explain of classifiers, detectors, segmentation and embeddings, as objects or as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import TargetError
from fgonnx.explain.detection import Detection
from fgonnx.explain.head import Head
from fgonnx.explain.single import Single
from fgonnx.fields import accepted, check_choice
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

Position = tuple[int | slice, ...]

REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Entry(Single):
    """A flat index or a label."""

    given: Any
    seed_needed = False

    def resolve(self, head: Head, sample: int) -> tuple[int, str]:
        """Return the flat index, and a description."""
        given, entries = self.given, head.entries
        if not isinstance(given, str):
            if not isinstance(given, (int, np.integer)) or isinstance(given, bool):
                raise TargetError(f"target {given!r} is not an index or a label")
            if not 0 <= (given := int(given)) < entries:
                raise TargetError(
                    f"target {given} is out of range: the model has {entries} entries, 0 to {entries - 1}"
                )
        index = head.entry(given, entries)
        return index, head.name(index)


@dataclass(frozen=True)
class Slices(Single):
    """An index or a slice for every axis of the head."""

    axes: Position

    @property
    def seed_needed(self) -> bool:  # type: ignore[override]
        """Whether there is a slice among them."""
        return any(isinstance(p, slice) for p in self.axes)

    def resolve(self, head: Head, sample: int) -> tuple[int | Array, str]:
        """Return the flat index, or ones at all entries selected, and a description."""
        written = ", ".join(
            str(p) if not isinstance(p, slice) else ":".join("" if e is None else str(e) for e in (p.start, p.stop))
            for p in self.axes
        )
        if len(self.axes) != len(head.shape):
            raise TargetError(
                f"target ({written}) has {len(self.axes)} axes, the head has {len(head.shape)}: {head.shape}; give one "
                "number or ':' per axis, or a flat index"
            )
        for p, size in zip(self.axes, head.shape, strict=True):
            if not isinstance(p, slice) and not 0 <= p < size:
                raise TargetError(f"target ({written}) is out of range: the head has the shape {head.shape}")
        seed = np.zeros(head.shape)
        seed[self.axes] = 1
        if not seed.any():
            raise TargetError(f"target ({written}) selects nothing of a head of shape {head.shape}")
        return (seed, f"sum of [{written}]") if self.seed_needed else (int(seed.argmax()), f"({written})")


@dataclass(frozen=True, eq=False)
class Region(Single):
    """One class of a segmentation inside a region.

    Attributes
    ----------
    where : tuple of float, or array
        A box in fractions of the head's grid, 0 to 1: (x0, y0, x1, y1); for sequences (t0, t1), for volumes
        (x0, y0, z0, x1, y1, z1). Or a mask of the grid's shape, booleans or weights.
    entry : int, str or None
        The class: an index or a label. By default the largest one in the region.
    reduce : {"mean", "sum"}
        How the entries inside are reduced to the score.

    Examples
    --------
    >>> from fgonnx.targets import Region, parse
    >>> Region((0.2, 0.1, 0.8, 0.9), "road", "sum")
    Region(where=(0.2, 0.1, 0.8, 0.9), entry='road', reduce='sum')
    >>> parse("region=0.2:0.1:0.8:0.9,class=road,reduce=sum")
    Region(where=(0.2, 0.1, 0.8, 0.9), entry='road', reduce='sum')
    """

    where: tuple[float, ...] | Array
    entry: int | str | None = None
    reduce: str = "mean"

    def __post_init__(self) -> None:
        where = self.where
        if isinstance(where, np.ndarray):
            _check_numbers("where", where)
        else:
            object.__setattr__(self, "where", accepted("where", where, tuple[float, ...], error=TargetError))
        object.__setattr__(self, "entry", accepted("entry", self.entry, int | str | None, least=0, error=TargetError))
        check_choice("reduce", self.reduce, REDUCTIONS, TargetError)

    def resolve(self, head: Head, sample: int) -> tuple[Array, str]:
        """Return a cotangent that selects the class inside the region, and a description."""
        places = _places(head)
        classes = len(places)
        mask, words = self._mask(places.shape[1:])
        if self.entry is None:
            values = head.values()[sample].astype(np.float64).reshape(-1)[places]
            entry = int((values * mask).reshape(classes, -1).sum(1).argmax())
        else:
            entry = head.entry(self.entry, classes)
        seed = np.zeros(head.entries)
        seed[places[entry]] = mask / mask.sum() if self.reduce == "mean" else mask
        name = f" of {head.class_name(entry, classes)}" if classes > 1 else ""
        return seed.reshape(head.shape), f"{self.reduce}{name} in {words}"

    def _mask(self, grid: tuple[int, ...]) -> tuple[Array, str]:
        """Return weights over the grid, and a description."""
        if isinstance(self.where, np.ndarray) and self.where.shape == grid:
            weights = self.where.astype(np.float64)
            if not np.isfinite(weights).all() or not weights.sum():
                raise TargetError("the mask of the region selects nothing, or holds NaN or infinity")
            return weights, "the mask"
        box = np.asarray(self.where, np.float64)
        if box.ndim != 1 or box.size != 2 * len(grid):
            axes = "xyz"[: len(grid)] if len(grid) > 1 else "t"
            names = ":".join([f"{a}0" for a in axes] + [f"{a}1" for a in axes])
            raise TargetError(
                f"the region is neither a box {names} nor a mask of shape {grid}: it has the shape {box.shape}"
            )
        low, high = box[: len(grid)], box[len(grid) :]
        words = f"the box {':'.join(f'{n:g}' for n in box)}"
        if not ((low >= 0) & (low < high) & (high <= 1)).all():
            raise TargetError(f"{words} is not one: give shares of the picture, 0 to 1, the lower ones first")
        weights = np.ones(grid)
        for axis, (a, b) in enumerate(zip(low[::-1], high[::-1], strict=True)):  # x is the last axis
            centres = (np.arange(grid[axis]) + 0.5) / grid[axis]
            chosen = (centres >= a) & (centres < b)
            # A box between centres is the cell it lies in.
            chosen[min(int((a + b) / 2 * grid[axis]), grid[axis] - 1)] = True
            weights *= chosen.reshape([-1 if i == axis else 1 for i in range(len(grid))])
        return weights, words


def _places(head: Head) -> Array:
    """Return the flat indices of the head's entries, (classes, *grid)."""
    known = sorted((axis, i) for i, axis in enumerate(head.axes) if axis is not None and head.shape[i] > 1)
    spatial = [i for _, i in known]
    rest = [i for i in range(len(head.shape)) if i not in spatial]
    if not spatial or len({axis for axis, _ in known}) < len(known) or sum(head.shape[i] > 1 for i in rest) > 1:
        raise TargetError(
            f"a region needs a head with a value per position; this one has the shape {head.shape}, and its axes are "
            f"no rows and columns of the input: weight its entries yourself ({parameter('seed')})"
        )
    return head.indices.transpose(*rest, *spatial).reshape(-1, *(head.shape[i] for i in spatial))


@dataclass(frozen=True, eq=False)
class Similarity(Single):
    """The projection of an embedding on a reference that is normalised to length 1.

    Attributes
    ----------
    reference : array
        Of the head's shape for one sample.

    Examples
    --------
    >>> import numpy as np
    >>> import fgonnx
    >>> explainer = fgonnx.Explainer("examples/shapes.onnx")
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> reference = explainer.head(x)[0]
    >>> explanation = explainer(x, fgonnx.targets.Similarity(reference))
    >>> bool(np.isclose(explanation.score[0], np.linalg.norm(reference), rtol=1e-4))
    True
    """

    reference: Array

    def __post_init__(self) -> None:
        _check_numbers("reference", self.reference)

    def resolve(self, head: Head, sample: int) -> tuple[Array, str]:
        """Return the reference scaled to length one, and a description."""
        reference = _fitting(self.reference, head, "reference")
        length = float(np.linalg.norm(reference))
        if not length:
            raise TargetError("the reference is zero everywhere: it has no direction to compare with")
        return reference / length, "projection on the reference"


@dataclass(frozen=True, eq=False)
class Cotangent(Single):
    """The sum of all entries of the head, weighted.

    Attributes
    ----------
    weights : array
        Of the head's shape for one sample.

    Examples
    --------
    What speaks for a star rather than for a ring:

    >>> import numpy as np
    >>> import fgonnx
    >>> explainer = fgonnx.Explainer("examples/shapes.onnx", scores=True)
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    >>> weights = np.zeros(6)
    >>> weights[[3, 5]] = 1, -1
    >>> explanation = explainer(x, fgonnx.targets.Cotangent(weights))
    >>> bool(np.allclose(explanation.score, explanation.scores[:, 3] - explanation.scores[:, 5], atol=1e-4))
    True
    """

    weights: Array

    def __post_init__(self) -> None:
        _check_numbers("weights", self.weights)

    def resolve(self, head: Head, sample: int) -> tuple[Array, str]:
        """Return the weights in the head's shape, and a description."""
        return _fitting(self.weights, head, "seed"), "sum weighted by the seed"


def _check_numbers(name: str, given: Any) -> None:
    """Refuse what is no array of numbers."""
    try:
        numeric = np.asarray(given).dtype.kind in "biuf"
    except ValueError:  # lists of different lengths
        numeric = False
    if not numeric:
        raise TargetError(f"{parameter(name, given)} is of the type {type(given).__name__}; give an array of numbers")


def _fitting(array: Array, head: Head, what: str) -> Array:
    array = np.asarray(array, np.float64)
    if array.shape not in (head.shape, (1, *head.shape)):
        raise TargetError(f"the {what} must have the head's shape {head.shape}, it has {array.shape}")
    if not np.isfinite(array).all():
        raise TargetError(f"the {what} holds NaN or infinity")
    return array.reshape(head.shape)


One = int | str | Position | Region | Detection | Similarity | Cotangent
Target = One | Sequence[One] | Array | None
"""What to explain: None for the largest entry; a list or an array for one per sample; a tuple is a position."""

Contrast = int | str | Position | Sequence[int | str | Position] | Array | None
"""What is subtracted from the target: entries likewise, "next" for the largest other one; None for nothing."""
