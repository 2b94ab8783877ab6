"""`fgonnx compare`: does the deployed model look at the same thing as the one that was approved?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fgonnx.audit.comparison import NOTICEABLE, SMALLER_IS_BETTER
from fgonnx.cli import cells, terminal
from fgonnx.cli.options import Folder, Group, Images, Json, Target, takes
from fgonnx.engine.graph.running import Running
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.fields import refuse_idle
from fgonnx.jobs.compare import CALLED, OWN, WHERE, CompareJob, Side, called, shortened_layers
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import OF_FORMS, SOUND, Reading

_ROWS = 40
_LAYERS = 6
_FEW = 3


@takes(
    options=Group(Options, without=("method", "settings", "engine", "contrast", *FILE)),
    a_options=Group(Options, only=OWN, suffix="-a"),
    b_options=Group(Options, only=OWN, suffix="-b"),
    reading=Group(Reading, without=[name for name in SOUND if name not in OF_FORMS]),
    a_reading=Group(Reading, only=("preprocess",), suffix="-a"),
    b_reading=Group(Reading, only=("preprocess",), suffix="-b"),
    limits=Group(Limits),
    running=Group(Running, defaults={"cache": True}),
)
def command(
    a: Annotated[Path, typer.Argument(metavar="A.onnx", help="The model that was approved.")],
    b: Annotated[Path, typer.Argument(metavar="B.onnx", help="The model that is deployed.")],
    inputs: Images,
    folder: Folder,
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
    running: Running,
) -> None:
    """Compare a deployed model with the approved one: decisions, scores, maps, and the layers where they part.

    **Examples**

    - `fgonnx compare float.onnx int8.onnx photos/ -o out --preprocess imagenet --labels synset.txt`
    - `fgonnx compare float.onnx uint8.onnx photos/ -o out --preprocess-a tf --preprocess-b raw,resize=crop`
    - `fgonnx compare old.onnx new.onnx photos/ -o out --min-top1 0.99 --min-rank-correlation 0.8 --max-layer-error 0.1`

    Both are explained with full-gradients, as layers are compared by their contributions (there is no --method), for
    what A decides, or for --target. Written are a picture for each sample, summary.json and summary.csv. Nothing is
    demanded unless you ask: without limits the run is a report. Exit code: 0; 1 where a limit does not hold (the table
    says which); 2 where input or options are wrong.
    """
    for both, a_own, b_own in ((options, a_options, b_options), (reading, a_reading, b_reading)):
        refuse_idle(both, sorted(a_own.keys() & b_own.keys()), "it is given for A and for B")
    sides = (
        Side(a, inputs, replace(options, **a_options), replace(reading, **a_reading)),
        Side(b, inputs, replace(options, **b_options), replace(reading, **b_reading)),
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
    if not summary["passed"]:
        raise typer.Exit(1)


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the tables at the end."""
    rows = summary["images"]
    made = terminal.table(
        cells.called(r["image"] for r in rows),
        "A decides",
        "B decides",
        "score A",
        "score B",
        "rank corr.",
        "SSIM",
        "top 5 %",
        "rounding in B",
        title="Compared",
        numbers=("score A", "score B", "rank corr.", "SSIM", "top 5 %", "rounding in B"),
    )
    for r in rows[:_ROWS]:
        terminal.row(
            made,
            Path(r["image"]).name + ("" if r["row"] is None else f" [{r['row']}]"),
            called(r, "a"),
            "same" if r["top1"] else Text(called(r, "b"), style="bold red"),
            cells.number(r["score_a"], ".4g"),
            cells.number(r["score_b"], ".4g"),
            cells.number(r["rank_correlation"], ".3f"),
            cells.number(r["ssim"], ".3f"),
            f"{r['overlap']:.0%}",
            f"{r['quantisation_b']:.1%}",
        )
    terminal.show(made)
    if len(rows) > _ROWS:
        terminal.out().print(f"... and {len(rows) - _ROWS} more", soft_wrap=True)
    _show_measures(summary)
    _show_layers(summary)
    terminal.say("how to read", "added here: the error of a layer's values that arises in it alone; so far: all of it;")
    terminal.say("", "bars in the pictures: each layer's part of score B - score A; they add up to it, and may cancel")
    terminal.say("written", f"{len(rows)} x .png, summary.json and summary.csv in {folder}/")
    if summary["limits"]:
        failed = [c["measure"] for c in summary["limits"] if not c["holds"]]
        verdict = Text("passed", style="bold green")
        if failed:
            verdict = Text(f"failed: {', '.join(CALLED.get(m, m) for m in failed)}", style="bold red")
        terminal.out().print(verdict)


def _show_measures(summary: Mapping[str, Any]) -> None:
    limits = {c["measure"]: c for c in summary["limits"]}
    made = terminal.table(
        "measure", "mean", "worst", "worst at", "demanded", "", title="Agreement", numbers=("mean", "worst")
    )
    for name, s in summary["measures"].items():
        if name not in CALLED and name not in limits:
            continue
        c = limits.get(name)
        terminal.row(
            made,
            CALLED.get(name, name),
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
