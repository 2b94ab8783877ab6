"""Expand com.microsoft operators, which onnxruntime's optimiser and vendors' tools write, into standard ones.

Their definitions: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.normal.expand import attention, blocked, renamed
from fgonnx.engine.normal.expand.build import Builder, expanders
from fgonnx.engine.normal.twin import in_standard

DOMAIN = "com.microsoft"


def _activate(op: Emitter, v: ir.Value, name: str, parameters: Sequence[float]) -> ir.Value:
    """Apply the activation that a fused operator names; parameters in its order."""
    if not name:
        return v
    if name in ("Relu", "Sigmoid", "Tanh", "HardSwish"):
        return op.emit(name, v)
    if name in ("LeakyRelu", "Elu"):
        return op.emit(name, v, alpha=parameters[0])
    if name == "Clip":
        return op.Clip(v, parameters[0], parameters[1])
    if name == "HardSigmoid":
        return op.HardSigmoid(v, alpha=parameters[0], beta=parameters[1])
    raise NotImplementedError(name)


def fused_conv(
    op: Emitter,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    z: ir.Value | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **convolution: Any,
) -> ir.Value:
    """activation(Conv(x, w, b) + z)."""
    y = op.Conv(x, w, b, **convolution)
    return _activate(op, y if z is None else op.Add(y, z), activation, activation_params)


def blocked_conv(op: Emitter, x: ir.Value, w: ir.Value, *rest: ir.Value | None, **options: Any) -> ir.Value:
    """FusedConv, its filters put back into order."""
    filters = op.array(w)
    if filters is None:
        raise NotImplementedError("its filters are not constant")
    ordered = op.constant(blocked.in_order(filters, blocked.block_size()), f"{w.name}::ordered")
    return fused_conv(op, x, ordered, *rest, **options)


def fused_gemm(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    c: ir.Value | None = None,
    *,
    activation: str = "",
    activation_alpha: float = 0.0,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
    **product: Any,
) -> ir.Value:
    """activation(Gemm(a, b, c))."""
    return _activate(op, op.Gemm(a, b, c, **product), activation, (activation_alpha, activation_beta))


def fused_matmul(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> ir.Value:
    """alpha a b, with optional transposition of the last two axes of either, or of the first one behind the batch."""

    def turned(v: ir.Value, batch: int, last: int) -> ir.Value:
        rank = op.rank(v)
        perm = [*range(1, rank - 1), 0, rank - 1] if batch else list(range(rank))
        if last:
            perm[-2:] = perm[:-3:-1]
        return op.Transpose(v, perm=perm) if perm != list(range(rank)) else v

    y = op.MatMul(turned(a, transBatchA, transA), turned(b, transBatchB, transB))
    return y if alpha == 1.0 else op.Mul(y, alpha)


def gelu(op: Emitter, x: ir.Value) -> ir.Value:
    """x Phi(x)."""
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, 0.5**0.5)), 1.0))


def bias_gelu(op: Emitter, x: ir.Value, bias: ir.Value) -> ir.Value:
    """Gelu of x + bias."""
    return gelu(op, op.Add(x, bias))


def fast_gelu(op: Emitter, x: ir.Value, bias: ir.Value | None = None) -> ir.Value:
    """The tanh form of Gelu, of x + bias."""
    x = x if bias is None else op.Add(x, bias)
    inner = op.Mul(x, op.Add(op.Mul(op.Mul(x, x), 0.035677408136300125), 0.7978845608028654))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))


def quick_gelu(op: Emitter, x: ir.Value, *, alpha: float = 1.702) -> ir.Value:
    """x sigmoid(alpha x)."""
    return op.Mul(x, op.Sigmoid(op.Mul(x, alpha)))


def skip_layer_normalization(
    op: Emitter,
    x: ir.Value,
    skip: ir.Value,
    gamma: ir.Value,
    beta: ir.Value | None = None,
    bias: ir.Value | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[ir.Value | None, ...]:
    """LayerNormalization of x + skip + bias; its fourth output is that sum."""
    total = op.Add(x, skip)
    if bias is not None:
        total = op.Add(total, bias)
    return (op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon), None, None, total)


def embedding_layer(
    op: Emitter,
    ids: ir.Value,
    types: ir.Value | None,
    table: ir.Value,
    places: ir.Value,
    kinds: ir.Value | None,
    gamma: ir.Value,
    beta: ir.Value,
    mask: ir.Value | None = None,
    positions: ir.Value | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[ir.Value | None, ...]:
    """LayerNormalization of the sum of word, position and type embeddings; the lengths of the texts; that sum."""
    words = op.Gather(table, ids)
    if positions is None:
        positions = op.constant(np.arange(_static(op.dims(ids)[1]), dtype=np.int64))
    total = op.Add(words, op.Gather(places, positions))
    if kinds is not None and types is not None:
        total = op.Add(total, op.Gather(kinds, types))
    lengths = None if mask is None else op.ReduceSum(mask, [1], keepdims=0)
    return (op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon), lengths, total)


def _static(size: int | ir.SymbolicDim) -> int:
    if not isinstance(size, int):
        raise NotImplementedError("the length of its texts is not fixed")
    return size


def root_mean_square(
    op: Emitter, x: ir.Value, scale: ir.Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> ir.Value:
    """x / sqrt(mean(x^2) + epsilon), scaled (SimplifiedLayerNormalization)."""
    mean = op.ReduceMean(op.Mul(x, x), [axis], keepdims=1)
    return op.Mul(op.Div(x, op.Sqrt(op.Add(mean, epsilon))), scale)


def skip_root_mean_square(
    op: Emitter, x: ir.Value, skip: ir.Value, gamma: ir.Value, bias: ir.Value | None = None, *, epsilon: float = 1e-12
) -> tuple[ir.Value | None, ...]:
    """The same of x + skip + bias; its fourth output is that sum."""
    total = op.Add(x, skip)
    if bias is not None:
        total = op.Add(total, bias)
    return (root_mean_square(op, total, gamma, epsilon=epsilon), None, None, total)


def nhwc_max_pool(op: Emitter, x: ir.Value, **pool: Any) -> ir.Value:
    """MaxPool with channels last."""
    y = op.MaxPool(op.Transpose(x, perm=[0, 3, 1, 2]), **pool)
    return op.Transpose(y, perm=[0, 2, 3, 1])


def dynamic_quantize_matmul(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    b_scale: ir.Value,
    b_zero: ir.Value | None = None,
    bias: ir.Value | None = None,
) -> ir.Value:
    """A quantised by its own range, times quantised b, in floating point."""
    q, scale, zero = op.several("DynamicQuantizeLinear", a, outputs=3)
    return integer_matmul_to_float(op, q, b, scale, b_scale, zero, b_zero, bias)


def integer_matmul_to_float(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    a_scale: ir.Value,
    b_scale: ir.Value,
    a_zero: ir.Value | None = None,
    b_zero: ir.Value | None = None,
    bias: ir.Value | None = None,
) -> ir.Value:
    """MatMulInteger times both scales, plus bias."""
    product = op.Cast(op.MatMulInteger(a, b, a_zero, b_zero), to=ir.DataType.FLOAT.value)
    y = op.Mul(product, op.Mul(a_scale, b_scale))
    return y if bias is None else op.Add(y, bias)


def matmul_of_few_bits(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    scales: ir.Value,
    zeros: ir.Value | None = None,
    g_idx: ir.Value | None = None,
    bias: ir.Value | None = None,
    *,
    K: int,
    N: int,
    bits: int = 4,
    block_size: int,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> ir.Value:
    """a b^T + bias, the rows of b dequantised in blocks of their own scale and zero point."""
    if bits not in (2, 4, 8):
        raise NotImplementedError(f"weights of {bits} bits are not built")
    if weight_prepacked:
        raise NotImplementedError("its weights are packed for one kind of processor")
    if g_idx is not None and zeros is not None:
        raise NotImplementedError("zero points beside an order of its own (g_idx) are not read alike everywhere")
    kind = scales.dtype.value if scales.dtype is not None else ir.DataType.FLOAT.value
    blocks = -(-K // block_size)
    steps = op.Reshape(scales, [N, blocks, 1])
    numbers = op.Cast(op.Reshape(_unpacked(op, b, N, bits), [N, blocks, block_size]), to=kind)
    offset: ir.Value | float = float(2 ** (bits - 1))
    if zeros is not None and zeros.dtype is not None and zeros.dtype.is_floating_point():
        offset = op.Reshape(zeros, [N, blocks, 1])
    elif zeros is not None:
        # those of a row fill whole bytes
        places = op.Slice(_unpacked(op, zeros, N, bits), [0], [blocks], [1])
        offset = op.Cast(op.Reshape(places, [N, blocks, 1]), to=kind)
    if g_idx is not None:
        columns = op.Slice(op.Reshape(numbers, [N, blocks * block_size]), [0], [K], [1])
        rows = op.Mul(op.Sub(columns, offset), op.Gather(op.Squeeze(steps, [2]), g_idx, axis=1))
    else:
        whole = op.Mul(op.Sub(numbers, offset), steps)
        rows = op.Slice(op.Reshape(whole, [N, blocks * block_size]), [0], [K], [1])
    y = op.MatMul(a, op.Transpose(rows, perm=[1, 0]))
    return y if bias is None else op.Add(y, bias)


def _unpacked(op: Emitter, packed: ir.Value, count: int, bits: int) -> ir.Value:
    """Return (rows, numbers) of bytes that hold several numbers each, the lowest bits first."""
    rows = op.Reshape(packed, [count, -1])
    if bits == 8:
        return rows
    most = np.array(2**bits - 1, np.uint8)
    parts = [
        op.BitwiseAnd(op.BitShift(rows, np.array(shift, np.uint8), direction="RIGHT") if shift else rows, most)
        for shift in range(0, 8, bits)
    ]
    stacked = op.Concat(*(op.Unsqueeze(v, [2]) for v in parts), axis=2)
    return op.Reshape(stacked, [count, -1])


def quantize(op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value | None = None, *, axis: int = 1) -> ir.Value:
    """The standard operator of this name; of types that the opset does not have, itself on twins."""
    _require_standard(op, zero)
    return op.QuantizeLinear(x, scale, zero, axis=axis)


def dequantize(op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value | None = None, *, axis: int = 1) -> ir.Value:
    """The standard operator of this name; of types that the opset does not have, itself on twins."""
    _require_standard(op, x)
    return op.DequantizeLinear(x, scale, zero, axis=axis)


def _require_standard(op: Emitter, q: ir.Value | None) -> None:
    if q is not None and q.dtype is not None and not in_standard(q.dtype, op.graph):
        raise NotImplementedError(f"the standard quantises {q.dtype.name.lower()} values from opset 21 on")


BUILDERS: dict[tuple[str, str], Builder] = {
    **attention.BUILDERS,
    **blocked.BUILDERS,
    **renamed.BUILDERS,
    (blocked.DOMAIN, "Conv"): blocked_conv,
    (DOMAIN, "FusedConv"): fused_conv,
    (DOMAIN, "FusedGemm"): fused_gemm,
    (DOMAIN, "FusedMatMul"): fused_matmul,
    (DOMAIN, "TransposeMatMul"): fused_matmul,
    (DOMAIN, "Gelu"): gelu,
    (DOMAIN, "BiasGelu"): bias_gelu,
    (DOMAIN, "FastGelu"): fast_gelu,
    (DOMAIN, "QuickGelu"): quick_gelu,
    (DOMAIN, "EmbedLayerNormalization"): embedding_layer,
    (DOMAIN, "SkipLayerNormalization"): skip_layer_normalization,
    (DOMAIN, "SkipSimplifiedLayerNormalization"): skip_root_mean_square,
    (DOMAIN, "NhwcMaxPool"): nhwc_max_pool,
    (DOMAIN, "DynamicQuantizeMatMul"): dynamic_quantize_matmul,
    (DOMAIN, "MatMulIntegerToFloat"): integer_matmul_to_float,
    (DOMAIN, "MatMulNBits"): matmul_of_few_bits,
    (DOMAIN, "QuantizeLinear"): quantize,
    (DOMAIN, "DequantizeLinear"): dequantize,
    # onnxruntime registers this one in the standard's domain
    ("", "SimplifiedLayerNormalization"): root_mean_square,
}


EXPANDERS = expanders(BUILDERS)
