"""The report of a conversion: what was done, and how far the file is from its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["passed", "failed", "undecided"]

METADATA_KEY = "fgonnx.conversion"
"""Key of a model's metadata that holds the report, a JSON object."""


@dataclass(frozen=True)
class Measurement:
    """The difference of one quantity between source and file, over a set of samples.

    Attributes
    ----------
    quantity : str
        "output NAME", "input-gradient" or "FullGrad map".
    samples : str
        Which inputs: "example", "random" or "pictures".
    maximum : float
        Largest absolute difference.
    relative : float
        Largest difference over the largest absolute value of the source.
    allowed : float
        Bound of `relative`; of `maximum`, in `unit`, for integer outputs.
    verdict : {"passed", "failed", "undecided"}
        Undecided: the source itself changes as much when its input is perturbed within float32 rounding.
    detail : str
        How it was measured.
    unit : str
        "relative" or "quantisation steps": what `allowed` bounds.
    """

    quantity: str
    samples: str
    maximum: float
    relative: float
    allowed: float
    verdict: Verdict
    detail: str = ""
    unit: str = "relative"


@dataclass(frozen=True)
class ConversionReport:
    """A converted file and the proof that it computes the same as its source.

    Attributes
    ----------
    path : Path
        The ONNX file.
    framework, source, exporter : str
        The framework, the kind of source, and the exporter that wrote the graph.
    opset : int
        Version of the default operator set.
    inputs, outputs : mapping of str to list
        Names and dimensions; a dimension with a name is free.
    head : str
        Tensor that fgonnx explains; "" where the file cannot be explained.
    head_stripped : str
        Operator after it, such as "Softmax", or "".
    measurements : tuple of Measurement
        The proof.
    versions : mapping of str to str
        Versions of the packages involved.
    notes : tuple of str
        Changes, assumptions, and what could not be compared.
    """

    path: Path
    framework: str
    source: str
    exporter: str
    opset: int
    inputs: Mapping[str, list[int | str]]
    outputs: Mapping[str, list[int | str]]
    head: str
    head_stripped: str
    measurements: tuple[Measurement, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no measurement failed."""
        return all(m.verdict != "failed" for m in self.measurements)

    def worst(self, quantity: str) -> float:
        """Return the largest relative difference of measurements whose quantity has this prefix; 0.0 for none."""
        return max((m.relative for m in self.measurements if m.quantity.startswith(quantity)), default=0.0)

    def to_json(self) -> str:
        """Return the report as a JSON object, for the metadata of the file it describes (so without its path)."""
        record: dict[str, Any] = {"passed": self.passed, **asdict(self)}
        del record["path"]
        return json.dumps(record, ensure_ascii=False)
