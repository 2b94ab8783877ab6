"""Explanations as a figure of matplotlib: picture, map and contributions in a row for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import OptionError
from fgonnx.jobs import record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

_FOR, _AGAINST = "#c83e3e", "#3070b8"
_ROW = 3.2  # inches


def figure(rows: Sequence[tuple[Mapping[str, Any], Array, Array]], *, signed: bool, bars: int) -> Figure:
    """Draw a row of axes for each sample.

    Parameters
    ----------
    rows : sequence of (record, picture, map)
        The picture is (h, w, 3) uint8, the map two-dimensional.
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
    certified = any(made["sites"] for made, _, _ in rows)
    drawn = Figure(figsize=(3 * _ROW if certified else 2 * _ROW, _ROW * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), 3 if certified else 2, squeeze=False)
    for row, (made, picture, map_) in zip(axes, rows, strict=True):
        row[0].imshow(picture)
        row[0].set_title(record.target_of(made), fontsize=10)
        _map(row[1], map_, picture.shape, signed)
        for axis in row[:2]:
            axis.set_axis_off()
        if certified:
            _contributions(row[2], made, bars)
    return drawn


def _map(axis: Axes, map_: Array, shape: tuple[int, ...], signed: bool) -> None:
    reach = float(np.percentile(np.abs(map_), 99.5)) or 1.0
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)  # a map lies over its picture, whatever their sizes
    if signed:
        image = axis.imshow(map_, cmap="RdBu_r", vmin=-reach, vmax=reach, extent=extent)
    else:
        image = axis.imshow(map_, cmap="inferno", vmin=float(map_.min()), vmax=reach, extent=extent)
    axis.figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set_title("explanation", fontsize=10)


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
    places = range(len(shown))
    axis.barh(places, widths, color=[_FOR if w > 0 else _AGAINST for w in widths])
    axis.set_yticks(places, labels, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set_title(f"contributions to the {record.summed_of(made)} {made['score']:.4g}", fontsize=10)
