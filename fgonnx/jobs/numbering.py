"""Columns that number the rows of a table, or tell its recordings apart: they are no features and no channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fgonnx.pictures.read.columns import Columns

IDS = ("id", "recording", "recording_id", "record", "series", "series_id", "subject", "sample", "sample_id", "trial")
INDICES = ("", "unnamed: 0", "index")
"""Headers, in lower case, of the column that numbers the rows."""

_TRIED = 100  # rows whose cells tell what a column holds


def known(table: Columns, names: Sequence[str]) -> str | None:
    """Return the column that is known to number the rows: by its name and place, or by its name and cells.

    Parameters
    ----------
    table : Columns
        A table.
    names : sequence of str
        The columns that may be meant.
    """
    found = [n for n in names if n.lower() in (*INDICES, *IDS) and table.names.count(n) == 1]
    cells = {n: [row[table.place(n)].strip() for row in table.rows[:_TRIED]] for n in found}
    if len(found) == 1 and found[0] == names[0] and not _fractions(cells[found[0]]):
        return found[0]
    return next((n for n in found if _rising(cells[n])), None)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _fractions(cells: Sequence[str]) -> bool:
    """Tell whether some cells hold numbers that are not whole, as no column does that numbers rows."""
    return any(math.isfinite(v) and v != int(v) for v in map(_number, cells))


def _rising(cells: Sequence[str]) -> bool:
    """Tell whether cells count by one, from any number on."""
    values = np.array([_number(cell) for cell in cells])
    return len(values) > 1 and not _fractions(cells) and bool((np.diff(values) == 1).all())
