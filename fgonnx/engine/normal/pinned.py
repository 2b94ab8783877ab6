"""Whether samples influence each other otherwise than by the scale that a dynamic quantiser takes of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.session import Session
from fgonnx.errors import ModelError

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

_SUFFIX = "::pinned"


def dynamic(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that take one scale for all samples."""
    return [node for node in graph if node.op_type.startswith("DynamicQuantize")]


def scale_note(graph: ir.Graph, coupling: Sequence[ir.Node]) -> str:
    """Say what dynamic quantisers do to the samples of a batch, and which other operators may show for some alone."""
    nodes = dynamic(graph)
    names = [f"'{node.name}'" for node in nodes]
    which = f"{names[0]}, and {len(names) - 1} more, take" if len(names) > 1 else f"{names[0]} takes"
    others = [f"'{node.name}' ({node.op_type})" for node in coupling if node not in nodes]
    also = f"; whether {others[0]} joins samples, too, was tried on random ones alone" if others else ""
    return (
        f"`{nodes[0].op_type}` {which} one scale for all samples of a batch: every sample is explained alone, with "
        f"a scale of its own, and outputs are the model's up to steps of quantisation{also}"
    )


def tangled(
    model: ir.Model,
    folder: Path | None,
    feeds: Sequence[Feeds],
    beside: Callable[[Array, Sequence[Array]], bool],
) -> set[str] | None:
    """Return the outputs of two samples that are not those of either alone where all take the same scales.

    Parameters
    ----------
    model : ir.Model
        The graph; it is not changed.
    folder : Path, optional
        Folder of external weights.
    feeds : sequence of mappings of str to array
        Inputs of two samples together, and of each.
    beside : callable
        Tells whether a result of both is what the two give, side by side.

    Returns
    -------
    set of str or None
        None where it cannot be told.
    """
    nodes = dynamic(model.graph)
    every = [n for n in ir.traversal.RecursiveGraphIterator(model.graph) if n.op_type.startswith("DynamicQuantize")]
    if len(every) > len(nodes) or any(node.domain for node in nodes):
        return None  # scales that are no values of the graph
    scales = [str(v.name) for node in nodes for v in node.outputs[1:3]]
    outputs = [str(v.name) for v in model.graph.outputs]
    try:
        known = Session(_asked(model, scales), folder=folder, providers=["cpu"], optimise=False).run(
            dict(feeds[0]), scales
        )
        session = Session(_pinned(model, nodes), folder=folder, providers=["cpu"], optimise=False)
        fixed = {f"{name}{_SUFFIX}": known[name] for name in scales}
        whole, *alone = (session.run({**one, **fixed}, outputs) for one in feeds)
    except ModelError:
        return None
    return {name for name in outputs if not beside(whole[name], [one[name] for one in alone])}


def _asked(source: ir.Model, names: Sequence[str]) -> ir.Model:
    model = source.clone()
    given = {str(v.name): v for node in model.graph for v in node.outputs}
    kept = {str(v.name) for v in model.graph.outputs}
    for name in names:
        if name not in kept:
            given[name].shape = ir.Shape([])
            model.graph.outputs.append(given[name])
    return model


def _pinned(source: ir.Model, nodes: Sequence[ir.Node]) -> ir.Model:
    """Return a model whose dynamic quantisers take their scales and zero points as inputs."""
    model = source.clone()
    graph, names = model.graph, {node.outputs[0].name for node in nodes}
    for node in [n for n in graph if n.outputs and n.outputs[0].name in names]:
        pins = []
        for v, kind in zip(node.outputs[1:3], (ir.DataType.FLOAT, ir.DataType.UINT8), strict=True):
            pin = ir.Value(name=f"{v.name}{_SUFFIX}", shape=ir.Shape([]), type=ir.TensorType(kind))
            graph.inputs.append(pin)
            v.replace_all_uses_with(pin, replace_graph_outputs=True)
            pins.append(pin)
        q = node.outputs[0]
        fixed = ir.Node("", "QuantizeLinear", [node.inputs[0], *pins], name=node.name, num_outputs=1)
        fixed.outputs[0].type, fixed.outputs[0].shape = q.type, q.shape
        graph.insert_before(node, fixed)
        q.replace_all_uses_with(fixed.outputs[0], replace_graph_outputs=True)
        graph.remove(node)
        fixed.outputs[0].name = q.name
    return model
