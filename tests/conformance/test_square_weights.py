"""Products with square weights in OpenVINO, which keeps one repacked copy for a matrix and its transpose."""

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.rewrite.portable import portable_violations
from tests import skips
from tests.support import model, run

N = 16
T = "Transpose<perm=[1,0]>"
_RNG = np.random.default_rng(0)
W, OTHER = (_RNG.standard_normal((N, N)).astype(np.float32) / 4 for _ in range(2))
PER_HEAD = _RNG.standard_normal((3, N, N)).astype(np.float32) / 4
BYTES = _RNG.integers(-90, 90, (N, N)).astype(np.int8)
V = _RNG.standard_normal((N, 5)).astype(np.float32)
X = _RNG.standard_normal((2, 3, N)).astype(np.float32)
STEP = {"z": np.float32(0.01)}
SHAPE, FRONT = np.array([N, N]), np.array([1])
ROWS = {"w": W, "flat": np.array([-1, N]), "back": np.array([-1, 3, N])}
QKV = np.concatenate([W, OTHER, W[::-1]], axis=1)

#: How weights reach their product `h`; and the weights.
NETWORKS = {
    "as they are": ("h = MatMul(x, w)", {"w": W}),
    "transposed": (f"t = {T}(w)\nh = MatMul(x, t)", {"w": W}),
    "transposed twice": (f"t = {T}(w)\nu = {T}(t)\nh = MatMul(x, u)", {"w": W}),
    "an identity, then transposed": (f"i = Identity(w)\nt = {T}(i)\nh = MatMul(x, t)", {"w": W}),
    "transposed, then an identity": (f"t = {T}(w)\ni = Identity(t)\nh = MatMul(x, i)", {"w": W}),
    "cast, then transposed": (f"i = Cast<to=1>(w)\nt = {T}(i)\nh = MatMul(x, t)", {"w": W.astype(np.float16)}),
    "transposed, then cast": (f"t = {T}(w)\ni = Cast<to=1>(t)\nh = MatMul(x, i)", {"w": W.astype(np.float16)}),
    "reshaped, then transposed": (f"i = Reshape(w, s)\nt = {T}(i)\nh = MatMul(x, t)", {"w": W.ravel(), "s": SHAPE}),
    "transposed, with an axis in front": (
        f"t = {T}(w)\ni = Unsqueeze(t, s)\nh = MatMul(x, i)",
        {"w": W, "s": np.array([0])},
    ),
    "dequantised, then transposed": (
        f"i = DequantizeLinear(w, z)\nt = {T}(i)\nh = MatMul(x, t)",
        {"w": BYTES, **STEP},
    ),
    "transposed, then dequantised": (
        f"t = {T}(w)\ni = DequantizeLinear(t, z)\nh = MatMul(x, i)",
        {"w": BYTES, **STEP},
    ),
    "scaled, then transposed": (f"i = Mul(w, s)\nt = {T}(i)\nh = MatMul(x, t)", {"w": W, "s": np.float32(0.5)}),
    "a slice": (
        f"i = Slice(w, a, e)\nt = {T}(i)\nh = MatMul(x, t)",
        {"w": QKV, "a": np.array([0, 0]), "e": SHAPE},
    ),
    "three parts of one matrix": (
        f"i, j, k = Split<axis=1, num_outputs=3>(w)\nt = {T}(i)\na = MatMul(x, t)\nu = {T}(j)\nb = MatMul(a, u)\n"
        f"c = Tanh(b)\nv2 = {T}(k)\nh = MatMul(c, v2)",
        {"w": QKV},
    ),
    "Gemm": ("a = Reshape(x, flat)\nb = Gemm(a, w)\nh = Reshape(b, back)", ROWS),
    "Gemm, transB": ("a = Reshape(x, flat)\nb = Gemm<transB=1>(a, w)\nh = Reshape(b, back)", ROWS),
    "Gemm, transposed": (f"a = Reshape(x, flat)\nt = {T}(w)\nb = Gemm(a, t)\nh = Reshape(b, back)", ROWS),
    "Gemm, transB and transposed": (
        f"a = Reshape(x, flat)\nt = {T}(w)\nb = Gemm<transB=1>(a, t)\nh = Reshape(b, back)",
        ROWS,
    ),
    "Einsum": ('h = Einsum<equation="bij,jk->bik">(x, w)', {"w": W}),
    "Einsum by the transpose": ('h = Einsum<equation="bij,kj->bik">(x, w)', {"w": W}),
    "Einsum, transposed": (f't = {T}(w)\nh = Einsum<equation="bij,kj->bik">(x, t)', {"w": W}),
    "a matrix for each head": (
        "a = Unsqueeze(x, q)\nc = MatMul(a, w)\nh = ReduceSum<keepdims=0>(c, q)",
        {"w": PER_HEAD, "q": FRONT},
    ),
    "a matrix for each head, transposed": (
        "a = Unsqueeze(x, q)\nt = Transpose<perm=[0,2,1]>(w)\nc = MatMul(a, t)\nh = ReduceSum<keepdims=0>(c, q)",
        {"w": PER_HEAD, "q": FRONT},
    ),
    "left": (
        f"m = Transpose<perm=[0,2,1]>(x)\nt = {T}(w)\nc = MatMul(t, m)\nh = Transpose<perm=[0,2,1]>(c)",
        {"w": W},
    ),
    "tied: the matrix, then its transpose": (
        f"a = MatMul(x, w)\nb = Tanh(a)\nt = {T}(w)\nh = MatMul(b, t)",
        {"w": W},
    ),
    "tied: the transpose twice": (f"t = {T}(w)\na = MatMul(x, t)\nb = Tanh(a)\nh = MatMul(b, t)", {"w": W}),
    "two layers and a skip connection": (
        f"t = {T}(w)\na = MatMul(x, t)\nb = Tanh(a)\nu = {T}(w2)\nc = MatMul(b, u)\nh = Add(c, x)",
        {"w": W, "w2": OTHER},
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_form = pytest.mark.parametrize("form", ["portable", "openvino"])


def network(name):
    body, weights = NETWORKS[name]
    rest = "r = Tanh(h)\np = ReduceMean<keepdims=0>(r, axis)\ny = MatMul(p, v)"
    return model(
        f"(float[N,3,{N}] x) => (float[N,5] y) {{ {body}\n{rest} }}", weights={**weights, "v": V, "axis": FRONT}
    )


def in_openvino(proto):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", settings)([X])
    return {v.name: found[i] for i, v in enumerate(proto.graph.output)}


@every_form
@every_network
def test_the_explanation_in_openvino_is_that_of_onnxruntime(name, form):
    skips.without("openvino")
    proto = fgonnx.rewrite(network(name), form=form, target="argmax")
    expected, found = run(proto, {"x": X}), in_openvino(proto)
    scale = max(1.0, *(float(np.abs(expected[n]).max()) for n in ("saliency", "contributions", "score")))
    for output, array in expected.items():
        np.testing.assert_allclose(found[output].reshape(array.shape), array, rtol=0, atol=5e-6 * scale, err_msg=output)


@every_form
@every_network
def test_the_check_finds_nothing(name, form):
    assert portable_violations(fgonnx.rewrite(network(name), form=form)) == []


@every_network
def test_the_check_finds_what_the_fast_form_shares(name):
    found = portable_violations(fgonnx.rewrite(network(name)))
    assert any("shares weights with another product" in v for v in found)


@every_network
def test_weights_are_there_twice_at_most(name):
    def size(proto):
        return sum(onnx.numpy_helper.to_array(t).nbytes for t in proto.graph.initializer)

    fast, portable = (fgonnx.rewrite(network(name), form=form) for form in ("fast", "portable"))
    of_products = sum(w.nbytes for key, w in NETWORKS[name][1].items() if key.startswith("w"))
    assert size(portable) <= size(fast) + of_products + 64
