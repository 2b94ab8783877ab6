"""The content that replaces removed pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.audit.evaluate.data import SPATIAL, Data
from fgonnx.errors import OptionError
from fgonnx.opencv import cv2

Array = npt.NDArray[Any]

FILLS = ("black", "mean", "blur", "noise")

_BLUR = 1 / 16
"""Standard deviation of the blur, as a share of the longer side."""


def filled(data: Data, i: int, fill: str) -> Array:
    """Return what replaces removed pixels of sample i, of its shape and type.

    Parameters
    ----------
    data : Data
        The samples.
    i : int
        Index of the sample.
    fill : {"black", "mean", "blur", "noise"}
        Black pixels; the sample's mean colour; the sample blurred, with a standard deviation of a sixteenth of the
        longer side; normal noise of its mean and standard deviation, per channel.

    Raises
    ------
    OptionError
        There is no such fill, or a blur is requested for a sample with more than two spatial axes.
    """
    x = data.x[i].astype(np.float64)
    space = tuple(a for a, letter in enumerate(data.layout[1:]) if letter in SPATIAL)
    if fill == "black":
        content = np.broadcast_to(np.asarray(data.black, np.float64), x.shape)
    elif fill == "mean":
        content = np.broadcast_to(x.mean(axis=space, keepdims=True), x.shape)
    elif fill == "blur":
        content = _blurred(x, space)
    elif fill == "noise":
        spread = x.std(axis=space, keepdims=True)
        content = x.mean(axis=space, keepdims=True) + spread * data.rng(i, "fill").standard_normal(x.shape)
    else:
        raise OptionError(f"fill='{fill}' does not exist; choose one of: {', '.join(FILLS)}")
    return data.as_input(content)


def _blurred(x: Array, space: tuple[int, ...]) -> Array:
    if len(space) > 2:
        raise OptionError("fill='blur' is for pictures and sequences; choose mean, black or noise for volumes")
    sigma = _BLUR * max(x.shape[a] for a in space)
    moved = np.moveaxis(x, space, range(len(space)))
    planes = moved.reshape(*(x.shape[a] for a in space), *(1,) * (2 - len(space)), -1)
    blurred = np.stack(
        [
            cv2.GaussianBlur(np.ascontiguousarray(planes[..., c]), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
            for c in range(planes.shape[-1])
        ],
        axis=-1,
    )
    return np.moveaxis(blurred.reshape(moved.shape), range(len(space)), space)
