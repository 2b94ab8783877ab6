"""What decisions on tables, recordings and texts rest on: the features, channels or words that add most in a cohort."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.jobs.audit.shardfiles import table_of
from fgonnx.wording import visible

Bool = npt.NDArray[np.bool_]

SHOWN = 10
"""Features or words of a cohort that the report names."""

FIELDS = ("features", "series", "text")
"""Fields of a record that hold them."""


def amounts(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what each feature or word of a record adds, or the share of each channel; words in lower case."""
    if (text := record.get("text")) is not None:
        words = json.loads(text)["words"] if isinstance(text, str) else text["words"]
        found: dict[str, float] = defaultdict(float)
        for word in words:
            if not word["special"]:
                found[word["text"].lower()] += word["value"]
        return dict(found)
    if (features := record.get("features")) is not None:
        return dict(zip(features["names"], features["contributions"], strict=True))
    if (series := record.get("series")) is not None:
        return dict(zip(series["channels"], series["shares"], strict=True))
    return {}


def strongest(files: Sequence[Path], groups: Sequence[Bool]) -> list[list[dict[str, Any]]]:
    """Return what adds most in groups of rows, by the sum of absolute amounts.

    Parameters
    ----------
    files : sequence of Path
        Files of records.
    groups : sequence of numpy array of bool, (N,)
        Which rows of the run belong to each.

    Returns
    -------
    list of list of dict
        For each group: "name", "mean" over the rows that have it, "count" of these.
    """
    sums: list[dict[str, list[float]]] = [defaultdict(lambda: [0.0, 0.0, 0.0]) for _ in groups]
    for i, record in enumerate(_records(files)):
        inside = [total for group, total in zip(groups, sums, strict=True) if group[i]]
        if not inside:
            continue
        for name, value in amounts(record).items():
            for total in inside:
                entry = total[name]
                entry[0] += value
                entry[1] += abs(value)
                entry[2] += 1
    return [_first(total) for total in sums]


def _first(total: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    order = sorted(total, key=lambda name: (-total[name][1], name))[:SHOWN]
    return [{"name": visible(n), "mean": total[n][0] / total[n][2], "count": int(total[n][2])} for n in order]


def _records(files: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    for file in files:
        yield from table_of(file, list(FIELDS)).to_pylist()


def of_row(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the page shows of a row: words with what they add, or bars; None of a picture."""
    if (text := record.get("text")) is not None:
        words = (json.loads(text) if isinstance(text, str) else text)["words"]
        return {"words": [[visible(w["text"]), _short(w["value"]), w["special"], w["part"]] for w in words]}
    if (features := record.get("features")) is not None:
        rows = zip(features["names"], features["values"], features["contributions"], strict=True)
        bars = [(f"{visible(name)} = {_short(value)}", _short(added)) for name, value, added in rows]
        bars.sort(key=lambda bar: -abs(bar[1]))
        return {"bars": [*bars, ("biases of the network", _short(features["biases"]))]}
    if (series := record.get("series")) is not None:
        named = zip(series["channels"], series["shares"], series["peaks"], strict=True)
        rate, start = series["rate"], series["start"]
        return {"bars": [[f"{visible(n)}, strongest at {_when(p + start, rate)}", _short(s)] for n, s, p in named]}
    return None


def _when(step: int, rate: float | None) -> str:
    return f"step {step}" if rate is None else f"{step / rate:.4g} s"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
