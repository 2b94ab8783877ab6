"""Completeness and weak dependence: no map of the input alone has both, the full-gradient has (paper, section 3)."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

import fgonnx
from fgonnx.audit import evaluate
from tests.evaluate_support import measured, of_net, relu_net, subject

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"


def piecewise(weights, bias):
    """f(x) = max(w x + b, 0) of a vector: one piece is linear with any slope and intercept, the other is zero."""
    size = len(weights)
    numbers = ", ".join(f"{w:.9f}" for w in weights)
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        f (float[N,{size}] x) => (float[N,1] y) <float[{size},1] w = {{{numbers}}}, float[1] b = {{{bias:.9f}}}> {{
            z = Gemm(x, w, b)  y = Relu(z)
        }}"""
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_map_of_the_piece_alone_cannot_be_complete(size):
    """A piece has size + 1 parameters, a map has size numbers: two pieces share a map, and differ at some input.

    Shown for every map that is linear in the parameters; what is lost is the kernel of a wide matrix.
    """
    rng = np.random.default_rng(size)
    for _ in range(20):
        saliency_of = rng.normal(size=(size, size + 1))
        lost = np.linalg.svd(saliency_of)[2][-1]
        first = rng.normal(size=size + 1)
        second = first + lost
        assert saliency_of @ second == pytest.approx(saliency_of @ first)  # weakly dependent, and equal
        # far enough along both slopes, both models are in their linear piece
        x = np.linalg.lstsq(np.stack([first[:-1], second[:-1]]), np.full(2, 50.0), rcond=None)[0][None]
        values = [fgonnx.Explainer(piecewise(p[:-1], p[-1])).head(x.astype(np.float32)).item() for p in (first, second)]
        gap = lost[:-1] @ x[0] + lost[-1]
        if min(values) > 0 and abs(gap) > 1e-2:
            assert values[1] - values[0] == pytest.approx(gap, rel=1e-3)  # one map, one input, two outputs
            break
    else:
        pytest.fail("no pair of pieces was found")


def test_the_gradient_depends_on_the_piece_alone_and_forgets_the_bias():
    x = np.array([[2.0, 1.0]], np.float32)
    gradients = [
        fgonnx.Explainer(piecewise([1.0, 2.0], bias), input_gradient=True)(x).input_gradient for bias in (0.0, 3.0)
    ]
    assert gradients[0].tolist() == gradients[1].tolist()


@pytest.mark.parametrize("bias", [0.5, -1.0])
def test_the_full_gradient_has_both(bias):
    explainer = fgonnx.Explainer(piecewise([1.0, 2.0], bias), input_gradient=True)
    found = explainer(np.array([[2.0, 1.0], [3.0, 0.5]], np.float32))  # of one piece
    biases = found.contributions[:, 1:]
    assert found.input_gradient[0].tolist() == found.input_gradient[1].tolist()
    assert biases[0].tolist() == biases[1].tolist()
    assert found.score == pytest.approx([4.0 + bias, 4.0 + bias])
    assert np.abs(found.completeness).max() < 1e-6


@pytest.mark.parametrize(
    ("method", "change"), [("gradient", 0.0), ("gradient-x-input", 1.0), ("integrated-gradients", None)]
)
def test_weak_dependence_of_maps_of_a_network(method, change):
    found = measured("weak-dependence", subject(method), of_net()).values["change"]
    assert np.isfinite(found).all()
    if change is None:
        assert (found > 0.05).all()
    else:
        assert found == pytest.approx(np.full(3, change), abs=0.35 if change else 1e-3)


def test_weak_dependence_is_not_decided_where_there_are_no_pieces():
    smooth = relu_net()
    for node in smooth.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Softplus"
    given = of_net()
    assert np.isnan(measured("weak-dependence", evaluate.Subject(smooth, "gradient"), given).values["change"]).all()


def test_the_example_of_the_page_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, PAGE.name, "exec"), {})
