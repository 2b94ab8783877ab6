"""`fgonnx compare`: does the deployed model look at the same thing as the one that was approved?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fgonnx.audit.comparison import NOTICEABLE, SMALLER_IS_BETTER
from fgonnx.cli import cells, terminal
from fgonnx.cli.options import Folder, Group, Json, SomeInputs, Target, Typed, takes, typed
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import OptionError
from fgonnx.fields import refuse_idle
from fgonnx.jobs.compare import OWN, CompareJob, Side
from fgonnx.jobs.compared import CALLED, CALLED_OF_TEXTS, WHERE, called, shortened_layers
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import OF_FORMS, SOUND, Reading
from fgonnx.jobs.text import takes_texts
from fgonnx.jobs.text_compare import PAGE, TextCompareJob, TextSide
from fgonnx.text.options import Texts
from fgonnx.wording import amount

_ROWS = 40
_LAYERS = 6
_FEW = 3
_COLUMNS = {
    "rank_correlation": "rank corr.",
    "ssim": "SSIM",
    "overlap": "",
    "quantisation_b": "rounding in B",
}
_STRONGEST = {False: "top 5 %", True: "top words"}
_FORMS = {"overlap": ".0%", "quantisation_b": ".1%"}


@takes(
    options=Group(Options, without=("method", "settings", "engine", "contrast", *FILE)),
    a_options=Group(Options, only=OWN, suffix="-a"),
    b_options=Group(Options, only=OWN, suffix="-b"),
    reading=Group(Reading, without=[name for name in SOUND if name not in OF_FORMS]),
    a_reading=Group(Reading, only=("preprocess",), suffix="-a"),
    b_reading=Group(Reading, only=("preprocess",), suffix="-b"),
    limits=Group(Limits),
    texts=Group(Texts),
    running=Group(Running, defaults={"cache": True}),
)
def command(
    call: typer.Context,
    a: Annotated[Path, typer.Argument(metavar="A.onnx", help="The model that was approved.")],
    b: Annotated[Path, typer.Argument(metavar="B.onnx", help="The model that is deployed.")],
    folder: Folder,
    inputs: SomeInputs = None,
    text: Typed = None,
    target: Target = None,
    as_json: Json = False,
    *,
    options: Options,
    a_options: Mapping[str, Any],
    b_options: Mapping[str, Any],
    reading: Reading,
    a_reading: Mapping[str, Any],
    b_reading: Mapping[str, Any],
    limits: Limits,
    texts: Texts,
    running: Running,
) -> None:
    """Compare a deployed model with the approved one: decisions, scores, maps, and the layers where they part.

    **Examples**

    - `fgonnx compare float.onnx int8.onnx photos/ -o out --preprocess imagenet --labels synset.txt`
    - `fgonnx compare float.onnx uint8.onnx photos/ -o out --preprocess-a tf --preprocess-b raw,resize=crop`
    - `fgonnx compare float.onnx int8.onnx reviews.csv --column review -o out` : the same words?
    - `fgonnx compare old.onnx new.onnx photos/ -o out --min-top1 0.99 --min-rank-correlation 0.8 --max-layer-error 0.1`

    Both are explained with full-gradients, as layers are compared by their contributions (there is no --method), for
    what A decides, or for --target. Written are a picture for each sample, summary.json and summary.csv. Nothing is
    demanded unless you ask: without limits the run is a report. Exit code: 0; 1 where a limit does not hold (the table
    says which), or where rows hold no text (they are named, the others are done), or where contributions
    do not sum to the score; 2 where input or options are wrong.
    """
    for both, a_own, b_own in ((options, a_options, b_options), (reading, a_reading, b_reading)):
        refuse_idle(both, sorted(a_own.keys() & b_own.keys()), "it is given for A and for B")
    own = [replace(options, **a_options), replace(options, **b_options)]
    job: CompareJob
    if text or all(takes_texts(m, o) for m, o in zip((a, b), own, strict=True)):
        pair = TextSide(a, own[0], replace(reading, **a_reading)), TextSide(b, own[1], replace(reading, **b_reading))
        files, names = inputs or [], reading.names()
        asked = typed(call, "psi", "backward")
        job = TextCompareJob(pair, files, folder, running, limits, target, names, text or [], texts, asked)
    else:
        refuse_idle(texts, [f.name for f in fields(Texts)], "the models take no texts")
        if not inputs:
            raise OptionError("there is nothing to compare on: give pictures, recordings, tables or .npy arrays")
        sides = (
            Side(a, inputs, own[0], replace(reading, **a_reading)),
            Side(b, inputs, own[1], replace(reading, **b_reading)),
        )
        job = CompareJob(sides, inputs, folder, running, limits, target=target, labels=reading.names())
    for letter, side in zip("AB", job.models, strict=True):
        terminal.say(f"model {letter}", f"{side.path}  (sha256 {side.loaded.sha256[:12]})")
        if side.preprocessing is not None:
            terminal.say("preprocessing", f"{side.preprocessing.describe()}  (from: {side.origin})")
    for _ in terminal.progress(job.rows(), "comparing", len(job.sources), few=_FEW):
        pass
    terminal.notes(job.notes)
    summary = job.summary(complete=True)
    if as_json:
        terminal.show_json(summary)
    else:
        _show(summary, folder)
    if not summary["passed"] or summary["skipped"]:
        raise typer.Exit(1)


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the tables at the end."""
    rows = summary["images"]
    numbers = ("score A", "score B", "rank corr.", "SSIM", *_STRONGEST.values(), "rounding in B")
    of = [n for n in _COLUMNS if n in summary["measures"]]
    strongest = "words" in rows[0]
    headings = {**_COLUMNS, "overlap": _STRONGEST[strongest]}
    made = terminal.table(
        "text" if strongest else cells.called(r["image"] for r in rows),
        "A decides",
        "B decides",
        "score A",
        "score B",
        *(headings[n] for n in of),
        title="Compared",
        numbers=numbers,
    )
    for r in rows[:_ROWS]:
        terminal.row(
            made,
            Path(r["image"]).name + ("" if r["row"] is None else f" [{r['row']}]"),
            called(r, "a"),
            "same" if r["top1"] else Text(called(r, "b"), style="bold red"),
            amount(r["score_a"]),
            amount(r["score_b"]),
            *(f"{r[n]:{_FORMS.get(n, '.3f')}}" if n in _FORMS else cells.number(r[n], ".3f") for n in of),
        )
    terminal.show(made)
    if len(rows) > _ROWS:
        terminal.out().print(f"... and {len(rows) - _ROWS} more", soft_wrap=True)
    _show_measures(summary)
    _show_layers(summary)
    terminal.say("how to read", "added here: the error of a layer's values that arises in it alone; so far: all of it")
    if not strongest:
        terminal.say("", "bars in the pictures: each layer's part of score B - score A; they sum to it, and may cancel")
    page = f"{PAGE}, " if strongest else ""
    terminal.say("written", f"{len(rows)} x .png, {page}summary.json and summary.csv in {folder}/")
    terminal.left_out("skipped", summary["skipped"])
    if summary["limits"]:
        called_of = _called(summary)
        failed = [c["measure"] for c in summary["limits"] if not c["holds"]]
        verdict = Text("passed", style="bold green")
        if failed:
            verdict = Text(f"failed: {', '.join(called_of.get(m, m) for m in failed)}", style="bold red")
        terminal.out().print(verdict)


def _called(summary: Mapping[str, Any]) -> Mapping[str, str]:
    return CALLED_OF_TEXTS if "ssim" not in summary["measures"] else CALLED


def _show_measures(summary: Mapping[str, Any]) -> None:
    limits, called_of = {c["measure"]: c for c in summary["limits"]}, _called(summary)
    made = terminal.table(
        "measure", "mean", "worst", "worst at", "demanded", "", title="Agreement", numbers=("mean", "worst")
    )
    for name, s in summary["measures"].items():
        if name not in called_of and name not in limits:
            continue
        c = limits.get(name)
        terminal.row(
            made,
            called_of.get(name, name),
            f"{s['mean']:.3f}",
            f"{s['max'] if name in SMALLER_IS_BETTER else s['min']:.3f}",
            _worst(s),
            "" if c is None else f"{c['kind']} {c['bound']:g} ({c['judged']})",
            "" if c is None else Text("holds", style="green") if c["holds"] else Text("fails", style="bold red"),
        )
    terminal.show(made)


def _worst(spread: Mapping[str, Any]) -> str:
    """Return the name of the worst picture; none where all are alike, as far as the table shows."""
    worst = spread["worst"]
    if worst is None or f"{spread['min']:.3f}" == f"{spread['max']:.3f}":
        return ""
    return Path(worst["image"]).name + ("" if worst["row"] is None else f" [{worst['row']}]")


def _show_layers(summary: Mapping[str, Any]) -> None:
    layers, apart = summary["layers"], summary["parted"]
    short = shortened_layers([e[node] for node in ("node_a", "node_b") for e in layers])
    if apart:
        title = f"They part at {short[apart[0]['node_b']]}"
    elif max(e["added"] for e in layers) > NOTICEABLE:
        title = "They differ in many layers, none stands out; those that add most"
    else:
        title = "No layer stands out; those that add most"
    made = terminal.table(
        "layer of A", "in B", "compared", "added here", "so far", title=title, numbers=("added here", "so far")
    )
    for e in (apart or sorted(layers, key=lambda e: -e["added"]))[:_LAYERS]:
        terminal.row(
            made,
            short[e["node_a"]],
            short[e["node_b"]],
            WHERE[e["where"]],
            f"{e['added']:.2%}",
            f"{e['error']:.2%}",
        )
    terminal.show(made)
