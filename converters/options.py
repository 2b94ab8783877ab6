"""Options of every conversion, whatever the framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from fgonnx.errors import OptionError
from fgonnx.pictures.read.preprocess import Preprocessing

from . import parity

HEADS = ("logits", "output")


class ConversionOptions(TypedDict, total=False):
    """Keyword arguments of `convert` that all frameworks share.

    Attributes
    ----------
    opset : int, optional
        Version of the operator set; by default 21 for jax, 20 for torch, 16 for paddle, 18 for the others.
    preprocessing : Preprocessing, optional
        How pictures become inputs; completed from the model and stored in the file.
    labels : sequence of str, optional
        Class names, stored in the file.
    head : {"logits", "output"}
        "logits" adds the tensor before a final Softmax, LogSoftmax or Sigmoid as an output of that name.
    simplify : bool
        Let onnxslim merge and fold what it can (False).
    pictures : sequence of path
        Pictures to compare source and file on, through `preprocessing`.
    tolerance : float
        Allowed difference of outputs, relative to the largest (1e-5).
    random_state : int
        Seed of the random samples (0).
    """

    opset: int | None
    preprocessing: Preprocessing | None
    labels: Sequence[str] | None
    head: str
    simplify: bool
    pictures: Sequence[str | Path]
    tolerance: float
    random_state: int


@dataclass(frozen=True)
class Conversion:
    """The options of one conversion: `ConversionOptions`, checked and with their defaults.

    Raises
    ------
    OptionError
        There is no such head.
    """

    opset: int | None = None
    preprocessing: Preprocessing | None = None
    labels: Sequence[str] | None = None
    head: str = "logits"
    simplify: bool = False
    pictures: Sequence[str | Path] = ()
    tolerance: float = parity.TOLERANCE
    random_state: int = 0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise OptionError(f"head={self.head!r} does not exist; choose one of: {', '.join(HEADS)}")
