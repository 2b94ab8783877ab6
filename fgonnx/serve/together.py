"""Jobs that are run together: one batch, conditions met or not, and each job's own rows of what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import FgonnxError
from fgonnx.jobs.record import Decision
from fgonnx.serve.job import EXPLAIN, LARGEST, Answer, Explained, Job

if TYPE_CHECKING:
    from fgonnx.serve.served import Served

Array = npt.NDArray[Any]


def run(served: Served, jobs: Sequence[Job]) -> list[Answer | FgonnxError]:
    """Run jobs together; where that fails, one by one, so that nobody gets the error of another."""
    try:
        return list(_run(served, jobs))
    except FgonnxError as error:
        if len(jobs) == 1:
            return [error]
        return [one for job in jobs for one in run(served, [job])]


def _run(served: Served, jobs: Sequence[Job]) -> Iterator[Answer]:
    x = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
    if jobs[0].verb != EXPLAIN:
        predicted = served.predict(x)
        yield from (Answer(part) for part in _parts(predicted, jobs))
        return
    targets = None if jobs[0].targets is None else [t for job in jobs for t in job.targets or ()]
    chosen = np.ones(sum(job.count for job in jobs), bool)
    outputs: dict[str, Array] = {}
    if any(job.condition for job in jobs) or (targets is not None and LARGEST in targets):
        r, outputs, heads = served.forward(x)
        if not r.normal.batched:  # what is not a row of a sample is the model's own of all of them together
            outputs = served.predict(x)
        if targets is not None:
            largest = heads.reshape(len(heads), -1).argmax(axis=1)
            targets = [int(largest[i]) if t == LARGEST else t for i, t in enumerate(targets)]
        chosen = _meeting(jobs, Decision.of_heads(heads, r, served.labels))
    rows: list[Explained | None] = [None] * len(chosen)
    if chosen.any():
        some = {name: array[chosen] for name, array in x.items()} if not chosen.all() else x
        asked = None if targets is None else [t for t, c in zip(targets, chosen, strict=True) if c]
        found, own = served.explain(some, asked, jobs[0].contrast)
        outputs = outputs or own
        for i, made in zip(np.flatnonzero(chosen), found, strict=True):
            rows[i] = made
    start = 0
    for job, part in zip(jobs, _parts(outputs, jobs), strict=True):
        yield Answer(part, rows[start : start + job.count])
        start += job.count


def _parts(outputs: Mapping[str, Array], jobs: Sequence[Job]) -> Iterator[dict[str, Array]]:
    """Return the rows of every job; of one that is alone all of them: lists of what is found have no row per sample."""
    start = 0
    for job in jobs:
        rows = slice(start, start + job.count) if len(jobs) > 1 else slice(None)
        yield {name: array[rows] if array.ndim else array for name, array in outputs.items()}
        start += job.count


def _meeting(jobs: Sequence[Job], decision: Decision) -> npt.NDArray[np.bool_]:
    """Tell which samples meet the conditions of their jobs."""
    found: list[bool] = []
    for job in jobs:
        start = len(found)
        if job.condition is None:
            found += [True] * job.count
            continue
        own = [job.condition(_named(decision.top(start + i))) for i in range(job.count)]
        found += [any(own)] * job.count if job.together else own
    return np.array(found)


def _named(top: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that conditions name."""
    best = top[0] if top else {"label": None, "index": None, "probability": None, "score": None}
    scores = [entry["score"] for entry in top[:2]]
    return {
        "probability": best["probability"],
        "score": best["score"],
        "margin": scores[0] - scores[1] if len(scores) == 2 and None not in scores else None,
        "predicted": best["label"] if best["label"] is not None else best["index"],
    }
