"""Recurrent layers, attention, and the operators of onnxruntime's optimiser."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.builder import BLOCKED, MICROSOFT, Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_IN_BLOCKS = ("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput", "ReorderOutput")


@recipe("RNN", "GRU", "LSTM")
def recurrent(b: Builder, op_type: str) -> Value:
    """Forward, backward or both, over a sequence whose time is brought to the front."""
    v = b.data(3)
    units, gates = b.whole(2, 3), _GATES[op_type]
    direction = b.any([None, "forward", "reverse", "bidirectional"])
    d = 2 if direction == "bidirectional" else 1
    w, r = b.weights(d, gates * units, v.shape[2]), b.weights(d, gates * units, units)
    bias = b.weights(d, 2 * gates * units) if b.chance(0.6) else None
    fields = {"direction": direction, "hidden_size": units}
    if op_type == "GRU":
        fields["linear_before_reset"] = b.any([None, 1])
    x = b.emit("Transpose", v, perm=[1, 0, 2], batch=False)
    y, last = b.emit(op_type, x, w, r, bias, outputs=2, batch=False, **fields)
    if b.chance(0.5):
        y = b.emit("Transpose", y, perm=[2, 0, 1, 3], batch=v.batch)
        return b.reshape(y, [v.shape[0], v.shape[1], d * units]) if y.shape[2] == 1 else y
    return b.emit("Transpose", last, perm=[1, 0, 2], batch=v.batch)


@recipe("Attention", "RotaryEmbedding")
def attention(b: Builder, op_type: str) -> Value:
    """Of the standard, in its four-dimensional form and by heads."""
    v = b.data(2)
    heads, t, size = 2, 3, 2
    q = b.emit("MatMul", v, b.weights(v.shape[1], heads * t * size))
    q = b.reshape(q, [v.shape[0], heads, t, size])
    if op_type == "RotaryEmbedding":
        cos, sin = (b.const(f(b.rng.uniform(0, 3, (1, t, size // 2))).astype(b.dtype)) for f in (np.cos, np.sin))
        if b.form == "free":
            places = b.const(np.array([[0, 1, 2]], np.int64))
            del places
            raise Undrawn("places for every sample")
        cos, sin = (b.const(np.repeat(u.array, v.shape[0], 0)) for u in (cos, sin))
        return b.emit(op_type, q, cos, sin, interleaved=b.any([None, 1]))
    k = b.emit("Tanh", q)
    return b.emit(op_type, q, k, b.emit("Neg", q) if b.chance(0.5) else q, is_causal=b.any([None, 1]))


def _bias(b: Builder, v: Value) -> Value:
    return b.weights(v.shape[-1])


@recipe(*(f"{MICROSOFT}:{name}" for name in ("BiasGelu", "FastGelu", "Gelu", "QuickGelu")))
def gelus(b: Builder, op_type: str) -> Value:
    """The optimiser's forms of Gelu."""
    name = op_type.partition(":")[2]
    v = b.data()
    bias = [_bias(b, v)] if name == "BiasGelu" or (name == "FastGelu" and b.chance(0.5)) else []
    return b.emit(name, v, *bias, domain=MICROSOFT)


@recipe(f"{MICROSOFT}:FusedMatMul", f"{MICROSOFT}:TransposeMatMul")
def fused_matmul(b: Builder, op_type: str) -> Value:
    """A product that transposes and scales."""
    v = b.data(b.any([2, 3]))
    w = b.weights(b.whole(2, 4), v.shape[-1])
    return b.emit(op_type.partition(":")[2], v, w, domain=MICROSOFT, transB=1, alpha=b.any([None, 0.5]))


@recipe(f"{MICROSOFT}:FusedGemm", f"{MICROSOFT}:FusedConv")
def fused(b: Builder, op_type: str) -> Value:
    """A layer with its activation."""
    name = op_type.partition(":")[2]
    activation = b.any(["Relu", "Sigmoid", "Tanh"])
    if name == "FusedGemm":
        v = b.data(2)
        return b.emit(name, v, b.weights(v.shape[1], 3), b.weights(3), domain=MICROSOFT, activation=activation)
    v = b.data(4, least=2)
    w = b.weights(2, v.shape[1], 2, 2)
    return b.emit(name, v, w, b.weights(2), domain=MICROSOFT, activation=activation, kernel_shape=[2, 2])


@recipe(f"{MICROSOFT}:SkipLayerNormalization", f"{MICROSOFT}:SkipSimplifiedLayerNormalization")
def skip_normalised(b: Builder, op_type: str) -> Value:
    """A sum and its normalisation in one."""
    v = b.data(3)
    other = b.emit("Tanh", v)
    name, size = op_type.partition(":")[2], v.shape[-1]
    beta = [b.weights(size)] if name == "SkipLayerNormalization" and b.chance(0.7) else []
    return b.emit(name, v, other, b.weights(size), *beta, domain=MICROSOFT, epsilon=0.1)


@recipe("SimplifiedLayerNormalization")
def simplified(b: Builder, op_type: str) -> Value:
    """By the root mean square; onnxruntime has it among the standard's operators."""
    v = b.data(3)
    return b.emit(op_type, v, b.weights(v.shape[-1]), axis=-1, epsilon=0.1, stash_type=1)


@recipe(f"{MICROSOFT}:Attention", f"{MICROSOFT}:MultiHeadAttention")
def fused_attention(b: Builder, op_type: str) -> Value:
    """The optimiser's attention, with its projections or without."""
    v = b.data(2)
    size, steps = 4, 3
    rows = b.emit("MatMul", v, b.weights(v.shape[1], steps * size))
    q = b.reshape(rows, [v.shape[0], steps, size])
    if op_type.endswith(":Attention"):
        weights, bias = b.weights(size, 3 * size), b.weights(3 * size)
        return b.emit("Attention", q, weights, bias, domain=MICROSOFT, num_heads=2, unidirectional=b.any([None, 1]))
    return b.emit("MultiHeadAttention", q, b.emit("Tanh", q), b.emit("Neg", q), domain=MICROSOFT, num_heads=2)


@recipe(f"{MICROSOFT}:MatMulNBits")
def matmul_nbits(b: Builder, op_type: str) -> Value:
    """A product with weights of four bits in blocks."""
    v = b.data(2)
    rows, n, k = b.emit("MatMul", v, b.weights(v.shape[1], 16)), 3, 16
    packed = b.const(b.rng.integers(0, 256, (n, 1, k // 2)).astype(np.uint8))
    scales = b.weights(n, scale=0.2)
    return b.emit("MatMulNBits", rows, packed, scales, domain=MICROSOFT, K=k, N=n, bits=4, block_size=16)


@recipe(
    *(f"{MICROSOFT}:{name}" for name in ("ExpandDims", "GatherND", "GridSample", "Pad", "RotaryEmbedding", "Trilu"))
)
def renamed(b: Builder, op_type: str) -> Value:
    """What the optimiser's domain had before the standard."""
    name = op_type.partition(":")[2]

    def emit(*inputs: Value, **attributes: object) -> Value:
        made: Value = b.emit(name, *inputs, domain=MICROSOFT, **attributes)
        return made

    if name == "GridSample":
        v, rows = b.data(4, least=2), b.data(2)
        grid = b.between(b.emit("MatMul", rows, b.weights(rows.shape[1], 2 * 3 * 2)), 0.9)
        grid = b.reshape(grid, [rows.shape[0], 2, 3, 2])
        return emit(v, grid, mode=b.any(["bilinear", "nearest", "bicubic"]), align_corners=b.any([None, 1]))
    if name == "RotaryEmbedding":
        v, steps, size = b.data(2), 3, 2 * b.whole(1, 2)
        v = b.reshape(b.emit("MatMul", v, b.weights(v.shape[1], steps * 2 * size)), [v.shape[0], steps, 2 * size])
        if b.form == "free":
            raise Undrawn("places for every sample")
        places = b.const(np.tile(np.arange(steps), (v.shape[0], 1)), np.int64)
        angles = b.rng.uniform(0, 3, (steps + 1, size // 2))
        caches = [b.const(f(angles), b.dtype) for f in (np.cos, np.sin)]
        return emit(v, places, *caches, interleaved=b.any([None, 1]))
    v = b.data(3)
    if name == "ExpandDims":
        return emit(v, b.const(np.array(b.any([1, 2, -1]), np.int32)))
    if name == "Trilu":
        return emit(v, b.const(np.array(b.whole(-1, 1), np.int64)), upper=b.any([None, 0]))
    if name == "Pad":
        pads = np.array([0, 1, b.whole(0, 2), 0, 0, 1], np.int64)
        return emit(v, b.const(pads[None] if b.chance(0.5) else pads), b.scalar(0.7))
    turned = b.emit("Transpose", v, perm=[1, 2, 0])
    places = b.rng.integers(0, turned.shape[0], (b.whole(1, 3), 1)).astype(np.int32)
    return b.emit("Transpose", emit(turned, b.const(places)), perm=[2, 0, 1])


@recipe(*(f"{BLOCKED}:{name}" for name in _IN_BLOCKS))
def in_blocks(b: Builder, op_type: str) -> Value:
    """What the optimiser writes for this processor: a convolution into blocks of channels, a layer, and out again."""
    name = op_type.partition(":")[2]
    v = b.data(4, least=2)
    if b.dtype != np.float32:
        raise Undrawn("blocks are of float32")
    channels = v.shape[1]
    if name == "Conv":
        v = b.emit(name, v, b.weights(16, channels, 2, 2), b.weights(16), domain=BLOCKED, kernel_shape=[2, 2])
        channels = b.whole(13, 16)
    else:
        v = b.emit("ReorderInput", v, domain=BLOCKED)
    if name in ("AveragePool", "MaxPool"):
        v = b.emit(name, v, domain=BLOCKED, kernel_shape=[2, 2], pads=[0, 1, 1, 0])
    elif name.startswith("Global"):
        v = b.emit(name, v, domain=BLOCKED)
    return b.emit("ReorderOutput", v, domain=BLOCKED, channels=channels)
