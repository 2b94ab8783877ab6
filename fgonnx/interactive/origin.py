"""Where an explanation comes from: its samples, its model, and what was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fgonnx.engine.model.load import LoadedModel
from fgonnx.jobs import provenance
from fgonnx.jobs.record import Decision
from fgonnx.jobs.samples import Reader, Sample
from fgonnx.jobs.written import Asked


class Identity:
    """What identifies a model in records, found when it is first needed: large weights take a while to be hashed."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded: LoadedModel | None = loaded

    @cached_property
    def content(self) -> dict[str, Any]:
        """What `provenance.model_of` returns."""
        assert self._loaded is not None
        return provenance.model_of(self._loaded, self._loaded.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"content": self.content, "_loaded": None}


@dataclass(frozen=True)
class Origin:
    """Where an explanation comes from: what its pictures and records say beyond its arrays.

    Attributes
    ----------
    samples : tuple of Sample
        What was explained, one each.
    decision : Decision
        All entries of the head.
    model : Identity
        What identifies the model.
    asked : Asked
        What was asked for: from it, records and the command that repeats it are written.
    layout : str
        Axes of the input with samples first, such as "NCHW".
    reader : Reader
        What made arrays of files; it draws arrays.
    batches : dict of str to int or None
        Axis of the batch of those of the model's outputs where it is not the first.
    digests : tuple of str or None
        SHA-256 of each sample's file, as it was read; None of what was no file. Empty of arrays.
    told : bool
        Whether a command says the same.
    """

    samples: tuple[Sample, ...]
    decision: Decision
    model: Identity
    asked: Asked
    layout: str
    reader: Reader
    batches: Mapping[str, int | None] = field(default_factory=dict)
    digests: tuple[str | None, ...] = ()
    told: bool = False


def input_of(sample: Sample, read: str | None = None) -> dict[str, Any]:
    """Return the input for a record: its file, if it was one, or the hash of the array."""
    if read is not None:
        return {"path": str(sample.source.path), "row": sample.source.row, "sha256": read}
    return {"path": None, "row": None, "sha256": hashlib.sha256(np.ascontiguousarray(sample.x).data).hexdigest()}
