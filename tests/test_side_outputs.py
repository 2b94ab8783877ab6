"""Outputs beside the explained one are given as the model gives them, whatever their axes are."""

import numpy as np
import pytest

from fgonnx import Explainer
from fgonnx.errors import ModelError, NumericError
from tests.support import draw, model, run

WEIGHTS = draw(seed=2, w=(3, 4), v=(4, 5)) | {
    "first": np.array([0]),
    "second": np.array([1]),
    "rows": np.array([-1, 4]),
    "turned": np.array([2, 0, 1]),
}
FLAT, SEQUENCE = (
    "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)",
    (
        "h = MatMul(x, w) r = Relu(h) s = ReduceSum<keepdims=0>(r, second) y = MatMul(s, v) "
        "u = Transpose<perm=[0,2,1]>(h) a = MatMul(h, u)"
    ),
)
OF_ALL = {  # one value of all samples, or none of any
    "a constant": (FLAT, "q = Identity(v)", "float[4,5] q"),
    "a mean over the batch": (FLAT, "q = ReduceMean<keepdims=0>(r, first)", "float[4] q"),
    "a number": (FLAT, "q = ReduceSum<keepdims=0>(r)", "float q"),
    "all pairs": (FLAT, "t = Transpose(r) q = MatMul(r, t)", "float[N,N] q"),
    "a list of places": (FLAT, "c = Cast<to=9>(r) q = NonZero(c)", "int64[2,M] q"),
    "the shape": (FLAT, "q = Shape(x)", "int64[2] q"),
}
OF_SAMPLES = {
    "a square map": (SEQUENCE, "q = Softmax(a)", "float[N,H,H] q"),
    "a square map, samples last": (SEQUENCE, "q = Transpose<perm=[1,2,0]>(a)", "float[H,H,N] q"),
    "features first": (FLAT, "q = Transpose(r)", "float[4,N] q"),
    "rows of all": (SEQUENCE, "q = Reshape(r, rows)", "float[M,4] q"),
}


def network(body, side, declared, *, before=False):
    words = set("".join(c if c.isalnum() else " " for c in f"{body} {side}").split())
    given = {n: a for n, a in WEIGHTS.items() if n in words}
    outputs = [declared, "float[N,5] y"] if before else ["float[N,5] y", declared]
    shape = "N,3" if body is FLAT else "N,H,3"
    return model(f"(float[{shape}] x) => ({', '.join(outputs)}) {{ {body} {side} }}", weights=given)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("case", [*OF_ALL.values(), *OF_SAMPLES.values()], ids=[*OF_ALL, *OF_SAMPLES])
@pytest.mark.parametrize("before", [False, True])
def test_side_outputs_are_the_models_own(case, count, before):
    source = network(*case, before=before)
    x = np.random.default_rng(0).standard_normal((count, 3) if case[0] is FLAT else (count, 4, 3)).astype(np.float32)
    found = Explainer(source, output="y")(x)
    truth = run(source, {"x": x})
    for name, array in truth.items():
        np.testing.assert_allclose(found.outputs[name], array, rtol=1e-5, atol=1e-5)
    noted = any("of all samples together" in note for note in found.notes)
    assert noted is (count > 1 and case in OF_ALL.values())


@pytest.mark.parametrize("name", ["a mean over the batch", "all pairs"])
def test_one_that_is_explained_is_refused(name):
    x = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    with pytest.raises((ModelError, NumericError), match="influence each other"):
        Explainer(network(*OF_ALL[name]), output="q")(x)
