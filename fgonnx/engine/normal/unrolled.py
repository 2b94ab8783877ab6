"""Find recurrences that an exporter has written out: a cell called in a loop, of which the file has every step.

The steps read the entries of one axis, each one of its own, do the same with the same weights, and each reads what the
one before it has left. What follows the last step, such as a dense head, is no part of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.values import inputs_of

_SMALL = 16  # entries of a constant that is no weight
_FEWEST = 4  # steps of a recurrence: of fewer, no two in the middle tell that they do the same

Signature = tuple[str, str, tuple[str, ...]]


def mark_steps(graph: ir.Graph) -> None:
    """Requires: exact shapes. Ensures: the nodes of such steps are marked with them, in the order of the axis."""
    nodes = list(graph)
    read: dict[tuple[ir.Value, int], dict[int, ir.Node]] = {}
    for node in nodes:
        if steps.of(node) is not None or (taken := steps.read_by(node)) is None or taken.source.shape is None:
            continue
        source, axis = taken.source, taken.axis % taken.source.shape.rank()
        size = taken.source.shape.dims[axis]
        if isinstance(size, int) and size >= _FEWEST:
            read.setdefault((source, axis), {})[taken.position % size] = node
    for number, ((source, axis), found) in enumerate(read.items()):
        if source.shape is not None and len(found) == source.shape.dims[axis]:
            _mark(nodes, found, f"{source.name}/{number}")


def _mark(nodes: Sequence[ir.Node], found: dict[int, ir.Node], layer: str) -> None:
    """Mark the steps that read these entries, if they are those of a recurrence."""
    nearest = _nearest(nodes, found)
    behind: list[list[ir.Node]] = [[] for _ in found]
    for node in nodes:
        if node in nearest:
            behind[nearest[node][1]].append(node)
    for order in (range(len(found)), range(len(found) - 1, -1, -1)):
        usual = [_signature(node) for node in behind[order[1]]]
        if any([_signature(node) for node in behind[t]] != usual for t in order[1:-1]):
            continue
        if _follow([behind[t] for t in order]):
            for t, step in zip(order, _placed([behind[t] for t in order], usual), strict=True):
                for node, place in step:
                    steps.mark_one(node, layer, t, place)
            return


def _placed(behind: Sequence[Sequence[ir.Node]], usual: Sequence[Signature]) -> list[list[tuple[ir.Node, int]]]:
    """Return the nodes of every step, in the order of the steps, with their places in the usual one.

    What is nearest to an entry is what its step does, and what the next one does with the state alone. The last step
    has no next one: what is missing behind its entry is what steps do with the state.
    """
    matched = [_matched(nodes, usual) for nodes in behind]
    seen = {node for node, _ in matched[0]}
    rest = [signature if place not in {p for _, p in matched[0]} else None for place, signature in enumerate(usual)]
    others = [node for node in behind[0] if node not in seen]
    matched[0] += _matched(others, rest, loosely=True)  # where others read the state, the first step reads a constant
    own = {place for _, place in matched[-1]}
    placed: list[list[tuple[ir.Node, int]]] = [[] for _ in behind]
    for i, step in enumerate(matched):
        for node, place in step:
            at = i if place in own else i + 1
            if at < len(placed):
                placed[at].append((node, place))
    return placed


def _matched(
    nodes: Sequence[ir.Node], usual: Sequence[Signature | None], *, loosely: bool = False
) -> list[tuple[ir.Node, int]]:
    """Return the nodes that do what those of the usual step do, with their places; loosely, with any constants."""
    end = 2 if loosely else 3
    left = [(place, signature[:end]) for place, signature in enumerate(usual) if signature is not None]
    found = []
    for node in nodes:
        place = next((pair for pair in left if pair[1] == _signature(node)[:end]), None)
        if place is not None:
            left.remove(place)
            found.append((node, place[0]))
    return found


def _nearest(nodes: Sequence[ir.Node], found: dict[int, ir.Node]) -> dict[ir.Node, tuple[int, int]]:
    """Return for every node that depends on an entry how far it is from the nearest one, and which that is.

    A node that is as far from one entry as from another belongs to none, nor does what depends on it alone.
    """
    reading = {node: t for t, node in found.items()}
    nearest: dict[ir.Node, tuple[int, int]] = {}
    for node in nodes:
        if node in reading:
            nearest[node] = (0, reading[node])
            continue
        taken = [nearest[p] for v in inputs_of(node) if (p := v.producer()) is not None and p in nearest]
        if not taken:
            continue
        least = min(distance for distance, _ in taken)
        entries = {entry for distance, entry in taken if distance == least}
        if len(entries) == 1:
            nearest[node] = (least + 1, next(iter(entries)))
    return nearest


def _signature(node: ir.Node) -> Signature:
    """Return what a node does, and with which weights; small constants, written anew in every step, by content."""
    constants = []
    for v in inputs_of(node):
        if v.const_value is None or node.op_type in ("Gather", "Slice"):
            continue
        small = v.const_value.size <= _SMALL
        constants.append(v.const_value.numpy().tobytes().hex() if small else str(v.name))
    return (node.domain, node.op_type, tuple(constants))


def _follow(behind: Sequence[Sequence[ir.Node]]) -> bool:
    """Tell whether what is behind every entry but the first reads what is behind the one before."""
    for before, step in itertools.pairwise(behind):
        left = set(before)
        if not any(v.producer() in left for node in step for v in inputs_of(node)):
            return False
    return True
