"""Pictures of the gallery: those that are given, as browsers read them, or drawn ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fgonnx.errors import InputError, OptionError
from fgonnx.files import read
from fgonnx.pictures.read import images

MOST = 60
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
_SIDE = 224
_DRAWN = ("star", "ring", "cross", "triangle", "circle", "square")


@dataclass(frozen=True)
class Sample:
    """A picture of the gallery.

    Attributes
    ----------
    file, name, type : str
        Its file on the page, its name for people, its media type.
    content : bytes
        The file.
    """

    file: str
    name: str
    type: str
    content: bytes


def collect(paths: Sequence[Path]) -> list[Sample]:
    """Return the pictures of files, folders and patterns; drawn ones without any.

    Raises
    ------
    InputError
        One is not there, or is no picture.
    OptionError
        There are too many.
    """
    if not paths:
        return [_numbered(i, name, "image/png", images.png(_drawn(name))) for i, name in enumerate(_DRAWN)]
    found = images.expand(paths)
    if len(found) > MOST:
        raise OptionError(f"{len(found)} samples are given; a gallery has {MOST} at most")
    return [_read(i, path) for i, path in enumerate(found)]


def _read(index: int, path: Path) -> Sample:
    picture = images.read(path)  # refuses what is no picture
    kind = _TYPES.get(path.suffix.lower())
    if kind is None:  # browsers do not read TIFF and the like
        return _numbered(index, path.name, "image/png", images.png(picture.rgb))
    return _numbered(index, path.name, kind, read(path, InputError))


def _numbered(index: int, name: str, kind: str, content: bytes) -> Sample:
    plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40] or "picture"
    ending = kind.partition("/")[2]
    return Sample(f"samples/{index:02}-{plain}.{ending}", name, kind, content)


def _drawn(name: str) -> npt.NDArray[np.uint8]:
    """Draw a bright shape on a dim, grained background."""
    rng = np.random.default_rng(_DRAWN.index(name))
    clouds = Image.fromarray(rng.integers(40, 130, (7, 7, 3), dtype=np.uint8)).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (_SIDE, _SIDE, 1))
    back = Image.fromarray(np.clip(np.asarray(clouds) + grain, 0, 255).astype(np.uint8))
    mask = Image.new("L", (4 * _SIDE, 4 * _SIDE))
    centre, radius, turn = rng.uniform(0.42, 0.58, 2) * 4 * _SIDE, 4 * _SIDE * 0.24, rng.uniform(0, 2 * np.pi)
    pen = ImageDraw.Draw(mask)
    box = [*(centre - radius), *(centre + radius)]
    if name in ("circle", "ring"):
        pen.ellipse(box, 255)
        if name == "ring":
            pen.ellipse([*(centre - 0.55 * radius), *(centre + 0.55 * radius)], 0)
    else:
        pen.polygon([tuple(point) for point in centre + radius * _corners(name, turn)], 255)
    soft = mask.resize((_SIDE, _SIDE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.6))
    colour = Image.new("RGB", (_SIDE, _SIDE), tuple(int(c) for c in rng.integers(150, 256, 3)))
    return np.asarray(Image.composite(colour, back, soft))


def _corners(name: str, turn: float) -> npt.NDArray[np.float64]:
    """Return the corners of a shape around the origin, (corners, 2)."""
    if name == "cross":
        arm = 0.32
        corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
        points = np.array([*corners, *((-x, -y) for x, y in corners)])
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return points @ turned
    count, inner = {"star": (10, 0.45), "triangle": (3, 1.0), "square": (4, 1.0)}[name]
    angles = turn + np.arange(count) * 2 * np.pi / count
    radii = np.where(np.arange(count) % 2, inner, 1.0)[:, None]
    return radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
