"""Several writes to one place: the one that lasts is explained, the others have no part in the result."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from tests.support import draw, model, run

REPEATED = """<int64[1,6] i = {1, 1, 2, 3, 3, 5}, int64[6,1] rows = {5, 3, 1, 1, 2, 4}, int64[2] start = {0, 0},
    int64[1] zero = {0}, int64[1] three = {3}, int64[1] one = {1}, int64 cell = {12}, float half = {0.5},
    float nil = {0}>"""
POOLED = "float[N,1,7,7] x"

# name: input, nodes up to h, size of h
WRITTEN = {
    "constant places along an axis": (
        "float[N,6] x",
        "z = Mul(x, half) s = Shape(x) e = Expand(i, s) h = ScatterElements<axis=1>(z, e, x)",
        6,
    ),
    "computed places along an axis": (
        "float[N,6] x",
        "z = Mul(x, half) g = Greater(x, nil) c = Cast<to=7>(g) h = ScatterElements<axis=1>(z, c, x)",
        6,
    ),
    "the largest element, twice, and the smallest": (
        "float[N,6] x",
        """a = ArgMax<axis=1>(x) b = ArgMin<axis=1>(x) p = Concat<axis=1>(a, a, b) v = Slice(x, zero, three, one)
        q = Mul(v, v) h = ScatterElements<axis=1>(x, p, q)""",
        6,
    ),
    "constant rows": (
        "float[N,6] x",
        "t = Transpose(x) z = Mul(t, half) v = ScatterND(z, rows, t) h = Transpose(v)",
        6,
    ),
    "computed rows": (
        "float[1,6] x",
        """t = Transpose(x) z = Mul(t, half) m = ReduceSum<keepdims=0>(t, one) g = Greater(m, nil) c = Cast<to=7>(g)
        p = Unsqueeze(c, one) v = ScatterND(z, p, t) h = Transpose(v)""",
        6,
    ),
    "overlapping windows": (
        POOLED,
        """p, places = MaxPool<kernel_shape=[3,3], strides=[2,2]>(x) q = Mul(p, p)
        u = MaxUnpool<kernel_shape=[3,3], strides=[2,2]>(q, places) h = Flatten(u)""",
        49,
    ),
    "windows apart": (
        "float[N,1,6,6] x",
        """p, places = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) q = Mul(p, p)
        u = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(q, places) h = Flatten(u)""",
        36,
    ),
    "places of windows apart, merged": (
        "float[1,1,6,6] x",
        """p, places = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) d = Div(places, cell) m = Mul(d, cell)
        u = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, m) h = Flatten(u)""",
        36,
    ),
}


@pytest.mark.parametrize("form", ["fast", "portable", "openvino"])
@pytest.mark.parametrize("name", WRITTEN)
def test_the_gradient_is_the_slope(name: str, form: str) -> None:
    given, nodes, size = WRITTEN[name]
    graph = f"({given}) => (float[N,3] y) {REPEATED} {{ {nodes} k = Tanh(h) y = MatMul(k, w) }}"
    proto = model(graph, weights=draw(w=(size, 3)))
    shape = {"float[N,6] x": (3, 6), "float[1,6] x": (1, 6), POOLED: (2, 1, 7, 7)}.get(given, (1, 1, 6, 6))
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    found = fgonnx.Explainer(proto, input_gradient=True, form=form, threads=1)(x, 1)
    assert found.input_gradient is not None
    assert found.rounding_residual().max() < 1e-5
    way = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    step = 2.0**-9
    after, before = (run(proto, {"x": x + s * step * way})["y"][:, 1].sum() for s in (1, -1))
    np.testing.assert_allclose((found.input_gradient * way).sum(), (after - before) / (2 * step), rtol=3e-3)
