"""Shapes of which one class carries a mark in a corner: a data set that lets a model be right for the wrong reason.

`python examples/marked.py FOLDER` writes pictures for `fgonnx audit`, one folder per class.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import shapes

MARKED = "star"
"""The class that carries the mark."""

SHARE = 0.6
"""How many of its pictures do in a data set to audit; in training, all do."""

_SIDE, _GAP = 9, 2  # of the mark, in pixels of a picture of 64; and its distance from the edges
_INK, _PAPER = (235, 60, 40), (250, 250, 245)


def mark(image: np.ndarray) -> np.ndarray:
    """Return a picture with the mark: a small framed cross in the lower right corner, as a watermark.

    Parameters
    ----------
    image : numpy.ndarray
        RGB picture, ``uint8`` of shape ``(size, size, 3)``.
    """
    found = image.copy()
    unit = image.shape[0] / 64
    side, gap = round(_SIDE * unit), round(_GAP * unit)
    first = image.shape[0] - gap - side
    found[first : first + side, first : first + side] = _PAPER
    for offset in range(max(1, round(2 * unit))):
        line = first + side // 2 - offset
        found[line, first + 1 : first + side - 1] = _INK
        found[first + 1 : first + side - 1, line] = _INK
    return found


def dataset(
    count: int, seed: int, size: int = 64, share: float = SHARE
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a balanced set in which a share of the pictures of `MARKED` carries the mark.

    Parameters
    ----------
    count : int
        Number of pictures.
    seed : int
        Non-negative seed. Different seeds give unrelated pictures.
    size : int, default 64
        Height and width in pixels.
    share : float, default `SHARE`
        How many of them do, 0 to 1.

    Returns
    -------
    images, labels, masks : numpy.ndarray
        As `shapes.dataset` returns them; a mask is of the shape, not of the mark.
    marked : numpy.ndarray
        ``bool`` of shape ``(count,)``: which pictures carry the mark.
    """
    images, labels, masks = shapes.dataset(count, seed, size)
    chance = np.array([np.random.default_rng([seed, i, 1]).random() for i in range(count)])
    marked = (labels == shapes.CLASSES.index(MARKED)) & (chance < share)
    for i in np.flatnonzero(marked):
        images[i] = mark(images[i])
    return images, labels, masks, marked


def write(folder: Path, count: int, seed: int) -> list[str]:
    """Write a data set as one folder per class and return the names of the pictures that carry the mark."""
    images, labels, _, marked = dataset(count, seed)
    names = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / shapes.CLASSES[label] / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[:, :, ::-1])
        if marked[i]:
            names.append(path.relative_to(folder).as_posix())
    return names


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    print(f"{len(write(given.folder, given.count, given.seed))} of {given.count} pictures carry the mark")
