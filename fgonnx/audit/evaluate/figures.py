"""Figures of a run, drawn with matplotlib: curves of a measure, and the maps of all methods side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fgonnx import files
from fgonnx.pictures.show import visual

RGB = npt.NDArray[np.uint8]

_SIDE = 1.15  # inches of one map in the grid
_STYLES = ("-", "--", ":", "-.")  # by turns with the markers
_MARKERS = ("o", "s", "^", "v", "D", "x", "+")
# Without a date, and with a fixed salt for ids, equal figures are equal files.
_DROPPED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}


def told_apart(i: int) -> dict[str, Any]:
    """Return how the i-th curve of a plot is drawn, so that it differs from the others without its colour, too."""
    return {
        "color": mpl.color_sequences["tab10"][i % 10],
        "linestyle": _STYLES[i % len(_STYLES)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "markersize": 4,
    }


def curves(title: str, axes: tuple[str, str], found: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Draw the mean curve of every method, with its confidence band.

    Parameters
    ----------
    title : str
        What was measured.
    axes : pair of str
        Labels of the axes.
    found : sequence of mapping
        "method", "at", "mean", "low" and "high" of each.

    Returns
    -------
    dict of str to bytes
        The figure as "png" and "svg".
    """
    with mpl.rc_context({"svg.hashsalt": "fgonnx", "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        plot = figure.add_subplot()
        for i, curve in enumerate(found):
            how = told_apart(i)
            every = (i / len(found) * 0.12, 0.12)  # of the plot's diagonal
            plot.plot(curve["at"], curve["mean"], label=curve["method"], linewidth=1.4, markevery=every, **how)
            plot.fill_between(curve["at"], curve["low"], curve["high"], color=how["color"], alpha=0.1, linewidth=0)
        at = np.asarray(found[0]["at"])
        if at[0] > 0 and at[-1] / at[0] > 50:
            plot.set_xscale("log")
        plot.set(title=title, xlabel=axes[0], ylabel=axes[1])
        plot.grid(alpha=0.25)
        figure.legend(*plot.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)
        return _written(figure)


def grid(
    rows: Sequence[tuple[str, RGB, Sequence[npt.NDArray[Any] | None]]], methods: Sequence[str]
) -> dict[str, bytes]:
    """Draw pictures next to the maps of all methods.

    Parameters
    ----------
    rows : sequence of (title, picture, maps)
        One map per method, or None.
    methods : sequence of str
        Names of the columns.

    Returns
    -------
    dict of str to bytes
        The figure as "png" and "svg".
    """
    with mpl.rc_context({"svg.hashsalt": "fgonnx", "font.size": 9}):
        columns = len(methods) + 1
        tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
        figure = Figure(figsize=(_SIDE * columns, _SIDE * (len(rows) + 0.6)), layout=tight)
        plots = figure.subplots(len(rows), columns, squeeze=False)
        for line, (title, picture, maps) in zip(plots, rows, strict=True):
            signed = [m is not None and bool((m < 0).any()) for m in maps]
            shown = [
                None if m is None else visual.heat(np.atleast_2d(m), signed=s)
                for m, s in zip(maps, signed, strict=True)
            ]
            for plot, image in zip(line, (picture, *shown), strict=True):
                plot.set_xticks([])
                plot.set_yticks([])
                plot.spines[:].set_visible(False)
                if image is not None:
                    plot.imshow(image, interpolation="nearest")
            line[0].set_ylabel(title, fontsize=6)
        for plot, name in zip(plots[0], ("picture", *methods), strict=True):
            plot.set_title(name.replace("-", "-\n", 1) if len(name) > 12 else name, fontsize=7)
        return _written(figure)


def save(figure: Mapping[str, bytes], path: Path) -> None:
    """Write a figure in all its formats, as `path` with their suffixes."""
    for form, content in figure.items():
        with files.replacing(path.with_name(f"{path.name}.{form}")) as temporary:
            temporary.write_bytes(content)


def _written(figure: Figure) -> dict[str, bytes]:
    forms = {}
    for form, dropped in _DROPPED.items():
        target = io.BytesIO()
        figure.savefig(target, format=form, dpi=130, metadata=dropped)
        forms[form] = target.getvalue()
    return forms
