"""Plots of explanations that are no photos: sound and other sequences over time, volumes in three planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError
from fgonnx.opencv import cv2
from fgonnx.pictures.show import visual
from fgonnx.pictures.show.sheet import FAINT, INK, NEGATIVE, POSITIVE, RGB, RULE, Certificate, Sheet, resized

Array = npt.NDArray[Any]

_WIDTH, _MARGIN = 520, 14  # of a plot over time, in units of 1/360 of the height
_SIDE, _HEIGHT = 64, 480  # room for the name of the axis that goes up, and pixels of a spectrogram


def sequence(
    values: Array,
    saliency: Array,
    certificate: Certificate,
    *,
    signed: bool = False,
    height: int = 480,
    rate: float | None = None,
    start: int = 0,
) -> RGB:
    """Draw a sequence, its map below it on the same time axis, and the certificate beside them.

    Parameters
    ----------
    values : numpy array, (T,) or (channels, T)
        The sequence: one channel is drawn as a wave, several as rows of brightness.
    saliency : numpy array, (T,)
        The map.
    certificate, signed, height
        As for `fgonnx.pictures.show.visual.panel`.
    rate : float, optional
        Positions per second; positions are counted without it.
    start : int
        Position of the first value in the recording.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels.

    Raises
    ------
    InputError
        The lengths differ, or a number is NaN or infinite.
    OptionError
        The height is too small.
    """
    certificate.checked(height)
    rows = np.atleast_2d(np.asarray(values, np.float64))
    map_ = np.asarray(saliency, np.float64)
    if rows.ndim != 2 or map_.shape != rows.shape[1:] or not rows.size:
        raise InputError(f"a sequence of shape {rows.shape} and a map of shape {map_.shape} do not belong together")
    if not (np.isfinite(rows).all() and np.isfinite(map_).all()):
        raise InputError("the sequence or its map holds NaN or infinity: check the model's weights and its input")
    sheet = Sheet(height, round((_WIDTH + 2 * _MARGIN) * height / 360))
    left, right = _MARGIN, _MARGIN + _WIDTH
    sheet.write("input", left, 24, 10, FAINT)
    if len(rows) == 1:
        wave_of(sheet, rows[0], left, 32, right, 172)
    else:
        sheet.box(left, 32, right, 172, _brightness(rows))
    sheet.write("explanation", left, 196, 10, FAINT)
    visual.legend(sheet, right, 187, _WIDTH, signed)
    cells = columns(map_, round(_WIDTH * sheet.unit))
    sheet.box(left, 203, right, 233, visual.heat(cells[None], signed=signed))
    curve(sheet, cells, left, 240, right, 322)
    time_axis(sheet, left, right, 324, len(map_), rate, start)
    return sheet.certified(certificate)


def spectrogram(
    values: Array,
    saliency: Array,
    certificate: Certificate,
    *,
    signed: bool = False,
    axes: tuple[str, str] = ("frequency", "time"),
    rate: float | None = None,
) -> RGB:
    """Draw a spectrogram and its map below it, time across and frequency up, and the certificate beside them.

    Parameters
    ----------
    values, saliency : numpy array, (F, T)
        The spectrogram, the lowest frequency first, and its map.
    certificate, signed
        As for `fgonnx.pictures.show.visual.panel`.
    axes : (str, str)
        What is up, and what across.
    rate : float, optional
        Positions per second; positions are counted without it.

    Returns
    -------
    ndarray of uint8, shape (480, width, 3)
        RGB pixels.

    Raises
    ------
    InputError
        The shapes differ, or a number is NaN or infinite.
    """
    rows, map_ = np.asarray(values, np.float64), np.asarray(saliency, np.float64)
    certificate.checked(_HEIGHT)
    if rows.ndim != 2 or rows.shape != map_.shape or not rows.size or not np.isfinite([rows, map_]).all():
        raise InputError(f"a spectrogram of shape {rows.shape} and a map of shape {map_.shape} do not belong together")
    sheet = Sheet(_HEIGHT, round((_WIDTH + _SIDE + 2 * _MARGIN) * _HEIGHT / 360))
    left, right = _MARGIN + _SIDE, _MARGIN + _SIDE + _WIDTH
    pictures = ((_brightness(rows), "input", 30), (_steps(visual.heat(map_[::-1], signed=signed)), "explanation", 188))
    for picture, name, top in pictures:
        sheet.write(name, left, top - 8, 10, FAINT)
        sheet.box(left, top, right, top + 132, picture)
        sheet.write(sheet.fitted(axes[0], _SIDE - 6, 9), left - 6, top + 68, 9, FAINT, right=True)
        for text, y in ((f"{len(rows) - 1}", top + 8), ("0", top + 132)):
            sheet.write(text, left - 6, y, 9, FAINT, right=True)
    visual.legend(sheet, right, 170, _WIDTH, signed)
    time_axis(sheet, left, right, 322, rows.shape[1], rate, 0)
    sheet.write(axes[1], right, 350, 9, FAINT, right=True)
    return sheet.certified(certificate)


def _steps(picture: RGB) -> RGB:
    """Enlarge a small picture by whole steps, so that its cells stay cells."""
    factor = max(1, 320 // picture.shape[0]), max(1, 1040 // picture.shape[1])
    return np.ascontiguousarray(np.kron(picture, np.ones((*factor, 1), np.uint8)))


def columns(map_: Array, width: int) -> Array:
    """Bring a map to the columns of a picture: means where it is longer, steps where it is shorter."""
    edges = np.arange(width) * len(map_) // width
    return np.asarray(np.add.reduceat(map_, edges) / np.maximum(np.diff([*edges, len(map_)]), 1))


def wave_of(sheet: Sheet, wave: Array, left: float, top: float, right: float, bottom: float) -> None:
    """Draw a wave: what it reaches within every column, which ends where the next begins, so that it stays whole."""
    width, count = round((right - left) * sheet.unit), len(wave)
    if count <= width:
        wave = np.interp((np.arange(2 * width) + 0.5) / (2 * width) * count - 0.5, np.arange(count), wave)
    edges = np.arange(width) * len(wave) // width
    ends = wave[[*edges[1:], -1]]
    low = np.minimum(np.minimum.reduceat(wave, edges), ends)
    high = np.maximum(np.maximum.reduceat(wave, edges), ends)
    middle, half = (top + bottom) / 2, (bottom - top) / 2 / max(float(np.abs(wave).max()), 1e-30)
    sheet.box(left, middle - 0.25, right, middle + 0.25, RULE)
    sheet.area(left, middle - high * half - 0.4, middle - low * half + 0.4, INK)


def curve(sheet: Sheet, columns: Array, left: float, top: float, right: float, bottom: float) -> None:
    """Draw the map as an area over its zero."""
    low, high = min(0.0, float(columns.min())), max(0.0, float(columns.max()))
    scale = (bottom - top) / ((high - low) or 1.0)
    zero = top + high * scale
    base = np.full(len(columns), zero)
    sheet.area(left, zero - columns.clip(min=0) * scale, base, POSITIVE)
    sheet.area(left, base, zero - columns.clip(max=0) * scale, NEGATIVE)
    sheet.box(left, zero - 0.25, right, zero + 0.25, FAINT)


def time_axis(sheet: Sheet, left: float, right: float, y: float, count: int, rate: float | None, start: int) -> None:
    """Write five times under a plot."""
    for i in range(5):
        position = start + count * i / 4
        text = f"{position:.8g}" if rate is None else f"{position / rate:.4g} s"
        x = left + (right - left) * i / 4
        sheet.box(x - 0.25, y, x + 0.25, y + 4, FAINT)
        at = x - sheet.extent(text, 9) * i / 4
        sheet.write(text, at, y + 15, 9, FAINT)
    if rate is None:
        sheet.write("step", left, y + 28, 9, FAINT)


def _brightness(rows: Array) -> RGB:
    """Show channels over time as a grey picture, the first at the bottom."""
    low, high = (float(np.percentile(rows, p)) for p in (1, 99))
    level = np.clip((rows[::-1] - low) / ((high - low) or 1.0), 0, 1)
    pixels = np.repeat(np.rint(level * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return _steps(pixels)  # not blends: neighbouring channels are different things


def volume(
    values: Array,
    saliency: Array,
    certificate: Certificate,
    *,
    signed: bool = False,
    height: int = 480,
) -> RGB:
    """Draw three planes through the strongest place of a map, without and with the map, and the certificate.

    Parameters
    ----------
    values, saliency : numpy array, (D, H, W)
        The volume and its map.
    certificate, signed, height
        As for `fgonnx.pictures.show.visual.panel`.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB pixels.

    Raises
    ------
    InputError
        The shapes differ, or a number is NaN or infinite.
    OptionError
        The height is too small.
    """
    certificate.checked(height)
    grey, map_ = np.asarray(values, np.float64), np.asarray(saliency, np.float64)
    if grey.ndim != 3 or grey.shape != map_.shape or not np.isfinite(grey).all():
        raise InputError(f"a volume of shape {grey.shape} and a map of shape {map_.shape} cannot be drawn together")
    level = visual.scaled(map_.reshape(len(map_), -1), signed, 99.5).reshape(map_.shape)
    spread = float(grey.max() - grey.min()) or 1.0
    pixels = np.rint((grey - grey.min()) / spread * 255).astype(np.uint8)
    strongest = np.unravel_index(int(np.abs(map_).argmax()), map_.shape)
    sheet = Sheet(height, round((3 * 158 + _MARGIN) * height / 360))
    for axis, name in enumerate("zyx"):
        left = _MARGIN + axis * 158
        index = int(strongest[axis])
        planes = np.take(pixels, index, axis), np.take(level, index, axis)
        size = planes[0].shape
        fine = tuple(max(1, round(144 * sheet.unit * side / max(size))) for side in size)
        photo = resized(np.repeat(planes[0][:, :, None], 3, axis=2), fine)
        stretched = np.asarray(cv2.resize(planes[1], fine[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        for top, picture in ((14, photo), (172, visual.blend(photo, stretched, 0.85, signed=signed))):
            sheet.place(picture, round(left * sheet.unit), round(top * sheet.unit))
        sheet.write(f"{name} = {index}", left, 334, 10, FAINT)
    visual.legend(sheet, _MARGIN + 2 * 158 + 144, 339, 158, signed)
    return sheet.certified(certificate)
