"""Text in any script: a font of its own for Latin, Greek and Cyrillic, the system's for the rest, else code points."""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

FONT = Path(__file__).with_name("DejaVuSansCondensed.ttf")
_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    *(r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"),
)
_NOT_REGULAR = re.compile("bold|black|heavy|light|thin|italic|oblique|condensed|mono|serif|lastresort", re.IGNORECASE)
_NO_CHARACTER = "\U0010ffff"  # every font draws its sign for missing glyphs
_JOINERS = "\u200c\u200d"


def readable(text: str) -> str:
    """Return a text as it is drawn: on one line, with code points for what cannot be drawn (controls, lone surrogates).

    Examples
    --------
    >>> readable("cat\\n\\x07 \\udc80")
    'cat \\\\x07 \\\\udc80'
    """
    return "".join(run for _, run in _runs(text))


def extent(text: str, size: float) -> float:
    """Return the width of a text; the size of the font and the result are in pixels."""
    return sum(_font(path, size).getlength(run) for path, run in _runs(text))


def write(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, size: float, colour: tuple[int, int, int]) -> None:
    """Write a text with its baseline at y, beginning at x."""
    for path, run in _runs(text):
        draw.text((x, y), run, fill=colour, font=_font(path, size), anchor="ls")
        x += _font(path, size).getlength(run)


@lru_cache(4096)
def _runs(text: str) -> tuple[tuple[Path, str], ...]:
    """Cut a text where its font changes."""
    runs: list[tuple[Path, str]] = []
    for char in unicodedata.normalize("NFC", " ".join(text.split())):
        last = runs[-1][0] if runs else FONT
        # Spaces, marks and joiners stay with their word: scripts written from right to left are shaped as a whole.
        joined = last != FONT and (char in _JOINERS or unicodedata.combining(char))
        path = last if char == " " or joined else _source(char)
        run = char if path else char.encode("unicode_escape").decode()
        if runs and last == (path or FONT):
            run = runs.pop()[1] + run
        runs.append((path or FONT, run))
    return tuple(runs)


@cache
def _source(char: str) -> Path | None:
    """Return the first font that has a glyph for a character."""
    if not char.isprintable():
        return None
    return next((path for path in (FONT, *_system_fonts()) if _has(path, char)), None)


@cache
def _system_fonts() -> tuple[Path, ...]:
    """List the fonts of the system: regular ones first, and of these the largest, which have the most scripts."""
    folders = (Path(os.path.expandvars(folder)).expanduser() for folder in _FOLDERS)
    files = {
        path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".ttc", ".otf")
    }
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    return tuple(sorted(sizes, key=lambda path: (bool(_NOT_REGULAR.search(path.stem)), -sizes[path], path)))


def _has(path: Path, char: str) -> bool:
    try:
        font = ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC)
        glyph, missing = font.getmask(char), font.getmask(_NO_CHARACTER)
    except OSError:  # not a font, or one of bitmaps in other sizes
        return False
    return glyph.getbbox() is not None and bytes(glyph) != bytes(missing)


@lru_cache(64)
def _font(path: Path, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
