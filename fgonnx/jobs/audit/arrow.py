"""The record as an Arrow schema, and records as a table of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from fgonnx.jobs.schema import EXPLAIN, FIELDS, Named, Struct

_SIMPLE = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.string(),
    "bytes": pa.binary(),
}
_NARROW = {"grid": pa.list_(pa.float32())}


def _kind(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        return pa.list_(_kind(kind[0]))
    if isinstance(kind, Struct):
        return pa.struct([(name.rstrip("?"), _kind(k)) for name, k in kind.fields.items()])
    if isinstance(kind, Named):
        return pa.map_(pa.string(), _kind(kind.kind))
    return _SIMPLE[kind]


COLUMNS = pa.schema([(f.name, _NARROW.get(f.name, _kind(f.kind))) for f in FIELDS if f.of != EXPLAIN])
"""Schema of the Parquet files of an audit; values of the kind "json" are texts."""

_LEFT_OUT = [f.name for f in FIELDS if f.optional]
_JSON = [f.name for f in FIELDS if f.kind == "json"]
_MAPS = [f.name for f in FIELDS if isinstance(f.kind, Named)]


def table(records: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any]) -> pa.Table:
    """Return records as a table.

    Parameters
    ----------
    records : iterable of mapping
        The records.
    metadata : mapping
        What the file says of itself, as JSON under the key "fgonnx".
    """
    rows = []
    for record in records:
        row = dict(record)
        for name in _JSON:
            row[name] = json.dumps(row[name], ensure_ascii=False) if row.get(name) is not None else None
        for name in _MAPS:
            row[name] = list(row.get(name, {}).items())
        rows.append(row)
    text = json.dumps(metadata, sort_keys=True)
    return pa.Table.from_pylist(rows, COLUMNS).replace_schema_metadata({"fgonnx": text})


def records(found: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON records, without pictures."""
    kept = found.drop_columns(["pictures"]) if "pictures" in found.column_names else found
    rows = []
    for row in kept.to_pylist():
        for name in _JSON:
            if row.get(name) is not None:
                row[name] = json.loads(row[name])
        for name in _MAPS:
            if name in row:
                row[name] = dict(row[name] or ())
        for name in ("versions", "runtime"):
            if row.get(name) is not None:
                row[name] = {k: v for k, v in row[name].items() if v is not None}
        for name in _LEFT_OUT:
            if row.get(name, 0) is None:
                del row[name]
        rows.append(row)
    return rows
