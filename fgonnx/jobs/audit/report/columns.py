"""Records read back, column by column and shard by shard: a million rows fit in memory as numbers, not as objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fgonnx.explain.closing import closes
from fgonnx.jobs.audit.evidence import GRID
from fgonnx.jobs.audit.plan import SHARDS
from fgonnx.jobs.audit.shardfiles import table_of
from fgonnx.jobs.schema import PLACES

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]

UNSURE = 0.7
"""Probability of the decision below which it counts as unsure."""

_LEAST_SURE = 0.1  # share of the rows that count as unsure by their margin, where there are no probabilities
_SCALARS = ["row", "top5", "truth", "correct", "completeness", "localised", "evidence", "slices", "error"]


@dataclass
class Columns:
    """What every row of a run says, as arrays.

    Attributes
    ----------
    number, predicted, truth : numpy array of int, (N,)
        -1 where it is not known. Of a head of several axes, `predicted` is a row of `positions`.
    correct : numpy array of float, (N,)
        1, 0, or NaN where it is not known.
    probability, margin, rounding, relative, localised : numpy array of float, (N,)
        Of the decision; NaN where it is not known.
    evidence : dict of str to numpy array, (N,)
        Shares of the map by place, NaN without a map.
    failed, explained : numpy array of bool, (N,)
        Whether a row has an error, a map.
    slices : dict of str to (numpy array of int, list of str)
        Codes and values of every slice.
    measures : dict of str to numpy array, (N,)
        Values of every quantity of a measure, NaN where there is none.
    positions : numpy array of int, (P, axes), or None
        Of a head of several axes, the entries that are largest in some row.
    """

    number: Array
    predicted: Array
    truth: Array
    correct: Array
    probability: Array
    margin: Array
    rounding: Array
    relative: Array
    localised: Array
    evidence: dict[str, Array]
    failed: Bool
    explained: Bool
    slices: dict[str, tuple[Array, list[str]]] = field(default_factory=dict)
    measures: dict[str, Array] = field(default_factory=dict)
    positions: Array | None = None

    def __len__(self) -> int:
        return len(self.number)

    def name(self, decision: int, labels: Sequence[str] | None) -> str:
        """Return the name of one of the values of `predicted`: its label, its index, or its position."""
        if self.positions is not None:
            return str(tuple(self.positions[decision].tolist()))
        return class_name(decision, labels)

    @property
    def unsure(self) -> Bool:
        """Rows whose decision is unsure: by probability where the model computes one, else the smallest margins."""
        if np.isfinite(self.probability).any():
            return np.asarray(self.probability < UNSURE)
        known = np.isfinite(self.margin)
        if not known.any():
            return np.zeros(len(self), bool)
        return np.asarray(self.margin <= np.quantile(self.margin[known], _LEAST_SURE))


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """Return the name of a class: its label, or its index."""
    return str(labels[index]) if labels is not None and 0 <= index < len(labels) else str(index)


def files_of(folder: Path) -> list[Path]:
    """Return the files of records of a run, in order."""
    return sorted((folder / SHARDS).glob("records-*.parquet"))


def read(files: Sequence[Path], *, measured: bool = False, several: bool = False) -> Columns:
    """Read the numbers of all rows; of measures where they were taken, of positions where the head has several axes."""
    parts: dict[str, list[Array]] = {}
    taken: list[dict[str, Array]] = []
    slices: dict[str, tuple[list[Array], dict[str, int]]] = {}
    places: list[Array] = []
    for file in files:
        table = table_of(file, [*_SCALARS, *(["measures"] if measured else [])])
        taken.append(_measures(table) if measured else {})
        for name, values in _numbers(table).items():
            parts.setdefault(name, []).append(values)
        _add_slices(table, slices)
        places += [_places(table)] if several else []
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    evidence = {name.partition(".")[2]: joined.pop(name) for name in list(joined) if name.startswith("evidence.")}
    coded = {name: (np.concatenate(codes), list(known)) for name, (codes, known) in slices.items()}
    positions = None
    if several:
        joined["predicted"], positions = _positions(places)
    measures = _joined(taken, parts["number"])
    return Columns(**joined, evidence=evidence, slices=coded, measures=measures, positions=positions)


def unclosed(files: Sequence[Path]) -> int:
    """Count the rows whose notes say that their certificate does not close."""
    noted = (notes for file in files for notes in table_of(file, ["notes"]).column("notes").to_pylist())
    return sum(not closes(notes or ()) for notes in noted)


def unclosed_said(count: int) -> str:
    """Return in words how many rows have a certificate that does not close."""
    return f"in {count:,} row{'s' * (count != 1)} the contributions do not sum to the score"


def _places(table: pa.Table) -> Array:
    """Return the position of the largest entry of every row, (n, axes); -1 where it is not known."""
    first = pc.list_slice(_column(table, "top5"), 0, 1, return_fixed_size_list=True).flatten()
    positions = first.field("position")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(positions), 0).to_numpy(zero_copy_only=False))
    axes = int(lengths.max(initial=0))
    found = np.full((len(table), axes), -1, np.int64)
    known = np.flatnonzero(lengths) if axes else np.zeros(0, int)
    found[known] = positions.take(pa.array(known)).flatten().to_numpy(zero_copy_only=False).reshape(-1, axes)
    return found


def _positions(places: Sequence[Array]) -> tuple[Array, Array]:
    """Return which of the positions each row has, -1 where it is not known, and the positions, in order."""
    axes = max(found.shape[1] for found in places)
    whole = np.concatenate([f if f.shape[1] == axes else np.full((len(f), axes), -1) for f in places])
    known = (whole >= 0).all(axis=1) if axes else np.zeros(len(whole), bool)
    positions, codes = np.unique(whole[known], axis=0, return_inverse=True)
    predicted = np.full(len(whole), -1, np.int64)
    predicted[known] = codes.reshape(-1)
    return predicted, positions


def _measures(table: pa.Table) -> dict[str, Array]:
    column = _column(table, "measures")
    of_row = np.repeat(np.arange(len(table)), np.diff(column.offsets.to_numpy()))
    names, values = np.array(column.keys.to_pylist(), object), _floats(column.items)
    found = {name: np.full(len(table), np.nan) for name in dict.fromkeys(names.tolist())}
    for name, array in found.items():
        array[of_row[names == name]] = values[names == name]
    return found


def _joined(parts: Sequence[dict[str, Array]], of: Sequence[Array]) -> dict[str, Array]:
    """Join what shards have, NaN for those of a shard that has none of a name."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([p.get(name, np.full(len(n), np.nan)) for p, n in zip(parts, of, strict=True)])
        for name in names
    }


def _numbers(table: pa.Table) -> dict[str, Array]:
    top = _column(table, "top5")
    two = pc.list_slice(top, 0, 2, return_fixed_size_list=True).flatten()
    index, score = (_floats(two.field(name), two).reshape(-1, 2) for name in ("index", "score"))
    found = {
        "number": _inner(table, "row", "number").astype(np.int64),
        "predicted": _whole(index[:, 0]),
        "truth": _whole(_inner(table, "truth", "index")),
        "correct": _floats(pc.cast(_column(table, "correct"), pa.float64())),
        "probability": _floats(two.field("probability"), two).reshape(-1, 2)[:, 0],
        "margin": score[:, 0] - score[:, 1],
        "rounding": _inner(table, "completeness", "rounding"),
        "relative": _inner(table, "completeness", "relative"),
        "localised": _inner(table, "localised", "share"),
        "failed": np.asarray(pc.is_valid(_column(table, "error")).to_numpy(zero_copy_only=False)),
        "explained": np.asarray(pc.is_valid(_column(table, "evidence")).to_numpy(zero_copy_only=False)),
    }
    for place in (*PLACES, "object", "object_area"):
        found[f"evidence.{place}"] = _inner(table, "evidence", place)
    return found


def _column(table: pa.Table, name: str) -> Any:
    return table.column(name).combine_chunks()


def _inner(table: pa.Table, name: str, key: str) -> Array:
    column = _column(table, name)
    return _floats(column.field(key), column)


def _floats(values: Any, parent: Any = None) -> Array:
    """Return numbers with NaN for nulls, those of the struct that they are in included."""
    if parent is not None:
        values = pc.if_else(pc.is_valid(parent), values, pa.scalar(None, values.type))
    return np.asarray(pc.fill_null(pc.cast(values, pa.float64()), float("nan")).to_numpy(zero_copy_only=False))


def _whole(values: Array) -> Array:
    return np.where(np.isfinite(values), values, -1).astype(np.int64)


def _add_slices(table: pa.Table, slices: dict[str, tuple[list[Array], dict[str, int]]]) -> None:
    column = _column(table, "slices")
    keys, items = column.keys, column.items
    if not len(keys):
        return
    names = keys.to_pylist()
    width = len(names) // len(table)
    for i, name in enumerate(names[:width]):
        codes, known = slices.setdefault(name, ([], {}))
        texts = items.to_pylist()[i::width]
        codes.append(np.array([known.setdefault(t, len(known)) for t in texts], np.int32))


@dataclass
class Vectors:
    """Grids and contributions of the rows of one shard that have a map.

    Attributes
    ----------
    rows : numpy array of int
        Which rows of the shard.
    grids : numpy array of float32, (n, 256)
        Maps on cells, shares of their sum.
    contributions : numpy array of float64, (n, sites)
        Of the layers; NaN for methods without a certificate.
    """

    rows: Array
    grids: Array
    contributions: Array


def vectors(files: Sequence[Path], sites: int) -> Iterator[Vectors]:
    """Yield the grids and contributions of every shard.

    Parameters
    ----------
    files : sequence of Path
        Files of records.
    sites : int
        Layers of an explanation; rows with others are left out of the contributions.
    """
    for file in files:
        table = table_of(file, ["grid", "sites.list.element.contribution"])
        grid, site = _column(table, "grid"), _column(table, "sites")
        rows = np.flatnonzero(pc.fill_null(pc.list_value_length(grid), 0).to_numpy(zero_copy_only=False) == GRID**2)
        grids = grid.take(pa.array(rows)).flatten().to_numpy(zero_copy_only=False).reshape(-1, GRID**2)
        found = np.full((len(rows), sites), np.nan)
        if sites:
            lengths = pc.list_value_length(site).to_numpy(zero_copy_only=False)[rows]
            fits = np.flatnonzero(lengths == sites)
            values = site.take(pa.array(rows[fits])).flatten().field("contribution")
            found[fits] = _floats(values).reshape(-1, sites)
        yield Vectors(rows, grids, found)


def sites_of(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the layers of the first explanation: name, operator, kind, whether they are in the map."""
    for file in files:
        table = table_of(file, ["sites"])
        for row in table.column("sites"):
            if len(row):
                return [{k: s[k] for k in ("name", "op_type", "kind", "in_map")} for s in row.as_py()]
    return []


def rows_of(
    folder: Path, numbers: Sequence[int], size: int, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a few rows with their numbers, each file read once."""
    by_shard: dict[int, list[int]] = {}
    for number in numbers:
        by_shard.setdefault(number // size, []).append(number)
    for k, wanted in by_shard.items():
        table = table_of(folder / SHARDS / f"records-{k:06}.parquet", ["row", *columns])
        at = {n: i for i, n in enumerate(table.column("row").combine_chunks().field("number").to_pylist())}
        for row in table.take([at[n] for n in wanted if n in at]).to_pylist():
            yield row["row"]["number"], row
