"""Class names against a model: as many as it has classes, and the one that a user means."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from fgonnx.errors import InputError, OptionError, TargetError
from fgonnx.labels.formats import of_mapping
from fgonnx.labels.label import BACKGROUND, Label
from fgonnx.wording import closest, parameter

_SHOWN = 6  # candidates named in an error message
_DIGITS = 18  # of an index


def align(labels: Sequence[str], n_classes: int) -> tuple[tuple[str, ...], str | None]:
    """Add or drop a background class where labels and classes of a model differ by one in a well-known way.

    Parameters
    ----------
    labels : sequence of str
        Names as they were loaded.
    n_classes : int
        Number of outputs of the model.

    Returns
    -------
    labels : tuple of str
        Exactly `n_classes` names.
    note : str or None
        What was changed; None for no change.

    Raises
    ------
    TargetError
        The numbers differ by more than a background class.
    """
    labels = tuple(labels)
    if len(labels) == n_classes:
        return labels, None
    if n_classes == 1001 and len(labels) == 1000:
        # TensorFlow's ImageNet models reserve class 0; no other count is common enough to be sure where it goes.
        note = f"'{BACKGROUND}' added in front: the model has 1001 classes, the labels 1000"
        return (Label(BACKGROUND), *labels), note
    if len(labels) == n_classes + 1 and labels[0].strip("_ ").lower() == BACKGROUND:
        note = f"'{labels[0]}' dropped from the front: the model has {n_classes} classes, the labels {len(labels)}"
        return labels[1:], note
    raise TargetError(
        f"{len(labels)} labels do not fit a model with {n_classes} classes: give the label file of this model, or none"
    )


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels that were given from Python.

    Raises
    ------
    OptionError
        They are a text, are not texts, or there are none.
    """
    if isinstance(labels, (str, os.PathLike)):
        raise OptionError(
            f"{parameter('labels', labels)} are no names; for those of a file write "
            f"{parameter('labels')}fgonnx.labels.load({os.fspath(labels)!r})"
        )
    if isinstance(labels, Mapping):
        try:
            return of_mapping(labels, f"the {parameter('labels')}")
        except InputError as error:
            raise OptionError(str(error)) from error
    found = list(labels) if isinstance(labels, Iterable) else []
    wrong = next((v for v in found if not isinstance(v, str) or not v.strip()), None)
    if not found or wrong is not None:
        what = "hold none" if not found else f"hold {wrong!r}"
        raise OptionError(f"the {parameter('labels')} {what}; give a name for each class, in the order of the outputs")
    return tuple(found)


def check_count(labels: Sequence[str], shape: Sequence[int]) -> None:
    """Refuse labels of another number than a head has classes.

    Parameters
    ----------
    labels : sequence of str
        Class names.
    shape : sequence of int
        Of the head for one sample; where several axes are longer than 1, any may be that of the classes.

    Raises
    ------
    TargetError
        They do not fit.
    """
    long = [size for size in shape if size > 1]
    if len(long) < 2:
        align(labels, math.prod(shape))
    elif len(labels) > max(long) + 1:
        raise TargetError(f"{len(labels)} labels do not fit a head of shape {tuple(shape)}: give those of this model")


def resolve(target: str, labels: Sequence[str] = (), n_classes: int | None = None) -> int:
    """Find the class that a user means.

    Tried in this order, regardless of case and of ``_`` for a space: an index, a whole label, a WordNet identifier,
    one of a label's synonyms (between commas), a part that only one label contains.

    Parameters
    ----------
    target : str
        What was typed. An integer is always an index, never a name.
    labels : sequence of str
        One name per class; may be empty, then only indices are understood.
    n_classes : int, optional
        Number of classes, against which an index is checked; without it, the number of labels if there are any.

    Returns
    -------
    int
        Index of the class, 0 or more.

    Raises
    ------
    TargetError
        The index is out of range, the name is unknown (the closest names are listed), or fits several classes.
    """
    wanted = _plain(target)
    if not wanted:
        raise TargetError("the target is empty: give the index of a class, or its name")
    if re.fullmatch(r"[+-]?\d+", wanted):
        if len(wanted) > _DIGITS:
            raise TargetError(f"target {wanted[:_DIGITS]}... is out of range: it has {len(wanted)} digits")
        index, count = int(wanted), n_classes if n_classes is not None else len(labels) or None
        if index < 0 or (count is not None and index >= count):
            span = f"0..{count - 1}" if count is not None else "0 or more"
            raise TargetError(f"target {index} is out of range: the classes are {span}")
        return index
    if not labels:
        raise TargetError(f"target '{target}' is a name but the model has no labels: give an index or a label file")

    matches: tuple[Callable[[str], bool], ...] = (
        lambda label: _plain(label) == wanted,
        lambda label: (getattr(label, "wnid", None) or "") == wanted,
        lambda label: wanted in _synonyms(label),
        lambda label: wanted in _plain(label),
    )
    for match in matches:
        found = [i for i, label in enumerate(labels) if match(label)]
        if len(found) == 1:
            return found[0]
        if found:
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            names = ", ".join(f"{i} '{labels[i]}'" for i in found[:_SHOWN])
            raise TargetError(f"target '{target}' fits {len(found)} classes: {names}{more}; give the index")
    raise TargetError(f"target '{target}' is no label of this model{_closest(wanted, labels)}")


def _closest(wanted: str, labels: Sequence[str]) -> str:
    """List labels similar to the wanted one."""
    index_of: dict[str, int] = {}
    for i, label in enumerate(labels):
        for name in (_plain(label), *_synonyms(label)):
            index_of.setdefault(name, i)
    names = closest(wanted, index_of, most=_SHOWN, cutoff=0.7)
    near = dict.fromkeys(index_of[name] for name in names)
    if not near:
        return f": give an index 0..{len(labels) - 1}, or a name such as '{labels[0]}'"
    return ": did you mean " + ", ".join(f"{i} '{labels[i]}'" for i in near) + "?"


def _plain(text: str) -> str:
    """Normalise a name for comparison."""
    return " ".join(text.replace("_", " ").casefold().split())


def _synonyms(label: str) -> list[str]:
    return [_plain(part) for part in label.split(",")]
