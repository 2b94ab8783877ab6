"""`fgonnx compare`: does the deployed model look at the same thing as the one that was approved?"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from fgonnx import storage
from fgonnx.cli import record, terminal
from fgonnx.cli.job import picture_preprocessing
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
)  # fmt: skip
from fgonnx.cli.samples import Reader, Sample, digest, find, is_picture
from fgonnx.comparison import MEASURES, NOTICEABLE, SMALLER_IS_BETTER, Comparer, Comparison, measures, parted
from fgonnx.comparison.alignment import GIVES, HEAD, READS, Point
from fgonnx.errors import FgonnxError, NumericError, OptionError, TargetError
from fgonnx.model import LoadedModel, load
from fgonnx.normalise import choose_input
from fgonnx.read import images
from fgonnx.read.labels import align
from fgonnx.read.labels import load as load_labels
from fgonnx.show import pair

Float = npt.NDArray[np.float64]

SCHEMA = 1
"""Version of the summary's layout; it changes when a key changes its meaning or goes away."""

LIMITS = "What must hold (exit code 1 where it does not)"
SHARES = ("top1", "pointing")
JUDGED = ("worst", "mean")

_ROWS = 40
_LAYERS = 6
_FEW = 3
_NAME = 56

# What the table at the end calls a measure; those without a name are in the files only.
_CALLED = {
    "top1": "same decision", "score_difference": "score difference", "rank_correlation": "rank correlation",
    "ssim": "SSIM", "overlap": "top 5 % in common", "pointing": "same peak", "quantisation_b": "rounding in B",
    "layer_error": "largest layer error",
}  # fmt: skip
_WHERE = {READS: "what it reads", GIVES: "what it gives", HEAD: "the answer"}


@dataclass(frozen=True)
class Limit:
    """A bound that a measure must keep.

    Attributes
    ----------
    measure : str
        Key of `MEASURES`.
    bound : float
        At most, for measures of difference; at least, for measures of agreement.
    judged : {"worst", "mean"}
        Whether every picture must keep it, or the mean over all.
    """

    measure: str
    bound: float
    judged: str

    @property
    def at_most(self) -> bool:
        """Whether the bound is an upper one."""
        return self.measure in SMALLER_IS_BETTER

    def check(self, values: Float) -> dict[str, Any]:
        """Return the verdict for the record."""
        worst = float(values.max() if self.at_most else values.min())
        found = float(values.mean()) if self.judged == "mean" else worst
        return {
            "measure": self.measure,
            "bound": self.bound,
            "kind": "at most" if self.at_most else "at least",
            "judged": self.judged,
            "found": found,
            "holds": found <= self.bound if self.at_most else found >= self.bound,
        }


@dataclass(frozen=True)
class _Model:
    """One of the two models, with all that turns files into its samples."""

    path: Path
    loaded: LoadedModel
    reader: Reader
    described: str | None
    origin: str

    @property
    def name(self) -> str:
        return self.path.name


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
        "top1": min_top1, "rank_correlation": min_rank_correlation, "correlation": min_correlation, "ssim": min_ssim,
        "overlap": min_overlap, "pointing": min_pointing, "score_difference": max_score_difference,
        "quantisation_b": max_quantisation, "layer_error": max_layer_error,
    }  # fmt: skip
    limits = [
        Limit(name, bound, "mean" if name in SHARES else judge) for name, bound in bounds.items() if bound is not None
    ]
    run = _Run(
        _prepared(a, inputs, preprocess_a or preprocess, input_a),
        _prepared(b, inputs, preprocess_b or preprocess, input_b),
        inputs, folder, limits, target=target, labels=labels, profile=profile, psi=psi, head=head,
        inputs_named=(input_a, input_b), outputs_named=(output_a, output_b),
        providers=[p.strip() for p in providers.split(",") if p.strip()] if providers else None, threads=threads,
        batch_size=batch_size, cache=not no_cache,
    )  # fmt: skip
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


def _prepared(path: Path, inputs: Sequence[Path], how: str | None, input: str | None) -> _Model:
    loaded = load(path)
    face = choose_input(loaded.ir, input, loaded.name)
    assert face.shape is not None
    pictures = any(is_picture(s.path) for s in find(inputs, face.shape.rank()))
    pre, origin = picture_preprocessing(loaded, how, input, required=pictures)
    return _Model(path, loaded, Reader(face, pre), pre.describe() if pre is not None else None, origin)


class _Run:
    """Compares sample after sample, in bounded memory, and keeps a row of each."""

    def __init__(
        self, a: _Model, b: _Model, inputs: Sequence[Path], folder: Path, limits: Sequence[Limit], *,
        target: str | None, labels: Path | None, profile: str, psi: str, head: str,
        inputs_named: tuple[str | None, str | None], outputs_named: tuple[str | None, str | None],
        providers: Sequence[str] | None, threads: int | None, batch_size: int, cache: bool,
    ) -> None:  # fmt: skip
        self.models = a, b
        self.folder, self.limits, self.batch_size = folder, limits, batch_size
        self.target, self.signed = target, psi == "signed"
        self.sources = find(inputs, len(a.reader.dims))
        self.notes: dict[str, None] = {}
        self._given = load_labels(labels) if labels is not None else a.loaded.labels() or b.loaded.labels()
        self._must_fit = labels is not None
        self.settings = {"profile": profile, "psi": psi, "head": head, "target": target}
        layouts = [
            m.reader.preprocessing.layout if m.reader.preprocessing is not None and m.described else None
            for m in self.models
        ]
        self.comparer = Comparer(
            a.loaded, b.loaded, profile=profile, psi=psi, head=head, input_a=inputs_named[0], input_b=inputs_named[1],
            output_a=outputs_named[0], output_b=outputs_named[1], layout_a=layouts[0], layout_b=layouts[1],
            labels=self._given, providers=providers, threads=threads, batch_size=batch_size, cache=cache,
        )  # fmt: skip
        self._rows: list[dict[str, Any]] = []
        self._points: tuple[Point, ...] = ()
        self._sums: dict[str, Float] = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Compare sample after sample and yield their rows, once their pictures are written.

        Raises
        ------
        FgonnxError
            A sample cannot be read or compared; of those before it, pictures and a summary are written.
        """
        pending: list[tuple[Sample, Sample]] = []
        try:
            for source in self.sources:
                try:
                    both = self.models[0].reader.read(source), self.models[1].reader.read(source)
                except FgonnxError:
                    yield from self._finish(pending)
                    raise
                if pending and (
                    len(pending) >= self.batch_size
                    or any(new.x.shape != old.x.shape for new, old in zip(both, pending[0], strict=True))
                ):
                    yield from self._finish(pending)
                    pending = []
                pending.append(both)
            yield from self._finish(pending)
        except FgonnxError:
            if self._rows:
                self.write(self.summary(complete=False))
            raise
        self.write(self.summary(complete=True))

    def _finish(self, batch: Sequence[tuple[Sample, Sample]]) -> Iterator[dict[str, Any]]:
        if not batch:
            return
        arrays = [np.stack([both[side].x for both in batch]) for side in (0, 1)]
        names = self._labels(self.comparer.entries(arrays[0].shape, arrays[1].shape))
        try:
            found = self.comparer(arrays[0], arrays[1], self.target)
        except NumericError as error:
            if len(batch) == 1:
                raise NumericError(f"'{batch[0][0].source.path}': {error}") from error
            for one in batch:
                yield from self._finish([one])
            return
        self._collect(found)
        for i, (sample, other) in enumerate(batch):
            self.notes.update(dict.fromkeys(f"{sample.source.path.name}: {n}" for n in (*sample.notes, *other.notes)))
            row = self._row(found, i, sample, names)
            drawn = _picture(found, i, row, sample, (self.models[0].name, self.models[1].name), self.signed)
            storage.make_folder(self.folder)
            images.write_png(self.folder / row["picture"], drawn)
            self._rows.append(row)
            yield row

    def _collect(self, found: Comparison) -> None:
        """Add to the means over samples, by layer."""
        sums = {
            "error": found.error, "added": found.added, "contribution_a": found.parts_a[:, :-1],
            "contribution_b": found.parts_b[:, :-1], "rounding_a": found.rounding_a[:, :-1],
            "rounding_b": found.rounding_b[:, :-1],
        }  # fmt: skip
        if self._points and self._points != found.points:
            # Only pictures of very different sizes are unrolled into different layers.
            self.notes["layers differ between pictures: those of the first ones are summed up"] = None
            return
        self._points = found.points
        for name, values in sums.items():
            self._sums[name] = self._sums.get(name, np.zeros(len(found.points))) + values.sum(axis=0)
        self._sums["count"] = self._sums.get("count", np.zeros(1)) + len(found)
        if any(found.unmatched):
            self.notes[
                f"layers with weights that the other model has no counterpart of: {found.unmatched[0]} of A, "
                f"{found.unmatched[1]} of B"
            ] = None

    def _labels(self, entries: int) -> tuple[str, ...] | None:
        if self._given is None:
            return None
        try:
            aligned, note = align(self._given, entries)
        except TargetError as error:
            if self._must_fit:
                raise
            aligned, note = (), f"those of the model's metadata are not used: {error}"
        self.notes.update({f"labels: {note}": None} if note else {})
        return aligned or None

    def _row(self, found: Comparison, i: int, sample: Sample, names: Sequence[str] | None) -> dict[str, Any]:
        def label(index: int | None) -> str | None:
            return names[index] if names is not None and index is not None else None

        target = None if found.a.target is None else int(found.a.target[i])
        choices = int(found.choice_a[i]), int(found.choice_b[i])
        probabilities = [None if p is None else float(p[i]) for p in (found.probability_a, found.probability_b)]
        return {
            "image": str(sample.source.path),
            "row": sample.source.row,
            "sha256": digest(sample.source.path),
            "target": target,
            "target_label": label(target),
            "explained": found.a.described[i],
            "choice_a": choices[0],
            "choice_b": choices[1],
            "label_a": label(choices[0]),
            "label_b": label(choices[1]),
            "score_a": float(found.a.score[i]),
            "score_b": float(found.b.score[i]),
            "probability_a": probabilities[0],
            "probability_b": probabilities[1],
            **{name: float(values[i]) for name, values in found.measures.items()},
            "rounding_a": float(found.rounding_a[i].sum()),
            "rounding_b": float(found.rounding_b[i].sum()),
            "residual": float(found.residual()[i]),
            "picture": f"{sample.source.name}.png",
        }

    def summary(self, *, complete: bool) -> dict[str, Any]:
        """Return what the rows come to; `complete` says whether all samples are in it."""
        values = {name: np.array([row[name] for row in self._rows]) for name in MEASURES}
        checks = [limit.check(values[limit.measure]) for limit in self.limits]
        layers = self._layers()
        return {
            "schema": SCHEMA,
            "complete": complete,
            "passed": complete and all(c["holds"] for c in checks),
            "models": {
                letter.lower(): {
                    "path": str(m.path),
                    "sha256": m.loaded.sha256,
                    "preprocessing": json.loads(m.reader.preprocessing.to_json()) if m.reader.preprocessing else None,
                }
                for letter, m in zip("AB", self.models, strict=True)
            },
            "versions": record.versions(),
            "settings": self.settings,
            "notes": list(self.notes),
            "limits": checks,
            "measures": {name: self._spread(name, v) for name, v in values.items()},
            "parted": [layer for layer in sorted(layers, key=lambda e: -e["added"]) if layer["parted"]],
            "layers": layers,
            "images": self._rows,
        }

    def _spread(self, name: str, values: Float) -> dict[str, Any]:
        worst = int(values.argmax() if name in SMALLER_IS_BETTER else values.argmin())
        row = self._rows[worst]
        return {
            "meaning": MEASURES[name],
            "mean": float(values.mean()),
            "min": float(values.min()),
            "max": float(values.max()),
            "worst": {"image": row["image"], "row": row["row"]},
        }

    def _layers(self) -> list[dict[str, Any]]:
        means = {n: v / self._sums["count"] for n, v in self._sums.items() if n != "count"}
        apart = {p for p, _ in parted(self._points, means["added"])}
        return [
            {
                "layer": p.layer,
                "where": p.where,
                "node_a": p.name,
                "node_b": p.other,
                "op_type": p.op_type,
                **{name: float(values[i]) for name, values in means.items()},
                "parted": p in apart,
            }
            for i, p in enumerate(self._points)
        ]

    def write(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and summary.csv."""
        storage.make_folder(self.folder)
        text = io.StringIO()
        columns = [name for name in self._rows[0] if name != "sha256"]
        table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        for kind in ("mean", "min", "max"):
            table.writerow({"image": kind, **{n: s[kind] for n, s in summary["measures"].items()}})
        with storage.replacing(self.folder / "summary.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        storage.write_json(self.folder / "summary.json", summary)


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


def _picture(
    found: Comparison, i: int, row: Mapping[str, Any], sample: Sample, names: tuple[str, str], signed: bool
) -> npt.NDArray[np.uint8]:
    a, b = measures.same_size(found.a.saliency[i], found.b.saliency[i])
    same = row["choice_a"] == row["choice_b"]
    title = f"{'same decision' if same else 'OTHER DECISION'}: {_called(row, 'b')}   ({sample.source.path.name})"
    named = [{"name": p.layer if p.where != HEAD else p.name, "op_type": p.op_type} for p in found.points]
    difference = (found.parts_b + found.rounding_b - found.parts_a - found.rounding_a)[i]
    bars: dict[str, float] = {"input": float(difference[-1])}
    once = list({entry["name"]: entry for entry in named}.values())
    short = dict(zip([e["name"] for e in once], record.short_names(once), strict=True))
    largest = int(found.added[i].argmax())
    stands_out = f"{short[named[largest]['name']]}, {_WHERE[found.points[largest].where]}"
    for entry, value in zip(named, difference[:-1], strict=True):
        name = short[entry["name"]]
        bars[name] = bars.get(name, 0.0) + float(value)
    return pair.draw(
        sample.shown, a, b, title=title, lines=_lines(row, stands_out), bars=list(bars.items()), names=names,
        signed=signed,
    )  # fmt: skip


def _lines(row: Mapping[str, Any], stands_out: str) -> list[str]:
    """Put what was measured into words."""
    target = row["target_label"] or row["explained"]
    lines = []
    for letter in "ab":
        probability = row[f"probability_{letter}"]
        own = row["target"] in (None, row[f"choice_{letter}"])
        chosen = "" if own else f"; chooses {_called(row, letter)}"
        lines.append(
            f"{letter.upper()}: score {row[f'score_{letter}']:.4g}"
            + (f", probability {probability:.1%}" if probability is not None else "")
            + f" for {target}"
            + chosen
        )
    lines += [
        f"score B - score A: {row['score_b'] - row['score_a']:+.3g}, {row['score_difference']:.1%} of A's largest",
        f"maps: rank correlation {row['rank_correlation']:.3f}, correlation {row['correlation']:.3f}, "
        f"SSIM {row['ssim']:.3f}",
        f"strongest 5 %: {row['overlap']:.0%} in common; peaks {row['peak_distance']:.1%} of the side apart",
        f"rounding: {row['quantisation_a']:.1%} of A's contributions, {row['quantisation_b']:.1%} of B's",
        f"largest error of a layer: {row['layer_error']:.1%} ({stands_out})",
    ]
    return lines


def _called(row: Mapping[str, Any], letter: str) -> str:
    label = row[f"label_{letter}"]
    return str(row[f"choice_{letter}"]) if label is None else str(label)


def _short(name: str) -> str:
    """Shorten what exporters join: names of fused layers by ";", and long paths in the middle."""
    name = name.partition(";")[0]
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}...{name[3 - _NAME // 2 :]}"


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the tables at the end."""
    rows = summary["images"]
    made = terminal.table(
        "picture", "A decides", "B decides", "score A", "score B", "rank corr.", "SSIM", "top 5 %", "rounding in B",
        title="Compared", numbers=("score A", "score B", "rank corr.", "SSIM", "top 5 %", "rounding in B"),
    )  # fmt: skip
    for r in rows[:_ROWS]:
        terminal.row(
            made,
            Path(r["image"]).name + ("" if r["row"] is None else f" [{r['row']}]"),
            _called(r, "a"),
            "same" if r["top1"] else Text(_called(r, "b"), style="bold red"),
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
            verdict = Text(f"failed: {', '.join(_CALLED.get(m, m) for m in failed)}", style="bold red")
        terminal.out().print(verdict)


def _show_measures(summary: Mapping[str, Any]) -> None:
    limits = {c["measure"]: c for c in summary["limits"]}
    made = terminal.table(
        "measure", "mean", "worst", "worst picture", "demanded", "", title="Agreement", numbers=("mean", "worst")
    )
    for name, s in summary["measures"].items():
        if name not in _CALLED and name not in limits:
            continue
        c = limits.get(name)
        terminal.row(
            made,
            _CALLED.get(name, name),
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
        title = f"They part at {_short(apart[0]['node_b'])}"
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
            _short(e["node_a"]),
            _short(e["node_b"]),
            _WHERE[e["where"]],
            f"{e['added']:.2%}",
            f"{e['error']:.2%}",
        )
    terminal.out().print(made)
