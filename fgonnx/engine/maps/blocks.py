"""Where blocks of a network begin, and what of the score the values there account for.

Where all paths to the score pass through one value v, the score is `<v, g_v>` plus the terms of the nodes behind it:
the certificate starts anew at each such value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import inputs_of, required, shaped
from fgonnx.engine.maps import sites
from fgonnx.engine.maps.interpolate import upsample
from fgonnx.engine.maps.placement import Placement
from fgonnx.engine.maps.psi import ABS, POSITIVE
from fgonnx.engine.maps.signed import Signed, signed_sums
from fgonnx.engine.maps.sites import PlacedTerm, Site

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_MOVES = {"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
# What an activation x h(x) is written with.
_GATE = {"Add", "Clip", "Div", "Erf", "HardSigmoid", "Pow", "Sigmoid", "Softplus", "Sub", "Tanh"}


def beginnings(
    nodes: Sequence[ir.Node], active: set[ir.Value], place: Callable[[ir.Value], Placement], grid: Sequence[int]
) -> list[tuple[int, ir.Value]]:
    """Return the values at which blocks begin, with the index of the first node behind each, in order.

    All paths from the input to the score pass through such a value; it has channels over a grid; and several nodes read
    it (a residual block begins), or one node with weights, or it is the last one with a grid. The input is none of
    them.

    Parameters
    ----------
    nodes : sequence of ir.Node
        The path from the input to the head, in order.
    active : set of ir.Value
        Values that depend on the input.
    place : callable
        Returns the placement of a value on the grid.
    grid : sequence of int
        The grid of the input.
    """
    found: list[tuple[int, ir.Value]] = []
    pending: set[ir.Value] = set()
    readers: dict[ir.Value, list[ir.Node]] = {}
    for i in reversed(range(len(nodes))):
        pending.difference_update(nodes[i].outputs)
        for v in {v for v in inputs_of(nodes[i]) if v in active}:
            readers.setdefault(v, []).append(nodes[i])
            pending.add(v)
        if len(pending) != 1:
            continue
        only = next(iter(pending))
        if only.producer() is None or not place(only).whole(grid):
            continue
        if found and found[-1][1] is only:
            found.pop()  # those were other readers of it
        if not found or _begins(readers[only], active):
            found.append((i, only))
    roots: set[ir.Value] = set()
    kept = []
    for i, v in reversed(found):
        root = _unmoved(v)
        if root.producer() is not None and root not in roots:
            kept.append((i, v))
        roots.add(root)
    return kept


def _unmoved(v: ir.Value) -> ir.Value:
    """Return the value of which another is a rearrangement."""
    while (node := v.producer()) is not None and not node.domain and node.op_type in _MOVES:
        v = required(node, 0)
    return v


def _begins(readers: Sequence[ir.Node], active: set[ir.Value]) -> bool:
    """Tell whether what reads a value makes it the beginning of a block; an activation with a gate does not."""
    if len(readers) == 1:
        return readers[0].op_type in _WEIGHTED
    return not all(
        node.op_type == "Mul" or (node.op_type in _GATE and sum(v in active for v in node.inputs) == 1)
        for node in readers
    )


def sums(
    op: Emitter, starts: Sequence[tuple[int, PlacedTerm]], terms: Sequence[PlacedTerm], behind: Sequence[int]
) -> ir.Value:
    """Return what blocks and the terms behind their beginnings contribute, (N, blocks): the score, each of them.

    Parameters
    ----------
    op : Emitter
        Writes into the graph.
    starts : sequence of (int, PlacedTerm)
        For each block, the index of the first node behind its beginning, and the value there times its cotangent.
    terms : sequence of PlacedTerm
        The terms of the decomposition.
    behind : sequence of int
        For each term, the index of its node.
    """
    own = [_total(op, [start]) for _, start in starts]
    columns = [_total(op, [t]) for t in terms]
    found = []
    for (first, _), value in zip(starts, own, strict=True):
        after = [c for c, node in zip(columns, behind, strict=True) if node >= first]
        found.append(op.Sum(value, *after) if after else value)
    return op.Concat(*found, axis=1) if len(found) > 1 else found[0]


def _total(op: Emitter, terms: Sequence[PlacedTerm]) -> ir.Value:
    return shaped(op.ReduceSum(sites.totals(op, terms, {}), [1], keepdims=1), [None, 1])


def started(op: Emitter, v: ir.Value, g: ir.Value, p: Placement, *, double: bool) -> PlacedTerm:
    """Return the value at which a block begins, times its cotangent, as a term."""
    return sites.placed_term(op, Site(str(v.name), "", "", "block", p.grid, True), (v, g, v), p, double=double)


def net_map(op: Emitter, maps: Sequence[Signed], grid: Sequence[int], psi: str) -> ir.Value:
    """Return psi of the sum of all channels of all maps, (N, *grid); upsampling keeps sums."""
    by_grid: dict[tuple[int, ...], list[ir.Value]] = {}
    for m in maps:
        by_grid.setdefault(m.placement.grid, []).append(signed_sums(op, m))
    enlarged = [
        upsample(op, _sum(op, group), size, grid, signed=True, align_corners=True) for size, group in by_grid.items()
    ]
    total = op.Reshape(_sum(op, enlarged), [-1, *grid])
    return op.Abs(total) if psi == ABS else op.Relu(total) if psi == POSITIVE else total


def _sum(op: Emitter, values: Sequence[ir.Value]) -> ir.Value:
    return values[0] if len(values) == 1 else op.Sum(*values)
