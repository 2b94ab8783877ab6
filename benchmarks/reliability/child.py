"""One try in a process of its own: forked after the imports, with limits on memory and time, its output kept."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY = 6 << 30
"""Bytes of address space that a try may take; the libraries alone take about one third."""

_STEP = 0.01
_PATIENCE = 4  # of the wall clock, where other processes take the cores
_TEXT = 20_000


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes
    ----------
    code : int or None
        Its exit code; None where a signal ended it.
    signal : int
        The signal, or 0.
    timed_out : bool
        Whether it took longer than allowed.
    text : str
        What it wrote to stdout and stderr.
    seconds : float
        How long it ran.
    peak : int
        Largest resident memory in bytes.
    """

    code: int | None
    signal: int
    timed_out: bool
    text: str
    seconds: float
    peak: int


def tried(task: Callable[[], int], seconds: float, memory: int | None = MEMORY) -> Ended:
    """Run a task, which returns an exit code, in a forked process of so many seconds of processor time."""
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _run(task, output.fileno(), memory, seconds)
        timed_out = False
        while True:
            done, status, used = os.wait4(pid, os.WNOHANG)
            if done:
                break
            if not timed_out and time.monotonic() - begin > _PATIENCE * seconds:
                timed_out = True
                os.kill(pid, signal.SIGKILL)
            time.sleep(_STEP)
        took = time.monotonic() - begin
        output.seek(0)
        text = output.read(_TEXT * 4).decode(errors="replace")
    text = text if len(text) <= _TEXT else f"{text[: _TEXT // 2]}\n...\n{text[-_TEXT // 2 :]}"
    code = os.waitstatus_to_exitcode(status)
    return Ended(code if code >= 0 else None, max(-code, 0), timed_out, text, took, used.ru_maxrss << 10)


def _run(task: Callable[[], int], output: int, memory: int | None, seconds: float) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        faulthandler.disable()  # of the tests that this was forked from; it writes to their terminal
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        code = task()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(*arguments: str | Path, folder: Path | None = None) -> Callable[[], int]:
    """Return the task of running `fgonnx` with some arguments, in a folder."""

    def task() -> int:
        from fgonnx.cli import main

        if folder is not None:
            os.chdir(folder)
        sys.argv = ["fgonnx", *map(str, arguments)]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    return task


def all_of(*tasks: Callable[[], int]) -> Callable[[], int]:
    """Return the task of running several, until one does not return 0."""

    def task() -> int:
        return next((code for t in tasks if (code := t())), 0)

    return task


def shown(arguments: Sequence[str | Path]) -> str:
    """Return arguments as one line."""
    return " ".join(map(ascii, map(str, arguments)))
