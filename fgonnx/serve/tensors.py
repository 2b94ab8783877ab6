"""Tensors of the Open Inference Protocol: names of types, numbers in JSON, raw bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    if not fine or any(type(size) is not int or not 0 <= size < 1 << 31 for size in shape):
        raise RefusedError(400, f'{where} has the shape {_short(shape)}: give a list of sizes such as "shape": [1, 10]')
    return tuple(shape)


def from_numbers(data: Any, datatype: str, shape: Sequence[int], where: str) -> Array:
    """Return a tensor of numbers that JSON lists, row by row, nested or flat.

    Raises
    ------
    RefusedError
        They are no numbers of that type, or not as many as the shape says.
    """
    dtype = _dtype(datatype, where)
    try:
        found = np.asarray(data)
    except ValueError:  # lists of different lengths
        found = np.asarray(None)
    if found.dtype.kind not in ("b" if dtype.kind == "b" else "iuf"):
        if found.size or found.dtype.kind == "O":
            raise RefusedError(400, f"{where} does not hold numbers of {datatype} in lists of equal lengths")
        found = found.astype(dtype)
    if found.size != math.prod(shape):
        raise RefusedError(400, f"{where} holds {found.size} numbers: its shape {list(shape)} has {math.prod(shape)}")
    with np.errstate(over="ignore", invalid="ignore"):
        typed = found.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(typed, found):
        raise RefusedError(400, f"{where} holds numbers that {datatype} does not have")
    return typed.reshape(tuple(shape))


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
