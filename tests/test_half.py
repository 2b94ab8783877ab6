"""Half precision: float32 cotangents beside float16 values, rounding as terms of its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx


def network(dtype: type[np.floating], scale: float = 1.0) -> onnx.ModelProto:
    """conv, relu, conv, mean, dense; `scale` makes the last layer's weights, and with them all cotangents, small."""
    draw = np.random.default_rng(3)
    arrays = {
        "w1": draw.normal(size=(6, 3, 3, 3)) * 0.3,
        "b1": draw.normal(size=6) * 0.2,
        "w2": draw.normal(size=(6, 6, 3, 3)) * 0.2,
        "b2": draw.normal(size=6) * 0.2,
        "w3": draw.normal(size=(4, 6)) * scale,
        "b3": draw.normal(size=4) * scale,
    }
    # The same numbers in every precision: those that half precision has.
    rounded = {n: a.astype(np.float16).astype(dtype) for n, a in arrays.items()}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, ["N", 4])],
        [numpy_helper.from_array(a, n) for n, a in rounded.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


X = np.random.default_rng(4).normal(size=(3, 3, 8, 8)).astype(np.float16)


def explain(dtype: type[np.floating], scale: float = 1.0) -> fgonnx.Explanation:
    return fgonnx.Explainer(network(dtype, scale), input_gradient=True)(X.astype(dtype), 1)


def test_the_certificate_accounts_for_the_half_precision_output() -> None:
    explanation = explain(np.float16)
    assert explanation.rounding_residual().max() < 1e-6
    # A runtime without half-precision kernels computes in float32 and rounds where a value leaves the graph.
    np.testing.assert_array_equal(explanation.score.astype(np.float16), explanation.outputs["logits"][:, 1])


def test_outputs_keep_their_type() -> None:
    assert explain(np.float16).outputs["logits"].dtype == np.float16


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_gradients_agree_with_float32_however_small(scale: float) -> None:
    # At 1e-4 a half-precision cotangent spread over 64 positions would underflow (the smallest is 6e-8).
    half, single = explain(np.float16, scale).input_gradient, explain(np.float32, scale).input_gradient
    assert half is not None
    assert single is not None
    assert np.abs(half - single).max() < 2e-3 * np.abs(single).max()


def test_maps_agree_with_float32() -> None:
    half, single = explain(np.float16).saliency, explain(np.float32).saliency
    assert np.abs(half - single).max() < 1e-2 * single.max()


def test_rounding_is_a_kind_of_its_own_and_stays_out_of_the_map() -> None:
    sites = [s for s in explain(np.float16).sites if s.kind == "quantisation"]
    assert sites
    assert not any(s.in_map for s in sites)


def test_rounding_adds_what_the_two_precisions_differ_by_on_a_linear_network() -> None:
    source = (
        """<ir_version: 8, opset_import: ["": 18]> g (float16[N, 6] x) => (float16[N, 4] y) { y = MatMul (x, w) }"""
    )
    model = onnx.parser.parse_model(source)
    w = (np.random.default_rng(0).normal(size=(6, 4))).astype(np.float16)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    x = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float16)
    explanation = fgonnx.Explainer(model)(x, 0)
    assert explanation.contributions is not None
    rounding = explanation.contributions[:, [s.kind == "quantisation" for s in explanation.sites]].sum(axis=1)
    exact = (x.astype(np.float64) @ w.astype(np.float64))[:, 0]
    np.testing.assert_allclose(rounding, explanation.score - exact, atol=1e-6)


def test_a_model_of_two_precisions_is_explained() -> None:
    model = network(np.float16)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.node[0].input[0] = "x16"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16))
    model.graph.node[-1].output[0] = "logits16"
    model.graph.node.append(helper.make_node("Cast", ["logits16"], ["logits"], to=TensorProto.FLOAT))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    explanation = fgonnx.Explainer(model)(X.astype(np.float32))
    assert explanation.rounding_residual().max() < 1e-6


@pytest.mark.parametrize("onesided", [0, 1])
def test_the_window_of_a_transform_counts_in_half_precision(onesided: int) -> None:
    source = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]> net (float16[1,7,1] x) => (y)
        <int64 step = {{2}}, int64 length = {{4}}> {{
            w0 = Constant<value_floats = [0.1, 0.45, 1.0, 0.3]>()
            w = Cast<to = 10>(w0)
            y = STFT<onesided = {onesided}>(x, step, w, length)
        }}"""
    )
    x = np.random.default_rng(0).standard_normal((1, 7, 1)).astype(np.float16)
    explanation = fgonnx.Explainer(source, head="output", input_gradient=True)(x, 0)
    assert explanation.input_gradient is not None
    np.testing.assert_allclose(explanation.input_gradient.ravel(), [0.1, 0.45, 1, 0.3, 0, 0, 0], atol=1e-3)
    assert explanation.relative_residual().max() < 1e-2
