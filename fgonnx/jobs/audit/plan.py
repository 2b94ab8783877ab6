"""The plan of an audit: which rows there are, in which shard, and everything that determines what comes out."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fgonnx import files
from fgonnx.engine.rewrite.options import FILE
from fgonnx.errors import InputError, OptionError
from fgonnx.fields import arguments
from fgonnx.jobs import provenance, record
from fgonnx.jobs.audit import handed, listing
from fgonnx.jobs.audit.condition import NAMES
from fgonnx.jobs.audit.options import Handing
from fgonnx.jobs.audit.request import Request, Tools, signed
from fgonnx.jobs.audit.rows import TextRows
from fgonnx.jobs.audit.shardfiles import ShardFiles
from fgonnx.jobs.schema import SCHEMA
from fgonnx.wording import in_utf8

RUN, PLAN, SHARDS = "run.json", "plan.parquet", "shards"

COLUMNS = pa.schema(
    [
        ("number", pa.int64()),
        ("name", pa.string()),
        ("path", pa.string()),
        ("member", pa.string()),
        ("first", pa.int64()),
        ("second", pa.int64()),
        ("sha256", pa.string()),
        ("truth", pa.int32()),
        ("slices", pa.map_(pa.string(), pa.string())),
        ("shard", pa.int32()),
        ("error", pa.string()),
    ]
)
_TRIED = 32  # rows that are read to learn the shape of the input


@dataclass
class Plan:
    """What an audit does, fixed before it begins.

    Attributes
    ----------
    folder : Path
        The run's folder.
    about : dict
        What `run.json` holds.
    request : Request
        Model, data and options.
    """

    folder: Path
    about: dict[str, Any]
    request: Request
    _table: pa.Table | None = field(default=None, repr=False)

    @property
    def table(self) -> pa.Table:
        """The rows, in the order of the shards."""
        if self._table is None:
            self._table = pq.read_table(self.folder / PLAN)
        return self._table

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return int(self.about["shards"])

    @cached_property
    def tools(self) -> Tools:
        """The model and its session, as this process needs them."""
        tools = Tools(self.request)
        if tools.loaded.sha256 != self.about["model"]["sha256"]:
            raise OptionError(f"{tools.loaded.name} was replaced since the audit in '{self.folder}' was planned")
        tools.take(self.about)
        return tools

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "about": self.about, "request": self.request, "_table": None}

    def rows(self, k: int) -> list[dict[str, Any]]:
        """Return the rows of shard k."""
        size = self.request.auditing.shard_size
        return [dict(row) for row in self.table.slice(k * size, size).to_pylist()]

    def files(self, k: int) -> tuple[Path, Path]:
        """Return the files of shard k: records and maps."""
        folder = self.folder / SHARDS
        return folder / f"records-{k:06}.parquet", folder / f"maps-{k:06}.npz"

    def missing(self, part: tuple[int, int] | None = None) -> list[int]:
        """Return the shards that are not done, of one part K of N.

        Raises
        ------
        FgonnxError
            A shard is of another run, is damaged, or does not hold its rows and maps.
        """
        first, of = part or (1, 1)
        size = self.request.auditing.shard_size
        left = []
        for k in range(first - 1, self.shards, of):
            files_of = shard_files(self.folder, self.about, k)
            if files_of.done:
                files_of.check(self.table.slice(k * size, size))
            else:
                left.append(k)
        return left


def shard_files(folder: Path, about: Mapping[str, Any], k: int) -> ShardFiles:
    """Return the files of shard k of a run."""
    maps = folder / SHARDS / f"maps-{k:06}.npz"
    kept = about["request"]["auditing"]["maps"] != "none"
    return ShardFiles(folder / SHARDS / f"records-{k:06}.parquet", maps if kept else None, about["id"], k)


def _check_name(folder: Path) -> None:
    if in_utf8(str(folder)) != str(folder):
        raise OptionError(
            f"'{folder}' has a name that is not UTF-8, in which no Parquet files can be written; give another folder"
        )


def opened(folder: Path) -> dict[str, Any]:
    """Return what `run.json` of a run's folder holds.

    Raises
    ------
    InputError
        There is no run, or it is of another version.
    OptionError
        No run can be in a folder of that name.
    """
    _check_name(folder)
    try:
        about = json.loads((folder / RUN).read_text(encoding="utf-8"))
        schema = about["schema"]
    except FileNotFoundError as error:
        raise InputError(
            f"'{folder}' holds no audit: it has no {RUN}; give the folder that fgonnx audit wrote"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{folder / RUN}' is not what fgonnx audit writes; give another folder") from error
    if schema != SCHEMA:
        raise InputError(
            f"'{folder}' was written in layout {schema} of the records, and this fgonnx writes {SCHEMA}: give "
            "another folder"
        )
    return dict(about)


def planned(request: Request, handing: Handing | None = None) -> Plan:
    """Return the plan of a request: the one that is in its folder, or a new one, which is written there.

    Parameters
    ----------
    request : Request
        What is audited and how.
    handing : Handing, optional
        What will be handed on of the run.

    Raises
    ------
    OptionError
        The folder holds a run with other settings, model or data; the message names what differs.
    InputError
        There is nothing to audit, or it is nothing that can be handed on as asked.
    """
    folder = request.folder
    files.check_folder(folder)
    _check_name(folder)
    tools = Tools(request)
    request, handing = tools.request, handing or Handing()
    handed.refuse_kind(tools.kind, request.data, handing)
    about, table = _made(request, tools, handing)
    if not (folder / RUN).is_file():
        files.make_folder(folder / SHARDS)
        with files.replacing(folder / PLAN, sync=True) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        _claim(folder, about)
    stored = opened(folder)
    if stored["id"] != about["id"]:
        parts = _differences(stored["request"], about["request"])
        raise OptionError(
            f"'{folder}' holds an audit with other settings ({'; '.join(parts)}): give another folder, or the same "
            "settings"
        )
    if not (folder / PLAN).is_file():
        with files.replacing(folder / PLAN, sync=True) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    plan = Plan(folder, stored, request, table)
    plan.__dict__["tools"] = tools
    return plan


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the run's description, unless another process was first."""
    temporary = folder / f".{RUN}.{uuid.uuid4().hex}.tmp"
    try:
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        try:
            os.link(temporary, folder / RUN)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            temporary.replace(folder / RUN)
    except OSError as error:
        raise files.unwritable(folder / RUN, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _made(request: Request, tools: Tools, handing: Handing) -> tuple[dict[str, Any], pa.Table]:
    auditing, loaded = request.auditing, tools.loaded
    rows = tools.find()
    order = listing.ordered(rows, auditing.seed)[: auditing.limit]
    handed.refuse_rows([rows.path[i] for i in order], request.data, auditing, handing)
    sha, why = listing.hashed(rows, order)
    _settle(tools, rows, order, why)
    truths = listing.resolved(rows, tools.labels or (), tools.entries, request.data)
    if tools.condition is not None:
        if tools.classes:
            tools.condition.check(tools.labels, tools.entries)
        elif tools.several:
            tools.condition.check_positions(tools.head)
        tools.notes += _unmet(tools, rows, [truths[i] for i in order], order)
    columns = {
        "number": range(len(order)),
        "name": [rows.name[i] for i in order],
        "path": [rows.path[i] for i in order],
        "member": [rows.member[i] for i in order],
        "first": [None if (p := rows.place[i]) is None else p[0] for i in order],
        "second": [None if (p := rows.place[i]) is None else p[1] for i in order],
        "sha256": sha,
        "truth": [truths[i] for i in order],
        "slices": [list(rows.slices[i].items()) for i in order],
        "shard": [i // auditing.shard_size for i in range(len(order))],
        "error": why,
    }
    table = pa.table({k: pa.array(v, COLUMNS.field(k).type) for k, v in columns.items()}, COLUMNS)
    asked = _asked(request, tools, columns)
    about = {
        "schema": SCHEMA,
        "id": provenance.identity(asked),
        "time": provenance.now(),
        "rows": len(order),
        "shards": -(-len(order) // auditing.shard_size),
        "data": {"path": str(request.data), "rows": len(rows), "skipped": rows.skipped},
        "model": provenance.model_of(loaded, in_utf8(str(request.model))),
        "request": asked,
        "labels": list(tools.labels) if tools.labels is not None else None,
        "entries": tools.entries,
        "head": list(tools.head),
        "classes": tools.classes,
        "kind": tools.kind or "pictures",
        "remarks": {**(auditing.remarks or {})},
        "threads": request.running.threads,
        "notes": list(tools.notes),
        "command": _command(request),
    }
    return about, table


def _settle(tools: Tools, rows: listing.Rows, order: Sequence[int], why: Sequence[str | None]) -> None:
    """Let a row that can be read say what shape the input has."""
    first = None
    for n, i in enumerate(order[:_TRIED]):
        place = rows.place[i] or (None, None)
        row = {"name": rows.name[i], "path": rows.path[i], "member": rows.member[i], "sha256": None}
        try:
            if (error := why[n]) is not None:
                raise InputError(error)
            tools.settle(tools.read({**row, "first": place[0], "second": place[1]}).x.shape)
            return
        except InputError as error:
            first = first or error
    assert first is not None
    raise InputError(f"none of the first {min(len(order), _TRIED)} rows can be read; the first: {first}") from first


def _unmet(tools: Tools, rows: listing.Rows, truths: Sequence[int | None], order: Sequence[int]) -> list[str]:
    """Return notes on what a condition names and no row has: it then holds for none, or for all."""
    condition = tools.condition
    assert condition is not None
    known = any(truth is not None for truth in truths)
    why = {
        "probability": "" if tools.probabilities else "the model computes none from the scores explained",
        "truth": "" if known else "the data do not say which class is true",
        "correct": "" if known and tools.classes else "the data do not say which class is true",
        "margin": "" if tools.entries > 1 else "the model has one score",
    }
    text = f"the condition '{condition.text}'"
    notes = [f"{text} names {name}, which no row has: {why[name]}" for name in sorted(condition.names) if why.get(name)]
    for name, value in condition.compared:
        if name not in NAMES or name == "name":
            found = (rows.name[i] if name == "name" else rows.slices[i].get(name) for i in order)
            if value not in found:
                notes.append(f"{text} compares {name} with {value!r}, which no row has")
    return notes


def _asked(request: Request, tools: Tools, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that determines the results of a run; another request does not resume it."""
    auditing = asdict(request.auditing)
    objects = auditing.pop("objects")
    rows = [list(row) for row in zip(*(columns[c] for c in ("name", "sha256", "truth", "slices")), strict=True)]
    pre = tools.preprocessing
    return {
        "schema": SCHEMA,
        "model": {k: v for k, v in provenance.model_of(tools.loaded, None).items() if k in ("sha256", "external")},
        "data": provenance.identity({"rows": rows}),
        "preprocessing": json.loads(pre.to_json()) if pre is not None else None,
        "labels": list(tools.labels) if tools.labels is not None else None,
        "options": request.options.to_dict(),
        "target": request.target,
        "bind": dict(tools.loaded.bound),
        "auditing": {k: list(v) if isinstance(v, tuple) else v for k, v in auditing.items()},
        **({"texts": tools.rows.asked()} if isinstance(tools.rows, TextRows) else {}),
        **({"reading": dict(_channels(request))} if tools.kind == "table" else {}),
        "objects": tools.objects.sha256 if objects is not None and tools.objects is not None else None,
        "batch_size": request.running.batch_size,
        "providers": request.running.used_providers,
        "versions": record.versions(request.running),
        **record.asked(request.running),
    }


def _channels(request: Request) -> Iterator[tuple[str, Any]]:
    """Yield what says how a table is read."""
    for name in ("channels", "units", "by", "pad", "rate"):
        if (value := getattr(request.reading, name)) is not None:
            yield name, list(value) if isinstance(value, tuple) else value


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], path: str = "") -> list[str]:
    """Name what differs between two requests."""
    found = []
    for key in dict.fromkeys((*stored, *asked)):
        a, b = stored.get(key), asked.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{path}{key}.")
        elif {type(a), type(b)} <= {int, float, bool, type(None)} or max(len(str(a)), len(str(b))) < 24:
            found.append(f"{path}{key} {a} there, {b} here")
        else:
            found.append(f"another {path}{key}".replace("model.sha256", "model"))
    return found


def _command(request: Request) -> list[str]:
    """Return the command that does the run again, or goes on with it."""
    return [
        *("fgonnx", "audit", str(request.model), str(request.data), "-o", str(request.folder)),
        *(("--target", request.target) if request.target is not None else ()),
        *arguments(request.auditing),
        *arguments(request.options, without=FILE, defaults={"psi": signed(request.options).psi}),
        *arguments(request.running, defaults={"batch_size": 16, "cache": True}),
        *arguments(request.reading),
        *arguments(request.texts),
    ]
