"""Some of the samples of an explanation, chosen as entries of a numpy array are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = slice | npt.NDArray[np.intp]


def one(index: Any) -> bool:
    """Tell whether an index is the number of a single sample."""
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool)


def number(index: Any, count: int) -> int:
    """Return the number of a sample, from 0.

    Raises
    ------
    TypeError, IndexError
        It is no number, or there is no such sample.
    """
    if not one(index):
        raise TypeError(f"a sample is taken by its number, or several by a slice, a list or a mask, not by {index!r}")
    if not -count <= index < count:
        raise IndexError(f"there are {count} samples, 0 to {count - 1}; there is no sample {index}")
    return int(index) % count


def several(index: Any, count: int) -> Rows:
    """Return which samples a slice, numbers in a list or array, or a mask of booleans chooses.

    Raises
    ------
    TypeError, IndexError
        It is none of these, names samples that there are not, or chooses none.
    """
    if not isinstance(index, slice):
        index = _listed(index, count)
    if not len(range(count)[index] if isinstance(index, slice) else index):
        raise IndexError(f"{index if isinstance(index, slice) else 'the index'} holds none of the {count} samples")
    return index


def _listed(index: Any, count: int) -> npt.NDArray[np.intp]:
    if isinstance(index, (tuple, str, bytes)) or not hasattr(index, "__len__"):
        return np.array([number(index, count)])  # which is refused
    given = np.asarray(index)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "biu"):
        raise TypeError(
            f"samples are taken by a list of their numbers or a mask of {count} booleans, not by {given.dtype} of the "
            f"shape {given.shape}"
        )
    if given.dtype.kind == "b":
        if len(given) != count:
            raise IndexError(f"the mask has {len(given)} booleans, there are {count} samples")
        return np.flatnonzero(given)
    return np.array([number(i, count) for i in given], np.intp)
