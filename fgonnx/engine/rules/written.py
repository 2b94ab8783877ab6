"""Which of several writes to one place lasts: what is overwritten has no part in the result, and no gradient.

ONNX leaves open which write wins, so the runtime's own choice counts. Of constant indices that is the last in row-major
order, as in onnxruntime. Where indices are computed, every update writes its number with an operator of the same kind,
and lasts where it reads its own number back.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import Dims

_LITERAL = 1 << 12  # numbers up to which a ramp is a constant in the file

Mask = npt.NDArray[np.bool_]


def lasting(op: Emitter, g: ir.Value, mask: ir.Value | None) -> ir.Value:
    """Return a cotangent of updates without the entries of those that are overwritten."""
    return g if mask is None else op.Where(mask, g, 0.0)


def elements(op: Emitter, data: ir.Value, indices: ir.Value, updates: ir.Value, axis: int = 0) -> ir.Value | None:
    """Return where an update of ScatterElements lasts, in the shape of the indices; None where all of them do."""
    axis %= op.rank(data)
    known = _places(op, indices, op.dims(data)[axis])
    if known is not None:
        # Writes to one place come from one fibre along the axis.
        fibres = np.moveaxis(known, axis, -1)
        number = np.arange(fibres[..., 0].size).reshape(*fibres.shape[:-1], 1)
        mask = _last(np.stack([np.broadcast_to(number, fibres.shape), fibres], -1).reshape(-1, 2))
        return _constant(op, np.moveaxis(mask.reshape(fibres.shape), -1, axis))
    count, rank = op.dims(indices)[axis], op.rank(indices)
    line = _ramp(op, (count,), op.Size(indices))
    if isinstance(count, int):  # the place along the axis tells them apart
        line = op.Reshape(line, [-1 if i == axis else 1 for i in range(rank)])
    else:
        line = op.Reshape(line, op.Shape(indices))
    own = op.Expand(line, op.Shape(indices))
    written = op.ScatterElements(_zeros(op, op.Shape(data)), indices, own, axis=axis)
    return op.Equal(op.GatherElements(written, indices, axis=axis), own)


def slices(op: Emitter, data: ir.Value, indices: ir.Value, updates: ir.Value) -> ir.Value | None:
    """Return where an update of ScatterND lasts, broadcastable to the updates; None where all of them do."""
    depth = op.size(indices, op.rank(indices) - 1)
    behind = list(range(op.rank(indices) - 1, op.rank(updates)))
    known = _places(op, indices, *op.dims(data)[:depth])
    if known is not None:
        mask = _last(known.reshape(-1, depth)).reshape(known.shape[:-1])
        return _constant(op, mask.reshape(*mask.shape, *(1 for _ in behind)))
    # Whole slices are written: their numbers take one entry each.
    shape = op.Slice(op.Shape(indices), [0], [-1], [0])
    own = op.Reshape(_ramp(op, op.dims(indices)[:-1], op.ReduceProd(shape, keepdims=0)), shape)
    into = _zeros(op, op.Slice(op.Shape(data), [0], [depth], [0]))
    lasts = op.Equal(op.GatherND(op.ScatterND(into, indices, own), indices), own)
    return op.Unsqueeze(lasts, behind) if behind else lasts


def cells(op: Emitter, y: ir.Value, indices: ir.Value) -> ir.Value | None:
    """Return where an element of MaxUnpool lasts, in the shape of its flat indices; None where all of them do."""
    if _of_windows_apart(indices):
        return None
    known = _places(op, indices)
    if known is not None:
        return _constant(op, _last(known.reshape(-1)).reshape(known.shape))
    flat = op.Reshape(indices, [-1])
    own = _ramp(op, op.dims(indices), op.Size(indices))
    written = op.ScatterElements(_zeros(op, op.Reshape(op.Size(y), [1])), flat, own, axis=0)
    return op.Reshape(op.Equal(op.GatherElements(written, flat, axis=0), own), op.Shape(indices))


def _of_windows_apart(indices: ir.Value) -> bool:
    """Tell whether indices are those of a max pool whose windows have no cell in common."""
    node = indices.producer()
    if node is None or node.op_type != "MaxPool" or node.domain:
        return False
    kernel = node.attributes.get_ints("kernel_shape")
    steps = node.attributes.get_ints("strides", [1] * len(kernel))
    gaps = node.attributes.get_ints("dilations", [1] * len(kernel))
    return all((k - 1) * d < s for k, s, d in zip(kernel, steps, gaps, strict=True))


def _places(op: Emitter, indices: ir.Value, *sizes: int | ir.SymbolicDim) -> npt.NDArray[np.int64] | None:
    """Return constant indices counted from the start of each axis; None where they are not known."""
    known = op.array(indices)
    if known is None or not known.size:
        return None
    if (known >= 0).all():
        return known.astype(np.int64)
    if not sizes or not all(isinstance(s, int) for s in sizes):
        return None
    return np.where(known < 0, known + np.array(sizes, np.int64), known).astype(np.int64)


def _last(places: npt.NDArray[np.int64]) -> Mask:
    """Return which of some places, one a row, is not named again behind it."""
    mask = np.zeros(len(places), bool)
    mask[len(places) - 1 - np.unique(places[::-1], axis=0, return_index=True)[1]] = True
    return mask


def _constant(op: Emitter, mask: Mask) -> ir.Value | None:
    return None if mask.all() else op.constant(mask)


def _ramp(op: Emitter, dims: Dims, counted: ir.Value) -> ir.Value:
    """Return as many numbers 0, 1, ... as the sizes have entries, int64; `counted` says it where they are not fixed."""
    fixed = [d for d in dims if isinstance(d, int)]
    count = math.prod(fixed)
    if len(fixed) == len(dims) and count <= _LITERAL:
        return op.constant(np.arange(count, dtype=np.int64))
    limit = np.array(count, np.int64) if len(fixed) == len(dims) else counted
    return op.Range(np.array(0, np.int64), limit, np.array(1, np.int64), dtype=ir.DataType.INT64)


def _zeros(op: Emitter, shape: ir.Value) -> ir.Value:
    return op.ConstantOfShape(shape, value=ir.tensor(np.zeros(1, np.int64)))
