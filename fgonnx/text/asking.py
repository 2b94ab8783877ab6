"""What is asked of texts: one target for all or for each, of a token, or the similarity to another text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import OptionError, TargetError
from fgonnx.explain.targets import One, Similarity
from fgonnx.wording import near

Array = npt.NDArray[Any]


def for_each(given: Any, owners: Sequence[int], count: int, what: str) -> list[Any]:
    """Return a target or a contrast for every part of texts.

    Parameters
    ----------
    given : any
        One for all, or a list or an array with one for each text.
    owners : sequence of int
        Of which text each part is.
    count : int
        How many texts there are.
    what : str
        What messages call it.

    Raises
    ------
    TargetError
        There is not one for each text.
    """
    if isinstance(given, np.ndarray):
        given = [tuple(row.tolist()) if row.ndim else row.item() for row in given] if given.ndim else given.item()
    if not isinstance(given, list):
        return [given] * len(owners)
    if len(given) != count:
        raise TargetError(
            f"{len(given)} {what}s were given for {count} text{'s' * (count != 1)}; give one, or one each"
        )
    return [given[i] for i in owners]


def place_axis(shape: Sequence[int], axes: Sequence[int | None], length: int) -> int | None:
    """Return the axis of a head that has one entry for each token; None where there is none."""
    known = [i for i, axis in enumerate(axes) if axis is not None and shape[i] == length]
    if not known and len(shape) > 1:
        known = [i for i, size in enumerate(shape) if size == length]
    return known[0] if len(known) == 1 else None


def largest(values: Array, axis: int, places: slice, without: int | None = None) -> int:
    """Return the flat index of the largest entry at some places of a head's axis, leaving one entry out."""
    kept = np.full(values.shape, -np.inf)
    own = tuple(places if i == axis else slice(None) for i in range(values.ndim))
    kept[own] = values[own]
    if without is not None:
        kept.reshape(-1)[without] = -np.inf
    return int(kept.argmax())


def position(index: int, shape: Sequence[int]) -> One:
    """Return an entry of a head as a target."""
    return index if len(shape) == 1 else tuple(int(i) for i in np.unravel_index(index, tuple(shape)))


def meant(one: Any, vector: Callable[[str], Array], of_token: Callable[[int, str], One]) -> One | None:
    """Return a target, with what is said of texts and tokens resolved."""
    if not isinstance(one, str):
        return one
    kind, found, rest = one.partition("=")
    if found and kind.strip() == "similar" and not rest.lower().endswith(".npy"):
        return Similarity(vector(rest.strip()))
    if found and kind.strip() == "token":
        place, _, name = rest.partition(":")
        if not place.strip().isdecimal():
            raise OptionError(f"target '{one}': '{place}' is no place of a token; count them from 0")
        return of_token(int(place), name.strip())
    return one


def class_of(name: str, labels: Sequence[str] | None, count: int) -> int:
    """Return the number of a class that is given by number or label.

    Raises
    ------
    TargetError
        There is no such class.
    """
    if name.isdecimal() and int(name) < count:
        return int(name)
    names = list(labels or ())
    if name in names[:count]:
        return names.index(name)
    known = f"one of {', '.join(names[:count])}, or " if names else ""
    raise TargetError(f"'{name}' is no class of a token; give {known}a number from 0 to {count - 1}{near(name, names)}")
