"""Holds the linearisation of one node against its two laws.

A case is a node with its inputs. Its rule is emitted for a random cotangent g of the outputs y, and the emitted graph
is run in float64 by onnx.reference and in float32 by onnxruntime. Each time

    <g, y> = sum_i <vjp_i, z_i> + <g, c>          (nothing is forgotten)
    <vjp, u> = d/dt <g, y(z + t u)>               (the derivative is right; central differences, random directions u)

An elementwise rule obeys the first law by construction and finite differences cannot see an intercept: both are needed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fgonnx.engine import rules
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.walk import backward

Array = npt.NDArray[Any]
OPSET = 18  # what every model is raised to, at least
IR_VERSION = 10


@dataclass(frozen=True)
class Draw:
    """An input of a case that is drawn at random: standard normal, uniform in an interval, or no two entries close."""

    shape: tuple[int, ...]
    interval: tuple[float, float] | None = None
    active: bool = False
    apart: bool = False

    def array(self, rng: np.random.Generator) -> Array:
        if self.apart:
            size = int(np.prod(self.shape))
            return rng.permutation(np.linspace(-2, 2, size)).reshape(self.shape)
        if self.interval is not None:
            return rng.uniform(*self.interval, self.shape)
        return np.asarray(rng.standard_normal(self.shape))

    @property
    def text(self) -> str:
        interval = "" if self.interval is None else f"({self.interval[0]:g}..{self.interval[1]:g})"
        return ("x".join(map(str, self.shape)) or "scalar") + interval


@dataclass(frozen=True)
class Given:
    """An input of a case with a given content; float64 content follows the precision of a run."""

    content: Array
    active: bool = False
    constant: bool = True

    def array(self, rng: np.random.Generator) -> Array:
        return self.content

    @property
    def text(self) -> str:
        small = self.content.size <= 8
        text = str(self.content.tolist()).replace(" ", "") if small else "x".join(map(str, self.content.shape))
        return text if self.constant else f"{text}?"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    op_type, inputs, attributes, opset
        The node; an input is None where it is left out.
    note : str
        Tells the row from its neighbours.
    outputs, used
        How many outputs the node has, and which of them get a cotangent (all by default).
    reference : str
        Why onnx.reference is no witness of this row: onnxruntime then is, in float32.
    runtime : str
        Why onnxruntime cannot run this row.
    half : str
        Why float16 is not tried.
    kink : str
        Why no finite differences are taken.
    refused : str
        What the refusal says, for a node that the rule must not linearise.
    tolerance : float
        Allowed error of finite differences, relative.
    """

    op_type: str
    inputs: tuple[Draw | Given | None, ...]
    attributes: Mapping[str, Any]
    note: str = ""
    opset: int = OPSET
    outputs: int = 1
    used: tuple[int, ...] | None = None
    reference: str = ""
    runtime: str = ""
    half: str = ""
    kink: str = ""
    refused: str = ""
    tolerance: float = 1e-6

    @property
    def id(self) -> str:
        shapes = ",".join("-" if z is None else z.text + "*" * z.active for z in self.inputs)
        attributes = ",".join(f"{k}={v}" for k, v in self.attributes.items()).replace(" ", "")
        return "|".join(s for s in (f"{self.op_type}-{self.opset}", shapes, attributes, self.note) if s)

    @property
    def active(self) -> list[int]:
        return [i for i, z in enumerate(self.inputs) if z is not None and z.active]

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.id.encode()))

    def arrays(self, dtype: npt.DTypeLike = np.float64, rng: np.random.Generator | None = None) -> list[Array | None]:
        rng = rng or self.rng()
        drawn = [None if z is None else z.array(rng) for z in self.inputs]
        return [a if a is None or a.dtype != np.float64 else a.astype(dtype) for a in drawn]


class Erf(OpRun):
    """The one of onnx.reference computes in float32."""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[float])(x).astype(x.dtype),)


@dataclass
class Linearised:
    """What an emitted graph gave: outputs, their cotangents, those of inputs, cotangent and intercept of terms."""

    ys: list[Array]
    gs: list[Array]
    vjps: dict[int, Array]
    terms: list[tuple[Array, Array]]


def node_forward(
    case: Case, arrays: Sequence[Array | None], *, reference: bool
) -> Callable[[Mapping[int, Array]], list[Array]]:
    """Return a function from the active inputs to the node's outputs; everything else is constant."""
    names = ["" if a is None else f"z{i}" for i, a in enumerate(arrays)]
    node = onnx.helper.make_node(case.op_type, names, [f"y{i}" for i in range(case.outputs)], **case.attributes)
    info = onnx.helper.make_tensor_value_info
    kind = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        [node],
        "node",
        [info(names[i], kind(arrays[i].dtype), [None] * arrays[i].ndim) for i in case.active],  # type: ignore[union-attr]
        [onnx.ValueInfoProto(name=n) for n in node.output],
        [
            onnx.numpy_helper.from_array(a, names[i])
            for i, a in enumerate(arrays)
            if a is not None and i not in case.active
        ],
    )
    opsets = [onnx.helper.make_opsetid("", case.opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    run = runner(model, reference=reference)
    return lambda values: run({names[i]: v for i, v in values.items()})


def runner(
    model: onnx.ModelProto, *, reference: bool, optimise: bool = True
) -> Callable[[dict[str, Array]], list[Array]]:
    """Return a function that runs a model and gives its outputs as arrays."""
    if reference:
        evaluator = ReferenceEvaluator(model, new_ops=[Erf])
        return lambda feeds: [np.asarray(v) for v in evaluator.run(None, feeds)]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: list(session.run(None, feeds))


def emit(
    case: Case,
    arrays: Sequence[Array | None],
    ys: Sequence[Array],
    *,
    batched: bool = False,
    walk: Callable[..., backward.Walk] = backward.walk,
) -> tuple[onnx.ModelProto, list[int], backward.Walk]:
    """Return the model with the emitted linearisation, the active inputs that got a cotangent, and the walk."""

    def dims(a: Array) -> list[int | ir.SymbolicDim]:
        if not batched:
            return list(a.shape)
        first = arrays[case.active[0]]
        assert first is not None
        factor = a.shape[0] // first.shape[0]
        return [ir.SymbolicDim("N" if factor == 1 else f"{factor}*N"), *a.shape[1:]]

    def value(name: str, a: Array, shape: Sequence[int | ir.SymbolicDim]) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(a.dtype)))

    inputs: list[ir.Value | None] = []
    sources, initializers, graph_inputs = {}, [], []
    for i, (z, a) in enumerate(zip(case.inputs, arrays, strict=True)):
        if z is None or a is None:
            inputs.append(None)
            continue
        v = value(f"z{i}", a, dims(a) if z.active else a.shape)
        if z.active:
            sources[i] = v
        if z.active or (isinstance(z, Given) and not z.constant):
            graph_inputs.append(v)
        else:
            v.const_value = ir.tensor(a, name=v.name)
            initializers.append(v)
        inputs.append(v)
    # A file holds attributes in float32.
    rounded = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in case.attributes.items()}
    attributes = ir.convenience.convert_attributes(rounded)
    node = ir.Node("", case.op_type, inputs, attributes, num_outputs=case.outputs, name="node")
    for i, (v, a) in enumerate(zip(node.outputs, ys, strict=True)):
        v.name, v.shape, v.type = f"y{i}", ir.Shape(dims(a)), ir.TensorType(ir.DataType.from_numpy(a.dtype))
    opsets = {"": case.opset}
    graph = ir.Graph(graph_inputs, [], nodes=[node], initializers=initializers, opset_imports=opsets, name="case")
    op = Emitter(graph, backward.active_values([node], list(sources.values())))
    used = [node.outputs[i] for i in case.used or range(case.outputs)]
    head = used[0]
    if len(used) > 1:  # one head of all outputs: their cotangents reach the node through Concat and Reshape
        flat = [op.Reshape(v, [-1]) for v in used]
        head = op.Concat(*flat, axis=0)
        for v, part in zip(used, flat, strict=True):
            assert v.shape is not None
            part.shape = ir.Shape([int(np.prod([d for d in v.shape.dims if isinstance(d, int)]))])
        head.shape = ir.Shape([sum(int(v.shape.dims[0]) for v in flat)])
        op.active.update([*flat, head])
    seed = ir.Value(name="g", shape=head.shape, type=head.type)
    graph.inputs.append(seed)
    walked = walk(op, list(graph), head, seed, case.opset)
    reached = [i for i, v in sources.items() if v in walked.cotangents]
    terms = [t for t in walked.terms if t.node is node]
    for v in (
        *used,
        *(walked.cotangents[v] for v in used),
        *(walked.cotangents[sources[i]] for i in reached),
        *(v for t in terms for v in (t.g, t.c)),
    ):
        out = op.Identity(v)
        out.type, out.shape = v.type, v.shape
        graph.outputs.append(out)
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    return model, reached, walked


def evaluate(
    case: Case,
    arrays: Sequence[Array | None],
    g: Array,
    ys: Sequence[Array],
    *,
    reference: bool,
    batched: bool = False,
    walk: Callable[..., backward.Walk] = backward.walk,
) -> Linearised:
    """Emit the rule and run it."""
    model, reached, _ = emit(case, arrays, ys, batched=batched, walk=walk)
    run = runner(model, reference=reference)
    return _read(case, run, reached, arrays, g)


def _read(
    case: Case,
    run: Callable[[dict[str, Array]], list[Array]],
    reached: list[int],
    arrays: Sequence[Array | None],
    g: Array,
) -> Linearised:
    feeds: dict[str, Array] = {}
    for i, (z, a) in enumerate(zip(case.inputs, arrays, strict=True)):
        if z is not None and a is not None and (z.active or (isinstance(z, Given) and not z.constant)):
            feeds[f"z{i}"] = a
    try:
        out = run({**feeds, "g": g})
    except Exception as error:  # every runtime raises kinds of its own
        raise AssertionError(f"the emitted graph does not run: {error}") from error
    count = len(case.used or range(case.outputs))
    rest = out[2 * count + len(reached) :]
    vjps = dict(zip(reached, out[2 * count :], strict=False))
    for i in reached:
        a = arrays[i]
        assert a is not None
        assert vjps[i].shape == a.shape, f"the cotangent of input {i} has shape {vjps[i].shape}, the input {a.shape}"
        assert vjps[i].dtype == a.dtype
    return Linearised(out[:count], out[count : 2 * count], vjps, list(zip(rest[::2], rest[1::2], strict=True)))


def _dot(a: Array, b: Array) -> float:
    return float(np.sum(a.astype(np.float64) * b.astype(np.float64)))


def _size(a: Array, b: Array) -> float:
    return float(np.sum(np.abs(a.astype(np.float64) * b.astype(np.float64))))


def check_identity(lin: Linearised, arrays: Sequence[Array | None], tolerance: float) -> None:
    """<g, y> = sum <vjp, z> + <g, c>, relative to the sizes of what is added."""
    left = sum(_dot(g, y) for g, y in zip(lin.gs, lin.ys, strict=True))
    pairs = [(v, arrays[i]) for i, v in lin.vjps.items()] + [(g, c) for g, c in lin.terms]
    right = sum(_dot(a, b) for a, b in pairs if b is not None)
    size = sum(_size(a, b) for a, b in pairs if b is not None) + sum(map(_size, lin.gs, lin.ys))
    for v in lin.vjps.values():
        assert np.isfinite(v).all(), "the cotangent is not finite"
    assert abs(left - right) <= tolerance * size, f"<g, y> = {left:.12g}, its parts add up to {right:.12g}"


def check_directions(
    case: Case, lin: Linearised, arrays: Sequence[Array | None], *, reference: bool, tolerance: float, step: float
) -> None:
    """<vjp, u> against central differences along random directions of all active inputs at once, and of each alone."""
    forward = node_forward(case, arrays, reference=reference)
    rng = case.rng()
    used = case.used or range(case.outputs)
    groups = [[i] for i in case.active]
    for group in groups * (3 if len(groups) == 1 else 2):
        u = {i: rng.standard_normal(np.asarray(arrays[i]).shape) for i in group}

        def at(t: float, u: dict[int, Array] = u) -> list[Array]:
            point = {i: np.asarray(arrays[i]) for i in case.active}
            point.update({i: (point[i] + t * v).astype(point[i].dtype) for i, v in u.items()})
            out = forward(point)
            return [out[k].astype(np.float64) for k in used]

        above, under = at(step), at(-step)
        slopes = [(a - b) / (2 * step) for a, b in zip(above, under, strict=True)]
        measured = sum(map(_dot, lin.gs, slopes))
        claimed = sum(_dot(lin.vjps[i], v) for i, v in u.items() if i in lin.vjps)
        size = sum(map(_size, lin.gs, slopes)) + sum(_size(lin.vjps[i], v) for i, v in u.items() if i in lin.vjps)
        assert abs(measured - claimed) <= tolerance * size + 1e-12, (
            f"inputs {group}: the derivative is {measured:.9g}, the rule says {claimed:.9g}"
        )


def cotangent(case: Case, ys: Sequence[Array], dtype: npt.DTypeLike, rng: np.random.Generator | None = None) -> Array:
    """A random cotangent of all used outputs: in the shape of a single one, else flat."""
    rng = rng or np.random.default_rng(zlib.crc32(case.id.encode()) + 1)
    used = [ys[i] for i in case.used or range(case.outputs)]
    shape = used[0].shape if len(used) == 1 else (sum(y.size for y in used),)
    return np.asarray(rng.standard_normal(shape)).astype(used[0].dtype if used[0].dtype.kind == "f" else dtype)


def points(case: Case, arrays: Sequence[Array | None]) -> dict[int, Array]:
    return {i: np.asarray(arrays[i]) for i in case.active}


def check(case: Case) -> None:
    """Hold a case against both laws in float64 (onnx.reference) and in float32 (onnxruntime)."""
    step = 1.0 if _is_linear(case) else 1e-5
    double: Linearised | None = None
    if not case.reference:
        arrays = case.arrays(np.float64)
        ys = node_forward(case, arrays, reference=True)(points(case, arrays))
        double = evaluate(case, arrays, cotangent(case, ys, np.float64), ys, reference=True)
        check_identity(double, arrays, 1e-10)
        if not case.kink:
            check_directions(case, double, arrays, reference=True, tolerance=case.tolerance, step=step)
    if case.runtime:
        return
    arrays = case.arrays(np.float32)
    ys = node_forward(case, arrays, reference=False)(points(case, arrays))
    single = evaluate(case, arrays, cotangent(case, ys, np.float32), ys, reference=False)
    check_identity(single, arrays, max(1e-5, case.tolerance))
    if double is not None:
        for one, two in zip(single.ys, double.ys, strict=True):
            np.testing.assert_allclose(
                one, two, rtol=1e-4, atol=1e-5, err_msg="onnxruntime and onnx.reference disagree"
            )
        for i, v in double.vjps.items():
            scale = float(np.max(np.abs(v), initial=1e-30))
            np.testing.assert_allclose(
                single.vjps[i], v, rtol=1e-4, atol=2e-5 * scale, err_msg="float32 and float64 differ"
            )
    elif not case.kink:
        step = 1.0 if _is_linear(case) else 1e-3
        tolerance = max(case.tolerance, 1e-4 if step == 1.0 else 2e-3)
        check_directions(case, single, arrays, reference=False, tolerance=tolerance, step=step)


def check_half(case: Case) -> None:
    """Hold float16 in onnxruntime against float64, or against float32 where onnx.reference is no witness."""
    arrays = case.arrays(np.float16)
    ys = node_forward(case, arrays, reference=False)(points(case, arrays))
    g = cotangent(case, ys, np.float16)
    half = evaluate(case, arrays, g, ys, reference=False)
    check_identity(half, arrays, 2e-2)
    wide = np.float32 if case.reference else np.float64
    exact = [a if a is None or a.dtype != np.float16 else a.astype(wide) for a in arrays]
    ys = node_forward(case, exact, reference=not case.reference)(points(case, exact))
    full = evaluate(case, exact, g.astype(wide), ys, reference=not case.reference)
    for i, v in full.vjps.items():
        scale = float(np.max(np.abs(v), initial=1e-3))
        np.testing.assert_allclose(half.vjps[i], v, rtol=2e-3, atol=2e-3 * scale)


def check_batch(case: Case) -> bool:
    """Where axis 0 is a batch, hold two batches at once against one after the other; tell whether it is one."""
    if case.outputs > 1 or case.runtime:
        return False
    rng = case.rng()
    first, second = case.arrays(np.float32, rng), case.arrays(np.float32, rng)
    ranks = {z.ndim for z in points(case, first).values()}
    if 0 in ranks or len(ranks) > 1:
        return False
    both = [
        np.concatenate([a, b]) if i in case.active else a for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    forward = node_forward(case, first, reference=False)
    try:
        parts = [forward(points(case, a))[0] for a in (first, second)]
        whole = forward(points(case, both))[0]
    except Exception:  # whatever onnxruntime says: this axis does not grow
        return False
    if (
        whole.ndim == 0
        or whole.dtype.kind != "f"
        or whole.shape != np.concatenate([np.atleast_1d(p) for p in parts]).shape
    ):
        return False
    if not np.allclose(whole, np.concatenate(parts), rtol=1e-4, atol=1e-5):
        return False
    gs = [cotangent(case, [p], np.float32, rng) for p in parts]
    model, reached, _ = emit(case, first, parts[:1], batched=True)
    run = runner(model, reference=False)
    joint = _read(case, run, reached, both, np.concatenate(gs))
    check_identity(joint, both, max(1e-5, case.tolerance))
    apart = [_read(case, run, reached, a, g) for a, g in zip((first, second), gs, strict=True)]
    for i in reached:
        expected = np.concatenate([a.vjps[i] for a in apart])
        np.testing.assert_allclose(
            joint.vjps[i], expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max(initial=1.0))
        )
    return True


def _is_linear(case: Case) -> bool:
    """Whether central differences are exact for any step: sums and products of two."""
    found = rules.find(case.op_type, case.opset)
    return found is not None and found.family == "linear"
