"""What decisions on tables, recordings and texts rest on: the features, channels or words that add most in a cohort."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fgonnx.jobs.audit.shardfiles import table_of
from fgonnx.pictures.show import waterfall
from fgonnx.wording import visible

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Sums = dict[str, npt.NDArray[np.float64]]
"""By name: the sum of amounts, that of their sizes, and their number."""

SHOWN = 10
"""Features or words of a cohort that the report names."""

BARS = 24
"""Features or channels of a row that the page shows, the largest; the others are one bar. The records have them all."""

FEATURES = "features"
FIELDS = (FEATURES, "series", "text")
"""Fields of a record that hold them."""


def amounts(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what each word of a record adds, or the share of each channel; words in lower case."""
    if (text := record.get("text")) is not None:
        words = json.loads(text)["words"] if isinstance(text, str) else text["words"]
        found: dict[str, float] = defaultdict(float)
        for word in words:
            if not word["special"]:
                found[word["text"].lower()] += word["value"]
        return dict(found)
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
    sums: list[Sums] = [defaultdict(lambda: np.zeros(3)) for _ in groups]
    start = 0
    for file in files:
        table = table_of(file, list(FIELDS))
        inside = [group[start : start + len(table)] for group in groups]
        for i, record in enumerate(table.select([f for f in FIELDS if f != FEATURES]).to_pylist()):
            within = [total for group, total in zip(inside, sums, strict=True) if group[i]]
            for name, value in amounts(record).items() if within else ():
                for total in within:
                    total[name] += (value, abs(value), 1)
        for rows, names, values in features_of(table):
            for group, total in zip(inside, sums, strict=True):
                own = values[group[rows]]
                found = np.stack([own.sum(axis=0), np.abs(own).sum(axis=0), np.full(len(names), len(own))], axis=1)
                for name, three in zip(names, found, strict=True) if len(own) else ():
                    total[name] += three
        start += len(table)
    return [_first(total) for total in sums]


def features_of(table: pa.Table) -> Iterator[tuple[Array, list[str], Array]]:
    """Yield the rows of a table of records that have the same features: which, their names, and what each adds.

    Yields
    ------
    numpy array of int, (n,)
        Rows of the table.
    list of str
        Names of the features.
    numpy array of float, (n, features)
        What each adds to each row.
    """
    column = table.column(FEATURES).combine_chunks()
    known = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    names = column.field("names").take(pa.array(known))
    lengths = pc.list_value_length(names).to_numpy(zero_copy_only=False)
    for length in np.unique(lengths).tolist():
        at = np.flatnonzero(lengths == length)
        coded = names.take(pa.array(at)).flatten().dictionary_encode()
        called, of = np.unique(coded.indices.to_numpy().reshape(len(at), length), axis=0, return_inverse=True)
        words = coded.dictionary.to_pylist()
        for n, codes in enumerate(called):
            rows = known[at[of.reshape(-1) == n]]
            values = column.field("contributions").take(pa.array(rows)).flatten().to_numpy(zero_copy_only=False)
            yield rows, [words[c] for c in codes], values.astype(np.float64).reshape(len(rows), length)


def _first(total: Sums) -> list[dict[str, Any]]:
    order = sorted(total, key=lambda name: (-total[name][1], name))[:SHOWN]
    return [{"name": visible(n), "mean": float(total[n][0] / total[n][2]), "count": int(total[n][2])} for n in order]


def of_row(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the page shows of a row: words with what they add, or bars; None of a picture."""
    if (text := record.get("text")) is not None:
        words = (json.loads(text) if isinstance(text, str) else text)["words"]
        return {"words": [[visible(w["text"]), _short(w["value"]), w["special"], w["part"]] for w in words]}
    if (features := record.get("features")) is not None:
        names, values = features["names"], features["values"]
        kept, others = _largest(features["contributions"], "features")
        bars = [(f"{visible(names[i])} = {_short(values[i])}", _short(added)) for i, added in kept]
        return {"bars": [*bars, *others, (waterfall.BIASES, _short(features["biases"]))]}
    if (series := record.get("series")) is not None:
        names, peaks, rate, start = series["channels"], series["peaks"], series["rate"], series["start"]
        kept, others = _largest(series["shares"], "channels")
        if not others:
            kept = list(enumerate(series["shares"]))  # few stay in their order
        bars = [(f"{visible(names[i])}, strongest at {_when(peaks[i] + start, rate)}", _short(s)) for i, s in kept]
        return {"bars": [*bars, *others]}
    return None


def _largest(values: Sequence[float], what: str) -> tuple[list[tuple[int, float]], list[tuple[str, float]]]:
    """Return the largest of values with their places, and, as one bar, the number and the sum of the others."""
    order = np.argsort(-np.abs(np.asarray(values, np.float64)), kind="stable").tolist()
    kept = order if len(order) <= BARS + 1 else order[:BARS]
    rest = order[len(kept) :]
    others = [(f"{len(rest)} other {what}, in sum", _short(sum(values[i] for i in rest)))] if rest else []
    return [(i, values[i]) for i in kept], others


def _when(step: int, rate: float | None) -> str:
    return f"step {step}" if rate is None else f"{step / rate:.4g} s"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
