"""Python's cycle collector, paused while graphs are built.

A graph is some hundred thousand objects that refer to one another, and all of them stay. The collector, which runs
after every so many allocations, goes over them again and again; docs/forms.md has the cost and how to measure it.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def paused(function: Callable[P, R]) -> Callable[P, R]:
    """Pause the collector while a function runs; of several threads in one, the first to leave starts it again."""

    @functools.wraps(function)
    def undisturbed(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            gc.enable()

    return undisturbed
