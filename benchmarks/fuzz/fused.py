"""What `onnx.reference` has not, or not in float64: operators of onnxruntime's optimiser, attention, samplers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper

from benchmarks.fuzz.builder import Array


def plain(op_type: str, *inputs: Any, domain: str = "", **attributes: Any) -> Array:
    """Compute one operator of the standard on real numbers."""
    from onnx.reference import ReferenceEvaluator

    arrays = {f"i{i}": np.asarray(a, np.float64) for i, a in enumerate(inputs) if a is not None}
    names = [f"i{i}" if a is not None else "" for i, a in enumerate(inputs)]
    node = helper.make_node(op_type, names, ["o"], domain=domain, **{k: a for k, a in attributes.items() if a})
    double = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, double, None) for n in arrays],
        [helper.make_tensor_value_info("o", double, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return np.asarray(ReferenceEvaluator(model).run(None, arrays)[0])


def floating() -> dict[str, Any]:
    """Return the optimiser's operators on floating-point values."""

    def gelu(x: Array) -> Array:
        from math import erf

        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2.0)))

    def fast(x: Array) -> Array:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def activated(y: Array, name: str, parameters: Any = None) -> Array:
        return plain(name, y)

    def matmul(self: Any, a: Array, b: Array, transA: int = 0, transB: int = 0, alpha: float = 1.0, **_: Any) -> Any:
        a = np.swapaxes(a, -1, -2) if transA else a
        b = np.swapaxes(b, -1, -2) if transB else b
        return (alpha * (a @ b),)

    def gemm(self: Any, a: Array, b: Array, c: Any = None, activation: str = "Relu", **fields: Any) -> Any:
        kept = {k: f for k, f in fields.items() if not k.startswith("activation")}
        return (activated(plain("Gemm", a, b, c, **kept), activation),)

    def conv(self: Any, x: Array, w: Array, c: Any = None, z: Any = None, activation: str = "Relu", **f: Any) -> Any:
        kept = {k: a for k, a in f.items() if not k.startswith("activation")}
        y = plain("Conv", x, w, c, **kept)
        return (activated(y if z is None else y + z, activation),)

    def skip(self: Any, x: Array, y: Array, gamma: Array, *rest: Array, epsilon: float = 1e-5) -> Any:
        total = sum(rest[1:], x + y)
        mean, var = total.mean(-1, keepdims=True), total.var(-1, keepdims=True)
        return ((total - mean) / np.sqrt(var + epsilon) * gamma + (rest[0] if rest else 0),)

    def rms(self: Any, x: Array, gamma: Array, epsilon: float = 1e-5, **_: Any) -> Any:
        return (x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * gamma,)

    def skip_rms(self: Any, x: Array, y: Array, gamma: Array, *rest: Array, epsilon: float = 1e-5) -> Any:
        total = sum(rest, x + y)
        return (total / np.sqrt((total**2).mean(-1, keepdims=True) + epsilon) * gamma,)

    def nbits(self: Any, x: Array, packed: Array, s: Array, *_: Any, K: int, N: int, **fields: Any) -> Any:
        q = np.stack([packed & 15, packed >> 4], -1).reshape(N, K).astype(np.float64)
        return (x @ ((q - 8) * s[:, None]).T,)

    def attention(self: Any, x: Array, w: Array, bias: Array, num_heads: int, unidirectional: int = 0, **_: Any) -> Any:
        return (attended(*np.split(x @ w + bias, 3, -1), num_heads, bool(unidirectional)),)

    def rotary(self: Any, x: Array, places: Array, cos: Array, sin: Array, interleaved: int = 0, **_: Any) -> Any:
        half = cos.shape[1]
        parts = x.reshape(*x.shape[:2], -1, 2 * half)
        c, s = cos[places][:, :, None], sin[places][:, :, None]
        a, b = (parts[..., ::2], parts[..., 1::2]) if interleaved else (parts[..., :half], parts[..., half:])
        turned = [a * c - b * s, a * s + b * c]
        y = np.stack(turned, -1).reshape(parts.shape) if interleaved else np.concatenate(turned, -1)
        return (y.reshape(x.shape),)

    def pad(self: Any, x: Array, pads: Array, value: Any = 0.0, **_: Any) -> Any:
        ends = np.reshape(pads, (2, -1))
        return (np.pad(x, list(ends.T), constant_values=float(value)),)

    def swap(self: Any, x: Array, backwards: int = 0) -> Any:
        turned = np.swapaxes(x, 0, 1)
        return (turned[::-1] if backwards else turned,)

    def trilu(self: Any, x: Array, k: Any = 0, upper: int | None = 1) -> Any:
        return ((np.tril if upper == 0 else np.triu)(x, int(k)),)

    return {
        "MatMulNBits": nbits,
        "Attention": attention,
        "MultiHeadAttention": lambda self, q, k, v, num_heads, **_: (attended(q, k, v, num_heads),),
        "RotaryEmbedding": rotary,
        "Pad": pad,
        "Swap": swap,
        "Trilu": trilu,
        "ExpandDims": lambda self, x, axis: (np.expand_dims(x, int(axis)),),
        "GatherND": lambda self, x, places, **_: (x[places[..., 0]],),
        "GridSample": lambda self, x, grid, **fields: (sampled(x, grid, **fields),),
        "SimplifiedLayerNormalization": rms,
        "Gelu": lambda self, x, **_: (gelu(x),),
        "BiasGelu": lambda self, x, b: (gelu(x + b),),
        "FastGelu": lambda self, x, b=0.0: (fast(x + b),),
        "QuickGelu": lambda self, x, alpha=1.702, **_: (x / (1 + np.exp(-(alpha or 1.702) * x)),),
        "FusedMatMul": matmul,
        "TransposeMatMul": matmul,
        "FusedGemm": gemm,
        "FusedConv": conv,
        "SkipLayerNormalization": skip,
        "SkipSimplifiedLayerNormalization": skip_rms,
    }


def attended(q: Array, k: Array, v: Array, heads: int, causal: bool = False) -> Array:
    """Return softmax(q k^T / sqrt(d)) v by heads, of values (N, S, heads d)."""

    def split(x: Array) -> Array:
        return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)

    q, k, v = split(q), split(k), split(v)
    p = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    p = np.where(np.tri(*p.shape[-2:], dtype=bool), p, -np.inf) if causal else p
    p = np.exp(p - p.max(-1, keepdims=True))
    y = (p / p.sum(-1, keepdims=True)) @ v
    return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)


def sampled(
    x: Array,
    grid: Array,
    mode: str | None = None,
    padding_mode: str | None = None,
    align_corners: int | None = None,
    **_: Any,
) -> Array:
    """Return pixels (N, C, H, W) at places (N, H', W', 2) between -1 and 1."""
    mode, padding = (mode or "linear").removeprefix("bi"), padding_mode or "zeros"
    rows = np.arange(len(x))[:, None, None]
    axes = []
    for size, g in ((x.shape[2], grid[..., 1]), (x.shape[3], grid[..., 0])):
        c = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        low = np.floor(c)
        t = c - low
        if mode == "nearest":
            taps = [(np.rint(c), np.ones_like(c))]
        elif mode == "linear":
            taps = [(low, 1 - t), (low + 1, t)]
        else:
            taps = [(low + i, _cubic(np.abs(t - i))) for i in (-1, 0, 1, 2)]
        axes.append([_inside(p, w, size, padding, bool(align_corners)) for p, w in taps])
    total = np.zeros((*grid.shape[:3], x.shape[1]))
    for p, u in axes[0]:
        for q, w in axes[1]:
            total += x[rows, :, p, q] * (u * w)[..., None]
    return np.moveaxis(total, -1, 1)


def _cubic(d: Array, a: float = -0.75) -> Array:
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    return np.where(d <= 1, near, ((d - 5) * d + 8) * d * a - 4 * a)


def _inside(p: Array, w: Array, size: int, padding: str, aligned: bool) -> tuple[Array, Array]:
    if padding == "zeros":
        w = w * ((p >= 0) & (p <= size - 1))
    elif padding == "reflection":
        low, span = (0.0, size - 1.0) if aligned else (-0.5, float(size))
        p = low + span - np.abs(np.abs(p - low) % (2 * span) - span) if span else np.zeros_like(p)
    return np.clip(np.rint(p), 0, size - 1).astype(int), w


def blocked() -> dict[str, Any]:
    """Return the operators on channels in blocks: their values as if channels were not."""
    from fgonnx.engine.normal.expand.blocked import block_size, in_order  # how they lie is the processor's

    def reorder(self: Any, x: Array, **_: Any) -> Any:
        return (np.pad(x, [(0, 0), (0, -x.shape[1] % block_size()), (0, 0), (0, 0)]),)

    def conv(self: Any, x: Array, w: Array, bias: Any = None, **fields: Any) -> Any:
        return (plain("Conv", x, in_order(w, block_size()), bias, **fields),)

    def same(name: str) -> Any:
        return lambda self, x, **fields: (plain(name, x, **fields),)

    pools = {name: same(name) for name in ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")}
    back = {"ReorderOutput": lambda self, x, channels, **_: (x[:, :channels],)}
    return {"ReorderInput": reorder, "Conv": conv, **pools, **back}


def standard_ones() -> dict[str, Any]:
    """Return operators of the standard that `onnx.reference` lacks, or takes one type of operands in."""

    def two(function: Any) -> Any:
        def run(self: Any, *given: Array, **_: Any) -> Any:
            if any(np.asarray(a).dtype.kind == "f" for a in given):
                given = tuple(np.asarray(a, np.float64) for a in given)
            found = given[0]
            for a in given[1:]:
                found = function(found, a)
            return (found,)

        return run

    def gelu(self: Any, x: Array, approximate: str | None = None) -> Any:
        return floating()["FastGelu" if approximate == "tanh" else "Gelu"](self, x)

    def swish(self: Any, x: Array, alpha: float | None = None) -> Any:
        return (x / (1 + np.exp(-(1.0 if alpha is None else alpha) * x)),)

    def lp(self: Any, x: Array, p: int | None = None) -> Any:
        p = p or 2
        return ((np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)

    def lrn(self: Any, x: Array, size: int, alpha: Any = None, beta: Any = None, bias: Any = None, **_: Any) -> Any:
        alpha, beta, bias = (d if a is None else a for a, d in ((alpha, 1e-4), (beta, 0.75), (bias, 1.0)))
        ends = ((size - 1) // 2, size - 1 - (size - 1) // 2)
        squares = np.pad(x**2, [(0, 0), ends] + [(0, 0)] * (x.ndim - 2))
        total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * total) ** beta,)

    def lp_normalised(self: Any, x: Array, axis: int | None = None, p: int | None = None) -> Any:
        p, axis = p or 2, -1 if axis is None else axis
        norm = (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)

    def mean_variance(self: Any, x: Array, axes: Any = None) -> Any:
        axes = (0, 2, 3) if axes is None else tuple(axes)
        return ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9),)

    arithmetic = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "MatMul": np.matmul}
    arithmetic |= {"Max": np.maximum, "Min": np.minimum}
    return {
        **{name: two(f) for name, f in arithmetic.items()},
        "Erf": lambda self, x: (np.vectorize(math.erf, otypes=[np.float64])(x),),  # that of onnx.reference is float32
        "Gelu": gelu,
        "Swish": swish,
        "GlobalLpPool": lp,
        "GlobalMaxPool": lambda self, x, **_: (x.max(tuple(range(2, x.ndim)), keepdims=True),),
        "GatherElements": lambda self, x, i, axis=0, **_: (np.take_along_axis(x, i, axis or 0),),
        "LRN": lrn,
        "LpNormalization": lp_normalised,
        "MeanVarianceNormalization": mean_variance,
        "GridSample": lambda self, x, grid, **fields: (sampled(x, grid, **fields),),
    }
