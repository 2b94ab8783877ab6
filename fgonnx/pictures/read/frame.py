"""Where a picture lies in the input of a model: scaled, then cropped or padded around its centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError
from fgonnx.opencv import cv2

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""A picture of 3 or 4 channels, red first: 0 to 255, with fractions where it has more than 8 bits."""

_FLAGS = {
    "nearest": cv2.INTER_NEAREST_EXACT,  # the pixel at the centre, as in Pillow; INTER_NEAREST takes its corner
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


@dataclass(frozen=True)
class Frame:
    """A picture scaled to `scaled`, centred on a canvas of `size`: larger than it for crop, smaller for letterbox."""

    size: tuple[int, int]
    scaled: tuple[int, int]

    @property
    def source(self) -> tuple[slice, slice]:
        """Part of the scaled picture that is inside of the canvas."""
        return self._overlap(self.scaled, self.size)

    @property
    def target(self) -> tuple[slice, slice]:
        """Part of the canvas that the scaled picture covers."""
        return self._overlap(self.size, self.scaled)

    def filled(self, image: Pixels, interpolation: str, fill: int) -> Pixels:
        """Return the canvas with a picture (H, W, 3 or 4) in it, on a grey level, opaque: (h, w, 3 or 4)."""
        scaled = resized(np.ascontiguousarray(image), self.scaled, interpolation)
        if scaled.dtype != np.uint8:  # cubic and Lanczos weights overshoot
            scaled = np.clip(scaled, 0, 255)
        out = np.full((*self.size, image.shape[2]), fill, image.dtype)
        out[:, :, 3:] = 255
        out[self.target] = scaled[self.source]
        return out

    @staticmethod
    def _overlap(mine: tuple[int, int], other: tuple[int, int]) -> tuple[slice, slice]:
        starts = [max(0, round((m - o) / 2)) for m, o in zip(mine, other, strict=True)]
        rows, columns = (slice(s, s + min(m, o)) for s, m, o in zip(starts, mine, other, strict=True))
        return rows, columns


def resized(array: npt.NDArray[Any], size: tuple[int, int], interpolation: str = "auto") -> npt.NDArray[Any]:
    """Return a picture or a map in another size, (H, W) or (H, W, C); "auto" averages areas where it shrinks."""
    if array.shape[:2] == size:
        return array
    if interpolation == "auto":
        interpolation = "area" if size[0] * size[1] < array.shape[0] * array.shape[1] else "linear"
    return cast("npt.NDArray[Any]", cv2.resize(array, (size[1], size[0]), interpolation=_FLAGS[interpolation]))


def check_picture(image: object) -> None:
    """Raise InputError for what is not a picture of (H, W, 3) or (H, W, 4), or holds no pixel."""
    if not _is_picture(image):
        got = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            "a picture must be RGB or RGBA, uint8 (or float32, 0 to 255) of shape (H, W, 3) or (H, W, 4), got "
            f"{got}: read it with images.read"
        )
    assert isinstance(image, np.ndarray)
    if image.size == 0:
        raise InputError(f"the picture has shape {image.shape}: it must hold at least one pixel")


def _is_picture(image: object) -> bool:
    return (
        isinstance(image, np.ndarray)
        and image.dtype in (np.uint8, np.float32)
        and image.ndim == 3
        and image.shape[2] in (3, 4)
    )


def over_white(rgba: Pixels) -> Pixels:
    """Blend a picture (H, W, 4) with its alpha over white: (H, W, 3), of the same type."""
    colour, alpha = rgba[:, :, :3], rgba[:, :, 3:].astype(np.float32) / 255.0
    if alpha.min() == 1.0:
        return colour
    blended = colour * alpha + np.float32(255.0) * (1.0 - alpha)
    return np.rint(blended).astype(np.uint8) if rgba.dtype == np.uint8 else blended.astype(np.float32)
