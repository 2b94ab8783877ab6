"""Words of messages: parameters, which a program may spell its own way, and the names that a misspelt one is like."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from fgonnx.errors import MARKS

_GAP = "..."
_SHOWN = 60  # characters of a value
_CUTOFF = 0.6
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of the direction, lone surrogates, ends of lines
_MARKS_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")  # letters of no ink
_JOINS = ("\u200c", "\u200d")
_JOINED, _PICTURED = "\u0600", tuple("\u00a9\u00ae#*0123456789")  # what is written with joins and forms
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


def distinct(one: float, other: float) -> tuple[str, str]:
    """Return two numbers as texts that differ wherever the numbers do: with two digits, or as many as that takes.

    >>> distinct(0.0331, 0.03), distinct(0.03004, 0.03)
    (('3.3e-02', '3.0e-02'), ('3.004e-02', '3.000e-02'))
    """
    for digits in range(1, 17):
        first, second = f"{one:.{digits}e}", f"{other:.{digits}e}"
        if first != second:
            break
    return first, second


def amount(value: float, *, signed: bool = False) -> str:
    """Return a score, or what adds to one, as it is written everywhere: four digits; what is zero has no sign.

    Examples
    --------
    >>> amount(3.87653), amount(0.5, signed=True), amount(-0.0, signed=True)
    ('3.877', '+0.5', '0')
    """
    return f"{value:{'+' if signed and value else ''}.4g}" if value else "0"


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


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Elide the middle of long names; those that would then be alike keep the part that tells them apart.

    Parameters
    ----------
    names : sequence of str
        The names.
    most : int
        Characters that a name may have; 20 or more.

    Returns
    -------
    list of str
        In the same order, each at most `most` long; different names stay different.

    Examples
    --------
    >>> shortened(["encoder/block_1/attention/scores", "encoder/block_2/attention/scores", "head"], 24)
    ['encoder/block_1/atten...', 'encoder/block_2/atten...', 'head']
    """
    found = {name: _elided(name, most) for name in names}
    alike: dict[str, list[str]] = {}
    for name, short in found.items():
        alike.setdefault(short, []).append(name)
    for group in (g for g in alike.values() if len(g) > 1):
        letters = zip(*group, strict=False)  # as far as the shortest
        at = next((i for i, there in enumerate(letters) if len(set(there)) > 1), min(map(len, group)))
        found.update({name: _around(name, at, most) for name in group})
    taken: dict[str, str] = {}
    for name, short in sorted(found.items(), key=lambda item: item[0] != item[1]):  # those in full first
        unique, number = short, 1
        while unique in taken:
            number += 1
            unique = f"{short[: most - len(f' ({number})')]} ({number})"
        taken[unique] = name
    by_name = {name: short for short, name in taken.items()}
    return [by_name[name] for name in names]


def _elided(name: str, most: int) -> str:
    tail = (most - len(_GAP)) // 2
    return name if len(name) <= most else f"{name[: most - len(_GAP) - tail]}{_GAP}{name[-tail:]}"


def _around(name: str, at: int, most: int) -> str:
    """Elide a name, but not the characters from `at` on, where it differs from others."""
    first = most // 10  # of the beginning
    if at + 1 < most - len(_GAP):  # they differ where a name that ends early still shows it
        return f"{name[: most - len(_GAP)]}{_GAP}"
    start = min(at - 1, max(len(name) - (most - first - len(_GAP)), 0))
    rest = name[start:]
    room = most - first - len(_GAP)
    return f"{name[:first]}{_GAP}{rest if len(rest) <= room else rest[: room - len(_GAP)] + _GAP}"


def in_utf8(text: str) -> str:
    r"""Return a text with its lone surrogates, of names that are not UTF-8, escaped as in JSON: ``\udcff``."""
    return text.encode(errors="backslashreplace").decode()


def visible(text: str) -> str:
    """Return a text with code points for what is not seen where it is shown, as marks of the direction.

    What joins letters, or chooses their form, stays where a script or a picture before it is written with it.

    Examples
    --------
    >>> visible("go\u202eod")
    'go\\u202eod'
    """
    if text.isascii() and text.isprintable():
        return text
    before, hidden = "", False
    found = []
    for char in text:
        if char == "\u200d" and _is_form(before):  # pictures are joined behind the form of the first
            unseen = hidden
        elif char in _JOINS or _is_form(char):
            unseen = before in _JOINS or _is_form(before) or hidden or not (before >= _JOINED or before in _PICTURED)
        else:
            unseen = _unseen(char)
        found.append(char.encode("unicode_escape").decode() if unseen else char)
        before, hidden = char, unseen
    return "".join(found)


def _is_form(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f"


def _unseen(char: str) -> bool:
    kind = unicodedata.category(char)
    return (kind in _UNSEEN and char not in _MARKS_SEEN) or char in _BLANK or (kind == "Zs" and char != " ")
