"""A function that Where keeps inside its domain has the slope of the branch that is taken, and none of the other."""

import numpy as np
import pytest

import fgonnx
from fgonnx import Explainer
from fgonnx.errors import NumericError
from tests.support import draw, model, run

WEIGHTS = draw(seed=4, a=(6, 4), g=(4, 5)) | {
    "zero": np.float32(0),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "steep": np.float32(90),
    "away": np.float32(-np.inf),
    "mask": np.array([[True, True, False, True]]),
    "before": np.tril(np.ones((4, 4), bool)),
    "first": np.array([1]),
    "last": np.array([2]),
}
GUARDED = {
    "logarithm": "l = Log(h) r = Where(c, l, zero)",
    "logarithm, in the other branch": "n = LessOrEqual(h, zero) l = Log(h) r = Where(n, zero, l)",
    "root": "l = Sqrt(h) r = Where(c, l, zero)",
    "root of what is cut off": "z = Relu(h) l = Sqrt(z) r = Where(c, l, zero)",
    "quotient": "z = Relu(h) l = Div(one, z) b = Tanh(l) r = Where(c, b, zero)",
    "reciprocal": "z = Relu(h) l = Reciprocal(z) b = Tanh(l) r = Where(c, b, zero)",
    "power": "l = Pow(h, half) r = Where(c, l, zero)",
    "area tangent": "d = Less(h, half) b = And(c, d) l = Atanh(h) r = Where(b, l, h)",
    "overflow": "s = Mul(h, steep) e = Exp(s) f = Sub(e, one) q = Where(c, h, f) r = Tanh(q)",
    "entropy": "l = Log(h) k = Mul(l, h) r = Where(c, k, zero)",
    "read twice": "l = Log(h) k = Mul(l, l) b = Tanh(k) r = Where(c, b, zero)",
    "read by two choices": "l = Log(h) p = Where(c, l, zero) d = Greater(h, half) q = Where(d, l, one) r = Add(p, q)",
    "both branches": "l = Log(h) n = Neg(h) m = Log(n) k = Neg(m) r = Where(c, l, k)",
    "nested": "d = Greater(h, half) l = Log(h) s = Sqrt(h) i = Where(d, l, s) r = Where(c, i, zero)",
    "norm of a row": "z = Relu(h) s = ReduceSum(z, first) n = Sqrt(s) d = Greater(n, zero) q = Div(z, n) "
    "r = Where(d, q, zero)",
}
MASKED = {
    "softmax": "m = Where(mask, h, away) r = Softmax(m)",
    "softmax, added": "m = Where(mask, zero, away) k = Add(h, m) r = Softmax(k)",
    "softmax, by the data": "m = Where(c, h, away) r = Softmax(m)",
    "softmax, written out": "m = Where(mask, h, away) t = ReduceMax(m, first) d = Sub(m, t) e = Exp(d) "
    "s = ReduceSum(e, first) r = Div(e, s)",
    "its logarithm": "m = Where(mask, h, away) l = LogSoftmax(m) r = Where(mask, l, zero)",
    "sigmoid": "m = Where(mask, h, away) r = Sigmoid(m)",
    "its logarithm, back again": "m = Where(mask, h, away) l = LogSoftmax(m) r = Exp(l)",
    "its entropy": "m = Where(mask, h, away) l = LogSoftmax(m) p = Exp(l) k = Mul(p, l) r = Where(mask, k, zero)",
    "log of a sum of exponentials": "m = Where(mask, h, away) l = ReduceLogSumExp(m, first) r = Mul(l, h)",
    "the same, shifted": "m = Where(mask, h, away) l = ReduceLogSumExp(m, first) d = Sub(m, l) "
    "r = Where(mask, d, zero)",
    "by logarithm of a mask": "f = Cast<to=1>(mask) o = Log(f) m = Add(h, o) r = Exp(m)",
    "scaled afterwards": "m = Where(mask, h, away) s = Mul(m, half) e = Exp(s) r = Neg(e)",
    "power": "m = Where(mask, h, away) r = Pow(steep, m)",
    "elu": "m = Where(mask, h, away) r = Elu<alpha=0.5>(m)",
    "selu": "m = Where(mask, h, away) r = Selu(m)",
    "celu": "m = Where(mask, h, away) r = Celu<alpha=0.5>(m)",
    "softplus": "m = Where(mask, h, away) r = Softplus(m)",
    "hard sigmoid": "m = Where(mask, h, away) r = HardSigmoid(m)",
    "erf": "m = Where(mask, h, away) r = Erf(m)",
    "arctangent, of both infinities": "m = Where(mask, h, away) n = Neg(m) p = Atan(m) q = Atan(n) "
    "k = Mul(q, half) r = Add(p, k)",
    "relu": "m = Where(mask, h, away) r = Relu(m)",
    "relu, leaky": "m = Where(mask, h, away) l = LeakyRelu(m) r = Exp(l)",
    "least of two": "m = Where(mask, h, away) l = Min(m, half) r = Exp(l)",
    "mish, not taken": "m = Where(mask, h, away) l = Mish(m) r = Where(mask, l, zero)",
    "swish, not taken": "m = Where(mask, h, away) s = Sigmoid(m) l = Mul(m, s) r = Where(mask, l, zero)",
    "hard swish, not taken": "m = Where(mask, h, away) l = HardSwish(m) r = Where(mask, l, zero)",
    "softsign, not taken": "m = Where(mask, h, away) l = Softsign(m) r = Where(mask, l, zero)",
    "square, not taken": "m = Where(mask, h, away) l = Mul(m, m) r = Where(mask, l, zero)",
    "attention to what was before": "u = Unsqueeze(h, first) v = Unsqueeze(h, last) s = Mul(u, v) "
    "m = Where(before, s, away) p = Softmax(m) o = MatMul(p, v) r = Squeeze(o, last)",
}
X = np.random.default_rng(7).standard_normal((3, 6)).astype(np.float32)


def network(body):
    words = set("".join(c if c.isalnum() else " " for c in body).split())
    given = {n: a for n, a in WEIGHTS.items() if n in words | {"a", "g", "zero"}}
    head = "h = MatMul(x, a) c = Greater(h, zero)"
    return model(f"(float[N,6] x) => (float[N,5] y) {{ {head} {body} y = MatMul(r, g) }}", weights=given)


@pytest.mark.parametrize("body", [*GUARDED.values(), *MASKED.values()], ids=[*GUARDED, *MASKED])
def test_slopes_are_those_of_the_branch_that_is_taken(body):
    source = network(body)
    found = Explainer(source, input_gradient=True)(X)
    np.testing.assert_array_equal(found.outputs["y"], run(source, {"x": X})["y"])
    assert found.rounding_residual().max() < 1e-5
    measured = np.zeros_like(X, dtype=float)
    for column in range(X.shape[1]):
        step = np.zeros_like(X)
        step[:, column] = 1e-3
        up, down = (run(source, {"x": X + s * step})["y"].astype(float) for s in (1, -1))
        measured[:, column] = ((up - down) / 2e-3)[np.arange(len(X)), found.target]
    np.testing.assert_allclose(found.input_gradient, measured, atol=0.01 * np.abs(measured).max())


@pytest.mark.parametrize("body", ["y = Where(legal, q, away)", "m = Where(legal, q, away) y = LogSoftmax(m)"])
def test_a_masked_output_holds_infinity_beside_a_finite_score(body):
    graph = f"(float[N,6] x) => (float[N,5] y) {{ h = MatMul(x, a) q = MatMul(h, g) {body} }}"
    given = {name: WEIGHTS[name] for name in ("a", "g", "away")}
    source = model(graph, weights=given | {"legal": np.array([[True, False, True, True, False]])})
    found = Explainer(source, head="output")(X)
    np.testing.assert_allclose(found.outputs["y"], run(source, {"x": X})["y"], rtol=1e-5)
    assert np.isneginf(found.outputs["y"][:, 1]).all()
    assert found.rounding_residual().max() < 1e-5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("m = Where(mask, h, away) r = HardSwish(m)", r"'m' \(Where\) masks with infinity.*first in 'r' \(HardSwish\)"),
        ("m = Where(mask, h, away) s = Mul(m, m) k = Neg(s) r = Exp(k)", r"'m' \(Where\) masks.*such as -10000"),
    ],
)
def test_what_has_no_slope_at_infinity_is_refused_with_the_mask_and_a_way_out(body, said):
    with pytest.raises(NumericError, match=said):
        Explainer(network(body))(X)


def test_terms_that_overflow_while_map_and_score_are_finite_are_refused_by_name():
    huge = np.full((1, 4), 1.2e38, np.float32)
    graph = "(float[N,4] x) => (float[N,1] y) { s = Add(x, b) y = MatMul(s, w) }"
    source = model(graph, weights={"b": huge, "w": np.ones((4, 1), np.float32)})
    with pytest.raises(
        NumericError, match=r"'contributions', in the input term of the input, .* overflows. Scale the input"
    ):
        Explainer(source)(-huge)


def test_a_written_file_is_finite_too():
    found = run(fgonnx.rewrite(network(GUARDED["root"]), form="portable", target="argmax"), {"x": X})
    assert np.isfinite(found["saliency"]).all()
    assert np.abs(found["completeness"]).max() < 1e-5


def test_what_a_model_chooses_itself_is_left_alone():
    own = network("b = Where(c, h, one) l = Log(b) r = Where(c, l, zero)")
    names = [node.name for node in fgonnx.rewrite(own).graph.node]
    assert not [name for name in names if name.startswith("chosen/")]
