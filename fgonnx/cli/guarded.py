"""Every command guarded: expected errors as one line and an exit code, unexpected ones as a report."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ParamSpec, get_type_hints

import typer
from rich.text import Text

from fgonnx.bounds import Bounds, bounded, parse
from fgonnx.cli import door, talk, terminal
from fgonnx.cli.flags import flags_of, on_the_command_line
from fgonnx.cli.terminal import err, errors
from fgonnx.errors import CertificateWarning, FgonnxError, FgonnxWarning
from fgonnx.fields import RUNNING, spellings

P = ParamSpec("P")

_DEBUG = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an unexpected error.", rich_help_panel=RUNNING)
]
_BOUND = Annotated[
    list[str] | None,
    typer.Option(
        "--bound",
        metavar="NAME=NUMBER",
        help=f"Raise or lower a bound: {', '.join(spellings(Bounds))}. Repeatable.",
        rich_help_panel=RUNNING,
    ),
]


def command(function: Callable[P, None]) -> Callable[..., None]:
    """Turn expected errors into one message and an exit code: 2, or 130 for Ctrl-C.

    A command that returns although a certificate did not close exits with 1; one that speaks of that itself ignores the
    warning, or raises `typer.Exit`.

    The command gets more options: --debug, --verbose, --quiet, and --bound for the fields of `Bounds`.
    """
    flags = flags_of(function)

    def spelling(name: str, value: str) -> str:
        return on_the_command_line(name, value, flags)

    @functools.wraps(function)
    def guarded(
        *args: Any,
        debug: bool = False,
        bound: list[str] | None = None,
        verbose: int = 0,
        quiet: bool = False,
        **kwargs: Any,
    ) -> None:
        try:
            with (
                talk.level(verbose, quiet, _log, program=bool(kwargs.get("as_json"))),
                _warnings() as unclosed,
                bounded(parse(bound)) if bound else contextlib.nullcontext(),
            ):
                function(*args, **kwargs)
            if unclosed:
                raise typer.Exit(1)
        except FgonnxError as error:
            terminal.error(error.spelled(spelling))
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            errors().print(door.STOPPED, soft_wrap=True)
            raise typer.Exit(door.INTERRUPTED) from error
        except MemoryError as error:
            terminal.error("there is not enough memory for this; give a smaller batch or a smaller input")
            raise typer.Exit(2) from error
        except Exception as error:
            if isinstance(error, typer.Exit) or (isinstance(error, OSError) and door.of_a_stream(error)):
                raise
            errors().print(Text(door.report(error, debug=debug)), soft_wrap=True)
            raise typer.Exit(door.UNEXPECTED) from error

    hints = get_type_hints(function, include_extras=True)
    given = inspect.signature(function)
    own = given.replace(
        parameters=[p.replace(annotation=hints.get(name, p.annotation)) for name, p in given.parameters.items()]
    )
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (
            ("bound", None, _BOUND),
            ("verbose", 0, talk.VERBOSE),
            ("quiet", False, talk.QUIET),
            ("debug", False, _DEBUG),
        )
    ]
    guarded.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    guarded.__annotations__ = {p.name: p.annotation for p in (*own.parameters.values(), *more)}
    del guarded.__wrapped__
    return guarded


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Print warnings of fgonnx as lines, each once, and collect those of certificates that do not close."""
    unclosed: list[str] = []

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        unclosed.extend([str(message)] if issubclass(category, CertificateWarning) else [])
        if issubclass(category, FgonnxWarning):
            err().print(Text.assemble(("warning: ", "yellow"), str(message)), soft_wrap=True)
        else:
            usual(message, category, *where)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.simplefilter("default", FgonnxWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield unclosed


def _log(text: str) -> None:
    errors().print(Text(text, style="dim"), soft_wrap=True)
