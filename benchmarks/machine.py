"""What a measurement was made on, for the record that goes with its figures."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from fgonnx._version import __version__


def versions(packages: Iterable[str], folders: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python, of fgonnx as it is here, and of those packages that are installed.

    What is not installed is looked for in `folders`.
    """
    found = {"Python": platform.python_version(), "fgonnx": __version__}
    apart = {d.name.replace("_", "-"): d.version for d in importlib.metadata.distributions(path=list(folders))}
    for name in packages:
        if name in apart:
            found[name] = apart[name]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def describe() -> dict[str, str | int]:
    """Return processor, number of usable cores, memory and system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {"processor": _processor(), "cores": cores, "memory_gib": memory, "system": platform.system()}


def today() -> str:
    """Return the date."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
