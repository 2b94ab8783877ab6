"""Terms of the walk as sites: where each lies on the grid, what it adds to the score, and its totals per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps.axes import Layout
from fgonnx.engine.maps.placement import Placement, place
from fgonnx.engine.maps.signed import Signed, factored, sample_sums, token_slice
from fgonnx.engine.maps.steps import Cell
from fgonnx.engine.walk.backward import Term

INPUT = "input"
EXTRA_TOKENS = "[class tokens]"


class BatchLostError(Exception):
    """The batch axis of a term cannot be traced: samples must be run one by one."""


@dataclass(frozen=True)
class Site:
    """Where a term of the decomposition comes from: one per column of the certificate.

    Attributes
    ----------
    name : str
        Name of the site; "input" for `<g_x, x>`.
    node, op_type : str
        Its node and that node's operator.
    kind : str
        "input", "bias" or "implicit".
    grid : tuple of int
        Spatial sizes; empty where the value is not spatial.
    in_map : bool
        Whether the map shows it.
    """

    name: str
    node: str
    op_type: str
    kind: str
    grid: tuple[int, ...]
    in_map: bool


@dataclass(frozen=True)
class PlacedTerm:
    """The term of a site with its placement on the grid.

    Attributes
    ----------
    site : Site
        Its description.
    g, c : ir.Value
        Cotangent and intercept; for the input, gradient and the input itself.
    product : ir.Value
        `g * c`, the per-neuron bias-gradient, in the layout of the site.
    placement : Placement
        How to bring it to (N, channels, *grid).
    signed : Signed
        The same product, with per-channel weights factored out where that saves a pass over memory.
    total : ir.Value, optional
        Its sum per sample, as returned by `signed.sample_sums`; None where that returns None.
    cell : Cell, optional
        The cell at which it lies, of a term of one step of a recurrence.
    """

    site: Site
    g: ir.Value
    c: ir.Value
    product: ir.Value
    placement: Placement
    signed: Signed
    total: ir.Value | None
    cell: Cell | None = None


def at_least_float32(op: Emitter, v: ir.Value, *, double: bool = False) -> ir.Value:
    """Cast float16 and bfloat16 to float32: in half precision, sums over a layer overflow and lose digits.

    With `double`, everything is cast to float64: beside values of that type, sums are taken in it.
    """
    if v.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) or (double and v.dtype == ir.DataType.FLOAT):
        kind = ir.DataType.DOUBLE if double else ir.DataType.FLOAT
        cast = shaped(op.Cast(v, to=kind.value), v)
        cast.dtype = kind
        return cast
    return v


def placed_terms(
    op: Emitter,
    x: ir.Value,
    gx: ir.Value,
    terms: Sequence[Term],
    layouts: dict[ir.Value, Layout],
    rank: int,
    *,
    batched: bool,
    profile: str,
) -> list[PlacedTerm]:
    """Return the terms of all sites, the input first.

    Raises
    ------
    BatchLostError
        If the graph is batched and the batch axis of a term cannot be traced.
    """

    double = ir.DataType.DOUBLE in {v.dtype for t in terms for v in (t.g, t.c)} | {x.dtype, gx.dtype}

    def placed(site: Site, y: ir.Value, g: ir.Value, c: ir.Value, product: ir.Value | None = None) -> PlacedTerm:
        placement = place(layouts[y], rank, batched)
        if placement is None:
            raise BatchLostError(site.name)
        # The author's code also includes maps of one cell (a convolution after global pooling), which localise nothing.
        # A map of one cell shows the input, too.
        one_cell = (profile != "full" and op.rank(y) == rank + 2) or y is x
        grid = placement.grid if placement.spatial else ()
        site = replace(site, grid=grid, in_map=site.in_map and (placement.spatial or one_cell))
        return placed_term(op, site, (y, g, c), placement, product, double=double)

    found = [placed(Site(INPUT, INPUT, "", "input", (), True), x, gx, x)]
    for t in terms:
        site = Site(t.name, t.node.name or t.name, t.node.op_type, t.kind, (), _in_map(op, t, profile))
        found.append(placed(site, t.y, t.g, t.c, t.product))
    return found


def at_steps(placed: Sequence[PlacedTerm], terms: Sequence[Term], cells: Mapping[ir.Node, Cell]) -> list[PlacedTerm]:
    """Return placed terms, the input first, with the cells of those that single steps of a recurrence add."""
    found = [placed[0]]
    for p, t in zip(placed[1:], terms, strict=True):
        cell = cells.get(t.node)
        if cell is not None and not p.placement.spatial and t.kind != "quantisation":
            p = replace(p, site=replace(p.site, grid=cell.grid, in_map=True), cell=cell)
        found.append(p)
    return found


def without_place(terms: Sequence[PlacedTerm], *, grouped: bool = False) -> str:
    """Return a note on sites that have rows, as tokens do, of which it is not known where in the picture they lie.

    With `grouped`, rows may have several axes, as where a model brings tokens into windows.
    """
    lost = [
        t.site.name
        for t in terms[1:]
        if not t.placement.spatial
        and t.placement.crop is None
        and len(t.placement.split) == len(t.product.shape or ())
        and (len(t.placement.split) == 3 or (grouped and len(t.placement.split) > 3))
        and t.placement.split[0] == -1
        and min(t.placement.split[1:]) > 1
    ]
    if not lost or not terms[0].placement.spatial:
        return ""
    return (
        f"where the rows of {len(lost)} site{'s' * (len(lost) > 1)} lie in the map is not known, the first at "
        f"'{lost[0]}': they count in the certificate, and the map does not show them"
    )


def extra_tokens(terms: Sequence[PlacedTerm]) -> list[Site]:
    """Return a site for the extra tokens (such as class tokens) of each term that has them, in the order of `totals`.

    Extra tokens have no position in the map; they have columns of their own in the certificate.
    """
    return [
        replace(s.site, name=f"{s.site.name}{EXTRA_TOKENS}", grid=(), in_map=False)
        for s in terms
        if s.placement.crop is not None
    ]


def placed_term(
    op: Emitter,
    site: Site,
    tensors: tuple[ir.Value, ir.Value, ir.Value],
    placement: Placement,
    known: ir.Value | None = None,
    *,
    double: bool = False,
) -> PlacedTerm:
    """Return the term of y, its cotangent g and its intercept c; `known` is `g * c` where a rule has written it."""
    y, narrow, c = tensors
    g, c = at_least_float32(op, narrow, double=double), at_least_float32(op, c, double=double)
    product = shaped(known if known is not None and g is narrow else op.Mul(g, c), y)
    signed = factored(op, product, g, c, placement)
    # Emitted before the rows of the maps, so that onnxruntime runs the rows first: each right after its map.
    total = sample_sums(op, signed) if placement.spatial else _whole(op, product, placement)
    return PlacedTerm(site, g, c, product, placement, signed, total)


def _in_map(op: Emitter, t: Term, profile: str) -> bool:
    # Rounding errors are not evidence, and rescaling would amplify them: they count in the certificate only.
    if t.kind == "quantisation":
        return False
    if profile == "full":
        return True
    if t.kind != "bias":
        return False
    if profile == "paper":
        return True
    return t.node.op_type in ("Conv", "BatchNormalization") or _is_convolution_bias(op, t)


def _is_convolution_bias(op: Emitter, t: Term) -> bool:
    """Tell whether it is an Add of one number per channel after a Conv: some exporters write the bias this way."""
    if t.node.op_type != "Add":
        return False
    source = next(v for v in t.node.inputs if op.is_active(v))
    producer = source.producer() if source is not None else None
    dims = t.c.shape.dims if t.c.shape is not None else ()
    per_channel = len(dims) >= 2 and all(d == 1 for i, d in enumerate(reversed(dims)) if i != len(t.y.shape or ()) - 2)
    return producer is not None and producer.op_type == "Conv" and per_channel


def totals(op: Emitter, terms: Sequence[PlacedTerm], carried: Mapping[ir.Value, ir.Value]) -> ir.Value:
    """Return `<g_y, c>` of every site per sample, (N, sites), followed by the columns of `extra_tokens`.

    `carried` maps totals to values already computed together with the map of their site.
    """
    columns, extra = [], []
    for s in terms:
        p = s.placement
        if s.total is not None:
            sums = carried.get(s.total, s.total)
            if p.crop is not None:
                sums, tokens = op.several("Split", sums, [1, 1], outputs=2, axis=1)
                extra.append(tokens)
            columns.append(sums)
            continue
        assert p.crop is not None
        size = p.crop.shape[p.crop.axis]
        inside, *outside = [
            _per_sample(op, token_slice(op, s.product, p.crop, start, stop), p.crop.shape)
            for start, stop in ((p.crop.start, p.crop.stop), (0, p.crop.start), (p.crop.stop, size))
            if start < stop
        ]
        columns.append(inside)
        extra.append(outside[0] if len(outside) == 1 else op.Sum(*outside))
    return op.Concat(*columns, *extra, axis=1)


def _whole(op: Emitter, product: ir.Value, p: Placement) -> ir.Value:
    """Sum a value that is not spatial per sample: (N, 1)."""
    v = product if p.trivial else op.Reshape(product, list(p.split) or [1])
    return _per_sample(op, v, (-1, *p.shape[1:]) if p.trivial else p.split)


def _per_sample(op: Emitter, v: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Sum over all axes except the batch, which is the -1 in the shape, if any."""
    axes = [i for i, size in enumerate(shape) if size != -1]
    return shaped(op.Reshape(op.ReduceSum(v, axes, keepdims=0) if axes else v, [-1, 1]), [None, 1])
