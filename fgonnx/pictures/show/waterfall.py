"""A waterfall: the score of a row of a table, from zero over its biases and features, one bar after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgonnx.errors import InputError
from fgonnx.pictures.show.sheet import FAINT, INK, NEGATIVE, POSITIVE, RGB, RULE, Certificate, Sheet
from fgonnx.wording import amount

BIASES = "biases of the network"
OTHERS = "{} other features"
MOST = 12
"""Features that are drawn, the largest; the others are one bar."""

_NAMES, _WIDTH, _MARGIN, _BELOW = 190, 400, 14, 34  # in units of 1/360 of the height


@dataclass(frozen=True)
class Row:
    """One bar.

    Attributes
    ----------
    name : str
        What adds to the score.
    value : str
        The value of the feature, "" where there is none.
    amount : float
        What it adds.
    """

    name: str
    value: str
    amount: float


def rows(
    names: Sequence[str], values: Sequence[str], contributions: Sequence[float], biases: float, most: int = MOST
) -> list[Row]:
    """Return the bars in the order in which they are drawn: the biases, then features, the largest first."""
    order = sorted(range(len(names)), key=lambda i: -abs(contributions[i]))
    kept = order if len(order) <= most + 1 else order[:most]
    found = [Row(BIASES, "", biases), *(Row(names[i], values[i], float(contributions[i])) for i in kept)]
    if len(kept) < len(order):
        rest = float(sum(contributions[i] for i in order[most:]))
        found.append(Row(OTHERS.format(len(order) - len(kept)), "", rest))
    return found


def draw(
    bars: Sequence[Row], score: float, certificate: Certificate, *, total: str = "score", height: int = 480
) -> RGB:
    """Draw the bars of one row, and the certificate beside them.

    Parameters
    ----------
    bars : sequence of Row
        As `rows` returns them; they add up to the score.
    score : float
        The score.
    certificate
        As for `fgonnx.pictures.show.visual.panel`.
    total : str
        What the sum is called.
    height
        As for `fgonnx.pictures.show.visual.panel`.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels; of fewer rows where a few bars need less.

    Raises
    ------
    InputError
        There is no bar, or a number is NaN or infinite.
    OptionError
        The height is too small.
    """
    certificate.checked(height)
    amounts = np.array([b.amount for b in bars], np.float64)
    if not len(amounts) or not np.isfinite([*amounts, score]).all():
        raise InputError("there is nothing to draw, or a contribution is NaN or infinite: look at the certificate")
    sheet = Sheet(height, round((_NAMES + _WIDTH + 2 * _MARGIN) * height / 360))
    left, right = float(_MARGIN + _NAMES), float(_MARGIN + _NAMES + _WIDTH)
    ends = np.concatenate([[0.0], np.cumsum(amounts)])
    low, high = min(float(ends.min()), score), max(float(ends.max()), score)
    room = right - left - 2 * 44  # numbers stand beside their bars
    scale = room / ((high - low) or 1.0)

    def at(value: float) -> float:
        return left + 44 + (value - low) * scale

    sheet.write("what adds to the score, from 0 to its value", left, 24, 10, FAINT)
    top, bottom = 34.0, 326.0
    step = min(26.0, (bottom - top) / (len(bars) + 1))
    size = min(10.0, step * 0.66)
    sheet.box(at(0.0) - 0.25, top, at(0.0) + 0.25, top + step * (len(bars) + 1), RULE)
    for i, bar in enumerate(bars):
        y0, y1 = top + i * step + step * 0.14, top + (i + 1) * step - step * 0.14
        line = (y0 + y1) / 2 + size * 0.36
        shown = f"{bar.name} = {bar.value}" if bar.value else bar.name
        sheet.write(sheet.fitted(shown, _NAMES - 8, size), left - 8, line, size, INK, right=True)
        x0, x1 = sorted((at(ends[i]), at(ends[i + 1])))
        sheet.box(x0, y0, max(x1, x0 + 0.8), y1, POSITIVE if bar.amount > 0 else NEGATIVE)
        sheet.box(at(ends[i + 1]) - 0.25, y1, at(ends[i + 1]) + 0.25, y1 + step * 0.28, FAINT)
        number = amount(bar.amount, signed=True)
        if bar.amount > 0:
            sheet.write(number, x1 + 4, line, size)
        else:
            sheet.write(number, x0 - 4, line, size, right=True)
    line = top + (len(bars) + 0.5) * step + size * 0.36
    sheet.write(total, left - 8, line, size, INK, right=True)
    sheet.box(at(score) - 1, top + len(bars) * step, at(score) + 1, top + (len(bars) + 1) * step, INK)
    sheet.write(amount(score), at(score) + 5, line, size)
    drawn = sheet.certified(certificate)
    return drawn[: round((sheet.lowest + _BELOW) * sheet.unit)]
