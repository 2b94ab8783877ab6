"""How many steps what is rounded spans: many are those of a quantiser, few those of a staircase.

The number of levels is that of the bounds a model puts on what it rounds, or else what the values span when the model
runs on random inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from fgonnx.engine.graph import probe
from fgonnx.engine.graph.origin import source_of, tensor_of
from fgonnx.engine.graph.session import Session, slim
from fgonnx.engine.graph.values import content_of, inputs_of, optional, required
from fgonnx.engine.normal.spans import EVERYTHING, Span
from fgonnx.engine.normal.tie import dependent_nodes
from fgonnx.errors import ModelError

ROUNDING = ("Ceil", "Floor", "Round")
HOLDS = ("If", "Loop", "Scan", "SequenceMap")
"""Operators whose bodies hold nodes of the model, which are written out."""

FEWEST_LEVELS = 15
"""Levels that a quantiser has at least: those of 4 bits, symmetric."""

_SEEDS = (0, 1, 2)
_SHIFTS = ("Add", "Identity", "Sub")
_BOUNDS = ("Clip", "Max", "Min")
_NARROW = 16  # bits of integers that numbers are stored as to be small
_DEPTH = 8


def measured_levels(model: ir.Model, x: ir.Value, shape: tuple[int, ...], folder: Path | None) -> dict[str, float]:
    """Return how many steps the rounded values of a model span at random inputs.

    Parameters
    ----------
    model : ir.Model
        The graph, of the standard's operators; it is not changed.
    x : ir.Value
        The explained input.
    shape : tuple of int
        Its shape for one sample.
    folder : Path, optional
        Folder of external weights.

    Returns
    -------
    dict of str to float
        By the name of what rounding results in; empty where nothing is rounded, or the model does not run.
    """
    nodes = [n for n in dependent_nodes(model.graph, x) if not n.domain and n.op_type in ROUNDING]
    nodes = [n for n in nodes if source_of(n)[1] in (*ROUNDING, *HOLDS) and bounded_levels(n.outputs[0]) is None]
    if not nodes:
        return {}
    written = slim(model)
    declared = {v.name for v in written.proto.graph.output}
    for name in dict.fromkeys(str(v.name) for n in nodes for v in inputs_of(n)):
        if name not in declared:
            written.proto.graph.output.append(onnx.ValueInfoProto(name=name))
    found: dict[str, float] = {}
    try:
        session = Session(written, folder=folder, providers=["cpu"], optimise=False)
        for seed in _SEEDS:
            results = session.run(probe.random_feeds(model.graph, x, shape, 1, seed))
            for node in nodes:
                values = np.asarray(results[str(inputs_of(node)[0].name)], np.float64)
                values = values[np.isfinite(values)]
                spanned = float(np.ptp(values)) + 1 if values.size else 0.0
                for name in {str(node.outputs[0].name), tensor_of(node.outputs[0])}:
                    found[name] = max(found.get(name, 0.0), spanned)
    except ModelError:
        return {}
    return found


def bounded_levels(rounded: ir.Value) -> float | None:
    """Return the number of levels that constant bounds leave of what is rounded, before or behind; None without."""
    node = rounded.producer()
    found = [] if node is None else [_levels(v) for v in _shifted_before(inputs_of(node)[0])]
    found += [_levels(v) for v in _shifted_behind(rounded, _DEPTH)]
    known = [levels for levels in found if levels is not None]
    return min(known) if known else None


def _levels(v: ir.Value) -> float | None:
    if v.dtype is not None and not v.dtype.is_floating_point():
        return 2.0**v.dtype.bitwidth if v.dtype.bitwidth <= _NARROW else None
    low, high = span_of(v)
    return high - low + 1 if np.isfinite(high - low) else None


def _shifted_before(v: ir.Value) -> Iterator[ir.Value]:
    """Yield a value, and what a zero point was added to, or subtracted from, before."""
    for _ in range(_DEPTH):
        yield v
        node = v.producer()
        moving = [u for u in inputs_of(node) if content_of(u) is None] if node is not None else []
        if node is None or node.domain or node.op_type not in _SHIFTS or len(moving) != 1:
            return
        v = moving[0]


def _shifted_behind(v: ir.Value, depth: int) -> Iterator[ir.Value]:
    """Yield what a value becomes where it is alone shifted, bounded and stored."""
    for node, _ in v.uses():
        alone = depth and len(v.uses()) == 1 and sum(content_of(u) is None for u in inputs_of(node)) == 1
        if alone and not node.domain and node.op_type in (*_SHIFTS, *_BOUNDS, "Cast", "CastLike"):
            yield node.outputs[0]
            yield from _shifted_behind(node.outputs[0], depth - 1)


def span_of(v: ir.Value) -> Span:
    """Return two numbers between which a floating-point value is kept by the bounds it has last been given."""
    node = v.producer()
    if node is None or node.domain or node.op_type not in ("Clip", "Identity", "Max", "Min"):
        return EVERYTHING
    low, high = span_of(required(node, 0))
    if node.op_type == "Identity":
        return low, high
    bounds = [content_of(optional(node, i)) for i in range(1, len(node.inputs))]
    first = bounds[0] if bounds else None
    last = bounds[1] if len(bounds) > 1 else None
    if node.op_type == "Min":
        first, last = None, first
    if first is not None:
        low, high = max(low, float(first.min())), max(high, float(first.max()))
    if last is not None:
        low, high = min(low, float(last.min())), min(high, float(last.max()))
    return low, high
