"""Results of a run so far, one line of JSON per unit of work, so that an interrupted run can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx.audit.evaluate.registry import Float, Measured
from fgonnx.errors import OptionError


@dataclass(frozen=True)
class Row:
    """Results of one measure for one method on some images."""

    method: str
    measure: str
    shard: int
    images: tuple[str, ...]
    measured: Measured


class Journal:
    """An append-only file of results.

    An incomplete last line is removed when the file is opened again.

    Parameters
    ----------
    path : Path
        The file; it is created with the request as its first line.
    request : mapping
        What results depend on.

    Attributes
    ----------
    shards : set of int
        Shards whose images are recorded.
    about : dict of str to dict
        Label, prediction and target of an image, by its name.
    skipped : dict of str to str
        Images that could not be read, and why.

    Raises
    ------
    OptionError
        The file holds results of another request.
    """

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.path = path
        self._done: set[tuple[str, str, int]] = set()
        self.shards: set[int] = set()
        self.about: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        wanted = json.loads(json.dumps(request))
        if not path.exists() or not self._truncate():
            self._append(wanted)
        else:
            with path.open(encoding="utf-8") as file:
                found = json.loads(next(file))
                differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
                if differing:
                    raise OptionError(
                        f"'{path.parent}' holds results that were made otherwise ({', '.join(differing)} differ); "
                        "give another folder, or remove that one"
                    )
                for line in file:
                    self._index(json.loads(line))

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        """Tell whether (method, measure, shard) is done."""
        return key in self._done

    def add(self, row: Row) -> None:
        """Append results, synced to disk."""
        m = row.measured
        line = {
            "method": row.method,
            "measure": row.measure,
            "shard": row.shard,
            "images": list(row.images),
            "values": {name: _listed(v) for name, v in m.values.items()},
            "at": None if m.at is None else m.at.tolist(),
            "curve": None if m.curve is None else [_listed(c) for c in m.curve],
        }
        self._append(line)
        self._index(line)

    def add_shard(self, shard: int, images: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> None:
        """Append the records of a shard's images, and why others were skipped."""
        line = {"shard": shard, "about": list(images), "skipped": dict(skipped)}
        self._append(line)
        self._index(line)

    def rows(self) -> Iterator[Row]:
        """Read all results."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for line in map(json.loads, file):
                if "measure" in line:
                    at, curve = line["at"], line["curve"]
                    measured = Measured(
                        {name: _array(v) for name, v in line["values"].items()},
                        None if at is None else np.array(at, np.float64),
                        None if curve is None else np.array([_array(c) for c in curve]),
                    )
                    yield Row(line["method"], line["measure"], line["shard"], tuple(line["images"]), measured)

    def _index(self, line: Mapping[str, Any]) -> None:
        if "about" in line:
            self.about.update({image["image"]: image for image in line["about"]})
            self.skipped.update(line["skipped"])
            self.shards.add(line["shard"])
        else:
            self._done.add((line["method"], line["measure"], line["shard"]))

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _truncate(self) -> bool:
        """Drop what follows the last complete line; tell whether anything is left."""
        with self.path.open("r+b") as file:
            end = 0
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
            file.truncate(end)
        return end > 0


def _listed(values: Float) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _array(values: Sequence[float | None]) -> Float:
    return np.array([np.nan if v is None else v for v in values], np.float64)
