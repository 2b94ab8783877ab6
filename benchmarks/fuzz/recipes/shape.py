"""Operators that move, repeat, cut and join elements."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.builder import Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe


@recipe("Reshape", "Flatten")
def reshaped(b: Builder, op_type: str) -> Value:
    """To another number of axes; back to rows."""
    v = b.data()
    if op_type == "Flatten":
        return b.emit(op_type, v, axis=b.any([None, 1]))
    rank = b.any([r for r in (2, 3, 4, 5) if r != v.rank])
    return b.ranked(v, rank)


@recipe("Transpose")
def transposed(b: Builder, op_type: str) -> Value:
    """As channels are moved to the back and to the front, or in any order behind the samples."""
    v = b.data(b.any([3, 4, 4, 5]))
    behind = list(range(1, v.rank))
    ways = [[0, *behind[1:], 1], [0, v.rank - 1, *behind[:-1]], [0, *map(int, b.rng.permutation(behind))]]
    return b.emit(op_type, v, perm=b.any(ways))


@recipe("Squeeze", "Unsqueeze")
def one_axis(b: Builder, op_type: str) -> Value:
    """An axis of size 1 more, and one less."""
    v = b.data()
    if v.rank > 4:
        v = b.ranked(v, 3)
    axes = [b.whole(1, v.rank)] if b.chance(0.6) else [1, -1]
    more = b.emit("Unsqueeze", v, b.ints(*axes))
    if op_type == "Unsqueeze":
        return more
    return b.emit("Squeeze", b.emit(b.any(["Relu", "Neg"]), more), b.ints(*axes))


@recipe("Expand", "Tile")
def repeated(b: Builder, op_type: str) -> Value:
    """Along one axis."""
    v = b.data(b.any([2, 3]))
    if op_type == "Tile":
        times = [1] * v.rank
        times[b.axis(v)] = 2
        return b.emit(op_type, v, b.ints(*times))
    v = b.emit("Unsqueeze", v, b.ints(-1))
    return b.emit(op_type, v, b.ints(*[1] * (v.rank - 1), b.whole(2, 3)))


@recipe("Concat")
def concat(b: Builder, op_type: str) -> Value:
    """Of values of the graph and of a constant, which is repeated for every sample where the batch is free."""
    v = b.data(b.any([2, 3, 4]))
    axis = b.axis(v)
    parts = [v, b.emit(b.any(["Relu", "Sigmoid", "Neg"]), v)] if b.chance(0.6) else [v]
    others = [
        u
        for u in b.values
        if u.dtype == v.dtype
        and u.rank == v.rank
        and all(i == axis % v.rank or p == q for i, (p, q) in enumerate(zip(u.shape, v.shape, strict=True)))
    ]
    parts += [b.any(others)] if others and b.chance(0.5) else []
    if b.form != "free" and (len(parts) == 1 or b.chance(0.3)):
        shape = [1 if i == axis % v.rank else d for i, d in enumerate(v.shape)]
        parts.insert(b.whole(0, len(parts)), b.weights(*shape))
    return b.emit(op_type, *parts, axis=axis)


@recipe("Split")
def split(b: Builder, op_type: str) -> Value:
    """In two parts, which are joined again by a gate, a sum or not at all."""
    v = b.data(b.any([2, 3, 4]))
    axis = b.axis(v, least=2)
    size = v.shape[axis]
    first = b.whole(1, size - 1) if b.chance(0.5) or size % 2 else size // 2
    if first * 2 == size and b.chance(0.6):
        given, fields = [], {"num_outputs": 2} if b.opset >= 18 else {}
    else:
        given, fields = [b.ints(first, size - first)], {}
    one, two = b.emit(op_type, v, *given, outputs=2, axis=axis, **fields)
    if one.shape == two.shape and b.chance(0.7):
        return b.emit("Mul", one, b.emit("Sigmoid", two)) if b.chance(0.6) else b.emit("Sub", two, one)
    b.keep(one)
    return two


@recipe("Slice")
def sliced(b: Builder, op_type: str) -> Value:
    """From the front, from the back, in steps, backwards."""
    v = b.data(b.any([2, 3, 4]))
    axis = b.axis(v, least=2)
    size = v.shape[axis]
    start, stop, step = b.any([(0, size - 1, 1), (1, 1 << 40, 1), (-1, -(1 << 40), -1), (0, size, 2), (-size, -1, 1)])
    if step == 1 and b.chance(0.5):
        return b.emit(op_type, v, b.ints(start), b.ints(stop), b.ints(axis))
    return b.emit(op_type, v, b.ints(start), b.ints(stop), b.ints(axis), b.ints(step))


@recipe("Pad")
def pad(b: Builder, op_type: str) -> Value:
    """By a constant, its edge or its mirror; a negative pad cuts."""
    v = b.data(b.any([2, 3, 4]))
    axis = b.axis(v, least=2) % v.rank
    mode = b.any(["constant", "constant", "edge", "reflect", *(["wrap"] if b.opset >= 19 else [])])
    pads = [0] * 2 * v.rank
    pads[axis], pads[axis + v.rank] = 1, b.any([0, 1, -1 if mode == "constant" and v.shape[axis] > 2 else 1])
    value = b.scalar(b.any([0.0, 0.7])) if mode == "constant" and b.chance(0.5) else None
    if b.opset >= 18 and b.chance(0.3):
        pads = [pads[axis], pads[axis + v.rank]]
        return b.emit(op_type, v, b.ints(*pads), value, b.ints(axis), mode=mode)
    return b.emit(op_type, v, b.ints(*pads), *([value] if value else []), mode=mode)


@recipe("DepthToSpace", "SpaceToDepth")
def depth_and_space(b: Builder, op_type: str) -> Value:
    """By blocks of 2."""
    v = b.data(2)
    sizes = [4, 1, 2] if op_type == "DepthToSpace" else [1, 4, 2]
    v = b.reshape(b.emit("MatMul", v, b.weights(v.shape[1], int(np.prod(sizes)))), [v.shape[0], *sizes])
    if op_type == "SpaceToDepth":
        return b.emit(op_type, v, blocksize=2)
    return b.emit(op_type, v, blocksize=2, mode=b.any([None, "DCR", "CRD"]))


@recipe("Trilu")
def trilu(b: Builder, op_type: str) -> Value:
    """One half of matrices."""
    v = b.data(3)
    k = b.const(np.array(b.whole(-1, 1), np.int64)) if b.chance(0.6) else None
    return b.emit(op_type, v, *([k] if k else []), upper=b.any([None, 0, 1]))


@recipe("Resize")
def resize(b: Builder, op_type: str) -> Value:
    """Pictures made larger and smaller, in every mode."""
    v = b.data(4)
    mode = b.any(["nearest", "linear", "cubic"])
    fields = {"mode": mode, "coordinate_transformation_mode": b.any(["half_pixel", "asymmetric", "align_corners"])}
    if mode == "nearest":
        fields["nearest_mode"] = b.any(["floor", "round_prefer_floor", "ceil"])
    if b.chance(0.6) or b.form == "free":
        factors = [1.0, 1.0, b.any([1.0, 2.0, 0.5]), b.any([1.0, 1.5, 2.0])]
        return b.emit(op_type, v, None, b.const(np.array(factors, np.float32)), **fields)
    sizes = b.ints(*v.shape[:2], b.whole(1, 4), b.whole(1, 5))
    return b.emit(op_type, v, None, None, sizes, **fields)


@recipe("CenterCropPad")
def center_crop_pad(b: Builder, op_type: str) -> Value:
    """To sizes of its axes."""
    v = b.data(3)
    return b.emit(op_type, v, b.ints(b.whole(1, 4), b.whole(1, 4)), axes=[1, 2])


@recipe("ReverseSequence")
def reverse_sequence(b: Builder, op_type: str) -> Value:
    """Sequences of each sample's own length, backwards."""
    v = b.data(3)
    if b.form == "free":
        raise Undrawn("one length for every sample")
    lengths = b.const(b.rng.integers(1, v.shape[1] + 1, v.shape[0]).astype(np.int64))
    return b.emit(op_type, v, lengths, batch_axis=0, time_axis=1)
