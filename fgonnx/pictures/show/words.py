"""Texts whose words are shaded by what they add: as HTML and as a picture, and folded where they are long."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fgonnx.pictures.show import text as lettering
from fgonnx.pictures.show.sheet import FAINT, INK, NEGATIVE, PAPER, POSITIVE, RULE, Colour
from fgonnx.wording import amount, visible

RGB = npt.NDArray[np.uint8]

FEW = 40  # words of a text that is shown whole
_AROUND = 4  # words kept on both sides of one that matters
_MATTERS = 0.15  # of the largest, from which a word matters
_NO_FONT = "letters that no font on this machine has are written as \\u...; a font such as Noto Sans CJK has them"
_STRONGEST = 0.85  # opacity of the shade of the largest


@dataclass(frozen=True)
class Shaded:
    """A word of a text.

    Attributes
    ----------
    text : str
        Its characters.
    value : float
        What it adds.
    space : bool
        Whether a space is in front of it.
    special : bool
        Whether it is none of the text's, as a token that marks its end.
    part : int
        Which of several texts it is of.
    """

    text: str
    value: float
    space: bool = True
    special: bool = False
    part: int = 0


@dataclass(frozen=True)
class Gap:
    """Words that are folded away.

    Attributes
    ----------
    count : int
        How many.
    value : float
        What they add together.
    words : tuple of Shaded
        They themselves.
    """

    count: int
    value: float
    words: tuple[Shaded, ...]


def folded(words: Sequence[Shaded], few: int = FEW) -> list[Shaded | Gap]:
    """Return a text with what adds little folded away, where it has more than a few words.

    The beginning, the end and what lies around the words that matter stay.
    """
    if len(words) <= few:
        return list(words)
    largest = largest_of(words)
    keep = np.zeros(len(words), bool)
    keep[:_AROUND] = keep[-_AROUND:] = True
    order = sorted(range(len(words)), key=lambda i: -abs(words[i].value))
    for i in order[: max(1, few // (2 * _AROUND + 1))]:
        if abs(words[i].value) >= _MATTERS * largest:
            keep[max(0, i - _AROUND) : i + _AROUND + 1] = True
    found: list[Shaded | Gap] = []
    i = 0
    while i < len(words):
        stop = i
        while stop < len(words) and not keep[stop]:
            stop += 1
        if stop - i > 2:
            found.append(Gap(stop - i, sum(w.value for w in words[i:stop]), tuple(words[i:stop])))
        else:
            found += words[i:stop]
        if stop < len(words):
            found.append(words[stop])
        i = stop + 1
    return found


def largest_of(words: Sequence[Shaded]) -> float:
    """Return the largest amount that a word of the text itself adds; that of the special ones where it has none."""
    return max((abs(w.value) for w in words if not w.special), default=0.0) or max(
        (abs(w.value) for w in words), default=0.0
    )


def shade(value: float, largest: float) -> float:
    """Return the opacity of a word's shade, 0..1; with the sign of what it adds."""
    return float(np.clip(value / largest, -1, 1)) * _STRONGEST if largest else 0.0


def mixed(alpha: float) -> Colour:
    """Return the colour of a shade on paper: red for what adds, blue for what takes away."""
    return _mixed(POSITIVE if alpha > 0 else NEGATIVE, alpha)


def from_right(text: str) -> bool:
    """Tell whether a text is written from right to left: by its first character that has a direction."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in ("L", "R", "AL"):
            return kind != "L"
    return False


STYLE = """<style>
.fgonnx-text{font:16px/1.9 system-ui,"Noto Sans",sans-serif;max-width:60em;overflow-wrap:anywhere}
.fgonnx-text p,.fgonnx-text .t{margin:.3em 0;white-space:pre-wrap}
.fgonnx-text .w{unicode-bidi:isolate;border-radius:.25em;padding:.1em .12em;cursor:default}
.fgonnx-text .s{opacity:.6;font-size:80%}
.fgonnx-text summary{display:inline;cursor:pointer;opacity:.7}
.fgonnx-text details,.fgonnx-text details[open]::details-content{display:inline}
.fgonnx-text .h{font-weight:600}
.fgonnx-text .c{opacity:.75;font-size:85%}
</style>"""
"""The style of texts on a page."""


def as_html(
    words: Sequence[Shaded],
    title: str,
    lines: Sequence[str] = (),
    *,
    few: int = FEW,
    largest: float | None = None,
) -> str:
    """Return a text as HTML: shaded words with their numbers on hover, and what is said of them.

    Parameters
    ----------
    words : sequence of Shaded
        The words.
    title : str
        What is explained.
    lines : sequence of str
        The certificate and notes, one statement a line.
    few : int
        Words of a text that is shown whole.
    largest : float, optional
        What the strongest shade stands for; by default the largest amount of these words.
    """
    said = "".join(f'<p class="c">{html.escape(visible(line))}</p>' for line in lines)
    head = f'<p class="h" dir="auto">{html.escape(visible(title))}</p>'
    return f'{STYLE}<div class="fgonnx-text">{head}{_body(words, few, largest)}{said}</div>'


def without_title(words: Sequence[Shaded], *, few: int = FEW) -> str:
    """Return a text as HTML: shaded words with their numbers on hover, alone; `STYLE` goes with it."""
    return f'<div class="fgonnx-text">{_body(words, few)}</div>'


def _body(words: Sequence[Shaded], few: int, largest: float | None = None) -> str:
    largest = largest_of(words) if largest is None else largest
    body = []
    for part in sorted({w.part for w in words}):
        own = [w for w in words if w.part == part]
        shown = "".join(_html_of(item, largest, first=i == 0) for i, item in enumerate(folded(own, few)))
        turned = from_right(" ".join(w.text for w in own if not w.special))
        body.append(f'<div class="t" dir="{"rtl" if turned else "ltr"}">{shown}</div>')
    return "".join(body)


def _html_of(item: Shaded | Gap, largest: float, *, first: bool) -> str:
    if isinstance(item, Gap):
        inner = "".join(_html_of(w, largest, first=False) for w in item.words)
        adds = amount(item.value, signed=True)
        return f' <details><summary title="{adds}">[… {item.count} words …]</summary>{inner}</details>'
    adds = amount(item.value, signed=True)
    alpha = shade(item.value, largest)
    colour = POSITIVE if alpha > 0 else NEGATIVE
    style = f"background:rgba({colour[0]},{colour[1]},{colour[2]},{abs(alpha):.2f})"
    space = "" if first or not item.space else " "
    kind = "w s" if item.special else "w"
    return f'{space}<bdi class="{kind}" style="{style}" title="{adds}">{html.escape(in_sight(item.text))}</bdi>'


def in_sight(text: str) -> str:
    """Return a word with what cannot be seen written out: ends of lines, tabs, marks of the direction."""
    return visible(text.replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥"))


def page(bodies: Sequence[str], title: str) -> str:
    """Return a whole page of texts."""
    inner = "<hr>".join(bodies)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{html.escape(visible(title))}</title>'
        "<style>:root{color-scheme:light dark}"
        "body{margin:1.5em;font-family:system-ui,sans-serif;color:CanvasText;background:Canvas}</style></head>"
        f"<body>{inner}</body></html>\n"
    )


def drawn(
    words: Sequence[Shaded],
    title: str,
    lines: Sequence[str] = (),
    *,
    width: int = 900,
    few: int = FEW,
    largest: float | None = None,
) -> RGB:
    """Draw a text: shaded words with their numbers below those that matter, and what is said of them.

    Parameters
    ----------
    words : sequence of Shaded
        The words.
    title : str
        What is explained.
    lines : sequence of str
        The certificate and notes, one statement a line.
    width : int
        Width in pixels.
    few : int
        Words of a text that is shown whole.
    largest : float, optional
        What the strongest shade stands for; by default the largest amount of these words.

    Returns
    -------
    ndarray of uint8, (height, width, 3)
        RGB pixels.
    """
    size, margin, step = 17.0, 20, 44
    largest = largest_of(words) if largest is None else largest
    lines = [*lines, *([_NO_FONT] if any(_lacks_font(w.text) for w in words) else [])]
    rows: list[list[tuple[float, Shaded | Gap]]] = []
    for part in sorted({w.part for w in words}):
        rows += _rows(folded([w for w in words if w.part == part], few), width - 2 * margin, size)
    height = margin + 34 + step * len(rows) + 20 * len(lines) + margin
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    lettering.write(draw, _shortened(title, width - 2 * margin, 15.0), margin, margin + 14, 15.0, INK)
    draw.rectangle((margin, margin + 22, width - margin, margin + 22), fill=RULE)
    y = margin + 34
    for row in rows:
        turned = from_right("".join(item.text for _, item in row if isinstance(item, Shaded) and not item.special))
        x = float(width - margin if turned else margin)
        for advance, item in row:
            left = x - advance if turned else x
            _draw(draw, item, (left, y), _within(item, width - 2 * margin, size), size, largest)
            x += -advance if turned else advance
        y += step
    for line in lines:
        lettering.write(draw, _shortened(line, width - 2 * margin, 12.0), margin, y + 14, 12.0, FAINT)
        y += 20
    return np.array(image)


def _rows(items: Sequence[Shaded | Gap], room: float, size: float) -> list[list[tuple[float, Shaded | Gap]]]:
    """Break a text into rows that fit."""
    rows: list[list[tuple[float, Shaded | Gap]]] = [[]]
    used = 0.0
    for item in items:
        advance = lettering.extent(_within(item, room, size), _size_of(item, size)) + 9
        if used and used + advance > room:
            rows.append([])
            used = 0.0
        rows[-1].append((advance, item))
        used += advance
    return rows


def _label(item: Shaded | Gap) -> str:
    return f"[... {item.count} words ...]" if isinstance(item, Gap) else in_sight(item.text)


def _lacks_font(text: str) -> bool:
    """Tell whether letters of a text are written as their code points, as no font has them."""
    letters = "".join(c for c in text if c.isalnum())
    return lettering.readable(letters) != letters


def _within(item: Shaded | Gap, room: float, size: float) -> str:
    """Return what is written of an item, shortened where it is longer than a line."""
    return _shortened(_label(item), room - 9, _size_of(item, size))


def _size_of(item: Shaded | Gap, size: float) -> float:
    return 0.75 * size if isinstance(item, Gap) or item.special else size


def _draw(
    draw: ImageDraw.ImageDraw, item: Shaded | Gap, at: tuple[float, float], label: str, size: float, largest: float
) -> None:
    (x, y), own = at, _size_of(item, size)
    wide = lettering.extent(label, own)
    alpha = 0.0 if isinstance(item, Gap) else shade(item.value, largest)
    if alpha:
        draw.rounded_rectangle((x, y, x + wide + 6, y + 25), 4, fill=mixed(alpha))
    faint = isinstance(item, Gap) or item.special
    lettering.write(draw, label, x + 3, y + 18, own, FAINT if faint else INK)
    if isinstance(item, Shaded) and abs(alpha) >= _MATTERS * _STRONGEST:
        number = amount(item.value, signed=True)
        if (taken := lettering.extent(number, 9.5)) <= wide + 9:  # the word behind has its own
            lettering.write(draw, number, x + 3 + (wide - taken) / 2, y + 37, 9.5, FAINT)


def _mixed(colour: Colour, alpha: float) -> Colour:
    """Return a colour on paper; never so dark that text on it cannot be read."""
    share = 0.7 * abs(alpha)
    r, g, b = (round(p + (c - p) * share) for c, p in zip(colour, PAPER, strict=True))
    return r, g, b


def _shortened(text: str, width: float, size: float) -> str:
    text = lettering.readable(text)
    while lettering.extent(text, size) > width and len(text) > 4:
        text = f"{text[: max(1, int(len(text) * 0.9) - 3)]}..."
    return text
