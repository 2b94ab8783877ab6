"""Maps that choose or resample elements: Slice, Gather and its kin, Resize. All linear in the data."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from fgonnx.emit import Emitter
from fgonnx.lowerings import along_axis
from fgonnx.rules.registry import Local, Unsupported, Vjp, linear, rule


@rule("Slice", since=10, family="linear", note="c = 0 (linear); bounds must be constant")
def slice_(
    op: Emitter, y: ir.Value, x: ir.Value, starts: ir.Value, ends: ir.Value, axes: ir.Value | None = None,
    steps: ir.Value | None = None,
) -> Local:  # fmt: skip
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
                raise Unsupported("it cuts the batch axis", "Fix the batch size to 1")
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
    """Put step - 1 zeros between the elements along an axis: a 0/1 matrix, which every runtime multiplies fast."""
    matrix = np.zeros(((count - 1) * step + 1, count))
    matrix[np.arange(count) * step, np.arange(count)] = 1
    return along_axis(op, g, matrix, axis, op.rank(y))


@rule("Gather", family="linear", note="c = 0 (linear in the data)")
def gather(op: Emitter, y: ir.Value, data: ir.Value, indices: ir.Value, *, axis: int = 0) -> Local:
    axis %= op.rank(data)
    dims, picked = op.dims(data), op.dims(indices)
    count = int(np.prod([d for d in picked if isinstance(d, int)], initial=1))
    if not all(isinstance(d, int) for d in picked):
        raise Unsupported("its indices depend on the batch size", "Fix the batch size to 1")

    def vjp(g: ir.Value) -> ir.Value:
        # (before, indices..., after) -> (before, K, after); K rows are added into the rows of the data.
        outer = [d if isinstance(d, int) else -1 for d in dims]
        flat = op.Reshape(g, [*outer[:axis], count, *outer[axis + 1 :]])
        index = op.Reshape(
            op.Cast(indices, to=ir.DataType.INT64.value), [-1 if i == axis else 1 for i in range(len(dims))]
        )
        return op.ScatterElements(
            op.zeros_like(data), op.Expand(index, op.Shape(flat)), flat, axis=axis, reduction="add"
        )

    return Local(vjp)


@linear("GatherElements", note="c = 0 (linear in the data)")
def gather_elements(op: Emitter, y: ir.Value, data: ir.Value, indices: ir.Value, *, axis: int = 0) -> Vjp:
    return lambda g: op.ScatterElements(op.zeros_like(data), indices, g, axis=axis, reduction="add")


@rule("GatherND", since=11, family="linear", note="c = 0 (linear in the data)")
def gather_nd(op: Emitter, y: ir.Value, data: ir.Value, indices: ir.Value, *, batch_dims: int = 0) -> Local:
    if batch_dims:
        raise Unsupported("its batch_dims are not built")
    return Local(lambda g: op.ScatterND(op.zeros_like(data), indices, g, reduction="add"))


@rule(
    "Resize",
    since=10,
    family="linear",
    note="c = 0 (linear); the transposed matrix of each axis, read off the operator",
)
def resize(
    op: Emitter, y: ir.Value, x: ir.Value, roi: ir.Value | None = None, scales: ir.Value | None = None,
    sizes: ir.Value | None = None, *, antialias: int = 0, axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75, exclude_outside: int = 0,
    extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Local:  # fmt: skip
    if coordinate_transformation_mode == "tf_crop_and_resize":
        raise Unsupported("tf_crop_and_resize is not built", "Resize before the model")
    factors, target = op.array(scales), op.array(sizes)
    if factors is None and target is None:
        raise Unsupported("its scales or sizes are not constant")
    rank = op.rank(x)
    chosen = [a % rank for a in axes] if axes else list(range(rank))
    options = {
        "antialias": antialias, "coordinate_transformation_mode": coordinate_transformation_mode,
        "cubic_coeff_a": cubic_coeff_a, "exclude_outside": exclude_outside,
        "extrapolation_value": extrapolation_value, "mode": mode, "nearest_mode": nearest_mode,
    }  # fmt: skip

    def vjp(g: ir.Value) -> ir.Value:
        for i, axis in enumerate(chosen):
            before, after = op.dims(x)[axis], op.dims(y)[axis]
            if before == after and (factors is None or factors.size == 0 or float(factors[i]) == 1.0):
                continue
            if not isinstance(before, int) or not isinstance(after, int):
                raise Unsupported("it resizes the batch axis", "Fix the batch size to 1")
            scale = float(factors[i]) if factors is not None and factors.size else None
            matrix = _resize_matrix(before, after, scale, options)
            g = along_axis(op, g, np.ascontiguousarray(matrix.T), axis, rank)
        return g

    return Local(vjp)


def _resize_matrix(before: int, after: int, scale: float | None, options: dict[str, object]) -> np.ndarray:
    """Return the (after, before) matrix of a Resize along one axis: its response to unit vectors."""
    from onnx.reference import ReferenceEvaluator  # it imports slowly, and few models resize

    inputs = ["x", "", "scales" if scale is not None else ""] + ([] if scale is not None else ["sizes"])
    node = onnx.helper.make_node("Resize", inputs, ["y"], **options)
    feeds: dict[str, np.ndarray] = {"x": np.eye(before, dtype=np.float32)}
    if scale is not None:
        feeds["scales"] = np.array([1.0, scale], np.float32)
    else:
        feeds["sizes"] = np.array([before, after], np.int64)
    kinds = {"x": onnx.TensorProto.FLOAT, "scales": onnx.TensorProto.FLOAT, "sizes": onnx.TensorProto.INT64}
    graph = onnx.helper.make_graph(
        [node],
        "resize",
        [onnx.helper.make_tensor_value_info(k, kinds[k], v.shape) for k, v in feeds.items()],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    response = np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])
    return response.T
