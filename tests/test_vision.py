"""Colours that carry meaning stay apart for eyes with each deficiency of colour vision, and are read on their ground.

Mokrzycki and Tatol ("Colour difference Delta E - a survey", Machine Graphics & Vision 20(4), 2011) put at 5 the
difference from which on an observer sees two colours; pairs that mean opposite things are held to three times that,
in CIEDE2000. Text and its ground are held to the contrast of WCAG 2.2 (1.4.3), marks and theirs to 1.4.11.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageColor

from benchmarks import vision
from fgonnx.audit.evaluate import figures
from fgonnx.interactive import figure
from fgonnx.pictures.show import visual, words
from fgonnx.pictures.show.sheet import FAINT, INK, NEGATIVE, PAPER, POSITIVE
from tests import skips

colour = skips.without("skimage.color")

SHOW = Path(visual.__file__).parent
BASE = (SHOW / "base.html").read_text(encoding="utf-8")
VIEW = (SHOW.parents[1] / "view" / "page" / "style.css").read_text(encoding="utf-8")
SEEN, APART, TEXT, MARK = 5.0, 15.0, 4.5, 3.0
EYES = (None, *vision.DEFICIENCIES)


def variables(style: str) -> list[dict[str, str]]:
    """The colours of every `:root` of a style, in its order; what a later one leaves out is that of the first."""
    found = [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", style)]
    return [{**found[0], **one} for one in found]


PAGES = dict(zip(("light", "dark", "printed"), variables(BASE), strict=True))
VIEWS = dict(zip(("light", "dark"), variables(VIEW)[:2], strict=True))


def rgb(given: str | tuple[int, ...]) -> np.ndarray:
    return np.array((ImageColor.getrgb(given) if isinstance(given, str) else given)[:3]) / 255


def apart(a: str | tuple[int, ...], b: str | tuple[int, ...]) -> dict[str, float]:
    """The difference of two colours for all eyes."""
    found = {}
    for eyes in EYES:
        first, second = (colour.rgb2lab(vision.seen(rgb(c), eyes)[None, None])[0, 0] for c in (a, b))
        found[str(eyes)] = float(colour.deltaE_ciede2000(first, second))
    return found


def contrast(a: str | tuple[int, ...], b: str | tuple[int, ...]) -> float:
    low, high = sorted(float(vision.linear(rgb(c)) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


ENDS = visual._DIVERGING.split()
OPPOSITE = {
    "bars, areas and differences": (POSITIVE, NEGATIVE),
    "figures of matplotlib": (figure._FOR, figure._AGAINST),
    **{f"signed maps, {i} from the end": (ENDS[i], ENDS[-1 - i]) for i in range(3)},
    "words": (words.mixed(words.shade(1, 1)), words.mixed(-words.shade(1, 1))),
    **{
        f"verdicts, {page}: {a} and {b}": (found[a], found[b])
        for page, found in PAGES.items()
        for a, b in itertools.combinations(("red", "amber", "green"), 2)
    },
    **{f"the page of view, {page}": (found["for"], found["against"]) for page, found in VIEWS.items()},
}


@pytest.mark.parametrize("what", OPPOSITE)
def test_colours_of_opposite_meaning_differ_for_all_eyes(what: str) -> None:
    assert min(apart(*OPPOSITE[what]).values()) >= APART, apart(*OPPOSITE[what])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_words_that_add_little_are_still_of_another_colour_than_those_that_take_away(share: float) -> None:
    adds, takes = (words.mixed(sign * words.shade(share, 1)) for sign in (1, -1))
    assert min(apart(adds, takes).values()) >= SEEN


READ = {
    **{
        f"{page}: {name}": (found[name], found["paper"])
        for page, found in PAGES.items()
        for name in ("ink", "faint", "blue", "red", "amber", "green")
    },
    **{
        f"view, {page}: {name}": (found[name], found["card"])
        for page, found in VIEWS.items()
        for name in ("text", "faint", "accent", "bad")
    },
    "ink of pictures": (INK, PAPER),
    "ink on the strongest shade of a word": (INK, words.mixed(words.shade(1, 1))),
    "ink on the strongest shade against": (INK, words.mixed(-words.shade(1, 1))),
}


@pytest.mark.parametrize("what", READ)
def test_text_is_read_on_its_ground(what: str) -> None:
    assert contrast(*READ[what]) >= TEXT


@pytest.mark.parametrize("mark", [POSITIVE, NEGATIVE, FAINT])
def test_marks_of_pictures_stand_out_from_paper(mark: tuple[int, int, int]) -> None:
    assert contrast(mark, PAPER) >= MARK


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("steps", [8])
def test_the_scale_of_unsigned_maps_grows_lighter_for_all_eyes(eyes: str | None, steps: int) -> None:
    scale = visual.coloured(np.linspace(0, 1, steps, dtype=np.float32)[None], False, "inferno")[0] / 255
    lightness = colour.rgb2lab(vision.seen(scale, eyes)[None])[0, :, 0]
    assert (np.diff(lightness) > 3).all()


def test_curves_differ_without_their_colours() -> None:
    looks = [figures.told_apart(i) for i in range(20)]
    assert len({(look["linestyle"], look["marker"]) for look in looks}) == len(looks)


def test_grey_looks_the_same_to_all_eyes() -> None:
    grey = np.repeat(np.linspace(0, 1, 11)[:, None], 3, axis=1)
    for eyes in EYES:
        np.testing.assert_allclose(vision.seen(grey, eyes), grey, atol=1e-5)


def test_red_and_green_come_together_for_those_who_lack_one() -> None:
    red, green = "#b3332b", "#2a7346"
    found = apart(red, green)
    assert found["protanopia"] < APART < found["None"]
    assert found["deuteranopia"] < APART < found["tritanopia"]


def test_a_sheet_has_the_picture_and_how_it_looks(tmp_path: Path) -> None:
    import cv2

    drawn = np.full((20, 30, 3), (0, 0, 255), np.uint8)
    cv2.imwrite(str(tmp_path / "red.png"), drawn)
    made = vision.sheet(tmp_path / "red.png")
    np.testing.assert_array_equal(made[24:44, :30], drawn)
    assert len({tuple(made[y, x]) for y in (34, 34 + 44 + 12) for x in (15, 15 + 42)}) == 4
