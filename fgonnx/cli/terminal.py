"""Output of the command line: consoles, tables, errors."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fgonnx.audit.found import CheckResult
from fgonnx.bounds import Bounds, bounded, parse
from fgonnx.cli import cells, door, tables, talk
from fgonnx.cli.escaped import as_json, printable
from fgonnx.cli.flags import flags_of, on_the_command_line
from fgonnx.cli.tables import Cell
from fgonnx.errors import FgonnxError, FgonnxWarning
from fgonnx.fields import RUNNING, spellings
from fgonnx.jobs.record import mean_of, name_of, score_of, target_of, value_of
from fgonnx.wording import shortened

P = ParamSpec("P")
T = TypeVar("T")

_PIPE_WIDTH = 160  # of tables in a log file, where there is no terminal to ask
_LONG = 12
_LISTED = 12  # of what is left out
_NAME = 64
_VERDICTS = {"passed": "green", "failed": "bold red", "undecided": "yellow"}


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


def _errors() -> Console:
    return _console(stderr=True, quiet=False)


def _console(*, stderr: bool, quiet: bool) -> Console:
    # Created on each call: tests and pipes replace the streams.
    console = _Console(stderr=stderr, highlight=False, quiet=quiet)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Print warnings of fgonnx as lines, each once."""

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, FgonnxWarning):
            err().print(Text.assemble(("warning: ", "yellow"), str(message)), soft_wrap=True)
        else:
            usual(message, category, *where)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.simplefilter("default", FgonnxWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def show_json(found: Mapping[str, Any]) -> None:
    """Print JSON for programs."""
    typer.echo(as_json(found, getattr(sys.stdout, "encoding", None) or "utf-8"))


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
                _warnings(),
                bounded(parse(bound)) if bound else contextlib.nullcontext(),
            ):
                function(*args, **kwargs)
        except FgonnxError as error:
            _fail(error.spelled(spelling))
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            _errors().print(door.STOPPED, soft_wrap=True)
            raise typer.Exit(door.INTERRUPTED) from error
        except MemoryError as error:
            _fail("there is not enough memory for this; give a smaller batch or a smaller input")
            raise typer.Exit(2) from error
        except Exception as error:
            if isinstance(error, typer.Exit) or (isinstance(error, OSError) and door.of_a_stream(error)):
                raise
            _errors().print(Text(door.report(error, debug=debug)), soft_wrap=True)
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


def _log(text: str) -> None:
    _errors().print(Text(text, style="dim"), soft_wrap=True)


def _fail(text: str) -> None:
    _errors().print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


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


def show_explained(rows: Sequence[Mapping[str, Any]], left_out: int, folder: Path) -> None:
    """Print the summary of `explain`: one row per sample."""
    averaged = ("mean of copies",) if any(mean_of(r) is not None for r in rows) else ()
    made = table(
        cells.called((r["input"]["path"] for r in rows), rows=any("features" in r for r in rows)),
        "the model's choice",
        "target",
        "score",
        *averaged,
        "residual",
        "in the map",
        "written",
        title="Explained",
        numbers=("score", *averaged, "residual", "in the map"),
    )
    for r in rows:
        top = f"{name_of(r['top5'][0], r)} ({value_of(r['top5'][0])})" if r["top5"] else "?"
        top = r.get("detected", top)
        target = r["target"]
        same = bool(r["top5"]) and target is not None and r["top5"][0]["index"] == target["index"]
        certificate = r["completeness"]
        relative = certificate["relative"] if certificate else None
        number = r["input"]["row"]
        row(
            made,
            Path(r["input"]["path"]).name + ("" if number is None else f" [{number}]"),
            top,
            "same" if same and "contrast" not in r else target_of(r),
            cells.number(score_of(r), ".4g"),
            *(cells.number(r["score"], ".4g") for _ in averaged),
            f"{relative:.0e}" if relative is not None else "-",
            f"{r['localised']['share']:.1%}" if r["localised"] else "-",
            r["files"]["picture"],
        )
    show(made)
    if left_out:
        out().print(f"... and {left_out} more", soft_wrap=True)
    total = len(rows) + left_out
    say("written", f"{total} x (.png, .npy, .json) in {folder}{os.sep}")
    if any(r["completeness"] for r in rows):
        say(
            "how to read",
            "residual: |score - sum of contributions| / |score|, rounding only if the explanation is exact;",
        )
        say("", "in the map: share of the absolute contributions that have a place in the picture")


def show_inspection(found: Mapping[str, Any], *, everything: bool) -> None:
    """Print the result of `inspect`."""
    model = found["model"]
    say("model", f"{model['path']}  ({_size(model['bytes'], model['external_bytes'])})")
    say("sha256", model["sha256"])
    opsets = ", ".join(f"{d} {v}" for d, v in model["opsets"].items())
    say("producer", f"{model['producer'] or 'unknown'}; opset {opsets}; IR version {model['ir_version']}")
    say("parameters", f"{model['parameters']:,}")
    for label, values in (("input", found["inputs"]), ("output", found["outputs"])):
        for value in values:
            say(label, f"{value['name']}  {value['dtype'] or '?'} {_dims(value['shape'])}")
    say("operators", ", ".join(f"{n} {k}" for k, n in found["operators"].items()))
    if (found["explanation"] or {}).get("kind") is None:
        say("preprocessing", found["preprocessing"] or "not in the metadata; give --preprocess to explain")
    labels = found["labels"]
    say("labels", "not in the metadata; give --labels for names" if labels is None else _names(labels))
    if model["written_by_fgonnx"]:
        say("written by", f"fgonnx {model['written_by_fgonnx']}: this model explains itself already")
    explanation = found["explanation"]
    if explanation is None:
        _show_obstacle(found, everything=everything)
        return
    say("", "")
    stripped = explanation["head_stripped"]
    say(
        "explained",
        f"{explanation['head']}  {_dims(explanation['head_shape'])} per sample"
        + (f", before the final {stripped} (--head output for what is behind it)" if stripped else ""),
    )
    say("from", f"{explanation['input']}  {_dims(explanation['input_shape'])}, layout {explanation['layout'] or '?'}")
    if explanation["kind"] is not None:
        say("input holds", explanation["kind"])
    say("batch", "any size" if explanation["batch"] == "any" else "samples are run one by one")
    notes(explanation["notes"])
    _show_sites(explanation["sites"], explanation["profile"], everything=everything)


def _show_obstacle(found: Mapping[str, Any], *, everything: bool) -> None:
    out().print(Text.assemble(("cannot be explained: ", "bold yellow"), found["obstacle"]), soft_wrap=True)
    refusals = found["refusals"]
    if not refusals:
        return
    made = table("node", "operator", "opset", "why", "what to do", numbers=("opset",))
    listed = refusals if everything else refusals[:_LONG]
    names = [str(r["node"]) for r in listed]
    for name, r in zip(names if everything else shortened(names, _NAME), listed, strict=True):
        row(made, name, r["op_type"], r["version"], r["why"], r["what_to_do"])
    show(made)
    _more(len(refusals), everything=everything)


def _show_sites(sites: Sequence[Mapping[str, Any]], profile: str, *, everything: bool) -> None:
    shown = sum(s["in_map"] for s in sites)
    made = table(
        "#",
        "site",
        "operator",
        "kind",
        "grid",
        "in the map",
        numbers=("#",),
        title=f"{len(sites)} sites: what the score is the sum of; {shown} of them in the map (profile {profile})",
    )
    listed = list(enumerate(sites))
    short = shortened([str(s["name"]) for s in sites], _NAME)
    # The beginning of the network and its end tell most.
    if not everything and len(listed) > 2 * _LONG:
        listed = listed[:_LONG] + listed[-_LONG // 2 :]
    for i, s in listed:
        if i and listed[0][0] == 0 and i == len(sites) - _LONG // 2 and len(listed) < len(sites):
            row(made, "", "...")
        grid = " x ".join(map(str, s["grid"]))
        name = s["name"] if everything else short[i]
        row(made, i, name, s["op_type"], s["kind"], grid or "not spatial", "yes" if s["in_map"] else "no")
    show(made)
    if len(listed) < len(sites):
        out().print(f"{len(sites) - len(listed)} more sites: --all", soft_wrap=True)


def _more(count: int, *, everything: bool) -> None:
    if not everything and count > _LONG:
        out().print(f"{count - _LONG} more nodes: --all", soft_wrap=True)


def show_check(result: CheckResult, untested: Sequence[str]) -> None:
    """Print the result of `check`, and what it is not about."""
    notes(result.notes)
    made = table("check", "result", "error", "allowed", "how it was measured", numbers=("error", "allowed"))
    for c in result.checks:
        verdict = Text(c.verdict, style=_VERDICTS[c.verdict])
        row(made, c.name, verdict, f"{c.value:.1e}", f"{c.tolerance:.0e}", c.detail)
    show(made)
    for c in result.checks:
        if c.verdict == "undecided":
            say("not decided", f"{c.name}; what would decide it: {c.decides}")
    for what in untested:
        say("not tested", what)
    words = {"passed": "passed", "failed": "failed", "undecided": "not decided"}
    style = "bold green" if result.passed else "bold yellow" if result.verdict == "undecided" else "bold red"
    out().print(Text(words[result.verdict], style=style))


def _size(inside: int | None, external: int) -> str:
    text = decimal(inside or 0)
    return f"{text}, and {decimal(external)} of external weights" if external else text


def file_size(path: Path) -> str:
    """Format the size of a file."""
    return decimal(path.stat().st_size)


def _dims(shape: Sequence[Any] | None) -> str:
    return "?" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _names(labels: Sequence[str]) -> str:
    few = ", ".join(labels[:6])
    return f"{len(labels)}: {few}{', ...' if len(labels) > 6 else ''}"
