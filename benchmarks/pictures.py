"""Cost of the pictures: milliseconds per panel, and what the libraries that draw would add to an installation.

`python -m benchmarks.pictures` prints the figures of docs/house.md.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fgonnx.pictures.show import pair, plots, visual
from fgonnx.pictures.show.sheet import Certificate

PILLOW = ("pillow",)
MATPLOTLIB = ("matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing")  # some need more

TITLE = "photo.jpg: Käse (0.93)"
LINES = [
    "score 3.8762",
    "sum of all contributions 3.8762, off by 2e-07 of the score",
    "fullgrad, profile full, psi abs",
]
BARS = [(f"/layer.{i}/conv/Conv", (-1) ** i * 0.1 * i) for i in range(1, 13)]


def milliseconds(draw: Callable[[], object], calls: int = 50) -> float:
    """Return processor time of one call, the least of several: other programs do not add to it."""
    spent = []
    for _ in range(calls):
        start = time.process_time()
        draw()
        spent.append(1e3 * (time.process_time() - start))
    return min(spent)


def megabytes(packages: Sequence[str]) -> float:
    """Return the size of the installed files of packages, compiled bytecode left out."""
    total = 0
    for name in packages:
        files = [Path(f.locate()) for f in importlib.metadata.files(name) or () if f.suffix != ".pyc"]
        total += sum(path.stat().st_size for path in files if path.is_file())
    return total / 1e6


def by_matplotlib(height: int) -> object:
    """Draw what stands on a panel beside its pictures with matplotlib."""
    figure = Figure(figsize=(430 / 360 * height / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    figure.text(0, 0.94, TITLE)
    for i, line in enumerate(LINES):
        figure.text(0, 0.85 - 0.05 * i, line)
    axes = figure.add_axes((0.3, 0.05, 0.5, 0.6))
    axes.barh([name for name, _ in BARS], [value for _, value in BARS])
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def main() -> int:
    """Measure and print."""
    cv2.setNumThreads(1)
    photo = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    rows, columns = np.mgrid[:224, :224]
    map_ = np.exp(-((rows - 100) ** 2 + (columns - 130) ** 2) / 2000)
    more: dict[str, Any] = {"title": TITLE, "lines": LINES, "bars": BARS, "height": 480}
    wave = np.sin(np.arange(16000) / 30)
    for name, draw in {
        "panel": lambda: visual.panel(photo, map_, **more),
        "its pictures, without text and bars": lambda: visual.panel(photo, map_, Certificate(""), height=480),
        "comparison": lambda: pair.draw(photo, map_, map_.T, **more),
        "sequence": lambda: plots.sequence(wave, abs(wave), rate=16000, **more),
        "text and bars alone, by matplotlib": lambda: by_matplotlib(480),
    }.items():
        print(f"{name:40}{milliseconds(draw):7.1f} ms")
    for name, packages in (("Pillow", PILLOW), ("matplotlib beside it", MATPLOTLIB)):
        print(f"{name:40}{megabytes(packages):7.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
