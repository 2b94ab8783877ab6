"""The picture of an explained sample: photo or plot, map, and the certificate in words and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.explain.closing import DISTRUST, closes
from fgonnx.explain.parts import Features, Lanes
from fgonnx.jobs import tabled
from fgonnx.jobs.record import first_name, flat, mean_of, name_of, score_of, several, short_names, target_of, value_of
from fgonnx.jobs.samples import Sample
from fgonnx.jobs.tabular import TABLE
from fgonnx.opencv import cv2
from fgonnx.pictures.show import plots, visual
from fgonnx.pictures.show.sheet import Certificate
from fgonnx.wording import amount

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

_SMOOTHING = 64  # standard deviation of the average, as a divisor of the picture's longer side


def draw(
    record: Mapping[str, Any],
    sample: Sample,
    saliency: Array,
    kind: str,
    placed: Array | None,
    values: Array,
    parts: Lanes | Features | None = None,
) -> RGB:
    """Draw the picture of one sample.

    Parameters
    ----------
    record : mapping
        From `describe`.
    sample : Sample
        The sample.
    saliency : numpy array
        Its map.
    kind : {"panel", "overlay", "heat"}
        Photo, explanation and certificate; the map overlaid on the whole photo; or the map alone.
    placed : numpy array, (H, W), or None
        The map in the coordinates of the whole photo.
    values : numpy array, (channels, *grid)
        The input: sequences and volumes are drawn from it.
    parts : Lanes, Features or None
        The map of a series with channels in lanes, or of a row of a table by features.
    """
    signed = record["settings"]["psi"] == "signed"
    if (
        kind == "panel"
        and sample.photo is None
        and (plotted := _plot(record, sample, saliency, values, parts)) is not None
    ):
        return plotted
    map_ = smoothed(flat(saliency), signed=signed)
    if kind == "heat":
        return visual.heat(map_, signed=signed)
    if kind == "overlay" and placed is not None and sample.photo is not None:
        return visual.overlay(sample.photo, smoothed(placed, signed=signed), signed=signed)
    shown = _wide_enough(sample.shown)
    if kind == "overlay":
        return visual.overlay(shown, map_, signed=signed)
    return visual.panel(shown, map_, _certificate(record, sample), signed=signed, height=480)


def _certificate(record: Mapping[str, Any], sample: Sample) -> Certificate:
    return Certificate(_title(record, sample), _lines(record), _bars(record))


def _plot(
    record: Mapping[str, Any], sample: Sample, saliency: Array, values: Array, parts: Lanes | Features | None
) -> RGB | None:
    """Draw a sequence, a row of a table or a volume; None for a picture."""
    signed = record["settings"]["psi"] == "signed"
    if isinstance(parts, Features):
        return tabled.waterfall_of(record, sample, parts, _certificate(record, sample))
    if isinstance(parts, Lanes):
        return tabled.lanes_of(sample, values, parts, _certificate(record, sample), signed=signed)
    if saliency.ndim == 2 and sample.named is not None and sample.named.axes:
        return tabled.spectrogram_of(sample, values.mean(axis=0), saliency, _certificate(record, sample), signed=signed)
    grid = tuple(size for size in saliency.shape if size > 1)
    map_, rows = saliency.reshape(grid), values.reshape(len(values), *grid)
    certificate = _certificate(record, sample)
    if len(grid) == 1:
        return plots.sequence(rows, map_, certificate, signed=signed, rate=sample.rate, start=sample.start)
    if len(grid) == 3:
        return plots.volume(rows.mean(axis=0), map_, certificate, signed=signed)
    return None


def _bars(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    names = short_names(record["sites"])
    values = [s["contribution"] for s in record["sites"]]
    return [(n, v) for n, v in zip(names, values, strict=True) if v is not None]


def smoothed(map_: Array, *, signed: bool) -> Array:
    """Smooth a signed map to be drawn: single pixels of alternating sign would be unreadable."""
    if not signed or min(map_.shape) == 1:
        return map_
    return np.asarray(cv2.GaussianBlur(map_, (0, 0), max(map_.shape) / _SMOOTHING), np.float64)


def _wide_enough(rgb: RGB) -> RGB:
    """Stretch the strip of a sequence to a visible height."""
    height, width = rgb.shape[:2]
    if height * 8 >= width:
        return rgb
    return np.asarray(cv2.resize(rgb, (width, max(1, width // 8)), interpolation=cv2.INTER_NEAREST), np.uint8)


def _title(record: Mapping[str, Any], sample: Sample) -> str:
    named = sample.named
    which = "" if named is None else f", {named.label}" if named.label else ""
    if named is not None and named.kind == TABLE:
        which = f", row {sample.source.row}"
    return f"{target_of(record)}   ({sample.source.path.name}{which})"


def _lines(record: Mapping[str, Any]) -> Sequence[str]:
    """Describe the certificate in lines of text."""
    target, top = record["target"], record["top5"]
    before = record["explained"]["before"]
    known = target is not None and target["probability"] is not None
    probability = f", probability {target['probability']:.1%}" if known else ""
    described = record["explained"]["described"]
    other = record.get("contrast")
    obvious = described == target_of(record) or described.endswith(", the largest") or other is not None
    lines = [] if obvious else [f"explained: {described}"]
    score, mean = score_of(record), mean_of(record)
    stage = f" before {before}" if before else ""
    if other is None:
        lines += [f"score {amount(score)}{stage}{probability}"]
    else:
        lines += [
            f"{name_of(entry, record)}: {value_of(entry)}" for entry in (target, other) if entry["score"] is not None
        ]
        lines += [f"difference {amount(score)}{stage}"]
    if mean is not None:
        lines.append(f"mean over the noisy copies {amount(mean)}")
    if "detected" in record:
        if record["detected"] not in described:
            lines.append(f"the model's own choice: {record['detected']}")
    elif top and target is not None and not several(record) and top[0]["index"] != target["index"]:
        # The largest entry of a head with several axes is not a choice between classes.
        lines.append(f"the model's own choice: {name_of(top[0], record)} ({value_of(top[0])})")
    completeness, localised = record["completeness"], record["localised"]
    if completeness is not None:
        relative = completeness["relative"]
        lines.append(
            f"sum of all contributions {amount(record['score'] - completeness['residual'])}"
            + (f", off by {relative:.0e} of the score" if relative is not None else "")
        )
    if not closes(record["notes"]):
        lines.append(DISTRUST)
    if record.get("blocks"):
        worst = max(block["rounding"] for block in record["blocks"])
        lines.append(f"at each of {len(record['blocks'])} blocks the same sum, off by at most {worst:.0e}")
    if localised is not None:
        lines.append(f"the map shows {localised['share']:.1%} of what contributes")
    s = record["settings"]
    layers = f", profile {s['profile']}" if record["sites"] else ""
    back = f", backward {s['backward']}" if "backward" in s else ""
    lines.append(f"{s['method']}{layers}, psi {s['psi']}{back}")
    if s["psi"] == "signed":
        if other is not None:
            lines.append(f"red: for {first_name(target, record)}; blue: for {first_name(other, record)}")
        if len([size for size in record["map"]["shape"] if size > 1]) > 1:
            lines.append("drawn as an average over neighbouring pixels; the .npy is not averaged")
    return lines
