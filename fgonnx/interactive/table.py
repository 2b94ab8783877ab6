"""Explanations as rows of a table: what was explained, scores, certificate, and what adds up to the score."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fgonnx.jobs import record

_BIASES = "biases"


def row(made: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the row of a sample, by its record and its name."""
    target, completeness, localised = made["target"], made["completeness"], made["localised"]
    own = {
        "sample": name,
        "explained": record.target_of(made),
        "index": target["index"] if target else None,
        "score": record.score_of(made),
        **({"mean score": mean} if (mean := record.mean_of(made)) is not None else {}),
        "probability": target["probability"] if target else None,
        "top": record.name_of(made["top5"][0], made) if made["top5"] else None,
        "residual": completeness["residual"] if completeness else None,
        "localised": localised["share"] if localised else None,
    }
    return {**own, **_contributions(made, own)}


def _contributions(made: Mapping[str, Any], own: Iterable[str]) -> dict[str, float]:
    """Return what adds up to the score: layers, or of a row of a table its features and the biases.

    `own` are the names of other columns, which none of these overwrites.
    """
    if (features := made.get("features")) is not None:
        found = dict(zip(features["names"], features["contributions"], strict=True))
        return {**_renamed(found, {*own, _BIASES}), _BIASES: features["biases"]}
    return _renamed({s["name"]: s["contribution"] for s in made["sites"] if s["contribution"] is not None}, set(own))


def _renamed(found: Mapping[str, float], taken: Collection[str]) -> dict[str, float]:
    """Return what adds, by names that are not taken."""
    renamed = {}
    for name, value in found.items():
        free = name
        while free in taken or (free != name and free in found):
            free = f"adds: {free}"
        renamed[free] = value
    return renamed
