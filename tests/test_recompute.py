"""Values computed anew on the way back: nothing of a GELU that is written out but its argument has to be kept."""

import numpy as np
import onnx
import pytest

import fgonnx
from tests.support import draw, model, pictures, run

WEIGHTS = draw(w=(48, 12), v=(12, 3))
X = pictures(4, (48,))
# how exporters scale the argument, and in which order they put the operands
FORMS = {
    "torch": "d = Div(h, root)  e = Erf(d)  s = Add(e, one)  p = Mul(h, s)  y = Mul(p, half)",
    "onnxruntime": "d = Div(h, root)  e = Erf(d)  s = Add(e, one)  p = Mul(h, s)  y = Mul(half, p)",
    "TensorFlow": "d = Mul(inverse, h)  e = Erf(d)  s = Add(one, e)  p = Mul(half, s)  y = Mul(h, p)",
    "half before": "a = Mul(h, half)  d = Mul(h, inverse)  e = Erf(d)  s = Add(e, one)  y = Mul(a, s)",
}
NUMBERS = "float root = {1.4142135}, float inverse = {0.70710677}, float one = {1.0}, float half = {0.5}"


def network(form, numbers=NUMBERS):
    return model(
        f"(float[N,48] x) => (float[N,3] z) <{numbers}> {{ h = MatMul(x, w)  {FORMS[form]}  z = MatMul(y, v) }}",
        weights=WEIGHTS,
    )


def gelu(opset=20):
    """The same network with the operator in place of what it is made of."""
    source = "(float[N,48] x) => (float[N,3] z) { h = MatMul(x, w)  y = Gelu(h)  z = MatMul(y, v) }"
    return model(source, opset, ir_version=9, weights=WEIGHTS)


def read_on_the_way_back(proto):
    """Values of the source that nodes written by fgonnx read."""
    inner = {name for node in proto.graph.node if not node.name.startswith("fg/") for name in node.output}
    return {name for node in proto.graph.node if node.name.startswith("fg/") for name in node.input} & inner


def optimised(proto, path):
    """What onnxruntime makes of a model before it runs it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("form", FORMS)
class TestGelu:
    def test_keeps_its_argument_alone(self, form):
        found = read_on_the_way_back(fgonnx.rewrite(network(form), outputs=("saliency", "input_gradient")))
        assert found == {"h", "z"}  # z is the head

    def test_has_the_gradient_of_the_operator(self, form):
        found, wanted = (fgonnx.Explainer(m, input_gradient=True)(X, 1).input_gradient for m in (network(form), gelu()))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    def test_is_complete(self, form):
        assert fgonnx.Explainer(network(form))(X, 1).rounding_residual().max() < 1e-5

    def test_is_not_merged_with_what_it_copies(self, form, tmp_path):
        ops = optimised(fgonnx.rewrite(network(form), outputs=("saliency",)), tmp_path / "optimised.onnx")
        assert ops.count("Erf") + ops.count("Gelu") == 2


def test_copies_give_the_same_bits():
    copied, plain = (
        run(fgonnx.rewrite(network("torch"), outputs=("saliency", "input_gradient"), form=f), {"x": X}, optimise=False)
        for f in ("fast", "portable")
    )
    np.testing.assert_array_equal(copied["input_gradient"], plain["input_gradient"])


def test_the_portable_form_has_no_copies():
    proto = fgonnx.rewrite(network("torch"), form="portable")
    assert [n.op_type for n in proto.graph.node].count("Erf") == 1


def test_numbers_with_axes_of_their_own():
    numbers = "float[1,1] root = {1.4142135}, float[1] inverse = {0.7}, float[1,1] one = {1.0}, float[1] half = {0.5}"
    assert not {"d", "e", "s"} & read_on_the_way_back(fgonnx.rewrite(network("torch", numbers), outputs=("saliency",)))


def test_an_argument_that_nothing_scales_is_kept():
    source = model("(float[N,48] x) => (float[N,12] y) { h = MatMul(x, w)  y = Erf(h) }", weights=WEIGHTS)
    assert "h" in read_on_the_way_back(fgonnx.rewrite(source, outputs=("saliency",)))
