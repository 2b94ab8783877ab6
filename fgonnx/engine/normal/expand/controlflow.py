"""If, Loop and Scan written out: the branch that is taken, both branches and a choice, or the steps one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter

MOST_STEPS = 512


def _constant(v: ir.Value | None) -> np.ndarray | None:
    return None if v is None or v.const_value is None or v.is_graph_input() else v.const_value.numpy()


def inline(
    graph: ir.Graph, before: ir.Node, body: ir.Graph, arguments: Sequence[ir.Value | None], prefix: str
) -> list[ir.Value]:
    """Copy the nodes of a subgraph in front of a node, its inputs bound to arguments; return its outputs.

    Values of the outer scope are used as they are.
    """
    bound: dict[ir.Value, ir.Value | None] = dict(zip(body.inputs, arguments, strict=True))
    for name, v in body.initializers.items():
        copy = ir.Value(name=f"{prefix}{name}", shape=v.shape, type=v.type, const_value=v.const_value)
        graph.register_initializer(copy)
        bound[v] = copy
    for node in body:
        attributes = [_rebind(a, bound) for a in node.attributes.values()]
        inputs = [None if v is None else bound.get(v, v) for v in node.inputs]
        copied = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            attributes,
            num_outputs=len(node.outputs),
            name=f"{prefix}{node.name or node.op_type}",
        )
        for old, new in zip(node.outputs, copied.outputs, strict=True):
            new.name = f"{prefix}{old.name}" if old.name else None
            new.type = old.type
            bound[old] = new
        graph.insert_before(before, copied)
    results = []
    for v in body.outputs:
        result = bound.get(v, v)
        assert result is not None
        results.append(result)
    return results


def _rebind(attribute: ir.Attr, bound: Mapping[ir.Value, ir.Value | None]) -> ir.Attr:
    """Copy an attribute; inner subgraphs have their captured values bound too."""
    if attribute.type != ir.AttributeType.GRAPH:
        return attribute
    inner = attribute.as_graph().clone(allow_outer_scope_values=True)
    for node in ir.traversal.RecursiveGraphIterator(inner):
        for i, v in enumerate(node.inputs):
            if v is not None and v in bound:
                node.replace_input_with(i, bound[v])
    for i, v in enumerate(inner.outputs):
        replacement = bound.get(v)
        if replacement is not None:
            inner.outputs[i] = replacement
    return ir.Attr(attribute.name, ir.AttributeType.GRAPH, inner)


def replace(graph: ir.Graph, node: ir.Node, results: Sequence[ir.Value | None]) -> None:
    """Take a node out, its outputs replaced; outputs of the graph keep their names through an Identity."""
    for old, new in zip(node.outputs, results, strict=False):
        if new is None:
            continue
        if old.is_graph_output() or new.is_graph_output() or new.is_graph_input():
            copy = ir.Node("", "Identity", [new], num_outputs=1, name=f"{node.name}/{old.index()}")
            copy.outputs[0].type = old.type
            graph.insert_before(node, copy)
            new = copy.outputs[0]
        if old.is_graph_output():
            name = old.name
            old.name = f"{name}::before_expansion"
            new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def expand_if(model: ir.Model, node: ir.Node) -> bool:
    """Take the branch of a known condition; else compute both and choose, where their shapes allow it."""
    graph = model.graph
    condition = _constant(node.inputs[0])
    branches = {k: node.attributes[k].as_graph() for k in ("then_branch", "else_branch")}
    if condition is not None:
        chosen = branches["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]
        replace(graph, node, inline(graph, node, chosen, [], f"{node.name}/"))
        return True
    if any(list(a.shape or ()) != list(b.shape or ()) or a.shape is None for a, b in _pairs(branches)):
        return False
    sides = [inline(graph, node, branch, [], f"{node.name}/{k}/") for k, branch in branches.items()]
    results = []
    for i, (then, other) in enumerate(zip(*sides, strict=True)):
        choice = ir.Node("", "Where", [node.inputs[0], then, other], num_outputs=1, name=f"{node.name}/choice_{i}")
        choice.outputs[0].name = f"{node.name}/choice_{i}:0"
        graph.insert_before(node, choice)
        results.append(choice.outputs[0])
    replace(graph, node, results)
    return True


def _pairs(branches: Mapping[str, ir.Graph]) -> list[tuple[ir.Value, ir.Value]]:
    return list(zip(branches["then_branch"].outputs, branches["else_branch"].outputs, strict=True))


def expand_loop(model: ir.Model, node: ir.Node) -> bool:
    """Write the steps of a Loop out, where their number is known and its condition stays true."""
    graph, body = model.graph, node.attributes["body"].as_graph()
    trips, go = _constant(node.inputs[0]), node.inputs[1]
    started = _constant(go)
    keeps_going = (
        body.outputs[0] is body.inputs[1]
        or _is_identity_of(body.outputs[0], body.inputs[1])
        or _is_true(body.outputs[0])
    )
    if trips is None or not keeps_going or (go is not None and (started is None or not bool(started.reshape(-1)[0]))):
        return False
    count = int(trips.reshape(-1)[0])
    if not 0 < count <= MOST_STEPS:
        return False
    carried: list[ir.Value | None] = list(node.inputs[2:])
    scanned: list[list[ir.Value]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    op = Emitter(graph, prefix=f"{node.name}/")
    true = op.constant(np.array(True))
    for step in range(count):
        arguments = [op.constant(np.array(step, np.int64)), true, *carried]
        results = inline(graph, node, body, arguments, f"{node.name}/{step}/")
        carried = list(results[1 : 1 + len(carried)])
        for column, v in zip(scanned, results[1 + len(carried) :], strict=True):
            column.append(v)
    stacked = [_stack(graph, node, column, 0, f"{node.name}/scan_{i}") for i, column in enumerate(scanned)]
    replace(graph, node, [*carried, *stacked])
    return True


def _is_identity_of(v: ir.Value, source: ir.Value) -> bool:
    node = v.producer()
    return node is not None and node.op_type == "Identity" and node.inputs[0] is source


def _is_true(v: ir.Value) -> bool:
    array = v.const_value.numpy() if v.const_value is not None else None
    node = v.producer()
    if array is None and node is not None and node.op_type == "Constant" and "value" in node.attributes:
        array = node.attributes["value"].as_tensor().numpy()
    return array is not None and bool(np.all(array))


def _insert(
    graph: ir.Graph, before: ir.Node, op_type: str, inputs: Sequence[ir.Value], name: str, **attributes: int
) -> ir.Value:
    node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), num_outputs=1, name=name)
    node.outputs[0].name = f"{name}:0"
    graph.insert_before(before, node)
    return node.outputs[0]


def _stack(graph: ir.Graph, before: ir.Node, column: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
    axes = Emitter(graph, prefix=f"{name}/").constant(np.array([axis], np.int64))
    rows = [_insert(graph, before, "Unsqueeze", [v, axes], f"{name}/row_{i}") for i, v in enumerate(column)]
    return _insert(graph, before, "Concat", rows, f"{name}/stack", axis=axis)


def expand_scan(model: ir.Model, node: ir.Node) -> bool:
    """Write the steps of a Scan out; their number is the size of the scanned axis."""
    graph, body = model.graph, node.attributes["body"].as_graph()

    def option(name: str, count: int) -> list[int]:
        return list(node.attributes[name].as_ints()) if name in node.attributes else [0] * count

    scans = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - scans
    outputs = len(body.outputs) - states
    axes, reverse = option("scan_input_axes", scans), option("scan_input_directions", scans)
    out_axes, out_reverse = option("scan_output_axes", outputs), option("scan_output_directions", outputs)
    sources = list(node.inputs[states:])
    first = sources[0]
    size = first.shape.dims[axes[0]] if first is not None and first.shape is not None else None
    if not isinstance(size, int) or not 0 < size <= MOST_STEPS:
        return False
    op = Emitter(graph, prefix=f"{node.name}/")
    carried: list[ir.Value | None] = list(node.inputs[:states])
    scanned: list[list[ir.Value]] = [[] for _ in range(outputs)]
    for step in range(size):
        rows: list[ir.Value | None] = []
        for k, source in enumerate(sources):
            assert source is not None
            index = op.constant(np.array(size - 1 - step if reverse[k] else step, np.int64))
            rows.append(_insert(graph, node, "Gather", [source, index], f"{node.name}/{step}/in_{k}", axis=axes[k]))
        results = inline(graph, node, body, [*carried, *rows], f"{node.name}/{step}/")
        carried = list(results[:states])
        for column, v in zip(scanned, results[states:], strict=True):
            column.append(v)
    stacked = [
        _stack(graph, node, column[::-1] if out_reverse[i] else column, out_axes[i], f"{node.name}/scan_{i}")
        for i, column in enumerate(scanned)
    ]
    replace(graph, node, [*carried, *stacked])
    return True


EXPANDERS: dict[str, Callable[[ir.Model, ir.Node], bool]] = {"If": expand_if, "Loop": expand_loop, "Scan": expand_scan}
