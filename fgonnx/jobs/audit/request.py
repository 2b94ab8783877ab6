"""What an audit was asked, and the tools that a process needs to do a part of it."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fgonnx.engine import methods
from fgonnx.engine.graph.running import AUTO, Running
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import InputError, OptionError
from fgonnx.explain import choice
from fgonnx.explain.explainer import Explainer
from fgonnx.fields import refuse_idle
from fgonnx.jobs import provenance
from fgonnx.jobs.audit import condition, data, measuring
from fgonnx.jobs.audit.objects import Objects
from fgonnx.jobs.audit.options import Auditing
from fgonnx.jobs.reading import SOUND, Reading, agreed_layout, aligned_labels
from fgonnx.jobs.samples import Reader, Sample, Source
from fgonnx.pictures.read import images
from fgonnx.wording import parameter

READERS = 2


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
    """

    model: Path
    data: Path
    folder: Path
    options: Options = field(default_factory=Options)
    running: Running = field(default_factory=lambda: Running(batch_size=16))
    reading: Reading = field(default_factory=Reading)
    auditing: Auditing = field(default_factory=Auditing)
    target: str | None = None


class Tools:
    """A model with its session, and a reader of rows, made once in a process.

    Parameters
    ----------
    request : Request
        What was asked.
    """

    def __init__(self, request: Request) -> None:
        self.request, options, reading = request, request.options, request.reading
        refuse_idle(reading, SOUND, "audits read pictures and arrays")
        request.running.check()
        if request.running.runtime == AUTO:
            raise OptionError(
                f"an audit is run by one runtime, and {parameter('runtime', AUTO)} chooses by time; name "
                "onnxruntime or openvino"
            )
        if request.target is not None:
            choice.parse(request.target)  # before anything is read
        self.loaded, self.options = arranged(binding.bind(load(request.model), options.bind), options)
        value = self.loaded.input(options.input)
        self.rank = len(dims_of(value))
        self.preprocessing, self.origin = reading.preprocessing(self.loaded, options.input, required=False)
        self.reader = Reader(value, self.preprocessing, reading, axis=self.loaded.batch_axis)
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
            ),
            replace(request.running, spin=False),
            labels=reading.names(),
        )
        auditing = request.auditing
        self.condition = condition.parse(auditing.only, auditing.slices or ()) if auditing.only is not None else None
        self.objects = Objects(auditing.objects) if auditing.objects is not None else None
        self.measures = measuring.chosen(auditing.measures or (), masks=self.objects is not None)
        if self.measures:
            refuse_idle(self.options, ("contrast",), "measures ask for the score of one class")
        self.base = request.data if request.data.is_dir() else request.data.parent
        self.lock = threading.Lock()  # one explanation at a time: two would share the cores
        self.labels: tuple[str, ...] | None = None
        self.entries = 0
        self.classes = False  # whether entries of the head are classes
        self.probabilities = False  # whether a condition can name them
        self.environment = provenance.environment(request.running)
        self.notes: list[str] = []

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads that read ahead."""
        return ThreadPoolExecutor(READERS, thread_name_prefix="read")

    def close(self) -> None:
        """End the threads."""
        if "pool" in self.__dict__:
            self.pool.shutdown(cancel_futures=True)
            del self.__dict__["pool"]

    def take(self, labels: Sequence[str] | None, classes: bool) -> None:
        """Take from a plan what its first row has told."""
        self.labels, self.classes = tuple(labels) if labels is not None else None, classes

    def settle(self, shape: tuple[int, ...]) -> None:
        """Learn from the shape of one sample how many classes there are, and their names."""
        rewritten = self.explainer.engine((1, *shape), forward=True).rewritten
        head, stripped = rewritten.head_shape, rewritten.stripped
        self.entries = math.prod(head)
        measuring.check(self.measures, rewritten.normal.layout)
        self.classes = sum(size > 1 for size in head) == 1
        self.probabilities = self.classes and stripped in ("Softmax", "LogSoftmax", "Sigmoid")
        if not self.classes:
            return
        self.labels, note = aligned_labels(self.request.reading.names(), self.loaded.labels(), self.entries)
        self.notes = [f"labels: {note}"] if note else []

    def read(self, row: Mapping[str, Any]) -> Sample:
        """Read one row of the plan.

        Raises
        ------
        InputError
            It cannot be read, is not what was planned, or does not fit the model.
        """
        content = data.content(row, self.base, self.request.auditing.column)
        if row["sha256"] is not None and hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise InputError(f"'{row['path']}' is not what it was when the audit was planned")
        path = Path(row["path"])
        source = Source(path, row["second"], row["name"])
        if path.suffix.lower() == ".npy":
            return self.reader.read(Source(self.base / path, row["second"], row["name"]))
        return self.reader.of_picture(images.decode(np.frombuffer(content, np.uint8), Path(row["name"])), source)
