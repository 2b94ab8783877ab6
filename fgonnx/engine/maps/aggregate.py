"""From the sites to the map, in the graph: one signed map a site or block, psi, upsampling, their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import producer_of, required
from fgonnx.engine.maps import steps
from fgonnx.engine.maps.interpolate import upsample
from fgonnx.engine.maps.net import Net, combined
from fgonnx.engine.maps.psi import ABS, POSITIVE, SIGNED, rescaled_sums
from fgonnx.engine.maps.signed import Signed, signed_sums
from fgonnx.engine.maps.sites import PlacedTerm
from fgonnx.engine.walk.backward import Term

PROFILES = ("full", "reference", "paper")
PSIS = (ABS, POSITIVE, SIGNED)

EPS = 1e-6

_LINEAR_BLOCK_HEADS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def signed_maps(
    op: Emitter,
    terms: Sequence[PlacedTerm],
    *,
    simple: bool,
    blocks: Sequence[Sequence[int]] = (),
    totals: bool = False,
) -> list[Signed]:
    """Return the signed maps that psi is applied to: one per site, or per block of sites.

    Parameters
    ----------
    terms : sequence of PlacedTerm
        All sites, the input first.
    simple : bool
        Use the cotangent alone, not its product with the intercept, of sites whose bias is not all zeros: exporters
        write zeros for a layer without one.
    blocks : sequence of sequence of int
        Indices of sites to sum before psi; a site in no block has a map of its own.
    totals : bool
        Whether to compute the total of a site together with its map.
    """
    maps: list[Signed] = []
    grouped = {i: tuple(b) for b in blocks for i in b}
    for i, s in enumerate(terms):
        if not s.site.in_map or s.cell is not None:
            continue
        members = grouped.get(i, (i,))
        if simple and i:
            members = tuple(m for m in members if not _is_zero(op, terms[m].c))
        if not members or i != members[0]:
            continue
        if len(members) > 1:
            maps.append(Signed(op.Sum(*(terms[m].g if simple else terms[m].product for m in members)), s.placement))
        else:
            signed = Signed(s.g, s.placement) if simple and i else s.signed
            maps.append(replace(signed, total=s.total) if totals else signed)
    kept = [i for i, s in enumerate(terms) if s.cell is not None and not (simple and _is_zero(op, s.c))]
    return maps + step_maps(op, terms, kept, simple=simple)


def step_maps(op: Emitter, terms: Sequence[PlacedTerm], kept: Sequence[int], *, simple: bool = False) -> list[Signed]:
    """Return the maps of the terms of single steps, given by their indices: the same node at all steps makes one."""
    found = [(i, cell, terms[i].placement.shape[1]) for i in kept if (cell := terms[i].cell) is not None]
    grids = {i: cell.grid for i, cell, _ in found}
    return [
        steps.stacked(
            op,
            [(at, terms[i].g if simple else terms[i].product, terms[i].placement) for i, at in group],
            grids[group[0][0]],
        )
        for group in steps.grouped(found)
    ]


def _is_zero(op: Emitter, intercept: ir.Value) -> bool:
    """Tell whether an intercept is an initializer of zeros, reshaped or not."""
    while op.array(intercept) is None and (node := intercept.producer()) is not None and node.op_type == "Reshape":
        intercept = required(node, 0)
    array = op.array(intercept)
    return array is not None and not array.any()


def linear_blocks(terms: Sequence[Term], nodes: Sequence[ir.Node]) -> list[list[int]]:
    """Group sites by linear block: a convolution and the constant linear nodes after it, up to the next branch.

    Returns indices into the placed terms (the input is 0, term i is i + 1).
    """
    uses: dict[ir.Value, int] = {}
    for node in nodes:
        for v in node.inputs:
            if v is not None:
                uses[v] = uses.get(v, 0) + 1
    root: dict[ir.Node, ir.Node] = {}
    for node in nodes:
        source = next((v for v in node.inputs if v is not None and v.producer() in root), None)
        if node.op_type in _LINEAR_BLOCK_HEADS:
            root[node] = node
        elif (
            node.op_type in ("BatchNormalization", "Add", "Sub", "Mul", "Identity")
            and source is not None
            and uses[source] == 1
        ):
            constants = [v for v in node.inputs if v is not None and v is not source]
            if all(v.const_value is not None for v in constants):
                root[node] = root[producer_of(source)]
    blocks: dict[ir.Node, list[int]] = {}
    for i, t in enumerate(terms):
        if t.node in root:
            blocks.setdefault(root[t.node], []).append(i + 1)
    return [b for b in blocks.values() if len(b) > 1]


def saliency(
    op: Emitter, maps: Sequence[Signed], grid: Sequence[int], *, psi: str, profile: str
) -> tuple[ir.Value, dict[ir.Value, ir.Value]]:
    """Return the map, (N, *grid), and the totals of sites computed along with it.

    abs and positive: `sum_c (P - min) / (max - min + eps)` per sample with the extrema over channels and grid jointly,
    summed over the sites of one resolution before one upsampling. signed: no rescaling, and a sum-preserving
    upsampling, so that the map sums to the part of the output that it shows.
    """
    by_grid: dict[tuple[int, ...], list[Signed]] = {}
    for m in maps:
        by_grid.setdefault(m.placement.grid, []).append(m)
    resized = []
    carried: dict[ir.Value, ir.Value] = {}
    for size, group in by_grid.items():
        if psi == SIGNED:
            total = _sum(op, [signed_sums(op, m) for m in group])
        else:
            total, taken = rescaled_sums(op, group, psi, 0.0 if profile == "paper" else EPS)
            carried |= taken
        resized.append(upsample(op, total, size, grid, signed=psi == SIGNED, align_corners=profile != "paper"))
    total = _sum(op, resized)
    return op.Reshape(total, [-1, *grid]), carried


def net_saliency(
    op: Emitter, maps: Sequence[Signed], grid: Sequence[int], net: Net, psi: str
) -> tuple[ir.Value, dict[ir.Value, ir.Value]]:
    """Return the map of net evidence, (N, *grid), and the totals of sites computed along with it.

    With n the sum over channels of a site: `sum_l w_l U(psi(G n_l) / scale_l)`, G the blur, U bilinear upsampling with
    half-pixel centres. The sites of one resolution are added before one upsampling. Maps of one cell localise nothing
    and are left out.
    """
    shown = [m for m in maps if math.prod(m.placement.grid) > 1] or list(maps)
    by_grid: dict[tuple[int, ...], list[int]] = {}
    for i, m in enumerate(shown):
        by_grid.setdefault(m.placement.grid, []).append(i)
    weights = net.weights(len(shown))
    resized = []
    carried: dict[ir.Value, ir.Value] = {}
    for size, group in by_grid.items():
        total, taken = combined(op, [shown[i] for i in group], net, weights[group], psi)
        carried |= taken
        resized.append(upsample(op, total, size, grid, signed=False, align_corners=False))
    return op.Reshape(_sum(op, resized), [-1, *grid]), carried


def _sum(op: Emitter, values: Sequence[ir.Value]) -> ir.Value:
    return values[0] if len(values) == 1 else op.Sum(*values)
