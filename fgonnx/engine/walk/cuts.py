"""Whether the path from the explained input to the head is whole: what reaches the head without a cotangent.

Every value that depends on the input and that the head depends on carries a cotangent, except behind a declared cut: a
condition, a comparison, an index, a shape, or the scale that a quantiser picks. Those are held fixed, and listed.
Anything else would be a constant in silence, over which every certificate closes; it is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from fgonnx.engine.graph.origin import source_of, tensor_of, why_not
from fgonnx.engine.graph.stepping import steps
from fgonnx.engine.graph.values import CONTENT, inputs_of
from fgonnx.engine.normal.levels import HOLDS
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.normal.tie import DOMAIN, is_step
from fgonnx.engine.rules.registry import Unsupported
from fgonnx.engine.walk.backward import FLOATING, differentiable, refusal
from fgonnx.engine.walk.declared import (
    COMPARISON,
    CONDITION,
    IDS,
    INDEX,
    ROUNDED,
    SCALE,
    SHAPE,
    STEP,
    STEPS,
    TABLE,
    choices,
    declared_input,
    passed_through,
)
from fgonnx.errors import Refusal, UnsupportedError

_SHOWN = 3
"""How many nodes a note names before it counts the others."""

#: What is said of nodes of one kind of cut: of one of them, of several.
_WORDS = {
    INDEX: ("chooses by index; its choice is held fixed", "choose by index; their choices are held fixed"),
    CONDITION: (
        "chooses by a condition; its choice is held fixed",
        "choose by a condition; their choices are held fixed",
    ),
    COMPARISON: ("compares; its outcome is held fixed", "compare; their outcomes are held fixed"),
    SHAPE: (
        "takes a size that depends on the input; it is held fixed",
        "take sizes that depend on the input; they are held fixed",
    ),
    STEP: (
        "is constant between its steps; its derivative is 0",
        "are constant between their steps; their derivatives are 0",
    ),
    ROUNDED: (
        "is passed straight through as a quantiser",
        "are passed straight through as quantisers",
    ),
    TABLE: (
        "looks up a table by numbers; its slope is that between neighbouring entries",
        "look up tables by numbers; their slopes are those between neighbouring entries",
    ),
    IDS: (
        "is a step between ids; its outcome is held fixed",
        "are steps between ids; their outcomes are held fixed",
    ),
    SCALE: (
        "takes its scale from the input; it is held fixed",
        "take their scales from the input; they are held fixed",
    ),
}

# Quantised values are numbers; what is looked up by them is a function of them.
_LOOKS_UP = {"Gather", "GatherElements", "GatherND", "OneHot", "Scatter", "ScatterElements", "ScatterND"}


@dataclass
class Cuts:
    """What lies between input and head without a cotangent.

    Attributes
    ----------
    refusals : list of Refusal
        The nodes at which the path breaks off.
    held : dict of tuple of str to list of str
        By operator and kind of cut, the nodes whose choice is held fixed.
    """

    refusals: list[Refusal] = field(default_factory=list)
    held: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def hold(self, op_type: str, kind: str, name: str) -> None:
        """Record that the choice of a node is held fixed, once."""
        names = self.held.setdefault((op_type, kind), [])
        if name not in names:
            names.append(name)

    def notes(self) -> list[str]:
        """Return what is held fixed, in words."""
        return [_note(op_type, kind, names) for (op_type, kind), names in self.held.items()]


@dataclass(frozen=True)
class Origin:
    """What values stand for that were written beside the model's own.

    Attributes
    ----------
    inputs : tuple of ir.Value
        Model inputs that the sources are copies of.
    counterparts : collection of ir.Value
        Values that have a real-valued twin: what reads them instead of the twin loses the cotangent.
    steps : collection of ir.Node
        Nodes at which numbers that are computed from ids end in choices.
    """

    inputs: tuple[ir.Value, ...] = ()
    counterparts: Collection[ir.Value] = ()
    steps: Collection[ir.Node] = ()

    @classmethod
    def of(cls, normal: Normal) -> Origin:
        """Return what a normal form has beside the model's own values."""
        copied = (v for v in normal.model.graph.inputs if v.name == normal.input_name and v is not normal.x)
        ends = steps(normal.model.graph, normal.ids).nodes if normal.ids is not None else ()
        return cls(tuple(copied), frozenset(normal.counterparts), ends)


def find(
    nodes: Sequence[ir.Node],
    sources: Sequence[ir.Value],
    active: Collection[ir.Value],
    head: ir.Value,
    opset: int,
    origin: Origin | None = None,
) -> Cuts:
    """Follow everything that the head depends on back to the sources.

    Parameters
    ----------
    nodes : sequence of ir.Node
        The graph, in order.
    sources : sequence of ir.Value
        What is differentiated by.
    active : collection of ir.Value
        Values that carry a cotangent where they lead to the head.
    head : ir.Value
        What is explained.
    opset : int
        Version of the default operator set.
    origin : Origin, optional
        What was written beside the model's own values.
    """
    origin = origin or Origin()
    depends = dependent(nodes, [*sources, *origin.inputs])
    ends = set(sources)
    moving = {*active, *origin.counterparts, *origin.inputs}
    found = Cuts()
    needed = {head} & depends
    for node in reversed(nodes):
        reached = [(i, v) for i, v in enumerate(node.outputs) if v in needed and v not in ends]
        if not reached:
            continue
        name, op_type = source_of(node)
        if node in origin.steps:
            found.hold(op_type, IDS, name)
            continue
        chosen, kind = choices(node)
        # The steps within an operator that is written out, as the places of GridSample, are not those of its result;
        # those in the body of a loop are steps of the model.
        own = op_type in (*STEPS, *HOLDS) or op_type.endswith("QuantizeLinear")
        stepping = node.op_type in STEPS and own and not node.domain
        if is_step(node) or (stepping and any(v in active for v in node.inputs)):
            found.hold(_within(node, op_type), STEP, name)
        elif node.domain == DOMAIN and (said := passed_through(node, op_type)):
            found.hold(_within(node, op_type), said, name)
        if any(i in chosen for i, _ in reached) or (node.op_type == "TopK" and not node.domain):
            found.hold(op_type, kind, name)
        if all(i in chosen for i, _ in reached):
            continue
        carries = any(v in active for v in node.outputs)
        for slot, v in _taken(node):
            if v not in depends:
                continue
            declared = declared_input(node, slot)
            if declared is None and (v not in moving or (v in active and carries)):
                needed.add(v)
            elif declared is None or (v in origin.counterparts and node.op_type in _LOOKS_UP):
                record = refusal(node, opset, _lost(node, v, v in active, declared))
                if record not in found.refusals:
                    found.refusals.append(record)
            elif declared:
                found.hold(op_type, declared, name)
    found.refusals.reverse()
    found.held = {k: names[::-1] for k, names in reversed(found.held.items()) if names}
    return found


def require_whole(
    nodes: Sequence[ir.Node],
    sources: Sequence[ir.Value],
    active: Collection[ir.Value],
    head: ir.Value,
    opset: int,
    origin: Origin | None = None,
) -> None:
    """Refuse a graph in which something leads from the sources to the head without a cotangent.

    Raises
    ------
    UnsupportedError
        Naming every node at which the path breaks off.
    """
    if refusals := find(nodes, sources, active, head, opset, origin).refusals:
        raise UnsupportedError(refusals)


def dependent(nodes: Sequence[ir.Node], sources: Sequence[ir.Value]) -> set[ir.Value]:
    """Return all values whose content depends on the sources, of whatever type."""
    found = set(sources)
    for node in nodes:
        if any(v in found for _, v in _taken(node)):
            found.update(node.outputs)
    return found


def _taken(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """Yield the inputs whose content a node takes, with their places; -1 for what its subgraphs take."""
    given = [(i, v) for i, v in enumerate(node.inputs) if v is not None]
    if node.op_type == "DynamicQuantizeLinear":
        yield from given
        return
    taken = inputs_of(node)
    own = sum(v is not None for v in node.inputs[: CONTENT.get(node.op_type) if not node.domain else None])
    yield from given[:own]
    yield from ((-1, v) for v in taken[own:])


def _within(node: ir.Node, op_type: str) -> str:
    """Return the operator that a note is about: where it stands in the body of a loop, both."""
    if op_type not in HOLDS:
        return op_type
    real = node.inputs[1].producer() if node.domain == DOMAIN and node.inputs[1] is not None else node
    return f"{(real or node).op_type} in {op_type}"


def _lost(node: ir.Node, v: ir.Value, active: bool, declared: str | None) -> Unsupported:
    if why := why_not(node):
        return Unsupported(why, FLOATING)
    kind = "unknown" if v.dtype is None else v.dtype.name.lower()
    if declared is not None:
        return Unsupported(f"it looks up a table by {kind} values that are numbers, not places", FLOATING)
    if not active:
        return Unsupported(f"it computes with {kind} values, and has no counterpart in real numbers here", FLOATING)
    out = next((o for o in node.outputs if not differentiable(o)), node.outputs[0])
    given = "unknown" if out.dtype is None else out.dtype.name.lower()
    return Unsupported(
        f"its output holds {given} values, which carry no gradient",
        f"Explain the tensor '{tensor_of(v)}' instead (output=)",
    )


def _note(op_type: str, kind: str, names: Sequence[str]) -> str:
    one, several = _WORDS[kind]
    shown = ", ".join(f"'{n}'" for n in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"`{op_type}` {shown}{more} {one if len(names) == 1 else several}"
