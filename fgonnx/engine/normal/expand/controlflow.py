"""Expand If, Loop and Scan: the taken branch, both branches with a Where, or unrolled iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.folded import folded
from fgonnx.engine.graph.origin import say_why
from fgonnx.engine.graph.values import required
from fgonnx.engine.model.loops import goes_on_after, never_starts, steps_until_false

MOST_STEPS = 512


def inline(op: Emitter, body: ir.Graph, arguments: Sequence[ir.Value], prefix: str) -> list[ir.Value]:
    """Write the nodes of a subgraph, its inputs bound to arguments; return its outputs.

    Values of the outer scope are used as they are.
    """
    bound = dict(zip(body.inputs, arguments, strict=True))
    for name, v in body.initializers.items():
        bound[v] = ir.Value(name=f"{prefix}{name}", shape=v.shape, type=v.type, const_value=v.const_value)
        op.graph.register_initializer(bound[v])
    for node in body:
        op.place(copy_node(node, bound, lambda name: f"{prefix}{name}", shapes=False))
    return [bound.get(v, v) for v in body.outputs]


def replace(graph: ir.Graph, node: ir.Node, results: Sequence[ir.Value | None]) -> None:
    """Take a node out, its outputs replaced; outputs of the graph keep their names through an Identity."""
    for old, new in zip(node.outputs, results, strict=False):
        if new is None:
            continue
        if old.is_graph_output() or new.is_graph_output() or new.is_graph_input():
            new = Emitter(graph, prefix=f"{node.name}/", before=node).Identity(new)
            new.type = old.type
        if old.is_graph_output():
            name = old.name
            old.name = f"{name}::before_expansion"
            new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def expand_if(model: ir.Model, node: ir.Node) -> bool:
    """Inline the branch of a known condition; else compute both and select by Where, if their shapes are equal."""
    graph = model.graph
    op = Emitter(graph, prefix=f"{node.name}/", before=node)
    condition = folded(node.inputs[0])
    branches = {k: node.attributes[k].as_graph() for k in ("then_branch", "else_branch")}
    if condition is not None:
        chosen = branches["then_branch" if condition else "else_branch"]
        replace(graph, node, inline(op, chosen, [], f"{node.name}/"))
        return True
    for a, b in _pairs(branches):
        if a.shape is None or list(a.shape) != list(b.shape or ()) or not isinstance(a.type, ir.TensorType):
            return False
    sides = [inline(op, branch, [], f"{node.name}/{k}/") for k, branch in branches.items()]
    replace(graph, node, [op.Where(node.inputs[0], *pair, name="choice") for pair in zip(*sides, strict=True)])
    return True


def _pairs(branches: Mapping[str, ir.Graph]) -> list[tuple[ir.Value, ir.Value]]:
    return list(zip(branches["then_branch"].outputs, branches["else_branch"].outputs, strict=True))


def expand_loop(model: ir.Model, node: ir.Node) -> bool:
    """Unroll a Loop whose number of steps is known: its trip count, or those until its condition is false."""
    graph, body = model.graph, node.attributes["body"].as_graph()
    if never_starts(node):
        return _without_steps(graph, node)
    trips, go = folded(node.inputs[0]), node.inputs[1]
    started, goes_on = True if go is None else folded(go), goes_on_after(body)
    ends = None if goes_on else 1 if goes_on is False else steps_until_false(node, MOST_STEPS)
    if trips is None and (node.inputs[0] is not None or ends is None):
        return say_why(node, "its number of steps is not constant")
    if started is None or (goes_on is None and ends is None):
        return say_why(node, "its condition may end it before its last step")
    count = min(int(c) for c in (trips, ends) if c is not None)
    if count > MOST_STEPS:
        shown = f"more than {MOST_STEPS}" if count == ends else str(count)
        return say_why(node, f"it has {shown} steps, and loops are unrolled up to {MOST_STEPS}")
    op = Emitter(graph, prefix=f"{node.name}/", before=node)
    replace(graph, node, unrolled_loop(op, node, count, f"{node.name}/"))
    return True


def _without_steps(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace a Loop without steps: it passes on what it is given, and the rows of its steps are none."""
    carried = [required(node, i) for i in range(2, len(node.inputs))]
    op = Emitter(graph, prefix=f"{node.name}/", before=node)
    results: list[ir.Value | None] = [*carried]
    rows = node.attributes["body"].as_graph().outputs[1 + len(carried) :]
    for old, row in zip(node.outputs[len(carried) :], rows, strict=False):
        results.append(None)
        if old.is_graph_output() or old.uses():
            if row.shape is None or row.dtype is None:
                return say_why(node, f"it has no steps, and the sizes of '{row.name}' in its body are not declared")
            # onnxruntime: a size that the body does not declare is none
            sizes = [0, *(d if isinstance(d, int) else 0 for d in row.shape.dims)]
            results[-1] = op.constant(np.zeros(sizes, row.dtype.numpy()))
    replace(graph, node, results)
    return True


def unrolled_loop(op: Emitter, node: ir.Node, count: int, prefix: str) -> list[ir.Value]:
    """Write the steps of a Loop, of which there are `count` and at least one; return what it returns."""
    body = node.attributes["body"].as_graph()
    carried = [required(node, i) for i in range(2, len(node.inputs))]
    scanned: list[list[ir.Value]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    true = op.constant(np.array(True))
    for step in range(count):
        arguments = [op.constant(np.array(step, np.int64)), true, *carried]
        with op.recording() as nodes:
            results = inline(op, body, arguments, f"{prefix}{step}/")
        steps.mark(nodes, node.name or node.op_type, step)
        carried = results[1 : 1 + len(carried)]
        for column, v in zip(scanned, results[1 + len(carried) :], strict=True):
            column.append(v)
    return [*carried, *(_stack(op, column, 0, f"scan_{i}") for i, column in enumerate(scanned))]


def _stack(op: Emitter, column: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
    rows = [op.Unsqueeze(v, [axis], name=f"{name}/row_{i}") for i, v in enumerate(column)]
    return op.Concat(*rows, axis=axis, name=f"{name}/stack")


def expand_scan(model: ir.Model, node: ir.Node) -> bool:
    """Unroll a Scan; its trip count is the size of the scanned axis."""
    source, axis = scanned_axis(node)
    size = source.shape.dims[axis] if source.shape is not None else None
    if not isinstance(size, int):
        return say_why(node, "its number of steps depends on the batch size")
    if not 0 < size <= MOST_STEPS:
        return say_why(node, f"it has {size} steps, and scans are unrolled up to {MOST_STEPS}")
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    replace(model.graph, node, unrolled_scan(op, node, size, f"{node.name}/"))
    return True


def scanned_axis(node: ir.Node) -> tuple[ir.Value, int]:
    """Return a value that a Scan walks along, and the axis of its steps."""
    scans = node.attributes["num_scan_inputs"].as_int()
    return required(node, len(node.inputs) - scans), _per_value(node, "scan_input_axes", scans)[0]


def _per_value(node: ir.Node, name: str, count: int) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else [0] * count


def unrolled_scan(op: Emitter, node: ir.Node, size: int, prefix: str) -> list[ir.Value]:
    """Write the steps of a Scan, of which there are `size` and at least one; return what it returns."""
    body = node.attributes["body"].as_graph()
    scans = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - scans
    outputs = len(body.outputs) - states
    axes, reverse = (_per_value(node, f"scan_input_{name}", scans) for name in ("axes", "directions"))
    out_axes, out_reverse = (_per_value(node, f"scan_output_{name}", outputs) for name in ("axes", "directions"))
    given = [required(node, i) for i in range(len(node.inputs))]
    carried, sources = given[:states], given[states:]
    scanned: list[list[ir.Value]] = [[] for _ in range(outputs)]
    for step in range(size):
        with op.recording() as nodes:
            rows = [
                op.Gather(
                    v, np.array(size - 1 - step if backwards else step, np.int64), axis=axis, name=f"{step}/in_{k}"
                )
                for k, (v, axis, backwards) in enumerate(zip(sources, axes, reverse, strict=True))
            ]
            results = inline(op, body, [*carried, *rows], f"{prefix}{step}/")
        steps.mark(nodes, node.name or node.op_type, step)
        carried = results[:states]
        for column, v in zip(scanned, results[states:], strict=True):
            column.append(v)
    stacked = [
        _stack(op, column[::-1] if out_reverse[i] else column, out_axes[i], f"scan_{i}")
        for i, column in enumerate(scanned)
    ]
    return [*carried, *stacked]


EXPANDERS: dict[str, Callable[[ir.Model, ir.Node], bool]] = {"If": expand_if, "Loop": expand_loop, "Scan": expand_scan}
