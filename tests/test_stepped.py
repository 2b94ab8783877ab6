"""Time, channels and the grid of the map where an exporter writes a recurrence as a Loop or Scan."""

import numpy as np
import pytest

import fgonnx
from fgonnx import Explainer
from tests.support import draw, model, pictures

WEIGHTS = draw(0, A=(8, 4), B=(4, 4))
NUMBERS = {"T": np.array(20), "zero": np.array(0), "one": np.array(1), "t": np.array(True), "none": np.array([[0.0]])}
NUMBERS |= {"last": np.array(19), "v0": np.array([0]), "v1": np.array([1]), "v8": np.array([8]), "eps": np.array(0.1)}
NUMBERS |= {"axes": np.array([0, 1, 2]), "far": np.array([2**31 - 1]), "back": np.array([20])}
NUMBERS = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in NUMBERS.items()}

TANH = "u = MatMul(r, {A}) w = MatMul(h, {B}) q = Add(u, w) h2 = Tanh(q)"
OWN, PASSED = TANH.format(A="A", B="B"), TANH.format(A="a", B="b") + " a2 = Identity(a) b2 = Identity(b)"
H0 = "n0 = Shape<start=0, end=1>(x) hs = Concat<axis=0>(n0, v4) h0 = Expand(none, hs)"
NUMBERS["v4"] = np.array([4])


def state(rows, weights=True):
    """The loop of a recurrent layer, its weights passed on from step to step as TensorFlow does, or not."""
    if weights:
        return (
            "y, p, o = Loop(T, t, h0, A, B) <body = b (int64 i, bool c, float[N,4] h, float[8,4] a, float[4,4] b) => "
            "(bool c2, float[N,4] h2, float[8,4] a2, float[4,4] b2) { c2 = Identity(c) " + rows + " " + PASSED + " }>"
        )
    return (
        "y = Loop(T, t, h0) <body = b (int64 i, bool c, float[N,4] h) => (bool c2, float[N,4] h2) "
        "{ c2 = Identity(c) " + rows + " " + OWN + " }>"
    )


TURN = "xt = Transpose<perm=[1,0,2]>(x)"
STEP = "r = Gather<axis=0>(xt, i)"
MOMENTS = (
    "m = GlobalAveragePool(x) d = Sub(x, m) dd = Mul(d, d) v = GlobalAveragePool(dd) e = Add(v, eps) s = Sqrt(e) "
    "n = Div(d, s) xt = Transpose<perm=[1,0,2]>(n)"
)
SLICED = (
    "i1 = Unsqueeze(i, v0) j = Add(i1, v1) from = Concat<axis=0>(v0, i1, v0) to = Concat<axis=0>(far, j, far) "
    "rs = Slice(x, from, to, axes) r = Squeeze(rs, v1)"
)
COUNTED = (
    "z, y = Loop(T, t, last, h0) <body = b (int64 i, bool c, int64 k, float[N,4] h) => "
    "(bool c2, int64 k2, float[N,4] h2) { c2 = Identity(c) k2 = Sub(k, one) r = Gather<axis=1>(x, k) " + OWN + " }>"
)
SCAN = (
    "y = Scan<num_scan_inputs=1, scan_input_axes=[1], body = b (float[N,4] h, float[N,8] r) => (float[N,4] h2) "
    "{ " + OWN + " }>(h0, x)"
)
REVERSED = "n1 = Shape<start=0, end=1>(x) ls = Expand(back, n1) xr = ReverseSequence<batch_axis=1, time_axis=0>(xt, ls)"
LOOPS = {
    "weights passed on": f"{TURN} {H0} {state(STEP)}",
    "weights used as they are": f"{TURN} {H0} {state(STEP, False)}",
    "not turned": f"{H0} {state('r = Gather<axis=1>(x, i)')}",
    "normalised by pools": f"{MOMENTS} {H0} {state(STEP)}",
    "a slice": f"{H0} {state(SLICED)}",
    "a counter that goes backwards": f"{H0} {COUNTED}",
    "a Scan": f"{H0} {SCAN}",
    "reversed": f"{TURN} {REVERSED} {H0} {state('r = Gather<axis=0>(xr, i)')}",
}


def recurrent(body, inputs="N,20,8"):
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    weights = {k: v for k, v in (WEIGHTS | NUMBERS).items() if k in words}
    return model(f"(float[{inputs}] x) => (float[N,4] y) {{ {body} }}", weights=weights)


@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS)
def test_the_axis_of_the_steps_is_time(body):
    source = recurrent(body)
    explanation = fgonnx.inspect(source)["explanation"]
    assert explanation["layout"] == "NWC"
    assert not any("guess" in note for note in explanation["notes"])
    found = Explainer(source)(pictures(2, (20, 8)))
    assert found.saliency.shape == (2, 20)
    assert found.rounding_residual().max() < 1e-5


@pytest.mark.parametrize("body", [LOOPS["weights passed on"], LOOPS["normalised by pools"]])
def test_another_layout_may_be_given(body):
    assert Explainer(recurrent(body), layout="NCW")(pictures(2, (20, 8))).saliency.shape == (2, 8)


TURNED = {
    "time before the batch": ("N,20,8", "[1,0,2]", "NWC"),
    "heads before rows": ("N,6,5,3", "[0,2,1,3]", "NHWC"),
    "reversed axes": ("N,6,5,3", "[0,3,2,1]", "NHWC"),
    "rows and columns": ("N,3,5,6", "[0,1,3,2]", "NCHW"),
}
TOLD = {"channels to the front": ("N,6,5,3", "[0,3,1,2]", "NHWC"), "to the end": ("N,6,5,3", "[0,2,3,1]", "NCHW")}


def turned(inputs, perm):
    body = f"a = Transpose<perm={perm}>(x) e = Exp(a) s = ReduceSum<keepdims=0>(e) z = Sub(s, s) f = Flatten(x) "
    body += "g = Add(f, z) y = MatMul(g, fc)"
    size = int(np.prod([int(d) for d in inputs.split(",")[1:]]))
    return model(f"(float[{inputs}] x) => (float[N,5] y) {{ {body} }}", weights=draw(0, fc=(size, 5)))


@pytest.mark.parametrize(("inputs", "perm", "layout"), TURNED.values(), ids=TURNED)
def test_a_transpose_that_tells_nothing_of_channels_leaves_a_guess(inputs, perm, layout):
    explanation = fgonnx.inspect(turned(inputs, perm))["explanation"]
    assert explanation["layout"] == layout
    assert any("guess" in note for note in explanation["notes"])


@pytest.mark.parametrize(("inputs", "perm", "layout"), TOLD.values(), ids=TOLD)
def test_a_transpose_that_moves_the_last_axis_or_the_first_tells_the_channels(inputs, perm, layout):
    explanation = fgonnx.inspect(turned(inputs, perm))["explanation"]
    assert explanation["layout"] == layout
    assert not any("guess" in note for note in explanation["notes"])
