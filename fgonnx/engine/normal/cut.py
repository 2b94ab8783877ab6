"""Cutting a graph in normal form: values made outputs, values fed instead of computed, an integer input made real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of, optional, producer_of, required, shaped
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.normal.tie import DOMAIN, resolve_own_nodes

_PREFIX = "cut/"


def fetch(model: ir.Model, values: Sequence[ir.Value]) -> list[str]:
    """Make values the outputs of a graph, and nothing else; return the names of the outputs."""
    graph = model.graph
    graph.outputs.clear()
    op = Emitter(graph, prefix=_PREFIX)
    for v in values:
        graph.outputs.append(shaped(op.Identity(v, name="value"), v))
    names = [str(v.name) for v in graph.outputs]
    resolve_own_nodes(graph)
    graph.sort()
    common.RemoveUnusedNodesPass()(model)
    return names


def force(model: ir.Model, values: Sequence[ir.Value]) -> tuple[list[str], list[str]]:
    """Let all that reads these values read new inputs instead, and make the values the outputs.

    What is rounded is rounded in real numbers, from what is read.

    Returns
    -------
    tuple of list of str
        The names of the new inputs, of which the graph has only those that something reads; the names of the outputs.
    """
    graph = model.graph
    graph.outputs.clear()
    fed = [ir.Value(name=f"{_PREFIX}fed_{i}", shape=v.shape, type=v.type) for i, v in enumerate(values)]
    for v, given in zip(values, fed, strict=True):
        v.replace_all_uses_with(given)
        graph.inputs.append(given)
    op = Emitter(graph, prefix=_PREFIX)
    for node in list(graph):
        if node.domain == DOMAIN and node.op_type == "StraightThrough":
            _requantise(op, node)
        elif node.domain == DOMAIN and node.op_type == "LookUp":
            _look_up_again(op, node)
    names = fetch(model, values)
    for given in fed:
        if not given.uses():
            graph.inputs.remove(given)
    return [str(v.name) for v in fed], names


def free_input(normal: Normal) -> Normal:
    """Make the floating-point copy of an integer input the input, so that it can change by less than one.

    Of ids, the rows that they select become an input of their own, beside the ids. The graph is changed. Where the
    input is not copied, or nothing but the integers is computed from, it stays as it is.
    """
    graph, x = normal.model.graph, normal.x
    if normal.ids is not None:
        return _free_rows(normal)
    cast = x.producer()
    position = [v.name for v in graph.inputs].index(normal.input_name)
    if cast is None or cast.graph is not graph:
        return replace(normal, x=graph.inputs[position])
    free = ir.Value(name=f"{normal.input_name}::free", type=x.type, shape=x.shape)
    x.replace_all_uses_with(free)
    graph.remove(cast, safe=True)
    graph.inputs[position] = free
    return replace(normal, x=free, input_name=str(free.name))


def _free_rows(normal: Normal) -> Normal:
    """Make the rows that ids select an input beside the ids, so that they can change."""
    graph, x = normal.model.graph, normal.x
    free = ir.Value(name=f"{normal.given}::rows", type=x.type, shape=x.shape)
    x.replace_all_uses_with(free)
    graph.inputs.append(free)
    return replace(normal, x=free, input_name=str(free.name))


def selecting(normal: Normal) -> ir.Model:
    """Return the model that computes the rows that ids select, of the inputs that it needs, as its only output."""
    assert normal.selected is not None
    model = normal.model.clone()
    rows = next(v for node in model.graph for v in node.outputs if v.name == normal.selected.name)
    fetch(model, [rows])
    for v in list(model.graph.inputs):
        if not v.uses():
            model.graph.inputs.remove(v)
            model.graph.initializers.pop(str(v.name), None)
    return model


def _requantise(op: Emitter, tie: ir.Node) -> None:
    """Compute the value of a tie from its real-valued operand, not from the integers of the original graph."""
    x, back = required(tie, 0), producer_of(required(tie, 1))
    given = required(back, 0)
    before = given.producer()
    if back.op_type == "Cast":
        back.replace_input_with(0, op.Cast(x, to=dtype_of(given).value))
    elif back.op_type == "DequantizeLinear" and (before is None or before.op_type != "DynamicQuantizeLinear"):
        scale, zero, dtype = required(back, 1), optional(back, 2), dtype_of(given)
        if zero is None:
            zero = op.Expand(op.constant(np.zeros((), dtype.numpy())), op.Shape(scale))
        kept = {n: a.value for n, a in back.attributes.items() if n in ("axis", "block_size")}
        back.replace_input_with(0, op.QuantizeLinear(x, scale, zero, dtype=dtype, domain=back.domain, **kept))


def _look_up_again(op: Emitter, node: ir.Node) -> None:
    """Look a table up at the real-valued operand, rounded."""
    entry = producer_of(required(node, 1))
    gather = entry if entry.op_type == "Gather" else producer_of(required(entry, 0))
    gather.replace_input_with(1, op.Cast(op.Round(required(node, 0)), to=ir.DataType.INT64.value))
