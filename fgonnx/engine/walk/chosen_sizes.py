"""Sizes on the path that values choose: a backward pass is written for fixed sizes, so these are refused by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.normal.sized import Sizes, sizes_of
from fgonnx.engine.rules.registry import Unsupported
from fgonnx.engine.walk.backward import refusal
from fgonnx.errors import Refusal
from fgonnx.wording import parameter

#: What is not constant of an operator, where it is not simply a size.
_WORDS = {
    "Pad": "its pads are not constant: they follow",
    "Resize": "its scales, sizes or region are not constant: they follow",
    "Slice": "its bounds are not constant: they follow",
    "Tile": "its repeats are not constant: they follow",
    "TopK": "its k is not constant: it follows",
}
_COUNTED = "it finds as many entries as the data have, and a data-dependent length has no explanation here"
_BY_MASK = f"Choose by a mask (Where) instead, or explain a tensor before it ({parameter('output')})"


def refused_sizes(normal: Normal, path: Sequence[ir.Node], active: Collection[ir.Value]) -> list[Refusal]:
    """Return the nodes at which a size that follows from values comes onto the path.

    Parameters
    ----------
    normal : Normal
        The model.
    path : sequence of ir.Node
        The nodes on the path from the explained input to the head, in order.
    active : collection of ir.Value
        Values that carry a cotangent.
    """
    sizes, opset = sizes_of(normal.model.graph), normal.model.opset_imports[""]
    found: list[Refusal] = []
    for node in path:
        if any(v in sizes.axes for v in node.inputs if v in active) or not _moving(node, sizes):
            continue
        at = next((v for v in (*node.outputs, *node.inputs) if v in sizes.axes), None)
        if at is not None and sizes.counted(at):
            record = refusal(sizes.origin[at], opset, Unsupported(_COUNTED, _BY_MASK))
        else:
            record = refusal(node, opset, _chosen(normal, node, sizes))
        if record not in found:
            found.append(record)
    return found


def _moving(node: ir.Node, sizes: Sizes) -> bool:
    """Tell whether the result of a node, or what it scatters, has a size that follows from values."""
    scattered = node.inputs[1:] if node.op_type.startswith("Scatter") and not node.domain else ()
    return any(v in sizes.axes for v in (*node.outputs, *scattered))


def _chosen(normal: Normal, node: ir.Node, sizes: Sizes) -> Unsupported:
    result = next(v for v in (*node.outputs, *node.inputs) if v in sizes.axes)
    assert result is not None
    source = sizes.source[result]
    taken = sizes.taken(node) is not None
    words = (_WORDS.get(node.op_type) if taken else None) or "its size is not constant: it follows"
    if not source.is_graph_input():
        return Unsupported(f"{words} from the random numbers '{source.name}'")
    why = f"{words} from the values of the input '{source.name}'"
    if source.name in (normal.given, normal.input_name):
        return Unsupported(why)
    return Unsupported(why, f"Give '{source.name}' a fixed value ({parameter('bind')}), or explain an output before it")
