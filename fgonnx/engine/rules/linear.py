"""Affine maps with weights: Conv, ConvTranspose, Gemm, MatMul, Einsum."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of, shaped
from fgonnx.engine.rules.fast.convolution import Windows, transposed_convolution
from fgonnx.engine.rules.registry import Cotangent, Local, Unsupported, Vjp, linear, rule

_GATHERED_SIZE = 1 << 22  # elements of a weight matrix from which one column is gathered instead


def explicit_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    size_in: Sequence[int],
    size_out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Return begins, then ends, for any auto_pad, from the sizes of input and output.

    SAME pads (out - 1) s + d (k - 1) + 1 - in in total, the odd one at the end (SAME_UPPER) or the beginning.
    """
    rank = len(size_in)
    if auto_pad in ("NOTSET", ""):
        return list(pads) if pads else [0] * (2 * rank)
    if auto_pad == "VALID":
        return [0] * (2 * rank)
    total = [
        max((o - 1) * s + d * (k - 1) + 1 - i, 0)
        for i, o, k, s, d in zip(size_in, size_out, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return [*small, *large] if auto_pad == "SAME_UPPER" else [*large, *small]


def spatial(op: Emitter, value: ir.Value) -> list[int]:
    """Return the spatial sizes of an (N, C, *spatial) value."""
    return [op.size(value, i) for i in range(2, op.rank(value))]


def per_channel(op: Emitter, vector: ir.Value, rank: int) -> ir.Value:
    """Reshape a vector over channels to (C, 1, ...), which broadcasts to (N, C, *spatial)."""
    if rank == 2:
        return vector
    ones = [1] * (rank - 2)
    return shaped(op.Reshape(vector, [-1, *ones]), [vector.shape[0] if vector.shape is not None else None, *ones])


@rule("Conv", family="linear", note="c = bias; minus the product where input and weights are active")
def conv(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Local:
    rank = op.rank(x) - 2
    kernel = [op.size(w, 2 + i) for i in range(rank)]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    size_in, size_out = spatial(op, x), spatial(op, y)
    begins_ends = explicit_pads(auto_pad, pads, size_in, size_out, kernel, strides, dilations)

    def vjp(g: ir.Value) -> list[Cotangent]:
        gx = gw = gb = None
        at = Windows(size_in, size_out, kernel, strides, dilations, begins_ends[:rank])
        if op.is_active(x):
            gx = transposed_convolution(op, g, w, at, group, x)
        if op.is_active(w):
            gw = _weight_gradient(op, g, x, w, at, group)
        if op.is_active(b):
            gb = op.ReduceSum(g, [0, *range(2, rank + 2)], keepdims=0)
        return [gx, gw, gb]

    bias = None if b is None else per_channel(op, b, rank + 2)
    return _affine(op, vjp, y, op.is_active(x) + op.is_active(w), bias, varies=op.is_active(b))


def _affine(op: Emitter, vjp: Vjp, y: ir.Value, degree: int, bias: ir.Value | None, *, varies: bool) -> Local:
    """Return the linearisation of `product + bias`: 0, 1 or 2 factors are active, and the bias where it varies."""
    constant = None if varies else bias
    if degree == 1:
        return Local(vjp, constant)
    # c = (1 - degree) product, and the bias if it is constant
    product = y if bias is None else op.Sub(y, bias)
    if degree == 0:
        return Local(vjp, product)
    return Local(vjp, op.Neg(product) if constant is None else op.Sub(constant, product), "implicit")


def _weight_gradient(op: Emitter, g: ir.Value, x: ir.Value, w: ir.Value, at: Windows, group: int) -> ir.Value:
    # gw[m, c, k] = sum_{n, p} g[n, m, p] x[n, c, s p + d k - begin]: a convolution with batch and channel swapped, the
    # strides as dilations and the dilations as strides. Its end padding covers the last kernel position exactly. Groups
    # are side by side in the swapped batch: (N, G C, ...) -> (C, G N, ...) against (M, N, ...) in as many groups.
    rank = len(at.size_in)
    ends = [
        (o - 1) * s + reach + 1 - i - b
        for i, o, s, reach, b in zip(at.size_in, at.size_out, at.strides, at.reach, at.begins, strict=True)
    ]
    swap = [1, 0, *range(2, rank + 2)]
    if group == 1:
        source = op.Transpose(x, perm=swap)
    else:
        channels = op.size(w, 1)
        parts = op.Transpose(op.Reshape(x, [-1, group, channels, *at.size_in]), perm=[2, 1, 0, *range(3, rank + 3)])
        source = op.Reshape(parts, [channels, -1, *at.size_in])
    if any(e < 0 for e in ends):  # rows that no window reached
        starts, stops = [0] * rank, [i + min(e, 0) for i, e in zip(at.size_in, ends, strict=True)]
        source = op.Slice(source, starts, stops, list(range(2, rank + 2)))
    result = op.Conv(
        source,
        op.Transpose(g, perm=swap),
        strides=list(at.dilations),
        dilations=list(at.strides),
        group=group,
        pads=[*at.begins, *(max(e, 0) for e in ends)],
    )
    return op.Transpose(result, perm=swap)


@rule("ConvTranspose", family="linear", note="c = bias; minus the product where input and weights are active")
def conv_transpose(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Local:
    rank = op.rank(x) - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    extra = output_padding or [0] * rank
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        raise Unsupported("its output_padding is not below the stride")
    size_in, size_out = spatial(op, x), spatial(op, y)
    reach = [d * (op.size(w, 2 + a) - 1) for a, d in enumerate(dilations)]
    full = [s * (i - 1) + e + r + 1 for i, s, e, r in zip(size_in, strides, extra, reach, strict=True)]
    if auto_pad in ("NOTSET", "VALID", "") and not output_shape:
        begins_ends = list(pads) if pads and auto_pad != "VALID" else [0] * (2 * rank)
    else:
        # The schema: the total follows from the output size; SAME_UPPER puts the smaller half first, else the larger.
        total = [max(f - o, 0) for f, o in zip(full, size_out, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        begins_ends = [*small, *large] if auto_pad == "SAME_UPPER" else [*large, *small]

    def vjp(g: ir.Value) -> list[Cotangent]:
        # The transpose of a transposed convolution is the convolution with the same weights and pads. Rows added at the
        # end (output_padding, below the stride) are reached by no window and leave its output size as it is.
        gx = gw = gb = None
        if op.is_active(x):
            gx = op.Conv(g, w, strides=strides, dilations=dilations, group=group, pads=begins_ends)
        if op.is_active(w):  # that convolution takes g to the cotangent of x, so x stands for its cotangent
            kernel = [op.size(w, 2 + i) for i in range(rank)]
            at = Windows(size_out, size_in, kernel, strides, dilations, begins_ends[:rank])
            gw = _weight_gradient(op, x, g, w, at, group)
        if op.is_active(b):
            gb = op.ReduceSum(g, [0, *range(2, rank + 2)], keepdims=0)
        return [gx, gw, gb]

    bias = None if b is None else per_channel(op, b, rank + 2)
    return _affine(op, vjp, y, op.is_active(x) + op.is_active(w), bias, varies=op.is_active(b))


@rule("Gemm", family="linear", note="c = beta C; -alpha A B more where both factors are active")
def gemm(
    op: Emitter,
    y: ir.Value,
    a: ir.Value,
    b: ir.Value,
    c: ir.Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        ga = gb = gc = None
        if op.is_active(a) and not transA and (row := _row_of(op, g, b, transposed=bool(transB))) is not None:
            ga = row if alpha == 1.0 else op.Mul(row, alpha)
        elif op.is_active(a) and not transA and _is_heavy(b):
            ga = op.Transpose(op.Gemm(b, g, alpha=alpha, transA=transB, transB=1), perm=[1, 0])
        elif op.is_active(a):  # y = alpha A' B' with A' (M, K), B' (K, N): gA' = alpha g B'^T
            ga = (
                op.Gemm(g, b, alpha=alpha, transB=1 - transB)
                if not transA
                else op.Gemm(b, g, alpha=alpha, transA=transB, transB=1)
            )
        if op.is_active(b):
            gb = (
                op.Gemm(a, g, alpha=alpha, transA=1 - transA)
                if not transB
                else op.Gemm(g, a, alpha=alpha, transA=1, transB=transA)
            )
        if c is not None and op.is_active(c):
            gc = op.unbroadcast(g if beta == 1.0 else op.Mul(g, beta), y, c)
        return [ga, gb, gc]

    bias = op.Mul(c, beta) if c is not None and beta != 1.0 else c
    return _affine(op, vjp, y, op.is_active(a) + op.is_active(b), bias, varies=op.is_active(c))


def _is_heavy(w: ir.Value) -> bool:
    """Tell whether a matrix is so large that reading it is all that a product with it costs.

    onnxruntime keeps a second, packed copy of a constant right factor, but none of a left one.
    """
    return w.const_value is not None and w.const_value.size >= _GATHERED_SIZE


def _row_of(op: Emitter, g: ir.Value, w: ir.Value, *, transposed: bool) -> ir.Value | None:
    """Return `g W^T`, or `g W` with W transposed, where g picks one entry per sample: a column or row of the matrix."""
    entry = op.entry(g)
    if entry is None or entry.values is not None or op.rank(g) != 2 or op.rank(w) != 2:
        return None
    if transposed:
        return op.Gather(w, entry.index, axis=0)
    return op.Transpose(op.Gather(w, entry.index, axis=1), perm=[1, 0])


def transpose_last(op: Emitter, v: ir.Value) -> ir.Value:
    """Swap the last two axes."""
    rank = op.rank(v)
    return op.Transpose(v, perm=[*range(rank - 2), rank - 1, rank - 2])


@rule("MatMul", family="linear", note="c = 0 with one active factor, -y with two")
def matmul(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> Local:
    def vjp(g: ir.Value) -> list[Cotangent]:
        # 1-D factors are a row (left) or a column (right); the product lacks that axis.
        row, column = op.rank(a) == 1, op.rank(b) == 1
        g2 = g
        if column:
            g2 = op.Unsqueeze(g2, [-1])
        if row:
            g2 = op.Unsqueeze(g2, [-2])
        ga = gb = None
        picked = _row_of(op, g, b, transposed=False) if op.rank(a) == 2 else None
        if op.is_active(a) and picked is not None:
            ga = picked
        elif op.is_active(a):
            right = op.Unsqueeze(b, [0]) if column else transpose_last(op, b)
            ga = _sum_batch(op, op.MatMul(g2, right), y, a, row, column)
        if op.is_active(b):
            left = op.Unsqueeze(a, [-1]) if row else transpose_last(op, a)
            gb = _sum_batch(op, op.MatMul(left, g2), y, b, row, column)
        return [ga, gb]

    both = op.is_active(a) and op.is_active(b)
    return Local(vjp, op.Neg(y) if both else None, "implicit")


def _sum_batch(op: Emitter, g: ir.Value, y: ir.Value, primal: ir.Value, row: bool, column: bool) -> ir.Value:
    """Sum the cotangent of a factor over the leading axes along which the factor was broadcast."""
    batch: list[Any] = list(op.dims(y))[: op.rank(y) - (not row) - (not column)]
    own: list[Any] = list(op.dims(primal))[:-2]
    lead = len(batch) - len(own)
    axes = list(range(lead)) + [lead + i for i, d in enumerate(own) if d == 1 and batch[lead + i] != 1]
    if axes:
        g = op.ReduceSum(g, axes, keepdims=1)
    return op.reshape_like(g, primal) if lead or op.rank(primal) == 1 else g


@rule("Einsum", since=12, family="linear", note="c = 0 with one active factor, (1 - k) y with k")
def einsum(op: Emitter, y: ir.Value, *terms: ir.Value, equation: str) -> Local:
    left, right = _letters(equation, [op.rank(v) for v in terms])
    if any(len(set(letters)) < len(letters) for letters in left):
        raise Unsupported("its equation takes a diagonal")
    sizes = dict(zip(right, op.dims(y), strict=True))

    def vjp(g: ir.Value) -> list[Cotangent]:
        return [backward(g, i) if op.is_active(v) else None for i, v in enumerate(terms)]

    def backward(g: ir.Value, i: int) -> ir.Value:
        # What enters of the result and the other terms is contracted to the letters of this one. A letter that they
        # lack was summed over alone, one that has size 1 here was broadcast: both are left out and put back.
        others = [letters for j, letters in enumerate(left) if j != i]
        known = set(right).union(*others)
        kept = [c for c, d in zip(left[i], op.dims(terms[i]), strict=True) if c in known and d == sizes.get(c, d)]
        contracted = op.Einsum(
            g, *(v for j, v in enumerate(terms) if j != i), equation=f"{','.join([right, *others])}->{''.join(kept)}"
        )
        lost = [a for a, c in enumerate(left[i]) if c not in kept]
        return op.Expand(op.Unsqueeze(contracted, lost), op.Shape(terms[i])) if lost else contracted

    degree = sum(op.is_active(v) for v in terms)
    return Local(vjp, None if degree == 1 else op.Mul(y, 1.0 - degree), "implicit")


def _letters(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return the letters of every term and of the result, with letters of its own for an ellipsis."""
    sides = equation.replace(" ", "").split("->")
    terms = sides[0].split(",")
    free = [c for c in string.ascii_letters if c not in equation]
    counts = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    most = max([n for t, n in zip(terms, counts, strict=True) if "..." in t], default=0)
    left = [t.replace("...", "".join(free[most - n : most])) for t, n in zip(terms, counts, strict=True)]
    if len(sides) == 2:
        return left, sides[1].replace("...", "".join(free[:most]))
    named = "".join(t.replace("...", "") for t in terms)
    return left, "".join(free[:most]) + "".join(sorted(c for c in set(named) if named.count(c) == 1))


@linear("AffineGrid", since=20)
def affine_grid(op: Emitter, y: ir.Value, theta: ir.Value, size: ir.Value, *, align_corners: int = 0) -> Vjp:
    # y = base theta^T, base being the places (x, y, ..., 1) of all pixels: what the runtime itself makes of unit
    # matrices, folded when the session loads. The standard's function body squeezes a batch of one away.
    sizes = [op.size(y, 1 + i) for i in range(op.rank(y) - 2)]
    count = len(sizes) + 1
    units = np.zeros((count, len(sizes), count), dtype_of(y).numpy())
    units[:, 0, :] = np.eye(count)

    def vjp(g: ir.Value) -> ir.Value:
        places = op.AffineGrid(op.constant(units), [count, 1, *sizes], align_corners=align_corners)
        base = op.Reshape(op.Slice(places, [0], [1], [-1]), [count, -1])
        flat = op.Reshape(g, [-1, math.prod(sizes), len(sizes)])
        return op.Transpose(op.MatMul(base, flat), perm=[0, 2, 1])

    return vjp
