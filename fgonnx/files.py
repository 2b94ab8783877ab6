"""Atomic writing of files: to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.errors import FgonnxError, OptionError


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`; the file replaces `path` when the block ends without an error.

    With `sync`, its content is on the disk before it has its name, and so is the name: a power cut leaves it whole.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if sync:
            _synced(temporary)
        temporary.replace(path)
        if sync and os.name == "posix":
            _synced(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _synced(path: Path) -> None:
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises
    ------
    OptionError
        If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def check_folder(path: Path) -> None:
    """Refuse a file where a folder of results is meant.

    Raises
    ------
    OptionError
        If there is a file of that name.
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"'{path}' is a file; give a folder to write to")


def read_array(path: str | os.PathLike[str], error: type[FgonnxError] = OptionError) -> npt.NDArray[Any]:
    """Read an array of numbers from a .npy file.

    Raises
    ------
    FgonnxError
        Of the given type, if there is no such file, or it holds something else.
    """
    try:
        found: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        why = (
            problem.strerror if isinstance(problem, OSError) and problem.strerror else "it is not a numeric .npy array"
        )
        raise error(f"'{os.fspath(path)}' cannot be read: {why}; write it with numpy.save") from problem
    return found


class FileArray(npt.NDArray[Any]):
    """An array that knows the file it was read from, so that a record can name it.

    Attributes
    ----------
    file : str
        The file; "" for arrays that were computed from one.
    """

    file: str = ""


def read_named(path: str | os.PathLike[str], error: type[FgonnxError] = OptionError) -> FileArray:
    """Read an array of numbers from a .npy file, which it remembers; raises as `read_array`."""
    found = read_array(path, error).view(FileArray)
    found.file = os.fspath(path)
    return found


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write an object as JSON, keys in insertion order; NaN and infinity are errors."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as .npy."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        np.save(file, array, allow_pickle=False)


def unwritable(path: Path, error: OSError) -> OptionError:
    """Return the error for a file that cannot be written."""
    return OptionError(f"'{path}' cannot be written: {error.strerror or error}; choose another place")
