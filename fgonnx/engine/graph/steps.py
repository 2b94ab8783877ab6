"""Which step of a recurrence a node was written for, so that what it adds to the score has a place in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from fgonnx.engine.graph.values import content_of, optional, required

_STEP = "fgonnx.step"


@dataclass(frozen=True)
class Step:
    """A node's place in a recurrence that is written step by step.

    Attributes
    ----------
    layer : str
        The recurrence.
    number : int
        Which of its steps.
    role : tuple of int
        Which node of the step: nodes that do the same at different steps have equal ones.
    """

    layer: str
    number: int
    role: tuple[int, ...]


def mark(nodes: Iterable[ir.Node], layer: str, number: int) -> None:
    """Record that nodes, in order, are those of a step."""
    for i, node in enumerate(nodes):
        mark_one(node, layer, number, i)


def mark_one(node: ir.Node, layer: str, number: int, place: int) -> None:
    """Record that a node is the one at a place of a step."""
    node.meta[_STEP] = Step(layer, number, (place,))


def inherit(nodes: Iterable[ir.Node], source: ir.Node) -> None:
    """Record that nodes, in order, are what a node of a step was written out as; those with a step keep it."""
    step = of(source)
    if step is not None:
        for i, node in enumerate(nodes):
            node.meta.setdefault(_STEP, Step(step.layer, step.number, (*step.role, i)))


def of(node: ir.Node) -> Step | None:
    """Return the step that a node belongs to, None where it belongs to none."""
    found: Step | None = node.meta.get(_STEP)
    return found


@dataclass(frozen=True)
class Read:
    """One entry of an axis that a node takes.

    Attributes
    ----------
    source : ir.Value
        What it is an entry of.
    axis : int
        Along which axis; negative ones are counted from the last.
    position : int
        Which entry; negative ones are counted from the end.
    """

    source: ir.Value
    axis: int
    position: int


def read_by(node: ir.Node) -> Read | None:
    """Return the entry that a node takes, as a Gather, a Slice of one, or a Squeeze of one that a Split has parted."""
    if node.domain or not node.inputs or node.inputs[0] is None:
        return None
    source = node.inputs[0]
    if node.op_type == "Gather":
        index = content_of(optional(node, 1))
        axis = node.attributes.get_int("axis", 0)
        return None if index is None or index.size != 1 else Read(source, axis, int(index.reshape(())))
    if node.op_type == "Slice":
        return _sliced(node, source)
    parted = source.producer() if node.op_type == "Squeeze" else None
    if parted is not None and parted.op_type == "Slice":  # what a Split becomes
        return read_by(parted)
    if parted is None or parted.op_type != "Split" or parted.domain:
        return None
    axis = parted.attributes.get_int("axis", 0)
    if any(v.shape is None or v.shape.dims[axis] != 1 for v in parted.outputs):
        return None
    return Read(required(parted, 0), axis, list(parted.outputs).index(source))


def _sliced(node: ir.Node, source: ir.Value) -> Read | None:
    given = [content_of(optional(node, i)) for i in (1, 2)]
    axes, strides = content_of(optional(node, 3)), content_of(optional(node, 4))
    if any(g is None or g.size != 1 for g in (*given, axes)) or (strides is not None and strides.item() != 1):
        return None
    start, end, axis = (int(g.item()) for g in (*given, axes) if g is not None)
    size = source.shape.dims[axis] if source.shape is not None else None
    last = start == -1 or (isinstance(size, int) and start == size - 1)
    return Read(source, axis, start) if end - start == 1 or (last and end > start and end > 0) else None
