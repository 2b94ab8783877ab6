"""Recurrent layers of many steps: the gradient of the unrolled layer, in a graph whose size does not depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.engine.normal.expand import recurrent
from fgonnx.errors import UnsupportedError
from tests import skips

FEATURES, HIDDEN, CLASSES = 3, 4, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def layer(
    kind: str,
    steps: int | str,
    *,
    directions: int = 1,
    batch: int | str = "N",
    lengths: list[int] | None = None,
    initial: bool = False,
    peepholes: bool = False,
    state: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:
    """A recurrent layer; the head reads the mean of its results and its last state, or the last cell state alone."""
    rng = np.random.default_rng(0)
    rows = GATES[kind] * HIDDEN
    arrays: dict[str, np.ndarray] = {
        "w": 0.6 * rng.normal(size=(directions, rows, FEATURES)),
        "r": 0.4 * rng.normal(size=(directions, rows, HIDDEN)),
        "b": 0.3 * rng.normal(size=(directions, 2 * rows)),
        "h0": rng.normal(size=(directions, 1, HIDDEN)),
        "c0": rng.normal(size=(directions, 1, HIDDEN)),
        "p": 0.3 * rng.normal(size=(directions, 3 * HIDDEN)),
        "fc": rng.normal(size=(directions * HIDDEN, CLASSES)),
    }
    integers = {
        "all": np.array([0, 0, directions * HIDDEN]),
        "last": np.array([0, directions * HIDDEN]),
        "time": np.array([0]),
    }
    arrays = {k: a.astype(np.float32) for k, a in arrays.items()} | {k: a.astype(np.int64) for k, a in integers.items()}
    arrays["lengths"] = np.array(lengths or [0], np.int32)
    names = ["t", "w", "r", "b", "lengths" if lengths else ""]
    names += ["h0" if initial else "", "c0" if initial and kind == "LSTM" else "", "p" if peepholes else ""]
    while not names[-1]:
        names.pop()
    outputs = ["all_h", "last_h", "last_c"] if kind == "LSTM" else ["all_h", "last_h"]
    taken = "last_c" if state else "last_h"
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(kind, names, outputs, name="layer", hidden_size=HIDDEN, **attributes),
        helper.make_node("Transpose", [taken], ["l0"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["l0", "last"], ["l"]),
    ]
    if state:
        nodes.append(helper.make_node("Identity", ["l"], ["u"]))
    else:
        nodes += [
            helper.make_node("Transpose", ["all_h"], ["a0"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["a0", "all"], ["a"]),
            helper.make_node("ReduceMean", ["a", "time"], ["m"], keepdims=0),
            helper.make_node("Add", ["m", "l"], ["u"]),
        ]
    nodes.append(helper.make_node("MatMul", ["u", "fc"], ["logits"]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, steps, FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def waves(count: int, steps: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(count, steps, FEATURES)).astype(np.float32)


CASES: dict[str, dict[str, Any]] = {
    "LSTM": {"kind": "LSTM"},
    "LSTM, backwards": {"kind": "LSTM", "direction": "reverse"},
    "LSTM, both ways": {"kind": "LSTM", "directions": 2, "direction": "bidirectional"},
    "LSTM, peepholes": {"kind": "LSTM", "peepholes": True},
    "LSTM, clipped": {"kind": "LSTM", "clip": 0.5},
    "LSTM, input_forget": {"kind": "LSTM", "input_forget": 1},
    "LSTM, other activations": {"kind": "LSTM", "activations": ["HardSigmoid", "Softsign", "Elu"]},
    "LSTM, activations with parameters": {
        "kind": "LSTM",
        "activations": ["Sigmoid", "LeakyRelu", "ScaledTanh"],
        "activation_alpha": [0.2, 1.3],
        "activation_beta": [0.7],
    },
    "LSTM, lengths": {"kind": "LSTM", "batch": 1, "lengths": [4]},
    "LSTM, initial states": {"kind": "LSTM", "batch": 1, "initial": True},
    "LSTM, its last cell state": {"kind": "LSTM", "state": True},
    "GRU": {"kind": "GRU"},
    "GRU, linear_before_reset, both ways": {
        "kind": "GRU",
        "directions": 2,
        "direction": "bidirectional",
        "linear_before_reset": 1,
    },
    "GRU, lengths, backwards": {"kind": "GRU", "batch": 1, "lengths": [5], "direction": "reverse"},
    "GRU, initial states": {"kind": "GRU", "batch": 1, "initial": True},
    "RNN": {"kind": "RNN"},
    "RNN, Relu": {"kind": "RNN", "activations": ["Relu"]},
}


@pytest.mark.parametrize("name", CASES)
def test_all_steps_at_once_give_what_one_after_the_other_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = layer(steps=7, **CASES[name])
    x = waves(1 if CASES[name].get("batch") == 1 else 3, 7)
    unrolled = fgonnx.Explainer(source, input_gradient=True, layout="NWC")(x, 2)
    monkeypatch.setattr(recurrent, "MOST_STEPS", 3)
    scanned = fgonnx.Explainer(source, input_gradient=True, layout="NWC")(x, 2)
    assert len(scanned.sites) < len(unrolled.sites)
    assert scanned.rounding_residual().max() < 1e-6
    np.testing.assert_allclose(scanned.score, unrolled.score, rtol=1e-6)
    np.testing.assert_allclose(scanned.input_gradient, unrolled.input_gradient, rtol=1e-4, atol=1e-6)


def test_slopes_of_a_long_layer_are_those_of_differences() -> None:
    source = layer("LSTM", 700, directions=2, direction="bidirectional")
    x = waves(2, 700)
    explanation = fgonnx.Explainer(source, input_gradient=True, layout="NWC")(x, 1)
    assert explanation.rounding_residual().max() < 1e-6
    assert explanation.input_gradient is not None
    session, rng = Session(source), np.random.default_rng(1)
    for _ in range(4):
        v = rng.normal(size=x.shape).astype(np.float32)
        ends = [session.run({"x": x + np.float32(s * 1e-2) * v})["logits"][:, 1].astype(float) for s in (1, -1)]
        found = (explanation.input_gradient * v).reshape(2, -1).sum(axis=1)
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-2, rtol=2e-2, atol=1e-3)


def test_its_map_has_the_time_of_its_biases() -> None:
    explanation = fgonnx.Explainer(layer("GRU", 600), layout="NWC")(waves(1, 600))
    assert explanation.saliency.shape == (1, 600)
    assert {s.grid for s in explanation.sites} == {(600,)}


def test_the_size_of_the_graph_does_not_depend_on_the_number_of_steps() -> None:
    short, long = (len(fgonnx.rewrite(layer("LSTM", n), layout="NWC").SerializeToString()) for n in (600, 6000))
    assert long < 1.05 * short
    assert short < 200_000


def test_its_rewritten_graph_holds_operators_of_the_standard_alone() -> None:
    rewritten = fgonnx.rewrite(layer("LSTM", 600), layout="NWC")
    assert {n.domain for n in rewritten.graph.node} == {""}
    onnx.checker.check_model(rewritten)


def test_long_layers_in_half_precision_are_refused_with_their_number_of_steps() -> None:
    source = layer("RNN", 600)
    for tensor in source.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(UnsupportedError, match=r"'layer' \(RNN.*600 steps in half precision"):
        fgonnx.rewrite(source, layout="NWC")


LOOP = """<ir_version: 8, opset_import: ["": 18]> g (float[N, 4] x) => (float[N, 4] y) {{
    trips = Constant <value = int64 {{{trips}}}> ()
    go = Constant <value = bool {{1}}> ()
    [repeat] y = Loop ({count}, go, x) <body = b (int64 i, bool c, float[N, 4] s) => (bool d, float[N, 4] t) {{
        half = Constant <value = float {{0.5}}> ()
        sum = ReduceSum <keepdims = 0> (s)
        d = {condition}
        t = Mul (s, half)
    }}>
}}"""
LOOPS = {
    "too many steps": (LOOP.format(trips=700, count="trips", condition="Identity (c)"), "it has 700 steps, and loops"),
    "a condition of its own": (
        LOOP.format(trips=7, count="trips", condition="Greater (sum, half)"),
        "its condition may end it",
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_that_are_not_unrolled_are_refused_with_the_reason(name: str) -> None:
    source, why = LOOPS[name]
    with pytest.raises(UnsupportedError, match=rf"'repeat' \(Loop.*{why}"):
        fgonnx.rewrite(onnx.parser.parse_model(source))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("by_channel", [False, True])
def test_a_layer_that_onnxruntime_quantised_dynamically_gives_its_score(
    tmp_path: Path, direction: str, by_channel: bool
) -> None:
    quantization = skips.without("onnxruntime.quantization")
    source = layer("LSTM", 9, directions=2 if direction == "bidirectional" else 1, direction=direction)
    onnx.save(source, tmp_path / "source.onnx")
    quantization.quantize_dynamic(tmp_path / "source.onnx", tmp_path / "int8.onnx", per_channel=by_channel)
    path, x = tmp_path / "int8.onnx", waves(1, 9)
    assert "DynamicQuantizeLSTM" in {n.op_type for n in onnx.load(path).graph.node}
    found = fgonnx.Explainer(path, input_gradient=True, layout="NWC")(x, 2)
    assert found.rounding_residual().max() < 1e-6
    expected = Session(onnx.load(path), optimise=False).run({"x": x})["logits"][:, 2]
    np.testing.assert_allclose(found.score, expected, rtol=1e-5)
    gradient = fgonnx.Explainer(source, input_gradient=True, layout="NWC")(x, 2).input_gradient
    assert gradient is not None
    assert found.input_gradient is not None
    assert np.corrcoef(found.input_gradient.ravel(), gradient.ravel())[0, 1] > 0.999
    notes = [n for n in found.settings["notes"] if "held fixed" in n]
    assert (
        notes[0] == "`com.microsoft.DynamicQuantizeLSTM` 'layer_quant' takes its scale from the input; it is held fixed"
    )
