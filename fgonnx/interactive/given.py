"""What a user gives as samples, of whatever kind, as arrays for a model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import InputError, PreprocessingError
from fgonnx.jobs.reading import unknown_preprocessing
from fgonnx.jobs.samples import Reader, Sample, Source, digest, find, is_table
from fgonnx.jobs.tabular import Tabular
from fgonnx.pictures.read import images
from fgonnx.pictures.read.columns import Columns

Array = npt.NDArray[Any]

_PIXELS = ("uint8", "uint16")
_PICTURE_RANK = 4
_CHANNELS = (1, 3, 4)
_STEPS = {"La": "LA", "RGBa": "RGBA"}
"""Modes of PIL that become RGB through another one."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ARRAY = Source(Path("array"), None, "array")


@dataclass(frozen=True)
class Given:
    """Samples for a model.

    Attributes
    ----------
    x : numpy array, or mapping of input names to arrays
        What the model takes: with samples first if `samples` is there, else in the model's own layout.
    samples : tuple of Sample or None
        Where the samples come from, one each; None for arrays that the caller made for the model.
    digests : tuple of str or None
        SHA-256 of the file of each, as it was read; None of what was no file.
    notes : tuple of str
        What was done to the arrays.
    """

    x: Array | Mapping[str, Array]
    samples: tuple[Sample, ...] | None = None
    digests: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()


def given(x: Any, reader: Reader, rank: int) -> Given:
    """Return samples as arrays for a model.

    Parameters
    ----------
    x : path, picture, array, tensor, or iterable of those
        As for `Explainer.__call__`.
    reader : Reader
        Reads samples for the input that is explained.
    rank : int
        Axes of that input, in the model's own layout.

    Raises
    ------
    InputError
        Something is no sample of the input, or samples differ in size.
    PreprocessingError
        There is a picture, and the preprocessing is not known.
    """
    try:
        arrays = _of_arrays(x)
    except RecursionError as error:
        raise InputError(f"a {type(x).__name__} that holds itself is no sample") from error
    if arrays:
        array = array_of(x)
        if not _is_picture(array, reader):
            return _with_batch(array, reader, rank)
        x = list(array) if array.ndim == 4 else [array]
    found = list(samples_of(x, reader))
    samples = [sample for sample, _ in found]
    if not samples:
        raise InputError("there is nothing to explain: give at least one sample")
    odd = next((s for s in samples if s.x.shape != samples[0].x.shape), None)
    if odd is not None:
        raise InputError(
            f"samples of one call have one size: {_named(samples[0])} is {samples[0].x.shape}, {_named(odd)} is "
            f"{odd.x.shape}; explain them one by one, or by Explainer.stream"
        )
    return Given(np.stack([s.x for s in samples]), tuple(samples), tuple(read for _, read in found))


def array_of(x: Any) -> Array:
    """Return an array or a tensor of any framework as a numpy array, from whatever device it is on."""
    if isinstance(x, np.ndarray):
        return x
    # A tensor that takes part in automatic differentiation, or lies on a device, has no numpy array before this.
    try:
        for release in ("detach", "cpu"):
            x = getattr(x, release, lambda x=x: x)()
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        if str(getattr(x, "dtype", "")).endswith("bfloat16"):
            raise InputError(
                f"a {type(x).__name__} of bfloat16 has no numpy array: give it as float32, with .float()"
            ) from error
        raise InputError(f"{type(x).__name__} cannot be read as an array: {error}; give a numpy array") from error


def _of_arrays(x: Any) -> bool:
    """Tell whether something is an array or a tensor, or numbers in lists."""
    if isinstance(x, (list, tuple)):
        return bool(x) and all(isinstance(item, (int, float)) or (_is_list(item) and _of_arrays(item)) for item in x)
    if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "UO":  # a column of paths
        return not all(isinstance(item, (str, os.PathLike)) for item in x)
    return (
        not _is_image(x)
        and not _is_table(x)
        and not _is_frame(x)
        and (hasattr(x, "__array__") or hasattr(x, "__dlpack__"))
    )


def _is_list(x: Any) -> bool:
    return isinstance(x, (list, tuple))


def _is_image(x: Any) -> bool:
    """Tell whether something is an image of PIL, which need not be imported to tell."""
    return hasattr(x, "getbands") and hasattr(x, "convert")


def _is_table(x: Any) -> bool:
    """Tell whether something is a column of a table whose entries are paths, pictures or arrays."""
    return hasattr(x, "to_list") and getattr(getattr(x, "dtype", None), "kind", "O") not in "fiub"


def _is_frame(x: Any) -> bool:
    """Tell whether something is a whole table, of pandas or polars, which need not be imported to tell."""
    return hasattr(x, "columns") and (hasattr(x, "itertuples") or hasattr(x, "iter_rows"))


def _columns_of(frame: Any) -> Columns:
    """Return a table of pandas or polars as one of text."""
    rows = frame.iter_rows() if hasattr(frame, "iter_rows") else frame.itertuples(index=False, name=None)
    cells = [["" if v is None else str(float(v) if isinstance(v, bool) else v) for v in row] for row in rows]
    if not cells:
        raise InputError("the table has no rows: there is nothing to explain")
    index = getattr(frame, "index", None)  # which polars has none of
    names = tuple(str(name) for name in frame.columns)
    return Columns(names, cells, Path("table"), 0, counted="row", index=index)


def _the_column(frame: Any) -> Any:
    """Return the one column of a table for a model of pictures.

    Raises
    ------
    InputError
        It has several, with what to write.
    """
    names = list(frame.columns)
    if len(names) == 1:
        return frame[names[0]]
    texts = [name for name in names if any(isinstance(v, (str, os.PathLike)) for v in frame[name])]
    raise InputError(
        f"the model takes pictures, and the table has {len(names)} columns: give the one that holds them, as "
        f"table[{(texts or names)[0]!r}]"
    )


def holds_rows(x: Any, tables: Callable[[], Tabular]) -> bool:
    """Tell whether something is a table of which every row is a sample, to what reads tables."""
    if _is_frame(x):
        return tables().is_table(_columns_of(x))
    if isinstance(x, (str, os.PathLike)) and is_table(Path(x)) and Path(x).is_file():
        reader = tables()
        return reader.is_table(reader.open(Path(x)))
    return False


def _is_picture(array: Array, reader: Reader) -> bool:
    """Tell whether an array holds pixels for a model that takes floating-point pictures."""
    if array.dtype.name not in _PIXELS or array.ndim not in (2, 3, 4):
        return False
    if array.ndim > 2 and array.shape[-1] not in _CHANNELS:
        return False
    return reader.dtype.kind == "f" and (reader.preprocessing is not None or len(reader.dims) == 4)


def _with_batch(array: Array, reader: Reader, rank: int) -> Given:
    """Give a single sample the batch axis that it lacks; what is none is left to the one who runs it to refuse."""
    if array.dtype == np.float64 and reader.dtype.kind == "f" and reader.dtype.itemsize < 8:
        array = array.astype(reader.dtype)
    if array.ndim != rank - 1 or not reader.fits(array.shape):
        return Given(array)
    return Given(
        array[None],
        (reader.prepared(array.copy(), _ARRAY),),
        (None,),
        (f"one sample of shape {array.shape}: taken as a batch of one",),
    )


def samples_of(x: Any, reader: Reader) -> Iterator[tuple[Sample, str | None]]:
    """Read what is no array: paths, pictures, and any number of them; yield the hash of each one's file, too."""
    if _is_frame(x) and len(reader.dims) == _PICTURE_RANK:
        yield from samples_of(_the_column(x), reader)
    elif _is_frame(x):
        table = _columns_of(x)
        for number in range(reader.tables.count(table)):
            yield reader.of_table(table, Source(table.path, number, f"{table.path}-{number:04}")), None
    elif isinstance(x, str) and _ADDRESS.match(x):
        raise InputError(f"'{x}' is an address, and nothing is fetched: give the path of a file that you downloaded")
    elif isinstance(x, (str, os.PathLike)):
        for source in find([Path(x)], len(reader.dims), reader.axis, reader.tables):
            read = digest(source.path)
            yield reader.read(source), read
    elif _is_image(x):
        name = getattr(x, "filename", "")
        yield _pictured(_pixels(x), reader, name if isinstance(name, str) and name else "picture"), None
    elif isinstance(x, (bytes, bytearray, memoryview)) or hasattr(x, "read"):
        raise InputError("bytes and open files are no sample: of a picture, give PIL.Image.open(io.BytesIO(data))")
    elif isinstance(x, Mapping):
        raise InputError("inputs by name are given as one mapping of arrays, not in a list")
    elif _of_arrays(x):
        array = array_of(x)
        if _is_picture(array, reader) and array.ndim < 4:
            yield _pictured(array, reader, "picture"), None
        else:
            yield (
                reader.prepared(array.astype(reader.dtype if array.dtype == np.float64 else array.dtype), _ARRAY),
                None,
            )
    elif isinstance(x, Iterable):
        for item in x:
            yield from samples_of(item, reader)
    else:
        raise InputError(f"{type(x).__name__} is no sample: give a path, a picture, an array, or several of them")


def _pictured(pixels: Array, reader: Reader, name: str) -> Sample:
    if reader.preprocessing is None:
        raise PreprocessingError(unknown_preprocessing())
    path = Path(name)
    return reader.of_picture(images.of_pixels(pixels, path), Source(path, None, path.stem))


def _pixels(image: Any) -> Array:
    """Return an image of PIL upright, as pixels."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in _STEPS:
        image = image.convert(_STEPS[image.mode])
    if image.mode not in ("L", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        transparent = image.mode in ("PA", "LA") or "transparency" in image.info
        image = image.convert("L" if image.mode == "1" else "RGBA" if transparent else "RGB")
    pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _named(sample: Sample) -> str:
    return f"'{sample.source.path}'"
