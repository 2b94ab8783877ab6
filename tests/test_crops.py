"""Tokens that are left out of a grid that several axes make, as a past is of keys by heads."""

import numpy as np
import pytest

from fgonnx import Explainer
from fgonnx.errors import UnsupportedError
from tests.support import draw, model


def attending(batch, size):
    parts = ", ".join(f"float[{batch},2,{n},{size}] {name}" for name, n in (("q", 3), ("pk", 5), ("pv", 5)))
    return model(
        f"({parts}) => (float[{batch},2,3,{size}] y) "
        "{ k = MatMul(q, a) v = MatMul(q, b) y, present, values = Attention(q, k, v, , pk, pv) }",
        opset=23,
        ir_version=10,
        weights=draw(seed=2, a=(size, size), b=(size, size)),
    )


@pytest.mark.parametrize("explained", ["q", "pk"])
def test_keys_behind_a_past_have_one_map_with_a_free_batch_and_without(explained):
    given = draw(seed=3, q=(1, 2, 3, 4), pk=(1, 2, 5, 4), pv=(1, 2, 5, 4))
    alone, free = (Explainer(attending(batch, 4), input=explained, head="output")(given) for batch in ("1", "N"))
    np.testing.assert_allclose(free.saliency, alone.saliency, rtol=1e-4, atol=1e-6)
    assert free.rounding_residual().max() < 1e-5


@pytest.mark.parametrize("reduction", ["ReduceSum", "ReduceMean"])
def test_a_sum_of_as_many_entries_as_are_found_is_refused_by_the_node_that_finds_them(reduction):
    source = model(
        "(float[1,6] x) => (float[1] y) <float zero = {0}> { g = Greater(x, zero) [found] i = NonZero(g) "
        f"t = Transpose<perm=[1,0]>(i) v = GatherND(x, t) s = {reduction}(v) y = Mul(s, s) }}"
    )
    with pytest.raises(UnsupportedError, match=r"(?s)NonZero.*data-dependent length.*Where"):
        Explainer(source, head="output")(np.array([[1, 2, 3, -1, -2, 0.5]], np.float32))
