"""Rows of tables and texts as the data of an audit: what each holds, and how it is read, explained and recorded."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pyarrow as pa
import pyarrow.parquet as pq

from fgonnx import bounds, delimited, files
from fgonnx.engine.graph.lookups import holds_ids
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.explanation import Explanation
from fgonnx.jobs import tabled
from fgonnx.jobs.audit import data, listing
from fgonnx.jobs.audit.evidence import GRID
from fgonnx.jobs.audit.options import Auditing
from fgonnx.jobs.reading import SOUND
from fgonnx.jobs.samples import Reader, Sample, Source
from fgonnx.jobs.text import described
from fgonnx.pictures.read import columns
from fgonnx.pictures.read.columns import Columns
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found
from fgonnx.text.read import HEADERS
from fgonnx.text.tokens import Token, Tokens
from fgonnx.wording import in_utf8, near, parameter

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_TABLES, _TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"), (".txt",)
_NOTHING = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True)
class TextSample(Sample):
    """A text in memory.

    Attributes
    ----------
    part : Tokens
        The text as the model takes it.
    """

    part: Tokens | None = None


def opened(path: Path, of: str = "numbers") -> Columns:
    """Return the cells of a table of numbers or texts: .csv, .tsv, lines of JSON, or Parquet.

    Raises
    ------
    InputError
        It cannot be read, or a line is no object.
    """
    suffix, lines = path.suffix.lower(), []
    if suffix in columns.SUFFIXES:
        return columns.read(path, of)
    if suffix == ".parquet":
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException, UnicodeEncodeError) as error:
            raise InputError(f"'{path}' cannot be read as Parquet: {error}") from error
        names = tuple(table.column_names)
        rows = [[_cell(value) for value in row.values()] for row in table.to_pylist()]
    else:
        found = []
        for i, line in enumerate(files.read_text(path, InputError, "the table").split("\n"), 1):
            if line.strip():
                found.append(files.parsed(line, f"'{path}', line {i}", InputError))
                lines.append(i)
                if not isinstance(found[-1], dict):
                    raise InputError(f"'{path}', line {i}: it is no object; write one with a key for each column")
        names = tuple(dict.fromkeys(name for row in found for name in row))
        rows = [[_cell(row.get(name)) for name in names] for row in found]
    if not rows:
        raise InputError(f"the table '{path}' has no rows: there is nothing to audit")
    return Columns(names, rows, path, 0, True, "row", lines=lines)


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN is how a missing number is kept
        return ""
    return value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)


def names_of(path: Path) -> tuple[str, ...]:
    """Return the header of a table."""
    if path.suffix.lower() == ".parquet":
        try:
            return tuple(pq.read_schema(path).names)
        except (OSError, pa.ArrowException, UnicodeEncodeError) as error:
            raise InputError(f"'{path}' cannot be read as Parquet: {error}") from error
    if path.suffix.lower() in columns.SUFFIXES:
        text = files.read_text(path, InputError, "the table")
        head = next((line for line in text.split("\n") if line.strip()), "")
        return tuple(c.strip() for c in next(csv.reader([head], delimiter=delimited.between(text)), []))
    return opened(path).names


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _beside(table: Columns, row: int, auditing: Auditing) -> tuple[str | None, dict[str, str]]:
    """Return the true class of a row and its slices."""
    at = {name: i for i, name in enumerate(table.names)}
    truth = table.rows[row][at[auditing.truth]] if auditing.truth in at else None
    return truth, {s: table.rows[row][at[s]] for s in auditing.slices or ()}


def _check_columns(table: Columns, auditing: Auditing) -> None:
    """Refuse columns that do not exist."""
    asked = [("slices", s) for s in auditing.slices or ()]
    asked += [("truth", auditing.truth)] if auditing.truth != Auditing.truth else []
    for name, column in asked:
        if column not in table.names:
            raise OptionError(
                f"'{table.path}' has no column '{column}' ({parameter(name)}){near(column, table.names)}; it has: "
                f"{', '.join(table.names)}"
            )


class TableRows:
    """Rows of features, or recordings with a column for each channel.

    Parameters
    ----------
    path : Path
        The table.
    reader : Reader
        What makes samples of them.
    auditing : Auditing
        Which columns are something else.
    """

    kind = "table"

    def __init__(self, path: Path, reader: Reader, auditing: Auditing) -> None:
        self.path, self.reader, self.auditing = path, reader, auditing
        self.whole = opened(path)
        _check_columns(self.whole, auditing)
        apart = {auditing.truth, *(auditing.slices or ())} - set(reader.reading.channels or ())
        kept = [i for i, name in enumerate(self.whole.names) if name not in apart]
        self.table = replace(
            self.whole,
            names=tuple(self.whole.names[i] for i in kept),
            rows=[[row[i] for i in kept] for row in self.whole.rows],
        )
        self.groups = reader.tables.groups(self.table)

    def find(self) -> listing.Rows:
        """List the rows, or the recordings."""
        found = listing.Rows(self.path.parent)
        name = in_utf8(self.path.name)
        for i, (label, places) in enumerate(self.groups):
            truth, slices = _beside(self.whole, places[0], self.auditing)
            cells = [self.table.names, [self.table.rows[p] for p in places]]
            own = f"{name}#{label or i}" if len(places) > 1 else f"{name}#{i}"
            found.add(own, str(self.path.name), truth, place=(0, i), slices=slices, sha256=_digest(cells))
        return found

    def read(self, row: Mapping[str, Any]) -> Sample:
        """Read one of them.

        Raises
        ------
        InputError
            It is not what was planned, or a cell holds no number.
        """
        places = self.groups[row["second"]][1] if row["second"] < len(self.groups) else []
        cells = [self.table.names, [self.table.rows[p] for p in places]]
        if row["sha256"] is not None and _digest(cells) != row["sha256"]:
            raise InputError(f"'{row['path']}' is not what it was when the audit was planned")
        return self.reader.of_table(self.table, Source(self.path, row["second"], row["name"]))

    def recorded(
        self, made: Mapping[str, Any], sample: Sample, explanation: Explanation, i: int, layout: str
    ) -> dict[str, Any]:
        """Return a record with the features or channels of a row."""
        return tabled.described(made, sample, tabled.parts_of(explanation, i, sample, layout))

    def grid(self, sample: Sample, saliency: Array) -> Float32:
        """Return the shares of the map by feature or step: cell n has those of n, n + 256, ..."""
        return folded(np.arange(saliency.size), saliency)


class TextRows:
    """Texts in a column of a table, or on the lines of a file.

    Parameters
    ----------
    path : Path
        The file.
    explainer : TextExplainer
        What explains them.
    auditing : Auditing
        Which columns are what.
    """

    kind = "text"

    def __init__(self, path: Path, explainer: TextExplainer, auditing: Auditing) -> None:
        self.path, self.explainer, self.auditing = path, explainer, auditing
        if explainer.texts.long == "windows":
            raise OptionError(
                f"{parameter('long', 'windows')} makes several records of a row; cut long texts in an audit, or "
                "refuse them"
            )
        if path.suffix.lower() in _TEXTS:
            lines = files.read_text(path, InputError, "texts").split("\n")
            kept = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
            self.table = Columns(("text",), [[line] for _, line in kept], path, 1, lines=[i for i, _ in kept])
        else:
            self.table = opened(path, "texts")
        _check_columns(self.table, auditing)
        self.at = self.table.place(self._column())
        if not self.table.rows:
            raise InputError(f"'{path}' holds no texts")

    def _column(self) -> str:
        if self.auditing.column is not None:
            return self.auditing.column
        names = self.table.names
        usual = [n for n in names if n.lower() == "text"] or [n for n in names if n.lower() in HEADERS]
        others = [n for n in names if n not in (self.auditing.truth, *(self.auditing.slices or ()))]
        if not usual and len(others) != 1:
            raise OptionError(
                f"'{self.path}' has several columns; name that of the texts ({parameter('column')}): {', '.join(names)}"
            )
        return usual[0] if usual else others[0]

    def find(self) -> listing.Rows:
        """List the texts."""
        found = listing.Rows(self.path.parent)
        name = in_utf8(self.path.name)
        for i, row in enumerate(self.table.rows):
            truth, slices = _beside(self.table, i, self.auditing)
            why = None if row[self.at].strip() else f"'{name}', {self.table.where(i)}: there is no text"
            own = f"{name}#{i}"
            found.add(own, self.path.name, truth, place=(0, i), slices=slices, sha256=_digest(row[self.at]), error=why)
        return found

    def read(self, row: Mapping[str, Any]) -> Sample:
        """Read one of them.

        Raises
        ------
        InputError
            It is not what was planned, or the model does not take it.
        """
        i = row["second"]
        text = self.table.rows[i][self.at] if i < len(self.table.rows) else None
        if text is None or (row["sha256"] is not None and _digest(text) != row["sha256"]):
            raise InputError(f"'{row['path']}' is not what it was when the audit was planned")
        part = self.explainer.cut(text, f"'{row['name']}'")[0]
        ids = np.array([t.id for t in part.tokens], np.int64)
        return TextSample(Source(self.path, i, row["name"]), ids, _NOTHING, None, (), part=part)

    def key(self, sample: Sample) -> tuple[int, ...]:
        """Return what texts that run together have in common: their padded length."""
        return (self.explainer.feeder.length(_part(sample)),)

    def rewritten(self, length: int) -> Rewritten:
        """Return the model as it is rewritten for texts of a length."""
        fed = self.explainer.arrays([Tokens("", (Token(0, ""),) * length)])
        own = self.explainer.explainer
        return own.engine(fed[self.explainer.name].shape, others=own.other_shapes(fed), forward=True).rewritten

    def heads(self, samples: Sequence[Sample]) -> Array:
        """Return the heads of texts that run together."""
        return self.explainer.explainer.head(self.arrays(samples))

    def arrays(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the inputs of texts that run together."""
        return self.explainer.arrays([_part(s) for s in samples])

    def explained(self, samples: Sequence[Sample], target: str | None, contrast: Any) -> list[Found]:
        """Explain texts that run together."""
        return self.explainer.explain([_part(s) for s in samples], target, contrast)

    def recorded(self, made: Mapping[str, Any], found: Found) -> dict[str, Any]:
        """Return a record with the tokens and words of a text."""
        return {**made, "text": described(found)}

    def grid(self, sample: Sample, saliency: Array) -> Float32:
        """Return the shares of the map by token: cell n has those of the ids n, n + 256, ..."""
        return folded(sample.x, saliency)

    def asked(self) -> dict[str, Any]:
        """Return what determines how texts become ids."""
        settings = {k: str(v) for k, v in vars(self.explainer.texts).items() if v is not None}
        tokenizer = self.explainer.tokenizer
        path = Path(tokenizer.name) if tokenizer is not None and Path(tokenizer.name).is_file() else None
        sha = hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else None
        return {**{k: v for k, v in settings.items() if k != "tokenizer"}, "tokenizer": sha}


def _part(sample: Sample) -> Tokens:
    assert isinstance(sample, TextSample)
    assert sample.part is not None
    return sample.part


def folded(places: Array, saliency: Array) -> Float32:
    """Return shares of the absolute map on 256 cells, (16, 16)."""
    values = np.abs(np.asarray(saliency, np.float64)).ravel()
    sums = np.bincount(np.mod(places.ravel(), GRID**2), values, GRID**2)
    return np.asarray(sums / max(float(sums.sum()), np.finfo(np.float64).tiny), np.float32).reshape(GRID, GRID)


def takes_rows(path: Path, value: ir.Value, loaded: LoadedModel, auditing: Auditing) -> str:
    """Tell what the rows of data are: "text", "table", or "" where these are pictures or arrays."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (*_TABLES, *_TEXTS):
        return ""
    bounds.check("data_bytes", path.stat().st_size, f"'{path}' has", InputError)
    if holds_ids(loaded.ir, value):
        return "text"
    paths = auditing.column is not None or suffix in _TEXTS or set(names_of(path)) & set(data.COLUMNS)
    return "" if paths or len(dims_of(value)) > 3 else "table"


def adjusted(options: Options, kind: str) -> Options:
    """Return options with what is usual for rows: what features add has a sign."""
    return tabled.signed(options) if kind == "table" else options


def idle(kind: str) -> list[str]:
    """Return the fields of reading that mean nothing for the data."""
    own = ("channels", "units", "by", "pad", "rate") if kind == "table" else ()
    return [name for name in SOUND if name not in own]
