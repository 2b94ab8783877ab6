"""Black-box methods: how the score changes when parts of the input are hidden."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgonnx.engine.maps.aggregate import interpolation
from fgonnx.engine.methods.registry import Array, Sample, driven, nothing
from fgonnx.errors import OptionError


@dataclass(frozen=True)
class Window:
    """A window that slides over the input.

    Attributes
    ----------
    window : int, optional
        Its size along every axis of the grid; by default a seventh of the axis, rounded up.
    stride : int, optional
        Its step; by default half the window, rounded up.
    baseline : float or numpy array
        What it is filled with, in units of the model's input: a number, or an array of one sample's shape.
    """

    window: int | None = None
    stride: int | None = None
    baseline: Any = 0.0

    def __post_init__(self) -> None:
        if (self.window is not None and self.window < 1) or (self.stride is not None and self.stride < 1):
            raise OptionError(f"window={self.window}, stride={self.stride}: give sizes of at least 1")

    def spans(self, size: int) -> list[slice]:
        """Return the positions of the window along an axis; the last one ends with the axis."""
        window = min(self.window or math.ceil(size / 7), size)
        stride = self.stride or math.ceil(window / 2)
        count = 1 + math.ceil((size - window) / stride)
        return [slice(i * stride, min(i * stride + window, size)) for i in range(count)]


@dataclass(frozen=True)
class Masks:
    """Random masks.

    Attributes
    ----------
    samples : int
        How many, 1 or more.
    cells : int
        Cells of a mask along every axis of the grid, before upsampling.
    keep : float
        Probability that a cell is kept, above 0, up to 1.
    random_state : int
        Seed.
    """

    samples: int = 4000
    cells: int = 7
    keep: float = 0.5
    random_state: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.cells < 1 or not 0 < self.keep <= 1:
            raise OptionError(
                f"samples={self.samples}, cells={self.cells}, keep={self.keep}: give at least one sample and cell, and "
                "a probability above 0"
            )


@driven(
    "occlusion",
    nothing,
    source="Zeiler, Fergus, ECCV 2014, section 4.2.",
    cost="170 forward",
    settings=Window,
    gradient=False,
)
def occlusion(sample: Sample, window: Window) -> dict[str, Array]:
    """How much the score drops when a position is hidden, averaged over the windows that cover it."""
    hidden = sample.baseline(window.baseline)
    windows = list(itertools.product(*(window.spans(size) for size in sample.grid)))
    drops, counts = np.zeros(sample.grid), np.zeros(sample.grid)
    for part in sample.parts(len(windows)):
        shown = np.ones((part.stop - part.start, *sample.grid))
        for mask, where in zip(shown, windows[part], strict=True):
            mask[where] = 0
        mask = sample.spread(shown)
        scores = sample.run(mask * sample.x + (1 - mask) * hidden, ["score"])["score"]
        for score, where in zip(scores, windows[part], strict=True):
            drops[where] += sample.score - float(score)
            counts[where] += 1
    return {"saliency": sample.rectified(drops / counts)[None]}


@driven(
    "rise",
    nothing,
    source="Petsiuk, Das, Saenko, BMVC 2018, section 3.",
    cost="4001 forward",
    settings=Masks,
    gradient=False,
    psis=("abs",),
)
def rise(sample: Sample, masks: Masks) -> dict[str, Array]:
    """The mean of random soft masks, each weighted by the score of the masked input."""
    rng = sample.generator(masks.random_state)
    total = np.zeros(sample.grid)
    for part in sample.parts(masks.samples):
        drawn = np.stack([_mask(rng, masks, sample.grid) for _ in range(part.start, part.stop)])
        scores = sample.run(sample.x * sample.spread(drawn), ["score"])["score"]
        total += np.tensordot(scores.astype(np.float64), drawn, axes=1)
    return {"saliency": total[None] / (masks.samples * masks.keep)}


def _mask(rng: np.random.Generator, masks: Masks, grid: tuple[int, ...]) -> Array:
    """Return one mask: random cells, upsampled to one cell more than the grid and cropped at a random offset."""
    mask = (rng.random((masks.cells,) * len(grid)) < masks.keep).astype(np.float64)
    for axis, size in enumerate(grid):
        cell = math.ceil(size / masks.cells)
        rows = interpolation(masks.cells, (masks.cells + 1) * cell, align_corners=False)
        start = int(rng.integers(cell))
        mask = np.moveaxis(np.tensordot(rows[start : start + size], mask, axes=(1, axis)), 0, axis)
    return mask
