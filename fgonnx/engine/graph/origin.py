"""What a node was written for, and why one could not be expanded: so that refusals name nodes of the model itself."""

from __future__ import annotations

import onnx_ir as ir

_SOURCE = "fgonnx.source"
_WHY = "fgonnx.not_expanded"


def say_why(node: ir.Node, why: str) -> bool:
    """Record why a node could not be expanded, and return False, as an expansion does that changes nothing."""
    node.meta[_WHY] = why
    return False


def why_not(node: ir.Node) -> str | None:
    """Return why a node could not be expanded, None if nothing is known of it."""
    found: str | None = node.meta.get(_WHY)
    return found


def written_for(node: ir.Node, source: ir.Node) -> None:
    """Record that a node stands for one of the model's, or for a part of it."""
    node.meta[_SOURCE] = source.meta.get(_SOURCE) or _described(source)
    if (why := why_not(source)) is not None:
        say_why(node, why)


def remember(node: ir.Node) -> None:
    """Record what a node is, before it becomes a call of what it is written out as."""
    node.meta.setdefault(_SOURCE, _described(node))


def is_written(node: ir.Node) -> bool:
    """Tell whether it is recorded what a node stands for."""
    return _SOURCE in node.meta


def source_of(node: ir.Node) -> tuple[str, str]:
    """Return the name and the operator of the model's node that a node stands for: its own, if it is one of them."""
    name, op_type, _ = node.meta.get(_SOURCE) or _described(node)
    return name, op_type


def tensor_of(v: ir.Value) -> str:
    """Return the name of the model's tensor that a value stands for: its own, if it is one of them."""
    node = v.producer()
    found: tuple[str, str, str] | None = node.meta.get(_SOURCE) if node is not None else None
    return str(v.name) if found is None else found[2]


def _described(node: ir.Node) -> tuple[str, str, str]:
    output = str(node.outputs[0].name)
    return node.name or output, f"{node.domain}.{node.op_type}" if node.domain else node.op_type, output
