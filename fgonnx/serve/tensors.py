"""Tensors of the Open Inference Protocol: names of types, numbers in JSON, raw bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.serve.refused import RefusedError

Array = npt.NDArray[Any]

_TYPES = {
    "BOOL": np.bool_,
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}").type for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_NAMES: dict[np.dtype[Any], str] = {np.dtype(kind): name for name, kind in _TYPES.items()}
_MOST_AXES = 32
_MOST_NUMBERS = 1 << 62


def datatype_of(dtype: npt.DTypeLike) -> str:
    """Return the protocol's name of a type."""
    return _NAMES.get(np.dtype(dtype), "BYTES")


def checked_shape(shape: Any, where: str) -> tuple[int, ...]:
    """Return a shape.

    Raises
    ------
    RefusedError
        It is no list of sizes.
    """
    fine = isinstance(shape, Sequence) and not isinstance(shape, (str, bytes)) and len(shape) <= _MOST_AXES
    if (
        not fine
        or any(type(size) is not int or not 0 <= size < 1 << 31 for size in shape)
        or (0 in shape and math.prod(size or 1 for size in shape) > _MOST_NUMBERS)  # more than an array may have
    ):
        raise RefusedError(400, f'{where} has the shape {_short(shape)}: give a list of sizes such as "shape": [1, 10]')
    return tuple(shape)


def from_numbers(data: Any, datatype: str, shape: Sequence[int] | None, where: str) -> Array:
    """Return a tensor of numbers that JSON lists, row by row, nested or flat; without a shape, as they are nested.

    Raises
    ------
    RefusedError
        They are no numbers of that type, or not as many as the shape says.
    """
    dtype = _dtype(datatype, where)
    none = RefusedError(400, f"{where} does not hold numbers of {datatype} in lists of equal lengths")
    if not isinstance(data, np.ndarray) and not _is_regular(data):
        raise none
    try:
        found = np.asarray(data)
    except OverflowError as error:  # of a whole number among fractions
        raise none from error
    if found.dtype.kind not in ("b" if dtype.kind == "b" else "iuf"):
        if found.size or found.dtype.kind == "O":
            raise none
        found = found.astype(dtype)
    shape = found.shape if shape is None else shape
    if found.size != math.prod(shape):
        raise RefusedError(400, f"{where} holds {found.size} numbers: its shape {list(shape)} has {math.prod(shape)}")
    with np.errstate(over="ignore", invalid="ignore"):
        typed = found.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(typed, found):
        raise RefusedError(400, f"{where} holds numbers that {datatype} does not have")
    return typed.reshape(tuple(shape))


def _is_regular(data: Any) -> bool:
    """Tell whether nested lists have equal lengths and hold numbers alone, before an array is made of them.

    NumPy gives every text the room of the longest one.
    """
    level, axes = [data], 0
    while level and (kinds := set(map(type, level))) == {list}:
        axes += 1
        if axes > _MOST_AXES or len(set(map(len, level))) > 1:
            return False
        level = list(chain.from_iterable(level))
    return not level or kinds <= {int, float, bool}


def from_bytes(data: bytes | memoryview, datatype: str, shape: Sequence[int], where: str) -> Array:
    """Return a tensor of raw bytes, little-endian, row by row.

    Raises
    ------
    RefusedError
        There are not as many as type and shape say.
    """
    dtype = _dtype(datatype, where)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise RefusedError(400, f"{where} has {len(data)} bytes: {datatype} of the shape {list(shape)} has {wanted}")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(tuple(shape))


def to_bytes(array: Array) -> bytes:
    """Return the raw bytes of a tensor, little-endian, row by row."""
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_numbers(array: Array, where: str) -> list[Any]:
    """Return a tensor as nested lists.

    Raises
    ------
    RefusedError
        It holds what JSON has no number for.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RefusedError(422, f"{where} holds NaN or infinity, which JSON has no number for: ask for binary data")
    return array.tolist()


def _dtype(datatype: Any, where: str) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in _TYPES:
        raise RefusedError(400, f"{where} has the datatype {_short(datatype)}: choose one of {', '.join(_TYPES)}")
    return np.dtype(_TYPES[datatype])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
