"""The real-valued counterpart of an integer value, and what is known of scales, zero points and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import content_of


@dataclass(frozen=True)
class Twin:
    """The real-valued counterpart of an integer value.

    Attributes
    ----------
    real : ir.Value
        s (q - z), floating-point, of the value's shape.
    scale, zero : ir.Value or None
        s and z; None for plain integers (an accumulator, an image), which stand for themselves.
    axis : int, optional
        The axis of a scale with several entries; None where it is not known any more.
    span : tuple of float, optional
        Two numbers between which q lies, where its type says less.
    loose : ir.Value, optional
        What was rounded to `real`: where a bound is compared with it, it matters on which side of the bound it lies,
        and rounded values often lie on it.
    ends : tuple of ir.Value
        The numbers between which `loose` does not saturate.
    """

    real: ir.Value
    scale: ir.Value | None = None
    zero: ir.Value | None = None
    axis: int | None = 1
    span: tuple[float, float] | None = None
    loose: ir.Value | None = None
    ends: tuple[ir.Value, ...] = ()


def placed(op: Emitter, parameter: ir.Value, axis: int, rank: int) -> ir.Value:
    """Return a scale or a zero point broadcastable to a value of this rank; one with a single entry as it is."""
    if parameter.shape is None or parameter.shape.rank() != 1 or parameter.shape.dims[0] == 1:
        return parameter
    dims = [-1 if i == axis % rank else 1 for i in range(rank)]
    found = content_of(parameter)
    return op.Reshape(parameter, dims) if found is None else op.constant(found.reshape(dims))


def single(scale: ir.Value | None) -> bool:
    """Tell whether a scale has one entry for all, or there is none."""
    return scale is None or (scale.shape is not None and all(d == 1 for d in scale.shape.dims))


def floating(v: ir.Value) -> bool:
    """Tell whether a value is floating-point; one of 8 bits is a quantised one."""
    return v.dtype is not None and v.dtype.is_floating_point() and not v.dtype.name.startswith("FLOAT8")


def in_standard(dtype: ir.DataType, graph: ir.Graph) -> bool:
    """Tell whether the standard's quantisers have a type of integers; those of 4 and 16 bits came with opset 21."""
    return dtype.bitwidth == 8 or dtype == ir.DataType.INT32 or graph.opset_imports.get("", 0) >= 21


def flag(node: ir.Node, name: str) -> bool:
    """Tell whether an attribute is there and not 0."""
    return name in node.attributes and bool(node.attributes[name].as_int())


def code(v: ir.Value) -> int:
    """Return the element type of a value as a Cast names it, float32 where it is not known."""
    return v.dtype.value if v.dtype is not None else ir.DataType.FLOAT.value


def same(a: ir.Value | None, b: ir.Value | None) -> bool:
    """Tell whether two quantisation parameters are equal; a missing zero point is zero."""
    if a is b:
        return True
    first, second = (content_of(v) for v in (a, b))
    if (a is not None and first is None) or (b is not None and second is None):
        return False
    first = np.zeros(()) if first is None else first
    second = np.zeros(()) if second is None else second
    if first.size == second.size == 1:
        return bool(first.item() == second.item())
    return first.shape == second.shape and bool(np.array_equal(first, second))


def known_bounds(q: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int, block: int) -> list[np.ndarray]:
    """Return s (min - z) and s (max - z), broadcastable to q, where scale and zero point are constants."""
    steps, place = content_of(scale), content_of(zero)
    if steps is None or (zero is not None and place is None) or q.dtype is None or q.shape is None:
        return []
    offset = np.zeros(()) if place is None else place.astype(np.float64)
    ends = [(steps.astype(np.float64) * (end - offset)).astype(steps.dtype) for end in range_of(q.dtype)]
    rank = q.shape.rank()
    if block:
        size = q.shape.dims[axis]
        return [np.repeat(e, block, axis).take(range(size), axis) for e in ends] if isinstance(size, int) else []
    if steps.ndim == 1 and steps.size > 1:
        return [e.reshape([-1 if i == axis % rank else 1 for i in range(rank)]) for e in ends]
    return [e.reshape(()) for e in ends]


def range_of(dtype: ir.DataType) -> tuple[float, float]:
    """Return the smallest and largest number of an integer or float8 type."""
    kind = dtype.numpy()
    if np.issubdtype(kind, np.integer):
        info = np.iinfo(kind)
        return float(info.min), float(info.max)
    import ml_dtypes  # comes with onnx_ir; knows int4 and float8

    if "INT" in dtype.name:
        small: Any = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]
        return float(small.min), float(small.max)
    limits: Any = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    return float(limits.min), float(limits.max)
