"""The rows of an audit: pictures in folders, lists, tables and tar files, as columns of one table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fgonnx.errors import InputError, OptionError
from fgonnx.explain.stream import in_order
from fgonnx.files import near_name, read_array
from fgonnx.jobs.audit.options import Auditing
from fgonnx.jobs.dataset import classes_of
from fgonnx.pictures.read import images
from fgonnx.wording import in_utf8, near, parameter

COLUMNS = ("path", "file", "filename", "file_name", "image", "bytes")
_ARRAY, _TABLES, _LISTS = ".npy", (".csv", ".parquet"), (".txt", ".lst")
_LISTED, _HASHERS = 6, 4
_TRUTHS = ("cls", "label", "class")  # what WebDataset calls the true class


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
            if path.suffix.lower() == _ARRAY:
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
        if file.suffix.lower() in images.SUFFIXES | {_ARRAY}:
            yield file
        else:
            rows.skipped[in_utf8(str(file.relative_to(rows.base)))] = "is not a picture"


def _file(rows: Rows, file: Path, name: str, truth: str | None, rank: int, axis: int) -> None:
    if file.suffix.lower() != _ARRAY:
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
        if row["first"] is None or path.suffix.lower() == _ARRAY:
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
