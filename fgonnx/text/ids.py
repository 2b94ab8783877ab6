"""Texts and ids as they are given: lists, arrays of NumPy, tensors of other libraries."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgonnx.errors import InputError
from fgonnx.explain.ids import not_whole

_LARGEST = 2**63 - 1


def whole_numbers(given: Any, where: str) -> Any:
    """Return ids that are given as floating-point numbers as whole numbers, and anything else as it is.

    Raises
    ------
    InputError
        One of them is no whole number of 64 bits; `where` names the ids.
    """
    if isinstance(given, (list, tuple)) and given and all(isinstance(v, numbers.Real) for v in given):
        floats = any(isinstance(v, (float, np.floating)) for v in given)
        return whole_numbers(np.asarray(given), where).tolist() if floats else given
    if not isinstance(given, np.ndarray) or given.dtype.kind != "f":
        return given
    if (wrong := not_whole(given)) is not None:
        raise InputError(f"{where} holds {wrong}; ids are whole numbers")
    outside = np.abs(given) >= float(_LARGEST)
    if outside.any():
        raise InputError(f"{where}: {given[outside][0]:.0f} is no id: it has more than 64 bits")
    return given.astype(np.int64)


def given_texts(given: Any) -> Sequence[Any]:
    """Return what was given as a list of texts, pairs, bytes or ids.

    Raises
    ------
    InputError
        It is none of these.
    """
    given = whole_numbers(_array(given), "the text")
    if isinstance(given, (str, bytes)) or _is_row(given):
        return [given]
    if isinstance(given, tuple) and given and all(isinstance(t, str) for t in given):
        return [given]
    if isinstance(given, np.ndarray):
        if given.dtype.kind in "OU" and given.ndim == 1:
            return list(given.tolist())
        if given.dtype.kind in "iu" and given.ndim == 2:
            return list(given)
        raise InputError(
            f"an array of {given.dtype} of the shape {given.shape} is no text; give texts, or ids as whole numbers, "
            "(T,) or (N, T)"
        )
    if not isinstance(given, (list, tuple)):
        raise InputError(f"a text of the type {type(given).__name__} is none; give a text, ids, or a list of those")
    return list(given)


def as_ids(given: Any, where: str) -> list[int] | None:
    """Return the ids of one text; None where it is something else.

    Raises
    ------
    InputError
        They are no whole numbers of 64 bits; `where` names the text.
    """
    given = whole_numbers(_array(given), where)
    if isinstance(given, (list, tuple)) and not given:
        raise InputError(f"{where} is empty; give at least one token")
    counted = isinstance(given, np.ndarray) or (
        isinstance(given, (list, tuple)) and all(isinstance(v, (int, float, np.number)) for v in given)
    )
    if not counted:
        return None
    if not _is_row(given):
        raise InputError(f"{where}: ids are whole numbers, (T,), one for each token")
    found = [int(i) for i in given]
    if not found:
        raise InputError(f"{where} is empty; give at least one token")
    if (wrong := next((i for i in found if abs(i) > _LARGEST), None)) is not None:
        raise InputError(f"{where}: {wrong} is no id: it has more than 64 bits")
    return found


def _array(given: Any) -> Any:
    """Return tensors of other libraries as arrays."""
    if isinstance(given, (str, bytes, list, tuple, np.ndarray)) or not hasattr(given, "__array__"):
        return given
    return np.asarray(given)


def _is_row(given: Any) -> bool:
    """Tell whether something is the ids of one text."""
    if isinstance(given, np.ndarray):
        return given.ndim == 1 and given.dtype.kind in "iu"
    return (
        isinstance(given, (list, tuple))
        and bool(given)
        and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in given)
    )
