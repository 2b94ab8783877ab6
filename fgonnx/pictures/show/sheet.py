"""Paper to draw on in the style of all pictures: text, boxes, and the certificate with its bars."""

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

PAPER: Colour = (255, 255, 255)
INK: Colour = (28, 32, 38)
FAINT: Colour = (118, 124, 134)
RULE: Colour = (222, 225, 230)
POSITIVE: Colour = (200, 62, 62)
NEGATIVE: Colour = (48, 112, 184)

PER_LAYER = "contribution per layer"
_TOP_BARS = 11  # the input and ten layers
_SUPERSAMPLING = 2
# OpenCV 5 draws these faces with a TrueType font, 4 with strokes that halve when the panel is scaled down.
_STROKE = 1 if int(cv2.__version__.split(".")[0]) >= 5 else _SUPERSAMPLING


class Sheet:
    """White paper to draw on, in units of 1/360 of the height; twice as fine as the result, for smooth edges."""

    def __init__(self, height: int, width: int, unit: float) -> None:
        self.height, self.width = height, width
        self.fine = unit * _SUPERSAMPLING
        self.pixels = np.full((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), PAPER, np.uint8)

    def finished(self) -> RGB:
        """Return the pixels in the size of the result."""
        return resized(self.pixels, (self.height, self.width))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour | RGB) -> None:
        """Fill a rectangle with a colour, or with a row of colours stretched over it."""
        x0, y0, x1, y1 = (round(v * self.fine) for v in (left, top, right, bottom))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        area = self.pixels[y0:y1, x0:x1]
        area[:] = resized(colour, area.shape[:2]) if isinstance(colour, np.ndarray) else colour

    def extent(self, text: str, size: float, bold: bool = False) -> float:
        """Return the width of a text."""
        face, scale = self._face(size, bold)
        (width, _), _ = cv2.getTextSize(text, face, scale, _STROKE)
        return float(width) / self.fine

    def write(
        self,
        text: str,
        x: float,
        y: float,
        size: float,
        colour: Colour = INK,
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


def checked(height: int, bars: Sequence[tuple[str, float]]) -> None:
    """Refuse what cannot be drawn: panels without room for text, contributions that are not numbers."""
    if height < 200:
        raise OptionError(f"height is {height}: the text of a panel needs 200 pixels or more")
    wrong = next((name for name, value in bars if not np.isfinite(value)), None)
    if wrong is not None:
        raise InputError(f"the contribution of '{wrong}' is NaN or infinite: look at the certificate before drawing it")


def finish(
    left: RGB, title: str, lines: Sequence[str], bars: Sequence[tuple[str, float]], caption: str = PER_LAYER
) -> RGB:
    """Put title, statements and bars to the right of a picture, in a panel of its height."""
    height = left.shape[0]
    unit = height / 360
    sheet = Sheet(height, round(430 * unit), unit)
    certificate(sheet, title, lines, bars, caption)
    margin = np.full((height, round(14 * unit), 3), PAPER, np.uint8)
    return np.concatenate([left, sheet.finished(), margin], axis=1)


def certificate(
    sheet: Sheet, title: str, lines: Sequence[str], bars: Sequence[tuple[str, float]], caption: str = PER_LAYER
) -> None:
    """Draw title, statements and bars from the top down."""
    full, bottom = sheet.width / (sheet.fine / _SUPERSAMPLING), 360 - 14
    y = 30.0
    sheet.write(sheet.fitted(title, full, 16, bold=True), 0, y, 16, bold=True)
    y += 8
    sheet.box(0, y, full, y + 1, RULE)
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
    sheet.write(caption, 0, y, 11, FAINT)
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


def _bars(sheet: Sheet, bars: Sequence[tuple[str, float]], top: float, step: float, full: float) -> None:
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
            sheet.box(ends[0], y + step * 0.16, ends[1], y + step * 0.84, POSITIVE if value > 0 else NEGATIVE)
        sheet.write(number, full, baseline, size, right=True)
    sheet.box(zero - 0.25, top, zero + 0.25, top + step * len(bars), FAINT)


def _alike(values: Sequence[float]) -> list[str]:
    """Write numbers with the same decimals, four digits for the largest, so that they compare at a glance."""
    largest = max(abs(value) for value in values)
    exponent = math.floor(math.log10(largest)) if largest else 0
    form = f"+.{max(0, 3 - exponent)}f" if -3 <= exponent <= 6 else "+.2e"
    return [format(value, form) for value in values]


def resized(image: RGB, size: tuple[int, int]) -> RGB:
    """Return a picture in another size (height, width)."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    flag = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast("RGB", cv2.resize(image, (size[1], size[0]), interpolation=flag))
