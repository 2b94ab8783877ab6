"""Which entry of a grid axis each step of a recurrence reads, and which values hold all steps in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from fgonnx.engine.graph import steps
from fgonnx.engine.graph.values import inputs_of

if TYPE_CHECKING:
    from fgonnx.engine.maps.axes import Layout

_PASSES = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Where"}


@dataclass(frozen=True)
class Entry:
    """One entry of a grid axis.

    Attributes
    ----------
    axis : int
        Which axis of the grid.
    size : int
        Its size.
    position : int
        Which entry.
    """

    axis: int
    size: int
    position: int


@dataclass
class Reads:
    """The entries that steps read, as far as nodes have been seen."""

    _found: dict[tuple[str, int], set[Entry]] = field(default_factory=dict)

    def see(self, node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> None:
        """Take note of what a node reads."""
        step = steps.of(node)
        if step is not None and (entry := _entry(node, layouts)) is not None:
            self._found.setdefault((step.layer, step.number), set()).add(entry)

    def of(self, node: ir.Node) -> Entry | None:
        """Return the entry that the step of a node reads; None where it reads none, or several."""
        step = steps.of(node)
        found = self._found.get((step.layer, step.number), set()) if step is not None else set()
        return next(iter(found)) if len(found) == 1 else None

    def shared(self) -> set[str]:
        """Return the recurrences of which two steps read one entry: it is the place of none of them."""
        taken: dict[tuple[str, Entry], int] = {}
        for (layer, _), found in self._found.items():
            if len(found) == 1:
                key = (layer, next(iter(found)))
                taken[key] = taken.get(key, 0) + 1
        return {layer for (layer, _), count in taken.items() if count > 1}

    def joined(self, node: ir.Node) -> Entry | None:
        """Return the last entry of the axis that a Concat makes of the results of all steps; None of any other."""
        found = [self._behind(v) for v in node.inputs]
        last = found[-1] if found else None
        if last is None or len(found) != last.size or len(found) < 2:
            return None
        expected = [Entry(last.axis, last.size, i) for i in range(last.size)]
        return last if found == expected else None

    def _behind(self, v: ir.Value | None, depth: int = 4) -> Entry | None:
        """Return the entry of the step whose result a value is."""
        node = v.producer() if v is not None else None
        if node is None or depth == 0:
            return None
        if steps.of(node) is not None:
            return self.of(node)
        if node.op_type not in _PASSES or node.domain:
            return None
        return next((e for u in inputs_of(node) if (e := self._behind(u, depth - 1)) is not None), None)


def _entry(node: ir.Node, layouts: Mapping[ir.Value, Layout]) -> Entry | None:
    """Return the entry of a whole grid axis that a node reads."""
    if (taken := steps.read_by(node)) is None or (layout := layouts.get(taken.source)) is None:
        return None
    axis = layout[taken.axis % len(layout)]
    if len(axis) != 1 or not axis[0].entire:
        return None
    atom = axis[0]
    if atom.size < 2 or (atom.first and atom.period == atom.whole):  # rolled
        return None
    return Entry(int(atom.kind[1:]), atom.size, taken.position % atom.size)
