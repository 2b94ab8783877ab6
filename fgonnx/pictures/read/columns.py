"""Read tables of text: a header and rows of numbers, as spreadsheets and loggers write them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import delimited
from fgonnx.errors import InputError
from fgonnx.wording import near

SUFFIXES = delimited.SUFFIXES
"""File name endings, in lower case, of tables."""

_LISTED = 8


@dataclass(frozen=True)
class Columns:
    """A table of text.

    Attributes
    ----------
    names : tuple of str
        The header; "column 0" and so on where there is none.
    rows : list of list of str
        The cells.
    path : Path
        Where it was read from, for messages.
    first : int
        Line of the first row in the file, from 1.
    headed : bool
        Whether the file has a header.
    counted : str
        What is counted in messages: lines of a file, rows of a table in memory.
    index : pandas Index, optional
        What the rows of a table in memory are called.
    lines : sequence of int
        Line of the file on which each row ends, from 1; without them, rows are counted from `first`.
    """

    names: tuple[str, ...]
    rows: list[list[str]]
    path: Path
    first: int = 2
    headed: bool = True
    counted: str = "line"
    index: Any = None
    lines: Sequence[int] = ()

    def where(self, row: int) -> str:
        """Return what messages call a row: its line in the file where there are lines, else its number, from 0."""
        return f"line {self.lines[row]}" if self.lines else f"{self.counted} {self.first + row}"

    def place(self, name: str) -> int:
        """Return which column has a name.

        Raises
        ------
        InputError
            None, or several.
        """
        count = self.names.count(name)
        if count == 1:
            return self.names.index(name)
        if count:
            raise InputError(f"'{self.path}': {count} columns are called '{name}'; give every column its own name")
        known = ", ".join(f"'{n}'" for n in self.names[:_LISTED]) + (", ..." if len(self.names) > _LISTED else "")
        header = "its header has" if self.headed else "it has no header; its columns are called"
        raise InputError(f"'{self.path}' has no column '{name}'{near(name, self.names)}; {header} {known}")

    def texts(self, name: str) -> list[str]:
        """Return a column as it is written."""
        at = self.place(name)
        return [row[at].strip() for row in self.rows]

    def numbers(self, names: Iterable[str], rows: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
        """Return columns as numbers, (rows, columns).

        Parameters
        ----------
        names : iterable of str
            Which columns, in which order.
        rows : sequence of int, optional
            Which rows; all by default.

        Raises
        ------
        InputError
            A cell holds no finite number; the message names its line and column.
        """
        at = {name: i for i, name in enumerate(self.names)}
        apart = len(at) == len(self.names)
        places = [at[name] if apart and name in at else self.place(name) for name in names]
        chosen = range(len(self.rows)) if rows is None else rows
        try:
            found = np.array([[float(self.rows[i][at]) for at in places] for i in chosen], np.float64)
        except ValueError:
            found = None
        if found is None or not np.isfinite(found).all():
            raise self._wrong(places, chosen)
        return found.reshape(len(chosen), len(places))

    def _wrong(self, places: Sequence[int], rows: Sequence[int]) -> InputError:
        """Return the error for the first cell that holds no finite number."""
        for i in rows:
            for at in places:
                cell = self.rows[i][at].strip()
                number = _number(cell)
                if number is not None and np.isfinite(number):
                    continue
                where = f"'{self.path}', {self.where(i)}, column '{self.names[at]}'"
                if not cell:
                    return InputError(f"{where}: the cell is empty; fill it in, or leave the row out")
                if number is not None:
                    return InputError(f"{where}: {cell} is no finite number; fill in a value, or leave the row out")
                comma = _number(cell.replace(",", ".", 1)) is not None
                advice = "write numbers with a point" if comma else "choose the columns of numbers (--channels a,b,c)"
                return InputError(f"{where}: '{cell[:40]}' is no number; {advice}")
        raise AssertionError  # called only where there is one


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def read(path: str | os.PathLike[str], of: str = "numbers") -> Columns:
    """Read a table: comma, semicolon, tab or bar between cells; a first row that holds a text is the header.

    Parameters
    ----------
    path : path
        The file.
    of : str
        What its rows hold, for messages.

    Raises
    ------
    InputError
        The file is missing, is not UTF-8 text, is empty, or a row has another number of cells.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("walk.csv").write_text("time,x,y\\n0.00,0.1,0.2\\n0.02,0.3,0.1\\n")
    >>> read("walk.csv").names, read("walk.csv").numbers(["y"]).tolist()
    (('time', 'x', 'y'), [[0.2], [0.1]])
    """
    path = Path(path)
    rows = [row for row in delimited.read(path, "the table") if any(cell.strip() for cell in row.cells)]
    if not rows:
        raise InputError(f"the table '{path}' is empty: it needs a header and rows of {of}")
    width = len(rows[0].cells)
    if (odd := delimited.uneven(rows)) is not None:
        raise InputError(
            f"'{path}', line {odd.line}: {len(odd.cells)} cells, where the first line has {width}; every row has one "
            "cell for each column"
        )
    headed = any(_number(cell.strip()) is None for cell in rows[0].cells)
    names = tuple(c.strip() for c in rows[0].cells) if headed else tuple(f"column {i}" for i in range(width))
    body = rows[1:] if headed else rows
    if not body:
        raise InputError(f"the table '{path}' has a header and no rows: there is nothing to explain")
    lines = tuple(row.line for row in body)
    return Columns(names, [row.cells for row in body], path, body[0].line, headed, lines=lines)
