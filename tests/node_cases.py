"""The node test cases of the standard (onnx.backend.test) as scalar functions with a claimed linearisation.

A case becomes a model in float32 whose active inputs are the floating-point ones that the schema does not mark as
non-differentiable; everything else is constant. fgonnx brings it into normal form and walks back, which gives y, the
cotangents of the inputs and all terms. That graph and the case itself are then widened to float64 for onnx.reference.
"""

from __future__ import annotations

import functools
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnx import TensorProto, helper, numpy_helper

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.model.load import load
from fgonnx.engine.normal.normalise import normalise
from fgonnx.engine.walk import backward
from tests.linearisation import runner

Array = npt.NDArray[Any]
Category = onnx.defs.OpSchema.DifferentiationCategory

NEWEST = 26  # of onnxruntime
IR_VERSION = 10
#: Operators whose schema marks no input as differentiable, although they are.
UNMARKED = {
    "Attention",
    "DeformConv",
    "GRU",
    "If",
    "LSTM",
    "LayerNormalization",
    "Loop",
    "RMSNormalization",
    "RNN",
    "ReverseSequence",
    "RoiAlign",
    "RotaryEmbedding",
    "Scan",
    "Scatter",
    "Upsample",
}
#: Operators with inputs that the schema marks as non-differentiable and fgonnx differentiates all the same.
BEYOND = {
    "CausalConvWithState",
    "GRU",
    "GridSample",
    "LSTM",
    "LinearAttention",
    "NegativeLogLikelihoodLoss",
    "Pad",
    "RNN",
    "SoftmaxCrossEntropyLoss",
}
#: Where a case is read with an older operator set, the operator being the same but for its types.
RELABELLED = {"RoiAlign": 21}  # onnxruntime has not the one of 22
#: Attributes and cases of operators that onnxruntime has in another form: the standard's function body is taken.
BODIES = ("left_window_size", "right_window_size")
BODY_CASES = (
    "attention_4d_diff_heads_mask4d_padded_kv",
    "attention_4d_padded_kv_bf16",
    "attention_4d_causal_padded_kv_bf16",
)
#: Relative and absolute error of results by the type they were computed in: a few units in the last place.
RESOLUTION = {"float32": (1e-5, 1e-6), "float16": (1e-3, 2e-4), "bfloat16": (8e-3, 2e-3)}
#: Cases whose results were written down with four digits.
FOUR_DIGITS = (
    "averagepool_2d_ceil_last_window_starts_on_pad",
    "gridsample_bicubic",
    "roialign_aligned_false",
    "roialign_aligned_true",
)
HALVES_AND_DOUBLES = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
FLOATS = {TensorProto.FLOAT, *HALVES_AND_DOUBLES}


@dataclass(frozen=True)
class NodeCase:
    """One official case.

    Attributes
    ----------
    name : str
        As the onnx package calls it, without "test_".
    op_type : str
        The operator.
    model : onnx.ModelProto
        The node.
    arrays : dict of str to array
        Its inputs.
    results : dict of str to array
        What its outputs are.
    """

    name: str
    op_type: str
    model: onnx.ModelProto
    arrays: dict[str, Any]
    results: dict[str, Any]


def operators() -> list[str]:
    """Return the operators that the table has to answer for."""
    marked = {
        s.name
        for s in onnx.defs.get_all_schemas()
        if not s.domain and any(i.differentiation_category == Category.Differentiable for i in s.inputs)
    }
    return sorted(marked | UNMARKED)


@functools.cache
def collect() -> dict[str, list[NodeCase]]:
    """Return the cases of every such operator in which a floating-point value goes in.

    Operators that onnxruntime is too old for come as the function bodies that the standard gives for them.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = list(collect_testcases())
    bodies = {c.name: c for c in found}
    cases: dict[str, list[NodeCase]] = {name: [] for name in operators()}
    for case in found:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].domain or nodes[0].op_type not in cases or case.name.endswith("_expanded"):
            continue
        op_type, model = nodes[0].op_type, case.model
        name = case.name.removeprefix("test_")
        foreign = name in BODY_CASES or any(a.name in BODIES for a in nodes[0].attribute)
        if (foreign or _oldest(model) > NEWEST) and f"{case.name}_expanded" in bodies:
            model = bodies[f"{case.name}_expanded"].model
        inputs, outputs = case.data_sets[0]
        face = zip(model.graph.input, inputs, strict=True)
        arrays = {i.name: numpy_helper.to_array(a) if isinstance(a, TensorProto) else a for i, a in face}
        results = {
            o.name: numpy_helper.to_array(a) if isinstance(a, TensorProto) else a
            for o, a in zip(model.graph.output, outputs, strict=True)
        }
        if any(i.type.tensor_type.elem_type in FLOATS or not i.type.HasField("tensor_type") for i in model.graph.input):
            cases[op_type].append(NodeCase(name, op_type, model, arrays, results))
    return cases


def _oldest(model: onnx.ModelProto) -> int:
    """Return the oldest operator set, of 18 or newer if the model's is, that has the same operators."""
    opset = next(o.version for o in model.opset_import if not o.domain)
    return max(min(opset, 18), *(onnx.defs.get_schema(n.op_type, opset).since_version for n in _nodes(model.graph)))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(a.g)


class NoDerivative(Exception):  # noqa: N818  - the answer to a question
    """There is nothing to differentiate: no floating-point value goes in where one comes out."""


@dataclass(frozen=True)
class Problem:
    """A case as a function of its active inputs.

    Attributes
    ----------
    name : str
        Of the case.
    model : onnx.ModelProto
        Float32; its inputs are the active ones, its only output the head: all outputs in one row where there are
        several.
    point : dict of str to array
        The active inputs, in float64.
    expected : array or None
        The head's value as the case gives it.
    accuracy : tuple of float
        Relative and absolute error of that value.
    """

    name: str
    model: onnx.ModelProto
    point: dict[str, Array]
    expected: Array | None
    accuracy: tuple[float, float] = (0.0, 0.0)

    @property
    def head(self) -> str:
        """Name of the output."""
        return str(self.model.graph.output[0].name)

    def rng(self) -> np.random.Generator:
        """Random numbers of the case's own."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))


def problem(case: NodeCase, outputs: Sequence[str] | None = None) -> Problem:
    """Return a case as a function of its active inputs.

    Parameters
    ----------
    case : NodeCase
        The case.
    outputs : sequence of str, optional
        Formal names of the outputs that get a cotangent; by default those that the schema marks as differentiable,
        all where it marks none.

    Raises
    ------
    NoDerivative
        If no floating-point value goes in or comes out.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    opset = min(_oldest(model), RELABELLED.get(case.op_type, NEWEST))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = IR_VERSION
    model = retyped(model, dict.fromkeys(HALVES_AND_DOUBLES, TensorProto.FLOAT))
    graph = model.graph
    if any(not v.type.HasField("tensor_type") for v in (*graph.input, *graph.output)):
        raise NoDerivative("sequences and optional values")
    varying = _varying(case)
    arrays = _without_infinities({n: a for n, a in case.arrays.items() if n in varying})
    point: dict[str, Array] = {}
    for v in list(graph.input):
        array = np.asarray(arrays.get(v.name, case.arrays[v.name]))
        if v.type.tensor_type.elem_type != TensorProto.FLOAT:
            graph.initializer.append(numpy_helper.from_array(array, v.name))
        elif v.name in varying and np.isfinite(array.astype(np.float64)).all():
            point[v.name] = array.astype(np.float64)
            continue
        else:
            graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), v.name))
        graph.input.remove(v)
    if not point:
        raise NoDerivative("no floating-point value goes in")
    if not any(a.size for a in point.values()):
        raise NoDerivative("its input is empty")
    used = _used(case, outputs)
    floating = [v for v in graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT and v.name in used]
    if not floating:
        raise NoDerivative("no floating-point value comes out")
    kept = [v for v in floating if arrays or np.isfinite(np.asarray(case.results[v.name]).astype(np.float64)).all()]
    if not kept:
        raise NoDerivative("what comes out is infinite")
    del graph.output[:]
    if len(kept) == 1:
        graph.output.append(kept[0])
    else:  # the cotangents of several outputs reach the node through Concat and Reshape
        graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "row"))
        rows = [f"{v.name}_row" for v in kept]
        graph.node.extend(helper.make_node("Reshape", [v.name, "row"], [r]) for v, r in zip(kept, rows, strict=True))
        graph.node.append(helper.make_node("Concat", rows, ["head"], axis=0))
        graph.output.append(helper.make_tensor_value_info("head", TensorProto.FLOAT, [None]))
    flat = [np.asarray(case.results[v.name]).astype(np.float64) for v in kept]
    expected = flat[0] if len(flat) == 1 else np.concatenate([a.reshape(-1) for a in flat])
    return Problem(case.name, model, point, None if arrays else expected, _accuracy(case))


def _accuracy(case: NodeCase) -> tuple[float, float]:
    """Return the relative and the absolute error that the results of a case have."""
    if case.name in FOUR_DIGITS:
        return 1e-5, 1e-4
    kinds = {str(a.dtype) for a in case.results.values() if isinstance(a, np.ndarray)}
    return next((RESOLUTION[k] for k in ("bfloat16", "float16") if k in kinds), RESOLUTION["float32"])


def _without_infinities(arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Return the inputs with numbers for what is not one, where no input is finite; a mask may keep its infinities."""
    floating = {n: np.asarray(a).astype(np.float64) for n, a in arrays.items() if _is_float(np.asarray(a).dtype)}
    if not floating or any(np.isfinite(a).all() for a in floating.values()):
        return {}
    rng = np.random.default_rng(0)
    return {n: np.where(np.isfinite(a), a, rng.standard_normal(a.shape)) for n, a in floating.items()}


def _is_float(dtype: np.dtype[Any]) -> bool:
    return helper.np_dtype_to_tensor_dtype(dtype) in FLOATS


def _formal(case: NodeCase) -> tuple[dict[str, str], dict[str, str], Any]:
    """Return the formal names of a case's inputs and outputs, and the schema of its operator."""
    opset = next(o.version for o in case.model.opset_import if not o.domain)
    schema: Any = onnx.defs.get_schema(case.op_type, opset)
    names = []
    node = case.model.graph.node[0]
    actual = [(node.input, schema.inputs), (node.output, schema.outputs)]
    if len(case.model.graph.node) > 1:  # a body: its graph has the inputs and outputs of the operator
        actual = [([v.name for v in case.model.graph.input], ()), ([v.name for v in case.model.graph.output], ())]
    for own, formals in actual:
        last = len(formals) - 1
        names.append({n: formals[min(i, last)].name if formals else n for i, n in enumerate(own) if n})
    return names[0], names[1], schema


def _varying(case: NodeCase) -> set[str]:
    formal, _, schema = _formal(case)
    fixed = {i.name for i in schema.inputs if i.differentiation_category == Category.NonDifferentiable}
    if case.op_type in BEYOND:
        fixed = set()
    elif case.op_type == "Upsample":
        fixed = {"scales"}
    return {n for n, f in formal.items() if f not in fixed}


def _used(case: NodeCase, outputs: Sequence[str] | None) -> set[str]:
    _, formal, schema = _formal(case)
    marked = {o.name for o in schema.outputs if o.differentiation_category == Category.Differentiable}
    chosen = set(outputs) if outputs is not None else marked or set(formal.values())
    return {n for n, f in formal.items() if f in chosen} or set(formal)


def retyped(model: onnx.ModelProto, kinds: Mapping[int, int]) -> onnx.ModelProto:
    """Return a model with element types replaced, everywhere: faces, initializers, attributes, targets of Cast."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _retype_graph(result.graph, kinds)
    for function in result.functions:
        for node in function.node:
            _retype_node(node, kinds)
    return result


def _retype_graph(graph: onnx.GraphProto, kinds: Mapping[int, int]) -> None:
    del graph.value_info[:]
    for v in (*graph.input, *graph.output):
        kind = v.type.tensor_type
        if v.type.HasField("tensor_type") and kind.elem_type in kinds:
            kind.elem_type = kinds[kind.elem_type]
    for tensor in graph.initializer:
        _retype_tensor(tensor, kinds)
    for node in graph.node:
        _retype_node(node, kinds)


def _retype_node(node: onnx.NodeProto, kinds: Mapping[int, int]) -> None:
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            _retype_graph(a.g, kinds)
        elif a.type == onnx.AttributeProto.TENSOR:
            _retype_tensor(a.t, kinds)
        elif a.name in ("to", "dtype", "stash_type", "softmax_precision") and a.i in kinds:
            a.i = kinds[a.i]
        elif node.op_type == "Constant" and a.name in ("value_float", "value_floats") and TensorProto.FLOAT in kinds:
            content = np.array(a.f if a.name == "value_float" else list(a.floats), np.float64)
            a.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(content)))

    if node.op_type == "ConstantOfShape" and not node.attribute and TensorProto.FLOAT in kinds:
        kind = helper.tensor_dtype_to_np_dtype(kinds[TensorProto.FLOAT])
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, kind))))


def _retype_tensor(tensor: onnx.TensorProto, kinds: Mapping[int, int]) -> None:
    if tensor.data_type in kinds:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kinds[tensor.data_type]))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@dataclass
class Emitted:
    """The linearisation of a problem as a graph: its outputs are y, the cotangents, and (g, c) of every term.

    Attributes
    ----------
    model : onnx.ModelProto
        Float32.
    reached : list of str
        Active inputs with a cotangent.
    terms : int
        How many terms there are.
    """

    model: onnx.ModelProto
    reached: list[str]
    terms: int


def emit(p: Problem) -> Emitted:
    """Bring a problem into normal form and walk back from its head.

    Raises
    ------
    fgonnx.errors.FgonnxError
        What fgonnx says.
    """
    normal = normalise(load(p.model), input_name=next(iter(p.point)), per_sample=False)
    graph = normal.model.graph
    nodes = list(graph)
    sources = {str(v.name): v for v in graph.inputs}
    head = graph.outputs[0]
    active = backward.active_values(nodes, [sources[n] for n in p.point])
    op = Emitter(graph, active)
    seed = ir.Value(name="seed", shape=head.shape, type=head.type)
    graph.inputs.append(seed)
    walk = backward.walk(op, backward.path(nodes, active, head), head, seed, normal.model.opset_imports[""])
    reached = [n for n in p.point if sources[n] in walk.cotangents]
    for v in (*(walk.cotangents[sources[n]] for n in reached), *(v for t in walk.terms for v in (t.g, t.c))):
        out = op.Identity(v)
        out.type = ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.append(out)
    common.RemoveUnusedNodesPass()(normal.model)
    return Emitted(ir.to_proto(normal.model), reached, len(walk.terms))


Function = Callable[[Mapping[str, Array]], list[Array]]


def function(model: onnx.ModelProto, *, reference: bool) -> Function:
    """Return a model as a function: of float64 in onnx.reference, of float32 in onnxruntime."""
    if reference:
        model = retyped(model, {TensorProto.FLOAT: TensorProto.DOUBLE})
    run = runner(model, reference=reference, optimise=False)
    names = [v.name for v in model.graph.input]
    dtype = np.float64 if reference else np.float32

    def call(feeds: Mapping[str, Array]) -> list[Array]:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            out = run({n: np.asarray(feeds[n]).astype(dtype) for n in names if n in feeds})
        return [np.asarray(a).astype(np.float64) for a in out]

    return call


@dataclass(frozen=True)
class Precision:
    """Where a problem is held against the laws, and how closely.

    Attributes
    ----------
    reference : bool
        In float64 by onnx.reference, or in float32 by onnxruntime.
    step : float
        Of finite differences.
    identity, slope : float
        Allowed errors of the two laws.
    kink : float
        How far the slopes of both sides may differ where there is no kink.
    """

    reference: bool
    step: float
    identity: float
    slope: float
    kink: float


# Constants of what is emitted are float32.
DOUBLE = Precision(reference=True, step=1e-5, identity=1e-6, slope=1e-5, kink=1e-3)
SINGLE = Precision(reference=False, step=2e-3, identity=2e-5, slope=5e-3, kink=5e-3)


@dataclass
class Verdict:
    """How a case came out: in which precision, and whether it was moved off a kink."""

    precision: Precision
    moved: bool


def check(p: Problem, emitted: Emitted, precision: Precision) -> Verdict:
    """Hold a linearisation against both laws.

    <g, y> = sum <vjp, z> + sum <g, c>, and <vjp, u> = d/dt <g, y(z + t u)> by central differences. Where the slopes on
    both sides differ (a tie, a kink, data of zeros), the point is moved by a seeded random amount.
    """
    forward = function(p.model, reference=precision.reference)
    claimed = function(emitted.model, reference=precision.reference)
    rng = p.rng()
    if p.expected is not None:
        y = forward(p.point)[0]
        rtol, atol = p.accuracy
        np.testing.assert_allclose(y, p.expected, rtol=rtol, atol=atol, err_msg="the forward value")
    point, moved = p.point, False
    for attempt in range(6):
        y = forward(point)[0]
        g = rng.standard_normal(y.shape)
        directions = _directions(point, rng)
        slopes = [_slopes(forward, point, g, u, precision) for u in directions]
        if all(s.smooth for s in slopes):
            break
        moved = True
        noise = {n: rng.uniform(0.02, 0.1, a.shape) * rng.choice([-1, 1], a.shape) for n, a in p.point.items()}
        point = {n: a + noise[n] * (1 + attempt) for n, a in p.point.items()}
    else:
        raise AssertionError("no point without a kink was found nearby")
    out = claimed({**point, "seed": g})
    vjps = dict(zip(emitted.reached, out[1:], strict=False))
    rest = out[1 + len(emitted.reached) :]
    for n, v in vjps.items():
        assert v.shape == point[n].shape, f"the cotangent of {n} has shape {v.shape}, the input {point[n].shape}"
        assert np.isfinite(v).all(), f"the cotangent of {n} is not finite"
    np.testing.assert_allclose(out[0], y, rtol=1e-5, atol=2e-6, err_msg="y after normalisation")
    parts = [vjps[n] * point[n] for n in vjps] + [a * b for a, b in zip(rest[::2], rest[1::2], strict=True)]
    left, right = float(np.sum(g * y)), float(sum(np.sum(a) for a in parts))
    size = float(np.abs(g * y).sum() + sum(np.abs(a).sum() for a in parts))
    assert abs(left - right) <= precision.identity * size + 1e-12, (
        f"<g, y> = {left:.12g}, its parts sum to {right:.12g}"
    )
    for u, s in zip(directions, slopes, strict=True):
        found = sum(float(np.sum(vjps[n] * v)) for n, v in u.items() if n in vjps)
        size = s.size + sum(float(np.abs(vjps[n] * v).sum()) for n, v in u.items() if n in vjps)
        assert abs(found - s.central) <= precision.slope * size + 1e-9, (
            f"along {', '.join(u)}: the derivative is {s.central:.9g}, the rule says {found:.9g}"
        )
    return Verdict(precision, moved)


@dataclass(frozen=True)
class _Slope:
    """The slope of <g, y> along a direction.

    Attributes
    ----------
    central : float
        By central differences.
    size : float
        What its parts add up to in absolute value.
    smooth : bool
        Whether the slopes of both sides, and that of a smaller step, agree.
    """

    central: float
    size: float
    smooth: bool


def _directions(point: Mapping[str, Array], rng: np.random.Generator) -> list[dict[str, Array]]:
    """Random directions of every active input alone, and of all at once."""
    alone = [{n: rng.standard_normal(a.shape)} for n, a in point.items()]
    together = [{n: rng.standard_normal(a.shape) for n, a in point.items()}]
    return [*alone, *together]


def _slopes(
    forward: Function, point: Mapping[str, Array], g: Array, u: Mapping[str, Array], precision: Precision
) -> _Slope:
    step = precision.step

    def at(t: float) -> Array:
        return forward({**point, **{n: point[n] + t * v for n, v in u.items()}})[0]

    above, middle, under = at(step), at(0.0), at(-step)
    central = (above - under) / (2 * step)
    size = float(np.abs(g * central).sum())
    others = [(above - middle) / step, (middle - under) / step, (at(step / 4) - at(-step / 4)) / (step / 2)]
    smooth = all(float(np.abs(g * (other - central)).sum()) <= precision.kink * size + 1e-9 for other in others)
    return _Slope(float(np.sum(g * central)), size, smooth and np.isfinite(size))
