"""Black-box methods: how the score changes when parts of the input are hidden."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fgonnx.engine.maps.interpolate import interpolation
from fgonnx.engine.methods.registry import driven, nothing
from fgonnx.engine.methods.sample import Array, Sample
from fgonnx.fields import MOST_RUNS, documented, option

_MOST_CELLS = 256  # of a mask; numbers are drawn for all of them


@documented
@dataclass(frozen=True, kw_only=True)
class Window:
    """A window that slides over the input."""

    window: int | None = option(
        None, "Its size along every axis of the grid; by default a seventh of the axis, rounded up.", least=1
    )
    stride: int | None = option(None, "Its step; by default half the window, rounded up.", least=1)
    baseline: float | Array = option(
        0.0, "What it is filled with, in units of the model's input: a number, or an array of one sample's shape."
    )

    def spans(self, size: int) -> list[slice]:
        """Return the positions of the window along an axis; the last one ends with the axis."""
        window = min(self.window or math.ceil(size / 7), size)
        stride = self.stride or math.ceil(window / 2)
        count = 1 + math.ceil((size - window) / stride)
        return [slice(i * stride, min(i * stride + window, size)) for i in range(count)]


@documented
@dataclass(frozen=True, kw_only=True)
class Masks:
    """Random masks."""

    samples: int = option(4000, "How many, 1 or more.", least=1, most=MOST_RUNS)
    cells: int = option(
        7, "Cells of a mask along every axis of the grid, before upsampling.", least=1, most=_MOST_CELLS
    )
    keep: float = option(0.5, "Probability that a cell is kept, above 0, up to 1.", above=0, most=1)
    random_state: int = option(0, "Seed.", least=0)


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
