"""Run `fgonnx explain`: many samples, three files for each, in bounded memory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files as storage
from fgonnx._version import __version__
from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import NumericError
from fgonnx.explain import choice
from fgonnx.explain.choice import SameEntryError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.stream import grouped, in_order
from fgonnx.fields import check_choices, refuse_idle
from fgonnx.jobs import provenance, record, tabled, written
from fgonnx.jobs.joining import by_columns
from fgonnx.jobs.reading import Reading, agreed_layout, aligned_labels
from fgonnx.jobs.record import Decision
from fgonnx.jobs.recordings import rated, refuse_unread
from fgonnx.jobs.samples import Reader, Sample, Source, digest, find, is_picture, is_recording
from fgonnx.jobs.tabular import Tabular
from fgonnx.jobs.written import Asked

WORKERS = 2
"""Threads that read and write while the next batch is explained: on two cores, three are no faster and four slower."""

#: The result of reading a source: a sample, or the record of an earlier run.
Found = Sample | dict[str, Any]
#: The remaining work for an explained sample; returns its record.
Task = Callable[[], dict[str, Any]]


@dataclass
class ExplainJob:
    """Explains samples and writes a picture, the raw map and a JSON record for each.

    Attributes
    ----------
    model : Path
        The model.
    inputs : sequence of Path
        Pictures, folders, patterns, ``.npy`` arrays, ``.wav`` recordings.
    folder : Path
        Where files go; it is created when the first sample is finished.
    options : Options
        What is explained and how.
    running : Running
        How the model runs.
    reading : Reading
        How files become samples.
    target : str, optional
        As `fgonnx.targets.parse` takes it; the model's own choice by default.
    picture : {"panel", "overlay", "heat"}
        What the PNG shows.
    resume : bool
        Skip samples with a record of the same file, model and settings.
    notes : dict of str to None
        Conversions and assumptions, in order of discovery.
    """

    model: Path
    inputs: Sequence[Path]
    folder: Path
    options: Options = field(default_factory=Options)
    running: Running = field(default_factory=Running)
    reading: Reading = field(default_factory=Reading)
    target: str | None = None
    picture: str = "panel"
    resume: bool = False
    notes: dict[str, None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_choices(self, picture=record.PICTURES)
        storage.check_folder(self.folder)
        self.running.check()
        # Random draws depend on a sample's position in its batch: in a batch of one, they depend on no other sample.
        driven = methods.find(self.options.method).drive is not None
        self.together = 1 if driven else self.running.batch_size
        source = binding.bind(load(self.model), self._fixed, self.options.input_shape)
        source, reading = by_columns(source, self.reading, self.inputs, self.options.input)
        self.loaded, self._options = arranged(source, self.options)
        if self.target is not None:
            choice.parse(self.target)  # before anything is read
        if isinstance(self.options.contrast, str):
            choice.parse(self.options.contrast)
        value = self.loaded.input(self.options.input)
        how = rated(reading, self.loaded)
        tables = Tabular(str(value.name), dims_of(value), how, self._layout_of)
        self.sources = find(self.inputs, len(dims_of(value)), self.loaded.batch_axis, tables)
        self._pictures = any(is_picture(s.path) for s in self.sources)
        self._tables = refuse_unread(self.reading, self.sources, tables)
        if self._tables:
            self.options, self._options = tabled.signed(self.options), tabled.signed(self._options)
        if all(is_recording(s.path) for s in self.sources):
            refuse_idle(self.reading, ["preprocess"], "all inputs are recordings, which are taken as they are")
        self.preprocessing, self.preprocessing_origin = self.reading.preprocessing(
            self.loaded, self.options.input, required=self._pictures, shape=self._options.explained_shape
        )
        self.reader = Reader(value, self.preprocessing, how, axis=self.loaded.batch_axis, layout=self._layout_of)
        self._given_labels = self.reading.names()
        if self.options.method == record.AVERAGED:
            self.notes[record.SMOOTHED] = None

    def described(self) -> dict[str, Any]:
        """Return what all records of a run have in common, ready for JSON."""
        return {
            "fgonnx": __version__,
            "model": {"path": str(self.model), "sha256": self.loaded.sha256},
            "folder": str(self.folder),
            "notes": list(self.notes),
        }

    def run(self) -> Iterator[dict[str, Any]]:
        """Explain sample after sample and yield their records, once their files are written.

        Raises
        ------
        FgonnxError
            A sample cannot be read or explained; those before it are done, of it nothing is written.
        """
        pool = ThreadPoolExecutor(WORKERS)
        ahead = max(self.together, WORKERS)
        try:
            found = in_order(pool, (partial(self._read, source) for source in self.sources), ahead)
            yield from in_order(pool, self._explained(found), ahead)
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, source: Source) -> Found:
        stored = self._stored(source)
        return self.reader.read(source) if stored is None else stored

    def _explained(self, found: Iterator[Found]) -> Iterator[Task]:
        """Explain the samples that were read and yield the remaining work."""
        for group in grouped(found, self.together, lambda item: item.x.shape if isinstance(item, Sample) else None):
            if samples := [item for item in group if isinstance(item, Sample)]:
                yield from self._tasks(samples)
            else:
                yield from (partial(dict, item) for item in group)

    def _tasks(self, samples: Sequence[Sample]) -> Iterator[Task]:
        x = np.stack([sample.x for sample in samples])
        explainer = self._explainer
        rewritten = explainer.engine(
            x.shape, seed=self.options.contrast is None and choice.takes_seed(self.target)
        ).rewritten
        labels = self._labels(rewritten)
        try:
            explanation = explainer(x, self.target)
        except (NumericError, SameEntryError) as error:
            if len(samples) == 1:
                said = str(error).removeprefix("sample 0: ")
                raise type(error)(f"'{samples[0].source.path}': {said}") from error
            for sample in samples:
                yield from self._tasks([sample])
            return
        decision = Decision.of(explanation, rewritten, labels, explainer.labels)
        self.notes.update(dict.fromkeys(explanation.settings["notes"]))
        for row, sample in enumerate(samples):
            yield partial(self._write, sample, row, explanation, decision, rewritten.normal.layout)

    def _write(
        self, sample: Sample, row: int, explanation: Explanation, decision: Decision, layout: str
    ) -> dict[str, Any]:
        """Draw and write the results of one sample."""
        if sample.photo is None:
            sample = replace(sample, shown=self.reader.shown(sample.x, layout))
        files = self._files(sample.source)
        asked = {**self._request(sample.source), **provenance.about(self.running)}
        made = record.describe(asked, explanation, decision, sample, row, files, self._command(sample.source))
        parts = tabled.parts_of(explanation, row, sample, layout)
        made = tabled.described(made, sample, parts)
        saliency = explanation.saliency[row]
        picture = written.drawn(made, sample, saliency, self.picture, layout, self.preprocessing, parts)
        written.write(self.folder, sample.source.name, made, picture, saliency)
        return made

    @cached_property
    def _explainer(self) -> Explainer:
        preprocessing = self.preprocessing if self._pictures else None
        options = replace(
            self._options,
            bind=None,  # the model is bound already
            layout=agreed_layout(self.options.layout, preprocessing, self.loaded, self.options.input),
            scores=methods.find(self.options.method).drive is None,
            input_gradient=self.options.input_gradient or self._asks_gradient,
        )
        if self._tables:
            options = tabled.signed(options)
        return Explainer(self.loaded, options, replace(self.running, spin=False), labels=self._given_labels)

    @property
    def _fixed(self) -> Mapping[str, Any] | None:
        """What inputs are bound to."""
        return self.options.bind

    @property
    def _bound(self) -> Mapping[str, str]:
        """What a record says of the bound inputs."""
        return self.loaded.bound

    @property
    def _asks_gradient(self) -> bool:
        """Whether the map may have lanes."""
        return tabled.wants_gradient(self.loaded, self._options)

    def _layout_of(self, shape: tuple[int, ...]) -> str:
        """Return the layout of an input of one sample of this shape."""
        return self._explainer.engine((1, *shape)).rewritten.normal.layout

    def _labels(self, rewritten: Rewritten) -> tuple[str, ...] | None:
        """Return one name per entry of the head, if entries are classes."""
        if sum(size > 1 for size in rewritten.head_shape) > 1:
            return None
        names, note = aligned_labels(self._given_labels, self.loaded.labels(), math.prod(rewritten.head_shape))
        self.notes.update({f"labels: {note}": None} if note else {})
        return names

    def _request(self, source: Source) -> dict[str, Any]:
        """Return the first keys of a record: everything that determines its content."""
        found = {"path": str(source.path), "row": source.row, "sha256": digest(source.path)}
        return self._asked.request(
            self._identified, self._bound, found, self.preprocessing, self._target(), self.picture
        )

    @cached_property
    def _identified(self) -> dict[str, Any]:
        return provenance.model_of(self.loaded, self.model)

    def _command(self, source: Source) -> list[str]:
        return self._asked.command(source, self.folder, self.picture)

    @property
    def _asked(self) -> Asked:
        return Asked(str(self.model), self.options, self.running, self.reading, self.target)

    def _target(self) -> dict[str, Any]:
        """Return the requested target, and the hash of the file it names."""
        named = [Path(p) for p in re.split(r"[=,]", self.target or "") if p.lower().endswith(".npy")]
        return {"target": self.target, **({"target_sha256": digest(named[0])} if named else {})}

    def _files(self, source: Source) -> dict[str, str]:
        return written.names(source.name)

    def _record_path(self, source: Source) -> Path:
        return self.folder / f"{source.name}.json"

    def _stored(self, source: Source) -> dict[str, Any] | None:
        """Return the record of an earlier run with the same request."""
        if not self.resume or not all((self.folder / f).is_file() for f in self._files(source).values()):
            return None
        try:
            stored = json.loads(self._record_path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) and _answers(stored, self._request(source)) else None


def _answers(stored: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Tell whether a record is of a request, which leaves open what the method chose."""
    chosen = dict.fromkeys(stored.get("chosen", ()))
    found = {**stored, "settings": {**stored.get("settings", {}), **chosen}}
    return all(found.get(k) == v for k, v in request.items())
