"""A column in a process of its own: prepared once, called when its turn comes, its memory counted."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import memory, networks
from benchmarks.speed.columns import BY_KEY, Setting


class FailedError(Exception):
    """A column has no figure here; the message says why."""


@dataclass
class Peak:
    """Bytes of a process: after its imports, at most while preparing, at most while called."""

    imported: int = 0
    preparing: int = 0
    calling: int = 0


@dataclass
class Worker:
    """A column that runs in a process of its own from now on; `ready` waits for it.

    Attributes
    ----------
    key : str
        Of the column.
    setting : Setting
        What it is called on.
    peak : Peak
        What it took so far.
    """

    key: str
    setting: Setting
    peak: Peak = field(default_factory=Peak)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.key, self.setting), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self, limit: float) -> None:
        """Wait until the column is prepared.

        Raises
        ------
        FailedError
            It cannot be, or not within `limit` seconds.
        """
        self._answer(limit, "not prepared")

    def call(self, count: int, limit: float) -> list[float]:
        """Call `count` times in a row and return the seconds of each.

        Raises
        ------
        FailedError
            A call failed, the process died, or it took more than `limit` seconds.
        """
        with contextlib.suppress(OSError):  # a process that has ended is found out below
            self._pipe.send(count)
        seconds: list[float] = self._answer(limit, f"{count} call{'s' * (count > 1)} not finished")
        return seconds

    def stop(self) -> None:
        """End the process, by force where it is busy."""
        self._pipe.close()
        self._process.join(2)
        self._process.kill()
        self._process.join()

    def _answer(self, limit: float, what: str) -> Any:
        if not self._pipe.poll(limit):
            raise FailedError(f"{what} after {limit:.0f} s")
        try:
            answer, self.peak = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise FailedError(f"its process ended with code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise FailedError(answer)
        return answer


def _serve(pipe: Connection, key: str, setting: Setting) -> None:
    """Prepare a column, then answer every count with the seconds of as many calls; an answer that is text is a failure.

    The process writes nothing: libraries like to show progress.
    """
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    peak = Peak()
    try:
        column = BY_KEY[key]
        sys.path[:0] = column.first()
        if "torch" in column.modules:
            with contextlib.suppress(ImportError):
                networks.torchvision_models()
        for module in column.modules:
            importlib.import_module(module)
        setting.network.inputs(setting.batch)  # imports what draws them
        peak.imported = memory.now()
        call = column.prepare(setting)
        peak.preparing = memory.peak()
        memory.forget_peak()
        pipe.send(([], peak))
        while True:
            seconds = []
            for _ in range(pipe.recv()):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            peak.calling = memory.peak()
            pipe.send((seconds, peak))
    except EOFError:
        return
    except BaseException as error:  # whatever a peer throws is its entry in the table
        text = str(error).strip()
        pipe.send((f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"[:300], peak))
