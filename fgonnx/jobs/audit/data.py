"""The data of an audit read: pictures in folders, lists, tables and tar files, as rows and as bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fgonnx.errors import InputError, OptionError
from fgonnx.files import near_name, read_array
from fgonnx.jobs.audit.listing import ARRAY, Rows, unique
from fgonnx.jobs.audit.options import Auditing
from fgonnx.pictures.read import images
from fgonnx.wording import in_utf8, near, parameter

COLUMNS = ("path", "file", "filename", "file_name", "image", "bytes")
_TABLES, _LISTS = (".csv", ".parquet"), (".txt", ".lst")
_LISTED = 6
_TRUTHS = ("cls", "label", "class")  # what WebDataset calls the true class


def find(data: Path, auditing: Auditing, rank: int, axis: int = 0) -> Rows:
    """List the rows of the data.

    Parameters
    ----------
    data : Path
        A folder of pictures, or of one folder per class; a list of paths (.txt), one a line; a table (.csv, .parquet)
        with a column of paths or of bytes; a tar file, or a folder of tar files, as WebDataset writes them.
    auditing : Auditing
        Which columns of a table are read.
    rank : int
        Axes of the model's input, batch included: an array of that many holds several rows.
    axis : int
        Which of them is the batch.

    Raises
    ------
    InputError
        There are no rows, or two of one name.
    OptionError
        A column does not exist.
    """
    suffix = data.suffix.lower()
    if not data.exists():
        raise InputError(f"'{data}' does not exist{near_name(data)}: check the spelling and the working folder")
    if data.is_dir():
        rows = _folder(data, rank, axis)
    elif suffix == ".tar":
        rows = _tars([data], data.parent, auditing)
    elif suffix in _TABLES:
        rows = _csv(data, auditing) if suffix == ".csv" else _parquet(data, auditing)
    elif suffix in _LISTS:
        rows = Rows(data.parent)
        for line in _text(data).splitlines():
            if line.strip():
                rows.add(line.strip(), line.strip())
    else:
        raise InputError(
            f"'{data}' is neither a folder, nor a list (.txt), a table (.csv, .parquet) or a .tar: give one of those"
        )
    if not len(rows):
        few = ", ".join(f"{name} {why}" for name, why in list(rows.skipped.items())[:_LISTED])
        raise InputError(f"'{data}' holds no picture{f' ({few})' if few else ''}")
    unique(rows, data)
    if auditing.slices and any(s not in rows.slices[0] for s in auditing.slices):
        raise OptionError(
            f"{parameter('slices', auditing.slices)} names columns, and '{data}' is no table that has them"
        )
    return rows


def _folder(data: Path, rank: int, axis: int) -> Rows:
    rows = Rows(data)
    tars = sorted(f for f in data.glob("*.tar") if f.is_file())
    if tars:
        return _tars(tars, data, Auditing())
    classes = sorted(p for p in data.iterdir() if p.is_dir() and not p.name.startswith("."))
    for file in _files(data, rows):
        _file(rows, file, file.name, None, rank, axis)
    inside = [(folder, file) for folder in classes for file in _files(folder, rows)]
    if len(rows) and inside:
        raise InputError(f"'{data}' holds both pictures and folders; give pictures alone, or folders of classes alone")
    for folder, file in inside:
        _file(rows, file, f"{folder.name}/{file.name}", folder.name, rank, axis)
    return rows


def _files(folder: Path, rows: Rows) -> Iterator[Path]:
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")):
        if file.suffix.lower() in images.SUFFIXES | {ARRAY}:
            yield file
        else:
            rows.skipped[in_utf8(str(file.relative_to(rows.base)))] = "is not a picture"


def _file(rows: Rows, file: Path, name: str, truth: str | None, rank: int, axis: int) -> None:
    if file.suffix.lower() != ARRAY:
        rows.add(name, name, truth)
        return
    array = read_array(file, InputError)
    if array.ndim == rank:
        for row in range(array.shape[axis]):
            rows.add(f"{name}#{row}", name, truth, place=(0, row))
    else:
        rows.add(name, name, truth)


def _text(data: Path) -> str:
    try:
        return data.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"'{data}' is not UTF-8 text: save it as UTF-8") from None


def _csv(data: Path, auditing: Auditing) -> Rows:
    rows = Rows(data.parent)
    with io.StringIO(_text(data), newline="") as text:
        table = csv.DictReader(text)
        column = _chosen(data, auditing, list(table.fieldnames or ()))
        for number, row in enumerate(table, 2):
            slices = {s: row[s] for s in auditing.slices or ()}
            path, why = row[column] or "", None
            if not path.strip():
                path, why = "", f"'{data.name}', line {number}: no {column}"
            rows.add(path or f"{data.name}#{number}", path, row.get(auditing.truth), slices=slices, error=why)
    return rows


def _parquet(data: Path, auditing: Auditing) -> Rows:
    try:
        file = pq.ParquetFile(data)
    except (OSError, pa.ArrowInvalid, UnicodeEncodeError) as error:
        raise InputError(f"'{data}' cannot be read as Parquet: {error}") from error
    schema = file.schema_arrow
    column = _chosen(data, auditing, schema.names)
    other = [c for c in dict.fromkeys((auditing.truth, *(auditing.slices or ()))) if c in schema.names]
    kind = schema.field(column).type
    rows = Rows(data.parent)
    in_table = not (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=[column, *other])
        values = table.column(column)
        rest = table.select(other).to_pydict()
        for row in range(len(table)):
            slices = {s: rest[s][row] for s in auditing.slices or ()}
            truth = rest[auditing.truth][row] if auditing.truth in rest else None
            value = values[row].as_py()
            nth = f"{data.name}#{len(rows)}"
            if not in_table:
                missing = value is None or not value.strip()
                why = f"'{data.name}', row {len(rows)}: no {column}" if missing else None
                rows.add(nth if missing else value, "" if missing else value, truth, slices=slices, error=why)
                continue
            content = value.get("bytes") if isinstance(value, dict) else value
            why = None
            if not isinstance(content, bytes):
                why = f"'{data.name}', row {len(rows)}: column '{column}' holds no bytes of a picture"
            sha = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else None
            rows.add(nth, data.name, truth, place=(group, row), slices=slices, sha256=sha, error=why)
            rows.units[-1] = group
    return rows


def _chosen(data: Path, auditing: Auditing, columns: Sequence[str]) -> str:
    """Return the column of paths or bytes, and refuse columns that do not exist."""
    for name, column in (("column", auditing.column), *(("slices", s) for s in auditing.slices or ())):
        if column is not None and column not in columns:
            raise OptionError(
                f"'{data}' has no column '{column}' ({parameter(name)}){near(column, columns)}; it has: "
                f"{', '.join(columns)}"
            )
    if auditing.truth != Auditing.truth and auditing.truth not in columns:
        raise OptionError(f"'{data}' has no column '{auditing.truth}'; it has: {', '.join(columns)}")
    found = auditing.column or next((c for c in COLUMNS if c in columns), None)
    if found is None:
        raise InputError(
            f"'{data}' has none of the columns {', '.join(COLUMNS)}: name the one with paths or bytes, --column; it "
            "has: "
            f"{', '.join(columns)}"
        )
    return found


def _tars(tars: Sequence[Path], base: Path, auditing: Auditing) -> Rows:
    """List the pictures of tar files; files of the same stem hold their class and their slices."""
    rows = Rows(base)
    for tar in tars:
        within: dict[str, dict[str, tarfile.TarInfo]] = {}
        try:
            with tarfile.open(tar, "r:") as archive:
                for info in archive:
                    if info.isfile():
                        stem, _, suffix = info.name.partition(".") if "/" not in info.name else _parted(info.name)
                        within.setdefault(stem, {})[suffix.lower()] = info
                for stem, parts in within.items():
                    _member(rows, tar, base, archive, stem, parts, auditing)
        except (tarfile.TarError, OSError) as error:
            raise InputError(f"'{tar}' cannot be read as an uncompressed tar file: {error}") from error
    return rows


def _parted(name: str) -> tuple[str, str, str]:
    folder, _, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}/{stem}", dot, suffix


def _member(
    rows: Rows,
    tar: Path,
    base: Path,
    archive: tarfile.TarFile,
    stem: str,
    parts: Mapping[str, tarfile.TarInfo],
    auditing: Auditing,
) -> None:
    def content(suffix: str) -> bytes:
        file = archive.extractfile(parts[suffix])
        return file.read() if file is not None else b""

    picture = next((s for s in parts if f".{s}" in images.SUFFIXES), None)
    if picture is None:
        rows.skipped[in_utf8(f"{tar.name}/{stem}")] = "has no picture"
        return
    about: dict[str, Any] = {}
    if "json" in parts:
        try:
            about = json.loads(content("json"))
        except ValueError as error:
            raise InputError(f"'{tar}': '{parts['json'].name}' is not JSON") from error
    truth = next((content(s).decode().strip() for s in _TRUTHS if s in parts), about.get(auditing.truth))
    info, path = parts[picture], str(tar.relative_to(base))
    rows.add(
        f"{path}/{info.name}",
        path,
        truth,
        place=(info.offset_data, info.size),
        member=info.name,
        slices={s: about.get(s) for s in auditing.slices or ()},
        sha256=hashlib.sha256(content(picture)).hexdigest(),
    )


@lru_cache(maxsize=2)
def _group(path: Path, group: int, column: str) -> Any:
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(column)


def content(row: Mapping[str, Any], base: Path, column: str | None) -> bytes:
    """Return the bytes of one row's picture.

    Raises
    ------
    InputError
        They cannot be read.
    """
    path = base / row["path"]
    try:
        if row["first"] is None or path.suffix.lower() == ARRAY:
            return path.read_bytes()
        if row["member"] is not None:
            with path.open("rb") as file:
                file.seek(row["first"])
                return file.read(row["second"])
        names = pq.read_schema(path).names
        found = column or next(c for c in COLUMNS if c in names)
        value = _group(path, row["first"], found)[row["second"]].as_py()
        return bytes(value["bytes"] if isinstance(value, dict) else value)
    except (OSError, pa.ArrowException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"'{path}' cannot be read: {why}") from error
