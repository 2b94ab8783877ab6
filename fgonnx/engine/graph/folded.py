"""Single numbers and truth values that follow from constants alone, in subgraphs too: trip counts, conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

_DEEPEST = 64  # nodes between a value and its constants
_KEPT = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_COMPUTED: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Mul": np.multiply,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Sub": np.subtract,
    "Xor": np.logical_xor,
}


def folded(value: ir.Value | None, known: Mapping[ir.Value, Any] | None = None) -> Any:
    """Return the number or truth value that a value holds whatever the inputs are; None where that is not known.

    Parameters
    ----------
    value : ir.Value or None
        The value, of a graph or of a subgraph; None for an input that is left out.
    known : mapping of ir.Value to any, optional
        What further values hold.
    """
    found = folded_array(value, known)
    return None if found is None else found.item()


def folded_array(value: ir.Value | None, known: Mapping[ir.Value, Any] | None = None) -> Array | None:
    """Return what `folded` does as an array of one number, in the value's type."""
    return None if value is None else _of(value, {v: np.reshape(c, 1) for v, c in (known or {}).items()}, 0)


def _of(value: ir.Value, known: Mapping[ir.Value, Array], depth: int) -> Array | None:
    """Return the one number of a value as an array of that size."""
    if value in known:
        return known[value]
    node = value.producer()
    if node is None or (not node.domain and node.op_type == "Constant"):
        constant = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
        # An array, not a number of numpy: whole numbers that pass their bound begin again without a warning.
        return None if constant is None or constant.size != 1 else constant.numpy().reshape(1)
    if node.domain or depth == _DEEPEST:
        return None
    kind = node.op_type
    read = node.inputs[:1] if kind in _KEPT or kind == "Cast" else node.inputs if kind in _COMPUTED else ()
    contents = [None if v is None else _of(v, known, depth + 1) for v in read]
    arrays = [c for c in contents if c is not None]
    if not arrays or len(arrays) < len(contents):
        return None
    if kind == "Cast":
        return _cast(arrays[0], node.attributes.get_int("to", 0))
    return arrays[0] if kind in _KEPT else np.asarray(_COMPUTED[kind](*arrays))


def _cast(array: Array, to: int) -> Array | None:
    if array.dtype.kind not in "biuf" or to in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    target = ir.DataType(to).numpy()
    with np.errstate(all="ignore"):
        cast = array.astype(target)
    # What a number becomes that a type does not hold is up to the runtime.
    return cast if target.kind == "b" or abs(float(cast[0]) - float(array[0])) < 1 else None
