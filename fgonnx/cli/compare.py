"""`fgonnx compare`: does the deployed model look at the same thing as the one that was approved?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from fgonnx.audit.comparison import NOTICEABLE, SMALLER_IS_BETTER
from fgonnx.cli import terminal
from fgonnx.cli.options import (
    EXPLANATION,
    PICTURES,
    RUNNING,
    Head,
    Images,
    Labels,
    NoCache,
    Preprocess,
    Profile,
    Providers,
    Psi,
    Target,
    Threads,
)
from fgonnx.errors import OptionError
from fgonnx.jobs.compare import _LAYERS, CALLED, JUDGED, SHARES, WHERE, CompareJob, Limit, called, prepared, short

LIMITS = "What must hold (exit code 1 where it does not)"

_ROWS = 40
_FEW = 3


def compare(
    a: Annotated[Path, typer.Argument(metavar="A.onnx", help="The model that was approved.")],
    b: Annotated[Path, typer.Argument(metavar="B.onnx", help="The model that is deployed.")],
    inputs: Images,
    folder: Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder for the results.")],
    target: Target = None,
    preprocess: Preprocess = None,
    preprocess_a: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PICTURES,
            metavar="HOW",
            help="The same for A alone. Default: --preprocess, else its metadata.",
        ),
    ] = None,
    preprocess_b: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PICTURES,
            metavar="HOW",
            help="The same for B alone. Default: --preprocess, else its metadata.",
        ),
    ] = None,
    labels: Labels = None,
    profile: Profile = "full",
    psi: Psi = "abs",
    head: Head = "logits",
    output_a: Annotated[
        str | None, typer.Option(rich_help_panel=EXPLANATION, metavar="NAME", help="Output of A. Default: the first.")
    ] = None,
    output_b: Annotated[
        str | None, typer.Option(rich_help_panel=EXPLANATION, metavar="NAME", help="Output of B. Default: the first.")
    ] = None,
    input_a: Annotated[
        str | None, typer.Option(rich_help_panel=EXPLANATION, metavar="NAME", help="Input of A, where it has several.")
    ] = None,
    input_b: Annotated[
        str | None, typer.Option(rich_help_panel=EXPLANATION, metavar="NAME", help="Input of B, where it has several.")
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LIMITS, min=0, max=1, help="Share of pictures on which both make the same decision."
        ),
    ] = None,
    min_rank_correlation: Annotated[
        float | None, typer.Option(rich_help_panel=LIMITS, min=-1, max=1, help="Rank correlation of the maps.")
    ] = None,
    min_correlation: Annotated[
        float | None, typer.Option(rich_help_panel=LIMITS, min=-1, max=1, help="Correlation of the maps.")
    ] = None,
    min_ssim: Annotated[
        float | None, typer.Option(rich_help_panel=LIMITS, min=-1, max=1, help="Structural similarity of the maps.")
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option(rich_help_panel=LIMITS, min=0, max=1, help="Common share of the strongest 5 % of the maps."),
    ] = None,
    min_pointing: Annotated[
        float | None,
        typer.Option(rich_help_panel=LIMITS, min=0, max=1, help="Share of pictures on which the maps peak alike."),
    ] = None,
    max_score_difference: Annotated[
        float | None,
        typer.Option(rich_help_panel=LIMITS, min=0, help="Score difference, as a share of A's largest score."),
    ] = None,
    max_quantisation: Annotated[
        float | None,
        typer.Option(rich_help_panel=LIMITS, min=0, max=1, help="Share of rounding in B's absolute contributions."),
    ] = None,
    max_layer_error: Annotated[
        float | None,
        typer.Option(rich_help_panel=LIMITS, min=0, help="Relative error that one stretch of layers adds by itself."),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            rich_help_panel=LIMITS,
            help="Limits hold for the worst picture, or for the mean. Shares of pictures are means always.",
        ),
    ] = "worst",
    providers: Providers = None,
    threads: Threads = None,
    batch_size: Annotated[
        int, typer.Option(min=1, rich_help_panel=RUNNING, help="Pictures in one run; bounds the memory.")
    ] = 8,
    no_cache: NoCache = False,
) -> None:
    """Compare a deployed model with the approved one: decisions, scores, maps, and the layers where they part.

    **Examples**

    - `fgonnx compare float.onnx int8.onnx photos/ -o out --preprocess imagenet --labels synset.txt`
    - `fgonnx compare float.onnx uint8.onnx photos/ -o out --preprocess-a tf --preprocess-b raw,resize=crop`
    - `fgonnx compare old.onnx new.onnx photos/ -o out --min-top1 0.99 --min-rank-correlation 0.8 --max-layer-error 0.1`

    Both are explained for what A decides, or for --target. Written are a picture for each sample, summary.json and
    summary.csv. Nothing is demanded unless you ask: without limits the run is a report and ends with exit code 0.
    With limits, the exit code is 1 where one does not hold (the table says which); 2 where input or options are wrong.
    """
    if judge not in JUDGED:
        raise OptionError(f"judge '{judge}' does not exist; choose one of: {', '.join(JUDGED)}")
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"'{folder}' is a file; give a folder to write to")
    bounds = {
        "top1": min_top1,
        "rank_correlation": min_rank_correlation,
        "correlation": min_correlation,
        "ssim": min_ssim,
        "overlap": min_overlap,
        "pointing": min_pointing,
        "score_difference": max_score_difference,
        "quantisation_b": max_quantisation,
        "layer_error": max_layer_error,
    }
    limits = [
        Limit(name, bound, "mean" if name in SHARES else judge) for name, bound in bounds.items() if bound is not None
    ]
    run = CompareJob(
        prepared(a, inputs, preprocess_a or preprocess, input_a),
        prepared(b, inputs, preprocess_b or preprocess, input_b),
        inputs,
        folder,
        limits,
        target=target,
        labels=labels,
        profile=profile,
        psi=psi,
        head=head,
        inputs_named=(input_a, input_b),
        outputs_named=(output_a, output_b),
        providers=[p.strip() for p in providers.split(",") if p.strip()] if providers else None,
        threads=threads,
        batch_size=batch_size,
        cache=not no_cache,
    )
    for letter, model in zip("AB", run.models, strict=True):
        terminal.say(f"model {letter}", f"{model.path}  (sha256 {model.loaded.sha256[:12]})")
        if model.described is not None:
            terminal.say("preprocessing", f"{model.described}  (from: {model.origin})")
    for _ in _with_progress(run.rows(), len(run.sources)):
        pass
    terminal.notes(run.notes)
    summary = run.summary(complete=True)
    _show(summary, folder)
    if not summary["passed"]:
        raise typer.Exit(1)


def _with_progress(rows: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """Show how far a long run is, on a terminal only."""
    console = terminal.err()
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=total <= _FEW or not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=total)
        for row in rows:
            progress.advance(task)
            yield row


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the tables at the end."""
    rows = summary["images"]
    made = terminal.table(
        "picture",
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
            f"{r['score_a']:.4g}",
            f"{r['score_b']:.4g}",
            f"{r['rank_correlation']:.3f}",
            f"{r['ssim']:.3f}",
            f"{r['overlap']:.0%}",
            f"{r['quantisation_b']:.1%}",
        )
    terminal.out().print(made)
    if len(rows) > _ROWS:
        terminal.out().print(f"... and {len(rows) - _ROWS} more", soft_wrap=True)
    _show_measures(summary)
    _show_layers(summary)
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
        "measure", "mean", "worst", "worst picture", "demanded", "", title="Agreement", numbers=("mean", "worst")
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
            Path(s["worst"]["image"]).name + ("" if s["worst"]["row"] is None else f" [{s['worst']['row']}]"),
            "" if c is None else f"{c['kind']} {c['bound']:g} ({c['judged']})",
            "" if c is None else Text("holds", style="green") if c["holds"] else Text("fails", style="bold red"),
        )
    terminal.out().print(made)


def _show_layers(summary: Mapping[str, Any]) -> None:
    layers, apart = summary["layers"], summary["parted"]
    if apart:
        title = f"They part at {short(apart[0]['node_b'])}"
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
            short(e["node_a"]),
            short(e["node_b"]),
            WHERE[e["where"]],
            f"{e['added']:.2%}",
            f"{e['error']:.2%}",
        )
    terminal.out().print(made)
