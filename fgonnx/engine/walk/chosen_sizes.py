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


def refused_sizes(normal: Normal, path: Sequence[ir.Node], active: Collection[ir.Value]) -> list[Refusal]:
    """Return the nodes at which a size that follows from values comes onto the path.

    Sizes that an operator finds, as NonZero does, are left to what reads them; see `fgonnx.engine.rewrite.samples`.

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
        if any(sizes.chosen(v) for v in node.inputs if v in active) or not any(sizes.chosen(v) for v in node.outputs):
            continue
        record = refusal(node, opset, _chosen(normal, node, sizes))
        if record not in found:
            found.append(record)
    return found


def _chosen(normal: Normal, node: ir.Node, sizes: Sizes) -> Unsupported:
    result = next(v for v in node.outputs if sizes.chosen(v))
    source = str(sizes.source[result].name)
    taken = sizes.taken(node) is not None
    words = (_WORDS.get(node.op_type) if taken else None) or "its size is not constant: it follows"
    why = f"{words} from the values of the input '{source}'"
    if source in (normal.given, normal.input_name):
        return Unsupported(why)
    return Unsupported(why, f"Give '{source}' a fixed value ({parameter('bind')}), or explain an output before it")
