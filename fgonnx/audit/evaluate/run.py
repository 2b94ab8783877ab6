"""Run all measures on all methods and images, shard by shard, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgonnx import files
from fgonnx.audit.evaluate.data import Data, Float, Subject
from fgonnx.audit.evaluate.journal import Journal, Row
from fgonnx.audit.evaluate.registry import Measure
from fgonnx.errors import FgonnxError, OptionError


def file_name(name: str) -> str:
    """Return the name of a method or measure, with its settings, as a name valid on every file system."""
    return re.sub(r"[^\w.+=-]", "_", name)


@dataclass(frozen=True)
class Shard:
    """A group of images in memory.

    Attributes
    ----------
    images : tuple of str
        Their names.
    data : Data
        The samples.
    """

    images: tuple[str, ...]
    data: Data


@dataclass
class Run:
    """A run, as an iterable: it yields the finished part of `cost`, in runs of the model.

    Attributes
    ----------
    subject : callable
        Creates the subject of a method, given its name.
    journal : Journal
        Records what is finished, with its results.
    methods : sequence of str
        Names of methods.
    measures : sequence of Measure
        The measures.
    shards : sequence of int
        Number of images of every shard.
    read : callable
        Returns a shard by its index; None where none of its images can be read.
    maps : Path
        Folder of the maps that are kept for figures of the report.
    kept : sequence of int
        Numbers of the samples (`Data.numbers`) whose maps are kept.
    failed : dict of str to str
        Methods not applicable to the model, and measures not applicable to a method, with the reason.
    """

    subject: Callable[[str], Subject]
    journal: Journal
    methods: Sequence[str]
    measures: Sequence[Measure]
    shards: Sequence[int]
    read: Callable[[int], Shard | None]
    maps: Path
    kept: Sequence[int] = ()
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """Approximate total number of runs of the model."""
        return len(self.methods) * sum(self.shards) * sum(m.runs for m in self.measures)

    def __iter__(self) -> Iterator[int]:
        for method in self.methods:
            done = 0
            try:
                for part in self._method(method):
                    done += part
                    yield part
            except FgonnxError as error:
                self.failed[method] = str(error).partition("\n")[0]
            yield self.cost // len(self.methods) - done

    def map_path(self, method: str, number: int) -> Path:
        """Return the file of a sample's kept map."""
        return self.maps / file_name(method) / f"{number:06}.npy"

    def _method(self, method: str) -> Iterator[int]:
        subject: Subject | None = None
        first = 0
        for k, count in enumerate(self.shards):
            todo = [m for m in self.measures if (method, m.name, k) not in self.journal]
            wanted = [n for n in self.kept if first <= n < first + count and not self.map_path(method, n).is_file()]
            first += count
            yield count * sum(m.runs for m in self.measures if m not in todo)
            shard = self.read(k) if todo or wanted else None
            if shard is None:
                continue
            subject = subject or self.subject(method)
            data = shard.data.explained(subject)
            self._keep(method, data, wanted)
            for measure in todo:
                try:
                    measured = measure(subject, data)
                except OptionError as error:
                    self.failed[f"{method}, {measure.name}"] = str(error)
                else:
                    self.journal.add(Row(method, measure.name, k, shard.images, measured))
                yield count * measure.runs

    def _keep(self, method: str, data: Data, wanted: Sequence[int]) -> None:
        if wanted:
            files.make_folder(self.maps / file_name(method))
        for row, number in enumerate(data.numbers.tolist()):
            if number in wanted and data.saliency is not None:
                files.write_array(self.map_path(method, number), data.saliency[row].astype(np.float32))

    def kept_map(self, method: str, number: int) -> Float | None:
        """Return a map that was kept, or None."""
        path = self.map_path(method, number)
        return np.load(path).astype(np.float64) if path.is_file() else None
