"""Expansions: what has no rule of its own computes the same and is differentiated exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError

Arrays = dict[str, np.ndarray]


def rng(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def one_node(
    op_type: str, inputs: Arrays, constant: set[str], output: tuple[int, ...], opset: int, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; inputs that are not constant are its inputs, in order."""
    faces = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in inputs.items() if n not in constant
    ]
    node = helper.make_node(op_type, list(inputs), ["y"], name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        faces,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(a, n) for n, a in inputs.items() if n in constant],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def recurrent(op_type: str, steps: int = 5, directions: int = 1, **attributes: Any) -> tuple[onnx.ModelProto, Arrays]:
    gates, hidden, features, batch = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type], 4, 3, 2
    inputs = {
        "x": rng(steps, batch, features),
        "w": rng(directions, gates * hidden, features),
        "r": rng(directions, gates * hidden, hidden),
        "b": rng(directions, 2 * gates * hidden),
    }
    model = one_node(
        op_type, inputs, {"w", "r", "b"}, (steps, directions, batch, hidden), 21, hidden_size=hidden, **attributes
    )
    return model, {"x": inputs["x"]}


def body(
    op_type: str, opset: int, inputs: Arrays, constant: set[str], **attributes: Any
) -> tuple[onnx.ModelProto, Arrays]:
    model = one_node(op_type, inputs, constant, next(iter(inputs.values())).shape, opset, **attributes)
    return model, {n: a for n, a in inputs.items() if n not in constant}


def text(source: str, **feeds: np.ndarray) -> tuple[onnx.ModelProto, Arrays]:
    return onnx.parser.parse_model(source), feeds


def sampled(image: tuple[int, ...], grid: tuple[int, ...], **attributes: Any) -> tuple[onnx.ModelProto, Arrays]:
    inputs = {"x": rng(*image), "grid": rng(*grid)}
    output = (*image[:2], *grid[1:-1])
    return one_node("GridSample", inputs, {"grid"}, output, 20, **attributes), {"x": inputs["x"]}


def qkv() -> Arrays:
    return {"q": rng(1, 2, 6, 4, seed=1), "k": rng(1, 2, 6, 4, seed=2), "v": rng(1, 2, 6, 4, seed=3)}


IF = """<ir_version: 8, opset_import: ["": 18]>
g (float[1, 4] x) => (float[1, 4] y) {
  total = ReduceSum <keepdims = 0> (x)
  zero = Constant <value = float {0.0}> ()
  condition = Greater (total, zero)
  y = If (condition) <
    then_branch = t () => (float[1, 4] a) { a = Tanh (x) },
    else_branch = e () => (float[1, 4] b) { b = Sin (x) }>
}"""

LOOP = """<ir_version: 8, opset_import: ["": 18]>
g (float[1, 4] x) => (float[1, 4] y, float[3, 1, 4] rows) {
  trips = Constant <value = int64 {3}> ()
  go = Constant <value = bool {1}> ()
  y, rows = Loop (trips, go, x) <body = b (int64 i, bool c, float[1, 4] s) => (bool d, float[1, 4] t, float[1, 4] u) {
    d = Identity (c)
    t = Mul (s, x)
    u = Tanh (t)
  }>
}"""

SCAN = """<ir_version: 8, opset_import: ["": 18]>
g (float[5, 4] x) => (float[4] y, float[5, 4] rows) {
  start = Constant <value = float[4] {0.0, 1.0, 2.0, 3.0}> ()
  y, rows = Scan <num_scan_inputs = 1, body = b (float[4] s, float[4] xi) => (float[4] t, float[4] u) {
    a = Mul (s, xi)
    t = Add (a, xi)
    u = Tanh (t)
  }> (start, x)
}"""

NORM: Arrays = {"x": rng(1, 4, 5, 5), "s": rng(4), "b": rng(4, seed=1)}
ROI: Arrays = {
    "x": rng(1, 2, 8, 8),
    "r": np.array([[0, 1, 2, 11, 13], [0, 8, 8, 9, 20]], np.float32),
}
ROTARY: Arrays = {"x": rng(1, 2, 6, 4), "c": rng(1, 6, 2), "s": rng(1, 6, 2, seed=1)}

CASES = {
    "LSTM": recurrent("LSTM"),
    "LSTM, bidirectional": recurrent("LSTM", directions=2, direction="bidirectional"),
    "LSTM, input_forget": recurrent("LSTM", input_forget=1),
    "LSTM, other activations": recurrent("LSTM", activations=["HardSigmoid", "Softsign", "Elu"]),
    "GRU": recurrent("GRU"),
    "GRU, reverse, linear_before_reset": recurrent("GRU", direction="reverse", linear_before_reset=1),
    "RNN": recurrent("RNN"),
    "RNN, clipped": recurrent("RNN", clip=0.7),
    "GroupNormalization": body("GroupNormalization", 21, NORM, {"s", "b"}, num_groups=2),
    "RMSNormalization": body("RMSNormalization", 23, {"x": rng(1, 6, 4), "s": rng(4)}, {"s"}),
    "RotaryEmbedding": body("RotaryEmbedding", 23, ROTARY, {"c", "s"}),
    "MaxRoiPool": (
        one_node("MaxRoiPool", ROI, {"r"}, (2, 2, 3, 3), 18, pooled_shape=[3, 3], spatial_scale=0.5),
        {"x": ROI["x"]},
    ),
    "Attention": body("Attention", 23, qkv(), set()),
    "Attention, causal": body("Attention", 23, qkv(), set(), is_causal=1),
    "GridSample": sampled((1, 2, 5, 5), (1, 3, 3, 2)),
    "GridSample, volume": sampled((1, 2, 3, 4, 3), (1, 2, 3, 2, 3), padding_mode="reflection"),
    "GridSample, cubic": sampled((1, 2, 5, 5), (1, 3, 3, 2), mode="cubic", padding_mode="border"),
    "GridSample, nearest": sampled((1, 2, 5, 5), (1, 3, 3, 2), mode="nearest", align_corners=1),
    "If, condition from data": text(IF, x=rng(1, 4)),
    "If, other branch": text(IF, x=-np.abs(rng(1, 4))),
    "Loop": text(LOOP, x=rng(1, 4)),
    "Scan": text(SCAN, x=rng(5, 4)),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, Arrays]:
    return request.param  # type: ignore[no-any-return]


def gradients(model: onnx.ModelProto, feeds: Arrays) -> tuple[Arrays, np.ndarray]:
    """Run the gradient graph with a random cotangent; return all results and the cotangent."""
    seed = rng(*Session(model).run(feeds)[model.graph.output[0].name].shape, seed=9)
    session = Session(fgonnx.grad(model, wrt=list(feeds)))
    return session.run({**feeds, f"{model.graph.output[0].name}_grad": seed}), seed


def test_an_expansion_computes_what_the_operator_computes(case: tuple[onnx.ModelProto, Arrays]) -> None:
    model, feeds = case
    results, _ = gradients(model, feeds)
    for name, expected in Session(model).run(feeds).items():
        np.testing.assert_allclose(results[name], expected, rtol=1e-5, atol=2e-6)


def test_an_expansion_has_the_gradient_of_the_operator(case: tuple[onnx.ModelProto, Arrays]) -> None:
    model, feeds = case
    results, seed = gradients(model, feeds)
    plain, output = Session(model), model.graph.output[0].name
    for i, (name, array) in enumerate(feeds.items()):
        direction, step = rng(*array.shape, seed=20 + i), 1e-2
        values = [plain.run({**feeds, name: array + s * step * direction})[output].astype(np.float64) for s in (1, -1)]
        measured = float(((values[0] - values[1]) * seed).sum() / (2 * step))
        claimed = float((results[f"{name}_grad"].astype(np.float64) * direction).sum())
        assert claimed == pytest.approx(measured, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("name", [n for n, (_, feeds) in CASES.items() if next(iter(feeds.values())).shape[0] == 1])
def test_an_expansion_is_complete(name: str) -> None:
    model, feeds = CASES[name]
    first = next(iter(feeds))
    session = Session(fgonnx.rewrite(model, head="output", input=first))
    results = session.run(feeds)
    scale = np.abs(results["contributions"]).sum()
    assert abs(results["completeness"][0]) < 1e-5 * scale


def test_a_loop_of_unknown_length_is_refused_by_name() -> None:
    known = "trips = Constant <value = int64 {3}> ()"
    source = LOOP.replace(known, "trips = Cast <to = 7> (n)").replace(
        "(float[1, 4] x) =>", "(float[1, 4] x, float n) =>"
    )
    model = onnx.parser.parse_model(source)
    with pytest.raises(UnsupportedError, match="Loop"):
        fgonnx.rewrite(model, input="x", head="output")
