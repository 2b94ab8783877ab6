"""A rewritten file is about as large as its source: what follows from sizes alone is made when a session loads."""

import numpy as np
import pytest
from onnx import helper

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.maps.net import gaussian
from tests.support import draw, model, pictures, run

LENGTH, WIDTH, STEP = 4000, 256, 100
FRAMES = (np.arange(38)[:, None] * STEP + np.arange(WIDTH)).astype(np.int64)
NUMBERS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "three": np.array([3]),
    "end": np.array([LENGTH]),
    "step": np.array(STEP),
    "edges": np.array([0, 130, 0, 120]),
    "around": np.array([0, 0, 5, 3, 0, 0, 4, 6]),
    "frames": FRAMES,
    "nd": FRAMES[:, :, None],
    "hann": np.hanning(WIDTH).astype(np.float32),
    "half": np.array([1, 1, 0.5], np.float32),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "rows": np.array([2, 3]),
    "starts": np.array([1, 0]),
    "stops": np.array([320, 320]),
    "strides": np.array([2, 3]),
}
POWER = "h = ReduceSumSquare<keepdims=0>(s, three) g = ReduceMean<keepdims=0>(h, one) y = MatMul(g, v)"
CONV = (
    "u = Unsqueeze(q, one) h = Conv<strides=[40]>(u, k) r = Relu(h) g = ReduceMean<keepdims=0>(r, two) y = MatMul(g, v)"
)
BODIES = {
    "stft": ("s = STFT(x, step, hann) " + POWER, {"v": (129, 5)}),
    "stft of both sides": ("s = STFT<onesided=0>(x, step, hann) " + POWER, {"v": (256, 5)}),
    "reflected, stft": ('q = Pad<mode="reflect">(x, edges) s = STFT(q, step, hann) ' + POWER, {"v": (129, 5)}),
    "frames, dft": (
        "f = Gather<axis=1>(x, frames) m = Mul(f, hann) u = Unsqueeze(m, three) s = DFT<axis=2, onesided=1>(u) "
        + POWER,
        {"v": (129, 5)},
    ),
    "frames": (
        "f = Gather<axis=1>(x, frames) m = Mul(f, hann) h = MatMul(m, k) r = Relu(h) "
        "g = ReduceMean<keepdims=0>(r, one) y = MatMul(g, v)",
        {"k": (256, 8), "v": (8, 5)},
    ),
    "frames by GatherND": (
        "t = Transpose<perm=[1,0]>(x) f = GatherND(t, nd) m = Transpose<perm=[2,0,1]>(f) h = MatMul(m, k) r = Relu(h) "
        "g = ReduceMean<keepdims=0>(r, one) y = MatMul(g, v)",
        {"k": (256, 8), "v": (8, 5)},
    ),
    "reflected": ('q = Pad<mode="reflect">(x, edges) ' + CONV, {"k": (8, 1, 200), "v": (8, 5)}),
    "repeated edges": ('q = Pad<mode="edge">(x, edges) ' + CONV, {"k": (8, 1, 200), "v": (8, 5)}),
    "wrapped": ('q = Pad<mode="wrap">(x, edges) ' + CONV, {"k": (8, 1, 200), "v": (8, 5)}),
    "every other": ("q = Slice(x, zero, end, one, two) " + CONV, {"k": (8, 1, 100), "v": (8, 5)}),
    "every third, from one": ("q = Slice(x, one, end, one, three) " + CONV, {"k": (8, 1, 100), "v": (8, 5)}),
    "shrunk": (
        'u0 = Unsqueeze(x, one) s = Resize<mode="linear">(u0, , half) q = Squeeze(s, one) ' + CONV,
        {"k": (8, 1, 100), "v": (8, 5)},
    ),
}
SQUARE = "h = Conv<strides=[9,7]>({0}, k) r = Relu(h) g = ReduceMean<keepdims=0>(r, rows) y = MatMul(g, v)"
PICTURES = {
    "enlarged": 'z = Resize<mode="linear">(x, , twice) ' + SQUARE.format("z"),
    "reflected": 'z = Pad<mode="reflect">(x, around) ' + SQUARE.format("z"),
    "every other": "z = Slice(x, starts, stops, rows, strides) " + SQUARE.format("z"),
    "strided": "c = Conv<strides=[2,3], pads=[1,1,1,1]>(x, n) z = Relu(c) " + SQUARE.format("z"),
}


def net(signature, body, weights):
    proto = model(f"({signature}) => (float[N,5] y) {{ {body} }}", weights=NUMBERS | weights)
    used = {name for node in proto.graph.node for name in node.input}
    kept = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


CASES = {
    name: (net(f"float[N,{LENGTH}] x", body, draw(**weights)), pictures(2, (LENGTH,)))
    for name, (body, weights) in BODIES.items()
} | {
    f"picture, {name}": (
        net("float[N,2,320,300] x", body, draw(n=(2, 2, 3, 3), k=(8, 2, 3, 3), v=(8, 5))),
        pictures(1, (2, 320, 300)),
    )
    for name, body in PICTURES.items()
}


@pytest.mark.parametrize("name", CASES)
class TestFiles:
    def test_grow_by_nodes_only(self, name):
        proto, _ = CASES[name]
        for psi in ("abs", "signed"):
            written = fgonnx.rewrite(proto, psi=psi)
            assert written.ByteSize() < 3 * proto.ByteSize() + 60_000

    def test_are_right(self, name):
        proto, x = CASES[name]
        found = Explainer(proto, input_gradient=True)(x)
        np.testing.assert_allclose(found.outputs["y"], run(proto, {"x": x})["y"], rtol=1e-4, atol=1e-5)
        assert found.rounding_residual().max() < 2e-6  # measured: 1.2e-6 at most
        slope, rows = found.input_gradient.astype(float), np.arange(len(x))
        way = slope / np.abs(slope).max()
        up, down = (run(proto, {"x": (x + s * way).astype(np.float32)})["y"] for s in (1e-3, -1e-3))
        measured = (up[rows, found.target].astype(float) - down[rows, found.target]) / 2e-3
        np.testing.assert_allclose(measured, (slope * way).reshape(len(x), -1).sum(1), rtol=0.02)


def test_matrices_that_are_made_are_those_that_were_written(monkeypatch):
    proto, x = CASES["picture, every other"]
    made = Explainer(proto)(x).saliency
    monkeypatch.setattr("fgonnx.engine.rules.fast.masks._LITERAL_BYTES", 1 << 40)
    np.testing.assert_array_equal(Explainer(proto)(x).saliency, made)
    assert helper.make_model(fgonnx.rewrite(proto).graph).ByteSize() > 3 * proto.ByteSize() + 60_000


@pytest.mark.parametrize("length", [600, 4001])
def test_signed_maps_of_recordings_keep_their_sum(length):
    body = (
        "u = Unsqueeze(x, one) a = Conv<strides=[2], pads=[4,4]>(u, k, b) r = Relu(a) "
        "g = ReduceMean<keepdims=0>(r, two) y = MatMul(g, v)"
    )
    proto = net(f"float[N,{length}] x", body, draw(k=(8, 1, 9), b=(8,), v=(8, 5)))
    found = Explainer(proto, psi="signed")(pictures(2, (length,)))
    written = fgonnx.rewrite(proto, psi="signed").ByteSize()
    assert written < 3 * proto.ByteSize() + 60_000 or length == 600
    np.testing.assert_allclose(found.saliency.sum(1), found.score, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [500, 600, 4000])
def test_long_axes_are_blurred_as_short_ones(length):
    body = """u = Unsqueeze(x, one) a = Conv<pads=[4,4]>(u, k, b) r = Relu(a)
        g = ReduceMean<keepdims=0>(r, two) y = MatMul(g, v)"""
    proto = net(f"float[N,{length}] x", body, draw(k=(8, 1, 9), b=(8,), v=(8, 5)))
    x = pictures(2, (length,))
    plain, blurred = (
        Explainer(proto, method="net-fullgrad", psi="signed", blur=blur, scale="mass")(x) for blur in (0.0, 0.02)
    )
    matrix = gaussian(length, 0.02 * length)
    np.testing.assert_allclose(blurred.saliency, plain.saliency @ matrix.T, atol=1e-5 * np.abs(plain.saliency).max())
    assert (
        fgonnx.rewrite(proto, method="net-fullgrad", blur=0.02).ByteSize() < 3 * proto.ByteSize() + 60_000
        or length < 512
    )
