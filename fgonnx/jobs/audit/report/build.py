"""The report of a run: what its records say, as JSON for programs and as one HTML page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files
from fgonnx.audit import evaluate
from fgonnx.errors import InputError
from fgonnx.explain.closing import ALLOWED
from fgonnx.jobs.audit import formats, intact
from fgonnx.jobs.audit.plan import opened
from fgonnx.jobs.audit.report import clusters, columns, measures, page, parts
from fgonnx.jobs.audit.report.columns import Columns
from fgonnx.jobs.audit.report.measures import Cohort

ROWS = 10_000
"""Rows that the page lists: the first of the plan, whose order is drawn at random."""

_FEATURES = "What features or channels add shows from which of them the score of one decision comes"
_SHOWS = {
    "pictures": "A map shows where in a picture the score of one decision comes from",
    "text": "What words add shows from which words the score of one decision comes",
    "table": _FEATURES,
    "array": _FEATURES,
}
_IN_TIME = "on features or in time"
_PLACE = {"pictures": "in the picture", "text": "on tokens", "table": _IN_TIME, "array": _IN_TIME}
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Run:
    """A run that is read back.

    Attributes
    ----------
    folder : Path
        Its folder.
    about : dict
        What `run.json` holds.
    files : list of Path
        Its files of records.
    columns : Columns
        What the rows say.
    cohorts : list of Cohort
        Rows that belong together.
    sites : list of dict
        Layers of the explanations.
    """

    folder: Path
    about: dict[str, Any]
    files: list[Path]
    columns: Columns
    cohorts: list[Cohort]
    sites: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        """What its rows are: "pictures", "table", "array" or "text"."""
        return str(self.about.get("kind", "pictures"))

    @property
    def size(self) -> int:
        """Rows of a shard."""
        return int(self.about["request"]["auditing"]["shard_size"])


def read(folder: Path) -> Run:
    """Read a run back.

    Raises
    ------
    InputError
        The folder holds no run, or none of its shards, or was changed since it was written.
    """
    about = opened(folder)
    intact.check(folder, about)
    found = columns.files_of(folder)
    if not found:
        raise InputError(f"'{folder}' holds a plan and no shard that is done; run fgonnx audit again, it goes on")
    measured = bool(about["request"]["auditing"].get("measures"))
    whole = columns.read(found, measured=measured, several=several(about))
    return Run(folder, about, found, whole, measures.cohorts(whole, about["labels"]), columns.sites_of(found))


def several(about: Mapping[str, Any]) -> bool:
    """Tell whether the head of a run has several axes, so that its entries are no classes."""
    return not about["classes"] and int(about["entries"]) > 1


def report(folder: str | Path) -> dict[str, Any]:
    """Write the report of a run, and return what it says.

    Parameters
    ----------
    folder : path
        The run's folder.

    Returns
    -------
    dict
        What `report.json` holds.

    Raises
    ------
    InputError
        The folder holds no run, or none of its shards.
    """
    run = read(Path(folder))
    about, whole = run.about, run.columns
    grouping = clusters.group(run.files, whole, about["labels"], len(run.sites))
    summary: dict[str, Any] = {
        "schema": about["schema"],
        "kind": run.kind,
        "run": about["id"],
        "time": about["time"],
        "model": about["model"],
        "data": about["data"],
        "request": {k: v for k, v in about["request"].items() if k != "labels"},
        "remarks": about["remarks"],
        "counts": {
            "planned": about["rows"],
            "rows": len(whole),
            "explained": int(whole.explained.sum()),
            "errors": int(whole.failed.sum()),
            "shards": about["shards"],
            "shards_done": len(run.files),
        },
        "performance": measures.performance(whole, run.cohorts),
        "calibration": measures.calibration(whole, about["request"]["auditing"]["seed"]),
        "unsure": _unsure(whole),
        "cohorts": measures.means(run.files, whole, run.cohorts, len(run.sites)),
        "measures": _measures(about["request"]["auditing"].get("measures") or ()),
        "layers": run.sites,
        "clusters": grouping.clusters if grouping is not None else [],
        "grouped": len(grouping.numbers) if grouping is not None else 0,
        "outliers": grouping.outliers if grouping is not None else [],
        "certificates": _certificates(run),
        "sanity": _json(run.folder / "sanity.json"),
        "against": _json(run.folder / "against.json"),
        "notes": about["notes"],
        "command": about["command"],
    }
    if summary["kind"] != "pictures":
        _add_parts(run, summary, grouping)
    summary["findings"] = findings(summary)
    summary["limits"] = limits(summary)
    labelled = grouping.of_rows() if grouping is not None else {}
    files.write_json(run.folder / "report.json", summary)
    with files.replacing(run.folder / "report.html") as temporary:
        text = page.render(summary, page.rows(run, labelled, summary, ROWS))
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    formats.write(run.folder, summary)
    return summary


def _measures(names: Sequence[str]) -> list[dict[str, str]]:
    """Return what the measures of a run are."""
    found = (evaluate.get(name) for name in dict.fromkeys(names))
    return [{"name": m.name, "better": m.better, "meaning": m.meaning, "source": m.source} for m in found]


def _add_parts(run: Run, summary: dict[str, Any], grouping: clusters.Grouping | None) -> None:
    """Say of cohorts and clusters which words, features or channels add most; they have no place in a picture."""
    groups = [cohort.rows for cohort in run.cohorts]
    for c in summary["clusters"]:
        assert grouping is not None
        groups.append(np.isin(run.columns.number, grouping.numbers[grouping.label == c["cluster"] - 1]))
    found = parts.strongest(run.files, groups)
    for one, strongest in zip([*summary["cohorts"], *summary["clusters"]], found, strict=True):
        one["strongest"] = strongest
        one["grid"] = None
        one["places"] = {}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _unsure(whole: Columns) -> str:
    if np.isfinite(whole.probability).any():
        return f"probability below {columns.UNSURE}"
    return "the tenth of the rows with the smallest difference of the two largest scores"


def _certificates(run: Run) -> dict[str, Any] | None:
    whole = run.columns
    known = whole.rounding[np.isfinite(whole.rounding)]
    if not known.size:
        return None
    unclosed = columns.unclosed(run.files) if (known > ALLOWED).any() else 0
    return {
        "count": int(known.size),
        **({"unclosed": unclosed} if unclosed else {}),
        "rounding": {str(q): float(v) for q, v in zip(_QUANTILES, np.quantile(known, _QUANTILES), strict=True)},
        "worst": clusters.worst(whole),
    }


def findings(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader should look at first, in sentences."""
    found = []
    for c in summary["clusters"]:
        if c["place"] is not None:
            right = f", {c['accuracy']:.0%} of them right" if c["accuracy"] is not None else ""
            found.append(
                f"cluster {c['cluster']}: {c['count']} pictures, {c['purity']:.0%} decided as "
                f"'{c['predicted']}'{right}, "
                f"have {c['places'][c['place']]:.0%} of their map {where(c['place'])}, others "
                f"{c['elsewhere'][c['place']]:.0%}: a mark there may decide"
            )
    for row in summary["performance"]:
        whole = summary["performance"][0]
        if row["kind"] in ("class", "slice") and row["high"] < whole["low"]:
            found.append(
                f"{row['kind']} {row['cohort']}: {row['accuracy']:.0%} right ({row['low']:.0%} to "
                f"{row['high']:.0%}), all "
                f"rows {whole['accuracy']:.0%} ({whole['low']:.0%} to {whole['high']:.0%})"
            )
    for limit in (summary["against"] or {}).get("limits", ()):
        if not limit["holds"]:
            missing = limit.get("missing")
            found.append(f"drift: {limit['text']} {f'is not measured: {missing}' if missing else 'does not hold'}")
    counts = summary["counts"]
    if counts["shards_done"] < counts["shards"]:
        plural = "shards are" if counts["shards"] != 1 else "shard is"
        found.append(f"incomplete: {counts['shards_done']} of {counts['shards']} {plural} done")
    only = summary["request"]["auditing"]["only"]
    if only and not counts["explained"] and counts["rows"] > counts["errors"]:
        found.append(f"no row was explained: '{only}' holds for none")
    if counts["errors"]:
        found.append(f"{counts['errors']} rows have no result; their records say why")
    if unclosed := (summary["certificates"] or {}).get("unclosed", 0):
        found.append(f"{columns.unclosed_said(unclosed)}; their maps are not to be relied on")
    for test in (summary["sanity"] or {}).get("tests", ()):
        if test["verdict"] == "failed":
            found.append(f"{test['name']} failed: {test['detail']}")
    return found


def where(place: str) -> str:
    """Return a place in words."""
    return "on the border" if place == "border" else f"in the {place.replace('_', ' ')} corner"


def limits(summary: Mapping[str, Any]) -> list[str]:
    """Return in plain words what the report does not say."""
    request, counts = summary["request"], summary["counts"]
    found = [
        "This report describes what the model did on these data. It is no legal determination, and no statement that "
        "the "
        "model is fit for a purpose.",
        f"{_SHOWS[summary['kind']]}. It does not show why that is so, nor what the model would do on other data.",
        "A certificate says that all contributions together are the score, up to rounding. It does not say that the "
        "score is right.",
    ]
    if counts["explained"] < counts["rows"]:
        found.append(
            f"{counts['rows'] - counts['explained']} rows have no map"
            + (f": only those with {request['auditing']['only']} were explained" if request["auditing"]["only"] else "")
            + ". Means and clusters of maps are of the others."
        )
    whole = measures.by_name(summary["cohorts"], "all")
    share = whole["localised"] if whole is not None else None
    if share is not None:
        found.append(
            f"On average {share:.0%} of the absolute contributions have a place {_PLACE[summary['kind']]} and are in "
            "the map; the rest (such as biases of the last layers) is in the certificate alone."
        )
    if summary["certificates"] is None:
        found.append(f"The method {request['options']['method']} has no certificate.")
    if summary["calibration"] is None:
        found.append(
            "The model computes no probabilities from the scores explained, or no truth is known: no calibration."
        )
    if not summary["performance"]:
        found.append("The data do not say which class is true: no performance.")
    if summary["grouped"] and summary["grouped"] < counts["explained"]:
        found.append(f"Clusters and outliers are of {summary['grouped']} rows drawn at random.")
    return found
