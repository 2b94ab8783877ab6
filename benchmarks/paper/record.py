"""What every part stores: means and differences over images with their intervals, and what they were made on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks import machine
from fgonnx.audit.evaluate.summary import interval

SEED = 0  # of the bootstrap

Key = tuple[str, str, str]
"""Method, measure, quantity."""

Values = Mapping[Key, Mapping[str, float]]
"""The value of every image, by its name; NaN where it has none."""


def made_on() -> dict[str, Any]:
    """Return date, machine and versions."""
    return {
        "date": machine.today(),
        "machine": machine.describe(),
        "versions": machine.versions(["numpy", "onnx", "onnxruntime"]),
    }


def estimate(values: Iterable[float]) -> dict[str, Any]:
    """Return the mean of the finite values, its 95 % bootstrap interval, and how many there are."""
    found = np.array(list(values), np.float64)
    found = found[np.isfinite(found)]
    low, high = interval(found, SEED)
    return {"mean": float(found.mean()) if found.size else None, "low": low, "high": high, "count": found.size}


def against(
    values: Values, measure: str, quantity: str, methods: Iterable[str], reference: str
) -> list[dict[str, Any]]:
    """Return the mean of every method, and its difference from a reference, image by image.

    Pictures differ more than methods do, so that the interval of the difference says more than those of two means.
    """
    base = values[reference, measure, quantity]
    rows = []
    for method in methods:
        own = values.get((method, measure, quantity), {})
        row: dict[str, Any] = {"method": method, **estimate(own.values())}
        if method != reference:
            row["difference"] = estimate(value - base[image] for image, value in own.items() if image in base)
        rows.append(row)
    return rows


def sign(difference: Mapping[str, Any]) -> int:
    """Return 1 or -1 where the whole interval of a difference is above or below zero, else 0."""
    low, high = difference["low"], difference["high"]
    if low is None:
        return 0
    return int(low > 0) - int(high < 0)
