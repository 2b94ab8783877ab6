"""`fgonnx evaluate`: which method's maps are right, by the measures people trust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.run import Run
from fgonnx.cli import terminal
from fgonnx.cli.options import (
    EXPLANATION,
    PICTURES,
    RUNNING,
    Bind,
    Labels,
    ModelPath,
    NoCache,
    Preprocess,
    Providers,
    Threads,
)
from fgonnx.errors import OptionError
from fgonnx.jobs.evaluate import METHODS, EvaluationJob

_EXTRA = ("jinja2", "matplotlib", "scipy")
_PER_TABLE = 6
_LISTED = 12
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


def command(
    model: ModelPath,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of pictures; a folder with one folder per class (its name: index, label or synset); or an "
            ".npz with x, and y (classes) and mask where they are known.",
        ),
    ],
    folder: Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder for the results.")],
    chosen: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="A,B",
            help="Methods, with settings as in rise:samples=500, or 'all'; docs/methods.md lists them. "
            f"Default: {', '.join(METHODS)}.",
        ),
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option(
            "--measures",
            metavar="A,B",
            help="Measures, with options as in deletion:fill=black:steps=20, or 'all': "
            f"{', '.join(evaluate.names())}. Default: the quick ones.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=PICTURES,
            metavar="DIR",
            help="Where the evidence is: pictures of the same name, .png, white on the object; or a boxes.csv with the "
            "columns image, left, top, right, bottom.",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            rich_help_panel=EXPLANATION,
            help="What is explained and measured: predicted (what the model decides for), or label (the true class).",
        ),
    ] = "predicted",
    preprocess: Preprocess = None,
    labels: Labels = None,
    bind: Bind = None,
    limit: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=RUNNING, help="Images, the first ones by name. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=RUNNING, help="Seed of all that is drawn.")] = 0,
    shown: Annotated[int, typer.Option(min=0, rich_help_panel=RUNNING, help="Images in the picture of all maps.")] = 6,
    providers: Providers = None,
    threads: Threads = None,
    batch_size: Annotated[
        int, typer.Option(min=1, rich_help_panel=RUNNING, help="Images that are measured together; bounds the memory.")
    ] = 16,
    no_cache: NoCache = False,
) -> None:
    """Measure which methods explain a model rightly: results per image, a summary, curves, maps, one HTML page.

    **Examples**

    - `fgonnx evaluate resnet.onnx photos/ -o out --preprocess imagenet --limit 50`
    - `fgonnx evaluate resnet.onnx val/ -o out --preprocess imagenet --labels synset.txt --target label`
    - `fgonnx evaluate model.onnx photos/ -o out --masks masks/ --methods fullgrad,grad-cam --measures energy,deletion`
    - `fgonnx evaluate model.onnx photos/ -o out --measures randomisation,random-logit` : the sanity checks

    A run that was interrupted goes on where it stopped when the same command is given again; methods and measures may
    be added that way. Exit code: 0; 1 where images, methods or measures had to be left out (they are named, the others
    are done); 2 where input or options are wrong. docs/evaluation.md says what the measures mean.
    """
    _check_extra()
    job = EvaluationJob(
        model,
        data,
        folder,
        chosen,
        measured,
        masks,
        target,
        preprocess,
        labels,
        bind or (),
        limit,
        seed,
        shown,
        [p.strip() for p in providers.split(",") if p.strip()] if providers else None,
        threads,
        batch_size,
        cache=not no_cache,
    )
    terminal.say("model", f"{model}  (sha256 {job.loaded.sha256[:12]})")
    if job.preprocessing is not None:
        terminal.say("preprocessing", f"{job.preprocessing.describe()}  (from: {job.origin})")
    terminal.say("data", f"{data}: {len(job.dataset.items)} images")
    terminal.say("methods", ", ".join(job.run.methods))
    terminal.say("measures", ", ".join(m.name for m in job.run.measures))
    for _ in _with_progress(job.run):
        pass
    summary = job.finish()
    _show(summary, folder)
    if summary["failed"] or summary["data"]["skipped"]:
        raise typer.Exit(1)


def _check_extra() -> None:
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"'fgonnx evaluate' needs {', '.join(missing)}; install the extra: pip install \"fgonnx[evaluate]\""
        )


def _with_progress(run: Run) -> Iterator[int]:
    """Show how far the run is and how long it will take, on a terminal only."""
    console = terminal.err()
    columns = (TextColumn("evaluating"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=run.cost)
        for done in run:
            progress.advance(task, done)
            yield done


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the table of methods by measures, and what was left out."""
    from fgonnx.audit.evaluate.page import number, table

    columns = table(summary)
    for first in range(0, len(columns), _PER_TABLE):
        part = columns[first : first + _PER_TABLE]
        headings = [f"{c['measure']['name']} {_ARROWS[c['measure']['better']]}\n{c['quantity']}" for c in part]
        made = terminal.table("method", *headings, numbers=headings)
        for method in summary["methods"]:
            cells = [c["cells"].get(method["name"]) for c in part]
            terminal.row(made, method["name"], *("–" if c is None else number(c["mean"]) for c in cells))
        terminal.out().print(made)
    terminal.notes(summary["notes"])
    for what, found in (("left out", summary["failed"]), ("skipped", summary["data"]["skipped"])):
        if found:
            terminal.say(what, f"{len(found)}:")
            for name, why in list(found.items())[:_LISTED]:
                terminal.say("", f"{name}: {why}")
            if len(found) > _LISTED:
                terminal.say("", f"... and {len(found) - _LISTED} more, in summary.json")
    terminal.say("measured on", f"{summary['data']['images']} images")
    terminal.say("written", f"index.html, summary.json, summary.csv, results.csv and figures in {folder}/")
