"""Arrays for the inputs of a rewritten model: checked, and cut into samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.rewrite.rewritten import Rewritten
from fgonnx.errors import InputError

Array = npt.NDArray[Any]


def feeds(where: str, r: Rewritten, x: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Check arrays against the inputs of a rewritten model and return them by name.

    Raises
    ------
    InputError
        An input is missing or unknown, has another shape or type, or holds NaN or infinity.
    """
    graph = r.model.graph
    needed = {str(v.name): v for v in graph.inputs if v.name not in graph.initializers and v.name != r.selector}
    given = dict(x) if isinstance(x, Mapping) else {r.normal.input_name: x}
    missing, unknown = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    if missing or unknown:
        raise InputError(
            f"{where} takes the inputs {', '.join(needed)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            + ("; give arrays by name, or fix inputs beforehand (bind=, --bind)" if len(needed) > 1 else "")
        )
    found = {name: _checked(name, np.asarray(given[name]), value) for name, value in needed.items()}
    main = found[r.normal.input_name]
    if main.shape[0] == 0:
        raise InputError("the batch is empty; give at least one sample")
    return found


def rows(r: Rewritten, fed: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    """Return the samples from start to stop; inputs without a batch axis in front (states) as they are."""
    count = fed[r.normal.input_name].shape[0]
    fixed = {
        str(v.name)
        for v in r.model.graph.inputs
        if v.shape is not None and v.shape.rank() and isinstance(v.shape.dims[0], int) and v.shape.dims[0] > 1
    }
    part = {
        name: array[start:stop] if array.ndim and array.shape[0] == count and name not in fixed else array
        for name, array in fed.items()
    }
    if r.options.seed and fed[r.selector].ndim > len(r.head_shape) and r.selector in fixed:
        part[r.selector] = fed[r.selector][start]  # a head without a batch axis
    return part


def _checked(name: str, array: Array, value: ir.Value) -> Array:
    wanted = dtype_of(value).numpy()
    if array.dtype != wanted:
        both_float = array.dtype.kind == "f" and dtype_of(value).is_floating_point()
        if not both_float:
            raise InputError(f"input '{name}' must be {wanted}, the array is {array.dtype}; convert it (array.astype)")
        array = array.astype(wanted)
    dims = tuple(value.shape.dims) if value.shape is not None else ()
    fits = len(dims) == array.ndim and all(
        not isinstance(d, int) or d == s or i == 0 for i, (d, s) in enumerate(zip(dims, array.shape, strict=True))
    )
    if not fits:
        shape = ", ".join("N" if i == 0 else str(d if isinstance(d, int) else "?") for i, d in enumerate(dims))
        raise InputError(f"input '{name}' must have the shape ({shape}), the array has {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"input '{name}' holds NaN or infinity, first at {where}")
    return array
