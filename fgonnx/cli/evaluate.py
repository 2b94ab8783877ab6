"""`fgonnx evaluate`: which method's maps are right, by the measures people trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from fgonnx.audit.evaluate.run import Run
from fgonnx.cli import terminal
from fgonnx.cli.options import Folder, Group, Json, ModelPath, Typed, takes, typed
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import OptionError
from fgonnx.fields import refuse_idle
from fgonnx.jobs.evaluate import EvaluationJob
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.reading import SOUND, Reading
from fgonnx.jobs.text import takes_texts
from fgonnx.jobs.text_evaluate import TextEvaluation
from fgonnx.text.options import Texts

_EXTRA = ("jinja2", "matplotlib", "scipy")
_PER_TABLE = 6
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@takes(
    plan=Group(Plan),
    options=Group(Options, without=("method", "settings", "psi", "profile", "engine", "contrast", *FILE)),
    running=Group(Running, defaults={"batch_size": 16, "cache": True}),
    reading=Group(Reading, without=SOUND),
    texts=Group(Texts),
)
def command(
    call: typer.Context,
    model: ModelPath,
    folder: Folder,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of pictures; a folder with one folder per class (its name: index, label or synset); or an "
            ".npz with x, and y (classes), mask and without (samples without each part) where they are known. For "
            "models of texts: .txt, .jsonl, .csv, .parquet, with the classes under 'label'.",
        ),
    ] = None,
    text: Typed = None,
    as_json: Json = False,
    *,
    plan: Plan,
    options: Options,
    running: Running,
    reading: Reading,
    texts: Texts,
) -> None:
    """Measure which methods explain a model rightly: results per image, a summary, curves, maps, one HTML page.

    **Examples**

    - `fgonnx evaluate resnet.onnx photos/ -o out --preprocess imagenet --limit 50`
    - `fgonnx evaluate resnet.onnx val/ -o out --preprocess imagenet --labels synset.txt --target label`
    - `fgonnx evaluate model.onnx photos/ -o out --masks masks/ --methods fullgrad,grad-cam --measures energy,deletion`
    - `fgonnx evaluate model.onnx photos/ -o out --measures randomisation,random-logit` : the sanity checks
    - `fgonnx evaluate sentiment.onnx reviews.csv --column review -o out --methods fullgrad,occlusion` : which words

    A run that was interrupted goes on where it stopped when the same command is given again; methods and measures may
    be added that way. Exit code: 0; 1 where images, rows without a text, methods or measures had to be left out (they
    are named, the others are done), or contributions do not sum to the score; 2 where input or
    options are wrong, or classes of the data are none of the model.
    docs/evaluation.md says what the measures mean.
    """
    _check_extra()
    job: EvaluationJob | TextEvaluation
    run: Run | TextEvaluation
    if text or takes_texts(model, options):
        asked = typed(call, "backward")
        job = run = TextEvaluation(model, data or [], text or [], folder, plan, options, running, reading, texts, asked)
        named = f"{', '.join(map(str, data or [])) or 'typed'}: {len(job.rows)} texts"
        terminal.say("model", f"{model}  (sha256 {job.loaded.sha256[:12]})")
    else:
        job = _of_pictures(model, data or [], folder, plan, options, running, reading, texts)
        run, named = job.run, f"{job.dataset.path}: {len(job.dataset.items)} images"
        terminal.say("model", f"{model}  (sha256 {job.loaded.sha256[:12]})")
        if job.preprocessing is not None:
            terminal.say("preprocessing", f"{job.preprocessing.describe()}  (from: {job.origin})")
    terminal.say("data", named)
    terminal.say("methods", ", ".join(run.methods))
    terminal.say("measures", ", ".join(m.name for m in run.measures))
    for _ in terminal.progress(run, "evaluating", run.cost, step=int):
        pass
    summary = job.finish()
    if as_json:
        terminal.show_json(summary)
    else:
        _show(summary, folder)
    if summary["failed"] or summary["data"]["skipped"]:
        raise typer.Exit(1)


def _of_pictures(model: Path, data: Sequence[Path], folder: Path, plan: Plan, *how: Any) -> EvaluationJob:
    """Return the run on pictures.

    Raises
    ------
    OptionError
        There is not exactly one folder or file, or something was given that is for texts.
    """
    options, running, reading, texts = how
    refuse_idle(texts, [f.name for f in fields(Texts)], "the model takes no texts")
    if len(data) != 1:
        raise OptionError(f"{len(data)} folders are given: give one folder of pictures, or one .npz")
    return EvaluationJob(model, data[0], folder, plan, options=options, running=running, reading=reading)


def _check_extra() -> None:
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise OptionError(f"'fgonnx evaluate' needs {', '.join(missing)}: pip install {' '.join(missing)}")


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the table of methods by measures, and what was left out."""
    from fgonnx.audit.evaluate.page import number, remarks, table

    columns = table(summary)
    for first in range(0, len(columns), _PER_TABLE):
        part = columns[first : first + _PER_TABLE]
        headings = [f"{c['measure']['name']} {_ARROWS[c['measure']['better']]}\n{c['quantity']}" for c in part]
        made = terminal.table("method", *headings, numbers=headings)
        for method in summary["methods"]:
            cells = [c["cells"].get(method["name"]) for c in part]
            terminal.row(made, method["name"], *("–" if c is None else number(c["mean"]) for c in cells))
        terminal.show(made)
    terminal.notes([*summary["notes"], *remarks(summary)])
    for what, found in (("left out", summary["failed"]), ("skipped", summary["data"]["skipped"])):
        terminal.left_out(what, found)
    terminal.say("measured on", f"{summary['data']['images']} {summary['data'].get('of', 'images')}")
    terminal.say("written", f"index.html, summary.json, summary.csv, results.csv and figures in {folder}/")
