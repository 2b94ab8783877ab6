"""Full-gradients, and their variants: without the bias, and averaged over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps import aggregate, blocks
from fgonnx.engine.maps.net import Net, focused
from fgonnx.engine.maps.placement import Placement
from fgonnx.engine.maps.signed import Signed, written_out
from fgonnx.engine.methods.layers import evidence
from fgonnx.engine.methods.noise import Noise, means
from fgonnx.engine.methods.registry import driven, written
from fgonnx.engine.methods.sample import Array, Compute, Sample
from fgonnx.engine.methods.view import View, Written
from fgonnx.fields import documented, option

_PAPER = "Srinivas, Fleuret, NeurIPS 2019"
_SIGNED = "signed_map_"


@written(
    "fullgrad",
    source=f"{_PAPER}, section 4.",
    writes=("saliency", "signed_maps"),
    sites=True,
    certificate=True,
)
def fullgrad(view: View) -> Mapping[str, Written]:
    """The sum of psi of the input times its gradient and of the bias-gradients of every layer."""
    return _maps(view, simple=False)


@written(
    "simple-fullgrad",
    source=f"The authors' code for {_PAPER}.",
    writes=("saliency", "signed_maps"),
    sites=True,
)
def simple_fullgrad(view: View) -> Mapping[str, Written]:
    """Full-gradients with the gradient of every layer in place of its bias-gradient; it has no certificate."""
    return _maps(view, simple=True)


@written(
    "net-fullgrad",
    source="Own; psi after the channel sum answers Khakzar et al., arXiv:2012.00362, 2020.",
    writes=("saliency", "signed_maps"),
    settings=Net,
    sites=True,
    certificate=True,
)
def net_fullgrad(view: View) -> Mapping[str, Written]:
    """Full-gradients, channels summed with their sign before psi, every site divided by its own scale."""
    maps = _signed(view, simple=False)
    saliency, carried = aggregate.net_saliency(view.op, maps, view.grid, view.settings, view.psi)
    if view.settings.focus:
        saliency = focused(view.op, saliency, evidence(view, saliency), view.grid, view.settings.focus)
    return _offered(view, maps, saliency, carried)


@documented
@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Which blocks the map shows."""

    skip: float = option(
        0.0,
        "Share of the blocks, from the input on, that the map leaves out, with the contributions before the next one, "
        "0 to 1; SkipPLUS is 0.5.",
        least=0,
        most=1,
    )


@written(
    "fullgrad+",
    source="Mehri et al., CVPR 2025, and CVPR workshop 2024 (SkipPLUS).",
    writes=("saliency", "blocks"),
    settings=Blocks,
    sites=True,
    certificate=True,
)
def fullgrad_plus(view: View) -> Mapping[str, Written]:
    """Psi of the sum of the value times its gradient at the beginning of every block, and of all bias-gradients."""
    op, order = view.op, {node: i for i, node in enumerate(view.nodes)}
    double = ir.DataType.DOUBLE in {t.g.dtype for t in view.terms}
    starts = [
        (first, blocks.started(op, v, view.walked.cotangents[v], view.place(v), double=double))
        for first, v in blocks.beginnings(view.nodes, op.active, view.place, view.grid)
        if v in view.walked.cotangents
    ]
    nodes = [-1, *(order[t.node] for t in view.walked.terms)]
    terms = [(at, t) for at, t in zip(nodes, view.terms, strict=True) if t.site.in_map and t.cell is None]
    skipped = min(int(view.settings.skip * (1 + len(starts))), len(starts))
    since = starts[skipped - 1][0] if skipped else -1
    shown = [t.signed for at, t in [*starts, *terms] if at >= since]
    shown += aggregate.step_maps(op, view.terms, [i for i, at in enumerate(nodes) if at >= since])
    found = {"saliency": Written(blocks.net_map(op, shown, view.grid, view.psi), view.grid)}
    if view.certificate and starts:
        view.blocks.extend(t.site.name for _, t in starts)
        found["blocks"] = Written(blocks.sums(op, starts, view.terms, nodes), (len(starts),))
    return found


def _maps(view: View, *, simple: bool) -> dict[str, Written]:
    maps = _signed(view, simple=simple)
    saliency, carried = aggregate.saliency(view.op, maps, view.grid, psi=view.psi, profile=view.profile)
    return _offered(view, maps, saliency, carried)


def _signed(view: View, *, simple: bool) -> list[Signed]:
    """Return the signed maps of the sites that the profile shows."""
    blocks = aggregate.linear_blocks(view.walked.terms, view.nodes) if view.profile == "paper" else []
    return aggregate.signed_maps(view.op, view.terms, simple=simple, blocks=blocks, totals=view.certificate)


def _offered(
    view: View, maps: list[Signed], saliency: ir.Value, carried: Mapping[ir.Value, ir.Value]
) -> dict[str, Written]:
    view.carried.update(carried)
    signed = {f"{_SIGNED}{i}": Written(written_out(view.op, m), m.placement.shape[1:]) for i, m in enumerate(maps)}
    return {"saliency": Written(saliency, view.grid), **signed}


@driven(
    "smooth-fullgrad",
    fullgrad,
    ("signed_maps",),
    source=f"The authors' code for {_PAPER}.",
    cost="26 forward, 26 backward",
    settings=Noise,
    sites=True,
    certificate=True,
)
def smooth_fullgrad(sample: Sample, noise: Noise) -> dict[str, Array]:
    """The signed maps of fullgrad averaged over noisy copies of the input, then psi.

    Score, contributions and completeness are means over the noisy copies too. A second, small graph computes the
    saliency map from the averaged maps with the same code as the one-run methods.
    """
    averaged = [k for k in sample.clean if k in ("score", "contributions", "completeness") or k.startswith(_SIGNED)]
    averages = means(sample, noise, averaged)
    maps = [v for k, v in averages.items() if k.startswith(_SIGNED)]
    kept = {k: v for k, v in averages.items() if not k.startswith(_SIGNED)}
    return {**kept, "saliency": combine(maps, sample.grid, sample.psi, sample.profile, sample.compute)}


def combine(maps: list[Array], grid: tuple[int, ...], psi: str, profile: str, compute: Compute) -> Array:
    """Compute the saliency map from signed maps (1, channels, *grid): write its graph and let `compute` run it."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="combine")
    op = Emitter(graph)
    signed = []
    for i, m in enumerate(maps):
        value = ir.Value(name=f"map_{i}", shape=ir.Shape(m.shape), type=ir.TensorType(ir.DataType.from_numpy(m.dtype)))
        graph.inputs.append(value)
        axes = tuple(range(m.ndim))
        signed.append(Signed(value, Placement(m.shape, axes, (-1, *m.shape[1:]), True)))
    result, _ = aggregate.saliency(op, signed, grid, psi=psi, profile=profile)
    graph.outputs.append(shaped(result, [1, *grid]))
    return compute(ir.Model(graph, ir_version=8), {f"map_{i}": m for i, m in enumerate(maps)})[str(result.name)]
