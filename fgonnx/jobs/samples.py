"""Read files as samples of a model's input: pictures are preprocessed, arrays are used as they are."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx import bounds, files
from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.errors import InputError, PreprocessingError
from fgonnx.explain.shapes import as_numbers
from fgonnx.files import read_array
from fgonnx.jobs.reading import Reading, unknown_preprocessing
from fgonnx.jobs.tabular import SERIES, Named, Tabular, Whole
from fgonnx.pictures.read import audio, columns, images
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.show.arrays import finer, picture_of
from fgonnx.wording import parameter

Array = npt.NDArray[Any]
RGB = npt.NDArray[np.uint8]

SOUND_SUFFIX = ".wav"
_TEXTS = (".txt", ".dat", ".data", ".json", ".jsonl", ".md")
_HEAD = 4096  # bytes
_NAME_BYTES = 240  # of 255, which file systems allow


@dataclass(frozen=True)
class Source:
    """Where a sample is read from: a picture, a recording, or one row of an array or a table.

    Attributes
    ----------
    path : Path
        The file.
    row : int or None
        Row of an array with a batch axis or of a table, or which recording of a table.
    name : str
        Name of its output files, unique in a run.
    """

    path: Path
    row: int | None
    name: str


@dataclass(frozen=True)
class Sample:
    """A sample in memory.

    Attributes
    ----------
    source : Source
        Where it was read from.
    x : numpy array
        The input of the model, without the batch axis.
    shown : ndarray of uint8, (h, w, 3)
        The part of the picture that the model sees, for overlaying the map.
    photo : ndarray of uint8, (H, W, 3), or None
        The whole picture; None for an array.
    notes : tuple of str
        Descriptions of conversions.
    rate : float or None
        Sample rate of a recording, in Hz.
    start : int
        Its first sample that the model sees.
    frame : tuple of float or None
        Left, top, right and bottom edge of what the model sees, in pixels of the whole picture.
    named : Named or None
        Names of channels or features, where they are known.
    """

    source: Source
    x: Array
    shown: RGB
    photo: RGB | None
    notes: tuple[str, ...]
    rate: float | None = None
    start: int = 0
    frame: tuple[float, float, float, float] | None = None
    named: Named | None = None


def is_picture(path: Path) -> bool:
    """Tell whether a file is a picture: neither an array, nor sound, nor a table."""
    return path.suffix.lower() not in (".npy", SOUND_SUFFIX, *columns.SUFFIXES)


def is_text(path: Path) -> bool:
    """Tell whether a file that is named as text is text."""
    if path.suffix.lower() not in _TEXTS or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"\0" not in file.read(_HEAD)


def is_table(path: Path) -> bool:
    """Tell whether a file is a table."""
    return path.suffix.lower() in columns.SUFFIXES


def is_recording(path: Path) -> bool:
    """Tell whether a file is a recording or a table."""
    return path.suffix.lower() in (SOUND_SUFFIX, *columns.SUFFIXES)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(files.read(path, InputError)).hexdigest()


def find(paths: Iterable[Path], rank: int, axis: int = 0, tables: Tabular | None = None) -> list[Source]:
    """List the samples in files, folders and patterns, each with a unique name.

    Parameters
    ----------
    paths : iterable of Path
        Pictures, recordings, folders of them, patterns, tables, and ``.npy`` arrays.
    rank : int
        Axes of the model's input, batch included; an array of that many holds several samples.
    axis : int
        Which of them is the batch.
    tables : Tabular, optional
        What reads tables.
    """
    found: list[tuple[Path, int | None]] = []
    for path in images.expand(paths, images.SUFFIXES | {SOUND_SUFFIX}):
        rows = _rows(path, rank, axis) if path.suffix.lower() == ".npy" else None
        if tables is not None and path.suffix.lower() in columns.SUFFIXES:
            rows = tables.count(path)
            rows = None if rows == 1 and not tables.is_table(tables.open(path)) else rows
        bounds.check("sample_count", len(found) + (rows or 1), f"with '{path}', the input has", InputError)
        found += [(path, None)] if rows is None else [(path, i) for i in range(rows)]
    names = unique_names(found)
    return [Source(path, row, name) for (path, row), name in zip(found, names, strict=True)]


def unique_names(found: Sequence[tuple[Path, int | None]]) -> list[str]:
    """Name samples after their file; for equal stems, suffix and folders are added until the names differ.

    They differ regardless of case, which some file systems do not tell.
    """

    def name(path: Path, row: int | None, level: int) -> str:
        parts = [path.stem] if level == 0 else [*path.parts[-level:-1], path.name.replace(".", "-")]
        return _short("-".join([*parts, *([] if row is None else [f"{row:04}"])]))

    chosen: dict[int, str] = {}
    deepest = max((len(path.parts) for path, _ in found), default=0)
    for level in range(deepest + 1):
        names = [name(path, row, level) for path, row in found]
        count = Counter(n.casefold() for n in names)
        taken = {n.casefold() for n in chosen.values()}
        for i, n in enumerate(names):
            if i not in chosen and count[n.casefold()] == 1 and n.casefold() not in taken:
                chosen[i] = n
    taken = {n.casefold() for n in chosen.values()}
    for i, (path, _) in enumerate(found):
        if i not in chosen:
            numbered = (_short(f"{path.stem}-{number:04}") for number in itertools.count(i))
            chosen[i] = next(n for n in numbered if n.casefold() not in taken)
            taken.add(chosen[i].casefold())
    return [chosen[i] for i in range(len(found))]


def _short(name: str) -> str:
    """Return a name that leaves room for the endings of its files; of a longer one, the middle becomes its hash."""
    encoded = os.fsencode(name)
    if len(encoded) <= _NAME_BYTES:
        return name
    mark = hashlib.sha256(encoded).hexdigest()[:16]
    half = _NAME_BYTES // 2 - len(mark)
    return f"{os.fsdecode(encoded[:half])}-{mark}-{os.fsdecode(encoded[-half:])}"


def _rows(path: Path, rank: int, axis: int) -> int | None:
    array = read_array(path, InputError)
    if array.ndim not in (rank, rank - 1):
        raise InputError(
            f"'{path}' holds an array of shape {array.shape}: the model's input has {rank} axes with the batch; give "
            f"{rank} axes, or {rank - 1} for one sample"
        )
    if array.ndim == rank and array.shape[axis] == 0:
        raise InputError(f"'{path}' holds an array of shape {array.shape}: its batch is empty")
    return array.shape[axis] if array.ndim == rank else None


def _as_wide(x: Array, dtype: np.dtype[Any]) -> Array:
    """Give whole numbers, as of ids, the width of the input where they fit; bytes of a picture stay as they are."""
    if x.dtype == dtype or x.dtype.kind not in "iu" or dtype.kind not in "iu" or dtype == np.uint8 or not x.size:
        return x
    limits = np.iinfo(dtype)
    return x.astype(dtype) if limits.min <= x.min() and x.max() <= limits.max else x


class Reader:
    """Reads samples for one input of a model.

    Parameters
    ----------
    graph_input : ir.Value
        The input.
    preprocessing : Preprocessing, optional
        Complete; needed for pictures.
    reading : Reading
        How recordings are read.
    axis : int
        Which axis of an array is the batch.
    layout : callable, optional
        Takes the sizes of one sample; returns the layout of the input, samples first.
    """

    def __init__(
        self,
        graph_input: ir.Value,
        preprocessing: Preprocessing | None,
        reading: Reading | None = None,
        *,
        axis: int = 0,
        layout: Callable[[tuple[int, ...]], str] | None = None,
    ) -> None:
        self.axis = axis
        self.name = str(graph_input.name)
        self.dims = dims_of(graph_input)
        self.dtype = dtype_of(graph_input).numpy()
        self.preprocessing = preprocessing
        self.reading = reading or Reading()
        self.tables = Tabular(self.name, self.dims, self.reading, layout)

    def read(self, source: Source) -> Sample:
        """Read one sample.

        Raises
        ------
        InputError
            The file cannot be read, or does not fit the input; the message names it.
        PreprocessingError
            It is a picture and the preprocessing is not known.
        """
        if source.path.suffix.lower() == ".npy":
            array = read_array(source.path, InputError)
            row = array if source.row is None else np.take(array, source.row, axis=self.axis)
            return self.prepared(np.array(row), source)
        if source.path.suffix.lower() in columns.SUFFIXES:
            return self.of_table(source.path, source)
        if source.path.suffix.lower() == SOUND_SUFFIX:
            recording, s = audio.read(source.path), self.reading
            x, notes = audio.prepare(recording, self.dims, rate=s.rate, channel=s.channel, span=s.span)
            self._check(x, source)
            start, named = s.span[0] if s.span else 0, self._named(x, source)
            return Sample(source, x, self.shown(x), None, notes, recording.rate, start, named=named)
        return self.of_picture(images.read(source.path), source)

    def _named(self, x: Array, source: Source) -> Named | None:
        """Return what the channels of an array are called, where they have names.

        Raises
        ------
        InputError
            There are not as many.
        """
        names, units, axes = self.reading.channels, self.reading.units, self.reading.axes
        if axes is not None:
            return Named(SERIES, names or (), units or "", axes=axes)
        if names is None and units is None:
            return None
        if names is not None and (x.ndim > 2 or len(names) not in (x.shape if x.ndim == 2 else (1,))):
            raise InputError(
                f"'{source.path}': {parameter('channels', ','.join(names))} names {len(names)} channels, and the array "
                f"is {x.shape}; name every channel, in order"
            )
        return Named(SERIES, names or (), units or "")

    def of_table(self, table: Path | columns.Columns, source: Source) -> Sample:
        """Return one sample of a table: a row, or a recording.

        Raises
        ------
        InputError
            It does not fit the input.
        """
        values, named, notes = self.tables.sample(table, source.row or 0)
        if self.dtype.kind != "f":
            raise InputError(f"'{source.path}' is a table of numbers, and the input '{self.name}' is {self.dtype}")
        x = values.astype(self.dtype)
        self._check(x, source)
        start = self.reading.span[0] if self.reading.span and named.kind == SERIES else 0
        return Sample(source, x, self.shown(x), None, notes, named.rate, start, named=named)

    def whole(self, source: Source) -> Whole:
        """Read a recording of any length.

        Raises
        ------
        InputError
            It is none, or has other channels or another rate than the model takes.
        """
        suffix, given = source.path.suffix.lower(), self.reading
        if suffix in columns.SUFFIXES:
            return self.tables.recording(source.path, source.row or 0)
        start = given.span[0] if given.span else 0
        if suffix == SOUND_SUFFIX:
            recording = audio.read(source.path)
            samples, notes = audio.chosen(recording, self.dims, rate=given.rate, channel=given.channel, span=given.span)
            return Whole(samples, recording.rate, start, self._named(samples, source), notes)
        if suffix != ".npy":
            raise InputError(f"'{source.path}' is a picture: windows slide over recordings")
        array = read_array(source.path, InputError)
        if source.row is not None:
            array = np.take(array, source.row, axis=self.axis)
        if array.ndim > 2 or array.dtype.kind not in "fiu":
            raise InputError(
                f"'{source.path}' is {array.dtype} {array.shape}: windows slide over (channels, T) numbers"
            )
        if not np.isfinite(array).all():
            raise InputError(f"'{source.path}' holds NaN or infinity: fix the array")
        wanted = [d for d in self.dims[1:] if isinstance(d, int)]
        turned = array.ndim == 2 and array.shape[0] > array.shape[1] and array.shape[1] in wanted
        values = np.atleast_2d(array.T if turned else array)
        return Whole(values, given.rate, start, self._named(values, source))

    def of_picture(self, picture: images.Picture, source: Source) -> Sample:
        """Return a decoded picture as a sample.

        Raises
        ------
        InputError
            It does not fit the input.
        PreprocessingError
            The preprocessing is not known.
        """
        if self.preprocessing is None:
            raise PreprocessingError(unknown_preprocessing())
        pixels, notes = picture.fit(self.preprocessing.channels, self.preprocessing.dtype)
        x = self.preprocessing.apply(pixels)
        self._check(x, source)
        shown = finer(self.preprocessing, picture.rgb).to_display(picture.rgb)
        frame = self.preprocessing.frame(picture.rgb.shape)
        return Sample(source, x, shown, picture.rgb, notes, frame=frame)

    def prepared(self, x: Array, source: Source) -> Sample:
        """Return a preprocessed array as a sample.

        Raises
        ------
        InputError
            Its shape or type does not match the input.
        """
        x = _as_wide(x, self.dtype)
        self._check(x, source)
        named = self._named(x, source)
        rate = None if named is None else self.reading.rate
        return Sample(source, x, self.shown(x), None, (), rate, named=named)

    def fits(self, shape: Sequence[int]) -> bool:
        """Tell whether one sample of the input may have a shape."""
        wanted = self.dims[1:]
        return len(wanted) == len(shape) and all(
            not isinstance(d, int) or d == s for d, s in zip(wanted, shape, strict=True)
        )

    def _check(self, x: Array, source: Source) -> None:
        where = f"'{source.path}'" + ("" if source.row is None else f", sample {source.row},")
        wanted = self.dims[1:]
        if not self.fits(x.shape):
            shape = ", ".join(str(d if isinstance(d, int) else "?") for d in wanted)
            raise InputError(f"{where} has the shape {x.shape}: one sample of the input '{self.name}' is ({shape})")
        if x.dtype != self.dtype and (x.dtype.kind != "f" or self.dtype.kind != "f"):
            raise InputError(f"{where} is {x.dtype}: the input '{self.name}' is {self.dtype}; {as_numbers(x)}")
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            first = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
            raise InputError(f"{where} holds NaN or infinity, first at {first}: fix the array")

    def shown(self, x: Array, layout: str | None = None) -> RGB:
        """Make a picture of an array: by inverting the preprocessing, or stretched to the full range.

        Parameters
        ----------
        x : numpy array
            One sample.
        layout : str, optional
            Its layout with the batch in front, such as "NCHW"; guessed from sizes by default.
        """
        return picture_of(x, self.preprocessing, layout)
