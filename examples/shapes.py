"""Pictures of one shape on a cluttered background, drawn with OpenCV, with the true mask of the shape.

The generator needs no download and knows where the object is, so it serves as training data for the shipped
example model and as ground truth for localisation. Every random choice except the outline is made without looking
at the label: the same random state drawn with two labels gives two pictures that differ only where the two
outlines differ. Colour, area, position and background therefore carry no information about the class.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

# Range of the object's area as a share of the picture. It is the area, not the radius, that is drawn at random:
# with equal radii, a bright pixel count would separate circles from stars.
_AREA_RANGE = (0.05, 0.16)
# Texture noise is drawn on grids of fixed size, so that a seed gives the same composition at every picture size.
_GRAIN_GRIDS = (64, 20)
# The background is drawn at twice the picture size and then averaged: OpenCV's lines have whole-pixel widths.
_OVERSAMPLE = 2
# Outlines are filled at this multiple of the picture size, so that edge pixels get their true coverage.
_MASK_OVERSAMPLE = 4


@dataclass(frozen=True, eq=False)  # comparing arrays with == has no single truth value
class Sample:
    """One drawn picture.

    Attributes
    ----------
    image : numpy.ndarray
        RGB picture, ``uint8`` of shape ``(size, size, 3)``, values 0 to 255.
    label : int
        Index into `CLASSES`.
    mask : numpy.ndarray
        ``bool`` of shape ``(size, size)``; true where the object covers at least half of the pixel. The hole of a
        ring is not part of the ring.
    """

    image: np.ndarray
    label: int
    mask: np.ndarray


def draw(rng: np.random.Generator, label: int, size: int = 64) -> Sample:
    """Draw one picture.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every random choice. Generators in equal states give equal pictures, and the same composition at
        another `size`.
    label : int
        Class to draw, an index into `CLASSES`.
    size : int, default 64
        Height and width in pixels, at least 16.

    Returns
    -------
    Sample
        Picture, label and object mask.

    Raises
    ------
    ValueError
        If `label` is not an index into `CLASSES` or `size` is below 16.
    """
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"label must be in 0..{len(CLASSES) - 1}, got {label}")
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")

    picture = background(rng, size)

    area = rng.uniform(*_AREA_RANGE)
    # All classes keep the same distance from the border, otherwise compact classes alone would be found near it.
    reach = math.sqrt(area) * _REACH
    centre = rng.uniform(reach + 0.01, 0.99 - reach, size=2)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    colour = _contrasting_colour(rng, picture, centre, reach)
    shade = rng.uniform(-28.0, 28.0, size=3)
    shade_angle = rng.uniform(0.0, 2.0 * math.pi)

    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    contours = [c @ turn * math.sqrt(area) + centre for c in OUTLINES[CLASSES[label]]]
    covered = coverage(contours, size)
    ramp = _ramp(size, shade_angle)[..., None] - 0.5
    paint = colour.astype(np.float32) + ramp * shade.astype(np.float32)
    picture += covered[..., None] * (paint - picture)

    picture += grain(rng, size)
    return Sample(np.clip(np.rint(picture), 0, 255).astype(np.uint8), int(label), covered >= 0.5)


def dataset(count: int, seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a balanced set of pictures.

    Each picture has its own generator, seeded by `seed` and its position, so a shorter set with the same seed
    holds the first pictures of a longer one.

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
    masks : numpy.ndarray
        ``bool`` of shape ``(count, size, size)``, true on the object.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    masks = np.empty((count, size, size), bool)
    for i, label in enumerate(labels):
        sample = draw(np.random.default_rng([seed, i]), int(label), size)
        images[i], masks[i] = sample.image, sample.mask
    return images, labels, masks


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """Return ``float64 (corners, 2)`` points at equal angles around the origin, at radii taken in turn."""
    angles = np.arange(corners) * (2.0 * math.pi / corners)
    lengths = np.resize(radii, corners)
    return np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)


def _shoelace(points: np.ndarray) -> float:
    """Return the area inside the closed polygon ``(n, 2)``."""
    x, y = points.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _build_outlines() -> dict[str, list[np.ndarray]]:
    """Return the contours of every class around the origin, scaled to enclose area 1; later contours are holes."""
    w = 0.34  # half the width of the arms of the cross, whose half length is 1
    arm = np.array([[1.0, -w], [1.0, w], [w, w]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    cross = np.concatenate([arm @ np.linalg.matrix_power(quarter, k) for k in range(4)])
    disc = _regular(120)
    shapes = {
        "circle": [disc],
        "square": [_regular(4)],
        "triangle": [_regular(3)],
        "star": [_regular(10, (1.0, 0.45))],
        "cross": [cross],
        "ring": [disc, 0.58 * disc],
    }
    scaled = {}
    for name, contours in shapes.items():
        area = _shoelace(contours[0]) - sum(_shoelace(hole) for hole in contours[1:])
        scaled[name] = [c / math.sqrt(area) for c in contours]
    return scaled


OUTLINES: dict[str, list[np.ndarray]] = _build_outlines()
# Distance from the centre to the furthest corner of any class of area 1.
_REACH = max(float(np.linalg.norm(c, axis=1).max()) for contours in OUTLINES.values() for c in contours)


def coverage(contours: list[np.ndarray], size: int) -> np.ndarray:
    """Return the share of each pixel inside the contours, ``float32 (size, size)`` in 0..1.

    Contours are in units of the picture's side; contours inside contours are holes.
    """
    canvas = np.zeros((size * _MASK_OVERSAMPLE,) * 2, np.uint8)
    shift = 4  # fractional bits of the coordinates given to OpenCV
    scale = size * _MASK_OVERSAMPLE * (1 << shift)
    # Half a pixel less, since OpenCV puts whole coordinates at the pixels' centres.
    corners = [np.rint(c * scale - (1 << shift) / 2).astype(np.int32) for c in contours]
    cv2.fillPoly(canvas, corners, 255, lineType=cv2.LINE_8, shift=shift)
    return cv2.resize(canvas.astype(np.float32) / 255.0, (size, size), interpolation=cv2.INTER_AREA)


def _ramp(size: int, angle: float) -> np.ndarray:
    """Return a linear ramp from about 0 to 1 across the picture in the given direction, ``float32 (size, size)``."""
    t = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return math.cos(angle) * t[None, :] + math.sin(angle) * t[:, None] + np.float32(0.5)


def _smooth_noise(rng: np.random.Generator, cells: int, channels: int, size: int) -> np.ndarray:
    """Return unit normal noise on a ``cells x cells`` grid, enlarged to ``float32 (size, size, channels)``."""
    grid = rng.standard_normal((cells, cells, channels)).astype(np.float32)
    how = cv2.INTER_CUBIC if size >= cells else cv2.INTER_AREA
    return cv2.resize(grid, (size, size), interpolation=how).reshape(size, size, channels)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw gradient, blotches, lines and strokes; return ``float32 (size, size, 3)`` in 0..255."""
    first, second = rng.uniform(20, 235, size=(2, 3)).astype(np.float32)
    picture = first + _ramp(size, rng.uniform(0, 2 * math.pi))[..., None] * (second - first)

    for _ in range(rng.integers(2, 5)):
        field = _smooth_noise(rng, int(rng.integers(4, 8)), 1, size)
        level, softness = rng.uniform(0.2, 0.9), rng.uniform(0.04, 0.4)
        # tanh, not exp: a sharp edge must not overflow far away from it.
        weight = rng.uniform(0.35, 0.85) * (0.5 + 0.5 * np.tanh((field - level) / softness))
        picture += weight.astype(np.float32) * (rng.uniform(10, 245, size=3).astype(np.float32) - picture)

    side = size * _OVERSAMPLE
    canvas = cv2.resize(np.clip(picture, 0, 255), (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    for _ in range(rng.integers(3, 8)):
        ends = rng.uniform(-0.2, 1.2, size=(2, 2))
        _stroke(canvas, ends, rng.uniform(0.006, 0.028), rng.uniform(0, 255, size=3))
    for _ in range(rng.integers(8, 18)):
        _stroke(canvas, _scribble(rng), rng.uniform(0.008, 0.022), rng.uniform(0, 255, size=3))
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)


def _scribble(rng: np.random.Generator) -> np.ndarray:
    """Return a short open path ``float64 (n, 2)``: a bow or a zigzag, too thin and too open to be any class."""
    start = rng.uniform(0, 1, size=2)
    heading = rng.uniform(0, 2 * math.pi)
    steps = 6
    length = rng.uniform(0.06, 0.2)
    if rng.random() < 0.5:
        headings = heading + np.linspace(0, rng.uniform(-2.4, 2.4), steps)
    else:
        headings = heading + np.where(np.arange(steps) % 4 < 2, 1, -1) * rng.uniform(0.3, 1.0)
    moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / steps)
    return np.concatenate([start[None], start + np.cumsum(moves, axis=0)])


def _stroke(canvas: np.ndarray, path: np.ndarray, width: float, colour: np.ndarray) -> None:
    """Draw an open path in place; `path` and `width` are in units of the canvas' side."""
    side = canvas.shape[0]
    shift = 4
    corners = np.rint(path * side * (1 << shift)).astype(np.int32)
    thickness = max(1, round(width * side))
    cv2.polylines(canvas, [corners], False, colour.tolist(), thickness, cv2.LINE_AA, shift)


def _contrasting_colour(rng: np.random.Generator, picture: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    """Return an RGB colour, ``float64 (3,)`` in 0..255, that stands out from the picture around `centre`.

    The neighbourhood looked at is a disc for every class, so the colour depends on the background alone.
    """
    size = picture.shape[0]
    t = (np.arange(size) + 0.5) / size
    near = np.hypot(t[None, :] - centre[0], t[:, None] - centre[1]) < 1.15 * reach
    # A few hundred pixels are enough for a percentile, whatever the picture's size.
    pixels = picture[near]
    around = _lab(pixels[:: max(1, len(pixels) // 300)])
    candidates = rng.uniform(5, 250, size=(24, 3))
    distances = np.linalg.norm(_lab(candidates)[:, None] - around[None], axis=2)
    # A low percentile, not the minimum: some thin line in a similar colour is welcome clutter.
    contrast = np.percentile(distances, 12, axis=1)
    enough = np.flatnonzero(contrast >= 38.0)
    return candidates[enough[0] if enough.size else contrast.argmax()]


def _lab(rgb: np.ndarray) -> np.ndarray:
    """Convert ``(n, 3)`` RGB in 0..255 to CIELAB ``float32 (n, 3)``, where distance follows perception."""
    return cv2.cvtColor((rgb / 255.0).astype(np.float32)[None], cv2.COLOR_RGB2Lab)[0]


def grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return texture noise over the whole picture, object included, ``float32 (size, size, 3)``."""
    total = np.zeros((size, size, 3), np.float32)
    for cells in _GRAIN_GRIDS:
        total += np.float32(rng.uniform(1.0, 9.0)) * _smooth_noise(rng, cells, 3, size)
    return total
