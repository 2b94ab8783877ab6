"""What an audit was asked, and the tools that a process needs to do a part of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx.engine import methods
from fgonnx.engine.graph.providers import CPU
from fgonnx.engine.graph.running import AUTO, Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.maps.psi import SIGNED
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import InputError, OptionError
from fgonnx.explain import choice
from fgonnx.explain.explainer import Explainer
from fgonnx.fields import refuse_idle
from fgonnx.jobs import provenance, tabled
from fgonnx.jobs.audit import condition, data, listing, measuring, rows
from fgonnx.jobs.audit.arrays import KIND, ArrayRows, no_pictures
from fgonnx.jobs.audit.objects import Objects
from fgonnx.jobs.audit.options import Auditing
from fgonnx.jobs.joining import by_columns
from fgonnx.jobs.reading import Reading, agreed_layout, aligned_labels
from fgonnx.jobs.samples import Reader, Sample, Source
from fgonnx.pictures.read import images
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.options import Texts
from fgonnx.wording import parameter

READERS = 2
_ELSEWHERE = 2  # batches at once where no processor computes: one is explained, the other recorded
_NO_OBJECTS = "objects are in pictures"
_READ = {"": "pictures and arrays", "text": "texts here", "table": "tables here"}


def signed(options: Options) -> Options:
    """Return options whose maps are signed, where the method has signs: an audit's default.

    Clusters of signed maps show a mark that decides; in maps of absolute contributions the background, which cancels,
    outweighs it (`benchmarks/marks.py`).
    """
    return replace(options, psi=SIGNED) if SIGNED in methods.find(options.method).psis else options


@dataclass(frozen=True)
class Request:
    """What an audit was asked.

    Attributes
    ----------
    model, data, folder : Path
        The model, the data, and the run's folder.
    options : Options
        What is explained and how.
    running : Running
        How the model runs.
    reading : Reading
        How files become samples.
    auditing : Auditing
        What of the data is explained, and what is recorded.
    target : str or None
        As `fgonnx.targets.parse` takes it.
    texts : Texts
        How texts become ids.
    given : tuple of str
        Fields of the options that were asked for, which stay as they are for texts.
    """

    model: Path
    data: Path
    folder: Path
    options: Options = field(default_factory=Options)
    running: Running = field(default_factory=lambda: Running(batch_size=16))
    reading: Reading = field(default_factory=Reading)
    auditing: Auditing = field(default_factory=Auditing)
    target: str | None = None
    texts: Texts = field(default_factory=Texts)
    given: tuple[str, ...] = ()


def _single(running: Running) -> Running:
    """Return how batches are run: one thread each, since sums in several can be rounded in another order."""
    return replace(running, spin=False, threads=1)


class Tools:
    """A model with its session, and a reader of rows, made once in a process.

    Parameters
    ----------
    request : Request
        What was asked.
    """

    def __init__(self, request: Request) -> None:
        options, reading = request.options, request.reading
        request.running.check()
        if request.running.runtime == AUTO:
            raise OptionError(
                f"an audit is run by one runtime, and {parameter('runtime', AUTO)} chooses by time; name "
                "onnxruntime or openvino"
            )
        source = binding.bind(load(request.model), options.bind, options.input_shape)
        source, columns = by_columns(source, reading, [request.data], options.input, rows.opened)
        self.loaded, self.options = arranged(source, options)
        value = self.loaded.input(options.input)
        self.kind = rows.takes_rows(request.data, value, self.loaded, request.auditing)
        refuse_idle(reading, rows.idle(self.kind), f"audits read {_READ[self.kind]}")
        if self.kind != "text":
            refuse_idle(request.texts, [f.name for f in fields(Texts)], "the data are no texts")
        if request.target is not None and self.kind != "text":
            choice.parse(request.target)  # before anything is read
        self.options = rows.adjusted(self.options, self.kind)
        self.rank = len(dims_of(value))
        self.preprocessing, self.origin = reading.preprocessing(
            self.loaded, options.input, required=False, shape=self.options.explained_shape
        )
        self.reader = Reader(value, self.preprocessing, columns, axis=self.loaded.batch_axis)
        #: Random draws depend on a sample's position in its batch: in a batch of one, they depend on no other sample.
        driven = methods.find(options.method).drive is not None
        self.together = 1 if driven else request.running.batch_size
        self.explainer = Explainer(
            self.loaded,
            replace(
                self.options,
                bind=None,  # the model is bound already
                layout=agreed_layout(options.layout, self.preprocessing, self.loaded, options.input),
                scores=not driven,
                input_gradient=self.options.input_gradient
                or (
                    (self.kind == "table" or (not self.kind and self.preprocessing is None))
                    and tabled.wants_gradient(self.loaded, self.options)
                ),
            ),
            _single(request.running),
            labels=reading.names(),
        )
        auditing = request.auditing
        self.rows: rows.TextRows | rows.TableRows | None = None
        self.arrays: ArrayRows | None = None
        if self.kind == "text":
            texts = self._of_texts(request)
            self.rows, self.explainer = texts, texts.explainer.explainer
            self.options = replace(self.explainer.options, bind=self.options.bind)
        elif self.kind == "table":
            self.rows = rows.TableRows(request.data, self.reader, auditing)
        if self.kind:
            refuse_idle(auditing, ["objects"], _NO_OBJECTS)
        if self.kind == "text":
            refuse_idle(auditing, ["measures"], "they move and fill pixels; evaluate measures texts")
        asked = {name: getattr(self.options, name) for name in ("psi", "backward")} if self.kind else {}
        self.request = replace(request, options=replace(options, **asked))
        self.condition = condition.parse(auditing.only, auditing.slices or ()) if auditing.only is not None else None
        self.objects = Objects(auditing.objects) if auditing.objects is not None else None
        self.measures = measuring.chosen(auditing.measures or (), masks=self.objects is not None)
        if self.measures:
            refuse_idle(self.options, ("contrast",), "measures ask for the score of one class")
        self.base = request.data if request.data.is_dir() else request.data.parent
        self.labels: tuple[str, ...] | None = None
        self.head: tuple[int, ...] = ()
        self.entries = 0
        self.classes = False  # whether entries of the head are classes
        self.probabilities = False  # whether a condition can name them
        self.environment = provenance.environment(request.running)
        self.notes: list[str] = []

    def _of_texts(self, request: Request) -> rows.TextRows:
        own = replace(self.options, bind=None, scores=methods.find(self.options.method).drive is None)
        running, names, given = _single(request.running), request.reading.names(), request.given
        explainer = TextExplainer(self.loaded, own, running, request.texts, names, given=given)
        return rows.TextRows(request.data, explainer, request.auditing)

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads that read ahead."""
        return ThreadPoolExecutor(READERS, thread_name_prefix="read")

    @cached_property
    def at_once(self) -> int:
        """How many batches are explained at once, each in a thread of its own."""
        running = self.request.running
        if any(provider != CPU for provider in running.used_providers):
            return _ELSEWHERE
        return running.used_threads

    @cached_property
    def explainers(self) -> ThreadPoolExecutor:
        """Threads that explain."""
        return ThreadPoolExecutor(self.at_once, thread_name_prefix="explain")

    def close(self) -> None:
        """End the threads."""
        for name in ("pool", "explainers"):
            if name in self.__dict__:
                self.__dict__.pop(name).shutdown(cancel_futures=True)

    def take(self, about: Mapping[str, Any]) -> None:
        """Take from a plan what its first row has told."""
        labels = about["labels"]
        self.labels, self.classes = tuple(labels) if labels is not None else None, about["classes"]
        self.entries = about["entries"]
        if about.get("kind") == KIND:
            self.kind, self.arrays = KIND, ArrayRows()

    @property
    def parts(self) -> rows.TextRows | rows.TableRows | ArrayRows | None:
        """What grids and records of rows are made by; None where they are pictures."""
        return self.rows or self.arrays

    @property
    def several(self) -> bool:
        """Whether the head has several axes, so that its entries are no classes."""
        return not self.classes and self.entries > 1

    def settle(self, shape: tuple[int, ...]) -> None:
        """Learn from the shape of one sample how many classes there are, and their names."""
        if isinstance(self.rows, rows.TextRows):
            sizes = (d for i, d in enumerate(self.reader.dims) if i != self.loaded.batch_axis)
            least = 1 if all(isinstance(d, int) for d in sizes) else 2  # of one token, their axis would not be seen
            rewritten = self.rows.rewritten(max(shape[0], least))
        else:
            rewritten = self.explainer.engine((1, *shape), forward=True).rewritten
        normal = rewritten.normal
        if not self.kind and self.preprocessing is None and no_pictures(normal.layout, normal.input_shape):
            self.kind, self.arrays = KIND, ArrayRows()
            refuse_idle(self.request.auditing, ["objects"], _NO_OBJECTS)
        head, stripped = rewritten.head_shape, rewritten.stripped
        self.head, self.entries = head, math.prod(head)
        measuring.check(self.measures, normal.layout)
        self.classes = sum(size > 1 for size in head) == 1
        self.probabilities = self.classes and stripped in ("Softmax", "LogSoftmax", "Sigmoid")
        if not self.classes:
            return
        self.labels, note = aligned_labels(self.request.reading.names(), self.loaded.labels(), self.entries)
        self.notes = [f"labels: {note}"] if note else []

    def find(self) -> listing.Rows:
        """List the rows of the data."""
        if self.rows is not None:
            return listing.unique(self.rows.find(), self.request.data)
        return data.find(self.request.data, self.request.auditing, self.rank, self.loaded.batch_axis)

    def key(self, sample: Sample) -> tuple[int, ...]:
        """Return what samples that run together have in common."""
        return self.rows.key(sample) if isinstance(self.rows, rows.TextRows) else sample.x.shape

    def fed(self, samples: Sequence[Sample]) -> Any:
        """Return the inputs of samples that run together: an array, or several by their names."""
        if isinstance(self.rows, rows.TextRows):
            found = self.rows.arrays(samples)
            return next(iter(found.values())) if len(found) == 1 else found
        return np.stack([sample.x for sample in samples])

    def heads(self, samples: Sequence[Sample]) -> tuple[Any, Rewritten]:
        """Return the heads of samples that run together, and the model as it is rewritten for them."""
        if isinstance(self.rows, rows.TextRows):
            return self.rows.heads(samples), self.rows.rewritten(self.key(samples[0])[0])
        x = np.stack([sample.x for sample in samples])
        return self.explainer.head(x), self.explainer.engine(x.shape, forward=True).rewritten

    def read(self, row: Mapping[str, Any]) -> Sample:
        """Read one row of the plan.

        Raises
        ------
        InputError
            It cannot be read, is not what was planned, or does not fit the model.
        """
        if self.rows is not None:
            return self.rows.read(row)
        content = data.content(row, self.base, self.request.auditing.column)
        if row["sha256"] is not None and hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise InputError(f"'{row['path']}' is not what it was when the audit was planned")
        path = Path(row["path"])
        source = Source(path, row["second"], row["name"])
        if path.suffix.lower() == ".npy":
            return self.reader.read(Source(self.base / path, row["second"], row["name"]))
        return self.reader.of_picture(images.decode(np.frombuffer(content, np.uint8), Path(row["name"])), source)
