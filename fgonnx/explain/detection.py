"""Detections as targets: one column of one anchor, ranked by class scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import TargetError
from fgonnx.explain.head import Head
from fgonnx.explain.single import Single
from fgonnx.fields import accepted
from fgonnx.labels.label import BACKGROUND
from fgonnx.wording import parameter

Array = npt.NDArray[Any]

ANY = "*"
"""In place of a class: the one with the highest score."""

_OBJECTNESS = 4  # the column after the box, in detectors with five columns before the classes
_BOX = 4
_BEFORE = (4, 5)  # columns before the classes
_COCO = 80  # classes of COCO, of which most detectors are
_FEWEST = 16  # anchors that a detector has at least
_ORDERED = 0.9  # share of boxes whose second corner lies behind the first
_NOTHING = 0.05  # the least score of a detection
_PIXELS = 2.0  # coordinates that are shares of the picture stay below
_SEEN = 0.05  # shares above are of something seen
_RARE, _COMMON = 0.05, 0.15  # shares of anchors at which an objectness sees something at most, and classes at least


@dataclass(frozen=True)
class _Ranked:
    """Scores of anchors and classes, behind `first` other columns, and the anchor of the highest one of a class."""

    ranked: Array
    anchor: int
    entry: int
    first: int


@dataclass(frozen=True)
class Detection(Single):
    """One column of one detection, in a head of anchors and columns.

    Columns are the axis that is neither rows nor columns of the picture; where that is not known, the last axis, of two
    axes the one with fewer entries.

    Attributes
    ----------
    best : int, str or None
        A class: the anchor with its highest score is explained. With `first` = 5 (a box and the objectness) scores are
        multiplied by the objectness.
    anchor : int or None
        The anchor itself, instead of `best`.
    column : int or None
        The column: a score or a coordinate of the box. By default that of the class.
    first : int or None
        Number of columns before the classes. By default the number of columns minus that of labels
        (a background not counted).
    by : str or None
        Name of the output that holds the scores, if it is not the one explained.
    objectness : int or None
        The column of the objectness. By default, with `first` = 5, column 4 behind the box; column 0 if that one alone
        holds shares from 0 to 1.

    Examples
    --------
    The left edge of the box of the most confident person, as an object and as text:

    >>> from fgonnx.targets import Detection, parse
    >>> Detection("person", column=0)
    Detection(best='person', anchor=None, column=0, first=None, by=None, objectness=None)
    >>> parse("best=person,column=0") == Detection("person", column=0)
    True
    """

    seed_needed = False
    best: int | str | None = None
    anchor: int | None = None
    column: int | None = None
    first: int | None = None
    by: str | None = None
    objectness: int | None = None

    def __post_init__(self) -> None:
        kinds = {"best": int | str | None, "by": str | None}
        for name in ("best", "anchor", "column", "first", "by", "objectness"):
            kept = accepted(name, getattr(self, name), kinds.get(name, int | None), least=0, error=TargetError)
            object.__setattr__(self, name, kept)
        if (self.best is None) == (self.anchor is None):
            raise TargetError("a detection is either the best of a class (best=person) or an anchor (anchor=12)")
        if self.column is None and (self.anchor is not None or self.by is not None):
            raise TargetError("say which column of the detection is explained, such as column=0")

    def resolve(self, head: Head, sample: int) -> tuple[int, str]:
        """Return the flat index of the column of the anchor, and a description."""
        table = _table(head.indices, "the head", columns_of(head))
        anchors, columns = table.shape
        anchor, column, why = self._best(head, sample, anchors) if self.anchor is None else (self.anchor, -1, "")
        column = column if self.column is None else self.column
        if not 0 <= anchor < anchors or not 0 <= column < columns:
            raise TargetError(
                f"anchor {anchor}, column {column} is out of range: the head has {anchors} anchors, {columns} columns"
            )
        return int(table[anchor, column]), f"{why}column {column} of anchor {anchor}"

    def remark(self, head: Head, sample: int) -> str:
        """Say where nothing is detected: where the best of scores that are shares is none."""
        if self.best is None:
            return ""
        anchors = _table(head.indices, "the head", columns_of(head)).shape[0]
        found = self._ranked(head, sample, anchors)
        score = found.ranked[found.anchor, found.entry]
        if found.ranked.min() < 0 or found.ranked.max() > 1 or score >= _NOTHING:
            return ""
        what = "nothing" if self.best == ANY else f"no {head.class_name(found.entry, found.ranked.shape[1])}"
        return (
            f"{what} is detected: the best score is {score:.1g}. Where something should be, the likely cause is the "
            f"preprocessing: the range of values, the order of channels, the size ({parameter('preprocess')})"
        )

    def choice(self, head: Head, sample: int) -> str:
        """Return the class and the score of the detection."""
        anchors = _table(head.indices, "the head", columns_of(head)).shape[0]
        return self._best(head, sample, anchors)[2].removeprefix("best ").removesuffix(", ")

    def _best(self, head: Head, sample: int, anchors: int) -> tuple[int, int, str]:
        """Return the anchor with the highest score of the class, the column of the class, and a description."""
        f = self._ranked(head, sample, anchors)
        name = head.class_name(f.entry, f.ranked.shape[1])
        return f.anchor, f.first + f.entry, f"best {name} ({f.ranked[f.anchor, f.entry]:.3g}), "

    def _ranked(self, head: Head, sample: int, anchors: int) -> _Ranked:
        """Return the scores of all classes, and which is the highest of the class."""
        assert self.best is not None
        scores = self._scores(head, sample).astype(np.float64)
        axis = columns_of(head) if scores.ndim == len(head.shape) else None
        table = _table(scores, "the output with the scores", axis)
        rows, columns = table.shape
        if rows != anchors:
            raise TargetError(f"the scores are of {rows} anchors, the head is of {anchors}; choose other outputs")
        first = self.first
        if first is None:  # all columns but those with labels; a background class is not detected
            first = max(0, columns - named(head)) if head.labels else 0
        if not 0 <= first < columns:
            raise TargetError(f"first={first}: of {columns} columns none is left for the classes")
        classes, ranked = columns - first, table[:, first:]
        weighed = self._objectness(table, first)
        if weighed is not None:
            ranked = ranked * table[:, weighed : weighed + 1]
        entry = int(ranked.max(0).argmax()) if self.best == ANY else head.entry(self.best, classes)
        return _Ranked(ranked, int(ranked[:, entry].argmax()), entry, first)

    def _objectness(self, table: Array, first: int) -> int | None:
        if self.objectness is not None:
            if self.objectness >= table.shape[1]:
                raise TargetError(f"objectness={self.objectness} is out of range: there are {table.shape[1]} columns")
            return self.objectness
        if first != _OBJECTNESS + 1:
            return None
        behind, ahead = (((table[:, c] >= 0) & (table[:, c] <= 1)).all() for c in (_OBJECTNESS, 0))
        return 0 if ahead and not behind else _OBJECTNESS

    def _scores(self, head: Head, sample: int) -> Array:
        if self.by is None:
            return head.values()[sample]
        outputs = head.outputs()
        if self.by not in outputs:
            raise TargetError(f"by={self.by}: the model has no such output; it has: {', '.join(outputs)}")
        scores = outputs[self.by]
        return scores[sample] if len(scores) == head.count else scores


def unasked(head: Head) -> Detection | None:
    """Return the best detection of a head that is one of a detector, to be explained where no target is given.

    Its largest entry may be a coordinate of a box, or the background. A head is one of a detector if it has columns in
    excess of the labels, or four coordinates in pixels before shares from 0 to 1, or 80 shares behind 4 or 5 others.
    Without labels the first of the shares is the objectness where values say so: it is near 0 at nearly all anchors,
    and the classes, which mean nothing there, are not. Then coordinates are any that are no shares.

    Raises
    ------
    TargetError
        It holds nothing but boxes.
    """
    if sum(size > 1 for size in head.shape) < 2:
        return None
    axis = columns_of(head)
    anchors, columns = _table(head.indices, "the head", axis).shape
    placed = any(a is not None and size > 1 for a, size in zip(head.axes, head.shape, strict=False))
    if head.labels:
        first = columns - named(head)
        return Detection(ANY, first=first) if first in _BEFORE or (first == 1 and not placed) else None
    coco = columns - _COCO in _BEFORE
    if anchors < _FEWEST or columns < _BOX or (placed and not coco):
        return None
    table = np.concatenate([_table(v.reshape(head.shape), "the head", axis) for v in head.values()])
    if columns == _BOX:
        _refuse_boxes(head, anchors, table)
        return None
    first = columns - _COCO if coco else _BOX
    boxes, shares = table[:, :_BOX], table[:, first:]
    if shares.min() < 0 or shares.max() > 1:
        return None
    if not coco and _weighed(shares):
        return Detection(ANY, first=_BOX + 1) if boxes.min() < 0 or boxes.max() > 1 else None
    return Detection(ANY, first=first) if boxes.max() > _PIXELS or coco else None


def _weighed(shares: Array) -> bool:
    """Return whether the first of some columns of shares is an objectness, which weighs the others."""
    if shares.shape[1] < 2:
        return False
    seen = shares > _SEEN
    return bool(seen[:, 0].mean() <= _RARE and seen[:, 1:].any(axis=1).mean() >= _COMMON)


def assumed(head: Head, best: Detection) -> str:
    """Say which of two readings of a head `unasked` took, where its number of columns allows both; else nothing."""
    columns = _table(head.indices, "the head", columns_of(head)).shape[1]
    if head.labels or best.first not in _BEFORE or columns < _BOX + 2 or columns - _COCO in _BEFORE:
        return ""
    counts = _classes(columns - _BOX), f"objectness and {_classes(columns - _BOX - 1)}"
    taken = _BEFORE.index(best.first)
    return (
        f"the {columns} columns of the head are a box and either {counts[0]}, or {counts[1]}; by their values they are "
        f"read as {counts[taken]}: target best={ANY},first={_BEFORE[1 - taken]} reads them the other way, and class "
        f"names settle it ({parameter('labels')})"
    )


def _classes(count: int) -> str:
    return f"{count} class" if count == 1 else f"{count} classes"


def detected(head: Head) -> tuple[str, ...]:
    """Return the class and the score of the best detection of every sample; nothing where a head is of no detector."""
    try:
        best = unasked(head)
    except TargetError:  # nothing but boxes
        return ()
    return () if best is None else tuple(best.choice(head, i) for i in range(head.count))


def _refuse_boxes(head: Head, anchors: int, boxes: Array) -> None:
    """Refuse a head of boxes, in pixels or from corner to corner, beside an output with as many rows of shares."""
    ordered = np.mean((boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3]))
    if boxes.max() <= _PIXELS and (ordered < _ORDERED or boxes.min() < 1 - _PIXELS):
        return
    for name, array in head.outputs().items():
        rows = array.reshape(head.count, -1)
        width = rows.shape[1] // anchors
        if rows.shape[1] != anchors * width or width == _BOX or rows.dtype.kind != "f":
            continue
        if rows.min() >= 0 and rows.max() <= 1:
            raise TargetError(
                f"the head {head.shape} holds boxes, of which no entry is the model's choice; say whose box and which "
                f"side of it: target best=CLASS,by={name},column=0 (0 to 3, CLASS one of 0 to {max(width - 1, 0)}), or "
                f"explain the scores ({parameter('output', name)})"
            )


def named(head: Head) -> int:
    """Return the number of labels, without one of a background."""
    return len(head.labels) - bool(head.labels and head.labels[0].strip("_ ").lower() == BACKGROUND)


def columns_of(head: Head) -> int | None:
    """Return the axis of the columns: the last one that is no axis of the picture; None if none is known to be one."""
    placed = {i for i, axis in enumerate(head.axes) if axis is not None and head.shape[i] > 1}
    rest = [i for i, size in enumerate(head.shape) if size > 1 and i not in placed]
    return rest[-1] if placed and rest else None


def _table(array: Array, what: str, axis: int | None = None) -> Array:
    """Return an array as (anchors, columns), the columns from one axis: by default the last, of two the shorter one."""
    sizes = [size for size in array.shape if size > 1]
    if len(sizes) < 2:
        raise TargetError(f"{what} has the shape {array.shape}: it holds no detections (anchors, columns)")
    if axis is not None:
        return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    table = array.reshape(-1, sizes[-1])
    return table.T if len(sizes) == 2 and sizes[0] < sizes[1] else table
