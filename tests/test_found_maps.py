"""What random graphs found about maps (`benchmarks/fuzz/`): values whose grid is turned, and that have no channels."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from tests.support import model

#: A site on the grid of (N, 5, 6), one with its axes swapped, and what follows; the map must not depend on which.
BODIES = {
    "a constant where a condition holds": "c = Greater(h, zero) w = Where(c, one, h)",
    "a bias": "w = Add(h, one)",
    "a curve": "w = Sigmoid(h)",
    "a bias of every row": "w = Add(h, rows)",
}


@pytest.mark.parametrize("psi", ["abs", "signed", "positive"])
@pytest.mark.parametrize("name", BODIES)
def test_a_grid_without_channels_is_turned_back(name, psi):
    maps = []
    for turned in (True, False):
        rows = np.random.default_rng(1).standard_normal((1, 5) if turned else (5, 1)).astype(np.float32)
        turn = "h = Transpose<perm=[0, 2, 1]>(s)" if turned else "h = Identity(s)"
        back = "b = Transpose<perm=[0, 2, 1]>(w)" if turned else "b = Identity(w)"
        graph = f"""(float[N,1,5,6] x) => (float[N,2] y)
            <int64[1] at = {{1}}, int64[2] flat = {{-1, 30}}, float zero = {{0}}, float one = {{0.8}}> {{
            t = Tanh(x) s = Squeeze(t, at) {turn} {BODIES[name]} {back} f = Reshape(b, flat) y = MatMul(f, m)
        }}"""
        m = np.random.default_rng(2).standard_normal((30, 2)).astype(np.float32)
        explainer = fgonnx.Explainer(
            model(graph, weights={"rows": rows, "m": m}), psi=psi, layout="NCHW", cache=False, threads=1
        )
        maps.append(explainer(np.random.default_rng(0).standard_normal((2, 1, 5, 6)).astype(np.float32)).saliency)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("psi", ["abs", "signed", "positive"])
def test_a_row_cut_in_two_and_turned_is_put_in_order(psi):
    maps = []
    for body in ("h = Transpose<perm=[0, 2, 1]>(r) w = Sigmoid(h) b = Transpose<perm=[0, 2, 1]>(w)", "b = Sigmoid(r)"):
        graph = f"""(float[N,10] x) => (float[N,2] y) <int64[3] cut = {{-1, 5, 2}}, int64[2] flat = {{-1, 10}}> {{
            t = Tanh(x) r = Reshape(t, cut) {body} f = Reshape(b, flat) y = MatMul(f, m)
        }}"""
        m = np.random.default_rng(2).standard_normal((10, 2)).astype(np.float32)
        explainer = fgonnx.Explainer(model(graph, weights={"m": m}), psi=psi, cache=False, threads=1)
        maps.append(explainer(np.random.default_rng(0).standard_normal((2, 10)).astype(np.float32)).saliency)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-5, atol=1e-6)
