"""The models of a service: where their files are, which version is served, and the next one when it comes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgonnx.errors import FgonnxError, InputError, OptionError
from fgonnx.serve.job import EXPLAIN, PREDICT, Answer, Job
from fgonnx.serve.lane import Lane, Limits
from fgonnx.serve.options import Serving
from fgonnx.serve.refused import RefusedError
from fgonnx.serve.served import How, Served

MODEL = "model.onnx"

_NAME = re.compile(r"[\w][\w.+-]{0,127}")
Tell = Callable[..., None]


@dataclass
class Entry:
    """A model by its name.

    Attributes
    ----------
    name : str
        The name.
    path : Path
        A file, or a folder of versions.
    served : Served
        The version that is served.
    lanes : dict of str to Lane
        A queue for predictions, and one for explanations.
    tried : dict of int to float
        Versions that could not be loaded, with the time of their file.
    """

    name: str
    path: Path
    served: Served
    lanes: dict[str, Lane] = field(default_factory=dict)
    tried: dict[int, float] = field(default_factory=dict)


class Catalogue:
    """The models of a service.

    Parameters
    ----------
    given : sequence of str
        Paths, or NAME=PATH: of a file, or of a folder of versions (NAME/1/model.onnx).
    how : How
        How they are served.
    serving : Serving
        The service.

    Raises
    ------
    FgonnxError
        A model is not there, or cannot be explained.
    """

    def __init__(self, given: Sequence[str], how: How, serving: Serving) -> None:
        self.how, self.serving = how, serving
        self.entries: dict[str, Entry] = {}
        self._pools: list[ThreadPoolExecutor] = []
        for text in given:
            name, path = _named(text)
            if name in self.entries:
                raise OptionError(f"two models are called '{name}'; name one of them: other={path}")
            version, file = _versions(path)[0]
            self.entries[name] = Entry(name, path, _loaded(name, version, file, how))

    def open(self) -> None:
        """Open the queues, in the event loop."""
        s = self.serving
        for entry in self.entries.values():
            for verb in (PREDICT, EXPLAIN):
                workers = s.workers if verb == EXPLAIN else 1
                pool = ThreadPoolExecutor(workers, thread_name_prefix=f"{verb}-{entry.name}")
                self._pools.append(pool)
                limits = Limits(self.how.running.batch_size, s.max_queue, s.max_wait / 1000, s.timeout)
                entry.lanes[verb] = Lane(_run, pool, workers, limits)

    async def close(self) -> None:
        """Close the queues."""
        for entry in self.entries.values():
            for lane in entry.lanes.values():
                await lane.close()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def find(self, name: str, version: str = "") -> Entry:
        """Return a model.

        Raises
        ------
        RefusedError
            There is none of that name, or it is served in another version.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise RefusedError(404, f"there is no model '{name[:80]}'; there is: {', '.join(self.entries)}")
        if version and version != entry.served.version:
            raise RefusedError(
                404, f"'{name}' is served in version {entry.served.version} alone, not in {version[:20]}"
            )
        return entry

    async def watch(self, tell: Tell) -> None:
        """Look for new version folders from time to time, and serve the newest; `tell` gets what became of them."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="reload") as pool:
            while True:
                await asyncio.sleep(self.serving.reload)
                for entry in self.entries.values():
                    if entry.path.is_dir():
                        await loop.run_in_executor(pool, self._renew, entry, tell)

    def _renew(self, entry: Entry, tell: Tell) -> None:
        """Serve the newest version that can be loaded."""
        try:
            versions = _versions(entry.path)
        except (InputError, OSError):  # being replaced, or gone: what is served stays
            return
        for version, file in versions:
            if version == entry.served.version or self._replaced(entry, version, file, tell):
                return

    def _replaced(self, entry: Entry, version: str, file: Path, tell: Tell) -> bool:
        """Serve another version; tell whether it could be loaded."""
        try:
            changed = file.stat().st_mtime
        except OSError:  # being replaced
            return True
        if entry.tried.get(int(version)) == changed:
            return False
        start = time.monotonic()
        said: dict[str, Any] = {"model": entry.name, "version": version}
        try:
            entry.served = _loaded(entry.name, version, file, self.how)
        except FgonnxError as error:
            entry.tried[int(version)] = changed  # until its file is another
            tell("not loaded", **said, error=str(error))
        except Exception as error:  # a service goes on with what it has
            entry.tried[int(version)] = changed
            tell("not loaded", **said, error=f"{type(error).__name__}: {error}")
        else:
            tell("loaded", **said, seconds=round(time.monotonic() - start, 3))
            return True
        return False


def _run(jobs: Sequence[Job]) -> list[Answer | FgonnxError]:
    return jobs[0].served.run(jobs)


def _loaded(name: str, version: str, file: Path, how: How) -> Served:
    return Served(name, version, file, how)


def _named(text: str) -> tuple[str, Path]:
    """Return the name and the path of a model."""
    name, sign, rest = text.partition("=")
    if sign and not Path(text).exists():
        path = Path(rest)
    else:
        path = Path(text)
        name = path.absolute().name if path.is_dir() else path.stem
    if not _NAME.fullmatch(name):
        raise OptionError(f"'{name}' is no name of a model, which is part of an address; give one: name={path}")
    return name, path


def _versions(path: Path) -> list[tuple[str, Path]]:
    """Return the versions of a model and their files, the newest first.

    Raises
    ------
    InputError
        It is a folder without versions.
    """
    if not path.is_dir():
        return [("1", path)]
    versions = {int(p.name): p / MODEL for p in path.iterdir() if p.name.isdecimal() and (p / MODEL).is_file()}
    if not versions:
        raise InputError(f"'{path}' holds no version of a model: it has no folder such as 1 with a {MODEL} in it")
    return [(str(version), versions[version]) for version in sorted(versions, reverse=True)]
