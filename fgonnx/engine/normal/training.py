"""Refuse what a model left in training mode computes: batch statistics, dropped entries, random numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import inputs_of
from fgonnx.errors import Refusal, UnsupportedError

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_EXPORT = "Export the model for inference (model.eval() in PyTorch), or explain a tensor before it (output=)"


def refuse_training(model: ir.Model, output: str | None = None) -> None:
    """Requires: no functions. Ensures: what is explained is a function of the inputs, each sample for itself.

    Parameters
    ----------
    model : ir.Model
        The model.
    output : str, optional
        Name of the value that is explained; the first floating-point output by default.

    Raises
    ------
    UnsupportedError
        If nodes in training mode, or random numbers, lead to it; all are named.
    """
    version = model.opset_imports.get("", 1)
    found = [
        Refusal(node.name or str(node.outputs[0].name), node.op_type, version, why, _EXPORT)
        for node in _ancestors(model.graph, output)
        if not node.domain and (why := _training(node))
    ]
    if found:
        raise UnsupportedError(found)


def random_values(graph: ir.Graph) -> set[ir.Value]:
    """Return the values that differ from run to run."""
    found: set[ir.Value] = set()
    for node in graph:
        if _draws(node) or any(v in found for v in inputs_of(node)):
            found.update(node.outputs)
    return found


def _training(node: ir.Node) -> str:
    if node.op_type in RANDOM:
        return "it draws random numbers: what is computed with them is not a function of the input"
    if node.op_type == "Dropout" and _draws(node):
        return "it is in training mode: it drops entries at random"
    if node.op_type == "BatchNormalization" and _batch_statistics(node):
        return "it is in training mode: it normalises by the statistics of the batch"
    return ""


def _draws(node: ir.Node) -> bool:
    if node.domain or node.op_type not in {*RANDOM, "Dropout"}:
        return False
    return node.op_type in RANDOM or (len(node.inputs) > 2 and bool(np.any(_content(node.inputs[2]))))


def _batch_statistics(node: ir.Node) -> bool:
    if "training_mode" in node.attributes:
        return bool(node.attributes["training_mode"].as_int())
    return sum(bool(v.name) for v in node.outputs) > 1  # before opset 14


def _content(v: ir.Value | None) -> npt.NDArray[np.bool_]:
    """Return the content of a constant; False where it is unknown, which the operator's rule refuses."""
    node = v.producer() if v is not None else None
    tensor = v.const_value if v is not None else None
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()
    return np.zeros(1, bool) if tensor is None else np.asarray(tensor.numpy(), bool)


def _ancestors(graph: ir.Graph, output: str | None) -> list[ir.Node]:
    """Return the nodes that lead to the value explained other than through a shape, in order."""
    floating = [v for v in graph.outputs if v.dtype is None or v.dtype.is_floating_point()]
    named = [v for v in (*graph.outputs, *(v for n in graph for v in n.outputs)) if v.name == output]
    needed = set(named[:1] or floating[:1] or graph.outputs[:1])
    found = []
    for node in reversed(list(graph)):
        if any(v in needed for v in node.outputs):
            found.append(node)
            needed.update(inputs_of(node))
    return found[::-1]
