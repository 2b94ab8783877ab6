"""Attention that torch offers as one function, written out, so that its parts can be given other backward passes."""

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **named: Any
) -> Tensor:
    """Attend to k and v."""
    scale = named.get("scale") or q.shape[-1] ** -0.5
    scores = q @ k.transpose(-2, -1) * scale
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ v


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int, *given: Any, **named: Any
) -> tuple[Tensor, None]:
    """Attend with the module `torch.nn.MultiheadAttention`, tokens first, to the query itself."""
    weight, bias, _, _, _, _, out_weight, out_bias = given[:8]
    tokens, batch, _ = query.shape
    q, k, v = F.linear(query, weight, bias).chunk(3, -1)
    q, k, v = (u.reshape(tokens, batch * num_heads, embed_dim // num_heads).transpose(0, 1) for u in (q, k, v))
    mixed = scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(tokens, batch, embed_dim)
    return F.linear(mixed, out_weight, out_bias), None


WRITTEN_OUT = {f.__name__: f for f in (scaled_dot_product_attention, multi_head_attention_forward)}
