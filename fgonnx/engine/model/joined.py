"""Models with an input for each feature, given one input of all of them, as tables hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dims_of
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import LoadedModel

_NAME = "features"
_MOVES = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Expand", "Concat"}
"""Operators that move numbers of any type, of their first input or of all."""
_READS = {"Scaler", "Normalizer", "LinearRegressor", "LinearClassifier"}
"""Operators of ai.onnx.ml that take whole numbers as floats."""
_CHOOSES = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "OneHot", "OneHotEncoder", "Not", "And", "Or"}
_INDICES = {("Gather", 1), ("GatherND", 1), ("GatherElements", 1), ("Where", 0)}


@dataclass(frozen=True)
class Whole:
    """What a graph does with inputs of whole numbers and truth values.

    Attributes
    ----------
    floats : set of ir.Value
        Those that become floats before anything is calculated, and what is moved of them.
    calculated : list of str
        Those of which whole numbers are calculated.
    """

    floats: set[ir.Value]
    calculated: list[str]


def whole(inputs: Sequence[ir.Value]) -> Whole:
    """Tell what becomes of inputs of whole numbers and truth values."""
    first = [v for v in inputs if v.dtype is not None and not v.dtype.is_floating_point()]
    moved = {v: v for v in first}
    waiting = list(first)
    while waiting:
        for node in _moving(v := waiting.pop()):
            for out in node.outputs:
                if out not in moved:
                    moved[out] = moved[v]
                    waiting.append(out)
    kept, before = set(moved), -1
    while len(kept) != before:
        before = len(kept)
        kept = {v for v in kept if all(_as_float(u.node, u.idx, kept) for u in v.uses()) and _whole_of(v, kept)}
    rest = {v for v in moved if v not in kept}
    calculated = [
        str(v.name) for v in first if any(not _chooses(u.node, u.idx) for m in rest if moved[m] is v for u in m.uses())
    ]
    return Whole(kept, calculated)


def _moving(v: ir.Value) -> list[ir.Node]:
    return [u.node for u in v.uses() if _moves(u.node) and (u.idx == 0 or u.node.op_type == "Concat")]


def _moves(node: ir.Node) -> bool:
    """Tell whether a node moves whole numbers, or gives them another type of whole numbers."""
    return node.op_type in _MOVES or (node.op_type == "Cast" and not _to_float(node))


def _to_float(node: ir.Node) -> bool:
    return ir.DataType(node.attributes["to"].as_int()).is_floating_point()


def _as_float(node: ir.Node, at: int, kept: set[ir.Value]) -> bool:
    """Tell whether a node gives the same where its whole numbers are floats."""
    if node.op_type == "Cast" and not _to_float(node):  # to other types, numbers may change
        return node.attributes["to"].as_int() in (ir.DataType.INT32, ir.DataType.INT64) and node.outputs[0] in kept
    if node.op_type == "Cast":
        return True
    if node.op_type == "FeatureVectorizer":
        return all(v in kept for v in node.inputs)
    return node.op_type in _READS or (node.op_type in _MOVES and all(v in kept for v in node.outputs))


def _whole_of(v: ir.Value, kept: set[ir.Value]) -> bool:
    """Tell whether a value is an input, or moved from others that become floats, all of them."""
    node = v.producer()
    return node is None or all(u in kept for u in (node.inputs if node.op_type == "Concat" else node.inputs[:1]))


def _chooses(node: ir.Node, at: int) -> bool:
    """Tell whether a node has the number for an index or a condition, or moves it to one."""
    return _moves(node) or node.op_type in _CHOOSES or (node.op_type, at) in _INDICES


def single(graph: ir.Graph) -> list[ir.Value]:
    """Return the inputs that hold one value for each sample: (N,), (N, 1) and so on."""
    return [v for v in free_inputs(graph) if v.shape is not None and dims_of(v) and all(d == 1 for d in dims_of(v)[1:])]


def joined(loaded: LoadedModel, names: Sequence[str]) -> LoadedModel:
    """Return a model that takes the values of all its inputs as (N, features), of the type of its widest floats.

    Parameters
    ----------
    loaded : LoadedModel
        The model, all of whose free inputs hold one number for each sample; it is not changed.
    names : sequence of str
        These inputs, in the order of the features.
    """
    model = loaded.ir.clone()
    graph = model.graph
    inputs = {str(v.name): v for v in free_inputs(graph)}
    taken = {str(v.name) for node in graph for v in node.outputs} | {str(v.name) for v in graph.inputs}
    taken |= {str(name) for name in graph.initializers}
    taken = {t.partition("/")[0] for t in taken}
    name = next(n for n in (_NAME, *(f"{_NAME}_{i}" for i in range(len(taken) + 1))) if n not in taken)
    floats = whole(list(inputs.values())).floats
    wide = any(v.dtype == ir.DataType.DOUBLE for v in inputs.values())
    kind = ir.DataType.DOUBLE if wide else ir.DataType.FLOAT
    batch = next((d for v in inputs.values() if not isinstance(d := dims_of(v)[0], int)), dims_of(inputs[names[0]])[0])
    x = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape([batch, len(names)]))
    kept = [v for v in graph.inputs if v not in inputs.values()]
    op = Emitter(graph, prefix=f"{name}/", before=next(iter(graph)))
    for i, own in enumerate(inputs[n] for n in names):
        column = op.Gather(x, [i], axis=1)
        if len(dims_of(own)) != 2:
            column = op.Reshape(column, [-1, *[1] * (len(dims_of(own)) - 1)])
        if own.dtype not in (None, kind) and own not in floats:
            column = op.Cast(column, to=own.dtype)
        own.replace_all_uses_with(column, replace_graph_outputs=True)
    for value in floats:
        value.type = ir.TensorType(kind)
        if (node := value.producer()) is not None and node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(kind))
    graph.inputs.clear()
    graph.inputs.extend([x, *kept])
    return replace(loaded, ir=model, columns=tuple(names))
