"""Paper to draw on in the style of all pictures: pictures, text, areas, and the certificate with its bars."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fgonnx.errors import InputError, OptionError
from fgonnx.opencv import cv2
from fgonnx.pictures.show import text as lettering

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
_CERTIFICATE = 430  # width
_DRAWN = 1000  # characters of a text that is shortened to its place


@dataclass(frozen=True)
class Certificate:
    """What is written to the right of pictures.

    Attributes
    ----------
    title : str
        Such as file, predicted label and score; text that is too long is shortened.
    lines : sequence of str
        What the certificate says, one statement a line.
    bars : sequence of (str, float)
        Contribution of the input and of every layer, in the order of the network. The first and the ten largest of
        the others are drawn, fewer where the lines take the room; the rest is one bar, so that nothing is lost.
    """

    title: str
    lines: Sequence[str] = ()
    bars: Sequence[tuple[str, float]] = ()

    def checked(self, height: int) -> None:
        """Refuse what cannot be drawn: too little room for text, contributions that are not numbers.

        Raises
        ------
        OptionError
            The height is below 200 pixels.
        InputError
            A contribution is NaN or infinite.
        """
        if height < 200:
            raise OptionError(f"height is {height}: the text of a panel needs 200 pixels or more")
        wrong = next((name for name, value in self.bars if not np.isfinite(value)), None)
        if wrong is not None:
            raise InputError(
                f"the contribution of '{wrong}' is NaN or infinite: look at the certificate before drawing it"
            )


class Sheet:
    """White paper in units of 1/360 of its height: room for pictures, in pixels, and the certificate to their right."""

    def __init__(self, height: int, room: int) -> None:
        self.unit, self.room = height / 360, room
        self.lowest = 0.0
        self.image = Image.new("RGB", (room + round(_CERTIFICATE * self.unit) + round(14 * self.unit), height), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def place(self, picture: RGB, left: int, top: int) -> None:
        """Put a picture on the paper; the place is in pixels."""
        self.image.paste(Image.fromarray(picture), (left, top))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour | RGB) -> None:
        """Fill a rectangle with a colour, or with a picture stretched over it."""
        x0, y0, x1, y1 = (round(v * self.unit) for v in (left, top, right, bottom))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        self.lowest = max(self.lowest, bottom)
        if isinstance(colour, np.ndarray):
            self.place(resized(colour, (y1 - y0, x1 - x0)), x0, y0)
        else:
            self.image.paste(colour, (x0, y0, x1, y1))

    def area(self, left: float, upper: npt.NDArray[np.float64], lower: npt.NDArray[np.float64], colour: Colour) -> None:
        """Fill what lies between two edges, given for every column of pixels; the rows at the edges in proportion."""
        upper, lower = upper * self.unit, lower * self.unit
        top = math.floor(upper.min())
        rows = np.arange(top, max(top + 1, math.ceil(lower.max())))[:, None]
        cover = np.clip(np.minimum(lower, rows + 1) - np.maximum(upper, rows), 0, 1)
        mask = Image.fromarray(np.rint(255 * cover).astype(np.uint8))
        self.image.paste(colour, (round(left * self.unit), top), mask)

    def extent(self, text: str, size: float) -> float:
        """Return the width of a text."""
        return lettering.extent(text, size * self.unit) / self.unit

    def write(self, text: str, x: float, y: float, size: float, colour: Colour = INK, *, right: bool = False) -> None:
        """Write one line with its baseline at y, beginning (or, with right, ending) at x."""
        x -= self.extent(text, size) if right else 0
        self.lowest = max(self.lowest, y)
        lettering.write(self._draw, text, x * self.unit, round(y * self.unit), size * self.unit, colour)

    def fitted(self, text: str, width: float, size: float, *, head: float = 0.5) -> str:
        """Take characters out until the text fits; `head` is the share of those kept that begin the text."""
        text = lettering.readable(_ends(text, head))
        if self.extent(text, size) <= width:
            return text

        def kept(count: int) -> str:
            first = round(count * head)
            return f"{text[:first]}...{text[len(text) - (count - first) :]}"

        return kept(bisect.bisect_right(range(1, len(text)), width, key=lambda n: self.extent(kept(n), size)))

    def certified(self, certificate: Certificate, caption: str = PER_LAYER) -> RGB:
        """Write a certificate to the right of the pictures, from the top down; return the pixels."""
        lines, bars = certificate.lines, certificate.bars
        left, bottom = self.room / self.unit, 360 - 14
        y = 30.0
        self.write(self.fitted(certificate.title, _CERTIFICATE, 15), left, y, 15)
        y += 8
        self.box(left, y, left + _CERTIFICATE, y + 1, RULE)
        y += 6
        fitting = int((bottom - y) // 17)
        if len(lines) > fitting:
            lines = [*lines[: fitting - 1], f"... and {len(lines) - fitting + 1} more lines"]
        for line in lines:
            y += 17
            self.write(self.fitted(line, _CERTIFICATE, 11), left, y, 11)
        y += 22
        rows = min(_TOP_BARS + 1, int((bottom - y - 8) // 13))
        if bars and rows > 0:
            self.write(caption, left, y, 10, FAINT)
            y += 8
            shown = _selected(bars, rows)
            _bars(self, shown, y, min(19.0, (bottom - y) / len(shown)))
        return np.array(self.image)


def _ends(text: str, head: float) -> str:
    """Return the ends of a text of more characters than fit into any picture: measuring them all takes long."""
    if len(text) <= _DRAWN:
        return text
    first = round(_DRAWN * head)
    return f"{text[:first]}...{text[len(text) - (_DRAWN - first) :]}"


def _selected(bars: Sequence[tuple[str, float]], rows: int) -> list[tuple[str, float]]:
    """Keep the first bar and the largest of the others in their order; sum the rest in a bar of its own."""
    if len(bars) <= rows:
        return list(bars)
    others = sorted(range(1, len(bars)), key=lambda i: -abs(bars[i][1]))
    kept = {0, *others[: rows - 2]} if rows > 1 else set[int]()
    rest = sum(value for i, (_, value) in enumerate(bars) if i not in kept)
    return [bars[i] for i in sorted(kept)] + [(f"{len(bars) - len(kept)} others", rest)]


def _bars(sheet: Sheet, bars: Sequence[tuple[str, float]], top: float, step: float) -> None:
    """Draw one horizontal bar a row around a common zero: name, bar, number."""
    size = min(10.0, step * 0.72)
    start = sheet.room / sheet.unit
    end = start + _CERTIFICATE
    numbers = _alike([value for _, value in bars])
    right = end - max(sheet.extent(number, size) for number in numbers) - 8
    names = min(max(sheet.extent(name, size) for name, _ in bars), 0.4 * _CERTIFICATE)
    left = start + names + 8
    low, high = min(0.0, *(value for _, value in bars)), max(0.0, *(value for _, value in bars))
    per_unit = (right - left) / ((high - low) or 1.0)
    zero = left - low * per_unit
    written = _told_apart(sheet, [name for name, _ in bars], names, size)
    for row, (name, (_, value), number) in enumerate(zip(written, bars, numbers, strict=True)):
        y = top + row * step
        baseline = y + step / 2 + size * 0.36
        sheet.write(name, start, baseline, size)
        ends = sorted((zero, zero + value * per_unit))
        if value:
            sheet.box(ends[0], y + step * 0.16, ends[1], y + step * 0.84, POSITIVE if value > 0 else NEGATIVE)
        sheet.write(number, end, baseline, size, right=True)
    sheet.box(zero - 0.25, top, zero + 0.25, top + step * len(bars), FAINT)


def _told_apart(sheet: Sheet, names: Sequence[str], width: float, size: float) -> list[str]:
    """Shorten names of layers to a width; they begin alike and mostly differ towards their end."""
    found = [sheet.fitted(name, width, size, head=0) for name in names]
    for head in (0.3, 0.5, 0.7, 1.0):
        often = Counter(found)
        found = [
            short if often[short] == 1 else sheet.fitted(name, width, size, head=head)
            for short, name in zip(found, names, strict=True)
        ]
    return found


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


def contained(image: RGB, room: int) -> RGB:
    """Return a picture as large as its room allows: in height, or 1.6 times that in width, for panoramas."""
    factor = min(room / image.shape[0], 1.6 * room / image.shape[1])
    return resized(image, (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))))
