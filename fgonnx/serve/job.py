"""What is asked of a model, and what it answers, in no protocol's words."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fgonnx.explain.targets import One
from fgonnx.jobs.audit.condition import Condition

if TYPE_CHECKING:
    from fgonnx.serve.served import Served

Array = npt.NDArray[Any]

PREDICT, EXPLAIN = "predict", "explain"
LARGEST = -1
"""Among the targets of a job, the largest entry of the head."""


@dataclass(eq=False)
class Job:
    """A request to one model.

    Attributes
    ----------
    served : Served
        The model.
    verb : {"predict", "explain"}
        What is asked.
    inputs : mapping of str to numpy array
        Its inputs, with samples first.
    targets : sequence, or None
        What to explain of each sample; None for the model's own choice.
    contrast : str, int, tuple or None
        What targets are compared with.
    condition : Condition or None
        Explain only samples whose prediction meets it.
    together : bool
        Whether all samples are explained where one meets the condition.
    seconds : dict of str to float
        Time of every stage.
    batch : int
        Samples that were run together.
    """

    served: Served
    verb: str
    inputs: Mapping[str, Array]
    targets: Sequence[One] | None = None
    contrast: Any = None
    condition: Condition | None = None
    together: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    batch: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.inputs[self.served.input])

    @property
    def rows(self) -> int:
        """Rows of the largest input, of those that take any number of them."""
        return max((len(a) for name, a in self.inputs.items() if a.ndim and self.served.is_free(name)), default=0)

    @property
    def like(self) -> Hashable:
        """Jobs with equal values may be run together; None where a job is run alone."""
        if not self.served.joins:
            return None
        shapes = tuple((name, a.shape[1:], a.dtype.str) for name, a in sorted(self.inputs.items()))
        kind = "own" if self.targets is None else "entries" if self.entries else "others"
        return id(self.served), self.verb, shapes, kind, repr(self.contrast)

    @property
    def entries(self) -> bool:
        """Whether every target is the flat index of an entry."""
        return self.targets is not None and all(isinstance(t, (int, np.integer)) for t in self.targets)


@dataclass
class Explained:
    """The explanation of one sample.

    Attributes
    ----------
    saliency : numpy array
        The map.
    values : dict of str to numpy array
        Score, target, certificate, by the names that outputs of rewritten files have.
    target, contrast : dict or None
        The entry explained, and what it is compared with; None where it is no single one.
    described : str
        The target in words.
    top : list of dict
        The largest entries.
    relative, rounding : float or None
        Of the certificate: |residual| relative to |score|, and to the sum of |contributions|.
    signed : bool
        Whether the map has a sign.
    note : str
        What is to be said of the certificate; "" where it closes.
    """

    saliency: Array
    values: dict[str, Array]
    target: dict[str, Any] | None
    contrast: dict[str, Any] | None
    described: str
    top: list[dict[str, Any]]
    relative: float | None
    rounding: float | None
    signed: bool
    note: str = ""


@dataclass
class Answer:
    """What a model answers.

    Attributes
    ----------
    outputs : mapping of str to numpy array
        The model's own outputs, samples first.
    explained : sequence of Explained or None
        One per sample; None for those that were not to be explained.
    """

    outputs: Mapping[str, Array]
    explained: Sequence[Explained | None] = ()
