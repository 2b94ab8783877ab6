"""What a target is for the samples at hand: a flat index, or a cotangent of the head, and in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import TargetError
from fgonnx.explain.targets import Cotangent, Detection, Position, Region, Similarity, Target, parse
from fgonnx.labels import BACKGROUND, align
from fgonnx.labels import resolve as resolve_label

Array = npt.NDArray[Any]

ONLY = "the only entry"
_OBJECTNESS = 4  # the column behind the box, in detectors with five columns before their classes


@dataclass(frozen=True)
class Head:
    """What a target is resolved against.

    Attributes
    ----------
    shape : tuple of int
        Of the head, for one sample.
    count : int
        Samples.
    axes : tuple of int or None
        Which axis of the input's grid each axis of the head is; None for classes, or where nothing is known.
    labels : sequence of str
        Class names, as they were given.
    values : callable
        Returns what the model makes of the head (its output), (count, *shape).
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
        """Entries for one sample."""
        return int(np.prod(self.shape, initial=1))

    def name(self, index: int) -> str:
        """Return how an entry is called: its label, else its place."""
        if sum(s > 1 for s in self.shape) > 1:
            return str(tuple(int(i) for i in np.unravel_index(index, self.shape)))
        try:
            labels, _ = align(self.labels, self.entries)
        except TargetError:
            return str(index)
        return f"{index} '{labels[index]}'"


@dataclass(frozen=True)
class Resolved:
    """What a target is for the samples at hand.

    Attributes
    ----------
    indices : numpy array of int64, (N,), or None
        Flat indices; -1 for the largest entry.
    seed : numpy array, (N, *head), or None
        Cotangents, where not every sample's target is an entry.
    described : tuple of str
        In words, one per sample.
    """

    indices: npt.NDArray[np.int64] | None
    seed: Array | None
    described: tuple[str, ...]


def resolve(target: Target, head: Head) -> Resolved:
    """Say what a target is for every sample.

    Raises
    ------
    TargetError
        It is out of range, unknown, does not fit the head, or there is not one per sample.
    """
    if target is None:
        return Resolved(np.full(head.count, -1, np.int64), None, ())
    given: Any = target.tolist() if isinstance(target, np.ndarray) else target
    single = isinstance(given, (str, tuple)) or not isinstance(given, Sequence)
    many = [given] * head.count if single else list(given)
    if len(many) != head.count:
        raise TargetError(f"{len(many)} targets were given for {head.count} sample(s); give one, or one per sample")
    found = [_choose(parse(t) if isinstance(t, str) else t, head, i) for i, t in enumerate(many)]
    described = tuple(words for _, words in found)
    if all(isinstance(what, int) for what, _ in found):
        return Resolved(np.array([what for what, _ in found], np.int64), None, described)
    return Resolved(None, np.stack([_seed(what, head) for what, _ in found]), described)


def _seed(what: int | Array, head: Head) -> Array:
    if not isinstance(what, int):
        return what
    seed = np.zeros(head.entries)
    seed[what] = 1
    return seed.reshape(head.shape)


def _choose(target: Any, head: Head, sample: int) -> tuple[int | Array, str]:
    """Return a flat index or a cotangent, and the target in words."""
    if isinstance(target, tuple):
        return _entry(target, head)
    if isinstance(target, Region):
        return _region(target, head, sample)
    if isinstance(target, Detection):
        return _detection(target, head, sample)
    if isinstance(target, Similarity):
        reference = _fitting(target.reference, head, "reference")
        length = float(np.linalg.norm(reference))
        if not length:
            raise TargetError("the reference is zero everywhere: it has no direction to compare with")
        return reference / length, "projection on the reference"
    if isinstance(target, Cotangent):
        return _fitting(target.weights, head, "seed"), "sum weighted by the seed"
    if isinstance(target, str):
        labels = head.labels
        if labels and not target.strip().isdigit():
            labels, _ = align(labels, head.entries)
        index = resolve_label(target, labels, head.entries)
    else:
        if not isinstance(target, (int, np.integer)) or isinstance(target, bool):
            raise TargetError(f"target {target!r} is not an index or a label")
        index = int(target)
        if not 0 <= index < head.entries:
            raise TargetError(
                f"target {target} is out of range: the model has {head.entries} entries, 0 to {head.entries - 1}"
            )
    return index, head.name(index)


def _entry(position: Position, head: Head) -> tuple[int | Array, str]:
    written = ", ".join(
        str(p)
        if not isinstance(p, slice)
        else f"{'' if p.start is None else p.start}:{'' if p.stop is None else p.stop}"
        for p in position
    )
    if len(position) != len(head.shape):
        raise TargetError(
            f"target ({written}) has {len(position)} axes, the head has {len(head.shape)}: {head.shape}; give one "
            "number or ':' per axis, or a flat index"
        )
    for p, size in zip(position, head.shape, strict=True):
        if not isinstance(p, slice) and not 0 <= p < size:
            raise TargetError(f"target ({written}) is out of range: the head has the shape {head.shape}")
    numbers = [p for p in position if not isinstance(p, slice)]
    if len(numbers) == len(position):
        return int(np.ravel_multi_index(numbers, head.shape)), f"({written})"
    seed = np.zeros(head.shape)
    seed[position] = 1
    if not seed.any():
        raise TargetError(f"target ({written}) selects nothing of a head of shape {head.shape}")
    return seed, f"sum of [{written}]"


def _region(target: Region, head: Head, sample: int) -> tuple[Array, str]:
    order, classes, grid = _places(head)
    mask, words = _mask(target.where, grid)
    if target.entry is None:
        values = head.values()[sample].astype(np.float64).transpose(order).reshape(classes, *grid)
        entry = int((values * mask).reshape(classes, -1).sum(1).argmax())
    else:
        entry = _class(target.entry, head.labels, classes)
    seed = np.zeros((classes, *grid))
    seed[entry] = mask / mask.sum() if target.reduce == "mean" else mask
    seed = seed.reshape([head.shape[i] for i in order]).transpose(np.argsort(order))
    name = f" of {_named(entry, head.labels, classes)}" if classes > 1 else ""
    return seed, f"{target.reduce}{name} in {words}"


def _places(head: Head) -> tuple[list[int], int, tuple[int, ...]]:
    """Return the order of the head's axes that puts classes first and its grid behind, and the sizes of both."""
    known = sorted((axis, i) for i, axis in enumerate(head.axes) if axis is not None and head.shape[i] > 1)
    spatial = [i for _, i in known]
    rest = [i for i in range(len(head.shape)) if i not in spatial]
    if not spatial or len({axis for axis, _ in known}) < len(known) or sum(head.shape[i] > 1 for i in rest) > 1:
        raise TargetError(
            f"a region needs a head with a value per position; this one has the shape {head.shape}, and its axes are "
            "no rows and columns of the input: weight its entries yourself (seed=)"
        )
    return [*rest, *spatial], int(np.prod([head.shape[i] for i in rest])), tuple(head.shape[i] for i in spatial)


def _mask(where: tuple[float, ...] | Array, grid: tuple[int, ...]) -> tuple[Array, str]:
    """Return weights over the grid."""
    if isinstance(where, np.ndarray) and where.ndim == len(grid) and where.shape == grid:
        weights = where.astype(np.float64)
        if not np.isfinite(weights).all() or not weights.sum():
            raise TargetError("the mask of the region selects nothing, or holds NaN or infinity")
        return weights, "the mask"
    box = np.asarray(where, np.float64)
    if box.ndim != 1 or box.size != 2 * len(grid):
        axes = "xyz"[: len(grid)] if len(grid) > 1 else "t"
        names = ":".join([f"{a}0" for a in axes] + [f"{a}1" for a in axes])
        raise TargetError(
            f"the region is neither a box {names} nor a mask of shape {grid}: it has the shape {box.shape}"
        )
    low, high = box[: len(grid)], box[len(grid) :]
    if not ((low >= 0) & (low < high) & (high <= 1)).all():
        raise TargetError(
            f"the box {_colons(box)} is not one: give shares of the picture, 0 to 1, the lower ones first"
        )
    weights = np.ones(grid)
    for axis, (a, b) in enumerate(zip(low[::-1], high[::-1], strict=True)):  # x is the last axis
        centres = (np.arange(grid[axis]) + 0.5) / grid[axis]
        chosen = (centres >= a) & (centres < b)
        chosen[min(int((a + b) / 2 * grid[axis]), grid[axis] - 1)] = True  # a box between centres is the cell it is in
        weights *= chosen.reshape([-1 if i == axis else 1 for i in range(len(grid))])
    return weights, f"the box {_colons(box)}"


def _detection(target: Detection, head: Head, sample: int) -> tuple[int, str]:
    anchors, columns, turned = _table(head.shape, "the head")
    if target.best is None:
        anchor, why = target.anchor, ""
        assert anchor is not None
    else:
        anchor, why, first = _best(target, head, sample, anchors)
    column = target.column if target.column is not None else first
    if not 0 <= anchor < anchors or not 0 <= column < columns:
        raise TargetError(
            f"anchor {anchor}, column {column} is out of range: the head has {anchors} anchors, {columns} columns"
        )
    return (column * anchors + anchor if turned else anchor * columns + column), (
        f"{why}column {column} of anchor {anchor}"
    )


def _best(target: Detection, head: Head, sample: int, anchors: int) -> tuple[int, str, int]:
    """Return the anchor with the highest score of a class, why, and the column of the class."""
    assert target.best is not None
    if target.by is None:
        scores = head.values()[sample]
    else:
        outputs = head.outputs()
        if target.by not in outputs:
            raise TargetError(f"by={target.by}: the model has no such output; it has: {', '.join(outputs)}")
        scores = outputs[target.by]
        scores = scores[sample] if scores.shape[0] == head.count else scores
    rows, columns, turned = _table(scores.shape, "the output with the scores")
    if rows != anchors:
        raise TargetError(f"the scores are of {rows} anchors, the head is of {anchors}; choose other outputs")
    table = scores.astype(np.float64).reshape((columns, rows) if turned else (rows, columns))
    table = table.T if turned else table
    first = target.first if target.first is not None else _columns_before(head.labels, columns)
    if not 0 <= first < columns:
        raise TargetError(f"first={first}: of {columns} columns none is left for the classes")
    entry = _class(target.best, head.labels, columns - first)
    ranked = table[:, first + entry] * (table[:, _OBJECTNESS] if first == _OBJECTNESS + 1 else 1)
    anchor = int(ranked.argmax())
    return anchor, f"best {_named(entry, head.labels, columns - first)} ({ranked[anchor]:.3g}), ", first + entry


def _columns_before(labels: Sequence[str], columns: int) -> int:
    """Return how many columns are no classes: those beyond the labels. A background is no class that is detected."""
    classes = len(labels) - bool(labels and labels[0].strip("_ ").lower() == BACKGROUND)
    return max(0, columns - classes) if labels else 0


def _table(shape: tuple[int, ...], what: str) -> tuple[int, int, bool]:
    """Return how many anchors and columns a head has, and whether columns come first."""
    sizes = [s for s in shape if s > 1]
    if len(sizes) < 2:
        raise TargetError(f"{what} has the shape {shape}: it holds no detections (anchors, columns)")
    if len(sizes) == 2 and sizes[0] < sizes[1]:
        return sizes[1], sizes[0], True
    return int(np.prod(sizes[:-1])), sizes[-1], False


def _class(given: int | str, labels: Sequence[str], classes: int) -> int:
    if not isinstance(given, str):
        return resolve_label(str(given), (), classes)
    if labels and not given.strip().isdigit():
        labels, _ = align(labels, classes)
    return resolve_label(given, labels, classes)


def _named(entry: int, labels: Sequence[str], classes: int) -> str:
    try:
        return f"'{align(labels, classes)[0][entry]}'"
    except TargetError:
        return f"class {entry}"


def _fitting(array: Array, head: Head, what: str) -> Array:
    array = np.asarray(array, np.float64)
    if array.shape != head.shape and array.shape != (1, *head.shape):
        raise TargetError(f"the {what} must have the head's shape {head.shape}, it has {array.shape}")
    if not np.isfinite(array).all():
        raise TargetError(f"the {what} holds NaN or infinity")
    return array.reshape(head.shape)


def _colons(numbers: Array) -> str:
    return ":".join(f"{n:g}" for n in numbers)
