"""Every rule is held against both laws of a linearisation, for every row of the table in rule_cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fgonnx.engine import rules
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.fast import masks
from fgonnx.engine.walk import backward
from fgonnx.errors import UnsupportedError
from tests import linearisation, skips
from tests.linearisation import Array, Case, Draw, Given
from tests.rule_cases import CASES

NEWEST = 26  # of onnxruntime
PROVED = [case for case in CASES if not case.refused]
REFUSED = [case for case in CASES if case.refused]
NEWER = [
    replace(case, opset=NEWEST)
    for case in PROVED
    if rules.registry.schema_version(case.op_type, case.opset) < rules.registry.schema_version(case.op_type, NEWEST)
    if case.op_type != "GlobalLpPool"  # of which onnxruntime has no newer version
    if case.op_type != "DFT" or "axis" not in case.attributes  # which became an input
]


def name(case: Case) -> str:
    return case.id


def test_every_rule_has_a_row_and_every_row_its_own_name() -> None:
    found = [rules.find(case.op_type, case.opset) for case in CASES]
    assert None not in found
    assert {(r.op_type, r.since) for r in rules.rules() if not r.domain} == {(r.op_type, r.since) for r in found if r}
    ids = [case.id for case in CASES]
    assert sorted({i for i in ids if ids.count(i) > 1}) == []


@pytest.mark.parametrize("rule", [r for r in rules.rules() if not r.domain], ids=lambda r: f"{r.op_type}-{r.since}")
def test_a_rule_takes_the_attributes_of_its_operator_and_no_others(rule: rules.Rule) -> None:
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if (s.name, s.domain) == (rule.op_type, "")]
    newest = max(s.since_version for s in schemas)
    attributes = {a for s in schemas for a in s.attributes if s.since_version in (newest, max(18, rule.since))}
    assert attributes <= rule.attributes()
    if rule.op_type not in {"Cast", "CastLike", "ScatterElements", "ScatterND"}:  # two by two they share a rule
        assert rule.attributes() <= {a for s in schemas for a in s.attributes}


@pytest.mark.counts("laws")
@pytest.mark.parametrize("case", [*PROVED, *NEWER], ids=name)
def test_both_laws_hold(case: Case) -> None:
    linearisation.check(case)


@pytest.mark.parametrize("case", PROVED, ids=name)
def test_two_batches_at_once_are_one_after_the_other(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    record_property("batched", linearisation.check_batch(case))


def halves() -> Iterator[Any]:
    """Return the rows that float16 is tried for; a rule writes the same operators in it, so one of each is fast."""
    seen = set()
    for case in PROVED:
        if not case.half and not case.runtime:
            rule = rules.find(case.op_type, case.opset)
            yield pytest.param(case, marks=pytest.mark.slow) if rule in seen else case
            seen.add(rule)


@pytest.mark.counts("halves")
@pytest.mark.parametrize("case", list(halves()), ids=name)
def test_float16_is_close(case: Case) -> None:
    linearisation.check_half(case)


@pytest.mark.counts("refusals")
@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_a_refusal_says_why(case: Case) -> None:
    arrays = case.arrays(np.float32)
    y = next(a for a in arrays if a is not None)
    if "to" in case.attributes:
        y = y.astype(onnx.helper.tensor_dtype_to_np_dtype(case.attributes["to"]))
    ys = [y] * case.outputs  # refused before its shape matters
    with pytest.raises(UnsupportedError, match=case.refused):
        linearisation.emit(case, arrays, ys)


def run(build: Callable[[Emitter, ir.Value], ir.Value], x: Array, *, optimise: bool) -> Array:
    """Emit an expression of one value and run it in onnxruntime."""
    kind = ir.DataType.from_numpy(x.dtype)
    value = ir.Value(name="x", shape=ir.Shape(x.shape), type=ir.TensorType(kind))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="expression")
    result = build(Emitter(graph), value)
    result.type, result.shape = value.type, value.shape
    graph.outputs.append(result)
    model = ir.to_proto(ir.Model(graph, ir_version=linearisation.IR_VERSION))
    return linearisation.runner(model, reference=False, optimise=optimise)({"x": x})[0]


TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_mask_of_positive_values_is_exact(dtype: type, optimise: bool) -> None:
    info = np.finfo(dtype)
    numbers = [0.0, -0.0, info.tiny, 1.5 * info.tiny, 1e-4, 1.0, info.max, np.inf, -info.tiny, -1.0, info.min, -np.inf]
    x: Array = np.array(numbers, dtype)
    assert (run(masks.positive, x, optimise=optimise) == (x > 0)).all()


@pytest.mark.parametrize("optimise", [True, False])
def test_the_mask_of_subnormal_values_stays_between_0_and_1(optimise: bool) -> None:
    x = np.array([2.0**-149, 2.0**-127, 1.5 * 2.0**-127, -(2.0**-149)], np.float32)
    mask = run(masks.positive, x, optimise=optimise)
    assert ((mask >= 0) & (mask <= 1)).all()
    assert mask[0] == mask[3] == 0


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize(
    ("bound", "dtype"),
    [
        *((bound, dtype) for bound in (6.0, 1.0, 2.0, 0.3, 20.0, 0.0, -1.5) for dtype in (np.float32, np.float16)),
        *((bound, np.float32) for bound in (2.0**-59, 3e-20, 1e20)),  # which float16 has not
    ],
)
def test_the_mask_below_a_bound_is_exact(bound: float, dtype: type, optimise: bool) -> None:
    b: Array = np.array(bound, dtype)
    inside, outside = np.nextafter(b, dtype(-np.inf)), np.nextafter(b, dtype(np.inf))
    x: Array = np.array(
        [inside, b, outside, 0, -1, -7, 100, np.finfo(dtype).max, np.finfo(dtype).min, np.inf, -np.inf], dtype
    )
    if dtype == np.float32 and bound == 0.0:
        x[[0, 2]] = -TINY, TINY  # onnxruntime may flush subnormals
    assert (run(lambda op, v: masks.below(op, v, float(b)), x, optimise=optimise) == (x < b)).all()


def test_ties_of_max_pool_route_as_its_own_indices() -> None:
    x = np.repeat(np.arange(12.0), 2).reshape(1, 2, 3, 4).round(-1)
    case = Case("MaxPool", (Given(x, active=True),), {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]})
    arrays = case.arrays(np.float32)
    y, indices = linearisation.node_forward(replace(case, outputs=2), arrays, reference=False)(
        {0: x.astype(np.float32)}
    )
    g = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    expected = np.zeros(x.size, np.float32)
    np.add.at(expected, indices.reshape(-1), g.reshape(-1))
    lin = linearisation.evaluate(case, arrays, g, [y], reference=False)
    np.testing.assert_allclose(lin.vjps[0].reshape(-1), expected, rtol=1e-6)


def _kinks() -> list[tuple[Case, str]]:
    def at(op_type: str, points: list[float], torch_name: str, *more: Given, **attributes: object) -> tuple[Case, str]:
        return Case(op_type, (Given(np.array(points, np.float64), active=True), *more), attributes), torch_name

    pair = Given(np.array([1.0, 0.0, -2.0, 5.0]), active=True)
    return [
        at("Relu", [-1, 0, 1], "relu(x)"),
        at("LeakyRelu", [-1, 0, 1], "leaky_relu(x, 0.25)", alpha=0.25),
        at("PRelu", [-1, 0, 1], "prelu(x, torch.tensor([0.25], dtype=x.dtype))", Given(np.array([0.25]))),
        at("Abs", [-1, 0, 1], "x.abs()"),
        at("Clip", [-1, 0, 3, 6, 7], "hardtanh(x, 0, 6)", Given(np.array(0.0)), Given(np.array(6.0))),
        at("HardSigmoid", [-4, -3, 0, 3, 4], "hardsigmoid(x)", alpha=1 / 6),
        at("HardSwish", [-4, -3, 0, 3, 4], "hardswish(x)"),
        at("ThresholdedRelu", [-1, 0.5, 1], "threshold(x, 0.5, 0)", alpha=0.5),
        at("Shrink", [-1, -0.5, 0, 0.5, 1], "softshrink(x, 0.5)", bias=0.5, lambd=0.5),
        at("Elu", [-1, 0, 1], "elu(x)"),
        at("Selu", [-1, 0, 1], "selu(x)"),
        at("Celu", [-1, 0, 1], "celu(x, 0.5)", alpha=0.5),
        at("Softsign", [-1, 0, 1], "softsign(x)"),
        at("Sign", [-1, 0, 1], "x.sign()"),
        at("Max", [1, 2, -2, 5], "torch.maximum(x, z)", pair),
        at("Min", [1, 2, -2, 5], "torch.minimum(x, z)", pair),
        at("ReduceMax", [1, 5, 5, 0], "x.amax(0, keepdim=True)"),
        at("ReduceMin", [1, 0, 5, 0], "x.amin(0, keepdim=True)"),
        at("ReduceL1", [1, 0, -5, 0], "x.norm(1, keepdim=True)"),
        at("ReduceL2", [0, 0, 0], "x.norm(2, keepdim=True)"),
        at("ReduceProd", [2, 0, 3], "x.prod().reshape(1)"),
        at("Pow", [0, 1, -2], "x ** 2", Given(np.array(2.0))),
        at("Pow", [0, 1, -2], "x ** 0", Given(np.array(0.0))),
    ]


@pytest.mark.parametrize(("case", "expression"), _kinks(), ids=lambda v: v if isinstance(v, str) else v.op_type)
def test_derivatives_at_kinks_are_those_of_torch(case: Case, expression: str) -> None:
    torch = skips.without("torch")
    for dtype in (np.float32, np.float64):
        reference = dtype == np.float64
        arrays = case.arrays(dtype)
        ys = linearisation.node_forward(case, arrays, reference=reference)(linearisation.points(case, arrays))
        lin = linearisation.evaluate(case, arrays, np.ones_like(ys[0]), ys, reference=reference)
        leaves = [torch.tensor(arrays[i], requires_grad=True) for i in case.active]
        names = {**vars(torch.nn.functional), "torch": torch, "x": leaves[0], "z": leaves[-1]}
        result = eval(expression, names)
        np.testing.assert_allclose(lin.ys[0], result.detach().numpy(), rtol=1e-5)
        gradients = torch.autograd.grad(result.sum(), leaves)
        for i, expected in zip(case.active, gradients, strict=True):
            np.testing.assert_allclose(lin.vjps.get(i, np.zeros_like(arrays[i])), expected, rtol=1e-5, atol=1e-6)


def test_a_value_that_enters_twice_gets_both_cotangents() -> None:
    x = ir.Value(name="x", shape=ir.Shape([3]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Mul", [x, x], num_outputs=1)
    y = node.outputs[0]
    y.name, y.shape, y.type = "y", x.shape, x.type
    graph = ir.Graph([x], [], nodes=[node], opset_imports={"": 18}, name="square")
    op = Emitter(graph, {x, y})
    seed = ir.Value(name="g", shape=x.shape, type=x.type)
    graph.inputs.append(seed)
    walk = backward.walk(op, [node], y, seed, 18)
    graph.outputs.extend([walk.cotangents[x]])
    model = ir.to_proto(ir.Model(graph, ir_version=linearisation.IR_VERSION))
    z = np.array([1.0, -2.0, 3.0], np.float32)
    (gx,) = linearisation.runner(model, reference=False)({"x": z, "g": np.ones(3, np.float32)})
    np.testing.assert_allclose(gx, 2 * z)


def test_an_attribute_that_the_rule_does_not_know_is_refused() -> None:
    case = Case("Relu", (Draw((2, 3), active=True),), {"consumed_inputs": 1})
    with pytest.raises(UnsupportedError, match="consumed_inputs"):
        linearisation.emit(case, case.arrays(np.float32), [np.zeros((2, 3), np.float32)])


def test_intercepts_stay_finite_behind_a_mask_of_minus_infinity() -> None:
    scores = np.array([[1.0, -np.inf, 0.5], [-np.inf, 2.0, -np.inf]])
    open_, closed = Given(np.isfinite(scores)), np.where(np.isinf(scores), -np.inf, 0.0)
    for case in (
        Case("Softmax", (Given(scores, active=True),), {}),
        Case("Add", (Draw((2, 3), active=True), Given(closed)), {}),
        Case("Add", (Draw((2, 3), active=True), Given(closed, constant=False)), {}),
        Case("Where", (open_, Draw((2, 3), active=True), Given(np.array(-np.inf))), {}),
    ):
        arrays = case.arrays(np.float32)
        ys = linearisation.node_forward(case, arrays, reference=False)(linearisation.points(case, arrays))
        lin = linearisation.evaluate(case, arrays, np.isfinite(ys[0]).astype(np.float32), ys, reference=False)
        assert all(np.isfinite(c).all() for _, c in lin.terms)
        assert all(np.isfinite(v).all() for v in lin.vjps.values())
