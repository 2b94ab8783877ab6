"""A smaller graph with the same fault: outputs and nodes are left out as long as the verdict stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.fuzz.builder import open_session, type_of
from benchmarks.fuzz.draw import Drawn, with_model
from benchmarks.fuzz.judge import WRONG
from benchmarks.fuzz.run import Worker

_TRIES = 120


def shrink(drawn: Drawn, worker: Worker) -> Drawn:
    """Return the smallest graph found by leaving out one thing at a time."""
    wanted = worker.run(drawn).verdict
    tries = 0
    smaller = True
    while smaller and tries < _TRIES:
        smaller = False
        for candidate in _candidates(drawn):
            tries += 1
            if tries > _TRIES:
                break
            found = worker.run(candidate).verdict
            if found.outcome == WRONG and found.reason == wanted.reason:
                drawn, smaller = candidate, True
                break
    return drawn


def _candidates(drawn: Drawn) -> Iterator[Drawn]:
    """Yield graphs with one output or some nodes less."""
    graph = drawn.model.graph
    for i in range(1, len(graph.output)):
        model = _copy(drawn.model)
        del model.graph.output[i]
        yield with_model(drawn, pruned(model))
    values = _values(drawn)
    head = graph.output[0].name
    for node in graph.node:  # end earlier
        for name in node.output:
            if name in values and name != head and values[name].dtype.kind == "f" and values[name].ndim:
                yield with_model(drawn, pruned(_ending(drawn.model, name, values[name])))
    for node in reversed(graph.node):  # a constant, or an operand, in place of what a node computes
        if len(node.output) != 1 or node.output[0] not in values or node.output[0] == head:
            continue
        array = values[node.output[0]]
        for name in node.input:
            if name in values and values[name].shape == array.shape and values[name].dtype == array.dtype:
                yield with_model(drawn, pruned(_without(drawn.model, node, name)))
        if node.op_type != "Constant" and drawn.form != "free":
            yield with_model(drawn, pruned(_without(drawn.model, node, None, array)))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    found = onnx.ModelProto()
    found.CopyFrom(model)
    return found


def _values(drawn: Drawn) -> dict[str, np.ndarray]:
    """Return what every value of a graph is."""
    model = _copy(drawn.model)
    have = {o.name for o in model.graph.output}
    names = [o for n in model.graph.node for o in n.output if o and o not in have]
    model.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names)
    try:
        session = open_session(model)
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, drawn.feeds), strict=True))
    except Exception:  # onnxruntime has a family of exceptions of its own
        return {}
    arrays = {k: np.asarray(v) for k, v in found.items() if not isinstance(v, list)}
    return {**drawn.feeds, **arrays}


def _ending(model: onnx.ModelProto, name: str, array: np.ndarray) -> onnx.ModelProto:
    found = _copy(model)
    first = found.graph.output[0].type.tensor_type.shape.dim
    dims: list[int | str] = list(array.shape)
    if first and first[0].dim_param:
        dims[0] = first[0].dim_param
    del found.graph.output[:]
    found.graph.output.append(helper.make_tensor_value_info(name, type_of(array), dims))
    return found


def _without(
    model: onnx.ModelProto, node: onnx.NodeProto, by: str | None, array: np.ndarray | None = None
) -> onnx.ModelProto:
    found = _copy(model)
    old = node.output[0]
    for n in list(found.graph.node):
        if list(n.output) == list(node.output):
            found.graph.node.remove(n)
    if by is None:
        assert array is not None
        found.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), old))
        return found
    for n in found.graph.node:
        for i, name in enumerate(n.input):
            if name == old:
                n.input[i] = by
    return found


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove nodes and constants that no output needs, and inputs but the explained one."""
    needed = {o.name for o in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if any(o in needed for o in node.output):
            kept.append(node)
            needed.update(node.input)
            for a in node.attribute:
                if a.type == onnx.AttributeProto.GRAPH:
                    needed.update(i for n in a.g.node for i in n.input)
                    needed.update(o.name for o in a.g.output)
    nodes, tensors = kept[::-1], [t for t in model.graph.initializer if t.name in needed]
    inputs = [i for i in model.graph.input if i.name in needed or i.name == "x"]
    for field, items in (("node", nodes), ("initializer", tensors), ("input", inputs)):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del getattr(model.graph, field)[:]
        getattr(model.graph, field).extend(copies)
    return model


def save(drawn: Drawn, folder: Path, why: str) -> Path:
    """Write a graph as ONNX text and as a file, with its inputs and what is wrong about it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{drawn.name}.txt"
    comment = "".join(f"// {line}\n" for line in why.splitlines())
    path.write_text(comment + onnx.printer.to_text(drawn.model), encoding="utf-8")
    onnx.save(drawn.model, folder / f"{drawn.name}.onnx")
    np.savez(folder / f"{drawn.name}.npz", **drawn.feeds)  # type: ignore[arg-type]
    return path
