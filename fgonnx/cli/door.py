"""The way in and out of the process: streams that take any text, Ctrl-C, a closed or full stdout, the last resort."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from fgonnx.cli.escaped import printable

UNEXPECTED = 70
"""Exit code of an error that fgonnx did not foresee (EX_SOFTWARE)."""

INTERRUPTED = 130
STOPPED = "interrupted; files that were finished are whole"

_OF_STREAMS = {errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT}
_WAY_OUT = "Please report it, with the command and the file if you can, on the issue page of fgonnx"


def run(app: Callable[..., Any]) -> None:
    """Run the command line in this process, and leave it."""
    _prepare()
    try:
        code = _called(app)
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        code = 2 if of_a_stream(error) else UNEXPECTED
        _silence(sys.stdout if code == 2 else None)
        if code == 2 and error.errno != errno.EPIPE:
            _last_words(f"error: the output cannot be written: {error.strerror}")
    if code == INTERRUPTED and hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while threads come to their end
    sys.exit(code)


def _called(app: Callable[..., Any]) -> int:
    from typer import Abort

    try:
        code = app(prog_name="fgonnx", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Abort:
        return 1
    except Exception as error:
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        from typer.rich_utils import rich_format_error

        usage: Any = error  # what was typed may hold escape sequences
        usage.message = printable(str(getattr(error, "message", ""))) + _behind(usage)
        rich_format_error(usage)
        return int(usage.exit_code)


def _behind(error: Any) -> str:
    """Return where an option belongs that was typed before the command."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None or context.parent is not None:
        return ""
    return f"; options of a command go behind it: fgonnx explain {printable(str(option))} ..."


def of_a_stream(error: OSError) -> bool:
    """Tell whether an error is that of stdout or stderr: closed, full, or a terminal that is gone."""
    return error.filename is None and error.errno in _OF_STREAMS


def report(error: BaseException, *, debug: bool) -> str:
    """Return what is said of an error that was not foreseen: one line and a hint, or with `debug` the traceback."""
    if debug:
        return "".join(traceback.format_exception(error)).rstrip()
    what = " ".join(str(error).split())[:300]
    return f"unexpected error: {type(error).__name__}: {what}\n{_WAY_OUT} (--debug shows the traceback)."


def _prepare() -> None:
    """Have streams that exist and take any text: an ASCII terminal shows other characters as code points."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence(stream: Any) -> None:
    """Let what is left in a stream's buffer go nowhere: flushing it at the end would fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _last_words(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
