"""Plots of series with channels: a lane for each, the map behind its wave, and a lane of the network's own terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError
from fgonnx.pictures.show import plots, visual
from fgonnx.pictures.show.sheet import FAINT, INK, RGB, RULE, Certificate, Sheet

Array = npt.NDArray[Any]

MOST = 12
"""Channels that are drawn; of more, those whose lanes are strongest."""
INSIDE = "inside the network"
SCORE = "score"

_WIDTH, _MARGIN, _NAMES = 520, 14, 96  # in units of 1/360 of the height
_DEEPEST = 0.7  # of the colour scale, so that a wave is read over it


@dataclass(frozen=True)
class Series:
    """A series and its map, lane by lane.

    Attributes
    ----------
    values : numpy array, (C, T)
        What the model takes.
    channels : numpy array, (C, T)
        The lane of every channel.
    inside : numpy array, (T,), or None
        The lane of the terms of the network.
    names : sequence of str
        Of the channels.
    units : str
        Of the values.
    rate : float, optional
        Steps per second; steps are counted without it.
    start : int
        Step at which the series begins in its recording.
    padded : int
        How many of the last steps are padding.
    score : numpy array, (T,), or None
        The score over time, where windows slide.
    """

    values: Array
    channels: Array
    inside: Array | None
    names: Sequence[str]
    units: str = ""
    rate: float | None = None
    start: int = 0
    padded: int = 0
    score: Array | None = None


def draw(series: Series, certificate: Certificate, *, signed: bool = False, height: int = 480) -> RGB:
    """Draw a lane for every channel, one for the network, and the certificate beside them.

    Parameters
    ----------
    series : Series
        What is drawn. All lanes share one colour scale.
    certificate, signed, height
        As for `fgonnx.pictures.show.visual.panel`.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels.

    Raises
    ------
    InputError
        Shapes differ, or a number is NaN or infinite.
    OptionError
        The height is too small.
    """
    certificate.checked(height)
    values, lanes = np.asarray(series.values, np.float64), np.asarray(series.channels, np.float64)
    if values.shape != lanes.shape or values.ndim != 2 or not values.size or len(series.names) != len(values):
        raise InputError(f"a series of shape {values.shape} and lanes of shape {lanes.shape} do not belong together")
    if not (np.isfinite(values).all() and np.isfinite(lanes).all()):
        raise InputError("the series or its map holds NaN or infinity: check the model's weights and its input")
    kept = chosen(lanes)
    rows = len(kept) + (series.inside is not None) + (series.score is not None)
    sheet = Sheet(height, round((_NAMES + _WIDTH + 2 * _MARGIN) * height / 360))
    left, right = _MARGIN + _NAMES, _MARGIN + _NAMES + _WIDTH
    left_out = len(lanes) - len(kept)
    head = "the map behind each channel" + (f"; {left_out} channels with less of it are not drawn" if left_out else "")
    sheet.write(sheet.fitted(head, _WIDTH - 130, 10), left, 24, 10, FAINT)
    _legend(sheet, right, signed)
    top, bottom, gap = 32.0, 318.0, 4.0
    step = (bottom - top) / rows
    width = round(_WIDTH * sheet.unit)
    drawn = [plots.columns(lane, width) for lane in (*lanes[kept], *_inside(series))]
    level = visual.scaled(np.stack(drawn), signed, 99.5)
    size = min(10.0, step * 0.6)
    for row, name in enumerate([*(series.names[i] for i in kept), *([INSIDE] if series.inside is not None else [])]):
        y0, y1 = top + row * step, top + (row + 1) * step - gap
        sheet.box(left, y0, right, y1, visual.coloured(level[row][None] * _DEEPEST, True, "inferno"))
        shown = f"{name} ({series.units})" if series.units and row < len(kept) else name
        sheet.write(sheet.fitted(shown, _NAMES - 6, size), left - 6, (y0 + y1) / 2 + size * 0.36, size, INK, right=True)
        if row < len(kept):
            _wave(sheet, values[kept[row]], (left, y0 + 1, right, y1 - 1))
        else:
            plots.curve(sheet, drawn[row], left, y0, right, y1)
        sheet.box(left, y1 + gap / 2 - 0.25, right, y1 + gap / 2 + 0.25, RULE)
    if series.score is not None:
        y0, y1 = bottom - step, bottom - gap
        sheet.write(SCORE, left - 6, (y0 + y1) / 2 + size * 0.36, size, INK, right=True)
        plots.curve(sheet, plots.columns(np.asarray(series.score, np.float64), width), left, y0, right, y1)
    if series.padded:
        edge = right - _WIDTH * series.padded / values.shape[1]
        sheet.box(edge - 0.5, top, edge + 0.5, bottom, FAINT)
        sheet.write("padding", min(edge + 4, right - sheet.extent("padding", 9)), top + 10, 9, FAINT)
    plots.time_axis(sheet, left, right, 320, values.shape[1], series.rate, series.start)
    return sheet.certified(certificate)


def _legend(sheet: Sheet, right: float, signed: bool) -> None:
    """Draw the colour scale, with words at its ends, above the lanes."""
    low, high = ("against", "for") if signed else ("low", "high")
    scale = np.linspace(-1.0 if signed else 0.0, 1.0, 128, dtype=np.float32) * np.float32(_DEEPEST)
    sheet.write(high, right, 24, 9, FAINT, right=True)
    end = right - sheet.extent(high, 9) - 5
    sheet.box(end - 60, 17, end, 24, visual.coloured(scale[None], True, "inferno"))
    sheet.write(low, end - 65, 24, 9, FAINT, right=True)


def _inside(series: Series) -> tuple[Array, ...]:
    return () if series.inside is None else (np.asarray(series.inside, np.float64),)


def chosen(lanes: Array, most: int = MOST) -> list[int]:
    """Return which channels are drawn, in their order: all, or those with most of the map."""
    if len(lanes) <= most:
        return list(range(len(lanes)))
    return sorted(int(i) for i in np.argsort(-np.abs(lanes).sum(axis=1), kind="stable")[:most])


def _wave(sheet: Sheet, wave: Array, box: tuple[float, float, float, float]) -> None:
    """Draw a wave within its own range, so that a channel far from zero fills its lane, too."""
    low, high = float(wave.min()), float(wave.max())
    plots.wave_of(sheet, wave - (low + high) / 2, *box)
