"""Quantised models: exact accounting of what the int8 model gives, quantisation as terms of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError
from tests import skips

quantization = skips.without("onnxruntime.quantization")


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """conv, relu, maxpool, depthwise conv, residual, global pool, dense: what int8 CNNs are made of."""
    weights = {
        "w1": random(8, 3, 3, 3, scale=0.3),
        "b1": random(8, scale=0.2),
        "w2": random(8, 1, 3, 3, scale=0.4),
        "b2": random(8, seed=1, scale=0.2),
        "w3": random(5, 8, scale=0.5),
        "b3": random(5, scale=0.3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["c2", "p1"], ["a2"], name="add2"),
        helper.make_node("GlobalAveragePool", ["a2"], ["gap"], name="gap"),
        helper.make_node("Flatten", ["gap"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], name="dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """A few random inputs."""

    def __init__(self) -> None:
        self._rest = iter([{"x": random(4, 3, 16, 16, seed=s)} for s in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


FORMS = ["QDQ", "QDQ, per channel", "QOperator", "QOperator, per channel", "dynamic"]


@pytest.fixture(params=FORMS)
def int8(request: pytest.FixtureRequest, network: onnx.ModelProto, tmp_path: Path) -> onnx.ModelProto:
    """The network as onnxruntime's own quantiser writes it."""
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(network, source)
    if request.param == "dynamic":
        quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QUInt8)
    else:
        form = quantization.QuantFormat.QDQ if request.param.startswith("QDQ") else quantization.QuantFormat.QOperator
        # Weights of 7 bits: with 8, onnxruntime's kernels saturate on processors that lack instructions for them.
        quantization.quantize_static(
            source,
            target,
            Calibration(),
            quant_format=form,
            per_channel="per channel" in request.param,
            reduce_range=True,
        )
    return onnx.load(target)


def test_the_certificate_accounts_for_the_output_of_the_int8_model(int8: onnx.ModelProto) -> None:
    explanation = fgonnx.Explainer(int8)(random(3, 3, 16, 16, seed=7))
    assert explanation.rounding_residual().max() < 1e-6


def test_the_score_is_an_output_of_the_int8_model(int8: onnx.ModelProto) -> None:
    explanation = fgonnx.Explainer(int8)(random(3, 3, 16, 16, seed=7))
    expected = explanation.outputs["logits"][np.arange(3), explanation.target]
    np.testing.assert_allclose(explanation.score, expected, rtol=1e-6)


def test_outputs_stay_within_a_step_of_what_onnxruntime_gives_for_the_source(int8: onnx.ModelProto) -> None:
    # onnxruntime fuses QuantizeLinear and DequantizeLinear into integer kernels, where ties of rounding fall otherwise.
    x = random(3, 3, 16, 16, seed=7)
    expected = Session(int8).run({"x": x})["logits"]
    got = fgonnx.Explainer(int8)(x).outputs["logits"]
    assert np.abs(got - expected).max() < 0.02 * np.ptp(expected)


def test_quantisation_terms_are_of_their_own_kind(int8: onnx.ModelProto) -> None:
    kinds = {s.kind for s in fgonnx.Explainer(int8)(random(1, 3, 16, 16)).sites}
    assert "quantisation" in kinds


def test_the_gradient_is_that_of_the_float_network_where_nothing_saturates(
    int8: onnx.ModelProto, network: onnx.ModelProto
) -> None:
    x = random(3, 3, 16, 16, seed=7)
    gradients = [fgonnx.Explainer(m, input_gradient=True)(x, 2).input_gradient for m in (int8, network)]
    correlation = np.corrcoef(*(g.ravel() for g in gradients if g is not None))[0, 1]
    assert correlation > 0.95


def test_the_quantisation_share_is_the_difference_to_the_float_model_on_a_linear_network() -> None:
    """Without non-linearities, what quantisation adds is exactly what the two outputs differ by."""
    w, scale = random(4, 6, scale=0.5), np.float32(0.05)
    source = """<ir_version: 8, opset_import: ["": 18]> g (float[N, 6] x) => (float[N, 4] y) {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        y = MatMul (d, w)
    }"""
    model = onnx.parser.parse_model(source)
    for name, array in (("s", np.array(scale)), ("z", np.array(0, np.int8)), ("w", w.T.copy())):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    x = random(2, 6)
    explanation = fgonnx.Explainer(model)(x, [0, 3])
    assert explanation.contributions is not None
    quantisation = explanation.contributions[:, [s.kind == "quantisation" for s in explanation.sites]].sum(axis=1)
    exact = (x.astype(np.float64) @ w.T)[[0, 1], [0, 3]]
    np.testing.assert_allclose(quantisation, explanation.score - exact, atol=1e-5)


def test_no_gradient_passes_where_the_input_saturates() -> None:
    source = """<ir_version: 8, opset_import: ["": 18]> g (float[N, 2] x) => (float[N, 2] y) {
        q = QuantizeLinear (x, s, z)
        y = DequantizeLinear (q, s, z)
    }"""
    model = onnx.parser.parse_model(source)
    for name, array in (("s", np.array(0.1, np.float32)), ("z", np.array(0, np.int8))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    explanation = fgonnx.Explainer(model, input_gradient=True)(np.array([[100.0, 1.0]], np.float32), 0)
    np.testing.assert_array_equal(explanation.input_gradient, [[0.0, 0.0]])


def test_an_integer_image_input_is_explained_in_grey_levels() -> None:
    source = """<ir_version: 8, opset_import: ["": 18]> g (x) => (float[N, 1] y) {
        d = DequantizeLinear (x, s, z)
        c = Conv (d, w)
        y = ReduceSum <keepdims = 0> (c, axes)
    }"""
    model = onnx.parser.parse_model(source)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 3, 4, 4]))
    arrays = {
        "s": np.array(0.5, np.float32),
        "z": np.array(128, np.uint8),
        "w": np.ones((1, 3, 1, 1), np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    explanation = fgonnx.Explainer(model, input_gradient=True)(np.full((2, 3, 4, 4), 130, np.uint8))
    np.testing.assert_array_equal(explanation.input_gradient, np.full((2, 3, 4, 4), 0.5, np.float32))


KINDS = {
    "int8": (TensorProto.INT8, 0),
    "uint8": (TensorProto.UINT8, 128),
    "int16": (TensorProto.INT16, 5),
    "uint16": (TensorProto.UINT16, 30000),
    "int4": (TensorProto.INT4, 1),
    "uint4": (TensorProto.UINT4, 8),
    "float8e4m3fn": (TensorProto.FLOAT8E4M3FN, 0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["per tensor", "per channel", "blocked"])
def test_every_integer_and_float8_type_of_the_schema_is_accounted_for(kind: str, form: str) -> None:
    """y = W dequantise(quantise(x)): the certificate closes on what the runtime gives, the gradient is that of W."""
    code, zero = KINDS[kind]
    steps = {"per tensor": (), "per channel": (8,), "blocked": (2, 8)}[form]
    attributes = {"per tensor": {}, "per channel": {"axis": 1}, "blocked": {"axis": 0, "block_size": 1}}[form]
    scale = np.full(steps, 0.4, np.float32) * (1 + 0.1 * np.arange(8) if steps else np.float32(1))
    w = random(8, 3)
    initializers = [
        numpy_helper.from_array(scale.astype(np.float32), "s"),
        helper.make_tensor("z", code, steps, np.full(int(np.prod(steps)), zero)),
        numpy_helper.from_array(w, "w"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **attributes),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    # A block of one row fixes the number of rows; the other forms take any batch.
    rows: int | str = 2 if form == "blocked" else "N"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = np.clip(random(2, 8), -1, 1)
    gradient = Session(fgonnx.grad(model)).run({"x": x, "y_grad": np.ones((2, 3), np.float32)})
    np.testing.assert_allclose(gradient["x_grad"], np.broadcast_to(w.sum(axis=1), (2, 8)), rtol=1e-5)
    if form != "blocked":
        assert fgonnx.Explainer(model)(x, 1).rounding_residual().max() < 1e-6


def test_a_cast_to_float8_is_named_as_what_stands_in_the_way() -> None:
    source = """<ir_version: 9, opset_import: ["": 19]> g (float[N, 4] x) => (float[N, 4] y) {
        [narrow] q = Cast <to = 17> (x)
        y = Cast <to = 1> (q)
    }"""
    with pytest.raises(UnsupportedError, match=r"'narrow' \(Cast.*float8e4m3fn values, which carry no gradient"):
        fgonnx.rewrite(onnx.parser.parse_model(source))
