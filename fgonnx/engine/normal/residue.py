"""Whether what is rounded serves for its residue: x - P round(x / P), the part of x that rounding leaves.

A wrapped phase or a fractional part has the slope of x between the steps, where rounding is constant. Straight-through
gradients would cancel it: with rounding taken for the identity, the residue is zero. So values are written as linear
forms in which rounding is the identity, and one that vanishes where it is used is a residue. The forms of
straight-through estimators, x + (round(x) - x), do not: a difference is followed to where it is used.

Two quantisers side by side are no residues of each other: x quantised in two ways, and subtracted, has the slopes of
both. So a quantiser serves for the residue of what reaches the difference without being rounded another time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import content_of, optional
from fgonnx.engine.normal.tie import DOMAIN

#: Values at the origin of a form, with the nodes applied to them; and their coefficients.
Term = tuple[ir.Value, tuple[object, ...]]
Form = dict[Term, npt.NDArray[np.float64]]

#: Taken for the identity: rounding, bounds and conversions.
_SAME = ("Cast", "CastLike", "Ceil", "Clip", "Floor", "Identity", "Round")
_BOUNDS = ("Max", "Min")
_SUMS = ("Add", "Sub", "Sum")
_SCALED = ("Mul", "Div")
_INTEGERS = ("QuantizeLinear", "DequantizeLinear")
_ROUNDING = ("Ceil", "Floor", "QuantizeLinear", "Round", "StraightThrough")
#: Linear in their first input where the others are given.
_LINEAR = ("Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_KNOWN = (*_SAME, *_BOUNDS, *_SUMS, *_SCALED, *_INTEGERS, *_LINEAR, "Neg")

_DEPTH = 12
_TERMS = 16


def is_residue(rounded: ir.Value) -> bool:
    """Tell whether a value, the result of rounding, ends somewhere in a difference from what is rounded."""
    node = rounded.producer()
    if node is None or not node.inputs or node.inputs[0] is None:
        return False
    only = rounded if node.op_type == "QuantizeLinear" else None
    forms, apart = _Forms(only), _Forms(only, rounded)
    if _vanishes(forms.of(node.inputs[0], _DEPTH)):  # before it is rounded: a residue of others, such as a weight
        return False
    used = _used(rounded, _DEPTH, set())
    # What is subtracted from itself vanishes whatever it is.
    return any(_vanishes(forms.of(v, _DEPTH)) and not _vanishes(apart.of(v, _DEPTH)) for v in used)


def _used(v: ir.Value, depth: int, seen: set[ir.Value]) -> Iterator[ir.Value]:
    """Yield the values in which a value ends as a linear form: what other nodes use, and outputs."""
    seen.add(v)
    ends = v.is_graph_output()
    for node, _ in v.uses():
        if depth and _is_linear(node):
            if node.outputs[0] not in seen:
                yield from _used(node.outputs[0], depth - 1, seen)
        else:
            ends = True
    if ends:
        yield v


def _is_linear(node: ir.Node) -> bool:
    if node.domain == DOMAIN and node.op_type == "StraightThrough":
        return True
    if node.domain or node.op_type not in _KNOWN or (node.op_type in _LINEAR and len(node.outputs) != 1):
        return False
    if node.op_type in _SCALED:  # by a factor
        return node.op_type == "Div" or len(_moving(node)) < 2 or node.inputs[0] is not node.inputs[1]
    return True


def _moving(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None and content_of(v) is None]


class _Forms:
    """Values as linear forms, constants set aside.

    Parameters
    ----------
    only : ir.Value, optional
        The one result of a quantiser that is taken for what it rounds; any by default.
    origin : ir.Value, optional
        A value that is taken for itself.
    """

    def __init__(self, only: ir.Value | None, origin: ir.Value | None = None) -> None:
        self._only, self._origin = only, origin
        self._known: dict[ir.Value, Form] = {}

    def of(self, v: ir.Value, depth: int) -> Form:
        """Return the form of a value, through at most so many nodes."""
        if v not in self._known:
            found = self._of_node(v, depth) if depth else None
            self._known[v] = {(v, ()): np.ones(())} if found is None or len(found) > _TERMS else found
        return self._known[v]

    def _of_node(self, v: ir.Value, depth: int) -> Form | None:
        if content_of(v) is not None:
            return {}
        node = v.producer()
        if node is None or not _is_linear(node) or self._is_other(node, v):
            return None
        inputs = [u for u in node.inputs if u is not None]
        first = inputs[0]
        if node.op_type in _SUMS:
            signs = [1.0, -1.0] if node.op_type == "Sub" else [1.0] * len(inputs)
            total: Form = {}
            for sign, u in zip(signs, inputs, strict=True):
                for term, factor in self.of(u, depth - 1).items():
                    total[term] = _sum(total.get(term), sign * factor)
            return total
        if node.op_type == "Neg":
            return {term: -factor for term, factor in self.of(first, depth - 1).items()}
        if node.op_type in _BOUNDS:
            moving = _moving(node)
            return self.of(moving[0], depth - 1) if len(moving) == 1 else None
        if node.op_type in _SCALED:
            return self._scaled(node, depth)
        if node.op_type in _INTEGERS:
            scale = optional(node, 1)
            return _times(self.of(first, depth - 1), scale, divides=node.op_type == "QuantizeLinear")
        if node.op_type in _LINEAR:
            how = (node.op_type, *(str(a) for a in node.attributes.values()), *inputs[1:])
            form = self.of(first, depth - 1)
            if any(f.ndim for f in form.values()):  # factors by axis, which are moved
                return None
            return {(at, (*applied, how)): f for (at, applied), f in form.items()}
        return self.of(first, depth - 1)  # the identity, or a tie to what is rounded

    def _is_other(self, node: ir.Node, v: ir.Value) -> bool:
        """Tell whether a node rounds, or ties what is rounded, and is not taken for the identity."""
        if v is self._origin:
            return True
        return self._only is not None and v is not self._only and node.op_type in _ROUNDING

    def _scaled(self, node: ir.Node, depth: int) -> Form | None:
        a, b = node.inputs[0], node.inputs[1]
        if a is None or b is None:
            return None
        if node.op_type == "Div":
            return None if content_of(a) is not None else _times(self.of(a, depth - 1), b, divides=True)
        if not self.of(a, depth - 1):  # a constant, or computed of constants
            a, b = b, a
        elif content_of(b) is None and len(self.of(a, depth - 1)) == 1 and (a, ()) in self.of(a, depth - 1):
            a, b = b, a  # the factor is what is no form itself
        return _times(self.of(a, depth - 1), b, divides=False)


def _times(form: Form, factor: ir.Value | None, *, divides: bool) -> Form | None:
    """Return a form times a factor: a number, or one that is undone where its inverse is applied."""
    if factor is None:
        return None
    known = content_of(factor)
    if known is not None:
        number = np.squeeze(known.astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            return {term: f / number if divides else f * number for term, f in form.items()}
    done: Form = {}
    for (at, applied), f in form.items():
        undone = bool(applied) and applied[-1] == (factor, not divides)
        done[at, applied[:-1] if undone else (*applied, (factor, divides))] = f
    return done


def _sum(a: npt.NDArray[np.float64] | None, b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if a is None:
        return b
    try:
        total = a + b
    except ValueError:  # factors of different axes: not to be compared
        return np.full((), np.nan)
    size = np.maximum(np.max(np.abs(a), initial=0), np.max(np.abs(b), initial=0))
    return np.where(np.abs(total) <= 1e-3 * size, 0.0, total)


def _vanishes(form: Form) -> bool:
    return bool(form) and all(not np.any(f) for f in form.values())
