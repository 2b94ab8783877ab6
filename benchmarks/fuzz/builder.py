"""A graph that is written node by node, every node run in onnxruntime as it is written.

So every value is known while the graph grows: shapes need no inference, a value that runs off to infinity is dropped,
and what onnxruntime does not take never gets into the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
MICROSOFT = "com.microsoft"
BLOCKED = "com.microsoft.nchwc"
LOCAL = "local"
IR_VERSION = 10
#: Entries of one sample's value above which it is made smaller, and numbers above which it is scaled down.
MOST_ENTRIES, LARGEST = 160, 8.0
SAMPLES = 2
#: What onnxruntime has among the operators of the standard.
OWN = ("SimplifiedLayerNormalization",)
ort.set_default_logger_severity(4)


class Undrawn(Exception):  # noqa: N818  - no error: the recipe does not go with this graph
    """A recipe that does not go with the values at hand."""


@dataclass(frozen=True, eq=False)
class Value:
    """One value of a growing graph.

    Attributes
    ----------
    name : str
        Its name.
    array : numpy array
        What it is for the inputs drawn.
    moves : bool
        Whether it depends on the explained input.
    batch : bool
        Whether its first axis is that of the samples.
    scale : tuple of Value, optional
        For quantised values: scale and zero point.
    """

    name: str
    array: Array
    moves: bool = False
    batch: bool = False
    scale: tuple[Value, Value] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(int(d) for d in self.array.shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.array.dtype


class Builder:
    """A growing graph.

    Parameters
    ----------
    rng : numpy Generator
        Where everything random comes from.
    opset : int
        Operator set.
    form : {"free", "one", "fixed", "none"}
        The first axis: free, 1, a number of samples, or no batch.
    dtype : numpy dtype
        The floating-point type of the graph.
    """

    def __init__(self, rng: np.random.Generator, opset: int, form: str, dtype: npt.DTypeLike) -> None:
        self.rng, self.opset, self.form, self.dtype = rng, opset, form, np.dtype(dtype)
        self.count = {"free": SAMPLES, "one": 1, "fixed": 3, "none": 0}[form]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.inputs: list[Value] = []
        self.values: list[Value] = []
        self.used: set[str] = set()
        self.domains: set[str] = set()
        self._names = 0
        self._weights: list[Value] = []

    # Chance.

    def chance(self, p: float) -> bool:
        """Return True with probability p."""
        return bool(self.rng.random() < p)

    def any(self, choices: Sequence[Any]) -> Any:
        """Return one of these."""
        return choices[int(self.rng.integers(len(choices)))]

    def whole(self, low: int, high: int) -> int:
        """Return a whole number between two, both included."""
        return int(self.rng.integers(low, high + 1))

    # Values.

    def name(self, stem: str = "v") -> str:
        """Return a new name."""
        self._names += 1
        return f"{stem}{self._names}"

    def input(self, array: Array, *, moves: bool = False, batch: bool = True, name: str | None = None) -> Value:
        """Add a graph input."""
        v = Value(name or self.name("in"), array, moves, batch)
        self.inputs.append(v)
        self.values.append(v)
        return v

    def const(self, array: npt.ArrayLike, dtype: npt.DTypeLike = None) -> Value:
        """Add a constant: an initializer, or now and then a Constant node."""
        array = np.asarray(array, dtype)
        v = Value(self.name("w"), array)
        tensor = numpy_helper.from_array(array, v.name)
        if self.chance(0.1):
            self.nodes.append(helper.make_node("Constant", [], [v.name], value=tensor))
        else:
            self.initializers.append(tensor)
        return v

    def ints(self, *numbers: int) -> Value:
        """Add a row of int64."""
        return self.const(np.array(numbers, np.int64))

    def weights(self, *shape: int, scale: float = 1.0, dtype: npt.DTypeLike = None) -> Value:
        """Add weights: random ones, now and then zeros, or those of another place that have the same shape."""
        dtype = np.dtype(dtype or self.dtype)
        alike = [w for w in self._weights if w.shape == shape and w.dtype == dtype]
        if alike and self.chance(0.3):
            return self.any(alike)
        fan = max(int(np.prod(shape[1:], initial=1)), 1) if len(shape) > 1 else 1
        array = self.rng.standard_normal(shape) * scale / np.sqrt(fan)
        if self.chance(0.03):
            array = np.zeros(shape)
        w = self.const(array.astype(dtype))
        self._weights.append(w)
        return w

    def scalar(self, number: float) -> Value:
        """Add a number of the graph's type."""
        return self.const(np.array(number, self.dtype))

    # Nodes.

    def emit(
        self,
        op_type: str,
        *inputs: Value | None,
        outputs: int = 1,
        domain: str = "",
        batch: bool | None = None,
        **attributes: Any,
    ) -> Any:
        """Write a node and run it; return its output, or all of them where there are several.

        Raises
        ------
        Undrawn
            If onnxruntime does not take it, or what comes out is not finite.
        """
        if not domain and op_type not in OWN and not exists(op_type, self.opset):
            raise Undrawn(op_type)
        names = [self.name() for _ in range(outputs)]
        node = helper.make_node(op_type, [v.name if v is not None else "" for v in inputs], names, domain=domain)
        node.attribute.extend(helper.make_attribute(k, a) for k, a in attributes.items() if a is not None)
        if not self.chance(0.25):
            node.name = self.name(f"{op_type.lower()}_")
        given = [v for v in inputs if v is not None] + self._captured(node)
        arrays = self.run(node, given)
        for a in arrays:
            if a.dtype.kind == "f" and (not np.isfinite(a).all() or a.size == 0):
                raise Undrawn(f"{op_type}: not finite")
        self.nodes.append(node)
        self.domains.add(domain)
        self.used.add(f"{domain}:{op_type}" if domain else op_type)
        moves = any(v.moves for v in given)
        if batch is None:
            batch = any(v.batch for v in given)
        made = [Value(n, a, moves, batch and a.ndim > 0) for n, a in zip(names, arrays, strict=True)]
        return made[0] if outputs == 1 else made

    def chain(self, steps: Sequence[onnx.NodeProto], given: Sequence[Value], *, batch: bool) -> Value:
        """Write several nodes and run them as one: those between which sequences pass.

        Parameters
        ----------
        steps : sequence of onnx.NodeProto
            The nodes; the last one has the output.
        given : sequence of Value
            What they take.
        batch : bool
            Whether the first axis of the result is that of the samples.

        Raises
        ------
        Undrawn
            If onnxruntime does not take them.
        """
        (array,) = run_nodes(steps, given, self.opset)
        self.nodes += steps
        self.used |= {n.op_type for n in steps}
        return Value(steps[-1].output[0], array, any(v.moves for v in given), batch)

    def run(self, node: onnx.NodeProto, given: Iterable[Value]) -> list[Array]:
        """Run one node in onnxruntime."""
        return run_node(node, list(given), self.opset, self.functions)

    def _captured(self, node: onnx.NodeProto) -> list[Value]:
        """Return the values that the subgraphs of a node take from outside."""
        known = {v.name: v for v in [*self.values, *self._weights, *self.extra]}
        own = set(node.input)
        found = []
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inside = {o for n in attribute.g.node for o in n.output} | {i.name for i in attribute.g.input}
                inside |= {t.name for t in attribute.g.initializer}
                taken = [i for n in attribute.g.node for i in n.input] + [o.name for o in attribute.g.output]
                found += [t for t in taken if t not in inside and t not in own]
        return [known[name] for name in dict.fromkeys(found) if name in known]

    extra: tuple[Value, ...] = ()
    """Values that are in no pool yet, which a subgraph may take."""

    def keep(self, v: Value) -> Value:
        """Put a value into the pool, brought to a size and to numbers that a graph can go on with."""
        if v.dtype == self.dtype and v.moves:
            v = self.small(self.tame(v))
        self.values.append(v)
        return v

    def tame(self, v: Value) -> Value:
        """Scale a value down where its numbers are large."""
        largest = float(np.abs(v.array.astype(np.float64)).max(initial=0))
        if largest <= LARGEST:
            return v
        way = self.whole(0, 2)
        if way == 0:
            return self.emit("Tanh", v)
        return self.emit("Mul", v, self.scalar(float(np.round(2.0 / largest, 6)) or 1e-4))

    def small(self, v: Value) -> Value:
        """Reduce the number of entries of a value where there are many."""
        size = v.array.size // (self.count or 1)
        if size <= MOST_ENTRIES:
            return v
        if v.rank == 4 and min(v.shape[2:]) >= 2:
            v = self.emit("AveragePool", v, kernel_shape=[2, 2], strides=[2, 2])
            return self.small(v)
        if v.rank < 2:
            raise Undrawn("a long row")
        axis = int(np.argmax(v.shape[1:])) + 1
        return self.small(self.emit("Slice", v, self.ints(0), self.ints(max(v.shape[axis] // 2, 1)), self.ints(axis)))

    # What recipes ask for.

    def pick(self, *, batch: bool | None = None) -> Value:
        """Return a value of the graph's type that depends on the input: a late one rather than an early one."""
        pool = [v for v in self.values if v.moves and v.dtype == self.dtype and (batch is None or v.batch == batch)]
        if not pool:
            raise Undrawn("nothing that moves")
        if self.chance(0.5):
            return pool[-1]
        return self.any(pool)

    def data(self, rank: int | None = None, least: int = 1) -> Value:
        """Return such a value with this many axes, reshaped where need be.

        Parameters
        ----------
        rank : int, optional
            Number of axes, that of the batch among them; any by default.
        least : int
            Smallest size of the axes behind the first two.
        """
        v = self.pick(batch=True if self.form != "none" else None)
        if rank is None or (v.rank == rank and min(v.shape[2:], default=least) >= least):
            return v
        fitting = [
            u
            for u in self.values
            if u.moves and u.dtype == self.dtype and u.rank == rank and min(u.shape[2:], default=least) >= least
        ]
        if fitting and self.chance(0.6):
            return self.any(fitting)
        return self.ranked(v, rank, least)

    def ranked(self, v: Value, rank: int, least: int = 1) -> Value:
        """Return a value with another number of axes."""
        if rank == v.rank + 1 and least == 1 and v.rank >= 1:
            axis = self.whole(min(1, v.rank), v.rank)
            return self.emit("Unsqueeze", v, self.ints(axis))
        first = [v.shape[0]] if v.rank and self.form != "none" else []
        rest = int(np.prod(v.shape[len(first) :], initial=1))
        behind = rank - len(first)
        sizes = self._factors(rest, behind, least)
        if sizes is None:
            if v.rank != 2 or not first:
                v = self.reshape(v, [*first, rest])
            wanted = max(least, 2) ** max(behind - 1, 1) * self.whole(2, 3)
            v = self.emit("MatMul", v, self.weights(v.shape[-1], wanted, scale=np.sqrt(wanted / max(v.shape[-1], 1))))
            sizes = self._factors(wanted, behind, least)
            if sizes is None:
                raise Undrawn("no such shape")
        return self.reshape(v, [*first, *sizes])

    def _factors(self, size: int, count: int, least: int) -> list[int] | None:
        """Return sizes with this product, those behind the first not below the least."""
        if count <= 0:
            return None
        for _ in range(20):
            left, sizes = size, []
            for _ in range(count - 1):
                fit = [d for d in range(least, left + 1) if left % d == 0]
                if not fit:
                    break
                d = self.any([f for f in fit if f <= 8] or fit)
                sizes.append(d)
                left //= d
            else:
                return [left, *sizes]
        return None

    def reshape(self, v: Value, sizes: Sequence[int]) -> Value:
        """Reshape: by constants, with -1 or 0 for a free batch, or by sizes computed in the graph."""
        target = list(sizes)
        if not v.batch or self.form == "none":
            return self.emit("Reshape", v, self.ints(*target))
        if self.form == "free":
            if len(target) == 2 and self.chance(0.3):
                return self.emit("Flatten", v, axis=1)
            if self.chance(0.2):
                first = self.emit("Slice", self.emit("Shape", v, batch=False), self.ints(0), self.ints(1))
                first = replace(first, moves=False)
                shape = self.emit("Concat", first, self.ints(*target[1:]), axis=0, batch=False)
                return self.emit("Reshape", v, replace(shape, moves=False))
            target[0] = self.any([0, -1]) if v.rank else -1
        elif self.chance(0.4):
            target[-1] = -1
        return self.emit("Reshape", v, self.ints(*target))

    def axis(self, v: Value, least: int = 1) -> int:
        """Return an axis that is not that of the samples, from the front or from the back."""
        first = 1 if v.batch and self.form != "none" else 0
        axes = [i for i in range(first, v.rank) if v.shape[i] >= least]
        if not axes:
            raise Undrawn("no such axis")
        axis = self.any(axes)
        return axis - v.rank if self.chance(0.3) else axis

    def like(self, v: Value) -> Value:
        """Return another value that broadcasts with this one: from the graph, or a constant."""
        alike = [
            u
            for u in self.values
            if u is not v and u.dtype == v.dtype and (u.shape == v.shape or _fits(u.shape, v.shape)) and u.moves
        ]
        if alike and self.chance(0.7):
            return self.any(alike)
        if self.chance(0.3) and v.rank > 1:
            return self.emit(self.any(["Tanh", "Sigmoid", "Neg"]), v)
        shape = [1 if i == 0 or self.chance(0.5) else d for i, d in enumerate(v.shape)]
        return self.weights(*shape[self.whole(0, v.rank - 1) if v.rank else 0 :])

    def positive(self, v: Value, low: float = 0.3) -> Value:
        """Return a value above a number, made from this one."""
        way = self.whole(0, 2)
        made = self.emit("Sigmoid", v) if way == 0 else self.emit("Abs", v) if way == 1 else self.emit("Mul", v, v)
        return self.emit("Add", made, self.scalar(low))

    def between(self, v: Value, bound: float = 0.8) -> Value:
        """Return a value between two numbers, made from this one."""
        return self.emit("Mul", self.emit("Tanh", v), self.scalar(bound))


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Tell whether one shape broadcasts to another."""
    try:
        return len(small) == len(large) and np.broadcast_shapes(small, large) == large
    except ValueError:
        return False


def exists(op_type: str, opset: int) -> bool:
    """Tell whether an operator of the standard exists in an operator set."""
    return onnx.defs.has(op_type) and _since(op_type) <= opset


def _since(op_type: str) -> int:
    if op_type not in _FIRST:
        for schema in onnx.defs.get_all_schemas_with_history():
            if not schema.domain:
                _FIRST[schema.name] = min(_FIRST.get(schema.name, 999), schema.since_version)
    return _FIRST.get(op_type, 999)


_FIRST: dict[str, int] = {}


def type_of(array: Array) -> int:
    """Return the element type of an array, as ONNX numbers it."""
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def run_node(
    node: onnx.NodeProto, given: Sequence[Value], opset: int, functions: Sequence[onnx.FunctionProto] = ()
) -> list[Array]:
    """Run one node alone in onnxruntime, see `run_nodes`."""
    return run_nodes([node], given, opset, functions)


def run_nodes(
    nodes: Sequence[onnx.NodeProto], given: Sequence[Value], opset: int, functions: Sequence[onnx.FunctionProto] = ()
) -> list[Array]:
    """Run some nodes alone in onnxruntime, and return the outputs of the last.

    Raises
    ------
    Undrawn
        If onnxruntime does not take it.
    """
    unique = {v.name: v for v in given}
    graph = helper.make_graph(
        nodes,
        "nodes",
        [helper.make_tensor_value_info(v.name, type_of(v.array), v.shape) for v in unique.values() if v.moves],
        [onnx.ValueInfoProto(name=n) for n in nodes[-1].output],
        [numpy_helper.from_array(v.array, v.name) for v in unique.values() if not v.moves],
    )
    model = make_model(graph, opset, functions)
    try:
        session = open_session(model)
        return [np.asarray(a) for a in session.run(None, {v.name: v.array for v in unique.values() if v.moves})]
    except Exception as error:  # onnxruntime has a family of exceptions of its own
        raise Undrawn(f"{nodes[-1].op_type}: {error}") from error


def make_model(graph: onnx.GraphProto, opset: int, functions: Sequence[onnx.FunctionProto] = ()) -> onnx.ModelProto:
    """Return a model of a graph, with all operator sets that the fuzzer draws from."""
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1), helper.make_opsetid(BLOCKED, 1)]
    if functions:
        opsets.append(helper.make_opsetid(LOCAL, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=list(functions))


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model as its operators are defined, without optimisation."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
