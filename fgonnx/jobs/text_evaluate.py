"""Run `fgonnx evaluate` on texts: which method finds the words that decide, by their removal."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx import files
from fgonnx.audit.evaluate.journal import Journal, Row
from fgonnx.audit.evaluate.run import file_name
from fgonnx.audit.evaluate.texts import Explained, TextMeasure, of_texts
from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import FILE, Options, with_changes
from fgonnx.errors import FgonnxError, OptionError
from fgonnx.explain.explainer import Explainer
from fgonnx.explain.written import is_written
from fgonnx.fields import arguments, refuse_idle
from fgonnx.jobs import record
from fgonnx.jobs.dataset import classes_of
from fgonnx.jobs.evaluate_plan import Plan, chosen_methods, settings_of
from fgonnx.jobs.evaluate_summary import SCHEMA, curves_of, summary_of, write
from fgonnx.jobs.reading import SOUND, Reading, aligned_labels
from fgonnx.jobs.text import numbered, of_records, split_blank
from fgonnx.pictures.read.images import write_png
from fgonnx.pictures.show import words as drawing
from fgonnx.text import asking
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found
from fgonnx.text.options import Texts
from fgonnx.text.read import Text, texts
from fgonnx.text.tokenizer import BYTES
from fgonnx.text.tokens import Tokens
from fgonnx.wording import parameter

METHODS = (
    "fullgrad",
    "fullgrad:psi=abs",
    "simple-fullgrad",
    "gradient",
    "gradient-x-input",
    "integrated-gradients",
    "occlusion",
    "random",
)
"""Methods that are measured on texts by default."""

_PIXELS = ("edge", "rise", "score-cam")
"""Methods that look at pixels or hide parts of a picture."""


@dataclass
class TextEvaluation:
    """One run of `fgonnx evaluate` on texts.

    Attributes
    ----------
    model : Path
        The model.
    inputs : sequence of Path
        Files of texts.
    typed : sequence of str
        Texts.
    folder : Path
        Where files go, and where an interrupted run is resumed.
    plan : Plan
        What is measured.
    options, running, reading, texts
        What is explained and how; `method` is ignored, methods are in the plan.
    given : collection of str
        Fields of the options that were asked for, and stay as they are.
    failed : dict of str to str
        Methods that do not apply to the model, with the reason.
    skipped : dict of str to str
        Rows that hold no text, with the reason.
    """

    model: Path
    inputs: Sequence[Path]
    typed: Sequence[str]
    folder: Path
    plan: Plan = field(default_factory=Plan)
    options: Options = field(default_factory=Options)
    running: Running = field(default_factory=lambda: Running(batch_size=16))
    reading: Reading = field(default_factory=Reading)
    texts: Texts = field(default_factory=Texts)
    given: Collection[str] = ()
    failed: dict[str, str] = field(default_factory=dict, init=False)
    skipped: dict[str, str] = field(default_factory=dict, init=False)
    notes: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        files.check_folder(self.folder)
        refuse_idle(self.options, ("method", "psi", "profile"), "the plan names the methods, each with its settings")
        refuse_idle(self.plan, ["masks"], "masks are pictures, and the model takes texts")
        refuse_idle(self.reading, ["preprocess", *SOUND], "the model takes texts")
        self.loaded = load(self.model)
        if is_written(self.loaded):
            raise OptionError(f"{self.loaded.name} explains itself by one method; evaluate the model it was made from")
        self.measures: list[TextMeasure] = of_texts(self.plan.measures)
        asked = METHODS if self.plan.methods == Plan.methods else self.plan.methods
        names = [m for m in methods.names() if m not in _PIXELS] if asked == ("all",) else chosen_methods(asked)
        if pixels := [m for m in names if m.partition(":")[0] in _PIXELS]:
            raise OptionError(f"{', '.join(pixels)} looks at pixels, and the model takes texts; leave it out")
        self.methods = names
        self._labels = self.reading.names()
        self.base = self._explainer("fullgrad")
        read = texts(self.inputs, self.typed, self.texts.column, as_bytes=str(self.texts.tokenizer) == BYTES)
        self.read, self.skipped = split_blank(read[: self.plan.limit])
        cut = [(text, part) for text in self.read for part in self.base.cut(text.content, text.where)]
        names = numbered([text.name for text, _ in cut])
        self.rows: list[tuple[Text, Tokens]] = [
            (replace(text, name=name), part) for (text, part), name in zip(cut, names, strict=True)
        ]
        self._named = self._of_labels()
        self._classes = self._resolved() if self.plan.target == "label" else None
        self.notes.append(self._replaced())
        files.make_folder(self.folder)
        self.journal = Journal(self.folder / "journal.jsonl", self._request())

    @property
    def cost(self) -> int:
        """The steps of a run: texts by methods."""
        return len(self.rows) * len(self.methods)

    def __iter__(self) -> Iterator[int]:
        """Measure method after method, and yield how many texts are done."""
        for method in self.methods:
            done = 0
            try:
                for part in self._measured(method):
                    done += part
                    yield part
            except FgonnxError as error:
                self.failed[method] = str(error).partition("\n")[0]
            yield len(self.rows) - done

    def _measured(self, method: str) -> Iterator[int]:
        explainer: TextExplainer | None = None
        for k, (first, rows) in enumerate(self._shards()):
            names = tuple(text.name for text, _ in rows)
            todo = [m for m in self.measures if (method, m.name, k) not in self.journal]
            kept = range(min(len(rows), max(0, self.plan.shown - first)))
            lacking = [i for i in kept if not self._map(method, names[i]).is_file()]
            if todo or lacking:
                explainer = explainer or self._explainer(method)
                targets = self._targets[first : first + len(rows)]
                found = Explained(explainer, explainer.explain([part for _, part in rows], targets))
                for i in lacking:
                    files.make_folder(self._map(method, names[i]).parent)
                    files.write_array(self._map(method, names[i]), found.found[i].values.astype(np.float32))
                for measure in todo:
                    self.journal.add(Row(method, measure.name, k, names, measure(found)))
            yield len(rows)

    def _shards(self) -> Iterator[tuple[int, Sequence[tuple[Text, Tokens]]]]:
        step = self.running.batch_size
        for first in range(0, len(self.rows), step):
            yield first, self.rows[first : first + step]

    def _map(self, method: str, name: str) -> Path:
        return self.folder / "maps" / file_name(method) / f"{name}.npy"

    def _explainer(self, method: str) -> TextExplainer:
        name, settings = settings_of(method, self._no_references)
        options, _ = with_changes(replace(self.options, scores=False), None, {"method": name, **settings})
        asked = {*self.given, *settings} if name != "fullgrad" or settings else set(self.given)
        return TextExplainer(self.loaded, options, self.running, self.texts, self._labels, given=asked)

    def _no_references(self) -> Any:
        raise OptionError("expected-gradients takes references, rows of the model's table; leave it out for texts")

    @cached_property
    def _known(self) -> list[Found]:
        """The texts explained by the base method: what the model decides, and whether all can be measured."""
        return self.base.explain([part for _, part in self.rows], self._classes)

    @cached_property
    def _targets(self) -> list[Any]:
        """The entry explained of every text, as a target."""
        found = []
        for f in self._known:
            if f.arrays.target is None:
                raise OptionError("measures take single classes as targets, not sums or similarities")
            found.append(asking.position(int(f.arrays.target[0]), self._head_shape(f.tokens)))
        return found

    def _resolved(self) -> list[Any]:
        """Return the true class of every text as a target."""
        if self._shape is None:
            raise OptionError(
                f"{parameter('target', 'label')} takes models with one score for each class, not for each token"
            )
        if missing := [text.where for text, _ in self.rows if text.label is None]:
            raise OptionError(
                f"{parameter('target', 'label')}: {missing[0]} has no class; give files with a column or key 'label' "
                "for every text"
            )
        return [asking.position(self._named[str(text.label)], self._shape) for text, _ in self.rows]

    def _replaced(self) -> str:
        pad = "0, as nothing says what padding is" if self.base.pad is None else str(self.base.pad)
        return f"words are replaced by the id {pad}, in place, for all measures"

    def _request(self) -> dict[str, Any]:
        """Return everything that determines the results of a run; a different request does not resume it."""
        plain = Options().to_dict()
        content = hashlib.sha256(repr([(t.content, t.label) for t in self.read]).encode("utf-8", "backslashreplace"))
        return {
            "schema": SCHEMA,
            "model": self.loaded.sha256,
            "data": content.hexdigest(),
            "texts": self._of_texts,
            "options": {k: v for k, v in self.options.to_dict().items() if plain.get(k) != v},
            "given": sorted(self.given),
            "bind": dict(self.options.bind or {}),
            "target": self.plan.target,
            "seed": self.plan.seed,
            "batch_size": self.running.batch_size,
            "versions": record.versions(self.running),
            **record.asked(self.running),
        }

    @property
    def _of_texts(self) -> dict[str, str]:
        return {k: str(v) for k, v in vars(self.texts).items() if v is not None}

    @property
    def explainer(self) -> Explainer:
        """What runs the model."""
        return self.base.explainer

    def finish(self) -> dict[str, Any]:
        """Write the files of a finished run and return the summary."""
        summary = summary_of(
            self,
            self.explainer.engine(self._one[self.base.name].shape, others=self._others).rewritten,
            {
                "path": ", ".join(map(str, self.inputs)) or "texts that were typed",
                "of": "texts",
                "images": len(self.rows),
                "accuracy": self._accuracy,
                "skipped": self.skipped,
            },
            {"texts": self._of_texts},
        )
        write(self, summary, self._about(), curves_of(self, summary), self._shown())
        return summary

    def _about(self) -> dict[str, dict[str, Any]]:
        """Return label, decision and target of every text."""
        rows = zip(self.rows, self._decided, self._targets, strict=True)
        return {
            text.name: {"image": text.name, "label": text.label, "predicted": decided, "target": target}
            for (text, _), decided, target in rows
        }

    @cached_property
    def _decided(self) -> list[int | None]:
        """The class that a model with one score for each class decides for, of every text."""
        if self._shape is None:
            return [None] * len(self.rows)
        return [int(self.base.explainer.head(self.base.arrays([part]))[0].argmax()) for _, part in self.rows]

    def _head_shape(self, part: Tokens) -> tuple[int, ...]:
        return self.base.entries.head_shape(self.base.arrays([part]))

    @cached_property
    def _shape(self) -> tuple[int, ...] | None:
        """The shape of the head where it has one score for each class, else None."""
        shapes = {self._head_shape(part) for _, part in self.rows}
        shape = next(iter(shapes))
        return None if len(shapes) > 1 or sum(size > 1 for size in shape) > 1 else shape

    @cached_property
    def _accuracy(self) -> float | None:
        """The share of texts with a class that the model gets right; None where there are none."""
        if not self._named:
            return None
        rows = zip(self.rows, self._decided, strict=True)
        return float(np.mean([self._named[text.label] == made for (text, _), made in rows if text.label is not None]))

    def _of_labels(self) -> dict[str, int]:
        """Return the index of every class that texts name; none where the model has not one score for each class.

        Raises
        ------
        TargetError
            Some are no classes of the model.
        """
        given = list(dict.fromkeys(text.label for text, _ in self.rows if text.label is not None))
        if not given or self._shape is None:
            return {}
        entries = math.prod(self._shape)
        names, note = aligned_labels(self._labels, self.loaded.labels(), entries)
        self.notes += [f"labels: {note}"] if note else []
        return classes_of(given, names or (), entries, "classes of the texts are none of this model", "classes")

    @cached_property
    def _one(self) -> dict[str, Any]:
        return self.base.arrays([self.rows[0][1]])

    @property
    def _others(self) -> Any:
        return self.base.explainer.other_shapes(self._one)

    def _shown(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Draw the first texts by every method: a picture each, and their words for the page."""
        shown = []
        for text, part in self.rows[: self.plan.shown]:
            bodies, pictures = [], []
            for method in self.methods:
                if (path := self._map(method, text.name)).is_file():
                    words = of_records(part, np.load(path))
                    bodies.append((method, drawing.without_title(words)))
                    pictures.append(drawing.drawn(words, method))
            if pictures:
                write_png(self.folder / "maps" / f"{text.name}.png", np.concatenate(pictures))
            shown.append((text.name, bodies))
        return shown

    def command(self) -> list[str]:
        """Return the command that does the run again."""
        return [
            *("fgonnx", "evaluate", str(self.model), *map(str, self.inputs), "-o", str(self.folder)),
            *(word for text in self.typed for word in ("--text", text)),
            *arguments(self.plan),
            *arguments(self.options, without=FILE),
            *arguments(self.running, defaults={"batch_size": 16, "cache": True}),
            *arguments(self.reading, without=SOUND),
            *arguments(self.texts),
        ]
