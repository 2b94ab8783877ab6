"""The unit of work: one shard of the plan becomes one file of records and one of maps, whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from fgonnx import files
from fgonnx.errors import InputError, NumericError
from fgonnx.explain.choice import SameEntryError, takes_seed
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.stream import grouped, in_order
from fgonnx.jobs import provenance, record
from fgonnx.jobs.audit import arrow, evidence, measuring
from fgonnx.jobs.audit.arrays import ArrayRows
from fgonnx.jobs.audit.options import REMARKS
from fgonnx.jobs.audit.plan import Plan
from fgonnx.jobs.audit.rows import TableRows, TextRows
from fgonnx.jobs.audit.shardfiles import key
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import Sample
from fgonnx.jobs.schema import FIELDS, PLACES, SCHEMA
from fgonnx.pictures.read import complete

Array = npt.NDArray[Any]

_ROW_ERRORS = (InputError, NumericError, SameEntryError)
_NOTHING: dict[str, Any] = {f.name: None for f in FIELDS if f.null} | {
    "top5": [],
    "sites": [],
    "notes": [],
    "chosen": [],
    "measures": {},
}


class StoppedError(Exception):
    """The work was asked to stop; nothing of the shard is written."""


@dataclass
class _Shard:
    """What becomes of a shard."""

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    maps: dict[str, Array] = field(default_factory=dict)


def explain_shard(plan: Plan, k: int, stop: threading.Event | None = None) -> int:
    """Explain the rows of a shard and write its two files; return how many rows have a result.

    The files depend on the plan and the machine alone. They are written under a temporary name, synced and renamed, the
    maps first: where the records are, the shard is done.

    Parameters
    ----------
    plan : Plan
        The plan.
    k : int
        The shard.
    stop : Event, optional
        Ends the work when it is set.

    Raises
    ------
    FgonnxError
        The model or the options are wrong, or the files cannot be written. What is wrong with one row is its error.
    StoppedError
        The work was stopped.
    """
    tools, made = plan.tools, _Shard()
    reads = (partial(_read, plan, row) for row in plan.rows(k))
    found = in_order(tools.pool, reads, (1 + tools.at_once) * tools.together)
    groups = grouped(found, tools.together, lambda item: None if isinstance(item[1], str) else tools.key(item[1]))
    for part in in_order(tools.explainers, (partial(_group, plan, group, stop) for group in groups), tools.at_once):
        made.records |= part.records
        made.maps |= part.maps
    _write(plan, k, made)
    return sum(r["error"] is None for r in made.records.values())


def _group(plan: Plan, group: Sequence[tuple[Mapping[str, Any], Sample | str]], stop: threading.Event | None) -> _Shard:
    """Return what becomes of rows that run together."""
    if stop is not None and stop.is_set():
        raise StoppedError
    made = _Shard()
    for row, why in group:
        if isinstance(why, str):
            made.records[row["number"]] = {**_base(plan, row), "error": why}
    rows = [(row, sample) for row, sample in group if isinstance(sample, Sample)]
    if rows:
        _decide(plan, rows, made)
    return made


def _read(plan: Plan, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sample | str]:
    if row["error"] is not None:
        return row, str(row["error"])
    try:
        return row, plan.tools.read(row)
    except InputError as error:
        return row, str(error)


Rows = Sequence[tuple[Mapping[str, Any], Sample]]


def _decide(plan: Plan, rows: Rows, made: _Shard) -> None:
    """Record the rows for which the condition does not hold, and explain the others."""
    condition = plan.tools.condition
    if condition is None:
        _explain(plan, rows, made)
        return
    heads, r = plan.tools.heads([sample for _, sample in rows])
    decision = Decision.of_heads(heads, r, plan.tools.labels)
    chosen = []
    for i, (row, sample) in enumerate(rows):
        decided = _decided(plan, row, decision, i)
        if condition(_named(decided, row, several=plan.tools.several)):
            chosen.append((row, sample))
        else:
            made.records[row["number"]] = {
                **decided,
                "tensor": provenance.array_of(sample.x),
                **_seen(plan, sample, None),
            }
    if chosen:
        _explain(plan, chosen, made)


def _explain(plan: Plan, rows: Rows, made: _Shard) -> None:
    tools = plan.tools
    if isinstance(tools.rows, TextRows):
        _explain_texts(plan, tools.rows, rows, made)
        return
    x = np.stack([sample.x for _, sample in rows])
    target = plan.request.target
    try:
        seed = tools.options.contrast is None and takes_seed(target)
        r = tools.explainer.engine(x.shape, seed=seed).rewritten
        explanation = tools.explainer(x, target)
    except _ROW_ERRORS as error:
        if len(rows) > 1:
            for one in rows:
                _explain(plan, [one], made)
            return
        made.records[rows[0][0]["number"]] = {
            **_base(plan, rows[0][0]),
            "tensor": provenance.array_of(rows[0][1].x),
            "error": str(error).removeprefix("sample 0: "),
        }
        return
    decision = Decision.of(explanation, r, tools.labels, tools.explainer.labels)
    masks = [_mask(plan, row, sample) for row, sample in rows]
    measured, remarks = _measured(plan, rows, x, explanation, [mask for mask, _ in masks])
    for i, (row, sample) in enumerate(rows):
        record_ = _explained(plan, row, sample, explanation, decision, i)
        record_["evidence"] |= evidence.on_object(explanation.saliency[i], masks[i][0])
        record_["measures"] = measured[i]
        record_["notes"] += [why for why in (masks[i][1], *remarks) if why is not None]
        if isinstance(tools.parts, (TableRows, ArrayRows)):
            record_ = {**record_, **tools.parts.recorded(record_, sample, explanation, i, r.normal.layout)}
        made.records[row["number"]] = record_
        _keep(plan, row, explanation.saliency[i], made)
        if sample.photo is None:
            sample = replace(sample, shown=tools.reader.shown(sample.x, r.normal.layout))
        made.records[row["number"]].update(_seen(plan, sample, explanation.saliency[i]))


def _explain_texts(plan: Plan, texts: TextRows, rows: Rows, made: _Shard) -> None:
    tools = plan.tools
    try:
        found = texts.explained([sample for _, sample in rows], plan.request.target, tools.options.contrast)
        r = texts.rewritten(tools.key(rows[0][1])[0])
    except _ROW_ERRORS as error:
        if len(rows) > 1:
            for alone in rows:
                _explain_texts(plan, texts, [alone], made)
            return
        made.records[rows[0][0]["number"]] = {
            **_base(plan, rows[0][0]),
            "tensor": provenance.array_of(rows[0][1].x),
            "error": str(error).removeprefix("sample 0: "),
        }
        return
    for (row, sample), one in zip(rows, found, strict=True):
        decision = Decision.of(one.arrays, r, tools.labels, tools.explainer.labels)
        own = replace(one.arrays, saliency=one.values[None])
        record_ = _explained(plan, row, replace(sample, notes=one.notes), own, decision, 0)
        made.records[row["number"]] = texts.recorded(record_, one)
        _keep(plan, row, one.values, made)


def _explained(
    plan: Plan, row: Mapping[str, Any], sample: Sample, explanation: Explanation, decision: Decision, i: int
) -> dict[str, Any]:
    base = _base(plan, row)
    saliency = explanation.saliency[i]
    of_rows = plan.tools.parts
    grid = evidence.grid_of(saliency) if of_rows is None else of_rows.grid(sample, saliency)
    files_of = {"picture": None, "map": _map_name(plan, row)}
    made = record.describe({**base, "notes": []}, explanation, decision, sample, i, files_of, ())
    return {
        **_NOTHING,
        **base,
        **made,
        **_judged(plan, row, made["top5"]),
        "grid": grid.ravel().tolist(),
        "evidence": evidence.places(grid) if of_rows is None else dict.fromkeys((*PLACES, "object", "object_area")),
    }


def _measured(
    plan: Plan, rows: Rows, x: Array, explanation: Explanation, masks: Sequence[Any]
) -> tuple[list[dict[str, float | None]], list[str]]:
    tools = plan.tools
    numbers = [row["number"] for row, _ in rows]
    black = complete.black(tools.preprocessing)
    seed = plan.request.auditing.seed
    return measuring.taken(tools.measures, tools.explainer, x, explanation, numbers, masks, black, seed)


def _mask(plan: Plan, row: Mapping[str, Any], sample: Sample) -> tuple[Any, str | None]:
    tools = plan.tools
    if tools.objects is None or sample.photo is None or tools.preprocessing is None:
        return None, None
    try:
        return tools.objects.mask(row["name"], sample.photo.shape[:2], tools.preprocessing), None
    except InputError as error:
        return None, str(error)


def _keep(plan: Plan, row: Mapping[str, Any], saliency: Array, made: _Shard) -> None:
    kind = plan.request.auditing.maps
    if kind == "exact":
        made.maps[key(row["number"])] = saliency.astype("float32", copy=False)
    elif kind == "half":
        made.maps[key(row["number"])] = (saliency / (np.abs(saliency).max() or 1.0)).astype("float16")


def _map_name(plan: Plan, row: Mapping[str, Any]) -> str | None:
    return f"{plan.files(row['shard'])[1].name}/{key(row['number'])}" if plan.request.auditing.maps != "none" else None


def _seen(plan: Plan, sample: Sample, saliency: Array | None) -> dict[str, Any]:
    if not plan.request.auditing.pictures or plan.tools.parts is not None:
        return {}
    return {"pictures": evidence.pictures(sample.shown, saliency, signed=plan.request.options.psi == "signed")}


def _base(plan: Plan, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says whatever the model makes of the row."""
    about, request, tools = plan.about, plan.request, plan.tools
    asked = about["request"]
    remarks = {name: about["remarks"].get(name) for name in REMARKS}
    labels, truth = tools.labels, row["truth"]
    return {
        **_NOTHING,
        "schema": SCHEMA,
        "id": provenance.identity({"run": about["id"], "row": row["name"]}),
        "time": about["time"],
        "run": about["id"],
        "row": {key: row[key] for key in ("number", "name", "shard")},
        "input": {
            "path": row["path"],
            "row": row["second"] if row["member"] is None else None,
            "member": row["member"],
            "sha256": row["sha256"],
        },
        "model": about["model"],
        "versions": asked["versions"],
        "providers": asked["providers"],
        "environment": {**tools.environment, "threads": about["threads"]},
        "settings": {
            **asked["options"],
            "target": request.target,
            **record.asked(request.running),
            **({"bind": asked["bind"]} if asked["bind"] else {}),
            "seed": request.auditing.seed,
            "condition": request.auditing.only,
        },
        "preprocessing": asked["preprocessing"],
        "truth": {"index": truth, "label": labels[truth] if labels is not None else None}
        if truth is not None
        else None,
        "slices": dict(row["slices"] or ()),
        **remarks,
    }


def _decided(plan: Plan, row: Mapping[str, Any], decision: Decision, i: int) -> dict[str, Any]:
    top = decision.top(i)
    return {**_base(plan, row), "top5": top, **_judged(plan, row, top)}


def _judged(plan: Plan, row: Mapping[str, Any], top: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = row["truth"] is not None and top and plan.tools.classes
    return {"correct": bool(top[0]["index"] == row["truth"]) if known else None}


def _named(decided: Mapping[str, Any], row: Mapping[str, Any], *, several: bool) -> dict[str, Any]:
    """Return the values that conditions name."""
    top = decided["top5"]
    best = top[0] if top else dict.fromkeys(("label", "index", "probability", "score"))
    index = record.entry_name(best, several=True) if several and top else best["index"]
    truth = decided["truth"] or {"label": None, "index": None}
    scores = [entry["score"] for entry in top[:2]]
    return {
        **dict(row["slices"] or ()),
        "correct": decided["correct"],
        "probability": best["probability"],
        "score": best["score"],
        "margin": scores[0] - scores[1] if len(scores) == 2 and None not in scores else None,
        "predicted": best["label"] if best["label"] is not None else index,
        "truth": truth["label"] if truth["label"] is not None else truth["index"],
        "name": row["name"],
    }


def _write(plan: Plan, k: int, made: _Shard) -> None:
    records, maps = plan.files(k)
    table = arrow.table(_sorted(made), {"schema": SCHEMA, "run": plan.about["id"], "shard": k})
    if plan.request.auditing.maps != "none":
        with files.replacing(maps, sync=True) as temporary, temporary.open("xb") as file:
            np.savez_compressed(file, **dict(sorted(made.maps.items())))  # type: ignore[arg-type]
    with files.replacing(records, sync=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _sorted(made: _Shard) -> Iterator[dict[str, Any]]:
    for _, found in sorted(made.records.items()):
        yield found
