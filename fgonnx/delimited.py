"""Rows of cells in text: CSV, TSV, and what spreadsheets write with semicolons or bars."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgonnx import files
from fgonnx.errors import InputError

SUFFIXES = frozenset({".csv", ".tsv"})
"""File name endings, in lower case, of tables."""

_MARKS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """A row of cells.

    Attributes
    ----------
    line : int
        The line of the file on which it ends, from 1.
    cells : list of str
        Its cells as they are written.
    """

    line: int
    cells: list[str]


def read(path: Path, what: str, mark: str | None = None) -> list[Row]:
    """Read the rows of a file, without its empty lines.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What messages call it.
    mark : str, optional
        What stands between cells; by default the one of comma, semicolon, tab and bar that the first row has most of.

    Raises
    ------
    InputError
        The file is missing, is not UTF-8 text, or has quotes that do not end.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("walk.csv").write_text('place;"x;y"\\n\\nhome;1\\n')
    >>> [row.cells for row in read(Path("walk.csv"), "the table")]
    [['place', 'x;y'], ['home', '1']]
    """
    text = files.read_text(path, InputError, what)
    return rows_of(text, path, what, between(text) if mark is None else mark)


def between(text: str) -> str:
    """Return what stands between the cells of a text: what its first line that is not blank has most of, else a comma.

    Marks within quotes do not count.
    """
    head = next((line for line in text.split("\n") if line.strip()), "")
    outside = "".join(head.split('"')[::2])
    return max(_MARKS, key=outside.count)


def rows_of(text: str, path: Path, what: str, mark: str) -> list[Row]:
    """Return the rows of a text, without its empty lines; see `read`."""
    before = csv.field_size_limit(max(len(text), 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        return [Row(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"{what} '{path}' cannot be read: {error}; save it as CSV again") from error
    finally:
        csv.field_size_limit(before)


def uneven(rows: Sequence[Row]) -> Row | None:
    """Return the first row that has not as many cells as the first one."""
    return next((row for row in rows if len(row.cells) != len(rows[0].cells)), None)
