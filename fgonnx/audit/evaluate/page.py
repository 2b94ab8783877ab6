"""The report of a run as one self-contained HTML page, without scripts."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fgonnx.pictures.show import pages
from fgonnx.pictures.show.words import STYLE

NULL = "Null baseline"
"""What the description of a method whose maps do not depend on the model says of its source."""


def render(
    summary: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, bytes]],
    words: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    summary : mapping
        What `summary.json` holds.
    figures : mapping of str to (mapping of str to bytes)
        By name, each as "png" and "svg"; "maps" is the grid, others are named after measures.
    words : sequence of (str, sequence of (str, str))
        Of texts: the name of each, and by method its words as HTML.
    """
    return pages.render(
        "fgonnx.audit.evaluate",
        {"number": number},
        summary=summary,
        columns=table(summary),
        null=null_baselines(summary),
        remarks=remarks(summary),
        of=summary["data"].get("of", "images"),
        words=words,
        style=STYLE if words else "",
        grid=_embedded(figures["maps"]["png"], "png") if "maps" in figures else None,
        curves={name: _embedded(figure["svg"], "svg+xml") for name, figure in figures.items() if name != "maps"},
    )


def table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of methods by measures as columns: the first quantity of each measure.

    Each has the "measure" with its "quantity", and "cells" by method: the entry of the results, its "rank" from 0, and
    whether it is "best", which a null baseline never is.
    """
    columns, null = [], null_baselines(summary)
    for measure in summary["measures"]:
        entries = [e for e in summary["results"] if e["measure"] == measure["name"]]
        if not entries:
            continue
        quantity = entries[0]["quantity"]
        cells = {e["method"]: e for e in entries if e["quantity"] == quantity}
        order = ranked(list(cells.values()), measure["better"])
        columns.append(
            {
                "measure": measure,
                "quantity": quantity,
                "cells": {
                    name: {
                        **cell,
                        "rank": order.get(name),
                        "best": order.get(name) == 0 and name not in null,
                        "of": len(order),
                    }
                    for name, cell in cells.items()
                },
            }
        )
    return columns


def null_baselines(summary: Mapping[str, Any]) -> list[str]:
    """Return the methods of a run whose maps do not depend on the model."""
    return [m["name"] for m in summary["methods"] if NULL in m["what"]]


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Say of which measures a null baseline leads: they do not tell methods apart here."""
    null, found = null_baselines(summary), []
    for column in table(summary):
        first = [name for name, cell in column["cells"].items() if cell["rank"] == 0]
        found += [
            f"{column['measure']['name']}: the null baseline {name}, which does not depend on the model, comes first; "
            "the measure does not tell methods apart on this model and these samples."
            for name in first
            if name in null
        ]
    return found


def ranked(cells: Sequence[Mapping[str, Any]], better: str) -> dict[str, int]:
    """Return the rank of every method, from 0; empty where neither direction is better."""
    known = [c for c in cells if c["mean"] is not None]
    if not better:
        return {}
    known.sort(key=lambda c: c["mean"], reverse=better == "higher")
    return {c["method"]: i for i, c in enumerate(known)}


def number(value: float | None) -> str:
    """Format a number with three significant digits."""
    if value is None:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        digits = 3 if abs(value) < 1 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.0e}"


def _embedded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
