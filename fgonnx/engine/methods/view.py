"""What a method is given that writes its map into the graph: the graph after the reverse walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.maps import sites, steps
from fgonnx.engine.maps.axes import Layout
from fgonnx.engine.maps.placement import Placement, place
from fgonnx.engine.maps.psi import ABS, POSITIVE
from fgonnx.engine.maps.signed import Signed, cell_sums, matrix
from fgonnx.engine.maps.sites import BatchLostError, PlacedTerm
from fgonnx.engine.walk.backward import Walk


@dataclass(frozen=True)
class Written:
    """A value that a method offers as an output of the graph.

    Attributes
    ----------
    value : ir.Value
        The value, samples first.
    dims : tuple of int
        Its dimensions after the batch axis.
    """

    value: ir.Value
    dims: tuple[int, ...]


@dataclass
class View:
    """The graph after the reverse walk, as a method sees it when it writes its map.

    Attributes
    ----------
    op : Emitter
        Writes into the graph.
    x : ir.Value
        The explained input.
    nodes : sequence of ir.Node
        The path from it to the head, in order.
    walked : Walk
        Cotangents and terms; empty for a method without a gradient.
    layouts : dict of ir.Value to Layout
        The layout of every active value.
    grid : tuple of int
        Spatial sizes of the input.
    batched : bool
        Whether the batch is free.
    psi, profile : str
        Options of the explanation.
    settings : object
        The method's own.
    certificate : bool
        Whether the totals of sites are needed.
    facts : dict of str to str
        What the method chose by itself, for the record.
    blocks : list of str
        Names of the values that the columns of the output "blocks" are about.
    carried : dict of ir.Value to ir.Value
        Totals of sites that the method has computed along with its maps.
    """

    op: Emitter
    x: ir.Value
    nodes: Sequence[ir.Node]
    walked: Walk
    layouts: dict[ir.Value, Layout]
    grid: tuple[int, ...]
    batched: bool
    psi: str
    profile: str
    settings: Any
    certificate: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    carried: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def gradient(self) -> ir.Value:
        """Cotangent of the input, float32 or wider."""
        return sites.at_least_float32(self.op, self.walked.cotangents[self.x])

    @cached_property
    def terms(self) -> list[PlacedTerm]:
        """The terms of the decomposition, the input first."""
        placed = sites.placed_terms(
            self.op,
            self.x,
            self.walked.cotangents[self.x],
            self.walked.terms,
            self.layouts,
            len(self.grid),
            batched=self.batched,
            profile=self.profile,
        )
        if self.profile != "full":
            return placed
        return sites.at_steps(placed, self.walked.terms, steps.cells(self.nodes, self.layouts, len(self.grid)))

    def place(self, v: ir.Value) -> Placement:
        """Return how to bring a value to (N, channels, *grid)."""
        placement = place(self.layouts[v], len(self.grid), self.batched)
        if placement is None:
            raise BatchLostError(str(v.name))
        return placement

    def attributed(self, attribution: ir.Value) -> dict[str, Written]:
        """Offer an attribution of the input's shape and its map: psi of every entry, summed over channels."""
        op, placed = self.op, self.place(self.x)
        v = op.Abs(attribution) if self.psi == ABS else op.Relu(attribution) if self.psi == POSITIVE else attribution
        saliency = op.Reshape(cell_sums(op, matrix(op, Signed(v, placed))), [-1, *self.grid])
        dims = tuple(int(d) for d in self.op.dims(self.x)[1:])  # type: ignore[arg-type]
        return {"saliency": Written(saliency, self.grid), "attribution": Written(attribution, dims)}


Write = Callable[[View], Mapping[str, Written]]
