"""The shapes of what an Explainer is given: which they are, and what is refused of them and of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import InputError, TargetError

Array = npt.NDArray[Any]


def check_sizes(x: Array | Mapping[str, Array], name: str) -> None:
    """Refuse what has no sizes of its own, before a graph is written for them."""
    for array in map(np.asarray, x.values() if isinstance(x, Mapping) else [x]):
        if array.dtype.kind == "O":
            raise InputError(
                f"{name}: samples of several sizes are no array; pad them to one size, or give them one at a time"
            )
        if 0 in array.shape[1:]:
            raise InputError(
                f"{name}: an input of the shape {array.shape} holds nothing to explain; give at least one entry along "
                "every axis"
            )


def explained_shape(
    x: Array | Mapping[str, Array], loaded: LoadedModel, explained: str | None
) -> tuple[int, ...] | None:
    """Return the shape of the explained input among those given, None if it is not among them."""
    if not isinstance(x, Mapping):
        return np.asarray(x).shape
    if explained is None and len(x) > 1:
        explained = loaded.input().name
    found = next(iter(x.values())) if len(x) == 1 else x.get(str(explained))
    return np.asarray(found).shape if found is not None else None


def other_shapes(
    x: Array | Mapping[str, Array], loaded: LoadedModel, explained: str | None
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the other arrays given, of inputs that have free sizes behind the first axis."""
    if not isinstance(x, Mapping) or len(x) < 2:
        return {}
    explained = explained or loaded.input().name
    found = {}
    for v in free_inputs(loaded.ir.graph):
        dims = v.shape.dims if v.shape is not None else ()
        name = str(v.name)
        given = np.asarray(x[name]).shape if name in x and name != explained else ()
        if len(given) == len(dims) and any(not isinstance(d, int) for d in dims[1:]):
            found[name] = given
    return found


def checked_seed(seed: Array, r: Rewritten, count: int) -> Array:
    """Return a cotangent of the head for every sample, in the type that the graph takes.

    Raises
    ------
    TargetError
        It has another shape, or holds NaN or infinity.
    """
    seed = np.asarray(seed)
    if seed.shape == r.head_shape:
        seed = np.broadcast_to(seed, (count, *seed.shape))
    if seed.shape != (count, *r.head_shape):
        raise TargetError(f"the seed must have the head's shape {(count, *r.head_shape)}, it has {seed.shape}")
    if not np.isfinite(seed).all():
        raise TargetError("the seed holds NaN or infinity")
    value = next(v for v in r.model.graph.inputs if v.name == r.selector)
    return np.ascontiguousarray(seed.astype(dtype_of(value).numpy()))


def as_numbers(array: Array) -> str:
    """Return what to do with an array of a type that an input is not of; pixels would be prepared, channels last."""
    if array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-3] in (1, 3, 4):
        return f"pixels have their channels last: give {turned(array.ndim, last=True)}"
    return "convert it with array.astype"


def turned(rank: int, *, last: bool) -> str:
    """Return what moves the channels of a picture, or of a batch of them, to the end or in front of the rows."""
    axes = (1, 2, 0) if last else (2, 0, 1)
    return f"array.transpose({', '.join(map(str, axes if rank == 3 else (0, *(a + 1 for a in axes))))})"


def is_turned(shape: Sequence[int], dims: Sequence[Any]) -> bool:
    """Tell whether a shape is that of the input with the channels at the end."""
    if len(dims) != 4 or len(shape) not in (3, 4):
        return False
    *_, height, width, channels = shape
    return all(not isinstance(d, int) or d == s for d, s in zip(dims[1:], (channels, height, width), strict=True))
