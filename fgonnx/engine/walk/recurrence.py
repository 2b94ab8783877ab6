"""The rules of recurrent layers of many steps: cotangents of their states by a Scan backwards in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import content_of, dims_of, producer_of, required, shaped
from fgonnx.engine.normal.tie import DOMAIN
from fgonnx.engine.rules.registry import Cotangent, Local, rule
from fgonnx.engine.walk import backward


@rule("Recurrence", domain=DOMAIN, note="the cotangents of the first step are those of the initial states")
def recurrence(
    op: Emitter,
    ys: tuple[ir.Value, ...],
    *inputs: ir.Value,
    body: ir.Graph,
    num_scan_inputs: int,
    scan_input_directions: Sequence[int] = (),
    scan_output_directions: Sequence[int] = (),
) -> Local:
    """The states before every step."""
    count = len(ys) // 2
    backwards = any(scan_input_directions)

    def vjp(*g: Cotangent) -> Sequence[Cotangent]:
        found: list[Cotangent] = []
        for initial, future in zip(inputs, g[count:], strict=False):
            first = None
            if future is not None and op.is_active(initial):
                at = int(dims_of(future)[0]) - 1 if backwards else 0  # type: ignore[arg-type]
                first = shaped(op.Gather(future, np.array(at, np.int64), axis=0), initial)
            found.append(first)
        return found + [None] * (len(inputs) - count)

    # constant initial states are what the first step adds to what follows from the input
    fixed = [
        None if op.is_active(v) or _is_zero(v) else _only_first(op, v, y, backwards=backwards)
        for v, y in zip(inputs, ys[count:], strict=False)
    ]
    return Local(vjp, [*[None] * count, *fixed])


def _is_zero(v: ir.Value) -> bool:
    node = v.producer()
    found = content_of(v if node is None or node.op_type != "Expand" else node.inputs[0])
    return found is not None and not found.any()


def _only_first(op: Emitter, v: ir.Value, like: ir.Value, *, backwards: bool) -> ir.Value:
    """Return the initial state before the first step, which is the last in time if backwards, and zeros elsewhere."""
    rest = int(dims_of(like)[0]) - 1  # type: ignore[arg-type]
    pads = [rest, 0, 0, 0, 0, 0] if backwards else [0, 0, 0, rest, 0, 0]
    return shaped(op.Pad(op.Unsqueeze(v, [0]), pads), like)


@rule("Feedback", domain=DOMAIN, note="cotangent: that of all later steps, too")
def feedback(op: Emitter, ys: ir.Value | tuple[ir.Value, ...], *inputs: ir.Value) -> Local:
    """The states behind every step."""
    count = len(ys) if isinstance(ys, tuple) else 1

    def vjp(*g: Cotangent) -> Sequence[Cotangent]:
        direct = [op.zeros_like(v) if d is None else d for d, v in zip(g, inputs[:count], strict=True)]
        total = _backwards(op, inputs[count : 2 * count], inputs[2 * count :], direct)
        return [shaped(v, like) for v, like in zip(total, inputs, strict=False)] + [None] * (len(inputs) - count)

    return Local(vjp)


def _backwards(
    op: Emitter, before: Sequence[ir.Value], given: Sequence[ir.Value], direct: Sequence[ir.Value]
) -> Sequence[ir.Value]:
    """Return the cotangents of the states behind every step, (T, N, H) each, given what arrives there directly."""
    node = producer_of(before[0])
    count = len(before)
    direction = 0 if "scan_input_directions" in node.attributes else 1  # against that of the layer
    step = node.attributes["body"].as_graph()
    prefix = op.unique(f"{node.name}/backwards")
    bound = {v: _input(f"{prefix}/{i}", v) for i, v in enumerate(step.inputs)}
    states = [bound[v] for v in step.inputs[:count]]
    future, arriving = ([_input(f"{prefix}/{kind}_{i}", v) for i, v in enumerate(states)] for kind in ("g", "d"))
    rows = [*bound.values(), *arriving]
    body = ir.Graph([*future, *rows], [], nodes=[], opset_imports=dict(op.graph.opset_imports), name=prefix)
    for v in step.initializers.values():
        bound[v] = ir.Value(name=f"{prefix}/{v.name}", type=v.type, shape=v.shape, const_value=v.const_value)
        body.register_initializer(bound[v])
    for each in step:
        body.append(copy_node(each, bound, lambda name: f"{prefix}/{name}", shapes=True))
    nodes = list(body)
    active = backward.active_values(nodes, states)
    inner = Emitter(body, active, prefix=f"{prefix}/", portable=op.portable, openvino=op.openvino)
    total = [shaped(inner.Add(a, b), a) for a, b in zip(future, arriving, strict=True)]
    after = [bound[v] for v in step.outputs[:count]]
    head, seed = after[0], total[0]
    if count > 1:  # one value to walk back from
        head, seed = (inner.Concat(*values, axis=-1) for values in (after, total))
        *dims, size = dims_of(after[0])
        head.shape = seed.shape = ir.Shape([*dims, count * int(size)])  # type: ignore[arg-type]
        nodes.append(producer_of(head))
        active.add(head)
    path, opset = backward.path(nodes, active, head), op.graph.opset_imports[""]
    walked = backward.walk(inner, path, head, seed, opset, op.modify).cotangents
    sent = [walked[v] if v in walked else inner.zeros_like(v) for v in states]
    body.outputs.extend(
        shaped(inner.Identity(v), like) for v, like in zip((*sent, *total), (*states, *total), strict=True)
    )
    _prune(body)
    taken = [*before, *given, *direct]
    initial = [shaped(op.zeros_like(required(node, i)), required(node, i)) for i in range(count)]
    scan = ir.Node(
        "",
        "Scan",
        [*initial, *taken],
        [
            ir.AttrGraph("body", body),
            ir.AttrInt64("num_scan_inputs", len(taken)),
            ir.AttrInt64s("scan_input_directions", [direction] * len(taken)),
            ir.AttrInt64s("scan_output_directions", [direction] * count),
        ],
        num_outputs=2 * count,
        name=prefix,
    )
    for i, v in enumerate(scan.outputs):
        v.name, v.type = f"{prefix}:{i}", initial[0].type
    op.place(scan)
    return scan.outputs[count:]


def _input(name: str, like: ir.Value) -> ir.Value:
    return ir.Value(name=name, type=like.type, shape=like.shape)


def _prune(graph: ir.Graph) -> None:
    """Remove what no output needs, the last nodes first."""
    outputs = set(graph.outputs)
    for node in reversed(list(graph)):
        if not any(v.uses() or v in outputs for v in node.outputs):
            graph.remove(node, safe=True)
