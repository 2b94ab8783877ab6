"""Arithmetic on integer values, in real numbers: Relu, Clip, Max, Min, Cast, Add, Sub, Mul and their kin on twins.

What keeps the scale is applied to twins with its bounds scaled; what does not is computed on the integers themselves,
q = r / s + z, where no result can leave the range of its type (integers wrap around, real numbers do not), or where the
type has 32 bits or more. What rounds its result, or might wrap around, is tied to it, as a quantiser is. A node for
which none of this holds gets no twin; if it lies on the path to the head, the explanation is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import content_of, dims_of, optional, required, shaped
from fgonnx.engine.normal.spans import EVERYTHING, Span, reduced_axes, result_span
from fgonnx.engine.normal.tie import DOMAIN, Twins
from fgonnx.engine.normal.twin import Twin, code, floating, in_standard, placed, range_of, same, single

MICROSOFT = "com.microsoft"
"""Domain of the quantisers of types that the standard has later."""

ORDERED = ("Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Relu", "TopK")
"""Operators that keep the scale of what they take."""

ARITHMETIC = (
    "Abs",
    "Add",
    "Cast",
    "CastLike",
    "CumSum",
    "MatMul",
    "Mul",
    "Neg",
    "Pow",
    "ReduceL1",
    "ReduceSum",
    "ReduceSumSquare",
    "Sub",
)
"""Operators computed on the integers themselves, where nothing wraps around."""

ROUNDED = ("ReduceMean", "BitShift", "Div")
"""Operators computed on the integers themselves whose results are rounded: division by constants, means."""

_CASTS = ("Cast", "CastLike")
_WRAPPING = ("Add", "MatMul", "Mul", "Neg", "ReduceSum", "Sub", *_CASTS)
_WIDE = 32
_REDUCTIONS = ("CumSum", "ReduceL1", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")


class Integers:
    """Twins by value, and how integer arithmetic is done on them.

    Parameters
    ----------
    graph : ir.Graph
        The graph, written to.
    x : ir.Value
        The explained input.
    prefix : str
        Prefix of the names of what is written.
    """

    def __init__(self, graph: ir.Graph, x: ir.Value, prefix: str) -> None:
        self.twins: dict[ir.Value, Twin] = {}
        self.written = Twins(x)
        self.op = Emitter(graph, prefix=prefix)

    def compute(self, node: ir.Node) -> None:
        """Write the twin of an integer result, if this node is one that can have it."""
        q = node.outputs[0]
        if q.dtype is None or floating(q) or q.dtype == ir.DataType.BOOL:
            return
        if node.op_type in _REDUCTIONS and optional(node, 1) is not None and content_of(node.inputs[1]) is None:
            return
        if node.op_type in ("ReduceMax", "ReduceMin", "TopK"):
            self._extreme(node)
        elif node.op_type in ORDERED:
            self._ordered(node)
        elif node.op_type in ARITHMETIC:
            self._arithmetic(node)
        elif node.op_type in ROUNDED:
            self._rounded(node)

    def plain(self, v: ir.Value) -> ir.Value:
        """Return q, the integers themselves as real numbers: r / s + z of a twin."""
        op, twin = self.op, self.twins.get(v)
        if twin is None:
            return v if floating(v) else shaped(op.Cast(v, to=ir.DataType.FLOAT.value), v)
        if twin.scale is None:
            return twin.real
        return self._plain(twin.real, twin)

    def in_scale(self, v: ir.Value, scale: ir.Value | None, zero: ir.Value | None, *, axis: int = 1) -> ir.Value:
        """Return s' (q - z'), a value in a consumer's scale, from its twin or, for a constant, by DequantizeLinear."""
        if scale is None:
            return self.plain(v)
        if v not in self.twins:
            return v if floating(v) else shaped(self._dequantised(v, scale, zero, axis), v)
        twin = self.twins[v]
        if same(twin.scale, scale) and same(twin.zero, zero):
            return twin.real
        # r = s (q - z): s' (q - z') = (s' / s) r + s' (z - z')
        op, real, rank = self.op, twin.real, len(dims_of(v))
        scale, zero = placed(op, scale, axis, rank), None if zero is None else placed(op, zero, axis, rank)
        own, before = self._placed(twin.zero, twin, rank), self._placed(twin.scale, twin, rank)
        shift: ir.Value | float = 0.0
        if own is not None or zero is not None:
            zeros = [np.zeros((), np.float32) if z is None else op.Cast(z, to=code(real)) for z in (own, zero)]
            shift = op.Sub(*zeros)
        product = shaped(op.Mul(real, scale if before is None else op.Div(scale, before)), v)
        return shaped(op.Add(product, op.Mul(scale, shift)), v)

    def _dequantised(self, v: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int) -> ir.Value:
        op = self.op
        if zero is None or zero.dtype == v.dtype:
            return self.read(v, scale, zero, axis=axis)
        rank = len(dims_of(v))
        scale, zero = placed(op, scale, axis, rank), placed(op, zero, axis, rank)
        return op.Mul(op.Sub(op.Cast(v, to=code(scale)), op.Cast(zero, to=code(scale))), scale)

    def read(self, q: ir.Value, scale: ir.Value | None, zero: ir.Value | None, **attributes: int | None) -> ir.Value:
        """Write s (q - z)."""
        known = q.dtype is None or in_standard(q.dtype, self.op.graph)
        return self.op.DequantizeLinear(q, scale, zero, domain="" if known else MICROSOFT, **attributes)

    def span(self, v: ir.Value) -> Span:
        """Return two numbers between which an integer value lies."""
        known = content_of(v)
        if known is not None and known.size:
            return float(known.min()), float(known.max())
        twin = self.twins.get(v)
        if twin is not None and twin.span is not None:
            return twin.span
        return EVERYTHING if v.dtype is None or floating(v) else range_of(v.dtype)

    def _placed(self, parameter: ir.Value | None, twin: Twin, rank: int) -> ir.Value | None:
        if parameter is None or twin.axis is None:
            return parameter
        return placed(self.op, parameter, twin.axis, rank)

    def _plain(self, real: ir.Value, twin: Twin) -> ir.Value:
        op, rank = self.op, len(dims_of(real))
        scale, zero = self._placed(twin.scale, twin, rank), self._placed(twin.zero, twin, rank)
        value = op.Div(real, scale)
        if zero is not None:
            value = op.Add(shaped(value, real), op.Cast(zero, to=code(real)))
        return shaped(value, real)

    def by_entries(self, v: ir.Value) -> bool:
        """Tell whether the scale of a value is known entry by entry: not in blocks, nor along an axis that was lost."""
        twin = self.twins.get(v)
        if twin is None or twin.scale is None:
            return True
        dims = twin.scale.shape.dims if twin.scale.shape is not None else (0, 0)
        if all(d == 1 for d in dims):
            return True
        return len(dims) == 1 and twin.axis is not None and dims_of(v)[twin.axis] == dims[0]

    def readable(self, v: ir.Value, scale: ir.Value | None, zero: ir.Value | None) -> bool:
        """Tell whether a consumer can read a twin in this scale."""
        twin = self.twins[v]
        if same(twin.scale, scale) and same(twin.zero, zero):
            return single(twin.scale) or twin.axis is not None
        return self.by_entries(v) and scale is not None and scale.shape is not None and scale.shape.rank() < 2

    # What keeps the scale: bounds become s (bound - z).

    def _ordered(self, node: ir.Node) -> None:
        given = [v for v in node.inputs if v is not None]
        twin = next(self.twins[v] for v in given if v in self.twins)
        if not all(v in self.twins or content_of(v) is not None for v in given):
            return
        if not all(map(self.by_entries, given)) or (node.op_type == "Clip" and required(node, 0) not in self.twins):
            return
        q = node.outputs[0]
        rank = len(dims_of(q))
        write = self._bounded(node, twin, rank)
        moving = [v for v in given if v in self.twins]
        if any(len(dims_of(v)) != rank for v in moving):  # an axis counts from the other end after broadcasting
            return
        real = write([self.in_scale(v, twin.scale, twin.zero, axis=twin.axis or 0) for v in moving])
        self._settle(node, write, moving, shaped(real, q))

    def _settle(
        self, node: ir.Node, write: Callable[[Sequence[ir.Value]], ir.Value], moving: Sequence[ir.Value], real: ir.Value
    ) -> None:
        """Record the twin of a result that keeps the scale; where all was rounded alike, what was rounded decides."""
        q, together = node.outputs[0], [self.twins[v] for v in moving]
        twin = together[0]
        self.written.stand_for(node, real)
        result = replace(twin, real=real, span=self._span(node), loose=None, ends=())
        loose = [t.loose for t in together if t.loose is not None]
        if len(loose) == len(together) and all(_alike(t, twin) for t in together):
            before = shaped(write(loose), q)
            tied = self.op.emit("StraightThrough", before, real, *twin.ends, domain=DOMAIN, name=f"{q.name}::real")
            self.written.stand_for(node, before, shaped(tied, q))
            result = replace(result, real=tied, loose=before, ends=twin.ends)
        self.twins[q] = result

    def _extreme(self, node: ir.Node) -> None:
        """The largest and smallest entries along an axis: TopK takes the places that the integers chose."""
        v, q = required(node, 0), node.outputs[0]
        if v not in self.twins or not self.by_entries(v):
            return
        if not single(self.twins[v].scale):
            self.twins[v] = self.unscaled_twin(v)
        if node.op_type == "TopK":
            axis = node.attributes.get_int("axis", -1)

            def write(values: Sequence[ir.Value]) -> ir.Value:
                return shaped(self.op.GatherElements(values[0], node.outputs[1], axis=axis), q)

        else:
            kept = {name: a.value for name, a in node.attributes.items()}

            def write(values: Sequence[ir.Value]) -> ir.Value:
                return shaped(self.op.emit(node.op_type, values[0], *node.inputs[1:], **kept), q)

        self._settle(node, write, [v], write([self.twins[v].real]))

    def unscaled_twin(self, v: ir.Value) -> Twin:
        """Return the twin that stands for the integers themselves."""
        return Twin(self.plain(v), span=self.span(v))

    def _bounded(self, node: ir.Node, twin: Twin, rank: int) -> Callable[[Sequence[ir.Value]], ir.Value]:
        """Return what writes the node in real numbers, for its operands that have twins."""
        op = self.op
        low, high = (optional(node, i) for i in (1, 2)) if node.op_type == "Clip" else (None, None)
        if node.op_type == "Relu":
            edges = [("Max", self._edge(np.zeros((), np.float32), twin, rank))]
        elif node.op_type == "Clip":
            edges = [(o, self._bound(v, twin, rank)) for o, v in (("Max", low), ("Min", high)) if v is not None]
        else:
            fixed = [v for v in node.inputs if v is not None and v not in self.twins]
            edges = [(node.op_type, self._bound(v, twin, rank)) for v in fixed]

        def write(values: Sequence[ir.Value]) -> ir.Value:
            moving = values[:1] if node.op_type == "Clip" else values
            value = moving[0] if len(moving) == 1 else shaped(op.emit(node.op_type, *moving), node.outputs[0])
            for op_type, edge in edges:
                value = shaped(op.emit(op_type, value, edge), node.outputs[0])
            return value

        return write

    def _bound(self, v: ir.Value, twin: Twin, rank: int) -> ir.Value:
        if v in self.twins:
            return self.in_scale(v, twin.scale, twin.zero)
        found = content_of(v)
        return self._edge(np.asarray(found).astype(np.float32), twin, rank)

    def _edge(self, bound: np.ndarray, twin: Twin, rank: int) -> ir.Value:
        """Return s (bound - z), as a DequantizeLinear would compute it."""
        op = self.op
        bound = bound.reshape(()) if bound.size == 1 else bound
        scale, zero = self._placed(twin.scale, twin, rank), self._placed(twin.zero, twin, rank)
        kind = np.dtype(np.float32) if scale is None or scale.dtype is None else scale.dtype.numpy()
        steps, offset = content_of(scale), content_of(zero)
        if scale is None:
            return op.constant(bound.astype(twin.real.dtype.numpy() if twin.real.dtype is not None else kind))
        if steps is not None and (zero is None or offset is not None):
            shift = bound if offset is None else bound - offset.astype(np.float32)
            return op.constant(np.asarray(steps * shift.astype(kind)))
        value: ir.Value = op.constant(bound.astype(kind))
        if zero is not None:
            value = op.Sub(value, op.Cast(zero, to=code(scale)))
        return op.Mul(scale, value)

    # What does not: on the integers themselves.

    def _arithmetic(self, node: ir.Node) -> None:
        given = [required(node, i) for i in range(1 if node.op_type in _CASTS else len(node.inputs))]
        q = node.outputs[0]
        low, high = self._span(node)
        least, most = range_of(q.dtype) if q.dtype is not None else (0.0, 0.0)
        proved = all(v in self.twins or content_of(v) is not None for v in given)
        if not proved or not all(map(self.by_entries, given)):
            return
        if low < least or high > most:
            self._unproved(node)
            return
        if node.op_type in _CASTS:
            self.twins[q] = replace(self.twins[given[0]], span=(low, high))
            return
        if node.op_type == "Pow" and not _whole_power(given[1]):
            return
        result = self._written(node)
        self.twins[q] = Twin(result, span=(low, high))

    def _unproved(self, node: ir.Node) -> None:
        """Where 32 or 64 bits are not proved to hold a result, such as a bias in steps that data decide: tie it to q.

        Integers wrap around by multiples of 2^32: q = a + b - k 2^32 has the slope of a + b wherever k does not change.
        """
        q = node.outputs[0]
        if q.dtype is None or q.dtype.bitwidth < _WIDE or node.op_type not in _WRAPPING:
            return
        before = self.plain(required(node, 0)) if node.op_type in _CASTS else self._written(node)
        self._held(node, before, range_of(q.dtype))

    def _held(self, node: ir.Node, before: ir.Value, span: Span) -> None:
        """Record the twin of a result that is the integer, with the slope of a real-valued one."""
        q = node.outputs[0]
        real = shaped(self.op.Cast(q, to=code(before)), q)
        tied = self.op.emit("StraightThrough", before, real, domain=DOMAIN, name=f"{q.name}::real")
        self.written.stand_for(node, shaped(tied, q))
        self.twins[q] = Twin(tied, span=span)

    def _rounded(self, node: ir.Node) -> None:
        """Division by constants, and means: the real-valued result is tied to the integer that it is rounded to."""
        v, q, divisor = required(node, 0), node.outputs[0], optional(node, 1)
        if v not in self.twins or not self.by_entries(v):
            return
        if node.op_type != "ReduceMean" and content_of(divisor) is None:
            return
        if node.op_type == "ReduceMean" and reduced_axes(node) is None:
            return
        low, high = self._span(node)
        least, most = range_of(q.dtype) if q.dtype is not None else (0.0, 0.0)
        if low < least or high > most:
            return
        if node.op_type == "BitShift":
            if node.attributes["direction"].as_string() == "LEFT":
                factor = np.exp2(content_of(divisor).astype(np.float32))  # type: ignore[union-attr]
                self.twins[q] = Twin(shaped(self.op.Mul(self.plain(v), factor), q), span=(low, high))
                self.written.stand_for(node, self.twins[q].real)
                return
            shift = np.exp2(-content_of(divisor).astype(np.float32))  # type: ignore[union-attr]
            before = shaped(self.op.Mul(self.plain(v), shift), q)
            self.written.stand_for(node, before)
        else:
            before = self._written(node)
        self._held(node, before, (low, high))

    def _written(self, node: ir.Node) -> ir.Value:
        """Write a node on real numbers in place of integers; axes stay what they are."""
        given = [required(node, i) for i in range(len(node.inputs))]
        data = given[:1] if node.op_type in _REDUCTIONS else given
        kept = {name: a.value for name, a in node.attributes.items()}
        inputs = [*map(self.plain, data), *given[len(data) :]]
        q = node.outputs[0]
        result = shaped(self.op.emit(node.op_type, *inputs, name=f"{q.name}::real", **kept), q)
        self.written.stand_for(node, result)
        return result

    def _span(self, node: ir.Node) -> Span:
        """Return two numbers between which the result lies, if nothing wraps around."""
        return result_span(node, [EVERYTHING if v is None else self.span(v) for v in node.inputs])


def _whole_power(exponent: ir.Value) -> bool:
    """Tell whether an exponent is one constant whole number above zero: of integers, it is a polynomial."""
    found = content_of(exponent)
    return found is not None and found.size == 1 and float(found.item()) in (1.0, 2.0, 3.0, 4.0)


def _alike(a: Twin, b: Twin) -> bool:
    """Tell whether two values were rounded on one scale, to one type."""
    return same(a.scale, b.scale) and same(a.zero, b.zero) and a.ends == b.ends
