"""Quantisation by hand: Round, Floor or Ceil of what spans many steps.

Its derivative is zero between the steps and tells nothing of the model; as for QuantizeLinear and DequantizeLinear, the
gradient is that of the value that is rounded, and rounding is a term of its own. How many steps are many, and of what,
`levels` says: what is done with a result makes no difference, so that equal functions have equal gradients. A staircase
of few steps stays as it is, and so does what serves for its residue, or for places alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import source_of, tensor_of, written_for
from fgonnx.engine.graph.values import content_of, required, shaped
from fgonnx.engine.normal.levels import FEWEST_LEVELS, HOLDS, ROUNDING, bounded_levels
from fgonnx.engine.normal.residue import is_residue
from fgonnx.engine.normal.tie import DOMAIN, dependent_nodes

PREFIX = "rounded/"
"""Prefix of the names of what is written."""

# What may lie between rounding and the scales: zero points and bounds.
_SHIFTS = ("Add", "Clip", "Max", "Min", "Sub")
_NUMBERS = ("ConvInteger", "DequantizeLinear", "MatMulInteger", "QuantizeLinear", "QGemm")
_PLACES = ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND")
_PASSES = (*_SHIFTS, "Cast", "Identity")


@dataclass(frozen=True)
class Factor:
    """What a value is multiplied by, or divided by.

    Attributes
    ----------
    value : ir.Value
        The factor or the divisor.
    divides : bool
        Whether it is a divisor.
    known : numpy array or None
        The factor, if it is constant; 1 over the divisor.
    """

    value: ir.Value
    divides: bool
    known: npt.NDArray[np.float64] | None


def tie_rounding(model: ir.Model, x: ir.Value, levels: Mapping[str, float]) -> None:
    """Requires: constants lifted, `measured_levels`. Ensures: what is quantised by hand is tied to what it rounds."""
    graph = model.graph
    op = Emitter(graph, prefix=PREFIX)
    changed = False
    for node in dependent_nodes(graph, x):
        if node.domain or node.op_type not in ROUNDING:
            continue
        value, rounded = required(node, 0), node.outputs[0]
        if not _quantises(node, levels) or is_residue(rounded):
            continue
        users = list(rounded.uses())
        tied = op.emit("StraightThrough", value, rounded, domain=DOMAIN, name=f"{rounded.name}::real")
        written_for(tied.producer() or node, node)
        for user, i in users:
            user.replace_input_with(i, shaped(tied, rounded))
        changed = True
    if changed:
        graph.sort()


def _quantises(node: ir.Node, levels: Mapping[str, float]) -> bool:
    """Tell whether a node rounds to many levels; one that was written for another, whether scales undo each other."""
    value, rounded = required(node, 0), node.outputs[0]
    bounded = bounded_levels(rounded)
    measured = levels.get(str(rounded.name), levels.get(tensor_of(rounded)))
    known = measured if bounded is None else bounded
    of = source_of(node)[1].rpartition(".")[2]
    if of == "QuantizeLinear":
        return True
    if of in (*ROUNDING, *HOLDS) and known is not None:
        return known >= FEWEST_LEVELS and _is_read(rounded)
    before = _factor_before(value)
    undone = before is not None and any(_inverse(before, after) for after in _factors_behind(rounded))
    return undone or _is_stored(rounded)


def _is_read(v: ir.Value, depth: int = 8) -> bool:
    """Tell whether what is rounded is read as a number, not as a place alone."""
    if v.is_graph_output() or depth == 0:
        return True
    for node, _ in v.uses():
        if node.op_type in ("Cast", "CastLike") and not node.domain and _is_whole_type(node.outputs[0]):
            read = _is_number(node.outputs[0])
        elif not node.domain and node.op_type in (*_SHIFTS, "Identity"):
            read = _is_read(node.outputs[0], depth - 1)
        else:
            read = True
        if read:
            return True
    return False


def _factor_before(v: ir.Value) -> Factor | None:
    """Return what a value was multiplied or divided by, a zero point and bounds set aside."""
    node = v.producer()
    while node is not None and not node.domain and node.op_type in _SHIFTS:
        moving = [u for u in node.inputs if u is not None and content_of(u) is None]
        if len(moving) != 1:
            return None
        node = moving[0].producer()
    if node is None or node.domain or node.op_type not in ("Div", "Mul"):
        return None
    if node.op_type == "Div" and content_of(node.inputs[0]) is not None:
        return None
    return _factor(node)


def _factors_behind(v: ir.Value, depth: int = 8) -> Iterator[Factor]:
    """Yield what a value is multiplied or divided by further on, where it is read as a number."""
    for node, i in v.uses():
        if node.domain or depth == 0:
            continue
        if node.op_type in ("Cast", "CastLike") and _is_whole_type(node.outputs[0]) and not _is_number(node.outputs[0]):
            continue
        if node.op_type in ("Div", "Mul") and (node.op_type == "Mul" or i == 0):
            yield _factor(node, v)
        elif node.op_type == "DequantizeLinear" and i == 0:
            scale = required(node, 1)
            known = content_of(scale)
            yield Factor(scale, False, None if known is None else known.astype(np.float64))
        elif node.op_type in _PASSES:
            yield from _factors_behind(node.outputs[0], depth - 1)


def _is_whole_type(v: ir.Value) -> bool:
    return v.dtype is not None and not v.dtype.is_floating_point()


def _is_stored(v: ir.Value, depth: int = 8) -> bool:
    """Tell whether what is rounded is cast to integers that are read as numbers."""
    for node, _ in v.uses():
        if narrows(node):
            return True
        if (
            depth
            and not node.domain
            and node.op_type in (*_SHIFTS, "Identity")
            and _is_stored(node.outputs[0], depth - 1)
        ):
            return True
    return False


def _factor(node: ir.Node, moving: ir.Value | None = None) -> Factor:
    a, b = required(node, 0), required(node, 1)
    other = a if node.op_type == "Mul" and (b is moving or (moving is None and content_of(a) is not None)) else b
    known, divides = content_of(other), node.op_type == "Div"
    if known is None:
        return Factor(other, divides, None)
    array = known.astype(np.float64)
    with np.errstate(divide="ignore"):
        return Factor(other, divides, 1 / array if divides else array)


def _inverse(before: Factor, after: Factor) -> bool:
    """Tell whether one factor undoes the other: a scale divided by and multiplied with."""
    if before.known is None or after.known is None:
        return before.value is after.value and before.divides != after.divides
    a, b = np.squeeze(before.known), np.squeeze(after.known)
    return (a.shape == b.shape or a.ndim == 0 or b.ndim == 0) and bool(np.allclose(a * b, 1, rtol=1e-3, atol=0))


def whole(v: ir.Value | None) -> bool:
    """Tell whether all entries of a floating-point value are whole numbers."""
    known = content_of(v)
    if known is not None:
        return bool(np.all(np.mod(known, 1) == 0))
    node = v.producer() if v is not None else None
    if node is None:
        return False
    if node.op_type == "StraightThrough" and node.domain == DOMAIN:
        return whole(node.inputs[1])
    if node.domain or node.op_type in ROUNDING:
        return not node.domain
    if node.op_type == "Cast":
        given = required(node, 0)
        return _is_whole_type(given) or whole(given)
    return node.op_type in (*_SHIFTS, "Identity") and all(u is None or whole(u) for u in node.inputs)


def narrows(node: ir.Node) -> bool:
    """Tell whether a node casts whole floating-point numbers to an integer type."""
    v = node.inputs[0] if node.inputs else None
    if node.domain or node.op_type not in ("Cast", "CastLike") or v is None or v.dtype is None:
        return False
    out = node.outputs[0].dtype
    if out is None or out.is_floating_point() or out == ir.DataType.BOOL:
        return False
    return v.dtype.is_floating_point() and whole(v) and _is_number(node.outputs[0])


def _is_number(v: ir.Value, depth: int = 12) -> bool:
    """Tell whether integers are read as numbers further on, not as places alone."""
    for node, i in v.uses():
        if node.op_type in _NUMBERS or node.op_type.startswith("QLinear"):
            return True
        if depth == 0 or (node.op_type in _PLACES and i == 1) or not node.outputs:
            continue
        out = node.outputs[0]
        if node.op_type in ("Cast", "CastLike") and out.dtype is not None and out.dtype.is_floating_point():
            return True
        if out.dtype is not None and not out.dtype.is_floating_point() and _is_number(out, depth - 1):
            return True
    return False
