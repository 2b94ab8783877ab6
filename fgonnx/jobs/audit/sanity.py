"""Whether the maps of an audit may be believed: `check` and the randomisation test on some of its own rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fgonnx import files
from fgonnx.audit import check as checks
from fgonnx.audit import evaluate
from fgonnx.errors import FgonnxError, InputError
from fgonnx.jobs import provenance
from fgonnx.jobs.audit.plan import Plan

FILE = "sanity.json"
ALIKE = 0.5
"""Rank correlation above which a map is said to be hardly changed by random weights."""


def sanity(plan: Plan) -> dict[str, Any]:
    """Check the model and its method on the first rows of the plan that can be read, and write what was found.

    Returns
    -------
    dict
        "rows": their names; "tests": name, verdict ("passed", "failed", "undecided", "not measured"), what was found.
    """
    names: list[str] = []
    samples: list[Any] = []
    for row in plan.table.slice(0, 8 * plan.request.auditing.sanity).to_pylist():
        try:
            sample = plan.tools.read({**row, "slices": ()})
        except InputError:
            continue
        key = plan.tools.key(sample)
        if len(samples) < plan.request.auditing.sanity and (not samples or key == plan.tools.key(samples[0])):
            names.append(row["name"])
            samples.append(sample)
    tests = []
    if samples:
        x = plan.tools.fed(samples)
        tests = [*_checked(plan, x), _random(plan, x)]
    found = {"run": plan.about["id"], "time": provenance.now(), "rows": names, "tests": tests}
    files.write_json(plan.folder / FILE, found)
    return found


def _checked(plan: Plan, x: Any) -> list[dict[str, Any]]:
    tools = plan.tools
    options = replace(tools.options, bind=None, contrast=None, backward="gradient", settings=None, method="fullgrad")
    options = replace(options, scores=False)
    try:
        found = checks.check(tools.loaded, x, options=options, running=plan.request.running)
    except FgonnxError as error:
        return [{"name": "check", "verdict": "not measured", "detail": str(error)}]
    return [
        {
            "name": c.name,
            "verdict": c.verdict,
            "value": float(c.value) if np.isfinite(c.value) else None,
            "allowed": float(c.tolerance),
            "detail": c.detail,
        }
        for c in found.checks
    ]


def _random(plan: Plan, x: Any) -> dict[str, Any]:
    tools = plan.tools
    name = "random weights"
    if tools.kind == "text":
        detail = "maps of texts are compared place by place, and padding is alike in all of them"
        return {"name": name, "verdict": "not measured", "detail": detail}
    try:
        subject = evaluate.Subject(
            tools.loaded,
            options=replace(tools.explainer.options),
            running=plan.request.running,
            forward=tools.explainer,
        )
        found = evaluate.get("randomisation")(subject, evaluate.Data.of(tools.explainer, x))
    except FgonnxError as error:
        return {"name": name, "verdict": "not measured", "detail": str(error)}
    values = np.asarray(found.values["rank"])
    mean = float(np.nanmean(values)) if np.isfinite(values).any() else None
    if mean is None:
        return {"name": name, "verdict": "not measured", "detail": "the maps are constant"}
    changed = "are changed" if mean < ALIKE else "are hardly changed"
    return {
        "name": name,
        "verdict": "passed" if mean < ALIKE else "failed",
        "value": mean,
        "allowed": ALIKE,
        "detail": f"rank correlation of maps with those of the model with all weights permuted: maps {changed} "
        "(Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018)",
    }
