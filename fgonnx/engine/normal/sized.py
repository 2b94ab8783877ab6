"""Sizes that follow from values: what is known of a run's shapes, and what only holds for the values it was given.

A size follows from shapes and constants alone, or from the values of an input: a Reshape to k rows where k is an input,
a TopK of as many entries as are positive. The first kind is exact for every input of the same shapes; one of the second
kind that a run has shown must not be taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.values import CONTENT, content_of, inputs_of, optional, subgraphs_of

Axes = frozenset[int]
Flags = npt.NDArray[np.bool_]

#: Operators that find as many entries as there are, and the axis along which they list them.
COUNTING = {"NonZero": 1, "NonMaxSuppression": 0, "Unique": 0, "Compress": 0}

#: Where operators take sizes, or numbers that sizes follow from.
SIZES: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "DFT": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}

#: Operators that combine tensors entry by entry, broadcast to one shape.
_BROADCAST = frozenset(
    [
        *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Expand", "Greater"),
        *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub"),
        *("Sum", "Where", "Xor"),
    ]
)
#: Inputs that give what is looked up or where, not how much.
_OF_THE_DATA = frozenset({"ScatterND", "ScatterElements", "Shape", "Size"})
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})
_FEW = 64  # entries of a value that are followed one by one
_ALL = 8  # axes of a value of unknown rank


@dataclass
class Sizes:
    """What follows from the values of inputs, in one graph.

    Attributes
    ----------
    content : dict of ir.Value to numpy array of bool
        Values whose content does, and which of their entries; of no axes where it may be any.
    axes : dict of ir.Value to frozenset of int
        Values some of whose sizes do, and along which axes.
    origin : dict of ir.Value to ir.Node
        For those, the node that takes the values, or counts.
    source : dict of ir.Value to ir.Value
        For both, the graph input it follows from, or the random numbers.
    counts : dict of ir.Value to ir.Node
        Values whose content follows from the number of entries that an operator finds, and from no other value.
    """

    content: dict[ir.Value, Flags] = field(default_factory=dict)
    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    origin: dict[ir.Value, ir.Node] = field(default_factory=dict)
    source: dict[ir.Value, ir.Value] = field(default_factory=dict)
    counts: dict[ir.Value, ir.Node] = field(default_factory=dict)

    def moving(self, v: ir.Value | None) -> bool:
        """Tell whether the content of a value follows from values."""
        return v is not None and v in self.content and bool(self.content[v].any())

    def taken(self, node: ir.Node) -> ir.Value | None:
        """Return the size that a node takes and that follows from values; None where there is none."""
        if node.domain:
            return None
        slots = SIZES.get(node.op_type, ())
        return next((v for v in (optional(node, i) for i in slots) if v is not None and self.moving(v)), None)

    def counted(self, v: ir.Value | None) -> bool:
        """Tell whether a size of a value is a number of entries that an operator finds."""
        node = self.origin.get(v) if v is not None else None
        return node is not None and node.op_type in COUNTING


def sizes_of(graph: ir.Graph) -> Sizes:
    """Return what follows from the values of a graph's inputs: contents, and sizes."""
    found = Sizes()
    for v in graph.inputs:
        if v.name not in graph.initializers:
            found.content[v], found.source[v] = np.array(True), v
    for node in graph:
        _follow_content(found, node)
        _follow_sizes(found, node)
    return found


def needed_values(graph: ir.Graph) -> dict[ir.Value, ir.Node]:
    """Return the graph inputs whose values give a size, without shapes, and the first node that takes it."""
    found: dict[ir.Value, ir.Node] = {}
    reached: dict[ir.Value, set[ir.Value]] = {v: {v} for v in graph.inputs if v.name not in graph.initializers}
    for node in graph:
        slots = () if node.domain else SIZES.get(node.op_type, ())
        for size in (optional(node, i) for i in slots):
            for v in reached.get(size, ()) if size is not None else ():
                found.setdefault(v, node)
        joined = set().union(*(reached.get(v, set()) for v in inputs_of(node)))
        reached.update((v, joined) for v in node.outputs)
    return found


def _follow_content(found: Sizes, node: ir.Node) -> None:
    """Mark the outputs of a node whose content follows from values."""
    if node.op_type in ("Shape", "Size") and not node.domain:
        of = node.inputs[0]
        if of is not None and found.axes.get(of):
            flags = np.isin(np.arange(_rank(of)), list(found.axes[of]))
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", None)
            flags = flags[slice(start, end)] if node.op_type == "Shape" else np.array(True)
            found.content[node.outputs[0]], found.source[node.outputs[0]] = flags, found.source[of]
            if found.counted(of):
                found.counts[node.outputs[0]] = found.origin[of]
        return
    taken = [v for v in inputs_of(node) if found.moving(v)]
    if not taken and node.op_type not in _RANDOM:
        return
    entries = _entries(found, node) if not subgraphs_of(node) and len(node.outputs) == 1 else None
    for v in node.outputs:
        found.content[v] = entries if entries is not None else np.array(True)
        found.source[v] = found.source[taken[0]] if taken else v
        if taken and all(u in found.counts for u in taken):
            found.counts[v] = found.counts[taken[0]]


def _entries(found: Sizes, node: ir.Node) -> Flags | None:
    """Return which entries of a short value follow from values; None where that is not known."""
    parts = [_flags(found, v) for v in node.inputs]
    size = node.outputs[0].shape
    indices = content_of(optional(node, 1)) if node.op_type == "Gather" else None  # no weights are read
    whole = tuple(size.numpy()) if size is not None and size.is_static() else None
    if whole is None or len(whole) > 1 or any(d > _FEW for d in whole) or any(p is None for p in parts):
        return None
    known = [p for p in parts if p is not None]
    if node.op_type == "Concat":
        return np.concatenate([np.atleast_1d(p) for p in known])
    if node.op_type == "Gather" and indices is not None and known[0].ndim == 1:
        return np.asarray(known[0][indices])
    if node.op_type == "Slice" and not any(p.any() for p in known[1:]) and known[0].ndim == 1:
        bounds = [content_of(optional(node, i)) for i in (1, 2)]
        step = content_of(optional(node, 4))
        if all(b is not None for b in bounds) and (step is not None or optional(node, 4) is None):
            start, stop = (int(np.ravel(b)[0]) for b in bounds if b is not None)
            return np.asarray(known[0][_slice(start, stop, 1 if step is None else int(np.ravel(step)[0]))])
    if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Abs", "Neg", "Ceil", "Floor"):
        return known[0].reshape(whole) if known[0].size == int(np.prod(whole)) else None
    if node.op_type in _BROADCAST - {"Expand"}:
        return np.asarray(np.logical_or.reduce(np.broadcast_arrays(*known)))
    return None


def _slice(start: int, stop: int, step: int) -> slice:
    """Return a slice by ONNX's bounds, whose ends may lie far outside."""
    return slice(start, None if step < 0 and stop < -(1 << 31) else stop, step)


def _flags(found: Sizes, v: ir.Value | None) -> Flags | None:
    """Return which entries of a value follow from values, of the value's shape; None where that is not known."""
    if v is None:
        return np.array(False)
    shape = tuple(v.shape.numpy()) if v.shape is not None and v.shape.is_static() else None
    if shape is None or len(shape) > 1 or any(d > _FEW for d in shape) or found.axes.get(v):
        return None
    return np.broadcast_to(found.content.get(v, np.array(False)), shape)


def _follow_sizes(found: Sizes, node: ir.Node) -> None:
    """Mark the outputs of a node whose sizes follow from values."""
    counted = None if node.domain or not node.inputs else node.inputs[1 if node.op_type == "Compress" else 0]
    if node.op_type in COUNTING and found.moving(counted) and counted is not None:
        along = "axis" in node.attributes and node.op_type in ("Unique", "Compress")
        axis = node.attributes["axis"].as_int() if along else COUNTING[node.op_type]
        _set(found, node, [frozenset([axis % _rank(node.outputs[0])])] + [frozenset([0])] * 3, counted, node)
        return
    size = found.taken(node)
    if node.op_type == "Loop" and size is not None:
        scanned = len(node.inputs) - 2
        _set(found, node, [frozenset([0][: i >= scanned]) for i in range(len(node.outputs))], size, node)
        return
    slots = [i for i, v in enumerate(node.inputs) if v is not None and found.axes.get(v)]
    if node.op_type in ("ConstantOfShape", "Range", "Reshape", "Expand") and not node.domain:
        slots = slots if node.op_type in ("Reshape", "Expand") else []
    new = _sized(found, node, size) if size is not None else frozenset()
    kept = _after(found, node, slots) if slots else frozenset()
    if not new | kept:
        return
    if size is not None and new:
        _set(found, node, [new | kept] * len(node.outputs), size, found.counts.get(size, node))
    else:
        first = node.inputs[slots[0]]
        assert first is not None
        _set(found, node, [new | kept] * len(node.outputs), first, found.origin[first])


def _set(found: Sizes, node: ir.Node, axes: Sequence[Axes], source: ir.Value, origin: ir.Node) -> None:
    for v, along in zip(node.outputs, axes, strict=False):
        if along:
            found.axes[v], found.origin[v], found.source[v] = along, origin, found.source[source]


def _sized(found: Sizes, node: ir.Node, size: ir.Value) -> Axes:
    """Return the axes of a node's output whose size is what follows from values."""
    rank, flags = _rank(node.outputs[0]), _flags(found, size)
    everywhere = frozenset(range(rank))
    if node.op_type in ("Split", "TopK"):
        return frozenset([node.attributes.get_int("axis", 0 if node.op_type == "Split" else -1) % rank])
    if node.op_type == "OneHot":
        return frozenset([node.attributes.get_int("axis", -1) % rank])
    if flags is None or flags.ndim != 1:
        return everywhere
    if node.op_type == "Expand":
        places = frozenset(int(i) + rank - len(flags) for i in np.flatnonzero(flags))
        return frozenset(a for a in places if not _fixed(found, node.inputs[0], a - rank))
    if node.op_type in ("ConstantOfShape", "Tile") and len(flags) == rank:
        return frozenset(int(i) for i in np.flatnonzero(flags))
    chosen = content_of(optional(node, 3)) if node.op_type in ("Slice", "Pad") else None
    if node.op_type == "Slice" and chosen is not None:
        return frozenset(int(a) % rank for a in np.ravel(chosen))
    if node.op_type == "Pad" and len(flags) == 2 * rank:
        return frozenset(int(i) % rank for i in np.flatnonzero(flags))
    if node.op_type == "Resize" and len(flags) == rank:
        return frozenset(int(i) for i in np.flatnonzero(flags))
    return everywhere


def _fixed(found: Sizes, v: ir.Value | None, place: int) -> bool:
    """Tell whether a value has a fixed size above 1 at a place, counted from behind: others are broadcast to it."""
    if v is None or v.shape is None or -place > v.shape.rank():
        return False
    dim = v.shape.dims[place]
    return place + v.shape.rank() not in found.axes.get(v, ()) and dim != 1 and isinstance(dim, int)


def _after(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    """Return the axes of a node's output whose size follows from values, of those of its inputs."""
    rule = None if node.domain else _RULES.get(node.op_type)
    if rule is not None:
        return rule(found, node, slots)
    first = node.inputs[slots[0]]
    if first is None or (node.op_type in CONTENT and not CONTENT[node.op_type]):
        return frozenset()
    axes, rank, after = found.axes[first], _rank(first), _rank(node.outputs[0])
    if node.op_type in _OF_THE_DATA and not node.domain:
        return axes if slots[0] == 0 and node.op_type.startswith("Scatter") else frozenset()
    if node.op_type.startswith("Reduce") or node.op_type in ("ArgMax", "ArgMin"):
        return _reduced(node, axes, rank)
    places = {a - _rank(v) for v in (node.inputs[i] for i in slots) if v is not None for a in found.axes[v]}
    if node.op_type in _BROADCAST and not node.domain:
        return frozenset(p + after for p in places if not any(_fixed(found, v, p) for v in node.inputs))
    if after >= rank:
        return frozenset(p + after for p in places if p + after >= 0)
    return frozenset([0][:after])


def _rank(v: ir.Value) -> int:
    return v.shape.rank() if v.shape is not None else _ALL


def _axes_of(found: Sizes, node: ir.Node, slot: int) -> Axes:
    v = optional(node, slot)
    return found.axes.get(v, frozenset()) if v is not None else frozenset()


def _reduced(node: ir.Node, axes: Axes, rank: int) -> Axes:
    given = content_of(optional(node, 1)) if node.op_type.startswith("Reduce") else [node.attributes.get_int("axis", 0)]
    empty = given is None or not len(given)
    if empty and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return axes
    gone = set(range(rank)) if given is None or empty else {int(a) % rank for a in given}
    if node.attributes.get_int("keepdims", 1):
        return axes - gone
    return frozenset(a - sum(g < a for g in gone) for a in axes if a not in gone)


def _gathered(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    data, indices = node.inputs[0], node.inputs[1]
    assert data is not None
    assert indices is not None
    at, count = node.attributes.get_int("axis", 0) % _rank(data), _rank(indices)
    taken = {at + a for a in _axes_of(found, node, 1) if a < count}
    return frozenset(taken | {a if a < at else a + count - 1 for a in _axes_of(found, node, 0) if a != at})


def _gathered_elements(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    return _axes_of(found, node, 1)


def _of_regions(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    return frozenset([0] if _axes_of(found, node, 1) | _axes_of(found, node, 2) else [])


def _gathered_nd(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    indices = node.inputs[1]
    assert indices is not None
    return frozenset(a for a in _axes_of(found, node, 1) if a < _rank(indices) - 1)


def _one_hot(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    at = node.attributes.get_int("axis", -1) % _rank(node.outputs[0])
    return frozenset(a if a < at else a + 1 for a in _axes_of(found, node, 0))


def _transposed(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    rank = _rank(node.outputs[0])
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
    return frozenset(i for i, p in enumerate(perm) if p in _axes_of(found, node, 0))


def _squeezed(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    given, x = content_of(optional(node, 1)), node.inputs[0]
    assert x is not None
    gone = {int(a) % _rank(x) for a in np.ravel(given)} if given is not None else set()
    return frozenset(a - sum(g < a for g in gone) for a in _axes_of(found, node, 0))


def _unsqueezed(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    given, x = content_of(optional(node, 1)), node.inputs[0]
    assert x is not None
    rank = _rank(x)
    added = {int(a) % (rank + given.size) for a in np.ravel(given)} if given is not None else set()
    places = [i for i in range(rank + len(added)) if i not in added]
    return frozenset(places[a] for a in _axes_of(found, node, 0))


def _reshaped(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    axes, target, rank = _axes_of(found, node, 0), content_of(optional(node, 1)), _rank(node.outputs[0])
    if not axes:
        return frozenset()
    if target is None:
        return frozenset(range(rank))
    return frozenset(i for i, t in enumerate(target) if t == -1 or (t == 0 and i in axes))


def _top(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    return _axes_of(found, node, 0) - {node.attributes.get_int("axis", -1) % _rank(node.outputs[0])}


def _product(found: Sizes, node: ir.Node, slots: Sequence[int]) -> Axes:
    a, b, rank = node.inputs[0], node.inputs[1], _rank(node.outputs[0])
    if a is None or b is None or min(_rank(a), _rank(b)) < 2:
        return frozenset(range(rank))
    rows = {p - _rank(a) for p in _axes_of(found, node, 0)}
    columns = {p - _rank(b) for p in _axes_of(found, node, 1)}
    batch = {p for p in rows | columns if p < -2 and not any(_fixed(found, v, p) for v in (a, b))}
    return frozenset(p + rank for p in {*batch, *(rows & {-2}), *(columns & {-1})})


_RULES: dict[str, Callable[[Sizes, ir.Node, Sequence[int]], Axes]] = {
    "Gather": _gathered,
    "GatherElements": _gathered_elements,
    "GatherND": _gathered_nd,
    "MatMul": _product,
    "OneHot": _one_hot,
    "Reshape": _reshaped,
    "RoiAlign": _of_regions,
    "Squeeze": _squeezed,
    "TopK": _top,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
