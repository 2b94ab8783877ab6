"""Pictures of objects made of parts, drawn with OpenCV, each also drawn without any one of its parts.

The object is a grey plate with six badges, told apart by their hue. The shapes of four of them spell the class, in a
code in which any two classes differ in exactly three badges: no badge suffices, and none is needed. The other two have
shapes drawn at random. A picture without a badge is the same drawing with plate in its place, so what the badge is
worth to a model is known: the drop of the model's score.
"""

import argparse
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from shapes import OUTLINES, background, coverage, grain

PARTS: tuple[str, ...] = ("red", "yellow", "green", "cyan", "blue", "magenta")
"""The badges, by their hues; the first four spell the class."""

SHAPES: tuple[str, ...] = ("circle", "ring", "cross")

# The ternary tetracode: words (a, b, a + b, a - b) modulo 3, any two of which differ in exactly three places.
WORDS: tuple[tuple[int, ...], ...] = tuple((a, b, (a + b) % 3, (a - b) % 3) for a in range(3) for b in range(3))
CLASSES: tuple[str, ...] = tuple("-".join(SHAPES[s] for s in word) for word in WORDS)

_PLATE = (0.38, 0.44)  # radius of the plate, as a share of the side
_RING = 0.66  # distance of the badges from the plate's centre, as a share of its radius
# Radius of a disc of a badge's area, as a share of the plate's. Rings and crosses reach a quarter further: at 0.23 two
# pixels of a small picture stay free between badges, so that no pixel shows two.
_BADGE = (0.18, 0.23)
_JITTER = 12.0  # degrees by which a hue may vary, of the 60 between two


@dataclass(frozen=True, eq=False)  # comparing arrays with == has no single truth value
class Sample:
    """One drawn picture.

    Attributes
    ----------
    image : numpy.ndarray
        RGB picture, ``uint8`` of shape ``(size, size, 3)``, values 0 to 255.
    label : int
        Index into `CLASSES`.
    parts : numpy.ndarray
        ``bool`` of shape ``(6, size, size)``; true where a badge covers at least half of the pixel; all false for a
        badge that is missing.
    """

    image: np.ndarray
    label: int
    parts: np.ndarray


def draw(rng: np.random.Generator, label: int, missing: Collection[int] = (), size: int = 64) -> Sample:
    """Draw one picture.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every random choice. Generators in equal states give pictures that differ in the missing badges alone.
    label : int
        Class to draw, an index into `CLASSES`.
    missing : collection of int, default ()
        Badges that are left out, indices into `PARTS`.
    size : int, default 64
        Height and width in pixels, at least 16.

    Returns
    -------
    Sample
        Picture, label and the badges' masks.

    Raises
    ------
    ValueError
        If `label` or a missing badge does not exist, or `size` is below 16.
    """
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"label must be in 0..{len(CLASSES) - 1}, got {label}")
    if not all(0 <= part < len(PARTS) for part in missing):
        raise ValueError(f"missing parts must be in 0..{len(PARTS) - 1}, got {sorted(missing)}")
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")

    picture = background(rng, size)
    radius = rng.uniform(*_PLATE)
    centre = rng.uniform(radius + 0.01, 0.99 - radius, size=2)
    _paint(picture, "circle", radius, centre, 0.0, np.full(3, rng.uniform(70.0, 190.0)))

    word = (*WORDS[label], *rng.integers(len(SHAPES), size=len(PARTS) - len(WORDS[label])))
    angles = rng.uniform(0.0, 2.0 * math.pi) + rng.permutation(len(PARTS)) * (2.0 * math.pi / len(PARTS))
    parts = np.zeros((len(PARTS), size, size), bool)
    for part, (shape, angle) in enumerate(zip(word, angles, strict=True)):
        colour = _colour(part, rng)
        place = centre + _RING * radius * np.array([math.cos(angle), math.sin(angle)])
        extent, turn = rng.uniform(*_BADGE) * radius, rng.uniform(0.0, 2.0 * math.pi)
        if part not in missing:
            parts[part] = _paint(picture, SHAPES[shape], extent, place, turn, colour)

    picture += grain(rng, size)
    return Sample(np.clip(np.rint(picture), 0, 255).astype(np.uint8), int(label), parts)


def dataset(count: int, seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a balanced set of pictures, each also without any one of its badges.

    Parameters
    ----------
    count : int
        Number of pictures; class counts differ by at most one.
    seed : int
        Non-negative seed. Different seeds give unrelated pictures.
    size : int, default 64
        Height and width in pixels.

    Returns
    -------
    images : numpy.ndarray
        ``uint8`` of shape ``(count, size, size, 3)``, RGB.
    labels : numpy.ndarray
        ``int64`` of shape ``(count,)``, indices into `CLASSES`, which take turns.
    parts : numpy.ndarray
        ``bool`` of shape ``(count, 6, size, size)``, true on each badge.
    without : numpy.ndarray
        ``uint8`` of shape ``(count, 6, size, size, 3)``: the pictures without each badge.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    parts = np.empty((count, len(PARTS), size, size), bool)
    without = np.empty((count, len(PARTS), size, size, 3), np.uint8)
    for i, label in enumerate(labels):
        whole = draw(np.random.default_rng([seed, i]), int(label), (), size)
        images[i], parts[i] = whole.image, whole.parts
        for part in range(len(PARTS)):
            without[i, part] = draw(np.random.default_rng([seed, i]), int(label), (part,), size).image
    return images, labels, parts, without


def _colour(part: int, rng: np.random.Generator) -> np.ndarray:
    """Return a saturated RGB colour of a badge's hue, ``float64 (3,)`` in 0..255."""
    hue = (part * 360.0 / len(PARTS) + rng.uniform(-_JITTER, _JITTER)) % 360.0
    hsv = np.array([[[hue, rng.uniform(0.75, 1.0), rng.uniform(0.65, 1.0)]]], np.float32)
    return 255.0 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)


def _paint(
    picture: np.ndarray, shape: str, extent: float, centre: np.ndarray, turn: float, colour: np.ndarray
) -> np.ndarray:
    """Paint a shape of the area of a disc of radius `extent` in place; return its mask, ``bool (size, size)``."""
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    contours = [c @ rotation * (math.sqrt(math.pi) * extent) + centre for c in OUTLINES[shape]]
    covered = coverage(contours, len(picture))
    picture += covered[..., None] * (colour.astype(np.float32) - picture)
    return covered >= 0.5


def main() -> None:
    """Read the command line and write a set of pictures for `fgonnx evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .npz to write, with x, y and without")
    parser.add_argument("--count", type=int, default=60, help="number of pictures")
    parser.add_argument("--seed", type=int, default=7, help="below 1 000 000: the network was not trained on these")
    args = parser.parse_args()
    images, labels, _, without = dataset(args.count, args.seed)
    np.savez_compressed(args.out, x=images, y=labels, without=without)


if __name__ == "__main__":
    main()
