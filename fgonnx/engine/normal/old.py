"""Operators of old opsets that onnx's converter cannot raise, written as those of the opset that it raises to.

The meanings are those of onnxruntime, which runs the file as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from fgonnx.engine.graph.values import content_of, optional, required
from fgonnx.errors import Refusal, UnsupportedError

NEWER = "fgonnx.newer"
"""Domain of operators that the source's opset does not have, which onnx's converter is not to see."""


class _Writer:
    """Writes nodes of the opset to come in front of one of the file.

    Parameters
    ----------
    node : ir.Node
        The node that they stand for; what is written begins with its name.
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.name = node.name or str(node.outputs[0].name)
        self._count, self._named = 0, False

    def add(self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> list[ir.Value]:
        """Write a node, and return its outputs."""
        self._count += 1
        name = f"{self.name}/{op_type}_{self._count}"
        if op_type == self.node.op_type and not self._named:  # it is the node that messages are about
            name, self._named = self.name, True
        made = ir.node(op_type, inputs, attributes, domain=NEWER, num_outputs=outputs, name=name)
        for i, v in enumerate(made.outputs):
            v.name = f"{made.name}:{i}"
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, made)
        return list(made.outputs)

    def one(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Write a node of one output, and return it."""
        return self.add(op_type, *inputs, **attributes)[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Write a constant."""
        return self.one("Constant", value=ir.tensor(array))

    def replace(self, values: Sequence[ir.Value | None]) -> None:
        """Put values in the place of the node's outputs, and take it out."""
        node, graph = self.node, self.node.graph
        assert graph is not None
        for old, new in zip(node.outputs, values, strict=False):
            if new is None:
                continue
            name, declared, shape = old.name, old.type, old.shape
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            old.name = None
            new.name, new.type, new.shape = name, declared, shape
        graph.remove(node, safe=True)


def write_anew(model: ir.Model, version: int) -> None:
    """Replace what the converter cannot raise. Requires: no functions. The model is modified."""
    for node in list(RecursiveGraphIterator(model.graph)):
        for (op_type, first, last), writer in _OLD.items():
            if not node.domain and node.op_type == op_type and first <= version <= last:
                writer(node, version)
                model.opset_imports[NEWER] = 1


def _hardmax(node: ir.Node, version: int) -> None:
    """Of a matrix: the axes before `axis`, by those from it on."""
    axis = node.attributes.get_int("axis", 1)
    if axis == -1:
        return
    w = _Writer(node)
    x = required(node, 0)
    largest = w.one("Hardmax", w.one("Flatten", x, axis=axis), axis=-1)
    w.replace([w.one("Reshape", largest, w.one("Shape", x))])


def _resize(node: ir.Node, version: int) -> None:
    """The nearest entry is the one at ceil(i / scale) along axes that shrink, at floor(i / scale) along others."""
    mode = node.attributes.get_string("mode", "nearest")
    scales = required(node, 1)
    known = content_of(scales)
    if mode != "nearest" or (known is not None and np.all(known >= 1)):
        return
    w = _Writer(node)
    kept: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    one: ir.Value = w.constant(np.ones(1, np.float32))
    shrunk = w.one("Resize", required(node, 0), None, w.one("Min", scales, one), nearest_mode="ceil", **kept)
    if known is None or np.any(known > 1):
        shrunk = w.one("Resize", shrunk, None, w.one("Max", scales, one), nearest_mode="floor", **kept)
    w.replace([shrunk])


def _normalisation(node: ir.Node, version: int) -> None:
    """With statistics for every entry of a sample (spatial=0): (x - m) / sqrt(v + epsilon) s + b."""
    if "spatial" not in node.attributes or node.attributes["spatial"].as_int() or len(node.outputs) > 1:
        return
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    w = _Writer(node)
    x, s, b, m, v = (required(node, i) for i in range(5))
    deviation = w.one("Sqrt", w.one("Add", v, w.constant(np.array(epsilon, np.float32))))
    w.replace([w.one("Add", w.one("Mul", w.one("Div", w.one("Sub", x, m), deviation), s), b)])


def _dropout(node: ir.Node, version: int) -> None:
    """Outside training nothing is dropped, and the mask is of zeros."""
    if len(node.outputs) < 2 or not (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return
    w = _Writer(node)
    x = required(node, 0)
    empty: np.ndarray = np.zeros(1, np.bool_ if version >= 10 else np.float32)
    w.replace([w.one("Identity", x), w.one("ConstantOfShape", w.one("Shape", x), value=ir.tensor(empty))])


def _scan(node: ir.Node, version: int) -> None:
    """Over the second axis of every sample: a Scan over samples of a Scan over steps."""
    if optional(node, 0) is not None:
        why = "it takes sequence lengths, which later versions of the operator do not"
        name = node.name or str(node.outputs[0].name)
        raise UnsupportedError([Refusal(name, "Scan", version, why, "Export the model with opset 9 or newer")])
    w = _Writer(node)
    body = node.attributes["body"].as_graph()
    count = node.attributes["num_scan_inputs"].as_int()
    given = [required(node, i) for i in range(1, len(node.inputs))]
    within = [ir.Value(name=f"{w.name}/sample/{v.name}", type=v.type) for v in body.inputs]
    inner = ir.Node("", "Scan", within, [ir.AttrGraph("body", body)], num_outputs=len(body.outputs), name=w.name)
    inner.domain = NEWER
    inner.attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", count)
    if "directions" in node.attributes:
        inner.attributes["scan_input_directions"] = ir.AttrInt64s(
            "scan_input_directions", list(node.attributes["directions"].as_ints())
        )
    for v, result in zip(inner.outputs, body.outputs, strict=True):
        v.name, v.type = f"{w.name}/sample/{result.name}", result.type
    samples = ir.Graph(within, inner.outputs, nodes=[inner], name=f"{w.name}/samples")
    node.attributes.pop("body")
    w.replace(w.add("Scan", *given, outputs=len(inner.outputs), body=samples, num_scan_inputs=len(given)))


_OLD: dict[tuple[str, int, int], Callable[[ir.Node, int], None]] = {
    ("BatchNormalization", 7, 8): _normalisation,
    ("Dropout", 7, 11): _dropout,
    ("Hardmax", 1, 12): _hardmax,
    ("Resize", 10, 10): _resize,
    ("Scan", 8, 8): _scan,
}
"""By operator and the first and last opset, what it is written as."""
