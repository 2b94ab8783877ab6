"""What random graphs found (`benchmarks/fuzz/`), each as the smallest graph that shows it."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from fgonnx.errors import ModelError, UnsupportedError
from tests.support import model, run


def explained(proto, x, **options):
    """Explain, with outputs that are the model's and a certificate that closes."""
    found = fgonnx.Explainer(proto, head="output", input_gradient=True, cache=False, threads=1, **options)(x)
    for name, right in run(proto, {"x": x}, optimise=False).items():
        np.testing.assert_allclose(found.outputs[name], right, rtol=1e-3, atol=1e-3)
    scale = np.abs(found.contributions).sum(axis=1) + np.abs(found.score)
    assert (np.abs(found.completeness) <= 2e-3 * scale).all()
    return found


def draw(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("opset", [13, 14, 17])
def test_the_optimisers_normalisation_in_an_older_file(opset):
    graph = """(float[N,2,4] x) => (float[N,2,4] y) <float[4] g = {1, 2, 0.5, 1}> {
        h = Relu(x) y = SimplifiedLayerNormalization<axis=-1, epsilon=0.1>(h, g)
    }"""
    explained(model(graph, opset), draw(2, 2, 4))


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_a_double_graph_that_ends_in_another_type(kind):
    to = {"float": 1, "float16": 10}[kind]
    graph = f"(double[N,4] x) => ({kind}[N,4] y) {{ a = Sin(x) b = Mul(a, x) y = Cast<to={to}>(b) }}"
    found = explained(model(graph), draw(2, 4, dtype=np.float64))
    x = draw(2, 4, dtype=np.float64)
    slopes = np.zeros((2, 4))
    chosen = (np.arange(2), found.target)
    slopes[chosen] = (np.cos(x) * x + np.sin(x))[chosen]
    np.testing.assert_allclose(found.input_gradient, slopes, atol=2e-3)


def test_a_double_graph_whose_maps_are_enlarged():
    graph = """(double[N,2,6,6] x) => (double[N,2] y) <int64[2] axes = {2, 3}> {
        a = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) b = Sigmoid(a) y = ReduceSum<keepdims=0>(b, axes)
    }"""
    assert explained(model(graph), draw(2, 2, 6, 6, dtype=np.float64)).saliency.shape == (2, 6, 6)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantised_values_moved_in_newer_operator_sets(kind):
    graph = f"""(float[N,4] x) => (float[N,4] y) <float s = {{0.05}}, {kind} z = {{14}}, int64[1] one = {{1}}> {{
        q = QuantizeLinear(x, s, z) u = Unsqueeze(q, one) v = Squeeze(u, one) y = DequantizeLinear(v, s, z)
    }}"""
    found = explained(model(graph, 22, 10), 0.3 * draw(2, 4))
    assert found.input_gradient.max() == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_causal_mask_is_finite_in_half_precision(dtype):
    kind = {np.float16: "float16", np.float32: "float"}[dtype]
    graph = f"""({kind}[N,3,4] x) => ({kind}[N,3,4] y) {{
        y = com.microsoft.Attention<num_heads=2, unidirectional=1>(x, w, b)
    }}"""
    proto = model(graph, weights={"w": draw(4, 12, dtype=dtype), "b": draw(12, dtype=dtype)})
    proto.opset_import.add(domain="com.microsoft", version=1)
    explained(proto, draw(2, 3, 4, dtype=dtype))


def test_an_output_without_a_slope_is_called_by_its_name():
    graph = "(float16[N,4] x) => (float16[N,4] y) { h = Hardmax(x) y = Mul(h, h) }"
    with pytest.raises(ModelError, match="the gradient of 'y' with respect to its input is zero everywhere"):
        explained(model(graph), draw(2, 4, dtype=np.float16))


def test_what_comes_of_an_expansion_is_called_after_the_node_of_the_model():
    graph = """(float[1,4] x) => (float[k] y) <float three = {3}, float one = {1}> {
        m = ReduceMean<keepdims=0>(x) top = Add(m, three) [ramp] y = Range(m, top, one)
    }"""
    with pytest.raises(UnsupportedError, match=r"node 'ramp' \(Range"):
        explained(model(graph), draw(1, 4))


def test_entries_kept_by_a_constant_mask_are_no_findings():
    graph = """(float[N,4] x) => (float[N,3] y) <bool[4] keep = {1, 0, 1, 1}> {
        c = Compress<axis=1>(x, keep) y = Relu(c)
    }"""
    explained(model(graph), draw(2, 4))


def test_places_computed_from_a_grid_are_no_quantised_values():
    graph = """(float[1,1,4,4] x) => (float[1,1,2,2] y) <float[1,2,2,2] g = {0.1, 0.2, -0.5, 0.3, 0.4, 0.1, 0, 1}> {
        t = Tanh(x) m = ReduceMean(t) h = Mul(g, m) y = GridSample<mode="bilinear">(x, h)
    }"""
    explained(model(graph, 16), draw(1, 1, 4, 4))


@pytest.mark.parametrize("last", ["y = Softmax(v)", "r = Reshape(v, flat) y = Softmax(r)", "y = Sigmoid(v)"])
def test_the_score_before_a_softmax_is_what_saturation_leaves(last):
    graph = f"""(float[N,4] x) => (float[N,4] y) <float s = {{0.02}}, int8 z = {{20}}, int64[2] flat = {{-1, 4}}> {{
        q = QuantizeLinear(x, s, z)
        w = com.microsoft.QLinearAdd(q, s, z, q, s, z, s, z)
        v = DequantizeLinear(w, s, z)
        {last}
    }}"""
    found = fgonnx.Explainer(model(graph), input_gradient=True, cache=False, threads=1)(
        np.array([[0.1, 9, 0.3, 0.2]], np.float32), 1
    )
    assert found.score == pytest.approx(0.02 * (127 - 20), rel=1e-6)
    assert not found.input_gradient.any()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_an_integer_output_is_explained_in_real_numbers(kind):
    graph = f"""(float[N,4] x) => ({kind}[N,4] y) <float s = {{0.02}}, {kind} z = {{20}}> {{
        r = Relu(x) y = QuantizeLinear(r, s, z)
    }}"""
    found = fgonnx.Explainer(model(graph), cache=False, threads=1)(np.array([[0.1, 0.9, 0.3, 0.2]], np.float32))
    assert (found.head, float(found.score[0])) == ("y", pytest.approx(0.9))


def test_a_saturated_score_keeps_the_gradient_of_the_tensor_in_front():
    graph = """(float[N,4] x) => (float[N,4] y) <float s = {0.02}, int8 z = {20}, float two = {2}> {
        logits = Mul(x, two)
        q = QuantizeLinear(logits, s, z)
        v = DequantizeLinear(q, s, z)
        y = Softmax(v)
    }"""
    x = np.array([[0.1, 9, 0.3, 0.2]], np.float32)
    found = fgonnx.Explainer(model(graph, 13), input_gradient=True, cache=False, threads=1)(x, 1)
    assert (found.head, found.input_gradient.tolist()) == ("logits", [[0, 2, 0, 0]])


def test_axes_that_follow_from_constants_leave_the_batch_free():
    graph = """(float[N,3,4] x) => (float[N,3] m) <int32[1] narrow = {2}> {
        axes = Cast<to=7>(narrow)
        h = Relu(x)
        m = ReduceMax<keepdims=0>(h, axes)
    }"""
    written = fgonnx.rewrite(model(graph))
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param
