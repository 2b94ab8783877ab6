"""Run `fgonnx evaluate`: set up a run from options, and write its results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files
from fgonnx.audit import evaluate
from fgonnx.audit.evaluate.journal import Journal
from fgonnx.audit.evaluate.run import Run, Shard
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import FILE, Options
from fgonnx.errors import InputError, OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.fields import (
    arguments,
    refuse_idle,
)
from fgonnx.jobs import record
from fgonnx.jobs.dataset import Dataset, Picture, check_data
from fgonnx.jobs.evaluate_plan import Plan, chosen_measures, chosen_methods, settings_of
from fgonnx.jobs.evaluate_summary import SCHEMA, curves_of, summary_of, write
from fgonnx.jobs.reading import SOUND, Reading, agreed_layout, aligned_labels
from fgonnx.pictures.read.complete import black

_REFERENCES = 16  # inputs that methods which need some are given to compare with


class EvaluationJob:
    """One run of `fgonnx evaluate`.

    Parameters
    ----------
    model : Path
        The model.
    data : Path
        A folder of pictures, or an ``.npz``.
    folder : Path
        Where files go, and where an interrupted run is resumed.
    plan : Plan
        What is measured.
    options : Options
        What is explained; `method` is ignored, methods are in the plan.
    running : Running
        How the model runs.
    reading : Reading
        How pictures become samples.
    """

    def __init__(
        self,
        model: Path,
        data: Path,
        folder: Path,
        plan: Plan | None = None,
        *,
        options: Options | None = None,
        running: Running | None = None,
        reading: Reading | None = None,
    ) -> None:
        files.check_folder(folder)
        check_data(data)
        options, reading = options or Options(), reading or Reading()
        refuse_idle(options, ("method", "psi", "profile"), "the plan names the methods, each with its own settings")
        if data.suffix.lower() == ".npz" and plan is not None:
            refuse_idle(plan, ["masks"], "the masks of an .npz are in it, under 'mask'")
        self.model, self.folder, self.plan = model, folder, plan or Plan()
        self.running = running or Running(batch_size=16)
        self.reading, self._given = reading, options
        self.loaded, options = arranged(binding.bind(load(model), options.bind, options.input_shape), options)
        value = self.loaded.input(options.input)
        pictures = os.path.isdir(data)
        self.preprocessing, self.origin = reading.preprocessing(
            self.loaded, options.input, required=pictures, shape=options.explained_shape
        )
        layout = agreed_layout(options.layout, self.preprocessing, self.loaded, options.input)
        self.options = replace(options, bind=None, layout=layout)
        self.forward = Explainer(self.loaded, self.options, self.running)
        if self.preprocessing is not None and self.preprocessing.size is None:
            raise OptionError(
                f"{self.loaded.name} takes pictures of any size; fix it, as in --preprocess unit,size=224"
            )
        self._shape = None if self.preprocessing is None else self._sample_shape()
        known = self.forward.engine(self._shape, forward=True).rewritten
        self._layout, entries = known.normal.layout, math.prod(known.head_shape)
        given = reading.names() or self.loaded.labels()
        names, note = aligned_labels(given, None, entries)
        self.names, self.notes = names or (), [f"labels: {note}"] if note else []
        self.dataset = Dataset(
            data,
            value,
            self.preprocessing,
            names=self.names,
            entries=entries,
            masks=self.plan.masks,
            limit=self.plan.limit,
            axis=self.loaded.batch_axis,
        )
        if self.plan.target == "label" and any(item.label is None for item in self.dataset.items):
            raise OptionError("--target label needs classes: folders named after them, or y in the .npz")
        self._last: tuple[int, Shard | None] | None = None
        measures, names_of_methods = self._measures(), chosen_methods(self.plan.methods)
        files.make_folder(folder)
        self.journal = Journal(folder / "journal.jsonl", self._request())
        items = self.dataset.items
        step = self.running.batch_size
        self.run = Run(
            self._subject,
            self.journal,
            names_of_methods,
            measures,
            [len(items[i : i + step]) for i in range(0, len(items), step)],
            self._read,
            folder / "maps",
            range(min(self.plan.shown, len(items))),
        )

    def _request(self) -> dict[str, Any]:
        """Return everything that determines the results of a run; a different request does not resume it."""
        plain = Options().to_dict()
        asked = {k: v for k, v in self.options.to_dict().items() if plain.get(k) != v}
        return {
            "schema": SCHEMA,
            "model": self.loaded.sha256,
            "data": self.dataset.digest(),
            "preprocessing": json.loads(self.preprocessing.to_json()) if self.preprocessing is not None else None,
            "bind": dict(self.loaded.bound),
            "options": asked,
            "target": self.plan.target,
            "seed": self.plan.seed,
            "batch_size": self.running.batch_size,
            "versions": record.versions(self.running),
            **record.asked(self.running),
        }

    def _sample_shape(self) -> tuple[int, ...]:
        assert self.preprocessing is not None
        return (1, *self.preprocessing.apply(np.zeros((8, 8, 3), np.uint8)).shape)

    def _measures(self) -> list[evaluate.Measure]:
        chosen = self.plan.measures
        every = chosen == ("all",)
        found = chosen_measures(chosen)
        if not self.dataset.masked:
            blind = [m.name for m in found if m.needs == "masks"]
            if blind and chosen is not None and not every:
                raise OptionError(f"{', '.join(blind)} cannot be measured without masks: give --masks")
            found = [m for m in found if m.needs != "masks"]
        if not self.dataset.in_parts:
            blind = [m.name for m in found if m.needs == "parts"]
            if blind and chosen is not None and not every:
                raise OptionError(
                    f"{', '.join(blind)} cannot be measured without pictures of the samples without each part: give "
                    "an .npz with 'without'"
                )
            found = [m for m in found if m.needs != "parts"]
        misfits = {m.name: why for m in found if (why := m.misfit(self._layout))}
        if misfits and chosen is not None and not every:
            raise OptionError(next(iter(misfits.values())))
        self.notes += [f"left out: {why}" for why in misfits.values()]
        return [m for m in found if m.name not in misfits]

    def _subject(self, text: str) -> evaluate.Subject:
        name, settings = settings_of(text, self._references)
        return evaluate.Subject(
            self.loaded, name, forward=self.forward, options=self.options, running=self.running, **settings
        )

    def _references(self) -> Any:
        """Return reference inputs, for methods that need some: the first images."""
        first = next(shard for k in range(len(self.run.shards)) if (shard := self._read(k)) is not None)
        return first.data.x[:_REFERENCES]

    def _read(self, k: int) -> Shard | None:
        """Read a shard; the last one is kept, as several measures in a row need it."""
        if self._last is None or self._last[0] != k:
            self._last = k, self._read_shard(k)
        return self._last[1]

    def _read_shard(self, k: int) -> Shard | None:
        first = k * self.running.batch_size
        read: dict[int, Picture] = {}
        skipped = {}
        for number, item in enumerate(self.dataset.items[first : first + self.running.batch_size], first):
            try:
                picture = self.dataset.read(item)
                shape = next(iter(read.values()), picture).x.shape
                if picture.x.shape != shape:
                    raise InputError(f"it gives an input of {picture.x.shape}, others of {shape}")
                read[number] = picture
            except InputError as error:
                skipped[item.name] = str(error)
        shard = self._shard(read) if read else None
        if k not in self.journal.shards:
            known = self._about(shard) if shard is not None else []
            self.journal.add_shard(k, known, skipped)
        return shard

    def _shard(self, read: Mapping[int, Picture]) -> Shard:
        items = [self.dataset.items[number] for number in read]
        x = np.stack([picture.x for picture in read.values()])
        labels = [item.label for item in items if item.label is not None]
        target = labels if self.plan.target == "label" else None
        data = evaluate.Data.of(
            self.forward, x, target, numbers=list(read), black=black(self.preprocessing), seed=self.plan.seed
        )
        if self.dataset.masked:
            none = np.zeros(data.grid, bool)
            data = replace(data, masks=np.stack([none if p.mask is None else p.mask for p in read.values()]))
        if self.dataset.in_parts:
            data = replace(data, without=np.stack([p.without for p in read.values() if p.without is not None]))
        return Shard(tuple(item.name for item in items), data)

    def _about(self, shard: Shard) -> list[dict[str, Any]]:
        data = shard.data
        labels = [self.dataset.items[number].label for number in data.numbers.tolist()]
        predicted = self.forward.head(data.x).reshape(len(data), -1).argmax(axis=1)
        return [
            {"image": name, "label": label, "predicted": int(p), "target": int(t)}
            for name, label, p, t in zip(shard.images, labels, predicted, data.target, strict=True)
        ]

    @property
    def explainer(self) -> Explainer:
        """What runs the model without its gradient."""
        return self.forward

    @property
    def methods(self) -> Sequence[str]:
        """The methods, in order."""
        return self.run.methods

    @property
    def measures(self) -> Sequence[evaluate.Measure]:
        """The measures, in order."""
        return self.run.measures

    @property
    def failed(self) -> Mapping[str, str]:
        """Methods that do not apply to the model, with the reason."""
        return self.run.failed

    def finish(self) -> dict[str, Any]:
        """Write the files of a finished run and return the summary."""
        about = self.journal.about
        labelled = [image for image in about.values() if image["label"] is not None]
        pre = self.preprocessing
        summary = summary_of(
            self,
            self.forward.engine(self._shape, forward=True).rewritten,
            {
                "path": str(self.dataset.path),
                "images": len(about),
                "accuracy": float(np.mean([i["label"] == i["predicted"] for i in labelled])) if labelled else None,
                "skipped": self.dataset.skipped | self.journal.skipped,
            },
            {
                "masks": str(self.plan.masks) if self.plan.masks is not None else None,
                "preprocessing": pre.describe() if pre is not None else None,
            },
            preprocessing=json.loads(pre.to_json()) if pre is not None else None,
        )
        write(self, summary, about, self._maps() | curves_of(self, summary))
        return summary

    def command(self) -> list[str]:
        """Return the command that does the run again."""
        return [
            *("fgonnx", "evaluate", str(self.model), str(self.dataset.path), "-o", str(self.folder)),
            *arguments(self.plan),
            *arguments(self._given, without=FILE),
            *arguments(self.running, defaults={"batch_size": 16, "cache": True}),
            *arguments(self.reading, without=SOUND),
        ]

    def _maps(self) -> dict[str, dict[str, bytes]]:
        """Draw the maps of the first images by every method, side by side."""
        from fgonnx.audit.evaluate import figures

        rows = []
        for number in self.run.kept:
            item = self.dataset.items[number]
            maps = [self.run.kept_map(method, number) for method in self.run.methods]
            if any(m is not None for m in maps):
                rows.append(
                    (item.name if len(item.name) < 20 else f"...{item.name[-17:]}", self.dataset.read(item).shown, maps)
                )
        return {"maps": figures.grid(rows, self.run.methods)} if rows else {}
