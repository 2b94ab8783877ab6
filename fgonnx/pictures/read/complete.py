"""Complete the description of a preprocessing from the shape and the type of a model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import PreprocessingError
from fgonnx.pictures.read.preprocess import CHOICES, COUNT, Layout, Preprocessing

_USUAL = {1: "GRAY", 3: "RGB", 4: "RGBA"}


def complete(pre: Preprocessing, input_shape: Sequence[int | str | None], dtype: npt.DTypeLike) -> Preprocessing:
    """Fill in the unknown fields of a description from the input of a model.

    Parameters
    ----------
    pre : Preprocessing
        The description; known fields are never changed.
    input_shape : sequence of int, str or None
        Shape of the model's input with its batch axis; a name or None stands for a free size.
    dtype : dtype-like
        Element type of the model's input.

    Returns
    -------
    Preprocessing
        With layout, channels and dtype known; the size stays None where it is free.

    Raises
    ------
    PreprocessingError
        The model's input is not a picture, has an ambiguous layout, or contradicts the description.
    """
    dims = tuple(d if isinstance(d, int) and d > 0 else None for d in input_shape)
    shown = "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")"
    if len(dims) not in (3, 4):
        raise PreprocessingError(
            f"the model's input, with its batch {shown}, has {len(dims)} axes and a picture needs 4 (batch, channels, "
            "height, width), or 3 without channels, in grey: pass arrays instead of pictures"
        )
    if len(dims) == 3:  # grey, without an axis of channels
        layout: Layout = pre.layout or "NHW"
        channel, height, width = 1, 2, 3
        dims = (dims[0], 1, *dims[1:])
    else:
        layout = pre.layout or _layout(dims, shown)
        channel, height, width = (1, 2, 3) if layout == "NCHW" else (3, 1, 2)
    if (layout == "NHW") != (len(input_shape) == 3):
        raise PreprocessingError(
            f"layout {layout} does not fit the model's input {shown}: leave it out, the model says it"
        )
    found: dict[str, Any] = {"layout": layout}
    if dims[channel] not in (1, 3, 4, None):
        raise PreprocessingError(
            f"layout {layout} gives the model's input {shown} {dims[channel]} channels, and a picture has 1, 3 or 4: "
            "change the layout, or pass arrays instead of pictures"
        )
    if pre.channels is None:
        if (count := dims[channel]) is None:
            raise PreprocessingError(
                f"the model's input {shown} leaves the number of channels open: set channels to one of "
                f"{', '.join(CHOICES['channels'])}"
            )
        found["channels"] = _USUAL[count]
    elif dims[channel] not in (None, COUNT[pre.channels]):
        raise PreprocessingError(
            f"channels={pre.channels} does not fit the model's input {shown} with {dims[channel]} channel(s): "
            f"set channels={' or '.join(c for c in COUNT if COUNT[c] == dims[channel])}, with one mean and std for "
            "each"
        )
    size = pre.size or (dims[height], dims[width])
    if None not in size:
        found["size"] = size
    elif size != (None, None):
        raise PreprocessingError(f"the model's input {shown} leaves one side open: set size to height and width")
    if any(given not in (None, mine) for given, mine in zip((dims[height], dims[width]), size, strict=True)):
        raise PreprocessingError(
            f"size {size[0]}x{size[1]} does not fit the model's input {shown}: leave it out, the model says it"
        )
    found["dtype"] = _dtype(pre, dtype)
    return replace(pre, **found)


def black(pre: Preprocessing | None) -> npt.NDArray[Any] | float:
    """Return the input of a black pixel, to be broadcast to a picture; 0 for arrays without preprocessing."""
    if pre is None:
        return 0.0
    pixels = pre.apply(np.zeros((8, 8, 3), np.uint8))
    return pixels[:, :1, :1] if pre.layout == "NCHW" else pixels[:1, :1]


def _layout(dims: tuple[int | None, ...], shown: str) -> Layout:
    """Find the channel axis by its length."""
    first, last = dims[1] in (1, 3), dims[3] in (1, 3)
    if not first and not last:
        first, last = dims[1] == 4, dims[3] == 4
    if first == last:
        why = "could have its channels first or last" if first else "has no axis of 1, 3 or 4 channels, second or last"
        raise PreprocessingError(
            f"the model's input {shown} {why}: set layout to NCHW or NHWC, or pass arrays instead of pictures"
        )
    return "NCHW" if first else "NHWC"


def _dtype(pre: Preprocessing, dtype: npt.DTypeLike) -> str:
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in CHOICES["dtype"]:
        raise PreprocessingError(
            f"the model's input is {name}, and pictures become {', '.join(CHOICES['dtype'])}: "
            "pass arrays instead of pictures"
        )
    if pre.dtype not in (None, name):
        raise PreprocessingError(f"dtype={pre.dtype} does not fit the model's input, which is {name}: leave it out")
    return name
