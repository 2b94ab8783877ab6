"""The Emitter: writes nodes into a graph as `op.Mul(a, 2.0)`, and takes care of literals, constants and names."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import Dims, content_of, dims_of, dtype_of

PREFIX = "fg/"

#: What a rule may pass in place of a tensor.
Operand = ir.Value | float | int | bool | Sequence[int] | npt.NDArray[Any] | None

#: Element types of outputs that do not depend on the operands.
_RESULTS = {
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (ir.DataType.BOOL,)),
    **dict.fromkeys(("Not", "And", "Or", "Xor", "IsNaN", "IsInf"), (ir.DataType.BOOL,)),
    **dict.fromkeys(("Shape", "Size", "ArgMax", "ArgMin", "NonZero"), (ir.DataType.INT64,)),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), (ir.DataType.INT32,)),
    "DynamicQuantizeLinear": (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8),
    "Dropout": (None, ir.DataType.BOOL),
    "MaxPool": (None, ir.DataType.INT64),
    "TopK": (None, ir.DataType.INT64),
}
#: The operand that determines the outputs' element type, if it is not the first one.
_TYPED_BY = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2}


@dataclass(frozen=True)
class Entry:
    """The only nonzero entry along axis 1 of a cotangent, per sample.

    Attributes
    ----------
    index : ir.Value
        Index of the entry, (N,) int64.
    count : int
        Size of the axis.
    values : ir.Value, optional
        Values of the entry, broadcastable to (N, 1, *spatial); ones where there are no further axes.
    """

    index: ir.Value
    count: int
    values: ir.Value | None = None


@dataclass(frozen=True)
class Recipe:
    """Extra facts about a cotangent, and cheaper ways to write it where only a part of it is needed.

    Nodes that turn out to be unused are removed from the graph.

    Attributes
    ----------
    channels : callable, optional
        Takes the first channel, the end (exclusive), and that slice of the primal; returns the cotangent of the slice.
    gated : callable, optional
        Returns the cotangent with zeros where its primal is zero, for a primal that is nowhere negative.
    entry : Entry, optional
        The only nonzero entry.
    has_zero : bool
        Whether every sample contains a zero, whatever the input.
    times_primal : ir.Value, optional
        The cotangent times its primal, elementwise.
    primal : ir.Value, optional
        The value for which `channels`, `gated` and `times_primal` hold, as an Add passes the same cotangent to several
        values. None where they hold for any.
    """

    channels: Callable[[int, int, ir.Value], ir.Value] | None = None
    gated: Callable[[], ir.Value] | None = None
    entry: Entry | None = None
    has_zero: bool = False
    times_primal: ir.Value | None = None
    primal: ir.Value | None = None


class Emitter:
    """Writes nodes into a graph; every attribute of it is an operator of the default domain.

    Scalars take the element type of the first tensor operand (the partner), so `op.Mul(a, 2.0)` is right in float16
    and in float64. Lists of integers are int64 tensors (axes, shapes). Equal constants are stored once.

    Parameters
    ----------
    graph : ir.Graph
        The graph to write to.
    active : set of ir.Value
        Values that depend on the input to differentiate with respect to; see `is_active`.
    prefix : str
        Prefix of the names of all emitted nodes and values.
    portable : bool
        Write plain forms of a gradient, for any runtime, instead of those that are fast on onnxruntime.
    openvino : bool
        Of plain forms, write those that are fast on OpenVINO.
    before : ir.Node, optional
        Insert nodes before this one; by default they are appended.
    """

    def __init__(
        self,
        graph: ir.Graph,
        active: set[ir.Value] | None = None,
        prefix: str = PREFIX,
        *,
        portable: bool = False,
        openvino: bool = False,
        before: ir.Node | None = None,
    ) -> None:
        self.graph = graph
        self.portable = portable
        self.openvino = openvino
        self._prefix = prefix
        self._before = before
        self.active: set[ir.Value] = active if active is not None else set()
        #: What changes the rules of the backward pass that is being written, for the passes inside of a rule.
        self.modify: Callable[[Any], Any] | None = None
        #: Extra facts known about a cotangent.
        self.recipes: dict[ir.Value, Recipe] = {}
        self._recorded: list[list[ir.Node]] = []
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._taken = {v.name for v in graph.inputs} | set(graph.initializers)
        for node in graph:
            self._taken.update((node.name, *(v.name for v in node.outputs)))
        self._counts: dict[str, int] = {}

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)
        return partial(self.emit, op_type)

    def emit(self, op_type: str, *operands: Operand, **options: Any) -> ir.Value:
        """Write a node with one output and return that; see `several` for parameters."""
        return self.several(op_type, *operands, outputs=1, **options)[0]

    def several(
        self,
        op_type: str,
        *operands: Operand,
        outputs: int,
        domain: str = "",
        name: str | None = None,
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Write a node and return its outputs.

        Parameters
        ----------
        op_type : str
            The operator.
        *operands : ir.Value, number, list of int, numpy array or None
            The node's inputs in ONNX order; None for an omitted optional one.
        outputs : int
            Number of outputs.
        domain : str
            Operator domain; empty for the standard one.
        name : str, optional
            Name of the (first) output, without the prefix.
        dtype : ir.DataType, optional
            Element type of the outputs, if it is not that of the first operand.
        **attributes
            The node's attributes; None is omitted.
        """
        typed = operands[1:] if op_type == "Where" else operands
        partner = next((o.dtype for o in typed if isinstance(o, ir.Value) and o.dtype is not None), None)
        inputs = [self._operand(o, partner) for o in operands]
        while inputs and inputs[-1] is None:
            inputs.pop()
        kept = {k: v for k, v in attributes.items() if v is not None}
        base = self.unique(name or op_type)
        node = ir.Node(
            domain, op_type, inputs, [_attribute(k, v) for k, v in kept.items()], num_outputs=outputs, name=base
        )
        for i, out in enumerate(node.outputs):
            out.name = base if i == 0 else f"{base}:{i}"
            result = dtype or _result_dtype(op_type, i, operands, kept) or partner
            if result is not None:
                out.type = ir.TensorType(result)
        self.place(node)
        return tuple(node.outputs)

    def in_front_of(self, node: ir.Node) -> Emitter:
        """Return an emitter that inserts nodes before this one, and shares names and constants with this emitter."""
        other = copy.copy(self)
        other._before = node
        return other

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[ir.Node]]:
        """Yield a list that nodes are added to as they are placed."""
        placed: list[ir.Node] = []
        self._recorded.append(placed)
        try:
            yield placed
        finally:
            self._recorded.remove(placed)

    def place(self, node: ir.Node) -> None:
        """Insert a node at the position of this emitter."""
        for placed in self._recorded:
            placed.append(node)
        if self._before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self._before, node)

    def unique(self, name: str) -> str:
        """Return a name with the prefix that is not used in the graph yet."""
        base = name if name.startswith(self._prefix) else self._prefix + name
        candidate = base
        while candidate in self._taken:
            self._counts[base] = self._counts.get(base, 0) + 1
            candidate = f"{base}_{self._counts[base]}"
        self._taken.add(candidate)
        return candidate

    def constant(self, array: npt.NDArray[Any], name: str = "const") -> ir.Value:
        """Return an initializer with this content; equal content is stored once."""
        array = np.ascontiguousarray(array) if array.ndim else array
        key = (array.dtype.str, str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = initializer(self.graph, self.unique(name), array)
        return self._constants[key]

    def _operand(self, operand: Operand, partner: ir.DataType | None) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, np.ndarray):
            if operand.dtype.kind == "f" and partner is not None and partner.is_floating_point():
                return self.constant(operand.astype(partner.numpy()))
            return self.constant(operand)
        if isinstance(operand, (list, tuple)):
            return self.constant(np.asarray(operand, dtype=np.int64))
        if partner is None:
            raise TypeError(f"the literal {operand!r} has no tensor operand to take its type from")
        return self.constant(np.asarray(operand, dtype=partner.numpy()))

    def holding(self, values: Sequence[ir.Value]) -> Emitter:
        """Return an Emitter of the same graph for which some values do not depend on the input."""
        other = object.__new__(Emitter)
        vars(other).update(vars(self))
        other.active = self.active.difference(values)
        return other

    # Queries of rules about values.

    def entry(self, g: ir.Value) -> Entry | None:
        """Return the only nonzero entry along axis 1 of a cotangent, if known."""
        recipe = self.recipes.get(g)
        return None if recipe is None else recipe.entry

    def recipe(self, g: ir.Value, primal: ir.Value) -> Recipe | None:
        """Return the recipe of a cotangent if it holds for this primal, else None."""
        recipe = self.recipes.get(g)
        return recipe if recipe is not None and recipe.primal in (None, primal) else None

    def is_active(self, value: ir.Value | None) -> bool:
        """Tell whether a value depends on the input to differentiate with respect to."""
        return value is not None and value in self.active

    def dims(self, value: ir.Value) -> Dims:
        """Return the dimensions of a value: integers, or symbols where they depend on the batch size."""
        return dims_of(value)

    def rank(self, value: ir.Value) -> int:
        """Return the rank of a value."""
        return len(self.dims(value))

    def size(self, value: ir.Value, axis: int) -> int:
        """Return a dimension that must not depend on the batch size."""
        dim = self.dims(value)[axis]
        if not isinstance(dim, int):
            raise ValueError(f"axis {axis} of '{value.name}' has no fixed size ({dim})")
        return dim

    def array(self, value: ir.Value | None) -> npt.NDArray[Any] | None:
        """Return the content of a constant, None for any other value."""
        return content_of(value)

    # Shapes of primals.

    def shape_of(self, value: ir.Value) -> ir.Value | list[int]:
        """Return the shape of a value as an operand for Reshape: a list with at most one -1, or a Shape node."""
        dims = self.dims(value)
        unknown = [i for i, d in enumerate(dims) if not isinstance(d, int)]
        if len(unknown) <= 1 and 0 not in dims:
            return [d if isinstance(d, int) else -1 for d in dims]
        return self.Shape(value)

    def reshape_like(self, tensor: ir.Value, primal: ir.Value) -> ir.Value:
        """Reshape a tensor to the shape of `primal`."""
        empty = 0 in self.dims(primal)  # without allowzero a 0 would copy a dimension
        result = self.Reshape(tensor, self.shape_of(primal), allowzero=1 if empty else None)
        entry = self.entry(tensor)
        if entry is not None and entry.values is None and self._is_vector(primal, entry.count):
            self.recipes[result] = Recipe(entry=entry)
        return result

    def _is_vector(self, value: ir.Value, count: int) -> bool:
        """Tell whether a value is (N, count, 1, ..., 1)."""
        dims = self.dims(value)
        return len(dims) > 1 and dims[1] == count and all(d == 1 for d in dims[2:])

    def zeros_like(self, value: ir.Value) -> ir.Value:
        """Return zeros of the shape and type of a value."""
        dims = self.dims(value)
        zero = self.constant(np.zeros((), dtype_of(value).numpy()))
        if all(isinstance(d, int) for d in dims):
            shape: Operand = [int(d) for d in dims]  # type: ignore[arg-type]
        else:
            shape = self.Shape(value)
        return self.Expand(zero, shape)

    def unbroadcast(self, g: ir.Value, result: ir.Value, primal: ir.Value) -> ir.Value:
        """Sum a cotangent of `result` over the axes along which `primal` was broadcast to it."""
        to, frm = self.dims(primal), self.dims(result)
        lead = len(frm) - len(to)
        axes = list(range(lead)) + [lead + i for i, d in enumerate(to) if d == 1 and frm[lead + i] != 1]
        if not axes:
            return g
        summed = self.ReduceSum(g, axes, keepdims=1)
        return self.reshape_like(summed, primal) if lead else summed


def initializer(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Add an initializer to a graph, under a name that no other has: this one, or one like it."""
    while name in graph.initializers:
        name += "_"
    content = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(content.dtype), const_value=content)
    graph.register_initializer(value)
    return value


def _attribute(name: str, value: Any) -> ir.Attr:
    # onnx_ir tries a list of integers last, and slowly.
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        return ir.AttrInt64s(name, value)
    return ir.convenience.convert_attribute(name, value)


def _result_dtype(
    op_type: str, output: int, operands: Sequence[Operand], attributes: dict[str, Any]
) -> ir.DataType | None:
    if op_type in _RESULTS:
        return _RESULTS[op_type][output]
    if op_type == "Cast":
        return ir.DataType(int(attributes["to"]))
    if op_type in _TYPED_BY:
        given = operands[_TYPED_BY[op_type]]
        return given.dtype if isinstance(given, ir.Value) else None
    if op_type == "ConstantOfShape":
        value = attributes.get("value")
        return value.dtype if value is not None else ir.DataType.FLOAT
    return None
