"""Resident memory, now and at most (Linux; elsewhere the most that this process ever had stands for both)."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path


def now(process: int | None = None) -> int:
    """Return the resident bytes of this process or of one with that number (0 once it has ended)."""
    return _entry("VmRSS", process)


def peak() -> int:
    """Return the most resident bytes since the start or since `forget_peak`."""
    return _entry("VmHWM")


def forget_peak() -> None:
    """Let the peak begin anew from what is resident now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _entry(name: str, process: int | None = None) -> int:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
