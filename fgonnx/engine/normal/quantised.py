"""Quantised graphs in real numbers: every int8 value gets a floating-point twin, the number that it represents.

A value q with scale s and zero point z represents r = s (q - z). Where an operator rounds to q, its real-valued
counterpart is also computed, from the twins of its inputs, and a StraightThrough node ties the two: its value is r,
exactly what the model computes, its gradient goes to the real-valued result inside the representable range, and its
intercept is the rounding and saturation error. Operators that only move elements are applied to the twin too. The
integer nodes are kept and compute the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import content_of, dims_of, optional, required, shaped
from fgonnx.engine.normal.tie import DOMAIN, Twins, dependent_nodes

PREFIX = "dequantised/"
"""Prefix of the names of twins."""

_MICROSOFT = "com.microsoft"

MOVES = {
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}


@dataclass(frozen=True)
class Twin:
    """The real-valued counterpart of an integer value.

    Attributes
    ----------
    real : ir.Value
        s (q - z), floating-point, of the value's shape.
    scale, zero : ir.Value or None
        s and z; None for plain integers (an accumulator, an image), which represent themselves.
    """

    real: ir.Value
    scale: ir.Value | None = None
    zero: ir.Value | None = None


def is_quantised(graph: ir.Graph) -> bool:
    """Tell whether a graph computes with quantised activations."""
    return any(_family(n) is not None or n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for n in graph)


def dequantise(model: ir.Model, x: ir.Value) -> Twins:
    """Add the twins to a graph.

    Requires: exact shapes and types. Ensures: floating-point values on every path from the explained input to outputs.

    Parameters
    ----------
    model : ir.Model
        The graph; it is modified.
    x : ir.Value
        The explained input; an integer one is explained in its own units (grey levels).
    """
    graph = model.graph
    own, nodes = set(graph), dependent_nodes(graph, x)
    writer = _Writer(graph, x)
    found = writer.written
    if x.dtype is not None and not x.dtype.is_floating_point():
        found.x = shaped(writer.op.Cast(x, to=ir.DataType.FLOAT.value), x)
        writer.twins[x] = Twin(found.x)
    for node in nodes:
        writer.visit(node)
    graph.sort()
    found.outputs = {v: t.real for v, t in writer.twins.items() if v.is_graph_output()}
    found.complete(graph, own)
    return found


class _Writer:
    """Walks a graph forward and writes twins; nodes are appended and sorted afterwards."""

    def __init__(self, graph: ir.Graph, x: ir.Value) -> None:
        self.twins: dict[ir.Value, Twin] = {}
        self.written = Twins(x)
        self.op = Emitter(graph, prefix=PREFIX)

    def visit(self, node: ir.Node) -> None:
        """Write the twins of a node's outputs if it computes with quantised values."""
        family = _family(node)
        if node.op_type == "QuantizeLinear":
            self._round(node, self._float(required(node, 0)), optional(node, 1), optional(node, 2))
        elif node.op_type == "DynamicQuantizeLinear":
            self._round(node, self._float(required(node, 0)), node.outputs[1], node.outputs[2], saturates=False)
        elif node.op_type == "DequantizeLinear" and node.inputs[0] in self.twins:
            seen = self._in_scale(node.inputs[0], optional(node, 1), optional(node, 2))
            node.outputs[0].replace_all_uses_with(seen, replace_graph_outputs=True)
            self._keep_output_name(node.outputs[0], seen)
        elif node.op_type == "Cast" and node.inputs[0] in self.twins and _floating(node.outputs[0]):
            twin = self.twins[node.inputs[0]].real
            cast = shaped(self.op.Cast(twin, to=node.attributes["to"].as_int()), node.outputs[0])
            node.outputs[0].replace_all_uses_with(cast, replace_graph_outputs=True)
            self._keep_output_name(node.outputs[0], cast)
        elif family is not None:
            family(self, node)
        elif node.op_type in MOVES and not _floating(node.outputs[0]) and any(v in self.twins for v in node.inputs):
            self._move(node)

    def _keep_output_name(self, old: ir.Value, new: ir.Value) -> None:
        if new.is_graph_output() and old.name:
            old.name, new.name = f"{old.name}::integer", old.name

    def _float(self, v: ir.Value) -> ir.Value:
        return self.twins[v].real if v in self.twins else v

    def _in_scale(self, v: ir.Value, scale: ir.Value | None, zero: ir.Value | None, *, axis: int = 1) -> ir.Value:
        """Return s' (q - z'), a value in a consumer's scale, from its twin or, for a constant, by DequantizeLinear."""
        if v not in self.twins:
            return v if _floating(v) else shaped(self.op.DequantizeLinear(v, scale, zero, axis=axis), v)
        twin = self.twins[v]
        if scale is None or (_same(twin.scale, scale) and _same(twin.zero, zero)):
            return twin.real
        # r = s (q - z): s' (q - z') = (s' / s) r + s' (z - z')
        op = self.op
        real = twin.real
        own = op.Cast(twin.zero, to=_code(real)) if twin.zero is not None else np.zeros((), np.float32)
        other = op.Cast(zero, to=_code(real)) if zero is not None else np.zeros((), np.float32)
        ratio = scale if twin.scale is None else op.Div(scale, twin.scale)
        shift = op.Sub(own, other) if twin.zero is not None or zero is not None else 0.0
        product = shaped(op.Mul(real, ratio), v)
        return shaped(op.Add(product, op.Mul(scale, shift)), v)

    def _round(
        self, node: ir.Node, x: ir.Value, scale: ir.Value | None, zero: ir.Value | None, *, saturates: bool = True
    ) -> None:
        """Tie a node's integer output to the real-valued result `x` it rounds."""
        q = node.outputs[0]
        axis = (
            node.attributes["axis"].as_int() if node.op_type == "QuantizeLinear" and "axis" in node.attributes else None
        )
        block = node.attributes["block_size"].as_int() if "block_size" in node.attributes else None
        op = self.op

        def real_of(v: ir.Value) -> ir.Value:
            return shaped(op.DequantizeLinear(v, scale, zero, axis=axis, block_size=block or None), q)

        real = real_of(q)
        bounds: list[ir.Value] = []
        if saturates and q.dtype is not None:
            known = _known_bounds(q, scale, zero, 1 if axis is None else axis, block or 0)
            bounds = [op.constant(b) for b in known]
            if not known:
                ends = [op.constant(np.array(bound, q.dtype.numpy())) for bound in _range(q.dtype)]
                plain = scale is not None and scale.shape is not None and scale.shape.rank() == 0
                bounds = [real_of(end if plain else op.Expand(end, op.Shape(q))) for end in ends]
        tied = op.emit("StraightThrough", x, real, *bounds, domain=DOMAIN, name=f"{q.name}::real")
        self.written.stand_for(node, tied)
        self.twins[q] = Twin(shaped(tied, q), scale, zero)

    def _move(self, node: ir.Node) -> None:
        """Apply a node that moves elements to the twin; to concatenate values they need a common scale."""
        twin = next(self.twins[v] for v in node.inputs if v in self.twins)
        data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        inputs: list[ir.Value | None] = [self._in_scale(v, twin.scale, twin.zero) for v in data if v is not None]
        inputs += node.inputs[len(data) :]  # shapes, indices, pads
        if node.op_type == "Pad" and (padding := optional(node, 2)) is not None:
            inputs[2] = self._in_scale(padding, twin.scale, twin.zero)
        kept = {name: a.value for name, a in node.attributes.items()}
        moved = self.op.several(node.op_type, *inputs, outputs=len(node.outputs), name=f"{node.name}::real", **kept)
        for q, real in zip(node.outputs, moved, strict=True):
            self.written.stand_for(node, real)
            if _floating(q) or q.dtype == ir.DataType.INT64:
                continue
            self.twins[q] = Twin(shaped(real, q), twin.scale, twin.zero)

    # Families of integer operators: each computes its real-valued result from twins and ties it to the integer one.

    def linear_convolution(self, node: ir.Node) -> None:
        """QLinearConv: x, s, z, w, s, z, y s, y z, bias in units of s_x s_w."""
        x, w = self._factor(node, 0), self._factor(node, 3, axis=0)
        self._tie(node, "Conv", [x, w, self._in_units(node, 8, x)], 6)

    def linear_matmul(self, node: ir.Node) -> None:
        """QLinearMatMul: a, s, z, b, s, z, y s, y z."""
        self._tie(node, "MatMul", [self._factor(node, 0), self._factor(node, 3)], 6)

    def linear_gemm(self, node: ir.Node) -> None:
        """com.microsoft QGemm: a, s, z, b, s, z, c in units of s_a s_b, y s, y z; a float without the last two."""
        a, b = self._factor(node, 0), self._factor(node, 3, axis=0 if _flag(node, "transB") else 1)
        self._tie(node, "Gemm", [a, b, self._in_units(node, 6, a)], 7)

    def binary(self, node: ir.Node) -> None:
        """com.microsoft QLinearAdd and QLinearMul: a, s, z, b, s, z, y s, y z."""
        self._tie(node, node.op_type.removeprefix("QLinear"), [self._factor(node, 0), self._factor(node, 3)], 6)

    def unary(self, node: ir.Node) -> None:
        """com.microsoft QLinear operators of one value: x, s, z, y s, y z."""
        self._tie(node, node.op_type.removeprefix("QLinear"), [self._factor(node, 0)], 3)

    def joined(self, node: ir.Node) -> None:
        """com.microsoft QLinearConcat: y s, y z, then x, s, z of every part."""
        self._tie(node, "Concat", [self._factor(node, i) for i in range(2, len(node.inputs), 3)], 0)

    def integer_product(self, node: ir.Node) -> None:
        """ConvInteger and MatMulInteger: (a - z_a) (b - z_b), exact; a twin of s (a - z) is divided by s."""
        op = self.op
        factors = []
        for v, zero in ((required(node, 0), optional(node, 2)), (required(node, 1), optional(node, 3))):
            if v in self.twins:
                twin = self.twins[v]
                real = twin.real if _same(twin.zero, zero) else self._in_scale(v, twin.scale, zero)
                value = real
                if twin.scale is not None:
                    value = op.Div(real, twin.scale)
                    self.written.unscaled[value] = real
            else:
                value = op.Cast(v, to=ir.DataType.FLOAT.value)
                if zero is not None:
                    value = op.Sub(value, op.Cast(zero, to=ir.DataType.FLOAT.value))
            factors.append(shaped(value, v))
        kept = {name: a.value for name, a in node.attributes.items()}
        q = node.outputs[0]
        product = op.emit(node.op_type.removesuffix("Integer"), *factors, name=f"{q.name}::product", **kept)
        self.written.stand_for(node, product)
        self.twins[q] = Twin(shaped(product, q))

    def _factor(self, node: ir.Node, at: int, *, axis: int = 1) -> ir.Value:
        """Return an operand of a node as it sees it: the value, its scale and its zero point from an input on."""
        return self._in_scale(required(node, at), optional(node, at + 1), optional(node, at + 2), axis=axis)

    def _in_units(self, node: ir.Node, at: int, like: ir.Value) -> ir.Value | None:
        """Return a bias, which counts in products of the scales of both operands."""
        bias = optional(node, at)
        if bias is None:
            return None
        return self.op.Mul(self.op.Cast(bias, to=_code(like)), self.op.Mul(node.inputs[1], node.inputs[4]))

    def _permuted(self, v: ir.Value, perm: list[int]) -> ir.Value:
        return shaped(self.op.Transpose(v, perm=perm), [dims_of(v)[p] for p in perm])

    def _tie(self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], at: int) -> None:
        """Write what a node computes, in real numbers; the scale and the zero point of its result are inputs `at`."""
        q = node.outputs[0]
        scale, zero = optional(node, at), optional(node, at + 1)
        kept = {name: a.value for name, a in node.attributes.items() if name not in ("channels_last", "opset")}
        last = _flag(node, "channels_last")
        rank = q.shape.rank() if q.shape is not None else 0
        if last and inputs[0] is not None:
            inputs = [self._permuted(inputs[0], [0, rank - 1, *range(1, rank - 1)]), *inputs[1:]]
        result = self.op.emit(op_type, *inputs, name=f"{q.name}::product", **kept)
        self.written.stand_for(node, result)
        if last:
            samples, *cells, channels = dims_of(q)
            result = self._permuted(shaped(result, [samples, channels, *cells]), [0, *range(2, rank), 1])
        shaped(result, q)
        if scale is None or _floating(q):
            q.replace_all_uses_with(result, replace_graph_outputs=True)
            self._keep_output_name(q, result)
        else:
            self._round(node, result, scale, zero)


_Family = Callable[[_Writer, ir.Node], None]

FAMILIES: dict[tuple[str, str], _Family] = {
    ("", "QLinearConv"): _Writer.linear_convolution,
    ("", "QLinearMatMul"): _Writer.linear_matmul,
    ("", "ConvInteger"): _Writer.integer_product,
    ("", "MatMulInteger"): _Writer.integer_product,
    (_MICROSOFT, "QLinearConv"): _Writer.linear_convolution,
    (_MICROSOFT, "QGemm"): _Writer.linear_gemm,
    (_MICROSOFT, "QLinearAdd"): _Writer.binary,
    (_MICROSOFT, "QLinearMul"): _Writer.binary,
    (_MICROSOFT, "QLinearConcat"): _Writer.joined,
    (_MICROSOFT, "QLinearGlobalAveragePool"): _Writer.unary,
    (_MICROSOFT, "QLinearAveragePool"): _Writer.unary,
    (_MICROSOFT, "QLinearLeakyRelu"): _Writer.unary,
    (_MICROSOFT, "QLinearSigmoid"): _Writer.unary,
    (_MICROSOFT, "QLinearSoftmax"): _Writer.unary,
}


def _family(node: ir.Node) -> _Family | None:
    return FAMILIES.get((node.domain, node.op_type))


def _floating(v: ir.Value) -> bool:
    return v.dtype is not None and v.dtype.is_floating_point() and not v.dtype.name.startswith("FLOAT8")


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())


def _code(v: ir.Value) -> int:
    return v.dtype.value if v.dtype is not None else ir.DataType.FLOAT.value


def _same(a: ir.Value | None, b: ir.Value | None) -> bool:
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


def _known_bounds(
    q: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int, block: int
) -> list[np.ndarray]:
    """Return s (min - z) and s (max - z), broadcastable to q, where scale and zero point are constants."""
    steps, place = content_of(scale), content_of(zero)
    if steps is None or (zero is not None and place is None) or q.dtype is None or q.shape is None:
        return []
    offset = np.zeros(()) if place is None else place.astype(np.float64)
    ends = [(steps.astype(np.float64) * (end - offset)).astype(steps.dtype) for end in _range(q.dtype)]
    rank = q.shape.rank()
    if block:
        size = q.shape.dims[axis]
        return [np.repeat(e, block, axis).take(range(size), axis) for e in ends] if isinstance(size, int) else []
    if steps.ndim == 1 and steps.size > 1:
        return [e.reshape([-1 if i == axis % rank else 1 for i in range(rank)]) for e in ends]
    return [e.reshape(()) for e in ends]


def _range(dtype: ir.DataType) -> tuple[float, float]:
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
