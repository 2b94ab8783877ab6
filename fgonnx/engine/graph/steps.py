"""Which step of a recurrence a node was written for, so that what it adds to the score has a place in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

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
