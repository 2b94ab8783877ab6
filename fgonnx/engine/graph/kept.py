"""What is kept on disk between runs: complete entries under the hash of all that decides about them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from fgonnx.errors import OptionError
from fgonnx.files import TEMPORARY, make_folder, read, replacing

VARIABLE = "FGONNX_CACHE"
"""Environment variable: the folder of the cache, or "off"."""

_DIGEST = hashlib.sha256().digest_size


def folder_of(given: bool | str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of the requested cache.

    Parameters
    ----------
    given : bool, path-like or None
        A folder; True for the one of the environment variable FGONNX_CACHE, else the user's; False or None for none.

    Returns
    -------
    Path or None
        None also for True where FGONNX_CACHE is "off".
    """
    if given is None or given is False:
        return None
    if given is not True:
        return Path(given)
    named = os.environ.get(VARIABLE)
    if named:
        return None if named == "off" else Path(named)
    import platformdirs  # not needed if the folder is named

    return platformdirs.user_cache_path("fgonnx", appauthor=False)


class Kept:
    """Entries of one kind in a folder. Several processes may use it at once.

    Parameters
    ----------
    folder : Path
        The folder; it is made when the first entry is written.
    suffix : str
        Ends the names of the entries.
    most_files, most_bytes : int
        Beyond them the least recently used entries are evicted.
    """

    def __init__(self, folder: Path, suffix: str, *, most_files: int, most_bytes: int) -> None:
        self.folder = folder
        self._suffix = suffix
        self._most_files, self._most_bytes = most_files, most_bytes

    def read(self, key: str) -> bytes | None:
        """Return the content of an entry; None if there is none, or it is corrupt or has another key."""
        path = self._path(key)
        try:
            entry = read(path, OptionError)
        except OptionError:
            return None
        content = entry[_DIGEST:]
        if entry[:_DIGEST] != _digest(key, content):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used just now
        return content

    def write(self, key: str, content: bytes) -> None:
        """Write an entry.

        Raises
        ------
        OptionError
            If the folder cannot be written.
        """
        make_folder(self.folder, private=True)
        with replacing(self._path(key)) as temporary:
            temporary.write_bytes(_digest(key, content) + content)
        self._bound()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{self._suffix}"

    def _bound(self) -> None:
        """Evict the least recently used entries, and files of interrupted processes."""
        found = []
        for path in [*self.folder.glob(f"*{self._suffix}"), *self.folder.glob(f"{TEMPORARY}*.tmp")]:
            with contextlib.suppress(OSError):  # another process may be faster
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = 0
        for count, (_, size, path) in enumerate(sorted(found, reverse=True), 1):
            total += size
            if count > self._most_files or total > self._most_bytes:
                with contextlib.suppress(OSError):
                    path.unlink()


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()
