"""Texts in files: .txt, .jsonl, .csv, .tsv, .parquet; any file for models of bytes; .npy of ids."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import bounds, delimited, files
from fgonnx.errors import InputError, OptionError
from fgonnx.files import read_array
from fgonnx.text.ids import whole_numbers
from fgonnx.wording import near, parameter

SUFFIXES = (".txt", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".npy")
LABEL = "label"
"""The column, or the key, of the true class of a text."""

_USUAL = "text"
HEADERS = {
    *("text", "texts", "sentence", "sentences", "review", "reviews", "comment", "comments", "message", "messages"),
    *("content", "title", "body", "tweet", "document", "question", "query", "prompt", "utterance", "input"),
}
"""What the column of texts is often called."""


@dataclass(frozen=True)
class Text:
    """One text and where it was read.

    Attributes
    ----------
    name : str
        Name of its output files, unique in a run.
    where : str
        What messages call it: its line in the file where there are lines, else its row, from 0.
    content : any
        The text, bytes, or ids.
    path : Path or None
        Its file.
    row : int or None
        Its row in the file, from 0.
    label : str or None
        Its true class, where the file says it.
    """

    name: str
    where: str
    content: Any
    path: Path | None = None
    row: int | None = None
    label: str | None = None


def texts(paths: Sequence[Path], typed: Sequence[str], column: str | None, *, as_bytes: bool) -> list[Text]:
    """Return texts that were typed, and those in files.

    Raises
    ------
    InputError
        A file cannot be read, or holds no texts.
    OptionError
        There is no such column.
    """
    found = [Text(f"text-{i + 1:04}", f"text {i + 1}", text) for i, text in enumerate(typed)]
    for path in paths:
        found += _in_file(path, column, as_bytes=as_bytes)
        bounds.check("sample_count", len(found), f"with '{path}', the input has", InputError)
    if not found:
        raise InputError(f"there is no text: give one ({parameter('text')}), or a file of them ({', '.join(SUFFIXES)})")
    return _named(found)


def _named(found: Sequence[Text]) -> list[Text]:
    """Give every text a name of its own."""
    taken: set[str] = set()
    named = []
    for one in found:
        name, count = one.name, 1
        while name.casefold() in taken:
            count += 1
            name = f"{one.name}-{count}"
        taken.add(name.casefold())
        named.append(replace(one, name=name))
    return named


def _in_file(path: Path, column: str | None, *, as_bytes: bool) -> list[Text]:
    kind = path.suffix.lower()
    if path.is_dir():
        inner = sorted(p for p in path.iterdir() if p.is_file() and (as_bytes or p.suffix.lower() in SUFFIXES))
        if not inner:
            raise InputError(f"'{path}' holds no files of texts ({', '.join(SUFFIXES)})")
        return [text for p in inner for text in _in_file(p, column, as_bytes=as_bytes)]
    if kind == ".npy":
        array = whole_numbers(read_array(path, InputError), f"'{path}'")
        if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
            raise InputError(
                f"'{path}' holds {array.dtype} of the shape {array.shape}; ids are whole numbers, (T,) or (N, T)"
            )
        return _rows(path, list(np.atleast_2d(array)))
    if as_bytes:
        return [Text(path.stem, f"'{path}'", files.read(path, InputError), path)]
    if kind in (".jsonl", ".ndjson"):
        return _rows(path, *zip(*_lines_of_json(path, column), strict=True))
    if kind in (".csv", ".tsv"):
        return _rows(path, *zip(*_column(path, column, "\t" if kind == ".tsv" else None), strict=True))
    if kind == ".parquet":
        return _rows(path, *zip(*_in_parquet(path, column), strict=True))
    return [Text(path.stem, f"'{path}'", files.read_text(path, InputError, "text").strip(), path)]


def _rows(
    path: Path, contents: Sequence[Any] = (), labels: Sequence[str | None] = (), lines: Sequence[int] = ()
) -> list[Text]:
    if not contents:
        raise InputError(f"'{path}' holds no texts")
    named = labels or (None,) * len(contents)
    at = [f"line {line}" for line in lines] or [f"row {i}" for i in range(len(contents))]
    return [
        Text(f"{path.stem}-{i:04}", f"'{path}', {where}", text, path, i, label)
        for i, (text, label, where) in enumerate(zip(contents, named, at, strict=True))
    ]


def _lines_of_json(path: Path, column: str | None) -> Iterator[tuple[str, str | None, int]]:
    """Yield the texts of lines of JSON, each with its class where it has one, and its line; null is an empty text."""
    for i, line in enumerate(files.read_text(path, InputError, "texts").split("\n")):
        if not line.strip():
            continue
        found = files.parsed(line, f"'{path}', line {i + 1}", InputError)
        if isinstance(found, str) and column is None:
            yield found, None, i + 1
            continue
        key = column or _USUAL
        if isinstance(found, dict) and key in found and found[key] is None:
            found[key] = ""
        if isinstance(found, dict) and key in found and not isinstance(found[key], str):
            raise InputError(
                f"'{path}', line {i + 1}: '{key}' holds {json.dumps(found[key])[:40]}, which is no text; quote it"
            )
        if not isinstance(found, dict) or not isinstance(found.get(key), str):
            has = f"; it has: {', '.join(map(str, found))}" if isinstance(found, dict) else ""
            raise InputError(f"'{path}', line {i + 1}: there is no text under '{key}'{has} ({parameter('column')})")
        yield found[key], _label(found.get(LABEL) if key != LABEL else None), i + 1


def _label(found: Any) -> str | None:
    return str(found) if isinstance(found, (str, int)) and str(found).strip() else None


def _names_column(first: str, path: Path) -> bool:
    """Tell whether the first row of a table of one column is its header, and no text.

    Raises
    ------
    OptionError
        It may be either.
    """
    if first.strip().lower() in HEADERS:
        return True
    if len(first.split()) > 1:
        return False
    raise OptionError(
        f"'{path}' has one column, and its first row is '{first.strip()}': if it names the column, say so "
        f"({parameter('column', first.strip())}); if it is a text, put a row 'text' above it"
    )


def _column(path: Path, column: str | None, mark: str | None) -> list[tuple[str, str | None, int]]:
    """Return the texts of a table, each with its class where there is a column of those, and its line."""
    content = files.read_text(path, InputError, "texts")
    rows = delimited.rows_of(content, path, "texts", _mark(content, column) if mark is None else mark)
    lone = column is None and bool(rows) and all(len(row.cells) == 1 for row in rows)
    if lone and not _names_column(rows[0].cells[0], path):
        return [(row.cells[0], None, row.line) for row in rows]
    if len(rows) < 2:
        raise InputError(f"'{path}' holds no texts below a header")
    header = [name.strip() for name in rows[0].cells]
    name = _named_column(path, header, column)
    if (odd := delimited.uneven(rows)) is not None:
        raise InputError(
            f"'{path}', line {odd.line}: {len(odd.cells)} cells, where the header has {len(header)}; a text that holds "
            'what stands between cells is put in quotes, as "well, no"'
        )
    at, of = header.index(name), header.index(LABEL) if LABEL in header and name != LABEL else None
    return [(row.cells[at], None if of is None else row.cells[of].strip() or None, row.line) for row in rows[1:]]


def _named_column(path: Path, header: Sequence[str], column: str | None) -> str:
    """Return the column of the texts."""
    name = column or (_USUAL if _USUAL in header else header[0] if len(header) == 1 else None)
    if name is None or name not in header:
        said = f"has no column '{name}'" if name is not None else "has several columns"
        like = near(name, header) if name is not None else ""
        raise OptionError(f"'{path}' {said}; name one ({parameter('column')}): {', '.join(header)}{like}")
    return name


def _in_parquet(path: Path, column: str | None) -> list[tuple[str, str | None]]:
    """Return the texts of a Parquet file, each with its class where there is a column of those; null is an empty text.

    Raises
    ------
    InputError
        It cannot be read, pyarrow is missing, or a row holds no text.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f"'{path}' needs pyarrow: pip install 'fgonnx[audit]', or give .csv or .jsonl") from error
    content = pa.BufferReader(files.read(path, InputError, "texts"))
    try:
        table = pq.read_table(content)
        name = _named_column(path, table.column_names, column)
        found: list[Any] = table.column(name).to_pylist()
        of = table.column(LABEL).to_pylist() if LABEL in table.column_names and name != LABEL else [None] * len(found)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"'{path}' cannot be read as Parquet: {error}") from error
    wrong = next((i for i, text in enumerate(found) if text is not None and not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"'{path}', row {wrong}: '{name}' holds {str(found[wrong])[:40]}, which is no text")
    return [(text or "", _label(label)) for text, label in zip(found, of, strict=True)]


def _mark(content: str, column: str | None) -> str:
    """Return what stands between the cells: a comma, unless the header has the texts' column with another mark."""
    head = next((line for line in content.split("\n") if line.strip()), "")
    mark = delimited.between(head)
    names = [cell.strip().strip('"').lower() for cell in head.split(mark)]
    return mark if column in names or any(name in HEADERS for name in names) else ","
