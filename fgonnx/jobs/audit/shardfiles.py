"""The two files of a shard held against its rows of the plan: whether they are there, whole, and of these rows."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fgonnx import files
from fgonnx.errors import InputError, OptionError
from fgonnx.jobs import provenance

_AGAIN = "remove both files of the shard and give the fgonnx audit command again, which does the shard anew"


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard.

    Attributes
    ----------
    records : Path
        Its file of records.
    maps : Path or None
        Its file of maps, None for a run that keeps none.
    run : str
        Id of the run.
    k : int
        Number of the shard.
    """

    records: Path
    maps: Path | None
    run: str
    k: int

    @property
    def done(self) -> bool:
        """Whether both files are there."""
        return self.records.is_file() and (self.maps is None or self.maps.is_file())

    def check(self, rows: pa.Table, *, exact: bool = False) -> None:
        """Refuse files that are not of these rows.

        Parameters
        ----------
        rows : Table
            The shard's rows of the plan.
        exact : bool
            Also read every map, and compare its hash with the one in the record: for maps kept as float32.

        Raises
        ------
        OptionError
            The records are of another run or of another shard.
        InputError
            A file is damaged, or holds other rows or other maps.
        """
        if shard_of(self.records) != (self.run, self.k):
            raise OptionError(f"'{self.records}' is no shard of this run; remove it, or give another folder")
        found = table_of(self.records, ["run", "row", "input", "map"])
        planned = {name: rows.column(name).to_pylist() for name in ("number", "name", "sha256")}
        row, source = (found.column(name).combine_chunks() for name in ("row", "input"))
        for what, values in (
            ("number", row.field("number")),
            ("name", row.field("name")),
            ("sha256", source.field("sha256")),
        ):
            if values.to_pylist() != planned[what]:
                raise InputError(f"'{self.records}' does not hold the rows that are planned for it: {_AGAIN}")
        if set(found.column("run").to_pylist()) != {self.run}:
            raise InputError(f"'{self.records}' holds records of another run: {_AGAIN}")
        if self.maps is not None:
            hashes = [None if m is None else m["sha256"] for m in found.column("map").to_pylist()]
            _check_maps(
                self.maps,
                {key(n): sha for n, sha in zip(planned["number"], hashes, strict=True) if sha is not None},
                exact,
            )


def key(number: int) -> str:
    """Return the name of a row's map in the file of its shard."""
    return f"{number:09}"


def _check_maps(path: Path, hashes: Mapping[str, str], exact: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' is damaged ({error}): {_AGAIN}") from error
    if names != sorted(hashes):
        raise InputError(f"'{path}' does not hold the maps of the records beside it: {_AGAIN}")
    if not exact:
        return
    try:
        maps = files.read_arrays(path, names, InputError)
    except InputError as error:
        raise InputError(f"{error}; {_AGAIN}") from error
    for name, map_ in maps.items():
        if provenance.array_of(map_)["sha256"] != hashes[name]:
            raise InputError(f"'{path}': the map of row {int(name)} is not the one that its record names: {_AGAIN}")


def shard_of(path: Path) -> tuple[str, int]:
    """Return the run and the number that a file of records names.

    Raises
    ------
    InputError
        It is no such file.
    """
    try:
        found = json.loads((pq.read_schema(path).metadata or {})[b"fgonnx"])
        return str(found["run"]), int(found["shard"])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise InputError(f"'{path}' holds no records of an audit: {_AGAIN}") from error


def table_of(path: Path, columns: list[str]) -> pa.Table:
    """Return columns of a file of records.

    Raises
    ------
    InputError
        It cannot be read, is damaged, or lacks a column.
    """
    try:
        return pq.ParquetFile(path).read(columns)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(f"'{path}' cannot be read as records of an audit: {_AGAIN}") from error


def count_of(path: Path) -> int:
    """Return how many records a file holds; raises as `table_of`."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' cannot be read as records of an audit: {_AGAIN}") from error
