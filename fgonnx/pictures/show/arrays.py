"""Arrays as pictures: by inverting the preprocessing, or stretched to the full range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.pictures.read.frame import over_white
from fgonnx.pictures.read.preprocess import Preprocessing

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

_SHOWN_SIDE = 448  # pixels at which a large photo is shown, where the model sees a smaller one


def picture_of(x: Array, pre: Preprocessing | None, layout: str | None = None) -> RGB:
    """Make a picture of an array.

    Parameters
    ----------
    x : numpy array
        One sample.
    pre : Preprocessing, optional
        What made it of a picture.
    layout : str, optional
        Its layout with the batch in front, such as "NCHW"; guessed from sizes by default.
    """
    values = x.astype(np.float64)
    if pre is not None and pre.layout == "NHW" and values.ndim == 2:
        values = values[:, :, None]
    if pre is not None and values.ndim == 3:
        values = values.transpose(1, 2, 0) if pre.layout == "NCHW" else values
        values = (values * np.asarray(pre.std) + np.asarray(pre.mean)) / pre.scale
        values = values[:, :, [2, 1, 0, *range(3, values.shape[2])]] if pre.channels in ("BGR", "BGRA") else values
        return _rgb(values if values.shape[2] != 4 else over_white(values.astype(np.float32)).astype(np.float64))
    if values.ndim == 3:
        first = _channels_first(x.shape) if layout not in ("NCHW", "NHWC") else layout == "NCHW"
        values = values.transpose(1, 2, 0) if first else values
        if values.shape[2] not in (1, 3):
            values = values.mean(axis=2, keepdims=True)
    else:
        values = values.reshape(*values.shape[:1], -1)[:, :, None] if values.ndim > 1 else values[None, :, None]
    low, high = (float(np.percentile(values, p)) for p in (0.5, 99.5))
    return _rgb((values - low) * (255 / ((high - low) or 1.0)))


def _channels_first(shape: Sequence[int]) -> bool:
    """Tell whether the first of three axes holds the channels: 1, 3 or 4 of them, else if it is the shortest."""
    usual = (1, 3, 4)
    return shape[0] in usual or (shape[2] not in usual and shape[0] <= min(shape[1:]))


def finer(pre: Preprocessing, photo: RGB) -> Preprocessing:
    """Show a large photo at a higher resolution than the model sees, with the same framing."""
    if pre.size is None:
        return pre
    factor = min(_SHOWN_SIDE // max(pre.size), min(photo.shape[:2]) // max(pre.size))
    if factor < 2:
        return pre
    size = pre.size[0] * factor, pre.size[1] * factor
    return replace(pre, size=size, resize_to=None if pre.resize_to is None else pre.resize_to * factor)


def _rgb(values: npt.NDArray[np.floating[Any]]) -> RGB:
    pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
