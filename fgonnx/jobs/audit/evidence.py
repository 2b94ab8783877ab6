"""Where the evidence of a map lies, as a few numbers; and small pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.jobs.panel import smoothed
from fgonnx.jobs.record import flat
from fgonnx.opencv import cv2
from fgonnx.pictures.show import visual

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

GRID = 16
"""Cells a side of the grid that a map is summed on."""

RING, CORNER = 2, 4
"""Width of the border and of a corner, in cells: an eighth and a quarter of the side."""

SIDE = 96
"""Longer side of the small pictures, in pixels."""

_QUALITY = 80  # of JPEG: WebP is a third smaller, and takes twenty times as long to write


def grid_of(saliency: Array) -> npt.NDArray[np.float32]:
    """Return a map on 16 x 16 cells, (16, 16): shares of its absolute sum; all 0 for a map of zeros."""
    values = np.abs(flat(saliency)).astype(np.float32)
    cells = np.asarray(cv2.resize(values, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float64)
    return np.asarray(cells / max(float(cells.sum()), np.finfo(np.float64).tiny), np.float32)


def places(grid: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
    """Return the shares of a map on the border and in the corners, from its grid (16, 16)."""
    inner = grid[RING:-RING, RING:-RING]
    return {
        "border": float(grid.sum() - inner.sum()) if grid.any() else 0.0,
        "top_left": float(grid[:CORNER, :CORNER].sum()),
        "top_right": float(grid[:CORNER, -CORNER:].sum()),
        "bottom_left": float(grid[-CORNER:, :CORNER].sum()),
        "bottom_right": float(grid[-CORNER:, -CORNER:].sum()),
    }


def on_object(saliency: Array, mask: npt.NDArray[np.bool_] | None) -> dict[str, float | None]:
    """Return the share of a map on the object, and of the picture that the object covers."""
    if mask is None:
        return {"object": None, "object_area": None}
    values = np.abs(flat(saliency))
    mask = fitted(mask, values.shape)
    total = float(values.sum())
    return {"object": float(values[mask].sum()) / total if total else 0.0, "object_area": float(mask.mean())}


def fitted(mask: npt.NDArray[np.bool_], size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a mask in the size of a map, height and width."""
    if mask.shape == size:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0)


def pictures(shown: RGB, saliency: Array | None, *, signed: bool) -> dict[str, bytes | None]:
    """Return small JPEG pictures of what the model sees, and of the map over it."""
    small = _small(shown)
    if saliency is None:
        return {"seen": _jpeg(small), "overlay": None}
    map_ = cv2.resize(
        smoothed(flat(saliency), signed=signed), (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA
    )
    return {"seen": _jpeg(small), "overlay": _jpeg(visual.overlay(small, map_, signed=signed))}


def _small(rgb: RGB) -> RGB:
    height, width = rgb.shape[:2]
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)


def _jpeg(rgb: RGB) -> bytes:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(encoded.tobytes())
