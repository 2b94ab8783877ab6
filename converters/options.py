"""Options of every conversion, whatever the framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import onnx

from fgonnx.errors import OptionError
from fgonnx.fields import check_choices, check_fields, option
from fgonnx.labels import names_of
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.wording import parameter

from . import parity

HEADS = ("logits", "output")
LEAST_OPSET = 7  # of what fgonnx reads


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
        A value has another type than its field, is out of range, or is no head.
    """

    opset: int | None = option(None, "Version of the operator set.", least=LEAST_OPSET)
    preprocessing: Preprocessing | None = None
    labels: Sequence[str] | None = None
    head: str = "logits"
    simplify: bool = False
    pictures: Sequence[str | Path] = ()
    tolerance: float = option(parity.TOLERANCE, "Allowed difference of outputs.", least=0)
    random_state: int = option(0, "Seed of the random samples.", least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        check_choices(self, head=HEADS)
        newest = onnx.defs.onnx_opset_version()
        if self.opset is not None and self.opset > newest:
            raise OptionError(f"{parameter('opset', self.opset)} is out of range; the newest of this onnx is {newest}")
        if self.labels is not None:
            names_of(self.labels)
