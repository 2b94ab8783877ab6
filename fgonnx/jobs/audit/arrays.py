"""Arrays that are no pictures as the data of an audit: vectors of features, and channels over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.explain.explanation import Explanation
from fgonnx.jobs import tabled
from fgonnx.jobs.audit.rows import folded
from fgonnx.jobs.samples import Sample
from fgonnx.jobs.tabular import SERIES, TABLE, Named

Array = npt.NDArray[Any]

KIND = "array"
"""What a run calls such rows."""

_GRID = "DHW"


def no_pictures(layout: str, shape: Sequence[int]) -> bool:
    """Tell whether samples have fewer than two axes to be seen along, so that nothing has a place in a picture.

    Parameters
    ----------
    layout : str
        Of the input, such as "NCW".
    shape : sequence of int
        Its sizes.
    """
    return sum(size > 1 for letter, size in zip(layout, shape, strict=True) if letter in _GRID) < 2


class ArrayRows:
    """Rows that are read from arrays and are recorded as rows of a table and recordings are."""

    def recorded(
        self, made: Mapping[str, Any], sample: Sample, explanation: Explanation, i: int, layout: str
    ) -> dict[str, Any]:
        """Return a record with the features or channels of a row."""
        own = replace(sample, named=_named(sample))
        return tabled.described(made, own, tabled.parts_of(explanation, i, own, layout))

    def grid(self, sample: Sample, saliency: Array) -> npt.NDArray[np.float32]:
        """Return the shares of the map by feature or step: cell n has those of n, n + 256, ..."""
        return folded(np.arange(saliency.size), saliency)


def _named(sample: Sample) -> Named | None:
    """Return what the features or channels of an array are called; whole numbers are ids, which are neither."""
    if sample.named is not None or sample.x.dtype.kind != "f":
        return sample.named
    if sample.x.ndim == 1:
        return Named(TABLE, tuple(f"feature {i}" for i in range(len(sample.x))))
    return Named(SERIES, ()) if sample.x.ndim == 2 else None
