"""Explanations as a figure of matplotlib: picture, map and contributions in a row for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import OptionError
from fgonnx.jobs import record
from fgonnx.wording import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

_FOR, _AGAINST = "#c83e3e", "#3070b8"
_ROW = 3.2  # inches
_NAMED = 12  # channels


@dataclass(frozen=True)
class Row:
    """What is drawn of one sample.

    Attributes
    ----------
    made : mapping
        Its record.
    picture : ndarray of uint8, (h, w, 3)
        What it is, as a picture.
    map_ : numpy array
        Its map: two-dimensional, or (T,) where there are values.
    values : numpy array, (channels, T), or None
        A recording, or a row of a table with one channel, instead of the picture.
    names : tuple of str
        Names of the channels, or of the features of a row of a table.
    is_table : bool
        Whether the values are features.
    rate : float or None
        Positions per second.
    start : int
        Position of the first value.
    """

    made: Mapping[str, Any]
    picture: Array
    map_: Array
    values: Array | None = None
    names: tuple[str, ...] = ()
    is_table: bool = False
    rate: float | None = None
    start: int = 0


def figure(rows: Sequence[Row], *, signed: bool, bars: int) -> Figure:
    """Draw a row of axes for each sample.

    Parameters
    ----------
    rows : sequence of Row
        The samples.
    signed : bool
        The maps have a sign: their colour scale is centred at 0.
    bars : int
        Layers whose contributions are drawn, the largest.

    Raises
    ------
    OptionError
        Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(
            "a plot needs matplotlib: pip install matplotlib, or use picture(), overlay() and save()"
        ) from error
    certified = any(row.made["sites"] for row in rows)
    drawn = Figure(figsize=(3 * _ROW if certified else 2 * _ROW, _ROW * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), 3 if certified else 2, squeeze=False)
    for row, given in zip(axes, rows, strict=True):
        if given.values is None:
            row[0].imshow(given.picture)
            _map(row[1], given.map_, given.picture.shape, signed)
            for axis in row[:2]:
                axis.set_axis_off()
        elif given.is_table:
            _features(row[0], row[1], given, bars)
        else:
            _recording(row[0], row[1], given)
        row[0].set_title(record.target_of(given.made), fontsize=10)
        row[1].set_title("explanation", fontsize=10)
        if certified:
            _contributions(row[2], given.made, bars)
    return drawn


def _features(left: Axes, right: Axes, row: Row, bars: int) -> None:
    """Draw values and map of a row of a table, a bar for each feature, the largest of the map first."""
    values = np.ravel(np.asarray(row.values, np.float64))
    order = np.argsort(-np.abs(row.map_), kind="stable")
    kept = order if len(order) <= bars + 1 else order[:bars]
    named = [row.names[i] for i in kept]
    _bars(left, named, [float(values[i]) for i in kept], "0.6")
    left.set_xlabel("value", fontsize=8)
    adds = [float(row.map_[i]) for i in kept]
    if len(kept) < len(order):
        named.append(f"{len(order) - len(kept)} others")
        adds.append(float(sum(row.map_[i] for i in order[bars:])))
    _bars(right, named, adds)


def _recording(left: Axes, right: Axes, row: Row) -> None:
    """Draw a recording as a wave, or its channels as rows of brightness, and its map over the same time."""
    values = np.asarray(row.values, np.float64)
    steps = (row.start + np.arange(values.shape[-1])) / (row.rate or 1.0)
    if len(values) == 1:
        left.plot(steps, values[0], color="0.3", linewidth=0.6)
    else:
        half = (steps[-1] - steps[0]) / max(1, 2 * (len(steps) - 1)) or 0.5
        extent = (steps[0] - half, steps[-1] + half, len(values) - 0.5, -0.5)
        left.imshow(values, aspect="auto", cmap="gray", extent=extent, interpolation="nearest")
        if len(values) <= _NAMED:
            left.set_yticks(range(len(values)), row.names, fontsize=8)
    map_ = np.asarray(row.map_, np.float64)
    marker = "o" if len(steps) == 1 else None
    right.plot(steps, map_, color="0.3", linewidth=0.6, marker=marker)
    right.fill_between(steps, map_, where=map_ > 0, color=_FOR, interpolate=True)
    right.fill_between(steps, map_, where=map_ < 0, color=_AGAINST, interpolate=True)
    right.axhline(0, color="0.5", linewidth=0.8)
    for axis in (left, right):
        if len(steps) > 1:
            axis.set_xlim(float(steps[0]), float(steps[-1]))
        axis.set_xlabel("seconds" if row.rate else "position", fontsize=8)


def _map(axis: Axes, map_: Array, shape: tuple[int, ...], signed: bool) -> None:
    reach = float(np.percentile(np.abs(map_), 99.5)) or 1.0
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)  # a map lies over its picture, whatever their sizes
    if signed:
        image = axis.imshow(map_, cmap="RdBu_r", vmin=-reach, vmax=reach, extent=extent)
    else:
        image = axis.imshow(map_, cmap="inferno", vmin=float(map_.min()), vmax=reach, extent=extent)
    axis.figure.colorbar(image, ax=axis, shrink=0.8)


def _contributions(axis: Axes, made: Mapping[str, Any], bars: int) -> None:
    values = [s["contribution"] for s in made["sites"]]
    if any(v is None for v in values):
        axis.set_axis_off()
        return
    names = record.short_names(made["sites"])
    if len(values) <= bars + 1:
        bars = len(values)  # "1 other" would take the same room
    kept = sorted(sorted(range(len(values)), key=lambda i: -abs(values[i]))[:bars])
    shown = [(names[i], values[i]) for i in kept]
    if len(kept) < len(values):
        rest = sum(v for i, v in enumerate(values) if i not in kept)
        shown.append((f"{len(values) - len(kept)} others", rest))
    labels, widths = zip(*shown, strict=True)
    _bars(axis, labels, widths)
    axis.set_title(f"contributions to the {record.summed_of(made)} {amount(made['score'])}", fontsize=10)


def _bars(axis: Axes, labels: Sequence[str], widths: Sequence[float], color: str | None = None) -> None:
    places = range(len(widths))
    axis.barh(places, widths, color=color or [_FOR if w > 0 else _AGAINST for w in widths])
    axis.set_yticks(places, labels, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="0.5", linewidth=0.8)
