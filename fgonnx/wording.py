"""Words of messages: parameters, which a program may spell its own way, and the names that a misspelt one is like."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Any

from fgonnx.errors import MARKS

_SHOWN = 60  # characters of a value
_CUTOFF = 0.6
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_PREFIX = 3  # letters that a name must share with another of which it is the beginning


def parameter(name: str, *value: Any) -> str:
    """Return a parameter, with its value if one is given, for a message: the command line spells it its own way."""
    shown = [f"array of shape {v.shape}" if hasattr(v, "shape") and v.shape else _written(v) for v in value]
    few = [text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..." for text in shown]
    first, between, last = MARKS
    return f"{first}{name}{between}{''.join(few)}{last}"


def closest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = _CUTOFF) -> list[str]:
    """Return the names that are most like a misspelt one, regardless of case and of ``_`` for ``-``.

    Parameters
    ----------
    word : str
        What was written.
    known : iterable of str
        The names that exist.
    most : int
        How many are returned at most.
    cutoff : float
        How alike they must be, 0..1.
    """
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(_plain(name), name)
    wanted = _plain(word)
    found = difflib.get_close_matches(wanted, names, n=most, cutoff=cutoff)
    if not found and len(wanted) >= _PREFIX:
        found = [
            name for name in names if len(name) >= _PREFIX and (name.startswith(wanted) or wanted.startswith(name))
        ]
    return [names[name] for name in found[:most]]


def near(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the name that is most like a misspelt one, or an empty text."""
    found = closest(word, known)
    return f" (did you mean '{found[0]}'?)" if found else ""


def whole(text: str) -> int | None:
    """Return the whole number that a text is; None where it is none, or has more than 18 digits.

    Examples
    --------
    >>> whole(" -12"), whole("\u00b2"), whole("9" * 19)
    (-12, None, None)
    """
    return int(text) if _WHOLE.fullmatch(text.strip()) else None


def _written(value: Any) -> str:
    return repr(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _plain(word: str) -> str:
    return word.casefold().replace("_", "-").strip()


def first_line(error: BaseException) -> str:
    """Return the first line of the text of an exception, or its kind."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
