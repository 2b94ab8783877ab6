"""Pictures as the cell of a notebook shows them: one, or several small ones."""

from __future__ import annotations

import base64
import html

import numpy as np
import numpy.typing as npt

from fgonnx.opencv import cv2
from fgonnx.pictures.read.images import png

RGB = npt.NDArray[np.uint8]

_COLUMNS = 2
_THUMBNAIL = 160  # pixels, of one of several samples in a cell
_PLOTTED = 240  # the same of a plot, whose text is to be read


def plotted(plot: RGB) -> RGB:
    """Return a plot as one of several samples."""
    width = round(plot.shape[1] * _PLOTTED / plot.shape[0])
    return np.asarray(cv2.resize(plot, (width, _PLOTTED), interpolation=cv2.INTER_AREA), np.uint8)


def pair(photo: RGB, over: RGB) -> RGB:
    """Return a picture and its overlay side by side, as one of several samples."""
    both = np.concatenate([photo, over], axis=1)
    factor = _THUMBNAIL / over.shape[0]
    flag = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    size = (max(1, round(both.shape[1] * factor)), _THUMBNAIL)
    return np.asarray(cv2.resize(both, size, interpolation=flag), np.uint8)


def grid(pictures: list[RGB]) -> RGB:
    """Put pictures side by side and one below the other."""
    if len(pictures) == 1:
        return pictures[0]
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, p in enumerate(pictures):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + p.shape[0], x : x + p.shape[1]] = p
    if width * columns > 2400:
        factor = 2400 / (width * columns)
        sheet = np.asarray(cv2.resize(sheet, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    return sheet


def image(alt: str, picture: RGB, style: str) -> str:
    """Return an element of HTML that holds a picture."""
    data = base64.b64encode(png(picture)).decode()
    said = html.escape(alt)
    return f'<img alt="{said}" title="{said}" style="{style}" src="data:image/png;base64,{data}">'


def captioned(caption: str, alt: str, picture: RGB) -> str:
    """Return a picture with a line of text under it, as an element of HTML."""
    shown = image(alt, picture, "display:block")
    return f'<figure style="margin:0">{shown}<figcaption>{html.escape(caption)}</figcaption></figure>'
