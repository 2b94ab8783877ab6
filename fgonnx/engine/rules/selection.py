"""Maps that choose or resample elements: Slice, Gather and its kin, Resize. All linear in the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.values import dtype_of
from fgonnx.engine.rules import written
from fgonnx.engine.rules.fast.masks import apply_along, scatter_add, spread_matrix, unit_matrix
from fgonnx.engine.rules.registry import FIX_BATCH, Cotangent, Local, Unsupported, Vjp, linear, rule

_MULTIPLIED = 1024  # entries up to which zeros are put between them by a matrix


@rule("Slice", since=10, family="linear", note="c = 0 (linear); bounds must be constant")
def slice_(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    starts: ir.Value,
    ends: ir.Value,
    axes: ir.Value | None = None,
    steps: ir.Value | None = None,
) -> Local:
    first, last = op.array(starts), op.array(ends)
    along, step = op.array(axes), op.array(steps)
    if first is None or last is None or (axes and along is None) or (steps and step is None):
        raise Unsupported("its bounds are not constant")
    rank = op.rank(x)
    chosen = [int(a) % rank for a in along] if along is not None else list(range(len(first)))
    strides = [int(s) for s in step] if step is not None else [1] * len(chosen)

    def vjp(g: ir.Value) -> ir.Value:
        begin, end = [0] * rank, [0] * rank
        for i, axis in enumerate(chosen):
            size, count, s = op.dims(x)[axis], op.dims(y)[axis], strides[i]
            if not isinstance(size, int) or not isinstance(count, int):
                if size == count and s == 1:
                    continue
                raise Unsupported("it cuts the batch axis", FIX_BATCH)
            start = slice(int(first[i]), int(last[i]), s).indices(size)[0]
            if s < 0:  # the last element taken becomes the first one
                start, s = start + (count - 1) * s, -s
                g = op.Slice(g, [-1], [int(np.iinfo(np.int64).min)], [axis], [-1])
            if s > 1:
                g = _stuff(op, g, y, axis, count, s)
            begin[axis] = start
            end[axis] = size - start - ((count - 1) * s + 1)
        return op.Pad(g, [*begin, *end]) if any(begin) or any(end) else g

    return Local(vjp)


def _stuff(op: Emitter, g: ir.Value, y: ir.Value, axis: int, count: int, step: int) -> ir.Value:
    """Put step - 1 zeros between the elements along an axis: a 0/1 matrix, which every runtime multiplies fast.

    Long axes, such as those of recordings, are padded instead.
    """
    size = (count - 1) * step + 1
    if count > _MULTIPLIED:
        rank = op.rank(y)
        behind = [d if isinstance(d, int) else -1 for d in op.dims(y)[axis + 1 :]]
        apart = op.Pad(op.Unsqueeze(g, [axis + 1]), [0] * (rank + 1 + axis + 1) + [step - 1] + [0] * (rank - axis - 1))
        return op.Slice(op.Reshape(apart, [*[0] * axis, count * step, *behind]), [0], [size], [axis])
    spread = op.Transpose(spread_matrix(op, count, step, dtype_of(g)), perm=[1, 0])
    return apply_along(op, g, op.Slice(spread, [0], [size], [0]), axis, op.rank(y))


@rule("Gather", family="linear", note="c = 0 (linear in the data)")
def gather(op: Emitter, y: ir.Value, data: ir.Value, indices: ir.Value, *, axis: int = 0) -> Local:
    axis %= op.rank(data)
    dims, picked = op.dims(data), op.dims(indices)
    count = int(np.prod([d for d in picked if isinstance(d, int)], initial=1))
    if not all(isinstance(d, int) for d in picked):
        # as_strided picks from the data of all samples, flattened, by indices that are computed from its shape
        if not all(isinstance(d, int) for i, d in enumerate(dims) if i != axis):
            raise Unsupported("its indices depend on the batch size", FIX_BATCH)
        count = -1

    def vjp(g: ir.Value) -> ir.Value:
        # (before, indices..., after) -> (before, K, after)
        outer = [d if isinstance(d, int) else -1 for d in dims]
        flat = op.Reshape(g, [*outer[:axis], count, *outer[axis + 1 :]])
        return _add_rows(op, flat, data, indices, axis)

    return Local(vjp)


def _add_rows(op: Emitter, rows: ir.Value, data: ir.Value, indices: ir.Value, axis: int) -> ir.Value:
    """Add rows along an axis at their indices into zeros of the shape of `data`."""
    rank, size = op.rank(data), op.dims(data)[axis]
    known = op.array(indices)
    if known is not None and isinstance(size, int):
        known = known.reshape(-1) % size
        if len(known) and (np.diff(known) == 1).all():  # a run: no need to scatter
            before, after = int(known[0]), size - int(known[-1]) - 1
            edges = [before if i == axis else after if i == rank + axis else 0 for i in range(2 * rank)]
            return op.Pad(rows, edges) if any(edges) else rows
    wide = op.Cast(indices, to=ir.DataType.INT64.value)
    index = op.Reshape(wide, [-1 if i == axis else 1 for i in range(rank)])
    spread = op.Expand(index, op.Shape(rows))
    return scatter_add(op, "ScatterElements", op.zeros_like(data), spread, rows, axis=axis)


@linear("GatherElements", note="c = 0 (linear in the data)")
def gather_elements(op: Emitter, y: ir.Value, data: ir.Value, indices: ir.Value, *, axis: int = 0) -> Vjp:
    return lambda g: scatter_add(op, "ScatterElements", op.zeros_like(data), indices, g, axis=axis)


@rule("GatherND", since=11, family="linear", note="c = 0 (linear in the data)")
def gather_nd(op: Emitter, y: ir.Value, data: ir.Value, indices: ir.Value, *, batch_dims: int = 0) -> Local:
    def vjp(g: ir.Value) -> ir.Value:
        full = indices
        if batch_dims:  # (b.., i.., k) -> (b.., i.., b.. and k): the place along a batch axis counts ones before it
            ones = op.Add(op.Mul(op.Slice(indices, [0], [1], [-1]), 0), 1)
            places = [op.CumSum(ones, np.array(axis), exclusive=1) for axis in range(batch_dims)]
            full = op.Concat(*places, indices, axis=-1)
        return scatter_add(op, "ScatterND", op.zeros_like(data), full, g)

    return Local(vjp)


def _scattering(op_type: str, pick: str, lasts: Callable[..., ir.Value | None]) -> None:
    @rule(
        op_type,
        since=11,
        family="linear",
        note="c = the constant one of data and updates; of writes to one place the last gets the cotangent",
    )
    def scatter(
        op: Emitter,
        y: ir.Value,
        data: ir.Value,
        indices: ir.Value,
        updates: ir.Value,
        *,
        axis: int | None = None,
        reduction: str = "none",
    ) -> Local:
        if reduction not in ("none", "add"):
            raise Unsupported(f"its reduction '{reduction}' is not built")
        along = {} if axis is None else {"axis": axis}

        def put(into: ir.Value, what: ir.Value) -> ir.Value:
            return op.emit(op_type, into, indices, what, reduction=reduction, **along)

        def vjp(g: ir.Value) -> list[Cotangent]:
            covered = g if reduction == "add" or not op.is_active(data) else put(g, op.zeros_like(updates))
            if not op.is_active(updates):
                return [covered, None, None]
            picked = op.emit(pick, g, indices, **along)
            if reduction == "none":
                picked = written.lasting(op, picked, lasts(op, data, indices, updates, **along))
            return [covered, None, picked]

        if op.is_active(data) and op.is_active(updates):
            return Local(vjp)
        if op.is_active(data):
            return Local(vjp, put(op.zeros_like(data), updates))
        return Local(vjp, data if reduction == "add" else put(data, op.zeros_like(updates)))


_scattering("ScatterElements", "GatherElements", written.elements)
_scattering("ScatterND", "GatherND", written.slices)


@rule("TopK", since=11, family="homogeneous", note="c = 0 (degree 1)")
def top_k(
    op: Emitter,
    ys: tuple[ir.Value, ir.Value],
    x: ir.Value,
    k: ir.Value,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> Local:
    return Local(lambda g, _: op.ScatterElements(op.zeros_like(x), ys[1], g, axis=axis))


@linear("ReverseSequence", note="c = 0 (linear); its own inverse")
def reverse_sequence(
    op: Emitter, y: ir.Value, x: ir.Value, lengths: ir.Value, *, batch_axis: int = 1, time_axis: int = 0
) -> Vjp:
    return lambda g: op.ReverseSequence(g, lengths, batch_axis=batch_axis, time_axis=time_axis)


@linear("Compress", note="c = 0 (linear)")
def compress(op: Emitter, y: ir.Value, x: ir.Value, condition: ir.Value, *, axis: int | None = None) -> Vjp:
    def vjp(g: ir.Value) -> ir.Value:
        kept = op.Reshape(op.NonZero(condition), [-1])
        if axis is not None:
            return _add_rows(op, g, x, kept, axis % op.rank(x))
        flat = op.Reshape(op.zeros_like(x), [-1])
        return op.reshape_like(op.ScatterElements(flat, kept, g, axis=0), x)

    return vjp


@rule("Resize", since=11, family="linear", note="c = 0 (linear), or the value it extrapolates with")
def resize(
    op: Emitter,
    y: ir.Value,
    x: ir.Value,
    roi: ir.Value | None = None,
    scales: ir.Value | None = None,
    sizes: ir.Value | None = None,
    *,
    antialias: int = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Local:
    factors, target = _content(op, scales), _content(op, sizes)
    cropped = coordinate_transformation_mode == "tf_crop_and_resize"
    region = _content(op, roi) if cropped else None
    if (factors is None and target is None) or (cropped and region is None):
        raise Unsupported("its scales, sizes or region are not constant")
    rank = op.rank(x)
    chosen = [a % rank for a in axes] if axes else list(range(rank))
    if target is not None and keep_aspect_ratio_policy != "stretch":
        factors = _common_scale(op, x, y, target, chosen, keep_aspect_ratio_policy)
    options: dict[str, Any] = {
        "antialias": antialias or None,
        "coordinate_transformation_mode": coordinate_transformation_mode,
        "cubic_coeff_a": cubic_coeff_a,
        "exclude_outside": exclude_outside or None,
        "mode": mode,
        "nearest_mode": nearest_mode,
    }

    def vjp(g: ir.Value) -> ir.Value:
        for i, axis in enumerate(chosen):
            scale = float(factors[i]) if factors is not None else None
            bounds = [float(b) for b in region[i :: len(chosen)]] if region is not None else [0.0, 1.0]
            before, after = op.dims(x)[axis], op.dims(y)[axis]
            if before == after and scale in (None, 1.0) and bounds == [0.0, 1.0]:
                continue
            if not isinstance(before, int) or not isinstance(after, int):
                raise Unsupported("it resizes the batch axis", FIX_BATCH)
            # The matrix of this axis is what the runtime itself makes of unit vectors: constant, so it is folded when
            # the session loads. Row i of it is the response to unit vector i.
            unit = op.Reshape(unit_matrix(op, before, dtype_of(x)), [1, 1, before, before])
            window = op.constant(np.array([0, 0, 0, bounds[0], 1, 1, 1, bounds[1]], np.float32)) if cropped else None
            by = op.constant(np.array([1, 1, 1, scale], np.float32)) if scale is not None else None
            to = None if scale is not None else [1, 1, before, after]
            g = apply_along(op, g, op.Reshape(op.Resize(unit, window, by, to, **options), [before, after]), axis, rank)
        return g

    if cropped and extrapolation_value:
        value = {**options, "axes": axes, "extrapolation_value": extrapolation_value}
        return Local(vjp, op.Resize(op.zeros_like(x), roi, scales, sizes, **value))
    return Local(vjp)


def _content(op: Emitter, v: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return the content of a constant; None for other values, and for an empty one, which means an omitted input."""
    array = op.array(v)
    return array if array is not None and array.size else None


def _common_scale(
    op: Emitter, x: ir.Value, y: ir.Value, target: npt.NDArray[Any], chosen: Sequence[int], policy: str
) -> npt.NDArray[np.float32]:
    """Return the scale that keeps the aspect ratio, the same for all axes."""
    before, after = [op.size(x, a) for a in chosen], [op.size(y, a) for a in chosen]
    ratios = [float(np.float32(t) / np.float32(b)) for t, b in zip(target, before, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    if any(math.floor(scale * b) != a for a, b in zip(after, before, strict=True)):
        raise Unsupported("it keeps the aspect ratio by rounding a size up", "Give its scales instead of its sizes")
    return np.full(len(chosen), scale, np.float32)
