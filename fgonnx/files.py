"""Regular files: written to a temporary name in the same folder and then renamed, and read within bounds."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import stat
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fgonnx import bounds
from fgonnx.errors import FgonnxError, OptionError
from fgonnx.wording import closest, first_line, in_utf8

TEMPORARY = ".fgonnx-"
"""What temporary names begin with. They are short: a name of the longest kind leaves no room for more."""

_LOOKED_AT = 10_000  # names of a folder, for one that is like a misspelt one
# A pipe that nobody writes to would wait for ever.
_PLAIN = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link that leads back to itself",
}


def kind_of(mode: int) -> str:
    """Return what a file is that is not a regular one: "a folder", "a named pipe"; else an empty text."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def destination(path: Path) -> Path:
    """Return the file that is replaced where `path` is written: what a symbolic link leads to, as in an editor.

    Raises
    ------
    OptionError
        It is there and is no regular file.
    """
    try:
        found = Path(os.path.realpath(path))
        what = kind_of(found.lstat().st_mode)
    except FileNotFoundError:
        return found
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    if what:
        raise OptionError(f"'{path}' is {what}, which is not replaced; give the name of a file")
    return found


def temporary_of(path: Path, mark: str) -> Path:
    """Return a temporary name of a file, next to it; with "*" as the mark, the pattern of them all."""
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.with_name(f"{TEMPORARY}{name}.{mark}.tmp")


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary name next to `path`; the file replaces `path` when the block ends without an error.

    With `sync`, its content is on the disk before it has its name, and so is the name: a power cut leaves it whole.

    Raises
    ------
    OptionError
        If it cannot be written, or what is there is no regular file.
    """
    target = destination(path)
    temporary = temporary_of(target, uuid.uuid4().hex)
    try:
        yield temporary
        if sync:
            _synced(temporary)
        destination(path)  # it may have come meanwhile
        temporary.replace(target)
        if sync and os.name == "posix":
            _synced(target.parent)
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


def make_folder(path: Path, *, private: bool = False) -> None:
    """Create a folder and its parents; a private one is its owner's alone (mode 700).

    Raises
    ------
    OptionError
        If it cannot be created.
    """
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def check_folder(path: Path) -> None:
    """Refuse a file where a folder of results is meant.

    Raises
    ------
    OptionError
        If there is a file of that name.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise OptionError(f"'{path}' is a file; give a folder to write to")


def read(path: str | os.PathLike[str], error: type[FgonnxError], what: str = "", *, bound: str = "data_bytes") -> bytes:
    """Read a regular file.

    Parameters
    ----------
    path : path-like
        The file.
    error : type
        The exception to raise.
    what : str
        What it is, for messages, such as "label file".
    bound : str
        The bound of its size, a field of `fgonnx.Bounds`.

    Raises
    ------
    FgonnxError
        There is no such file, it cannot be read, is no regular file, or is larger than the bound.
    """
    name = f"{what} '{os.fspath(path)}'".strip()
    with _opened(path, name, error) as (file, size):
        bounds.check(bound, size, f"{name} has", error)
        return file.read(size)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], name: str, error: type[FgonnxError]) -> Iterator[tuple[IO[bytes], int]]:
    """Yield a regular file and its size; what the system says meanwhile becomes an error of the given type."""
    try:
        number = os.open(path, os.O_RDONLY | _PLAIN)
        status = os.fstat(number)
        if what := kind_of(status.st_mode):  # Python opens no folder
            os.close(number)
            raise error(f"{name} is {what}: name a file")
        with open(number, "rb") as file:
            yield file, status.st_size
    except OSError as problem:
        raise unreadable(name, problem, error) from problem
    except ValueError as problem:
        if "\x00" not in os.fspath(path) and not isinstance(problem, UnicodeEncodeError):
            raise
        raise unreadable(name, problem, error) from problem


def beside(folder: Path | None, *names: str) -> list[Path]:
    """Return the files of those names beside a model, or above a folder ``onnx`` that it is in."""
    if folder is None:
        return []
    places = (folder, folder.parent) if folder.name == "onnx" else (folder,)
    return [file for place in places for name in names if (file := place / name).is_file()]


def read_text(path: str | os.PathLike[str], error: type[FgonnxError], what: str) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark; raises as `read`, and for anything else."""
    content = read(path, error, what, bound="text_bytes")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise error(f"{what} '{os.fspath(path)}' is not UTF-8 text: save it as UTF-8") from None


def parsed(text: str, where: str, error: type[FgonnxError]) -> Any:
    """Return what JSON holds.

    Raises
    ------
    FgonnxError
        It is not JSON, or is nested deeper than the bound.
    """
    bounds.check_nesting(text, where, error)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        why = f"line {problem.lineno}: {problem.msg}" if isinstance(problem, json.JSONDecodeError) else str(problem)
        raise error(f"{where} is not valid JSON, {why}") from problem


def near_name(path: str | os.PathLike[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for what lies beside a path that there is not and is called nearly the same."""
    folder, name = os.path.split(os.fspath(path))
    try:
        with os.scandir(folder or os.curdir) as entries:
            there = [entry.name for entry in itertools.islice(entries, _LOOKED_AT)]
    except (OSError, ValueError):
        return ""
    stem, ending = os.path.splitext(name)
    alike = [other[: len(other) - len(ending)] for other in there if os.path.splitext(other)[1] == ending]
    found = closest(stem, (in_utf8(other) for other in alike))
    return f" (did you mean '{found[0]}{ending}'?)" if found else ""


def unreadable(name: str, problem: OSError | ValueError, error: type[FgonnxError]) -> FgonnxError:
    """Return the error for a file that cannot be read."""
    if isinstance(problem, FileNotFoundError):
        return error(f"{name} does not exist: check the spelling and the working folder")
    if isinstance(problem, ValueError):
        return error(f"{name} cannot be read: no file has such a name ({problem})")
    advice = "check its permissions" if isinstance(problem, PermissionError) else "name another file"
    return error(f"{name} cannot be read: {problem.strerror or problem}; {advice}")


def read_array(path: str | os.PathLike[str], error: type[FgonnxError] = OptionError) -> npt.NDArray[Any]:
    """Read an array of numbers from a .npy file.

    Raises
    ------
    FgonnxError
        Of the given type, if there is no such file, or it holds something else.
    """
    name = f"'{os.fspath(path)}'"
    with _opened(path, name, error) as (file, size):
        return array_from(file, size, name, error)


def array_from(file: IO[bytes], size: int, name: str, error: type[FgonnxError]) -> npt.NDArray[Any]:
    """Read an array of numbers, in the format of .npy, from an open file.

    Parameters
    ----------
    file : file
        The file, at its beginning.
    size : int
        How many bytes it has.
    name : str
        What it is called in messages.
    error : type
        The exception to raise.

    Raises
    ------
    FgonnxError
        It holds something else, or its header announces more than there is, or than the bound.
    """
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        kind = dtype.kind
    except Exception as problem:  # a header is a Python literal, which numpy parses and looks into
        raise error(f"{name} cannot be read: it is not a numeric .npy array; write it with numpy.save") from problem
    if kind not in "biufc":
        raise error(f"{name} cannot be read: it is not a numeric .npy array, but one of {dtype}; write numbers")
    if any(type(n) is not int or n < 0 for n in shape) or len(shape) > _MOST_AXES:
        raise error(f"{name} cannot be read: its header announces a shape that none can have; write it with numpy.save")
    needed = math.prod(shape) * dtype.itemsize
    bounds.check("data_bytes", needed, f"{name} announces", error)
    if needed > size - file.tell():
        raise error(
            f"{name} is cut off: its header announces {needed:,} bytes of numbers, it holds {size - file.tell():,}; "
            "write it again with numpy.save"
        )
    content = file.read(needed)
    if len(content) < needed:
        raise error(f"{name} is cut off: it ends after {len(content):,} of {needed:,} bytes of numbers")
    found = np.frombuffer(bytearray(content), dtype)
    return found.reshape(shape[::-1]).transpose() if fortran else found.reshape(shape)


def read_arrays(path: Path, names: Sequence[str], error: type[FgonnxError]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of those names that an .npz file holds; raises as `read_array`."""
    found = {}
    name = f"'{path}'"
    with _opened(path, name, error) as (file, _):
        try:
            with zipfile.ZipFile(file) as archive:
                entries = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
                for entry in (n for n in names if n in entries):
                    with archive.open(entries[entry]) as content:
                        found[entry] = array_from(content, entries[entry].file_size, f"{name}, {entry}", error)
        except FgonnxError:
            raise
        except Exception as problem:  # zipfile raises many kinds on what is damaged, encrypted or compressed otherwise
            raise error(f"{name} cannot be read as .npz: {first_line(problem)}; write it with numpy.savez") from problem
    return found


_MOST_AXES = 64
_HEADERS: Mapping[tuple[int, int], Callable[[IO[bytes]], tuple[Any, bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class FileArray(np.ndarray[Any, np.dtype[Any]]):
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
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text; lone surrogates, of names that are not UTF-8, are written as in JSON."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as .npy."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        np.save(file, array, allow_pickle=False)


def unwritable(path: Path, error: OSError | ValueError) -> OptionError:
    """Return the error for a file that cannot be written."""
    why = getattr(error, "strerror", None) or error
    return OptionError(f"'{path}' cannot be written: {why}; choose another place")
