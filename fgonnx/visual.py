"""Pictures of explanations: a map in colours, a map over a photo, and the panel with the certificate beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, OptionError

RGB = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

COLORMAPS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "magma": cv2.COLORMAP_MAGMA,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}
"""Colour scales for maps without sign; all but turbo are perceptually uniform."""

# Lightness falls alike on both sides of white, and blue against red survives red-green blindness.
_DIVERGING = (
    (16, 52, 110),
    (44, 110, 180),
    (138, 184, 222),
    (255, 255, 255),
    (240, 160, 130),
    (200, 55, 60),
    (110, 5, 30),
)

_PAPER: Colour = (255, 255, 255)
_INK: Colour = (28, 32, 38)
_FAINT: Colour = (118, 124, 134)
_RULE: Colour = (222, 225, 230)
_POSITIVE: Colour = (200, 62, 62)
_NEGATIVE: Colour = (48, 112, 184)

_TOP_BARS = 11  # the input and ten layers
_SUPERSAMPLING = 2
# OpenCV 5 draws these faces with a TrueType font, 4 with strokes that halve when the panel is scaled down.
_STROKE = 1 if int(cv2.__version__.split(".")[0]) >= 5 else _SUPERSAMPLING


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
    return _coloured(_scaled(saliency, signed, percentile), signed, colormap)


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
    level = _scaled(saliency, signed, percentile)
    if level.shape != (height, width):
        level = cast("npt.NDArray[np.float32]", cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR))
    colour = _coloured(level, signed, colormap).astype(np.float32)
    # In proportion: more (a root) would lay a veil of the low end's colour over the parts that do not matter.
    opacity = alpha * np.abs(level)[:, :, None]
    photo = image.astype(np.float32)
    mixed: npt.NDArray[np.float32] = photo + opacity * (colour - photo)
    return np.rint(mixed).astype(np.uint8)


def panel(
    image: RGB,
    saliency: npt.ArrayLike,
    *,
    title: str,
    lines: Sequence[str] = (),
    bars: Sequence[tuple[str, float]] = (),
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
    title : str
        Such as file, predicted label and score; text that is too long is shortened.
    lines : sequence of str
        What the certificate says, one statement a line.
    bars : sequence of (str, float)
        Contribution of the input and of every layer, in the order of the network. The first and the ten largest of
        the others are drawn, fewer where the lines take the room; the rest is one bar, so that nothing is lost.
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
    if height < 200:
        raise OptionError(f"height is {height}: the text of a panel needs 200 pixels or more")
    wrong = next((name for name, value in bars if not np.isfinite(value)), None)
    if wrong is not None:
        raise InputError(f"the contribution of '{wrong}' is NaN or infinite: look at the certificate before drawing it")
    height_photo, width_photo = _checked_image(image).shape[:2]
    unit = height / 360
    margin, caption = round(14 * unit), round(22 * unit)
    room = height - 2 * margin - caption
    # Panoramas must not push the certificate out of sight: 1.6 times the room is the widest photo.
    factor = min(room / height_photo, 1.6 * room / width_photo)
    size = max(1, round(height_photo * factor)), max(1, round(width_photo * factor))
    photo = _resized(image, size)
    explained = overlay(photo, saliency, signed=signed)

    # Narrow photos still need a column wide enough for caption and legend.
    column = max(size[1], round(165 * unit))
    sheet_width = round(430 * unit)
    out = np.full((height, 4 * margin + 2 * column + sheet_width, 3), _PAPER, np.uint8)
    top = margin + (room - size[0]) // 2
    for index, picture in enumerate((photo, explained)):
        left = margin + index * (column + margin) + (column - size[1]) // 2
        out[top : top + size[0], left : left + size[1]] = picture

    text = _Sheet(height, 2 * column + 2 * margin, unit)
    for index, name in enumerate(("picture", "explanation")):
        text.write(name, (margin + index * (column + margin)) / unit, height / unit - 15, 11, _FAINT)
    _legend(text, (2 * margin + 2 * column) / unit, height / unit - 24, column / unit, signed)
    below = margin + room
    out[below:, : text.width] = text.finished()[below:]

    sheet = _Sheet(height, sheet_width, unit)
    _certificate(sheet, title, lines, bars)
    out[:, -sheet_width - margin : -margin] = sheet.finished()
    return out


class _Sheet:
    """White paper to draw on, in units of 1/360 of the height; twice as fine as the result, for smooth edges."""

    def __init__(self, height: int, width: int, unit: float) -> None:
        self.height, self.width = height, width
        self.fine = unit * _SUPERSAMPLING
        self.pixels = np.full((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), _PAPER, np.uint8)

    def finished(self) -> RGB:
        return _resized(self.pixels, (self.height, self.width))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour | RGB) -> None:
        """Fill a rectangle with a colour, or with a row of colours stretched over it."""
        x0, y0, x1, y1 = (round(v * self.fine) for v in (left, top, right, bottom))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        area = self.pixels[y0:y1, x0:x1]
        area[:] = _resized(colour, area.shape[:2]) if isinstance(colour, np.ndarray) else colour

    def extent(self, text: str, size: float, bold: bool = False) -> float:
        face, scale = self._face(size, bold)
        (width, _), _ = cv2.getTextSize(text, face, scale, _STROKE)
        return float(width) / self.fine

    def write(
        self,
        text: str,
        x: float,
        y: float,
        size: float,
        colour: Colour = _INK,
        *,
        bold: bool = False,
        right: bool = False,
    ) -> None:
        """Write one line with its baseline at y, beginning (or, with right, ending) at x."""
        face, scale = self._face(size, bold)
        x -= self.extent(text, size, bold) if right else 0
        place = (round(x * self.fine), round(y * self.fine))
        cv2.putText(self.pixels, text, place, face, scale, colour, _STROKE, cv2.LINE_AA)

    def fitted(self, text: str, width: float, size: float, *, bold: bool = False, head: float = 0.5) -> str:
        """Take characters out until the text fits; `head` is the share of those kept that begin the text."""
        text = " ".join(text.split())
        short = text
        for keep in range(len(text) - 1, 0, -1):
            if self.extent(short, size, bold) <= width:
                break
            first = round(keep * head)
            short = f"{text[:first]}...{text[len(text) - (keep - first) :]}"
        return short

    def _face(self, size: float, bold: bool) -> tuple[int, float]:
        # At scale 1 the capitals of these faces are 22 pixels high, 0.72 of the nominal size.
        return (cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX), size * self.fine * 0.72 / 22


def _legend(sheet: _Sheet, right: float, top: float, room: float, signed: bool) -> None:
    """Draw the colour scale, with words at its ends, under the explanation."""
    low, high = ("against", "for") if signed else ("low", "high")
    width = min(60.0, room * 0.3)
    sheet.write(high, right, top + 9, 10, _FAINT, right=True)
    right -= sheet.extent(high, 10) + 5
    sheet.box(right - width, top + 2, right, top + 9, _table(signed, "inferno")[None])
    sheet.write(low, right - width - 5, top + 9, 10, _FAINT, right=True)


def _certificate(sheet: _Sheet, title: str, lines: Sequence[str], bars: Sequence[tuple[str, float]]) -> None:
    """Draw title, statements and bars from the top down."""
    full, bottom = sheet.width / (sheet.fine / _SUPERSAMPLING), 360 - 14
    y = 30.0
    sheet.write(sheet.fitted(title, full, 16, bold=True), 0, y, 16, bold=True)
    y += 8
    sheet.box(0, y, full, y + 1, _RULE)
    y += 6
    fitting = int((bottom - y) // 17)
    if len(lines) > fitting:
        lines = [*lines[: fitting - 1], f"... and {len(lines) - fitting + 1} more lines"]
    for line in lines:
        y += 17
        sheet.write(sheet.fitted(line, full, 12), 0, y, 12)
    y += 22
    rows = min(_TOP_BARS + 1, int((bottom - y - 8) // 13))
    if not bars or rows < 1:
        return
    sheet.write("contribution per layer", 0, y, 11, _FAINT)
    y += 8
    shown = _selected(bars, rows)
    step = min(19.0, (bottom - y) / len(shown))
    _bars(sheet, shown, y, step, full)


def _selected(bars: Sequence[tuple[str, float]], rows: int) -> list[tuple[str, float]]:
    """Keep the first bar and the largest of the others in their order; sum the rest in a bar of its own."""
    if len(bars) <= rows:
        return list(bars)
    others = sorted(range(1, len(bars)), key=lambda i: -abs(bars[i][1]))
    kept = {0, *others[: rows - 2]} if rows > 1 else set[int]()
    rest = sum(value for i, (_, value) in enumerate(bars) if i not in kept)
    return [bars[i] for i in sorted(kept)] + [(f"{len(bars) - len(kept)} others", rest)]


def _bars(sheet: _Sheet, bars: Sequence[tuple[str, float]], top: float, step: float, full: float) -> None:
    """Draw one horizontal bar a row around a common zero: name, bar, number."""
    size = min(11.0, step * 0.78)
    numbers = _alike([value for _, value in bars])
    right = full - max(sheet.extent(number, size) for number in numbers) - 8
    left = min(max(sheet.extent(name, size) for name, _ in bars) + 8, full * 0.42)
    low, high = min(0.0, *(value for _, value in bars)), max(0.0, *(value for _, value in bars))
    per_unit = (right - left) / ((high - low) or 1.0)
    zero = left - low * per_unit
    for row, ((name, value), number) in enumerate(zip(bars, numbers, strict=True)):
        y = top + row * step
        baseline = y + step / 2 + size * 0.36
        # Layer names begin alike and differ towards their end.
        sheet.write(sheet.fitted(name, left - 8, size, head=0), 0, baseline, size)
        ends = sorted((zero, zero + value * per_unit))
        if value:
            sheet.box(ends[0], y + step * 0.16, ends[1], y + step * 0.84, _POSITIVE if value > 0 else _NEGATIVE)
        sheet.write(number, full, baseline, size, right=True)
    sheet.box(zero - 0.25, top, zero + 0.25, top + step * len(bars), _FAINT)


def _alike(values: Sequence[float]) -> list[str]:
    """Write numbers with the same decimals, four digits for the largest, so that they compare at a glance."""
    largest = max(abs(value) for value in values)
    exponent = math.floor(math.log10(largest)) if largest else 0
    form = f"+.{max(0, 3 - exponent)}f" if -3 <= exponent <= 6 else "+.2e"
    return [format(value, form) for value in values]


def _table(signed: bool, colormap: str) -> RGB:
    """Return 256 colours, (256, 3)."""
    if colormap not in COLORMAPS:
        raise OptionError(f"colormap '{colormap}' does not exist: choose one of {', '.join(COLORMAPS)}")
    if signed:
        stops = np.linspace(0.0, 255.0, len(_DIVERGING))
        channels = [np.interp(np.arange(256), stops, channel) for channel in zip(*_DIVERGING, strict=True)]
        return cast("RGB", np.rint(np.stack(channels, axis=1)).astype(np.uint8))
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap])
    return cast("RGB", bgr[:, 0, ::-1])


def _coloured(level: npt.NDArray[np.float32], signed: bool, colormap: str) -> RGB:
    """Look colours up for a scaled map."""
    position = (level + 1.0) / 2.0 if signed else level
    return cast("RGB", _table(signed, colormap)[np.rint(position * 255.0).astype(np.intp)])


def _scaled(saliency: npt.ArrayLike, signed: bool, percentile: float) -> npt.NDArray[np.float32]:
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


def _resized(image: RGB, size: tuple[int, int]) -> RGB:
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    flag = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast("RGB", cv2.resize(image, (size[1], size[0]), interpolation=flag))
