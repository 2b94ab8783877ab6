"""Operators that choose elements: by constant places, by places from the graph, by size."""

from __future__ import annotations

import numpy as np
from onnx import helper

from benchmarks.fuzz.builder import Builder, Undrawn, Value
from benchmarks.fuzz.recipes.registry import recipe

INT64 = int(helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))


@recipe("Gather")
def gather(b: Builder, op_type: str) -> Value:
    """Along an axis: one entry, several, some of them twice."""
    v = b.data(b.any([2, 3, 4]))
    axis = b.axis(v)
    size = v.shape[axis]
    places = b.any([np.array(0), np.array(-1), b.rng.integers(-size, size, b.whole(1, 4)), np.array([[0], [size - 1]])])
    return b.emit(op_type, v, b.const(np.asarray(places, b.any([np.int64, np.int32]))), axis=axis)


@recipe("GatherElements")
def gather_elements(b: Builder, op_type: str) -> Value:
    """By the order that TopK finds, or by constants."""
    v = b.data(b.any([2, 3]))
    axis = b.axis(v)
    size = v.shape[axis]
    if b.chance(0.4) and size > 1:
        _, places = b.emit("TopK", v, b.ints(size - 1), axis=axis, outputs=2)
        return b.emit(op_type, v, places, axis=axis)
    if b.form == "free":
        raise Undrawn("places for every sample")
    shape = list(v.shape)
    shape[axis] = b.whole(1, 3)
    return b.emit(op_type, v, b.const(b.rng.integers(-size, size, shape).astype(np.int64)), axis=axis)


@recipe("GatherND")
def gather_nd(b: Builder, op_type: str) -> Value:
    """Of every sample at the same places, or at constant places of all."""
    v = b.data(b.any([3, 4]))
    if b.form == "free":
        moved = b.emit("Transpose", v, perm=[1, *range(2, v.rank), 0])
        places = b.rng.integers(-v.shape[1], v.shape[1], (b.whole(1, 3), 1)).astype(np.int64)
        chosen = b.emit(op_type, moved, b.const(places))
        return b.emit("Transpose", chosen, perm=[chosen.rank - 1, *range(chosen.rank - 1)])
    places = b.rng.integers(0, v.shape[1], (v.shape[0], 2, 1)).astype(np.int64)
    return b.emit(op_type, v, b.const(places), batch_dims=1)


@recipe("ScatterElements", "ScatterND")
def scatter(b: Builder, op_type: str) -> Value:
    """Updates from the graph or constant, written or added."""
    v = b.data(b.any([2, 3]))
    reduction = b.any([None, "none", *(["add"] if b.opset >= 16 and v.dtype != np.float16 else [])])
    if b.form == "free" or op_type == "ScatterND":
        turned = b.emit("Transpose", v, perm=[1, *range(2, v.rank), 0])
        count = b.whole(1, turned.shape[0])
        places = b.rng.permutation(turned.shape[0])[:count].astype(np.int64)
        updates = b.emit("Gather", b.emit("Tanh", turned), b.const(places[::-1].copy()), axis=0)
        written = b.emit("ScatterND", turned, b.const(places[:, None]), updates, reduction=reduction)
        return b.emit("Transpose", written, perm=[written.rank - 1, *range(written.rank - 1)])
    axis = b.axis(v) % v.rank
    shape = list(v.shape)
    shape[axis] = 1
    places = b.const(b.rng.integers(0, v.shape[axis], shape).astype(np.int64))
    updates = b.weights(*shape) if b.chance(0.4) else b.emit("Slice", v, b.ints(0), b.ints(1), b.ints(axis))
    return b.emit(op_type, v, places, updates, axis=axis, reduction=reduction)


@recipe("TensorScatter")
def tensor_scatter(b: Builder, op_type: str) -> Value:
    """New entries of a cache, at a place."""
    v = b.data(4)
    if b.form == "free" and b.chance(0.5):
        raise Undrawn("a cache of a size of its own")
    cache = b.emit("Tanh", v)
    new = b.emit("Slice", v, b.ints(0), b.ints(1), b.ints(-2))
    if b.form == "free":
        return b.emit(op_type, cache, new)
    return b.emit(op_type, cache, new, b.const(np.zeros(v.shape[0], np.int64)))


@recipe("TopK")
def top_k(b: Builder, op_type: str) -> Value:
    """The largest or smallest entries; sometimes their places, as numbers, beside them."""
    v = b.data(b.any([2, 3]))
    axis = b.axis(v)
    k = b.whole(1, v.shape[axis])
    return b.emit(op_type, v, b.ints(k), axis=axis, largest=b.any([None, 0]), outputs=2)[0]


@recipe("Compress")
def compress(b: Builder, op_type: str) -> Value:
    """By a constant mask along an axis."""
    v = b.data(b.any([2, 3]))
    axis = b.axis(v)
    mask = b.rng.random(v.shape[axis]) < 0.6
    mask[0] = True
    return b.emit(op_type, v, b.const(mask), axis=axis)


@recipe("ArgMax", "ArgMin", "OneHot")
def chosen(b: Builder, op_type: str) -> Value:
    """A gate by the place of the largest or smallest entry, which is held fixed."""
    v = b.data(2)
    place = b.emit(op_type if op_type != "OneHot" else "ArgMax", v, axis=1, keepdims=0)
    depth = b.const(np.array(v.shape[1], np.int64))
    gate = b.emit("OneHot", place, depth, b.const(np.array([0, 1], b.dtype)), axis=-1)
    return b.emit("Mul", v, gate) if b.chance(0.5) else b.emit("Add", v, gate)
