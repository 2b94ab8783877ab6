"""How much a command says: results and notes; more with --verbose, errors alone with --quiet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Annotated

import typer

from fgonnx.errors import OptionError
from fgonnx.fields import RUNNING

VERBOSE = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Say on stderr what is loaded, rewritten and taken from the cache; -vv also every run.",
        rich_help_panel=RUNNING,
    ),
]
QUIET = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print only errors and what --json asks for; the exit code gives the verdict.",
        rich_help_panel=RUNNING,
    ),
]

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
_program: ContextVar[bool] = ContextVar("program", default=False)


def quiet() -> bool:
    """Tell whether only errors are printed."""
    return _quiet.get()


def program() -> bool:
    """Tell whether stdout is for a program, which reads JSON from it."""
    return _program.get()


class _Lines(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(f"{record.name}: {record.getMessage()}")


@contextlib.contextmanager
def level(verbose: int, quiet: bool, show: Callable[[str], None], *, program: bool = False) -> Iterator[None]:
    """Say as much as was asked for.

    Parameters
    ----------
    verbose : int
        How often --verbose was given.
    quiet : bool
        Whether --quiet was.
    show : callable
        Prints a line of the log.
    program : bool
        Whether stdout is for a program.

    Raises
    ------
    OptionError
        Both were given.
    """
    if verbose and quiet:
        raise OptionError("--verbose and --quiet were both given; give one of them")
    tokens = _quiet.set(quiet), _program.set(program)
    logger = logging.getLogger("fgonnx")
    before, handler = logger.level, _Lines(show)
    if verbose:
        logger.addHandler(handler)
        logger.setLevel(_LEVELS[min(verbose, len(_LEVELS) - 1)])
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        _quiet.reset(tokens[0])
        _program.reset(tokens[1])
