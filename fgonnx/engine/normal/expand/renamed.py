"""Expand com.microsoft operators that the standard has under the same or another name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.normal.expand.build import Builder
from fgonnx.engine.normal.expand.sampling import grid_sample

DOMAIN = "com.microsoft"


def _known(op: Emitter, v: ir.Value, what: str) -> np.ndarray[Any, Any]:
    found = op.array(v)
    if found is None:
        raise NotImplementedError(f"its {what} not constant")
    return found


def trilu(op: Emitter, x: ir.Value, k: ir.Value | None = None, *, upper: int = 1) -> ir.Value:
    """The standard operator of this name."""
    return op.Trilu(x, k, upper=upper)


def gather_nd(op: Emitter, x: ir.Value, places: ir.Value) -> ir.Value:
    """The standard operator of this name."""
    return op.GatherND(x, op.Cast(places, to=ir.DataType.INT64.value))


def pad(op: Emitter, x: ir.Value, pads: ir.Value, value: ir.Value | None = None, *, mode: str = "constant") -> ir.Value:
    """The standard operator of this name; its pads may have a row of their own."""
    sizes = _known(op, pads, "pads are").reshape(-1).astype(np.int64)
    return op.Pad(x, sizes, None if value is None else op.Reshape(value, np.zeros(0, np.int64)), mode=mode)


def expand_dims(op: Emitter, x: ir.Value, axis: ir.Value) -> ir.Value:
    """Unsqueeze."""
    return op.Unsqueeze(x, _known(op, axis, "axis is").reshape(1).astype(np.int64))


def rotary_embedding(
    op: Emitter,
    x: ir.Value,
    places: ir.Value,
    cosines: ir.Value,
    sines: ir.Value,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
    is_packed_batching: int = 0,
) -> ir.Value:
    """Pairs of entries of every head turned by angles that grow with the place in the sequence."""
    if is_packed_batching or scale != 1.0 or op.rank(places) != 2:
        raise NotImplementedError("packed batches, scales and an offset of all samples are not built")
    half = op.size(cosines, 1)
    by_heads = op.rank(x) == 4  # (B, n, S, h), otherwise (B, S, n h)
    size = op.size(x, 3) if by_heads else op.size(x, 2) // num_heads if num_heads else 2 * half
    turned = 2 * half
    if rotary_embedding_dim not in (0, turned):
        raise NotImplementedError("fewer entries than the caches have are not built")
    v = op.Transpose(x, perm=[0, 2, 1, 3]) if by_heads else op.Reshape(x, [0, 0, -1, size])  # (B, S, n, h)
    rest = None
    if size > turned:
        v, rest = op.several("Split", v, [turned, size - turned], axis=3, outputs=2)
    c, s = (op.Unsqueeze(op.Gather(cache, places, axis=0), [2]) for cache in (cosines, sines))
    if interleaved:
        pairs = op.Reshape(v, [0, 0, 0, half, 2])
        a, b = (op.Squeeze(part, [4]) for part in op.several("Split", pairs, [1, 1], axis=4, outputs=2))
    else:
        a, b = op.several("Split", v, [half, half], axis=3, outputs=2)
    first, second = op.Sub(op.Mul(a, c), op.Mul(b, s)), op.Add(op.Mul(a, s), op.Mul(b, c))
    if interleaved:
        y = op.Reshape(op.Concat(op.Unsqueeze(first, [4]), op.Unsqueeze(second, [4]), axis=4), [0, 0, 0, turned])
    else:
        y = op.Concat(first, second, axis=3)
    if rest is not None:
        y = op.Concat(y, rest, axis=3)
    return op.Transpose(y, perm=[0, 2, 1, 3]) if by_heads else op.Reshape(y, [0, 0, -1])


BUILDERS: dict[tuple[str, str], Builder] = {
    (DOMAIN, "ExpandDims"): expand_dims,
    (DOMAIN, "GatherND"): gather_nd,
    (DOMAIN, "GridSample"): grid_sample,
    (DOMAIN, "Pad"): pad,
    (DOMAIN, "RotaryEmbedding"): rotary_embedding,
    (DOMAIN, "Trilu"): trilu,
}
