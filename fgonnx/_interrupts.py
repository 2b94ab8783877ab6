"""Ctrl-C while the command line is still being imported: one line, as later, and no traceback.

This is imported before what takes long. In a program that imports fgonnx itself, nothing is changed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

_COMMANDS = ("fgonnx", "fgonnx.exe", "-m")


def _install() -> None:
    """Say in one line that the command line was interrupted, if this process is one."""
    if not sys.argv or Path(sys.argv[0]).name not in _COMMANDS:
        return
    usual = sys.excepthook

    def said(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted; files that were finished are whole", file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = said


_install()
