"""What random graphs found (`benchmarks/fuzz/`): batches of fixed size whose samples look alike where they are not."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from fgonnx.errors import ModelError
from tests.support import model, run

ONE_PLACE = {
    "rows turned round, but one": "s = Softmax(x) y = ReverseSequence<batch_axis=0, time_axis=1>(s, lengths)",
    "of one embedding": """e = Gather(table, ids) r = ReverseSequence<batch_axis=0, time_axis=1>(e, lengths)
        y = Mul(r, x)""",
    "a sign that is the same nearby": "h = ScatterElements<axis=1>(x, places, ones) g = Sign(h) y = Mul(g, x)",
    "a bound that is not reached nearby": "y = Min(x, bounds)",
}


@pytest.mark.parametrize("name", ONE_PLACE)
def test_constants_of_one_place_in_a_fixed_batch_are_seen(name):
    other = ", int64[3,3] ids" if "ids" in ONE_PLACE[name] else ""
    graph = f"""(float[3,3] x{other}) => (float[3,3] y) <int64[3] lengths = {{3, 1, 3}},
        int64[3,1] places = {{0, 1, 0}}, float[3,1] bounds = {{4, 2, 4}}, float[3,1] ones = {{1, 1, 1}},
        float[2] table = {{0.5, -1}}> {{
        {ONE_PLACE[name]}
    }}"""
    x = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    feeds = {"x": x, "ids": np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0]])} if other else {"x": x}
    with pytest.raises(ModelError, match="depends on its place in the batch"):
        fgonnx.Explainer(model(graph), input="x", layout="NF", cache=False, threads=1)(feeds)


CHOICES = {
    "the nearest entry of a grid that all rows make": """m = ReduceMean<keepdims=1>(x, all) c = Mul(m, far)
        g = Expand(c, square) p = Unsqueeze(x, front)
        v = GridSample<mode="nearest", padding_mode="border">(p, g) y = Squeeze(v, front)""",
    "a row by the largest entry of all": """f = Reshape(x, row) k = ArgMax<axis=1, keepdims=0>(f) i = Mod(k, three)
        r = Gather<axis=1>(x, i) y = Add(x, r)""",
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_all_rows_make_is_none_of_a_sample(name):
    graph = f"""(float[3,3,3] x) => (float[3,3,3] y) <int64[3] all = {{0, 1, 2}}, float far = {{3}},
        int64[4] square = {{1, 3, 3, 2}}, int64[1] front = {{0}}, int64[2] row = {{1, -1}}, int64 three = {{3}}> {{
        {CHOICES[name]}
    }}"""
    proto = model(graph, 18)
    x = np.random.default_rng(1).standard_normal((3, 3, 3)).astype(np.float32)
    found = fgonnx.Explainer(proto, cache=False, threads=1)(x)
    assert len(found.score) == 1
    truth = run(proto, {"x": x}, optimise=False)["y"]
    np.testing.assert_allclose(found.outputs["y"].reshape(3, 3, 3), truth, rtol=1e-5)


def test_a_fixed_batch_of_alike_places_is_explained():
    graph = "(float[3,4] x) => (float[3,4] y) <int64[2] shape = {3, 4}> { r = Reshape(x, shape) y = Softmax(r) }"
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    assert len(fgonnx.Explainer(model(graph), cache=False, threads=1)(x).score) == 3
