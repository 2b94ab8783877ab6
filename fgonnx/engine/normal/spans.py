"""Between which numbers the result of integer arithmetic lies, if nothing wraps around."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from fgonnx.engine.graph.values import content_of, dims_of, optional, required

Span = tuple[float, float]

EVERYTHING: Span = (-np.inf, np.inf)


def result_span(node: ir.Node, spans: Sequence[Span]) -> Span:
    """Return two numbers between which the result of a node lies, from those of its inputs."""
    found = _SPANS.get(node.op_type)
    return spans[0] if found is None else found(node, spans)


def _clip(node: ir.Node, spans: Sequence[Span]) -> Span:
    a, b = spans[0]
    low = spans[1] if len(spans) > 1 else EVERYTHING
    high = spans[2] if len(spans) > 2 else EVERYTHING
    found = min(max(a, low[0]), high[0]), min(max(b, low[1]), high[1])
    return found[0] if np.isfinite(found[0]) else a, found[1] if np.isfinite(found[1]) else b


def _extreme(pick: Callable[..., float]) -> Callable[[ir.Node, Sequence[Span]], Span]:
    return lambda node, spans: (pick(s[0] for s in spans), pick(s[1] for s in spans))


def _product(first: Span, second: Span) -> Span:
    corners = [a * b for a in first for b in second]
    return min(corners), max(corners)


def _absolute(span: Span) -> Span:
    a, b = span
    return (0.0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))


def _square(span: Span) -> Span:
    low, high = _absolute(span)
    return low**2, high**2


def _added(span: Span, count: float, *, fewest: float | None = None) -> Span:
    """Return where a sum of so many numbers lies, each in a span; of at least `fewest` of them."""
    ends = [end * n for end in span for n in (count, count if fewest is None else fewest)]
    return min(ends), max(ends)


def reduced_axes(node: ir.Node) -> list[int] | None:
    """Return the axes that a reduction reduces; None where they are not constant."""
    rank = len(dims_of(required(node, 0)))
    axes = optional(node, 1)
    found = content_of(axes)
    if axes is not None and found is None:
        return None
    if found is None or not found.size:
        noop = "noop_with_empty_axes" in node.attributes and node.attributes["noop_with_empty_axes"].as_int()
        return [] if noop else list(range(rank))
    return [int(a) % rank for a in found.reshape(-1)]


def _count(node: ir.Node) -> float:
    """Return of how many entries a reduction makes one."""
    axes = reduced_axes(node)
    if axes is None:
        return np.inf
    dims = dims_of(required(node, 0))
    return float(np.prod([d if isinstance(d, int) else np.inf for d in (dims[a] for a in axes)], initial=1.0))


def _cumulative(node: ir.Node, spans: Sequence[Span]) -> Span:
    axis = content_of(optional(node, 1))
    dims = dims_of(required(node, 0))
    size = None if axis is None else dims[int(axis.reshape(()))]
    return _added(spans[0], float(size) if isinstance(size, int) else np.inf, fewest=0.0)


def _matrices(node: ir.Node, spans: Sequence[Span]) -> Span:
    size = dims_of(required(node, 0))[-1]
    return _added(_product(spans[0], spans[1]), float(size) if isinstance(size, int) else np.inf)


def _divided(node: ir.Node, spans: Sequence[Span]) -> Span:
    a, b = spans[0]
    c, d = spans[1]
    if c <= 0 <= d:  # of several divisors, those next to zero count
        most = max(abs(a), abs(b))
        return -most, most
    return _product((a, b), (1 / c, 1 / d))


def _shifted(node: ir.Node, spans: Sequence[Span]) -> Span:
    left = node.attributes["direction"].as_string() == "LEFT"
    factors = [2.0 ** (n if left else -n) for n in spans[1]]
    return _product(spans[0], (factors[0], factors[1]))


def _power(node: ir.Node, spans: Sequence[Span]) -> Span:
    n = spans[1][0]
    ends = [end**n for end in spans[0]]
    inside = [0.0] if spans[0][0] <= 0 <= spans[0][1] else []
    return min([*ends, *inside]), max(ends)


_SPANS: dict[str, Callable[[ir.Node, Sequence[Span]], Span]] = {
    "Abs": lambda node, spans: _absolute(spans[0]),
    "Add": lambda node, spans: (spans[0][0] + spans[1][0], spans[0][1] + spans[1][1]),
    "BitShift": _shifted,
    "Clip": _clip,
    "CumSum": _cumulative,
    "Div": _divided,
    "MatMul": _matrices,
    "Max": _extreme(max),
    "Min": _extreme(min),
    "Mul": lambda node, spans: _product(spans[0], spans[1]),
    "Neg": lambda node, spans: (-spans[0][1], -spans[0][0]),
    "Pow": _power,
    "ReduceL1": lambda node, spans: _added(_absolute(spans[0]), _count(node)),
    "ReduceSum": lambda node, spans: _added(spans[0], _count(node)),
    "ReduceSumSquare": lambda node, spans: _added(_square(spans[0]), _count(node)),
    "Relu": lambda node, spans: (max(spans[0][0], 0.0), max(spans[0][1], 0.0)),
    "Sub": lambda node, spans: (spans[0][0] - spans[1][1], spans[0][1] - spans[1][0]),
}
