"""`fgonnx explain`: pictures in, maps with certificates out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from fgonnx.cli import cells, parts, terminal, words
from fgonnx.cli.options import Group, Json, ModelPath, SomeInputs, Target, Typed, takes, typed
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import CertificateWarning, OptionError
from fgonnx.explain.closing import closes
from fgonnx.fields import EXPLANATION, refuse_idle
from fgonnx.jobs.explain import ExplainJob
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.record import mean_of, name_of, score_of, target_of, value_of
from fgonnx.jobs.slide import SlideJob
from fgonnx.jobs.text import TextJob, require_inputs, takes_texts
from fgonnx.text.options import Texts
from fgonnx.wording import amount, parameter

_ROWS = 40  # of the table at the end
_NAMED = 5  # of those of which the certificate does not close
_FEW = 3  # pictures that need no progress bar


def _setting(kind: type, help: str, least: float) -> Any:
    return Annotated[kind | None, typer.Option(help=help, min=least, rich_help_panel=EXPLANATION)]


Folder = Annotated[
    Path | None,
    typer.Option("--output-dir", "-o", metavar="DIR", help="Folder for the results; for texts, it may be left out."),
]

_DRAWN = {
    "samples": _setting(int, "Noisy copies, references or masks of a method that draws.", least=1),
    "sigma": _setting(float, "Noise, as a fraction of max - min of the input.", least=0),
    "random_state": _setting(int, "Seed of what is drawn.", least=0),
}


@takes(
    options=Group(Options, without=FILE, shortcuts=_DRAWN),
    running=Group(Running, defaults={"cache": True}),
    reading=Group(Reading),
    texts=Group(Texts),
)
def command(
    call: typer.Context,
    model: ModelPath,
    inputs: SomeInputs = None,
    folder: Folder = None,
    text: Typed = None,
    target: Target = None,
    picture: Annotated[
        str, typer.Option(help="The .png: panel (photo, map, certificate), overlay (on the whole photo), heat.")
    ] = "panel",
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what an earlier run with the same settings has done.")
    ] = False,
    as_json: Json = False,
    *,
    options: Options,
    running: Running,
    reading: Reading,
    texts: Texts,
) -> None:
    """Explain decisions on pictures, recordings, tables and texts: a picture, the raw map and a record of each.

    **Examples**

    - `fgonnx explain resnet.onnx cat.jpg -o out --preprocess imagenet --labels synset.txt`
    - `fgonnx explain resnet.onnx photos/ -o out --preprocess imagenet --target 'tabby cat'` : why a tabby cat?
    - `fgonnx explain resnet.onnx cat.jpg -o out --preprocess imagenet --contrast next` : why not the runner-up?
    - `fgonnx explain resnet.onnx cat.jpg -o out --preprocess imagenet --method grad-cam` : another method
    - `fgonnx explain mobilenet.onnx 'photos/*.jpg' -o out --preprocess tf --psi signed` : what speaks for and against
    - `fgonnx explain yolo.onnx street.jpg -o out --preprocess yolo,layout=NCHW --picture overlay`
    - `fgonnx explain sensor.onnx batch.npy -o out` : arrays need no preprocessing
    - `fgonnx explain resnet.onnx photos/ -o out --preprocess imagenet --json | jq '.records[].score'`
    - `fgonnx explain ecg.onnx beats.csv -o out --channels I,II,V1 --rate 128 --units mV` : a lane for each channel
    - `fgonnx explain risk.onnx patients.csv -o out` : what each feature of a row adds to the score
    - `fgonnx explain sentiment.onnx --text "not a good film"` : which words decided
    - `fgonnx explain sentiment.onnx reviews.csv --column review -o out --labels labels.txt`
    - `fgonnx explain vad.onnx speech.wav -o out --span 4000:4576 --bind sr=16000 --bind state=zeros` : sound over time

    The record holds the five largest classes, the score, how exactly the contributions sum to it (completeness), what
    share of them the map shows, and every layer's part. Exit code: 0; 1 where contributions do not sum to the score
    (the names are printed, the others are done); 2 where input or options are wrong.
    """
    warnings.simplefilter("ignore", CertificateWarning)  # said of all samples at the end
    if text or takes_texts(model, options):
        refuse_others(picture=picture, resume=resume)
        asked = typed(call, "psi", "backward")
        of_texts = TextJob(model, inputs or [], text or [], folder, options, running, reading, texts, target, asked)
        _texts(of_texts, as_json)
        return
    refuse_idle(texts, [f.name for f in fields(Texts)], "the model takes no texts")
    given, into = require_inputs(inputs, folder)
    kind = ExplainJob if reading.slide is None else SlideJob
    job = kind(model, given, into, options, running, reading, target=target, picture=picture, resume=resume)
    terminal.say("model", f"{model}  (sha256 {job.loaded.sha256[:12]})")
    if job.preprocessing is not None:
        terminal.say("preprocessing", f"{job.preprocessing.describe()}  (from: {job.preprocessing_origin})")
    terminal.say("explained by", ", ".join(f"{k} {v}" for k, v in job.options.to_dict().items() if v is not None))
    shown: list[dict[str, Any]] = []
    rows = sys.maxsize if as_json else _ROWS
    seen: dict[str, None] = {}
    count = 0
    unclosed: list[str] = []
    for record in terminal.progress(job.run(), "explaining", len(job.sources), few=_FEW):
        count += 1
        unclosed += [] if closes(record["notes"]) else [_named(record)]
        if len(shown) < rows:
            shown.append(record)
        seen.update({f"{Path(record['input']['path']).name}: {n}": None for n in record["notes"] if n not in job.notes})
    if as_json:
        terminal.show_json({**job.described(), "records": shown})
        _end(unclosed)
        return
    terminal.notes(job.notes)
    terminal.notes(list(seen)[:_ROWS])
    _show(shown, count - len(shown), into)
    parts.show(shown[:_FEW])
    _end(unclosed)


def _named(record: Mapping[str, Any]) -> str:
    """Return the file of a sample, with its row."""
    given = record["input"]
    name = Path(given["path"]).name if given["path"] else "text"
    return name if given["row"] is None else f"{name} [{given['row']}]"


def _end(unclosed: Sequence[str]) -> None:
    """Name the samples of which the certificate does not close, and exit with 1 where there are some."""
    if unclosed:
        few = ", ".join(unclosed[:_NAMED]) + (f" and {len(unclosed) - _NAMED} more" if len(unclosed) > _NAMED else "")
        terminal.error(
            f"the contributions do not sum to the score: {few}. Do not rely on these maps; 'fgonnx check' says more"
        )
        raise typer.Exit(1)


def refuse_others(*, picture: str, resume: bool) -> None:
    """Refuse options that mean nothing for texts."""
    if picture != "panel" or resume:
        name = "resume" if resume else "picture"
        raise OptionError(f"{parameter(name)} has no effect on texts; leave it out")


def _texts(job: TextJob, as_json: bool) -> None:
    """Explain texts and show them."""
    found: list[dict[str, Any]] = []
    count = 0
    unclosed: list[str] = []
    terminal.say("model", f"{job.model}  (sha256 {job.loaded.sha256[:12]})")
    if job.explainer.tokenizer is not None:
        terminal.say("tokenizer", job.explainer.tokenizer.name)
    terminal.say("explained by", ", ".join(f"{k} {v}" for k, v in job.shown.to_dict().items() if v is not None))
    for record in terminal.progress(job.run(), "explaining", len(job.read), few=_FEW):
        count += 1
        unclosed += [] if closes(record["notes"]) else [_named(record)]
        if len(found) < (sys.maxsize if as_json else _ROWS):
            found.append(record)
    if as_json:
        terminal.show_json({"records": found, "notes": list(job.notes)})
        _end(unclosed)
        return
    terminal.notes(job.notes)
    words.show(found, count - len(found))
    if job.folder is not None:
        terminal.say("written", f"{count} x (.html, .png, .npy, .json) in {job.folder}{os.sep}")
    _end(unclosed)


def _show(rows: Sequence[Mapping[str, Any]], left_out: int, folder: Path) -> None:
    """Print the summary of `explain`: one row per sample."""
    averaged = ("mean of copies",) if any(mean_of(r) is not None for r in rows) else ()
    made = terminal.table(
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
        terminal.row(
            made,
            _named(r),
            top,
            "same" if same and "contrast" not in r else target_of(r),
            amount(score_of(r)),
            *(amount(r["score"]) for _ in averaged),
            f"{relative:.0e}" if relative is not None else "-",
            f"{r['localised']['share']:.1%}" if r["localised"] else "-",
            r["files"]["picture"],
        )
    terminal.show(made)
    if left_out:
        terminal.out().print(f"... and {left_out} more", soft_wrap=True)
    total = len(rows) + left_out
    terminal.say("written", f"{total} x (.png, .npy, .json) in {folder}{os.sep}")
    if any(r["completeness"] for r in rows):
        terminal.say(
            "how to read",
            "residual: |score - sum of contributions| / |score|, rounding only if the explanation is exact;",
        )
        terminal.say("", "in the map: share of the absolute contributions that have a place in the picture")
