"""Compare two models on many samples: rows, verdicts and pictures, in bounded memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files
from fgonnx.audit.comparison import MEASURES, SMALLER_IS_BETTER, Comparer, Comparison, parted
from fgonnx.audit.comparison.alignment import Point
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.bind import bind
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import FgonnxError, InputError, NumericError
from fgonnx.fields import arguments
from fgonnx.jobs import record
from fgonnx.jobs.compared import decided, picture, rest
from fgonnx.jobs.joining import by_columns
from fgonnx.jobs.limits import Limits
from fgonnx.jobs.reading import Reading, agreed_layout, aligned_labels
from fgonnx.jobs.recordings import rated, refuse_unread
from fgonnx.jobs.samples import Reader, Sample, digest, find, is_picture, is_table
from fgonnx.jobs.tabular import Tabular
from fgonnx.pictures.read import images

Float = npt.NDArray[np.float64]

SCHEMA = 1
"""Version of the summary's layout; it changes when a key changes its meaning or goes away."""

OWN = ("input", "output", "input_shape", "layout", "bind")
"""Options that are each model's own: what it calls or shapes otherwise."""


class Side:
    """One of the two models, and how files become its samples.

    Parameters
    ----------
    path : Path
        The model.
    inputs : sequence of Path
        Where its samples are.
    options : Options
        What is explained in it.
    reading : Reading
        How files become its samples.
    """

    def __init__(self, path: Path, inputs: Sequence[Path], options: Options, reading: Reading) -> None:
        self.path, self.given, self.reading = path, options, reading
        source = bind(load(path), options.bind, options.input_shape)
        source, columns = by_columns(source, reading, inputs, options.input)
        self.loaded, options = arranged(source, options)
        value = self.loaded.input(options.input)
        how = rated(columns, self.loaded)
        tables = Tabular(str(value.name), dims_of(value), how)
        sources = find(inputs, len(dims_of(value)), self.loaded.batch_axis, tables)
        refuse_unread(reading, sources, tables)
        pictures = any(is_picture(s.path) for s in sources)
        self.preprocessing, self.origin = reading.preprocessing(
            self.loaded, options.input, required=pictures, shape=options.explained_shape
        )
        self.reader = Reader(value, self.preprocessing, how, axis=self.loaded.batch_axis)
        layout = agreed_layout(options.layout, self.preprocessing, self.loaded, options.input)
        self.options = replace(options, bind=None, layout=layout)

    def arguments(self, suffix: str) -> list[str]:
        """Return what is the model's own on the command line, with a suffix behind every flag."""
        own = arguments(self.given, only=OWN, suffix=suffix)
        return [*own, *arguments(self.reading, only=("preprocess",), suffix=suffix)]


@dataclass
class CompareJob:
    """Compares sample after sample, in bounded memory, and keeps a row of each.

    Attributes
    ----------
    models : pair of Side
        The model that was approved, and the one that is deployed.
    inputs : sequence of Path
        Pictures, recordings, tables, folders, patterns, ``.npy`` arrays.
    folder : Path
        Where files go.
    running : Running
        How both run.
    limits : Limits
        What must hold.
    target : str, optional
        What is explained in both; what the first model decides by default.
    labels : sequence of str, optional
        Class names; those of a model's metadata by default.
    notes : dict of str to None
        Conversions and assumptions, in order of discovery.
    skipped : dict of str to str
        Rows of texts that hold none, with the reason.
    """

    models: tuple[Side, Side]
    inputs: Sequence[Path]
    folder: Path
    running: Running = field(default_factory=Running)
    limits: Limits = field(default_factory=Limits)
    target: str | None = None
    labels: Sequence[str] | None = None
    notes: dict[str, None] = field(default_factory=dict, init=False)
    skipped: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def meanings(self) -> Mapping[str, str]:
        """What is measured, and what it means."""
        return MEASURES

    def __post_init__(self) -> None:
        files.check_folder(self.folder)
        a, b = self.models
        self.signed = a.options.psi == "signed"
        self.sources = find(self.inputs, len(a.reader.dims), a.reader.axis, a.reader.tables)
        for path in {s.path for s in self.sources if is_table(s.path)}:
            if (counts := [m.reader.tables.count(path) for m in (a, b)])[0] != counts[1]:
                raise InputError(
                    f"'{path}' holds {counts[0]} samples for {a.path.name} and {counts[1]} for {b.path.name}: one "
                    "takes rows, the other recordings; give .npy"
                )
        self._stored = a.loaded.labels() or b.loaded.labels()
        self.settings = {k: v for k, v in a.options.to_dict().items() if k not in OWN} | {"target": self.target}
        self.settings |= a.reading.sound()
        self.comparer = Comparer(
            a.loaded,
            b.loaded,
            a.options,
            b_options=b.options,
            running=self.running,
            labels=self.labels,
        )
        self._rows: list[dict[str, Any]] = []
        self._points: tuple[Point, ...] = ()
        self._sums: dict[str, Float] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

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
                    len(pending) >= self.running.batch_size
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
        self._shapes = {letter: array.shape for letter, array in zip("AB", arrays, strict=True)}
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
        self.notes.update(dict.fromkeys(found.notes))
        layout = self.comparer.a.engine(arrays[0].shape).rewritten.normal.layout
        for i, (sample, other) in enumerate(batch):
            self.notes.update(dict.fromkeys(f"{sample.source.path.name}: {n}" for n in (*sample.notes, *other.notes)))
            row = self._row(found, i, sample, names)
            if sample.photo is None:
                sample = replace(sample, shown=self.models[0].reader.shown(sample.x, layout))
            drawn = picture(found, i, row, sample, (self.models[0].path.name, self.models[1].path.name), self.signed)
            files.make_folder(self.folder)
            images.write_png(self.folder / row["picture"], drawn)
            self._rows.append(row)
            yield row

    def _collect(self, found: Comparison) -> None:
        """Accumulate the means over samples, by layer."""
        sums = {
            "error": found.error,
            "added": found.added,
            "contribution_a": found.parts_a[:, :-1],
            "contribution_b": found.parts_b[:, :-1],
            "rounding_a": found.rounding_a[:, :-1],
            "rounding_b": found.rounding_b[:, :-1],
        }
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
        names, note = aligned_labels(self.labels, self._stored, entries)
        self.notes.update({f"labels: {note}": None} if note else {})
        return names

    def _row(self, found: Comparison, i: int, sample: Sample, names: Sequence[str] | None) -> dict[str, Any]:
        choices = int(found.choice_a[i]), int(found.choice_b[i])
        sides = zip((self.comparer.a, self.comparer.b), "AB", strict=True)
        shapes = [side.engine(self._shapes.get(letter)).rewritten.head_shape for side, letter in sides]
        return {
            "image": str(sample.source.path),
            "row": sample.source.row,
            "sha256": digest(sample.source.path),
            **decided(found, i, choices, names, shapes),
            **{name: float(values[i]) for name, values in found.measures.items()},
            **rest(found, i),
            "picture": f"{sample.source.name}.png",
        }

    def summary(self, *, complete: bool) -> dict[str, Any]:
        """Summarise the rows; `complete` tells whether all samples are included."""
        values = {name: np.array([row[name] for row in self._rows]) for name in self.meanings}
        checks = [limit.check(values[limit.measure]) for limit in self.limits.all()]
        layers = self._layers()
        sides = self.comparer.a, self.comparer.b
        return {
            "schema": SCHEMA,
            "complete": complete,
            "passed": complete and all(c["holds"] for c in checks),
            "models": {
                letter.lower(): {
                    "path": str(m.path),
                    "sha256": m.loaded.sha256,
                    "preprocessing": json.loads(m.preprocessing.to_json()) if m.preprocessing else None,
                    "bind": dict(m.loaded.bound),
                    "explained": record.explained(side.engine(self._shapes.get(letter)).rewritten),
                }
                for letter, m, side in zip("AB", self.models, sides, strict=True)
            },
            "versions": record.versions(self.running),
            "providers": self.running.used_providers,
            "runtime": {letter: side.running.described() for letter, side in zip("AB", sides, strict=True)},
            "settings": self.settings | record.asked(self.running),
            "command": self._command(),
            "notes": list(self.notes),
            "skipped": self.skipped,
            "limits": checks,
            "measures": {name: self._spread(name, v) for name, v in values.items()},
            "parted": [layer for layer in sorted(layers, key=lambda e: -e["added"]) if layer["parted"]],
            "layers": layers,
            "images": self._rows,
        }

    def _command(self) -> list[str]:
        """Return the command that does the run again."""
        a, b = self.models
        return [
            *("fgonnx", "compare", str(a.path), str(b.path), *map(str, self.inputs), "-o", str(self.folder)),
            *(("--target", self.target) if self.target is not None else ()),
            *arguments(a.given, without=("method", "settings", "engine", *OWN, *FILE)),
            *(text for side, suffix in ((a, "-a"), (b, "-b")) for text in side.arguments(suffix)),
            *arguments(a.reading, without=("preprocess",)),
            *arguments(self.limits),
            *arguments(self.running, defaults={"cache": True}),
        ]

    def _spread(self, name: str, values: Float) -> dict[str, Any]:
        worst = int(values.argmax() if name in SMALLER_IS_BETTER else values.argmin())
        row = self._rows[worst]
        return {
            "meaning": self.meanings[name],
            "mean": float(values.mean()),
            "min": float(values.min()),
            "max": float(values.max()),
            "worst": {"image": row["image"], "row": row["row"]} if np.ptp(values) > 0 else None,
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
        files.make_folder(self.folder)
        text = io.StringIO()
        columns = [name for name in self._rows[0] if name not in ("sha256", "words")]
        table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        for kind in ("mean", "min", "max"):
            table.writerow({"image": kind, **{n: s[kind] for n, s in summary["measures"].items()}})
        files.write_text(self.folder / "summary.csv", text.getvalue())
        files.write_json(self.folder / "summary.json", summary)
