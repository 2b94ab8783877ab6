"""Lazy weights: they stay in their model file and are read on each access, without being cached.

A session has its own copy of every weight, packed for the processor. A second copy in memory would not be read until
another session is created.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fgonnx.errors import ModelError

# Numbers of protobuf fields (onnx.proto): ModelProto.graph, GraphProto.initializer, TensorProto.name and .raw_data.
_GRAPH, _INITIALIZER, _NAME, _RAW = 7, 5, 8, 9
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class ModelFile:
    """A file that is kept open, so that it can be read after it has been deleted or replaced.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = self._size_and_time()

    def content(self) -> bytes:
        """Return the whole content."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def tensor(self, name: str, offset: int, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.LazyTensor:
        """Return a tensor that reads its content from the file on each access.

        Reading raises `ModelError` if the file has been written to since it was opened.
        """

        def read() -> ir.TensorProtocol:
            kind = dtype.numpy()
            array = np.frombuffer(self.read(offset, math.prod(shape) * kind.itemsize), kind)
            return ir.Tensor(array.reshape(shape), name=name)

        return ir.LazyTensor(read, dtype, ir.Shape(shape), name=name)

    def read(self, offset: int, count: int) -> mmap.mmap:
        """Read `count` bytes (at least 1) into pages of their own: the heap would not return them to the system."""
        content = mmap.mmap(-1, count)
        done = 0
        with memoryview(content) as view:
            while done < count and (got := os.preadv(self._descriptor, [view[done:]], offset + done)):
                done += got
        if done < count or self._size_and_time() != self._stamp:
            raise ModelError(f"{self._path}: has been written to since it was loaded; load it again")
        return content

    def _size_and_time(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns


def opened(path: Path) -> ModelFile | None:
    """Open a file to leave weights in; None if it is not a regular file, such as a pipe, or cannot be opened.

    None on Windows, which has no positional read and does not allow an open file to be deleted.
    """
    if not hasattr(os, "preadv") or not path.is_file():
        return None
    with contextlib.suppress(OSError):
        return ModelFile(path)
    return None


def raw_places(content: bytes) -> dict[str, int]:
    """Return the offsets of the raw data of initializers in a serialised model, by name.

    Empty where the file holds fields of kinds that ONNX does not have: its weights are not left in it.
    """
    try:
        return _raw_places(content)
    except (KeyError, IndexError, UnicodeDecodeError):
        return {}


def _raw_places(content: bytes) -> dict[str, int]:
    found = {}
    for graph in _spans(content, (0, len(content)), _GRAPH):
        for initializer in _spans(content, graph, _INITIALIZER):
            names, data = (list(_spans(content, initializer, field)) for field in (_NAME, _RAW))
            if names and data:
                found[content[slice(*names[-1])].decode()] = data[-1][0]
    return found


def _spans(content: bytes, within: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the length-delimited fields with one number in a protobuf message.

    See https://protobuf.dev/programming-guides/encoding.
    """
    at, end = within
    while at < end:
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, at = _varint(content, at)
        elif kind == _LENGTH:
            length, at = _varint(content, at)
            if number == wanted:
                yield at, at + length
            at += length
        else:
            at += {_FIXED64: 8, _FIXED32: 4}[kind]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Decode a base-128 varint; return its value and the offset after it."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
