"""The report as one page: self-contained, without network, and readable on paper."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fgonnx.jobs.audit.evidence import GRID
from fgonnx.jobs.audit.report import columns, parts
from fgonnx.jobs.record import entry_name, short_names
from fgonnx.opencv import cv2
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.show import pages, visual

if TYPE_CHECKING:
    from fgonnx.jobs.audit.report.build import Run

_SIDE = 96
_COLUMNS = ("id", "input", "tensor", "top5", "truth", "correct", "score", "completeness", "localised", "sites", "map")
_MORE = ("evidence", "measures", "slices", "error", "notes", "files", "pictures", "explained")
_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


def render(summary: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> str:
    """Return the page.

    Parameters
    ----------
    summary : mapping
        What `report.json` holds.
    table : sequence of mapping
        The rows that the page knows, as `rows` returns them.
    """
    sites = [{**s, "short": n} for s, n in zip(summary["layers"], short_names(summary["layers"]), strict=True)]
    decided = [c for c in summary["cohorts"] if c["kind"] in ("all", "decision")]
    pre = summary["request"]["preprocessing"]
    return pages.render(
        "fgonnx.jobs.audit.report",
        {"heat": _heat, "percent": _percent, "brief": _brief},
        s=summary,
        preprocessing=Preprocessing.from_json(json.dumps(pre)).describe() if pre is not None else None,
        rows=table,
        known={row["n"] for row in table},
        layers=sites,
        decided=decided,
        classes=[c for c in summary["cohorts"] if c["kind"] == "class"],
        slices=[c for c in summary["cohorts"] if c["kind"] == "slice"],
        pictures=any(row["seen"] for row in table),
    )


def rows(run: Run, labelled: Mapping[int, int], summary: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Return what the page knows of rows: the first of the plan, and those that its sections show."""
    numbers = list(dict.fromkeys([*run.columns.number[:most].tolist(), *chosen(summary)]))
    with_pictures = run.about["request"]["auditing"]["pictures"]
    left = ({"pictures"} if not with_pictures else set()) | ({"measures"} if not summary["measures"] else set())
    wanted = [c for c in (*_COLUMNS, *_MORE) if c not in left]
    wanted += parts.FIELDS if summary["kind"] != "pictures" else ()
    several = run.columns.positions is not None
    read = columns.rows_of(run.folder, numbers, run.size, wanted)
    found = {n: _row(row, labelled.get(n), several) for n, row in read}
    return [found[n] for n in numbers if n in found]


def _row(row: Mapping[str, Any], cluster: int | None, several: bool) -> dict[str, Any]:
    top, truth, evidence = row["top5"], row["truth"], row["evidence"]
    certificate, pictures = row["completeness"] or {}, row.get("pictures") or {}
    placed = evidence is not None and evidence["border"] is not None
    corner = max(_CORNERS, key=evidence.__getitem__) if placed else None
    return {
        "n": row["row"]["number"],
        "name": row["row"]["name"],
        "id": row["id"][:16],
        "pred": entry_name(top[0], several=several) if top else None,
        "truth": entry_name(truth, several=False) if truth else None,
        "ok": row["correct"],
        "p": _short(top[0]["probability"]) if top else None,
        "score": _short(row["score"] if row["score"] is not None else top[0]["score"] if top else None),
        "top": [[entry_name(e, several=several), _short(e["score"]), _short(e["probability"])] for e in top],
        "residual": _short(certificate.get("residual")),
        "rel": _short(certificate.get("relative")),
        "round": _short(certificate.get("rounding")),
        "map": _short(row["localised"]["share"]) if row["localised"] else None,
        "sites": [_short(s["contribution"]) for s in row["sites"]],
        "where": {k: _short(v) for k, v in evidence.items() if v is not None} if evidence else None,
        "corner": corner,
        "cluster": cluster or None,
        "slices": dict(row["slices"] or ()),
        "measures": {name: _short(value) for name, value in row.get("measures") or ()},
        "error": row["error"],
        "notes": row["notes"],
        "said": row["explained"]["described"] if row["explained"] else None,
        "sha": row["input"]["sha256"],
        "fed": row["tensor"]["sha256"] if row["tensor"] else None,
        "file": row["files"]["map"] if row["files"] else None,
        "parts": parts.of_row(row),
        "seen": _data(pictures.get("seen")),
        "over": _data(pictures.get("overlay")),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _data(content: bytes | None) -> str | None:
    return base64.b64encode(content).decode() if content else None


def _heat(grid: Sequence[float]) -> str:
    """Return a mean map as a picture that a page can hold."""
    cells = np.asarray(grid, np.float64).reshape(GRID, GRID)
    drawn = visual.heat(cv2.resize(cells, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST), percentile=100)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    return f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _brief(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def chosen(summary: Mapping[str, Any]) -> Sequence[int]:
    """Return the numbers of the rows that sections of the report show."""
    numbers = [n for c in summary["clusters"] for n in c["typical"]]
    numbers += [o["number"] for o in summary["outliers"]]
    numbers += [w["number"] for w in (summary["certificates"] or {}).get("worst", ())]
    numbers += [c["number"] for c in (summary["against"] or {}).get("changed", ())]
    return list(dict.fromkeys(numbers))
