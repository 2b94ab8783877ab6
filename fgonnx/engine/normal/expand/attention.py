"""Expand attention as onnxruntime's optimiser and quantiser write it: Attention, MultiHeadAttention and QAttention.

Their definitions: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. B samples, S queries, L
keys, P of them from the past, n heads of size h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.probe import batch_factor
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.normal.expand.build import Builder

DOMAIN = "com.microsoft"

_ROTARY = "rotary positions are not built"
_FILTER = -10000.0


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see.

    Attributes
    ----------
    keep : ir.Value or None
        The operator's mask, in one of its forms.
    samples : int or ir.SymbolicDim
        B.
    causal : bool
        Whether a query sees no later key.
    fill : float
        What is added to the scores of the others.
    bias : ir.Value or None
        What is added to all scores, broadcastable to (B, n, S, L).
    """

    keep: ir.Value | None
    samples: int | ir.SymbolicDim
    causal: bool
    fill: float
    bias: ir.Value | None = None


def _heads(op: Emitter, v: ir.Value, count: int) -> ir.Value:
    """Turn (B, S, n h) into (B, n, S, h)."""
    return op.Transpose(op.Reshape(v, [0, 0, count, -1]), perm=[0, 2, 1, 3])


def _attend(
    op: Emitter, q: ir.Value, k: ir.Value, v: ir.Value, sizes: tuple[int, int], scale: float, mask: Mask
) -> ir.Value:
    """softmax(scale q k^T + mask) v as (B, S, n h), of queries, keys and values by heads; sizes are S and L."""
    queries, keys = sizes
    scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), scale)
    for part in (mask.bias, _kept(op, mask, keys, dtype_of(scores)), _causal(mask, queries, keys, dtype_of(scores))):
        if part is not None:
            scores = op.Add(scores, part)
    context = op.MatMul(op.Softmax(scores, axis=-1), v)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, -1])


def _least(kind: ir.DataType) -> float:
    """Return the smallest finite number of a type: infinity would make a rounding error of infinity less infinity."""
    return float(np.finfo(np.float16 if kind == ir.DataType.FLOAT16 else np.float32).min)


def _causal(mask: Mask, queries: int, keys: int, kind: ir.DataType) -> npt.NDArray[np.float32] | None:
    if not mask.causal:
        return None
    later = np.arange(keys)[None, :] > np.arange(queries)[:, None] + (keys - queries)
    return np.where(later, _least(kind), 0.0).astype(np.float32)


def _kept(op: Emitter, mask: Mask, keys: int, kind: ir.DataType) -> ir.Value | None:
    """Return what is added for the keys that are not seen: (B, 1, 1 or S, L)."""
    keep = mask.keep
    if keep is None:
        return None
    rank = op.rank(keep)
    if rank == 1:
        seen = _by_length(op, keep, mask.samples, keys)
    elif rank in (2, 3):
        seen = op.Unsqueeze(op.Greater(keep, 0), [1, 2] if rank == 2 else [1])
    else:
        raise NotImplementedError(f"a mask of {rank} axes is not built")
    return op.Where(seen, np.zeros((), kind.numpy()), np.full((), max(mask.fill, _least(kind)), kind.numpy()))


def _by_length(op: Emitter, lengths: ir.Value, samples: int | ir.SymbolicDim, keys: int) -> ir.Value:
    """Return which keys lie before the ends of (B,), or also from the starts that follow them in (2 B,) on."""
    parts = _count(op.dims(lengths)[0]) / _count(samples)
    if parts not in (1, 2):
        raise NotImplementedError("a mask of packed sequences is not built")
    place = op.constant(np.arange(keys, dtype=dtype_of(lengths).numpy()).reshape(1, 1, 1, keys))
    column = op.Reshape(lengths, [int(parts), -1, 1, 1, 1])
    end = op.Gather(column, np.array(0, np.int64), axis=0)
    seen = op.Less(place, end)
    if parts == 1:
        return seen
    return op.And(seen, op.GreaterOrEqual(place, op.Gather(column, np.array(1, np.int64), axis=0)))


def _count(dim: int | ir.SymbolicDim) -> int:
    """Return a size, or of how many samples' entries it is one."""
    return dim if isinstance(dim, int) else batch_factor(dim)


def _with_past(op: Emitter, past: ir.Value | None, new: ir.Value) -> ir.Value:
    return new if past is None else op.Concat(past, new, axis=2)


def _scale(scale: float | None, size: int) -> float:
    return float(scale) if scale else float(size) ** -0.5


def _self_attention(
    op: Emitter,
    projected: ir.Value,
    sizes: Sequence[int],
    past: ir.Value | None,
    shape: tuple[int, int],
    scale: float | None,
    mask: Mask,
) -> tuple[ir.Value, ir.Value | None]:
    """Attend, given queries, keys and values side by side; shape holds n and S. Returns the present, too."""
    count, queries = shape
    q, k, v = (_heads(op, part, count) for part in op.several("Split", projected, list(sizes), axis=-1, outputs=3))
    before = 0
    if past is not None:  # (2, B, n, P, h)
        before = op.size(past, 3)
        old = [op.Gather(past, np.array(i, np.int64), axis=0) for i in (0, 1)]
        k, v = _with_past(op, old[0], k), _with_past(op, old[1], v)
    y = _attend(op, q, k, v, (queries, queries + before), _scale(scale, sizes[0] // count), mask)
    if sizes[1] != sizes[2]:  # the present has no such form
        return y, None
    return y, op.Concat(op.Unsqueeze(k, [0]), op.Unsqueeze(v, [0]), axis=0)


def attention(
    op: Emitter,
    x: ir.Value,
    weights: ir.Value,
    bias: ir.Value | None = None,
    mask_index: ir.Value | None = None,
    past: ir.Value | None = None,
    attention_bias: ir.Value | None = None,
    past_sequence_length: ir.Value | None = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    qkv_hidden_sizes: Sequence[int] = (),
    scale: float | None = None,
    mask_filter_value: float = _FILTER,
    do_rotary: int = 0,
    rotary_embedding_dim: int = 0,
    past_present_share_buffer: int = 0,
) -> tuple[ir.Value | None, ...]:
    """Self-attention: x W + b cut into queries, keys and values, softmax(scale q k^T + mask) v, heads side by side."""
    if do_rotary:
        raise NotImplementedError(_ROTARY)
    if past_present_share_buffer or past_sequence_length is not None:
        raise NotImplementedError("a past that shares its memory with the present is not built")
    projected = op.MatMul(x, weights)
    if bias is not None:
        projected = op.Add(projected, bias)
    sizes = list(qkv_hidden_sizes) or [op.size(weights, 1) // 3] * 3
    mask = Mask(mask_index, op.dims(x)[0], bool(unidirectional), mask_filter_value, attention_bias)
    return _self_attention(op, projected, sizes, past, (num_heads, op.size(x, 1)), scale, mask)


def quantised_attention(
    op: Emitter,
    x: ir.Value,
    weights: ir.Value,
    bias: ir.Value,
    x_scale: ir.Value,
    w_scale: ir.Value,
    mask_index: ir.Value | None = None,
    x_zero: ir.Value | None = None,
    w_zero: ir.Value | None = None,
    past: ir.Value | None = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    scale: float | None = None,
    mask_filter_value: float = _FILTER,
    do_rotary: int = 0,
    past_present_share_buffer: int = 0,
) -> tuple[ir.Value | None, ...]:
    """Attention of a quantised x and quantised weights, in floating point from their product on."""
    if do_rotary:
        raise NotImplementedError(_ROTARY)
    if past_present_share_buffer:
        raise NotImplementedError("a past that shares its memory with the present is not built")
    product = op.Cast(op.MatMulInteger(x, weights, x_zero, w_zero), to=ir.DataType.FLOAT.value)
    projected = op.Add(op.Mul(product, op.Mul(x_scale, w_scale)), bias)
    mask = Mask(mask_index, op.dims(x)[0], bool(unidirectional), mask_filter_value)
    sizes = [op.size(weights, 1) // 3] * 3
    return _self_attention(op, projected, sizes, past, (num_heads, op.size(x, 1)), scale, mask)


def multi_head_attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value | None = None,
    value: ir.Value | None = None,
    bias: ir.Value | None = None,
    key_padding_mask: ir.Value | None = None,
    attention_bias: ir.Value | None = None,
    past_key: ir.Value | None = None,
    past_value: ir.Value | None = None,
    past_sequence_length: ir.Value | None = None,
    cache_indirection: ir.Value | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = _FILTER,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[ir.Value | None, ...]:
    """softmax(scale q k^T + mask) v of queries, keys and values given, with a bias of all three; heads side by side."""
    if key is None or value is None:
        raise NotImplementedError("queries, keys and values in one tensor are not built")
    if past_sequence_length is not None or cache_indirection is not None:
        raise NotImplementedError("a past that shares its memory with the present is not built")
    if op.rank(query) != 3 or op.rank(key) != op.rank(value):
        raise NotImplementedError("keys and values in one tensor are not built")
    hidden, queries, samples = op.size(query, 2), op.size(query, 1), op.dims(query)[0]
    by_heads = op.rank(key) == 4  # (B, n, L, h)
    keys = op.size(key, 2 if by_heads else 1)
    if bias is not None:
        if by_heads:
            raise NotImplementedError("a bias beside keys that are cut into heads is not built")
        sizes = [hidden, op.size(key, 2), op.size(value, 2)]
        parts = op.several("Split", bias, sizes, axis=0, outputs=3)
        query, key, value = (op.Add(v, b) for v, b in zip((query, key, value), parts, strict=True))
    q = _heads(op, query, num_heads)
    k, v = (each if by_heads else _heads(op, each, num_heads) for each in (key, value))
    if past_key is not None:
        k, v = _with_past(op, past_key, k), _with_past(op, past_value, v)
        keys += op.size(past_key, 2)
    mask = Mask(key_padding_mask, samples, bool(unidirectional), mask_filter_value, attention_bias)
    y = _attend(op, q, k, v, (queries, keys), _scale(scale, hidden // num_heads), mask)
    return y, k, v, None


BUILDERS: dict[tuple[str, str], Builder] = {
    (DOMAIN, "Attention"): attention,
    (DOMAIN, "MultiHeadAttention"): multi_head_attention,
    (DOMAIN, "QAttention"): quantised_attention,
}
