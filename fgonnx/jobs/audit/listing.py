"""The rows of an audit as columns of one table: their names, hashes, true classes and order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx.errors import InputError
from fgonnx.explain.stream import in_order
from fgonnx.jobs.dataset import classes_of
from fgonnx.wording import in_utf8

ARRAY = ".npy"

_HASHERS = 4


@dataclass
class Rows:
    """Rows of the data, column by column.

    Attributes
    ----------
    base : Path
        The folder that paths are relative to.
    name, path : list of str
        Name of every row, unique; and its file.
    place : list of tuple of int or None
        Within the file: offset and length in bytes of a tar file, row group and row of a table, row of an array.
    member : list of str or None
        Name within a tar file.
    truth : list of str or None
        The true class as the data say it.
    slices : list of dict of str to str
        Other columns.
    sha256 : list of str or None
        Where reading the data has shown it.
    units : list of int
        Rows that are read together: those of one row group.
    error : list of str or None
        Why a row cannot be read, where reading the data has shown it.
    skipped : dict of str to str
        Files that are left out, and why.
    """

    base: Path
    name: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    place: list[tuple[int, int] | None] = field(default_factory=list)
    member: list[str | None] = field(default_factory=list)
    truth: list[str | None] = field(default_factory=list)
    slices: list[dict[str, str]] = field(default_factory=list)
    sha256: list[str | None] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    error: list[str | None] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.name)

    def add(
        self,
        name: str,
        path: str,
        truth: Any = None,
        *,
        place: tuple[int, int] | None = None,
        member: str | None = None,
        slices: Mapping[str, Any] | None = None,
        sha256: str | None = None,
        error: str | None = None,
    ) -> None:
        """Add a row; one whose file has a name that is not UTF-8, which no table and no JSON can hold, is an error."""
        if in_utf8(path) != path:
            error = error or f"'{in_utf8(path)}' has a name that is not UTF-8: rename the file"
        name, path, member = in_utf8(name), in_utf8(path), in_utf8(member) if member is not None else None
        self.error.append(error)
        self.name.append(name)
        self.path.append(path)
        self.place.append(place)
        self.member.append(member)
        missing = truth is None or truth != truth or str(truth).strip() == ""  # NaN is how a missing number is kept
        self.truth.append(None if missing else str(truth).strip())
        self.slices.append({k: "" if v is None else in_utf8(str(v)) for k, v in (slices or {}).items()})
        self.sha256.append(sha256)
        self.units.append(len(self.units))


def unique(rows: Rows, data: Path) -> Rows:
    """Return rows that have names of their own.

    Raises
    ------
    InputError
        Two have one name.
    """
    twice = [name for name, n in Counter(rows.name).items() if n > 1]
    if twice:
        places = [i for i, name in enumerate(rows.name, 1) if name == twice[0]]
        raise InputError(
            f"'{data}' names {len(twice)} rows more than once, '{twice[0]}' in rows {places[0]} and {places[1]}: a row "
            "is known by its name; keep one of each"
        )
    return rows


def hashed(rows: Rows, chosen: Sequence[int]) -> tuple[list[str | None], list[str | None]]:
    """Return the SHA-256 of the bytes of chosen rows, and why those without cannot be read."""

    @cache
    def of_array(path: str) -> str:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def one(i: int) -> tuple[str | None, str | None]:
        if rows.error[i] is not None:
            return None, rows.error[i]
        known = rows.sha256[i]
        if known is not None:
            return known, None
        path = rows.base / rows.path[i]
        try:
            if path.suffix.lower() == ARRAY:
                return of_array(str(path)), None
            return hashlib.sha256(path.read_bytes()).hexdigest(), None
        except OSError as error:
            return None, f"'{rows.path[i]}' cannot be read: {error.strerror}"

    with ThreadPoolExecutor(_HASHERS) as pool:
        found = list(in_order(pool, (_call(one, i) for i in chosen), 64))
    return [sha for sha, _ in found], [why for _, why in found]


def _call(function: Callable[[int], Any], i: int) -> Callable[[], Any]:
    return lambda: function(i)


def resolved(rows: Rows, names: Sequence[str], entries: int, data: Path) -> list[int | None]:
    """Return the true class of every row as an index of the head.

    Raises
    ------
    TargetError
        Some are no classes of the model.
    """
    given = list(dict.fromkeys(t for t in rows.truth if t is not None))
    found = classes_of(given, names, entries, f"classes that '{data}' names are none of this model", "classes")
    return [None if t is None else found[t] for t in rows.truth]


def ordered(rows: Rows, seed: int) -> list[int]:
    """Return the order of the rows: drawn by the seed; rows that are read together stay together."""
    rng = np.random.default_rng(seed)
    together: dict[int, list[int]] = {}
    for i, unit in enumerate(rows.units):
        together.setdefault(unit, []).append(i)
    groups = list(together.values())
    if len(groups) == len(rows):
        return [int(i) for i in rng.permutation(len(rows))]
    return [groups[g][int(i)] for g in rng.permutation(len(groups)) for i in rng.permutation(len(groups[g]))]
