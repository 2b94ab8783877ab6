"""`Explainer.head`: the scores, by a forward run."""

import numpy as np
import pytest

import fgonnx
from fgonnx.errors import InputError
from tests.support import model, pictures

BODY = """(float[{batch},3,8,6] x) => (float[{batch},{out}] y) {{
    c = Conv(x, w, b)  r = Relu(c)  p = GlobalAveragePool(r)  {tail}
}}"""
WEIGHTS = {
    "w": np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32),
    "b": np.arange(5, dtype=np.float32),
}


def network(tail, out="5", batch="N"):
    return model(BODY.format(batch=batch, out=out, tail=tail), weights=WEIGHTS)


def scores(x):
    """Convolution, ReLU and mean, literally."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    convolved = np.einsum("nchwij,ocij->nohw", windows, WEIGHTS["w"]) + WEIGHTS["b"][:, None, None]
    return np.maximum(convolved, 0).mean(axis=(2, 3))


@pytest.mark.parametrize("method", ["fullgrad", "grad-cam", "edge", "smoothgrad"])
@pytest.mark.parametrize(
    ("tail", "out", "batch", "shape"),
    [
        ("y = Flatten(p)", "5", "N", (5,)),
        ("y = Flatten(p)", "5", "1", (5,)),
        ("y = Identity(p)", "5,1,1", "N", (5, 1, 1)),
        ("f = Flatten(p)  y = Softmax(f)", "5", "N", (5,)),
    ],
)
def test_is_what_targets_are_entries_of(tail, out, batch, shape, method):
    x = pictures(3)
    head = fgonnx.Explainer(network(tail, out, batch), method=method, batch_size=2).head(x)
    assert head.shape == (3, *shape)
    assert head.reshape(3, 5) == pytest.approx(scores(x), rel=1e-5, abs=1e-5)


def test_is_without_the_gradient():
    explainer = fgonnx.Explainer(network("f = Flatten(p)  y = Softmax(f)"))
    nodes = {n.op_type for n in explainer.engine(forward=True).rewritten.model.graph}
    assert nodes <= {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Reshape", "Softmax", "Identity"}


def test_can_be_written_into_the_file():
    proto = fgonnx.rewrite(network("f = Flatten(p)  y = Softmax(f)"), outputs=["score", "head"])
    assert [o.name for o in proto.graph.output] == ["y", "score", "head"]


def test_refuses_what_the_model_does_not_take():
    with pytest.raises(InputError, match="must have the shape"):
        fgonnx.Explainer(network("y = Flatten(p)")).head(pictures(2, (3, 9, 9)))
