"""Pictures and pages as others see them: `python -m benchmarks.vision FOLDER` writes contact sheets.

For every picture of docs/images and README.md, a sheet of how it looks to eyes with and without each deficiency of
colour vision. With `--pages`, the same for HTML files and addresses, by Chromium, also in a window of 400 pixels, in
the dark, and printed.

The deficiencies are simulated as in Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of
Color Vision Deficiency", IEEE TVCG 15(6), 2009, of full severity, in linear light. tests/test_vision.py holds the
colours that carry meaning against them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Matrices for linear RGB, by the name of the deficiency."""

_TALL, _GAP = 900, 12  # of a page on a sheet; between pictures, in pixels
WINDOWS: dict[str, dict[str, Any]] = {
    "light": {"width": 1200},
    "400 px": {"width": 400},
    "dark": {"width": 1200, "color_scheme": "dark"},
    "dark, 400 px": {"width": 400, "color_scheme": "dark"},
    "printed": {"width": 800, "media": "print"},
    **{name: {"width": 1200, "vision": name} for name in DEFICIENCIES},
}
"""How pages are opened."""


def linear(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return sRGB in 0..1 as linear light."""
    x = np.asarray(rgb, np.float64)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def seen(rgb: npt.ArrayLike, deficiency: str | None) -> npt.NDArray[np.float64]:
    """Return how colours look.

    Parameters
    ----------
    rgb : array_like
        sRGB in 0..1, of shape ``(..., 3)``.
    deficiency : str or None
        A name in `DEFICIENCIES`; None returns the colours.
    """
    x = np.asarray(rgb, np.float64)
    if deficiency is None:
        return x
    light = np.clip(linear(x) @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def sheet(picture: Path) -> npt.NDArray[np.uint8]:
    """Return a picture beside how it looks with each deficiency, BGR."""
    bgr = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"{picture} cannot be read")
    rgb = bgr[..., ::-1] / 255.0
    looks = [(name or "all colours", np.rint(255 * seen(rgb, name))[..., ::-1]) for name in (None, *DEFICIENCIES)]
    return _table([(name, np.ascontiguousarray(look.astype(np.uint8))) for name, look in looks], columns=2)


def _table(pictures: list[tuple[str, npt.NDArray[np.uint8]]], columns: int) -> npt.NDArray[np.uint8]:
    height = max(picture.shape[0] for _, picture in pictures) + 24
    width = max(picture.shape[1] for _, picture in pictures)
    rows = -(-len(pictures) // columns)
    made = np.full((rows * (height + _GAP), columns * (width + _GAP), 3), 200, np.uint8)
    for i, (name, picture) in enumerate(pictures):
        y, x = i // columns * (height + _GAP), i % columns * (width + _GAP)
        cv2.putText(made, name, (x + 4, y + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        made[y + 24 : y + 24 + picture.shape[0], x : x + picture.shape[1]] = picture
    return made


def pages(addresses: list[str]) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Open pages in every way and yield their sheets; a page that scrolls sideways is named."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for address in addresses:
            looks = []
            for name, how in WINDOWS.items():
                size = {"width": how["width"], "height": _TALL}
                opened = browser.new_page(viewport=size, color_scheme=how.get("color_scheme", "light"))
                opened.emulate_media(media=how.get("media", "screen"))
                opened.goto(address if "://" in address else Path(address).absolute().as_uri())
                opened.wait_for_timeout(400)
                if "vision" in how:
                    session = opened.context.new_cdp_session(opened)
                    session.send("Emulation.setEmulatedVisionDeficiency", {"type": how["vision"]})
                if opened.evaluate("document.documentElement.scrollWidth > innerWidth"):
                    print(f"{address}: scrolls sideways ({name})")
                looks.append((name, _shot(opened)))
                opened.close()
            yield Path(address.rstrip("/")).stem or "page", _table(looks, columns=4)
        browser.close()


def _shot(page: Any) -> npt.NDArray[np.uint8]:
    drawn = cv2.imdecode(np.frombuffer(page.screenshot(full_page=True), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    drawn = drawn[: 3 * _TALL]
    factor = min(1.0, 600 / drawn.shape[1])
    return np.asarray(cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def main() -> None:
    """Write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", nargs="*", type=Path, help="instead of those of docs/images")
    parser.add_argument("--pages", nargs="*", default=[], help="HTML files and addresses")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    pictures = sorted((ROOT / "docs").rglob("*.png")) if given.pictures is None else given.pictures
    for picture in pictures:
        cv2.imwrite(str(given.folder / picture.name), sheet(picture))
    for i, (name, made) in enumerate(pages(given.pages) if given.pages else ()):
        cv2.imwrite(str(given.folder / f"page-{i}-{name}.png"), made)
    print(f"{len(pictures)} pictures and {len(given.pages)} pages in {given.folder}")


if __name__ == "__main__":
    main()
