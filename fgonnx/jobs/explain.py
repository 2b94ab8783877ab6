"""One run of `fgonnx explain`: many samples in, three files each out, in bounded memory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files as storage
from fgonnx.engine import methods
from fgonnx.engine.graph.session import choose_providers
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.inputs import choose_input
from fgonnx.engine.model.load import LoadedModel, load
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import ModelError, NumericError, OptionError, PreprocessingError, TargetError
from fgonnx.explain import targets
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.explanation import Explanation
from fgonnx.explain.stream import grouped, in_order
from fgonnx.jobs import record
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import Reader, Sample, Sound, Source, digest, find, is_picture, unknown_preprocessing
from fgonnx.labels import align
from fgonnx.labels import load as load_labels
from fgonnx.pictures.read import images, preprocess, presets
from fgonnx.pictures.read.audio import RATE_KEY
from fgonnx.pictures.read.preprocess import Preprocessing

WORKERS = 2
"""Threads that read and write while the next batch is explained: on two cores, three are no faster and four slower."""

#: What reading a source gives: a sample, or the record of an earlier run.
Found = Sample | dict[str, Any]
#: What is left to do for a sample that is explained; gives its record.
Task = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What an explanation is asked for; see `fgonnx.Explainer`."""

    method: str = "fullgrad"
    profile: str = "full"
    psi: str = "abs"
    head: str = "logits"
    output: str | None = None
    input: str | None = None
    given: tuple[str, ...] = ()
    engine: str = "fgonnx"

    @property
    def own(self) -> dict[str, Any]:
        """The method's own settings that were given, NAME=VALUE each, as the engine takes them."""
        return methods.find(self.method).parse(self.given)

    def to_dict(self) -> dict[str, Any]:
        """Return those that have an effect; arrays by the names of their files."""
        kept = {k: getattr(self, k) for k in ("method", "profile", "psi", "head", "output", "input")}
        files = dict(pair.split("=", 1) for pair in self.given if pair.endswith(".npy"))
        other = {"engine": self.engine} if self.engine != "fgonnx" else {}
        return {**kept, **asdict(methods.find(self.method).set(self.own)), **files, **other}


def picture_preprocessing(
    loaded: LoadedModel, given: str | None, input: str | None, *, required: bool
) -> tuple[Preprocessing | None, str]:
    """Return the complete preprocessing of a model's pictures, and where it is from.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    given : str or None
        What the user typed; the model's metadata otherwise.
    input : str or None
        Name of the input.
    required : bool
        Whether there are pictures.

    Raises
    ------
    PreprocessingError
        It is required and not known, or does not fit the model.
    """
    text = loaded.preprocessing_json()
    if given is not None:
        found, origin = presets.parse(given), "given"
    elif text is not None:
        found, origin = Preprocessing.from_json(text), "the model's metadata"
    elif required:
        raise PreprocessingError(f"{loaded.name}: {unknown_preprocessing()}")
    else:
        return None, ""
    face = choose_input(loaded.ir, input, loaded.name)
    assert face.shape is not None
    assert face.dtype is not None
    dims = [d if isinstance(d, int) else None for d in face.shape.dims]
    return preprocess.complete(found, dims, face.dtype.numpy()), origin


class Job:
    """Explains samples and writes what it found.

    Parameters
    ----------
    model : Path
        The model.
    inputs : sequence of Path
        Pictures, folders, patterns, ``.npy`` arrays.
    folder : Path
        Where files go; it is made when the first sample is done.
    settings : Settings
        What is asked for.
    preprocessing : str, optional
        As `fgonnx.pictures.read.presets.parse` takes it.
    labels : Path, optional
        File of class names.
    target : str, optional
        As `fgonnx.targets.parse` takes it; the model's own choice by default.
    picture : {"panel", "overlay", "heat"}
        What the PNG shows.
    providers, threads, batch_size
        As for `fgonnx.Explainer`.
    resume : bool
        Leave out samples whose record is there and was made with the same file, model and settings.
    bind : sequence of str
        Inputs to fix, as `fgonnx.engine.model.bind.parse` takes them.
    sound : Sound, optional
        How recordings are read.
    cache : bool
        As for `fgonnx.Explainer`.

    Attributes
    ----------
    notes : dict of str to None
        What was converted or assumed, in words, in the order of its discovery.
    """

    def __init__(
        self,
        model: Path,
        inputs: Sequence[Path],
        folder: Path,
        settings: Settings,
        *,
        preprocessing: str | None = None,
        labels: Path | None = None,
        target: str | None = None,
        picture: str = "panel",
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        batch_size: int = 8,
        resume: bool = False,
        bind: Sequence[str] = (),
        sound: Sound | None = None,
        cache: bool = False,
    ) -> None:
        if picture not in record.PICTURES:
            raise OptionError(f"picture '{picture}' does not exist; choose one of: {', '.join(record.PICTURES)}")
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"'{folder}' is a file; give a folder to write to")
        self.folder, self.settings, self.picture, self.resume = folder, settings, picture, resume
        self.cache = cache
        self.model_path, self.target, self.threads = model, target, threads
        # What is drawn depends on a sample's place in its batch: alone, it does not depend on its neighbours.
        self.together = 1 if methods.find(settings.method).drive is not None else batch_size
        self.batch_size = batch_size
        self.providers = choose_providers(providers)
        self.loaded = binding.bind(load(model), binding.parse(bind))
        self.sound = sound or Sound()
        if target is not None:
            targets.parse(target)  # before anything is read
        face = choose_input(self.loaded.ir, settings.input, self.loaded.name)
        assert face.shape is not None
        self.sources = find(inputs, face.shape.rank())
        pictures = any(is_picture(s.path) for s in self.sources)
        self.preprocessing, self.preprocessing_origin = picture_preprocessing(
            self.loaded, preprocessing, settings.input, required=pictures
        )
        known = self.sound.rate if self.sound.rate is not None else _stored_rate(self.loaded)
        self.reader = Reader(face, self.preprocessing, replace(self.sound, rate=known))
        self._given_labels = load_labels(labels) if labels is not None else None
        self.notes: dict[str, None] = {record.SMOOTHED: None} if settings.method == "smooth-fullgrad" else {}

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
        """Explain what was read and yield what is left to do."""
        for group in grouped(found, self.together, lambda item: item.x.shape if isinstance(item, Sample) else None):
            if samples := [item for item in group if isinstance(item, Sample)]:
                yield from self._tasks(samples)
            else:
                yield from (partial(dict, item) for item in group)

    def _tasks(self, samples: Sequence[Sample]) -> Iterator[Task]:
        x = np.stack([sample.x for sample in samples])
        explainer = self._explainer
        rewritten = explainer.engine(x.shape, seed=targets.takes_seed(self.target)).rewritten
        labels = self._labels(rewritten)
        try:
            explanation = explainer(x, self.target)
        except NumericError as error:
            if len(samples) == 1:
                raise NumericError(f"'{samples[0].source.path}': {error}") from error
            for sample in samples:
                yield from self._tasks([sample])
            return
        decision = Decision.of(explanation, rewritten, labels)
        self.notes.update(dict.fromkeys(explanation.settings["notes"]))
        for row, sample in enumerate(samples):
            yield partial(self._write, sample, row, explanation, decision, rewritten.normal.layout)

    def _write(
        self, sample: Sample, row: int, explanation: Explanation, decision: Decision, layout: str
    ) -> dict[str, Any]:
        """Draw and write what was found about one sample."""
        files = self._files(sample.source)
        made = record.describe(self._request(sample.source), explanation, decision, sample, row, files)
        saliency = explanation.saliency[row]
        placed = None
        if self.picture == "overlay" and sample.photo is not None and self.preprocessing is not None:
            placed = self.preprocessing.place(record.flat(saliency), sample.photo.shape)
        drawn = record.draw(made, sample, saliency, self.picture, placed, record.arranged(sample.x, layout))
        storage.make_folder(self.folder)
        storage.write_array(self.folder / files["map"], saliency.astype("float32", copy=False))
        images.write_png(self.folder / files["picture"], drawn)
        # Last: where the record is, the others are too.
        storage.write_json(self._record_path(sample.source), made)
        return made

    @cached_property
    def _explainer(self) -> Explainer:
        s = self.settings
        pictures = any(is_picture(source.path) for source in self.sources)
        return Explainer(
            self.loaded,
            s.method,
            profile=s.profile,
            psi=s.psi,
            head=s.head,
            output=s.output,
            input=s.input,
            layout=self.preprocessing.layout if self.preprocessing is not None and pictures else None,
            providers=self.providers,
            threads=self.threads,
            spin=False,
            batch_size=self.batch_size,
            labels=self._given_labels,
            engine=s.engine,
            scores=methods.find(s.method).drive is None,
            cache=self.cache,
            **s.own,
        )

    def _labels(self, rewritten: Rewritten) -> tuple[str, ...] | None:
        """Return one name per entry of the head, where an entry is a class."""
        if sum(size > 1 for size in rewritten.head_shape) > 1:
            return None
        if self._given_labels is not None:
            aligned, note = align(self._given_labels, _entries(rewritten))
            self.notes.update({f"labels: {note}": None} if note else {})
            return aligned
        stored = self.loaded.labels()
        if stored is None:
            return None
        labels: tuple[str, ...] | None
        try:
            labels, note = align(stored, _entries(rewritten))
        except TargetError as error:
            labels, note = None, f"those of the model's metadata are not used: {error}"
        self.notes.update({f"labels: {note}": None} if note else {})
        return labels

    def _request(self, source: Source) -> dict[str, Any]:
        """Return the first keys of a record: what alone decides about its content."""
        pre = self.preprocessing
        return {
            "schema": record.SCHEMA,
            "input": {"path": str(source.path), "row": source.row, "sha256": digest(source.path)},
            "model": {"path": str(self.model_path), "sha256": self.loaded.sha256},
            "versions": record.versions(),
            "providers": self.providers,
            "settings": {
                **self.settings.to_dict(),
                **self._target(),
                "picture": self.picture,
                **({"bind": dict(self.loaded.bound)} if self.loaded.bound else {}),
                **self.sound.to_dict(),
            },
            "preprocessing": json.loads(pre.to_json()) if pre is not None else None,
        }

    def _target(self) -> dict[str, Any]:
        """Return the target as it was asked for, and the hash of the file it names."""
        named = [Path(p) for p in re.split(r"[=,]", self.target or "") if p.lower().endswith(".npy")]
        return {"target": self.target, **({"target_sha256": digest(named[0])} if named else {})}

    def _files(self, source: Source) -> dict[str, str]:
        return {"picture": f"{source.name}.png", "map": f"{source.name}.npy"}

    def _record_path(self, source: Source) -> Path:
        return self.folder / f"{source.name}.json"

    def _stored(self, source: Source) -> dict[str, Any] | None:
        """Return the record of an earlier run that asked for the same."""
        if not self.resume or not all((self.folder / f).is_file() for f in self._files(source).values()):
            return None
        try:
            stored = json.loads(self._record_path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(stored, dict) and all(stored.get(k) == v for k, v in self._request(source).items())
        return stored if same else None


def _stored_rate(loaded: LoadedModel) -> int | None:
    """Return the sample rate that the model's metadata names."""
    text = loaded.ir.metadata_props.get(RATE_KEY)
    if text is None:
        return None
    if not text.isdigit() or not int(text):
        raise ModelError(
            f"{loaded.name}: its metadata entry '{RATE_KEY}' is {text!r}, not a number of samples per second"
        )
    return int(text)


def _entries(rewritten: Rewritten) -> int:
    return math.prod(rewritten.head_shape)
