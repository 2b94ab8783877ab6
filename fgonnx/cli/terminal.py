"""Output of the command line: consoles, progress, lines and tables."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fgonnx.cli import tables, talk
from fgonnx.cli.escaped import as_json, printable
from fgonnx.cli.tables import Cell

P = ParamSpec("P")
T = TypeVar("T")

_PIPE_WIDTH = 160  # of tables in a log file, where there is no terminal to ask
_LISTED = 12  # of what is left out


class _Console(Console):
    """A console that writes control characters as code points."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def out() -> Console:
    """Return the console of results; it is mute where only errors, or JSON for a program, are printed."""
    return _console(stderr=False, quiet=talk.quiet() or talk.program())


def err() -> Console:
    """Return the console of notes and of progress; it is mute where only errors are printed."""
    return _console(stderr=True, quiet=talk.quiet())


def errors() -> Console:
    """Return the console of errors, which is never mute."""
    return _console(stderr=True, quiet=False)


def _console(*, stderr: bool, quiet: bool) -> Console:
    # Created on each call: tests and pipes replace the streams.
    console = _Console(stderr=stderr, highlight=False, quiet=quiet)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def show_json(found: Mapping[str, Any]) -> None:
    """Print JSON for programs."""
    typer.echo(as_json(found, getattr(sys.stdout, "encoding", None) or "utf-8"))


def _moving(console: Console) -> bool:
    """Whether lines may be drawn over: on a terminal, and not under a cell of a notebook, which shows each of them."""
    return console.is_terminal and "JPY_PARENT_PID" not in os.environ


def working(label: str) -> contextlib.AbstractContextManager[Any]:
    """Say that something is done while it is, where lines may be drawn over."""
    console = err()
    return console.status(label) if _moving(console) else contextlib.nullcontext()


def progress(
    items: Iterable[T], label: str, total: int, *, few: int = 0, step: Callable[[T], int] = lambda item: 1
) -> Iterator[T]:
    """Pass items through and show progress, where lines may be drawn over.

    Parameters
    ----------
    items : iterable
        What is done, as it is done.
    label : str
        What is done to them.
    total : int
        How much there is to do.
    few : int
        Totals up to this are not worth a bar.
    step : callable
        How much an item adds.
    """
    console = err()
    counted = TaskProgressColumn() if step is int else MofNCompleteColumn()
    columns = (TextColumn(label), BarColumn(), counted, TimeRemainingColumn())
    hidden = total <= few or not _moving(console) or talk.quiet()
    if hidden:
        yield from items
        return
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        for item in items:
            bar.advance(task, step(item))
            yield item


def say(label: str, text: str) -> None:
    """Print one line `label  text`."""
    out().print(Text.assemble((f"{label:<14}", "dim"), text), soft_wrap=True)


def error(text: str) -> None:
    """Print what went wrong, on the standard error."""
    errors().print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def notes(lines: Iterable[str]) -> None:
    """Print conversions and assumptions."""
    for line in lines:
        out().print(Text.assemble((f"{'note':<14}", "yellow"), line), soft_wrap=True)


def left_out(what: str, found: Mapping[str, str]) -> None:
    """Print how many were left out, and the first of them with the reason; nothing where there are none."""
    if found:
        say(what, f"{len(found)}:")
        for name, why in list(found.items())[:_LISTED]:
            say("", f"{name}: {why}")
        if len(found) > _LISTED:
            say("", f"... and {len(found) - _LISTED} more, in summary.json")


def table(*headings: str, title: str | None = None, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; columns named in `numbers` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for heading in headings:
        right = heading in numbers
        made.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return made


def row(to: Table, *cells: object, style: str = "") -> None:
    """Add a row of plain text: brackets in names are not markup."""
    to.add_row(*(cell if isinstance(cell, Text) else Cell(str(cell)) for cell in cells), style=style)


def show(made: Table) -> None:
    """Print a table, on any width."""
    tables.show(out(), made)


def file_size(path: Path) -> str:
    """Format the size of a file."""
    return decimal(path.stat().st_size)
