"""The picture of a comparison: photo, both maps, where they differ, and in words and bars by how much."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgonnx.opencv import cv2
from fgonnx.pictures.show.sheet import FAINT, NEGATIVE, POSITIVE, RGB, Certificate, Sheet, contained
from fgonnx.pictures.show.visual import overlay, scaled

PERCENTILE = 99.5


def draw(
    image: RGB,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    certificate: Certificate,
    *,
    names: tuple[str, str] = ("A", "B"),
    signed: bool = False,
    height: int = 720,
) -> RGB:
    """Draw photo and difference above, the maps of both models below, and to the right what was measured.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB pixels.
    a, b : array-like, shape (h, w)
        The maps, of one size.
    certificate : Certificate
        What is written to the right: what was measured, and what every stretch of layers adds.
    names : pair of str
        What the models are called.
    signed : bool
        The maps have a sign.
    height : int
        Height of the result in pixels, at least 200.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels.

    Raises
    ------
    InputError
        A map has a wrong shape, or a number is NaN or infinite.
    OptionError
        The height is too small.
    """
    certificate.checked(height)
    unit = height / 360
    margin, caption = round(10 * unit), round(16 * unit)
    room = (height - 3 * margin - 2 * caption) // 2
    photo = contained(image, room)
    size = photo.shape
    column = max(size[1], round(110 * unit))
    sheet = Sheet(height, 3 * margin + 2 * column)
    cells = (
        (photo, "picture"),
        (difference(photo, a, b, signed=signed), "difference: more in A blue, in B red"),
        (overlay(photo, a, signed=signed), f"A: {names[0]}"),
        (overlay(photo, b, signed=signed), f"B: {names[1]}"),
    )
    for i, (picture, name) in enumerate(cells):
        top = margin + (i // 2) * (room + caption + margin)
        left = margin + (i % 2) * (column + margin)
        sheet.place(picture, left + (column - size[1]) // 2, top + (room - size[0]) // 2)
        sheet.write(sheet.fitted(name, column / unit, 8), left / unit, (top + room) / unit + 11, 8, FAINT)
    return sheet.certified(certificate, caption="score B - score A, by layer")


def difference(photo: RGB, a: npt.ArrayLike, b: npt.ArrayLike, *, signed: bool = False) -> RGB:
    """Lay what two maps differ by over a faded photo: blue where A has more, red where B has.

    Both are brought to the colour scale first, as they are drawn themselves, and the scale of the difference is fixed:
    equal maps leave the photo as it is, and the colour is full where half of the scale lies between the maps.
    """
    levels = [
        cv2.resize(scaled(m, signed, PERCENTILE), (photo.shape[1], photo.shape[0]), interpolation=cv2.INTER_LINEAR)
        for m in (a, b)
    ]
    apart = np.asarray((levels[1] - levels[0]) / (2.0 if signed else 1.0), np.float32)[:, :, None]
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded = 150.0 + 0.41 * grey[:, :, None]
    colour = np.where(apart > 0, np.array(POSITIVE, np.float32), np.array(NEGATIVE, np.float32))
    return np.rint(faded + np.minimum(2.0 * np.abs(apart), 1.0) * (colour - faded)).astype(np.uint8)
