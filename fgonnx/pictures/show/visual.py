"""Pictures of explanations: a map in colours, a map over a photo, and a panel with the certificate."""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from fgonnx.errors import InputError, OptionError
from fgonnx.opencv import cv2
from fgonnx.pictures.show.sheet import FAINT, RGB, Certificate, Sheet, contained

COLORMAPS = {n: getattr(cv2, f"COLORMAP_{n.upper()}") for n in ("inferno", "viridis", "magma", "cividis", "turbo")}
"""Colour scales for maps without sign; all but turbo are perceptually uniform."""

# Lightness falls alike on both sides of white, and blue against red survives red-green blindness.
_DIVERGING = "#10346e #2c6eb4 #8ab8de #ffffff #f0a082 #c8373c #6e051e"


def heat(saliency: npt.ArrayLike, *, signed: bool = False, percentile: float = 99.5, colormap: str = "inferno") -> RGB:
    """Show a map in colours.

    Parameters
    ----------
    saliency : array-like, shape (h, w)
        Any finite numbers.
    signed : bool
        Blue below zero, white at zero, red above; otherwise from the least to the greatest value.
    percentile : float
        The values beyond this percentile (and, unsigned, below its mirror image) share the extreme colours, so that
        one hot pixel does not darken the rest. Above 50, up to 100.
    colormap : str
        A key of `COLORMAPS`, for maps without sign.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB pixels.

    Raises
    ------
    InputError
        The map is not two-dimensional, is empty, or holds NaN or infinity.
    OptionError
        The percentile or the colour scale does not exist.
    """
    return coloured(scaled(saliency, signed, percentile), signed, colormap)


def overlay(
    image: RGB,
    saliency: npt.ArrayLike,
    alpha: float = 0.85,
    *,
    signed: bool = False,
    percentile: float = 99.5,
    colormap: str = "inferno",
) -> RGB:
    """Lay a map over its picture; the stronger the map, the more it covers.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB pixels.
    saliency : array-like, shape (h, w)
        The map, stretched to the picture where the sizes differ.
    alpha : float
        Opacity where the map is strongest, 0 to 1; the photo shows through everywhere else.
    signed, percentile, colormap
        As for `heat`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB pixels.

    Raises
    ------
    InputError
        The picture or the map has a wrong shape or type, or the map holds NaN or infinity.
    OptionError
        Alpha, the percentile or the colour scale does not exist.
    """
    if not 0 <= alpha <= 1:
        raise OptionError(f"alpha is {alpha}: give an opacity from 0 (photo only) to 1")
    height, width = _checked_image(image).shape[:2]
    level = scaled(saliency, signed, percentile)
    if level.shape != (height, width):
        level = cast("npt.NDArray[np.float32]", cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR))
    return blend(image, level, alpha, signed=signed, colormap=colormap)


def blend(image: RGB, level: npt.NDArray[np.float32], alpha: float, *, signed: bool, colormap: str = "inferno") -> RGB:
    """Lay a map that is in colour-scale units already (see `scaled`) over a picture of its size."""
    colour = coloured(level, signed, colormap).astype(np.float32)
    # In proportion: more (a root) would lay a veil of the low end's colour over the parts that do not matter.
    opacity = alpha * np.abs(level)[:, :, None]
    photo = image.astype(np.float32)
    mixed: npt.NDArray[np.float32] = photo + opacity * (colour - photo)
    return np.rint(mixed).astype(np.uint8)


def panel(
    image: RGB,
    saliency: npt.ArrayLike,
    certificate: Certificate,
    *,
    signed: bool = False,
    height: int = 360,
) -> RGB:
    """Put photo, explanation and certificate side by side in one picture.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB pixels, any proportions.
    saliency : array-like, shape (h, w)
        The map over this picture.
    certificate : Certificate
        What is written to the right: title, statements, contributions.
    signed : bool
        The map has a sign.
    height : int
        Height of the result in pixels, at least 200; text and bars grow with it.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels; the width follows from the proportions of the photo.

    Raises
    ------
    InputError
        The picture or the map has a wrong shape or type, or a number is NaN or infinite.
    OptionError
        The height is too small.
    """
    certificate.checked(height)
    unit = height / 360
    margin, caption = round(14 * unit), round(22 * unit)
    room = height - 2 * margin - caption
    photo = contained(_checked_image(image), room)
    size = photo.shape
    explained = overlay(photo, saliency, signed=signed)

    # Narrow photos still need a column wide enough for caption and legend.
    column = max(size[1], round(165 * unit))
    sheet = Sheet(height, 3 * margin + 2 * column)
    top = margin + (room - size[0]) // 2
    for index, (picture, name) in enumerate(((photo, "picture"), (explained, "explanation"))):
        left = margin + index * (column + margin)
        sheet.place(picture, left + (column - size[1]) // 2, top)
        sheet.write(name, left / unit, 345, 10, FAINT)
    legend(sheet, (2 * margin + 2 * column) / unit, 336, column / unit, signed)
    return sheet.certified(certificate)


def legend(sheet: Sheet, right: float, top: float, room: float, signed: bool) -> None:
    """Draw the colour scale, with words at its ends, under the explanation."""
    low, high = ("against", "for") if signed else ("low", "high")
    width = min(60.0, room * 0.3)
    sheet.write(high, right, top + 9, 9, FAINT, right=True)
    right -= sheet.extent(high, 9) + 5
    sheet.box(right - width, top + 2, right, top + 9, _table(signed, "inferno")[None])
    sheet.write(low, right - width - 5, top + 9, 9, FAINT, right=True)


@cache
def _table(signed: bool, colormap: str) -> RGB:
    """Return 256 colours, (256, 3)."""
    if colormap not in COLORMAPS:
        raise OptionError(f"colormap '{colormap}' does not exist: choose one of {', '.join(COLORMAPS)}")
    if signed:
        colours = [ImageColor.getrgb(stop) for stop in _DIVERGING.split()]
        stops = np.linspace(0.0, 255.0, len(colours))
        channels = [np.interp(np.arange(256), stops, channel) for channel in zip(*colours, strict=True)]
        return np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap])
    return cast("RGB", bgr[:, 0, ::-1])


def coloured(level: npt.NDArray[np.float32], signed: bool, colormap: str) -> RGB:
    """Look colours up for a scaled map."""
    position = (level + 1.0) / 2.0 if signed else level
    return cast("RGB", _table(signed, colormap)[np.rint(position * 255.0).astype(np.intp)])


def scaled(saliency: npt.ArrayLike, signed: bool, percentile: float) -> npt.NDArray[np.float32]:
    """Bring a map to 0..1, or to -1..1 with its zero kept."""
    if not 50 < percentile <= 100:
        raise OptionError(f"percentile is {percentile}: give a number above 50, up to 100")
    values = np.asarray(saliency, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"a map to draw must have shape (h, w), got {values.shape}: take one sample, without channels")
    if not np.isfinite(values).all():
        raise InputError("the map to draw holds NaN or infinity: check the model's weights and its input")
    if signed:
        values = values / _span(np.abs(values), 0.0, percentile)
        return np.clip(values, -1.0, 1.0).astype(np.float32)
    low = float(np.percentile(values, 100.0 - percentile))
    return np.clip((values - low) / _span(values, low, percentile), 0.0, 1.0).astype(np.float32)


def _span(values: npt.NDArray[np.float64], low: float, percentile: float) -> float:
    """Return how far the values reach above low: to the percentile, to the maximum if they are rare, 1 if flat."""
    reach = float(np.percentile(values, percentile)) - low
    return reach if reach > 0 else float(values.max()) - low or 1.0


def _checked_image(image: RGB) -> RGB:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"a picture must be RGB, uint8 of shape (H, W, 3), got {got}: see Preprocessing.to_display")
    if image.size == 0:
        raise InputError(f"the picture has shape {image.shape}: it must hold at least one pixel")
    return image
