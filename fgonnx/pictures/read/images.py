"""Read picture files, with a note on every conversion, and write PNG files."""

from __future__ import annotations

import glob
import io
import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from fgonnx import bounds, files
from fgonnx.errors import InputError, OptionError
from fgonnx.opencv import cv2
from fgonnx.pictures.read.frame import Pixels, over_white
from fgonnx.pictures.read.preprocess import WITH_ALPHA

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File name endings, in lower case, that count as pictures when a folder is searched."""

_OPENING = threading.Lock()  # filters of warnings are the whole process's
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE = 25  # offset of the colour type in the IHDR chunk, which always comes first
_PNG_PALETTE = 3
# All three spellings: JPEG and TIFF, PNG chunk, WebP chunk.
_EXIF_MARKS = (b"Exif", b"eXIf", b"EXIF")


_ORIENTATION = 0x0112
_TURNS: dict[int, Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
"""What makes a stored picture upright, by EXIF's number of its orientation."""

_GREY_REPEATED = "grey repeated to three channels"
_REDUCED = "16-bit reduced to 8"
_KEPT = "16 bits kept: 0..65535 read as 0..255, in steps of 1/257"
_TWELVE_BITS = 4095
_OPAQUE, _BLENDED = "opaque alpha dropped", "alpha blended over white"


@dataclass(frozen=True)
class Picture:
    """A picture read from a file.

    Attributes
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
        Pixels, 0 to 255, red first, contiguous.
    path : Path
        Where they were read from.
    notes : tuple of str
        Descriptions of conversions to `rgb`; empty for an ordinary 8-bit colour picture.
    levels : ndarray of uint8 or float32, shape (H, W, 3) or (H, W, 4), optional
        All that the file says: pixels, 0 to 255, with fractions if they have more than 8 bits, red first, alpha last.
    """

    rgb: npt.NDArray[np.uint8]
    path: Path
    notes: tuple[str, ...] = ()
    levels: Pixels | None = None

    def fit(self, channels: str | None, dtype: str | None) -> tuple[Pixels, tuple[str, ...]]:
        """Return the pixels that a model of those channels and that type can use, and notes on what became of them.

        Parameters
        ----------
        channels, dtype : str or None
            Fields of a `Preprocessing`.

        Returns
        -------
        pixels : ndarray of uint8 or float32, shape (H, W, 3) or (H, W, 4)
            For `Preprocessing.apply`: with alpha where `channels` has it, with fractions unless `dtype` is uint8.
        notes : tuple of str
        """
        pixels, notes = self.rgb if self.levels is None else self.levels, list(self.notes)
        if channels == "GRAY" and _GREY_REPEATED in notes:
            notes.remove(_GREY_REPEATED)
        if channels in WITH_ALPHA:
            notes = [n for n in notes if n not in (_OPAQUE, _BLENDED)]
            if pixels.shape[2] == 3:
                notes.append("no alpha: opaque")
        elif pixels.shape[2] == 4:
            pixels = over_white(pixels)
        if dtype == "uint8":
            return (_rounded(pixels) if pixels.dtype != np.uint8 else pixels), tuple(notes)
        if _REDUCED in notes:
            few = f"; the largest is {top}" if (top := round(float(pixels.max()) * 257)) <= _TWELVE_BITS else ""
            notes[notes.index(_REDUCED)] = _KEPT + few
        return pixels, tuple(notes)


def read(path: str | os.PathLike[str]) -> Picture:
    """Read a picture file as 8-bit RGB; what of it has more bits or channels is kept beside.

    Grey, palette, 16-bit, floating-point and transparent pictures are converted, and each conversion is noted.
    The EXIF orientation of cameras is honoured, except in pictures with an alpha channel, where a note says so.

    Parameters
    ----------
    path : path-like
        A file in any format that OpenCV decodes.

    Returns
    -------
    Picture
        Pixels (H, W, 3) uint8 in 0..255, the path, the notes; all bits and channels of the file.

    Raises
    ------
    InputError
        The file is missing, empty, a folder, not a picture, or has pixels that have no 8-bit reading.
    """
    path = Path(path)
    return decode(_bytes(path), path)


def decode(data: npt.NDArray[np.uint8], path: Path) -> Picture:
    """Decode the bytes of a picture file, as `read` does.

    Parameters
    ----------
    data : ndarray of uint8
        The bytes.
    path : Path
        What the picture is called in messages.

    Raises
    ------
    InputError
        They are no picture, or none that has an 8-bit reading.
    """
    if data.size == 0:
        raise InputError(f"'{path}' is empty (0 bytes): copy or download it again")
    bounds.check("pixels", _announced(data), f"'{path}' has", InputError)
    pixels = _decode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(
            f"'{path}' cannot be decoded as a picture: give a PNG, JPEG, WebP, BMP, GIF or TIFF file, "
            "or read it yourself and pass the array"
        )
    notes = []
    if _has_several_frames(data):
        notes.append("first frame of several")
    if data[:8].tobytes() == _PNG_SIGNATURE and data[_PNG_COLOUR_TYPE] == _PNG_PALETTE:
        notes.append("palette expanded to colours")
    if turn := _turn_of_avif(data):
        pixels = turn(pixels)
        notes.append("turned upright as its file says")
    elif _is_turned(data):
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            notes.append("EXIF orientation ignored: not supported together with alpha")
        else:
            # IMREAD_UNCHANGED never turns a picture; this pair of flags does and keeps depth and channels.
            upright = _decode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
            if upright is not None:
                pixels = upright
                notes.append("turned upright as its EXIF orientation says")
    return _picture(pixels, path, notes)


def of_pixels(pixels: npt.NDArray[np.generic], path: Path) -> Picture:
    """Return pixels that a program holds as a picture, converted as those of a file are.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or float, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGB with alpha; floating-point pixels from 0 to 1.
    path : Path
        Its name in messages.

    Raises
    ------
    InputError
        The pixels have no 8-bit reading.
    """
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise InputError(f"'{path}' has pixels of shape {pixels.shape}: give (H, W), (H, W, 3) or (H, W, 4)")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    elif pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]]
    return _picture(pixels, path, [])


def _picture(pixels: npt.NDArray[np.generic], path: Path, notes: list[str]) -> Picture:
    """Bring pixels as OpenCV decodes them, with blue first, to 8 bits."""
    levels = _with_red_first(_to_255(pixels, path, notes), path, notes)
    rgb = levels[:, :, :3]
    if levels.shape[2] == 4:
        opaque = bool(levels[:, :, 3].min() == 255)
        notes.append(_OPAQUE if opaque else _BLENDED)
        rgb = rgb if opaque else over_white(levels if levels.dtype == np.uint8 else _rounded(levels))
    if rgb.dtype != np.uint8:
        rgb = _rounded(rgb)
    return Picture(np.ascontiguousarray(rgb), path, tuple(notes), cast("Pixels", np.ascontiguousarray(levels)))


def expand(paths: Iterable[str | os.PathLike[str]], suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Turn files, folders and patterns into a list of picture files.

    Parameters
    ----------
    paths : iterable of path-like
        A file is used whatever its name; a folder stands for its pictures (by suffix, without subfolders); a pattern
        with ``*``, ``?`` or ``[...]`` for the files that match (``**`` descends). An existing name is never a pattern.
    suffixes : collection of str
        Suffixes of the files that are used from a folder.

    Returns
    -------
    list of Path
        Each file once: the arguments in their order, the content of each folder and pattern sorted.

    Raises
    ------
    InputError
        A path does not exist, a folder holds no picture, a pattern matches no file, or nothing was given.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        text = os.fspath(given)
        if os.path.isdir(path):
            inside = sorted(p for p in _listed(path) if p.suffix.lower() in suffixes and os.path.isfile(p))
            if not inside:
                raise InputError(f"folder '{path}' holds no picture: looked for {', '.join(sorted(suffixes))}")
        elif os.path.exists(path):
            inside = [path]
        elif glob.has_magic(text):
            matches = (Path(m) for m in glob.glob(text, recursive=True))
            inside = sorted(p for p in matches if os.path.isfile(p))
            if not inside:
                raise InputError(f"pattern '{text}' matches no file: check the folder and the ending")
        else:
            raise InputError(
                f"'{path}' does not exist{files.near_name(path)}: check the spelling and the working folder"
            )
        found.update(dict.fromkeys(inside))
    if not found:
        raise InputError("no picture was given: name files, folders or patterns such as 'pictures/*.jpg'")
    return list(found)


def write_png(path: str | os.PathLike[str], rgb: npt.NDArray[np.uint8]) -> None:
    """Write a picture as PNG, atomically.

    The bytes go to a temporary file in the same folder, which is then renamed: a reader never sees half a picture, and
    an interrupted run leaves an earlier file unchanged.

    Parameters
    ----------
    path : path-like
        The file to write; its folder must exist. The content is PNG whatever the suffix.
    rgb : ndarray of uint8, shape (H, W, 3)
        Pixels, 0 to 255, red first.

    Raises
    ------
    InputError
        The array is not such a picture, or the file cannot be written.
    """
    path = Path(path)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(
            f"a picture to write must be uint8 of shape (H, W, 3), got {rgb.dtype} of shape {rgb.shape}: "
            "convert it first"
        )
    try:
        with files.replacing(path) as temporary, temporary.open("xb") as file:
            file.write(png(rgb))
    except OptionError as error:
        raise InputError(str(error)) from error


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise files.unreadable(f"folder '{folder}'", error, InputError) from error


def png(rgb: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture, (H, W, 3) with red first, as the bytes of a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Read a whole file; imread cannot open every Unicode path on Windows."""
    if os.path.isdir(path):
        raise InputError(f"'{path}' is a folder: name a picture file inside it")
    data = np.frombuffer(files.read(path, InputError), dtype=np.uint8)
    if data.size == 0:
        raise InputError(f"'{path}' is empty (0 bytes): copy or download it again")
    return data


def _announced(data: npt.NDArray[np.uint8]) -> int:
    """Return how many pixels a file announces; 0 where Pillow, which reads the header alone, does not know it."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data.tobytes())) as opened:
                return math.prod(opened.size)
        except Image.DecompressionBombError as error:
            return int(next(iter(re.findall(r"\d+", str(error))), 0))
        except Exception:  # plugins raise many kinds on damaged headers; OpenCV has the last word
            return 0


def _decode(data: npt.NDArray[np.uint8], flags: int) -> npt.NDArray[np.generic] | None:
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:
        # Raised for headers that promise impossible sizes; for the caller that is the same as an unknown format.
        return None


def _has_several_frames(data: npt.NDArray[np.uint8]) -> bool:
    """Tell whether a GIF or TIFF file holds several pictures, of which the first is read."""
    if data[:3].tobytes() == b"GIF" or data[:2].tobytes() in (b"II", b"MM"):
        try:
            # Asking for the second frame alone is faster, but the GIF decoder then finds one in every file.
            return len(cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)[1]) > 1
        except cv2.error:
            return False
    return False


def _is_turned(data: npt.NDArray[np.uint8]) -> bool:
    """Tell whether decoding with and without the EXIF orientation differs; cheap for files without EXIF."""
    raw = data.tobytes()
    if not any(mark in raw for mark in _EXIF_MARKS):
        return False
    as_seen = _decode(data, cv2.IMREAD_GRAYSCALE)
    as_stored = _decode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    return as_seen is not None and as_stored is not None and not np.array_equal(as_seen, as_stored)


def _turn_of_avif(data: npt.NDArray[np.uint8]) -> Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]] | None:
    """Return what makes an AVIF picture upright, which OpenCV leaves as it is stored; None where it is."""
    if data[4:8].tobytes() != b"ftyp":
        return None
    try:
        with Image.open(io.BytesIO(data.tobytes())) as opened:
            return _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    except Exception:  # as in `_announced`
        return None


def _to_255(pixels: npt.NDArray[np.generic], path: Path, notes: list[str]) -> Pixels:
    """Bring any pixel type to 0..255, with fractions where it has more than 8 bits."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    values = pixels.astype(np.float32)
    if pixels.dtype == np.uint16:
        notes.append(_REDUCED)
        return values / np.float32(257.0)
    if np.issubdtype(pixels.dtype, np.floating):
        # Float files have no fixed white: only the usual 0..1 is certain, NaN fails the comparison too.
        if not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"'{path}' holds floating-point pixels outside 0..1 (or NaN): tone-map it to 8 bits per channel first"
            )
        notes.append("floating-point 0..1 stretched to 0..255")
        return values * np.float32(255.0)
    raise InputError(f"'{path}' holds {pixels.dtype} pixels: save it with 8 or 16 bits per channel, unsigned")


def _with_red_first(levels: Pixels, path: Path, notes: list[str]) -> Pixels:
    """Bring OpenCV's grey, BGR and BGRA to RGB and RGBA."""
    if levels.ndim == 2:
        notes.append(_GREY_REPEATED)
        return cast("Pixels", np.repeat(levels[:, :, None], 3, axis=2))
    if levels.shape[2] == 3:
        return levels[:, :, ::-1]
    if levels.shape[2] == 4:
        return levels[:, :, [2, 1, 0, 3]]
    raise InputError(f"'{path}' has {levels.shape[2]} channels: save it as grey, RGB or RGB with alpha")


def _rounded(values: Pixels) -> npt.NDArray[np.uint8]:
    return np.rint(values).astype(np.uint8)
