"""Pause Python's cyclic garbage collector while graphs are built.

A graph is some hundred thousand objects in reference cycles, all of which stay alive. The collector is triggered by
allocations and traverses them again and again; docs/forms.md has the cost and how to measure it.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def paused(function: Callable[P, R]) -> Callable[P, R]:
    """Pause the collector while a function runs; with several threads, the first to return resumes it."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            gc.enable()

    return wrapped
