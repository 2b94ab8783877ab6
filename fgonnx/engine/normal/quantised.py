"""Quantised graphs in real numbers: every int8 value gets a floating-point twin, the number that it represents.

A value q with scale s and zero point z represents r = s (q - z). Where an operator rounds to q, its real-valued
counterpart is also computed, from the twins of its inputs, and a StraightThrough node ties the two: its value is r,
exactly what the model computes, its gradient goes to the real-valued result inside the representable range, and its
intercept is the rounding and saturation error. Operators that only move elements are applied to the twin too. The
integer nodes are kept and compute the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import say_why, why_not
from fgonnx.engine.graph.values import content_of, dims_of, dtype_of, optional, required, shaped
from fgonnx.engine.normal.integers import MICROSOFT, Integers
from fgonnx.engine.normal.levels import span_of
from fgonnx.engine.normal.residue import is_residue
from fgonnx.engine.normal.rounding import narrows
from fgonnx.engine.normal.spans import Span
from fgonnx.engine.normal.tie import DOMAIN, NO_RANGE, Twins, dependent_nodes, moving_scales, table_slopes
from fgonnx.engine.normal.twin import Twin, code, flag, floating, known_bounds, range_of, same, single

PREFIX = "dequantised/"
"""Prefix of the names of twins."""

MOVES = {
    "Compress",
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "ReverseSequence",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
}

#: Which inputs of them are moved, where it is not the first one alone; the others say how.
_DATA = {"Pad": (0, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2), "Where": (1, 2)}
_QUANTISERS = ("QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QAttention")

#: What leaves the entries of every channel together, so that a scale by channel stays one.
_BY_CHANNEL = {"Identity", "MaxPool", "Transpose"}


def is_quantised(graph: ir.Graph) -> bool:
    """Tell whether a graph computes with quantised activations."""
    return any(_rounds(n) for n in graph)


def _rounds(node: ir.Node) -> bool:
    if node.op_type == "MatMulNBits":  # at this level, onnxruntime rounds the other operand to 8 bits
        return "accuracy_level" in node.attributes and node.attributes["accuracy_level"].as_int() == 4
    return _family(node) is not None or node.op_type in _QUANTISERS or narrows(node)


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
    writer = _Writer(graph, x, PREFIX)
    found = writer.written
    if x.dtype is not None and not x.dtype.is_floating_point():
        found.x = shaped(writer.op.Cast(x, to=ir.DataType.FLOAT.value), x)
        writer.twins[x] = Twin(found.x)
    for node in nodes:
        writer.visit(node)
    graph.sort()
    found.outputs = {v: t.real for v, t in writer.twins.items() if v.is_graph_output()}
    found.counterparts = tuple(writer.twins)
    found.complete(graph, own)
    return found


class _Writer(Integers):
    """Walks a graph forward and writes twins; nodes go to the end and are sorted afterwards."""

    def visit(self, node: ir.Node) -> None:
        """Write the twins of a node's outputs if it computes with quantised values."""
        family = _family(node)
        if (family is not None or node.op_type in ("DequantizeLinear", "QuantizeLinear")) and moving_scales(node):
            if why_not(node) is None:
                say_why(node, "its scale depends on the input")
            return
        if node.op_type == "QuantizeLinear":
            self._round(node, self.plain(required(node, 0)), optional(node, 1), optional(node, 2))
        elif node.op_type == "DynamicQuantizeLinear":
            self._round(node, self.plain(required(node, 0)), node.outputs[1], node.outputs[2], saturates=False)
        elif node.op_type == "DequantizeLinear" and node.inputs[0] in self.twins:
            if not self.readable(node.inputs[0], optional(node, 1), optional(node, 2)):
                return
            seen = self.in_scale(node.inputs[0], optional(node, 1), optional(node, 2), axis=_axis(node))
            node.outputs[0].replace_all_uses_with(seen, replace_graph_outputs=True)
            self._keep_output_name(node.outputs[0], seen)
        elif node.op_type in ("Cast", "CastLike") and node.inputs[0] in self.twins and floating(node.outputs[0]):
            if not self.by_entries(node.inputs[0]):
                return
            twin = self.plain(node.inputs[0])
            cast = shaped(self.op.Cast(twin, to=code(node.outputs[0])), node.outputs[0])
            node.outputs[0].replace_all_uses_with(cast, replace_graph_outputs=True)
            self._keep_output_name(node.outputs[0], cast)
        elif narrows(node):
            self._narrow(node)
        elif node.op_type == "Gather" and not node.domain and node.inputs[1] in self.twins:
            self._look_up(node)
        elif family is not None:
            family(self, node)
        elif node.op_type in MOVES and not floating(node.outputs[0]) and any(v in self.twins for v in _moved(node)):
            self._move(node)
        elif not node.domain and any(v in self.twins for v in node.inputs):
            self.compute(node)

    def _narrow(self, node: ir.Node) -> None:
        """Whole numbers cast to integers are those integers, where none is out of range.

        Beyond 32 bits, the model would not have been quantised.
        """
        v, q = required(node, 0), node.outputs[0]
        (low, high), (least, most) = span_of(v), range_of(dtype_of(q))
        if (least <= low and high <= most) or dtype_of(q).bitwidth >= 32:
            self.twins[q] = Twin(v, span=(max(low, least), min(high, most)))

    def _keep_output_name(self, old: ir.Value, new: ir.Value) -> None:
        if new.is_graph_output() and old.name:
            old.name, new.name = f"{old.name}::integer", old.name

    def _round(
        self, node: ir.Node, x: ir.Value, scale: ir.Value | None, zero: ir.Value | None, *, saturates: bool = True
    ) -> None:
        """Tie a node's integer output to the real-valued result `x` it rounds."""
        q = node.outputs[0]
        axis = _axis(node) if node.op_type == "QuantizeLinear" and "axis" in node.attributes else None
        block = node.attributes.get_int("block_size", None)
        op = self.op

        def real_of(v: ir.Value) -> ir.Value:
            return shaped(self.read(v, scale, zero, axis=axis, block_size=block or None), q)

        real = real_of(q)
        bounds: list[ir.Value] = []
        if saturates and q.dtype is not None:
            known = known_bounds(q, scale, zero, 1 if axis is None else axis, block or 0)
            bounds = [op.constant(b) for b in known]
            if not known:
                ends = [op.constant(np.array(bound, q.dtype.numpy())) for bound in range_of(q.dtype)]
                plain = scale is not None and scale.shape is not None and scale.shape.rank() == 0
                bounds = [real_of(end if plain else op.Expand(end, op.Shape(q))) for end in ends]
        if is_residue(q):  # constant between its steps: an empty range
            bounds = [op.constant(np.array(bound, dtype_of(x).numpy())) for bound in NO_RANGE]
        tied = op.emit("StraightThrough", x, real, *bounds, domain=DOMAIN, name=f"{q.name}::real")
        self.written.stand_for(node, tied)
        place = 1 if axis is None else axis
        self.twins[q] = Twin(shaped(tied, q), scale, zero, place, loose=x, ends=tuple(bounds))

    def _move(self, node: ir.Node) -> None:
        """Apply a node that moves elements to the twin; to concatenate values they need a common scale."""
        data = _moved(node)
        if not all(map(self.by_entries, data)) and node.op_type not in _BY_CHANNEL:
            return
        twin = next(self.twins[v] for v in data if v in self.twins)
        if (not single(twin.scale) and node.op_type not in _BY_CHANNEL) or _fills_with_zero(node):
            twin = replace(twin, scale=None, zero=None)  # the integers themselves
        axis = 1 if twin.axis is None else twin.axis
        inputs = [
            v if v is None or v not in data else self.in_scale(v, twin.scale, twin.zero, axis=axis) for v in node.inputs
        ]
        kept = {name: a.value for name, a in node.attributes.items()}
        moved = self.op.several(node.op_type, *inputs, outputs=len(node.outputs), name=f"{node.name}::real", **kept)
        spans = [self.span(v) for v in data] + ([(0.0, 0.0)] if _fills_with_zero(node) else [])
        interpolated = node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "nearest"
        span = None if node.op_type == "Resize" else (min(a for a, _ in spans), max(b for _, b in spans))
        behind = _axis_behind(node, twin.axis)
        for i, (q, real) in enumerate(zip(node.outputs, moved, strict=True)):
            self.written.stand_for(node, real)
            if floating(q) or (i > 0 and node.op_type == "MaxPool"):
                continue
            shaped(real, q)
            if interpolated:
                real = self._tied(node, q, real, twin)
            self.twins[q] = Twin(real, twin.scale, twin.zero, behind, span)

    def _tied(self, node: ir.Node, q: ir.Value, before: ir.Value, twin: Twin) -> ir.Value:
        """Tie what a node rounds, in the scale of a twin, to the integers that it gives."""
        op = self.op
        if twin.scale is None:
            real = op.Cast(q, to=code(before))
        else:
            real = self.read(q, twin.scale, twin.zero, axis=twin.axis)
        tied = op.emit("StraightThrough", before, shaped(real, q), domain=DOMAIN, name=f"{q.name}::real")
        self.written.stand_for(node, tied)
        return shaped(tied, q)

    def _look_up(self, node: ir.Node) -> None:
        """A table of one axis, looked up at quantised values: its slope is that between neighbouring entries."""
        v, y = required(node, 1), node.outputs[0]
        table = content_of(required(node, 0))
        if table is None or table.ndim != 1 or not self.by_entries(v):
            return
        slopes = table_slopes(table, self.span(v))
        if slopes is None:
            return
        op, x = self.op, self.plain(v)
        entry = shaped(op.Gather(required(node, 0), v, dtype=y.dtype), y)
        if not floating(y):
            entry = shaped(op.Cast(entry, to=ir.DataType.FLOAT.value), y)
        kind = dtype_of(entry)
        slope = shaped(op.Gather(op.constant(slopes.astype(kind.numpy())), v, dtype=kind), y)
        x = shaped(op.Cast(x, to=kind.value), y)
        found = op.emit("LookUp", x, entry, slope, domain=DOMAIN, name=f"{y.name}::real")
        self.written.stand_for(node, shaped(found, y))
        if not floating(y):
            self.twins[y] = Twin(found, span=(float(table.min()), float(table.max())))
            return
        y.replace_all_uses_with(found, replace_graph_outputs=True)
        self._keep_output_name(y, found)

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
        a, b = self._factor(node, 0), self._factor(node, 3, axis=0 if flag(node, "transB") else 1)
        self._tie(node, "Gemm", [a, b, self._in_units(node, 6, a)], 7)

    def binary(self, node: ir.Node) -> None:
        """com.microsoft QLinearAdd and QLinearMul: a, s, z, b, s, z, y s, y z."""
        self._tie(node, node.op_type.removeprefix("QLinear"), [self._factor(node, 0), self._factor(node, 3)], 6)

    def chosen(self, node: ir.Node) -> None:
        """com.microsoft QLinearWhere: condition, x, s, z, y, s, z, result s, result z."""
        self._tie(node, "Where", [required(node, 0), self._factor(node, 1), self._factor(node, 4)], 7)

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
        for i in range(2):
            v, zero = required(node, i), optional(node, 2 + i)
            if not self.by_entries(v):
                return
            if v in self.twins and self.twins[v].scale is not None and single(self.twins[v].scale):
                twin = self.twins[v]
                real = twin.real if same(twin.zero, zero) else self.in_scale(v, twin.scale, zero)
                value = op.Div(real, twin.scale)
                self.written.unscaled[value] = real
            else:
                value = self.plain(v)
                if zero is not None:
                    value = op.Sub(value, op.Cast(_of_rows(op, node, i, zero), to=ir.DataType.FLOAT.value))
            factors.append(shaped(value, v))
        kept = {name: a.value for name, a in node.attributes.items()}
        q = node.outputs[0]
        product = op.emit(node.op_type.removesuffix("Integer"), *factors, name=f"{q.name}::product", **kept)
        self.written.stand_for(node, product)
        self.twins[q] = Twin(shaped(product, q), span=_product_span(node))

    def _factor(self, node: ir.Node, at: int, *, axis: int = 1) -> ir.Value:
        """Return an operand of a node as it sees it: the value, its scale and its zero point from an input on."""
        return self.in_scale(required(node, at), optional(node, at + 1), optional(node, at + 2), axis=axis)

    def _in_units(self, node: ir.Node, at: int, like: ir.Value) -> ir.Value | None:
        """Return a bias, which counts in products of the scales of both operands."""
        bias = optional(node, at)
        if bias is None:
            return None
        return self.op.Mul(self.op.Cast(bias, to=code(like)), self.op.Mul(node.inputs[1], node.inputs[4]))

    def _permuted(self, v: ir.Value, perm: list[int]) -> ir.Value:
        return shaped(self.op.Transpose(v, perm=perm), [dims_of(v)[p] for p in perm])

    def _tie(self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], at: int) -> None:
        """Write what a node computes, in real numbers; the scale and the zero point of its result are inputs `at`."""
        q = node.outputs[0]
        scale, zero = optional(node, at), optional(node, at + 1)
        kept = {name: a.value for name, a in node.attributes.items() if name not in ("channels_last", "opset")}
        last = flag(node, "channels_last")
        rank = q.shape.rank() if q.shape is not None else 0
        if last and inputs[0] is not None:
            inputs = [self._permuted(inputs[0], [0, rank - 1, *range(1, rank - 1)]), *inputs[1:]]
        result = self.op.emit(op_type, *inputs, name=f"{q.name}::product", **kept)
        self.written.stand_for(node, result)
        if last:
            samples, *cells, channels = dims_of(q)
            result = self._permuted(shaped(result, [samples, channels, *cells]), [0, *range(2, rank), 1])
        shaped(result, q)
        if scale is None or floating(q):
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
    (MICROSOFT, "QLinearConv"): _Writer.linear_convolution,
    (MICROSOFT, "QGemm"): _Writer.linear_gemm,
    (MICROSOFT, "QLinearAdd"): _Writer.binary,
    (MICROSOFT, "QLinearMul"): _Writer.binary,
    (MICROSOFT, "QLinearConcat"): _Writer.joined,
    (MICROSOFT, "QLinearWhere"): _Writer.chosen,
    (MICROSOFT, "QLinearGlobalAveragePool"): _Writer.unary,
    (MICROSOFT, "QLinearAveragePool"): _Writer.unary,
    (MICROSOFT, "QLinearLeakyRelu"): _Writer.unary,
    (MICROSOFT, "QLinearSigmoid"): _Writer.unary,
    (MICROSOFT, "QLinearSoftmax"): _Writer.unary,
}


def _family(node: ir.Node) -> _Family | None:
    return FAMILIES.get((node.domain, node.op_type))


def _moved(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of a node whose elements it moves; none where it also computes."""
    if "reduction" in node.attributes and node.attributes["reduction"].as_string() != "none":
        return []
    places = range(len(node.inputs)) if node.op_type == "Concat" else _DATA.get(node.op_type, (0,))
    return [v for i in places if (v := optional(node, i)) is not None]


def _fills_with_zero(node: ir.Node) -> bool:
    """Tell whether a node puts the integer 0 where there was nothing."""
    if node.op_type == "Trilu":
        return True
    return (
        node.op_type == "Pad"
        and optional(node, 2) is None
        and node.attributes.get_string("mode", "constant") == "constant"
    )


def _axis(node: ir.Node) -> int:
    return node.attributes.get_int("axis", 1)


def _axis_behind(node: ir.Node, axis: int | None) -> int | None:
    """Return where an axis of the data lies in the result of a node that moves it; None where that is not known."""
    if axis is None or (node.op_type not in _BY_CHANNEL):
        return None
    if node.op_type == "Transpose":
        rank = len(dims_of(node.outputs[0]))
        perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
        return perm.index(axis % rank)
    return axis


def _of_rows(op: Emitter, node: ir.Node, i: int, zero: ir.Value) -> ir.Value:
    """Return a zero point of its own for every row of the first matrix, or every filter, broadcastable to it."""
    rows = node.op_type == "MatMulInteger" and i == 0
    if single(zero) or zero.shape is None or zero.shape.rank() != 1 or not (rows or node.op_type == "ConvInteger"):
        return zero
    return op.Reshape(zero, [-1, 1] if rows else [-1, *[1] * (len(dims_of(required(node, 1))) - 1)])


def _product_span(node: ir.Node) -> Span | None:
    """Return two numbers between which an integer product lies: no more terms than the second operand has rows."""
    dims = dims_of(required(node, 1))
    summed = dims[1:] if node.op_type == "ConvInteger" else dims[-2:-1]
    if not all(isinstance(d, int) for d in summed):
        return None
    most = 255.0**2 * float(np.prod([int(d) for d in summed], initial=1))  # type: ignore[arg-type]
    return -most, most
