"""Tangents through operators with kinks, on ties by the conventions of the rules, and by others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper

from fgonnx.audit.forward.operators import Array, Floats, Unmeasured
from fgonnx.audit.forward.through import Tangents, Through, aligned, differences, first_of
from fgonnx.engine.rules.linear import explicit_pads

Rule = Callable[[Through], list[Tangents]]


def _gated(
    gate: Callable[[Through], Array],
    kinks: Callable[[Through], Sequence[float]] = lambda t: (0.0,),
    kinked: Callable[[Through], Any] = lambda t: 1.0,
) -> Callable[[Through], list[Tangents]]:
    def rule(t: Through) -> list[Tangents]:
        if t.moving != [0]:
            return differences(t)
        moved, passed = first_of(t), gate(t)
        x = t.value(0)
        for kink in kinks(t):
            on = x == kink
            t.tied(on & moved.any(0))
            passed = np.where(on & t.ties.other, kinked(t), passed)
        return [moved * passed]

    return rule


def _bounds(t: Through) -> tuple[float, float]:
    low, high = (
        t.value(i).reshape(-1)[0] if i < len(t.inputs) and t.inputs[i] is not None else t.fields.get(name, ends)
        for i, name, ends in ((1, "min", -np.inf), (2, "max", np.inf))
    )
    return float(low), float(high)


def _clip(t: Through) -> Array:
    x, (low, high) = t.value(0), _bounds(t)
    return np.asarray((x > low) & (x < high))


def _leaky(t: Through) -> Array:
    return np.where(t.value(0) > 0, 1.0, t.fields.get("alpha", 0.01))


def _prelu(t: Through) -> Array:
    return np.where(t.value(0) > 0, 1.0, t.value(1))


def _extremum(t: Through) -> list[Tangents]:
    """Operands that tie share alike."""
    values = [t.value(i) for i in range(len(t.inputs))]
    best = np.max if t.node.op_type == "Max" else np.min
    y = best(np.stack(np.broadcast_arrays(*values)), axis=0)
    wins = [v == y for v in np.broadcast_arrays(*values)]
    t.tied(np.sum(wins, axis=0) > 1)
    if t.ties.other:  # the first of them
        wins = [w & ~np.any([np.zeros_like(w), *wins[:i]], axis=0) for i, w in enumerate(wins)]
    count = np.sum(wins, axis=0)
    total = np.zeros((len(first_of(t)), *y.shape))
    for i, won in enumerate(wins):
        if (d := t.tangents[i]) is not None:
            total = total + aligned(d, y.ndim) * (won / count)
    return [total]


def _reduced(t: Through) -> list[Tangents]:
    """Elements that tie share alike."""
    x, fields = t.value(0), t.fields
    given = t.inputs[1] if len(t.inputs) > 1 and t.inputs[1] is not None else fields.get("axes")
    axes = tuple(int(a) % x.ndim for a in np.reshape(given, -1)) if given is not None else tuple(range(x.ndim))
    if not axes and not fields.get("noop_with_empty_axes"):
        axes = tuple(range(x.ndim))
    best = x.max(axes, keepdims=True) if t.node.op_type == "ReduceMax" else x.min(axes, keepdims=True)
    wins = x == best
    t.tied(wins.sum(axes, keepdims=True) > 1)
    if t.ties.other:  # the largest tangent of them, of the first direction
        order = np.where(wins, first_of(t)[0], -np.inf)
        wins = wins & (order == order.max(axes, keepdims=True))
    count = wins.sum(axes, keepdims=True)
    kept = bool(fields.get("keepdims", 1))
    return [(first_of(t) * (wins / count)).sum(tuple(a + 1 for a in axes), keepdims=kept)]


def _max_pool(t: Through) -> list[Tangents]:
    """The first of equal elements."""
    x, moved = t.value(0).astype(np.float32), first_of(t)
    fields = {k: v.decode() if isinstance(v, bytes) else v for k, v in t.fields.items() if k != "storage_order"}
    y, where = t.compute(helper.make_node("MaxPool", [], ["MaxPool"], **fields), [x], 2)
    if t.outputs[0] is not None and y.shape != t.outputs[0].shape:
        raise Unmeasured(f"'{t.node.output[0]}' (MaxPool) is read in another way")
    found = moved.reshape(len(moved), -1)[:, where.reshape(-1)].reshape(len(moved), *where.shape)
    last = _last(x, y, moved, fields)
    t.tied(last != found)
    return [last if t.ties.other else found]


def _last(x: Array, y: Array, moved: Floats, fields: Mapping[str, Any]) -> Floats:
    """Return the tangents of the last of equal elements."""
    rank, kernel = x.ndim - 2, list(fields["kernel_shape"])
    steps, gaps = (list(fields.get(name) or [1] * rank) for name in ("strides", "dilations"))
    sizes, made = x.shape[2:], y.shape[2:]
    begins = explicit_pads(fields.get("auto_pad", "NOTSET"), fields.get("pads"), sizes, made, kernel, steps, gaps)
    ends = [(o - 1) * s + (k - 1) * g + 1 for o, s, k, g in zip(made, steps, kernel, gaps, strict=True)]
    pads = [(b, max(0, e - b - n)) for b, e, n in zip(begins[:rank], ends, sizes, strict=True)]
    wide = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=-np.inf)
    turned = np.pad(moved, [(0, 0), (0, 0), (0, 0), *pads])
    last = np.zeros((len(moved), *y.shape))
    for places in itertools.product(*map(range, kernel)):
        cut: tuple[Any, ...] = tuple(
            slice(p * g, p * g + (o - 1) * s + 1, s) for p, g, o, s in zip(places, gaps, made, steps, strict=True)
        )
        last = np.where(wide[:, :, *cut] == y, turned[:, :, :, *cut], last)
    return last


def _global_max(t: Through) -> list[Tangents]:
    """The first of equal elements."""
    x, moved = t.value(0), first_of(t)
    rows = x.reshape(*x.shape[:2], -1)
    at = (rows.shape[-1] - 1 - rows[..., ::-1].argmax(-1) if t.ties.other else rows.argmax(-1))[..., None]
    flat = moved.reshape(len(moved), *rows.shape)
    t.tied((rows == rows.max(-1, keepdims=True)).sum(-1) > 1)
    found = np.take_along_axis(flat, np.broadcast_to(at, (len(moved), *at.shape)), -1)
    return [found.reshape(len(moved), *x.shape[:2], *[1] * (x.ndim - 2))]


def _top(t: Through) -> list[Tangents]:
    places, moved = t.outputs[1] if len(t.outputs) > 1 else None, first_of(t)
    axis = int(t.fields.get("axis", -1)) % t.value(0).ndim
    if places is None:
        raise Unmeasured(f"'{t.node.output[0]}' (TopK) gives no places")
    return [np.take_along_axis(moved, np.broadcast_to(places, (len(moved), *places.shape)), axis + 1)]


KINKS: dict[str, Rule] = {
    "Relu": _gated(lambda t: t.value(0) > 0),
    "LeakyRelu": _gated(_leaky),
    "PRelu": _gated(_prelu),
    "Abs": _gated(lambda t: np.sign(t.value(0))),
    "Clip": _gated(_clip, _bounds),
    "Max": _extremum,
    "Min": _extremum,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _global_max,
    "TopK": _top,
}
