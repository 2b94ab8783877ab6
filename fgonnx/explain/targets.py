"""What is explained: one vocabulary for classifiers, detectors, segmentation and embeddings, as objects and as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import TargetError

Array = npt.NDArray[Any]

REDUCTIONS = ("mean", "sum")
_POSITION = re.compile(r"\s*(\d+|\d*:\d*)\s*")
_KEYS = {
    "region": ("region", "class", "reduce"),
    "best": ("best", "column", "first", "by"),
    "anchor": ("anchor", "column"),
    "similar": ("similar",),
    "seed": ("seed",),
}


@dataclass(frozen=True, eq=False)
class Region:
    """One class of a segmentation inside a region.

    Attributes
    ----------
    where : tuple of float, or array
        A box in shares of the head's grid, 0 to 1: (x0, y0, x1, y1); for sequences (t0, t1), for volumes
        (x0, y0, z0, x1, y1, z1). Or a mask of the grid's shape, booleans or weights.
    entry : int, str or None
        The class: an index or a label. By default the one that is largest in the region.
    reduce : {"mean", "sum"}
        What is explained of the entries inside.

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
        if self.reduce not in REDUCTIONS:
            raise TargetError(f"reduce={self.reduce!r} does not exist; choose one of: {', '.join(REDUCTIONS)}")


@dataclass(frozen=True)
class Detection:
    """One column of one detection, in a head of anchors and columns.

    Columns are the last axis; of two axes, the one with fewer entries.

    Attributes
    ----------
    best : int, str or None
        A class: the anchor with its highest score is explained. With `first` = 5 (four of a box, then the objectness)
        scores are multiplied by the objectness.
    anchor : int or None
        Or that anchor itself.
    column : int or None
        The column: a score, a coordinate of the box. By default the one of the class.
    first : int or None
        Columns before those of the classes. By default as many as there are more columns than labels
        (a background among them not counted).
    by : str or None
        Name of the output that holds the scores, where it is not the one explained.

    Examples
    --------
    The left edge of the box of the most confident person, as an object and as text:

    >>> from fgonnx.targets import Detection, parse
    >>> Detection("person", column=0)
    Detection(best='person', anchor=None, column=0, first=None, by=None)
    >>> parse("best=person,column=0") == Detection("person", column=0)
    True
    """

    best: int | str | None = None
    anchor: int | None = None
    column: int | None = None
    first: int | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        if (self.best is None) == (self.anchor is None):
            raise TargetError("a detection is either the best of a class (best=person) or an anchor (anchor=12)")
        if self.column is None and (self.anchor is not None or self.by is not None):
            raise TargetError("say which column of the detection is explained, such as column=0")


@dataclass(frozen=True, eq=False)
class Similarity:
    """The projection of an embedding on a reference, which is scaled to length one.

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


@dataclass(frozen=True, eq=False)
class Cotangent:
    """A weight for every entry of the head; their weighted sum is explained.

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


Position = tuple[int | slice, ...]
One = int | str | Position | Region | Detection | Similarity | Cotangent
Target = One | Sequence[One] | Array | None
"""What to explain: None for the largest entry; a list or an array for one per sample; a tuple is a position."""


def parse(text: str) -> One:
    """Read a target as it is typed.

    Parameters
    ----------
    text : str
        ``7``, ``person``; ``120,4`` or ``:,15``; ``region=x0:y0:x1:y1,class=person,reduce=mean`` or
        ``region=mask.npy``; ``best=person,first=5,column=0,by=scores``; ``anchor=12,column=4``;
        ``similar=reference.npy``; ``seed=weights.npy``.

    Returns
    -------
    int, str, tuple, Region, Detection, Similarity or Cotangent

    Raises
    ------
    TargetError
        A key or a number is wrong, or a file cannot be read.
    """
    parts = text.split(",")
    if (len(parts) > 1 or ":" in text) and all(_POSITION.fullmatch(p) for p in parts):
        return tuple(_position(p.strip()) for p in parts)
    kind = text.partition("=")[0].strip()
    if kind not in _KEYS or "=" not in text:
        return text
    given = dict(_pair(p, text) for p in re.split(r",(?=\s*\w+\s*=)", text))
    unknown = next((k for k in given if k not in _KEYS[kind]), None)
    if unknown is not None:
        raise TargetError(f"target '{text}': '{unknown}' means nothing here; it takes: {', '.join(_KEYS[kind])}")
    if kind == "region":
        box = _box(given["region"], text)
        return Region(_load(given["region"]) if box is None else box, given.get("class"), given.get("reduce", "mean"))
    if kind == "similar":
        return Similarity(_load(given["similar"]))
    if kind == "seed":
        return Cotangent(_load(given["seed"]))
    numbers = {k: _whole(given[k], k, text) for k in ("anchor", "column", "first") if k in given}
    return Detection(given.get("best"), by=given.get("by"), **numbers)


def takes_seed(target: Any) -> bool:
    """Tell whether a target needs a cotangent: whether it is more than one entry of the head."""
    if isinstance(target, str):
        target = parse(target)
    if isinstance(target, str):
        return False
    if isinstance(target, tuple):
        return any(isinstance(t, slice) for t in target)
    if isinstance(target, Sequence):
        return any(takes_seed(t) for t in target)
    return isinstance(target, (Region, Similarity, Cotangent))


def _position(text: str) -> int | slice:
    if ":" not in text:
        return int(text)
    start, _, stop = text.partition(":")
    return slice(int(start) if start else None, int(stop) if stop else None)


def _pair(text: str, whole: str) -> tuple[str, str]:
    key, _, value = (part.strip() for part in text.partition("="))
    if not value:
        raise TargetError(f"target '{whole}': '{key}' has no value")
    return key, value


def _box(text: str, whole: str) -> tuple[float, ...] | None:
    """Read x0:y0:x1:y1; None for the name of a file."""
    if text.lower().endswith(".npy"):
        return None
    try:
        return tuple(float(p) for p in text.split(":"))
    except ValueError:
        raise TargetError(
            f"target '{whole}': '{text}' is neither a box such as 0.2:0.1:0.8:0.9 nor a .npy file"
        ) from None


def _whole(text: str, key: str, whole: str) -> int:
    if not text.isdigit():
        raise TargetError(f"target '{whole}': {key}={text} is not a whole number of 0 or more")
    return int(text)


def _load(path: str) -> Array:
    try:
        array: Array = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TargetError(f"'{path}' cannot be read: write a numeric array with numpy.save") from error
    return array
