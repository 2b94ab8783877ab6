"""Inputs and outputs of a rewritten model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from fgonnx.engine import methods
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import shaped
from fgonnx.engine.maps.sites import PlacedTerm, extra_tokens, totals
from fgonnx.engine.normal.normalise import Normal
from fgonnx.engine.rewrite.head import Explained
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.walk import backward
from fgonnx.errors import OptionError

TARGET_INPUT = "target_index"
CONTRAST_INPUT = "contrast_index"
SEED_INPUT = "seed"


class Outputs:
    """Adds inputs and outputs with their standard names, or others where the model uses these."""

    def __init__(self, op: Emitter, normal: Normal) -> None:
        self.op = op
        self.names: dict[str, str] = {}
        graph = op.graph
        self._external = {v.name for v in [*graph.inputs, *graph.outputs]}
        self._inner = {v.name: v for node in graph for v in node.outputs if v.name not in self._external}
        self._inner.update({n: v for n, v in graph.initializers.items() if n not in self._external})
        self._batch: list[int | str] = ["N"] if normal.batched else [1]

    def claim(self, name: str) -> str:
        """Return a name for a new input or output: the given one, with the prefix "fg_" if it is taken."""
        while name in self._external:
            name = f"fg_{name}"
        if name in self._inner:
            self._inner[name].name = f"{name}::inner"
        self._external.add(name)
        return name

    def add(self, name: str, value: ir.Value, dims: Sequence[int | str | ir.SymbolicDim] | None = None) -> None:
        """Add an output; `dims` are its dimensions after the batch axis, or those of the value."""
        graph = self.op.graph
        out = self.op.Identity(value)
        free = out.name = self.claim(name)
        graph.outputs.append(shaped(out, value if dims is None else [*self._batch, *dims]))
        self.names[name] = free


def write_outputs(
    writer: Outputs,
    options: Options,
    written: Mapping[str, methods.Written],
    view: methods.View,
    parts: Sequence[PlacedTerm],
    explained: Explained,
) -> None:
    """Add the requested outputs."""
    op = writer.op
    for name, value in written.items():
        if name in options.wanted or (name.startswith("signed_map_") and "signed_maps" in options.wanted):
            writer.add(name, value.value, value.dims)
    if "target" in options.wanted and explained.target is not None:
        writer.add("target", explained.target, ())
    if "score" in options.wanted:
        writer.add("score", explained.score, ())
    if "contrast" in options.wanted and explained.contrast is not None:
        writer.add("contrast", explained.contrast, ())
    if "completeness" in options.wanted or "contributions" in options.wanted:
        columns = totals(op, parts, view.carried)
        if "completeness" in options.wanted:
            total, score = op.ReduceSum(columns, [1], keepdims=0), explained.score
            if columns.dtype == ir.DataType.DOUBLE:
                score = op.Cast(score, to=ir.DataType.DOUBLE.value)
            elif score.dtype == ir.DataType.DOUBLE:  # of whole numbers, which are float32
                total = op.Cast(total, to=ir.DataType.DOUBLE.value)
            writer.add("completeness", op.Sub(score, total), ())
        if "contributions" in options.wanted:
            writer.add("contributions", columns, (len(parts) + len(extra_tokens(parts)),))
    if "input_gradient" in options.wanted:
        writer.add("input_gradient", view.walked.cotangents[view.x])
    if "bias_gradients" in options.wanted:
        for p in parts[1:]:
            writer.add(f"bias_gradient:{p.site.name}", p.product)


def expose(
    writer: Outputs,
    options: Options,
    parts: Sequence[PlacedTerm],
    walked: backward.Walk,
    nodes: Sequence[ir.Node],
    where: str,
) -> None:
    """Add the outputs of `expose`: values, their cotangents, intercepts and bias-gradients of sites."""
    values = {str(v.name): v for node in nodes for v in node.outputs if v.name}
    sites = {p.site.name: p for p in parts[1:]}
    gradients = {str(v.name): g for v, g in walked.cotangents.items()}
    for name in options.expose:
        if name in writer.names:
            continue
        if name in values:
            if not values[name].is_graph_output():
                writer.op.graph.outputs.append(values[name])
            writer.names[name] = name
            continue
        kind, _, which = name.partition(":")
        if kind == "gradient" and which in gradients:
            writer.add(name, gradients[which])
        elif kind == "bias" and which in sites:
            writer.add(name, sites[which].c)
        elif kind == "bias_gradient" and which in sites:
            writer.add(name, sites[which].product)
        else:
            raise OptionError(
                f"{where}: nothing to expose under {name!r}. Give the name of a value of the graph, 'gradient:NAME', "
                "'bias:SITE' or 'bias_gradient:SITE'; 'fgonnx inspect' lists the sites"
            )
