"""Prove that the samples of a batch do not influence each other, operator by operator.

Shapes say where the batch is in every value; what an operator does along that axis is known of it. What is not
known here is not proved: it may still be true, and is then only tried, by running the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.values import content_of
from fgonnx.engine.model.inputs import free_inputs

Dims = tuple[int | ir.SymbolicDim, ...]

_POINTWISE = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "And",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Div",
        "Dropout",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Floor",
        "Gelu",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "Where",
        "Xor",
    ]
)
_BATCH_FIRST = frozenset(
    [
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DepthToSpace",
        "DeformConv",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "GridSample",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LpPool",
        "MaxPool",
        "QLinearConv",
        "SpaceToDepth",
    ]
)
_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_ALONG = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "LpNormalization": -1, "TopK": -1, "Concat": None, "Split": 0}
_EXTREMES = {"ArgMax": 0, "ArgMin": 0}
_BEHIND = frozenset({"LayerNormalization", "RMSNormalization"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
# They may make one value of all samples, or a choice for all of them, that shows for some inputs alone.
_COUPLING = frozenset({*_ALONG, *_EXTREMES, *_BEHIND, "MeanVarianceNormalization", "DynamicQuantizeLinear", "If"}) - {
    "Concat",
    "Split",
}
_SIZED = {"Reshape": 1, "Expand": 1, "Resize": 3}
"""Where an operator takes a size: that may be the number of samples."""


def independent(graph: ir.Graph) -> bool:
    """Tell whether the samples of a graph with exact shapes are proved to be independent."""
    dims = {str(v.name): tuple(v.shape.dims) for v in _values(graph) if v.shape is not None}
    given = all(_axis(dims.get(str(v.name), ())) == 0 for v in free_inputs(graph))
    return given and not unproved(graph, dims) and all(_axis(dims.get(str(v.name), ())) == 0 for v in graph.outputs)


def coupling(graph: ir.Graph, dims: Mapping[str, Dims], known: Mapping[str, Any]) -> list[ir.Node]:
    """Return the operators that may make one value of all samples, or one choice that follows from them.

    Parameters
    ----------
    graph : ir.Graph
        The graph.
    dims : mapping of str to tuple
        Exact shapes, with symbols where the batch is.
    known : mapping of str to array
        Values that depend on shapes and constants alone.
    """
    sampled = {v for v in graph.inputs if _symbols(dims.get(str(v.name), ()))}
    for node in graph:
        if any(v in sampled for v in node.inputs):
            sampled.update(node.outputs)
    return [
        node
        for node in unproved(graph, dims, known)
        if (
            node.inputs[0] in sampled
            if node.op_type == "If"
            else node.op_type in _COUPLING or node.op_type.startswith("Reduce")
        )
    ]


def unproved(graph: ir.Graph, dims: Mapping[str, Dims], known: Mapping[str, Any] | None = None) -> list[ir.Node]:
    """Return the nodes that are not known to leave the samples independent."""
    known = known or {}
    sizes: set[ir.Value] = set()  # that follow from the number of samples
    found = []
    for node in graph:
        taken = node.inputs[:1] if node.op_type == "CastLike" else node.inputs  # the other one gives its type
        inputs = [v for v in taken if v is not None and str(v.name) not in known]
        data = any(_symbols(dims.get(str(v.name), ())) for v in inputs)
        sized = [v for v in inputs if v in sizes]
        if node.op_type in ("Shape", "Size") and not node.domain:
            sizes.update(v for v in node.outputs if str(v.name) not in known)
        elif node.op_type in ("If", "Loop", "Scan", "DynamicQuantizeLinear"):
            found.append(node)
        elif data:
            at = _SIZED.get(node.op_type)
            if any(at is None or node.inputs[at] is not v for v in sized) or not _keeps(node, dims, known):
                found.append(node)
        elif sized:
            made = any(_symbols(dims.get(str(v.name), ())) for v in node.outputs)
            if made and node.op_type not in ("ConstantOfShape", "Expand"):
                found.append(node)
            elif not made:
                sizes.update(node.outputs)
    return found


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]


def _symbols(dims: Dims) -> list[int]:
    return [i for i, d in enumerate(dims) if not isinstance(d, int)]


def _axis(dims: Dims) -> int | None:
    """Return the only axis of the batch; None where there is none, or several."""
    axes = _symbols(dims)
    return axes[0] if len(axes) == 1 else None


class _Node:
    """A node, and where the batch is in what it takes and gives."""

    def __init__(self, node: ir.Node, dims: Mapping[str, Dims], known: Mapping[str, Any]) -> None:
        self.node, self.known = node, known
        taken = node.inputs[:1] if node.op_type == "CastLike" else node.inputs  # the other one gives its type
        self.shapes = [dims.get(str(v.name), ()) if v is not None else () for v in taken]
        self.axes = [_axis(s) for s in self.shapes]
        self.data = [i for i, s in enumerate(self.shapes) if _symbols(s)]
        self.given = [v for v in node.outputs if v.name and (v.uses() or v.is_graph_output())]
        self.results = [dims.get(str(v.name), ()) for v in self.given]

    @property
    def only(self) -> bool:
        """Whether the first input alone holds samples."""
        return self.data == [0]

    def attribute(self, name: str, default: Any) -> Any:
        a = self.node.attributes.get(name)
        return default if a is None else a.value

    def at(self, default: int | None) -> int:
        rank = len(self.shapes[self.data[0]])
        return int(self.attribute("axis", default)) % max(rank, 1)

    def content(self, index: int) -> Any:
        v = self.node.inputs[index] if index < len(self.node.inputs) else None
        return self.known[str(v.name)] if v is not None and str(v.name) in self.known else content_of(v)

    def aligned(self) -> bool:
        """Whether all samples lie on one axis of the result, counted from the last as in broadcasting."""
        here = [len(self.shapes[i]) - int(self.axes[i] or 0) for i in self.data]
        there = [len(s) - int(_axis(s) or 0) for s in self.results]
        return len({*here, *there}) == 1


def _keeps(node: ir.Node, dims: Mapping[str, Dims], known: Mapping[str, Any]) -> bool:
    """Tell whether a node is known to keep samples apart."""
    if node.domain not in ("", "ai.onnx"):
        return False
    n = _Node(node, dims, known)
    if not n.given:
        return True
    if any(n.axes[i] is None for i in n.data) or any(_axis(s) is None for s in n.results):
        return False
    rule = _RULES.get(node.op_type)
    if rule is None and node.op_type.startswith("Reduce"):
        rule = _reduction
    return rule is not None and rule(n)


def _first(n: _Node) -> int:
    return int(n.axes[n.data[0]] or 0)


def _batch_first(n: _Node) -> bool:
    allowed = ([0], [0, 1]) if n.node.op_type == "GridSample" else ([0],)
    whole = len(n.results) == 1  # the second result of a MaxPool counts through the whole batch
    return whole and n.data in allowed and all(n.axes[i] == 0 for i in n.data) and _axis(n.results[0]) == 0


def _quantising(n: _Node) -> bool:
    return n.only and n.aligned()


def _reshape(n: _Node) -> bool:
    before, after = n.shapes[0], n.results[0]
    return n.only and _leading(before) == _leading(after)


def _leading(shape: Dims) -> int:
    return math.prod(d for d in shape[: _symbols(shape)[0]] if isinstance(d, int))


def _transpose(n: _Node) -> bool:
    rank = len(n.shapes[0])
    perm = list(n.attribute("perm", range(rank)[::-1]))
    return bool(perm[_symbols(n.results[0])[0]] == n.axes[0])


def _matmul(n: _Node) -> bool:
    away = {i: len(n.shapes[i]) - int(n.axes[i] or 0) for i in n.data}
    result = len(n.results[0]) - _symbols(n.results[0])[0]
    if any(i > 1 for i in away) or any(a != result for a in away.values()):
        return False
    return (n.only and away[0] >= 2) or (n.data == [1] and away[1] != 2) or min(away.values()) >= 3


def _gemm(n: _Node) -> bool:
    rows = not n.attribute("transA", 0) and n.axes[0] == 0 and _axis(n.results[0]) == 0
    return rows and (n.only or (n.data == [0, 2] and n.axes[2] == 0 and len(n.shapes[2]) == 2))


def _along(n: _Node) -> bool:
    axes = {n.axes[i] for i in n.data}
    return axes == {_axis(s) for s in n.results} and len(axes) == 1 and n.at(_ALONG[n.node.op_type]) not in axes


def _extreme(n: _Node) -> bool:
    return n.at(0) != _first(n)


def _behind(n: _Node) -> bool:
    return n.only and n.at(-1) > _first(n)


def _reduction(n: _Node) -> bool:
    axes = n.attribute("axes", None)
    axes = n.content(1) if axes is None else axes
    return n.only and axes is not None and len(axes) > 0 and _first(n) not in _positive(axes, n)


def _positive(axes: Sequence[int], n: _Node) -> set[int]:
    return {int(a) % len(n.shapes[0]) for a in np.asarray(axes).reshape(-1)}


def _slice(n: _Node) -> bool:
    axes = n.content(3)
    return n.only and axes is not None and _first(n) not in _positive(axes, n)


def _pad(n: _Node) -> bool:
    pads, rank = n.content(1), len(n.shapes[0])
    if pads is None or not n.only:
        return False
    axes = n.content(3)
    places = list(range(rank)) if axes is None else [int(a) % rank for a in axes]
    here = [i for i, a in enumerate(places) if a == _first(n)]
    return all(pads[i] == 0 and pads[i + len(places)] == 0 for i in here)


def _tile(n: _Node) -> bool:
    repeats = n.content(1)
    return n.only and repeats is not None and repeats[_first(n)] == 1


def _resize(n: _Node) -> bool:
    return n.only and n.axes[0] == 0 and n.shapes[0][0] == n.results[0][0]


def _gather(n: _Node) -> bool:
    axis = int(n.attribute("axis", 0))
    return n.data == [1] or (n.only and axis % len(n.shapes[0]) != n.axes[0])


def _gather_elements(n: _Node) -> bool:
    axis, same = int(n.attribute("axis", 0)), n.axes[0] == n.axes[1] == _axis(n.results[0])
    return n.data == [0, 1] and same and axis % len(n.shapes[0]) != n.axes[0]


def _cumulative(n: _Node) -> bool:
    axis = n.content(1)
    return n.only and axis is not None and _first(n) not in _positive(axis, n)


def _trilu(n: _Node) -> bool:
    return n.only and _first(n) < len(n.shapes[0]) - 2


def _recurrent(n: _Node) -> bool:
    sequences = {0: 1, 4: 0, 5: 1, 6: 1}
    return not n.attribute("layout", 0) and all(n.axes[i] == sequences.get(i) for i in n.data)


def _einsum(n: _Node) -> bool:
    equation = str(n.attribute("equation", "")).replace(" ", "")
    if "." in equation or "->" not in equation:
        return False
    terms, result = equation.split("->")
    letters = {terms.split(",")[i][int(n.axes[i] or 0)] for i in n.data}
    return letters == {result[_symbols(n.results[0])[0]]}


_RULES: dict[str, Callable[[_Node], bool]] = {
    **dict.fromkeys(_POINTWISE, _Node.aligned),
    **dict.fromkeys(_BATCH_FIRST, _batch_first),
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(_EXTREMES, _extreme),
    **dict.fromkeys(_BEHIND, _behind),
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(("MatMul", "MatMulInteger"), _matmul),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantising),
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Tile": _tile,
    "Resize": _resize,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "CumSum": _cumulative,
    "Trilu": _trilu,
    "Einsum": _einsum,
}
