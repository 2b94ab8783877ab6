"""engine="ort-training" gives the same explanation, and the same kinds of errors."""

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.audit.check import check
from fgonnx.engine.walk.witness import ort_training
from fgonnx.errors import ModelError, OptionError, UnsupportedError
from tests.support import model, pictures, small_cnn

FIELDS = ("saliency", "score", "contributions", "completeness", "input_gradient")


def both(proto, x, *target, **options):
    engines = ("fgonnx", "ort-training")
    return [fgonnx.Explainer(proto, input_gradient=True, engine=e, **options)(x, *target) for e in engines]


@pytest.mark.parametrize("target", [None, 2, [0, 1, 4]])
@pytest.mark.parametrize("profile", ["full", "reference", "paper"])
def test_the_same_explanation(profile, target):
    ours, theirs = both(small_cnn(), pictures(3), target, profile=profile)
    assert ours.sites == theirs.sites
    assert ours.described == theirs.described
    for field in FIELDS:
        a, b = getattr(ours, field), getattr(theirs, field)
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(ours.score).max(), err_msg=field)
    assert theirs.relative_residual().max() < 1e-5


def test_a_cotangent_in_place_of_a_target():
    seed = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    ours, theirs = (
        fgonnx.Explainer(small_cnn(), input_gradient=True, engine=e)(pictures(3), seed=seed)
        for e in ("fgonnx", "ort-training")
    )
    np.testing.assert_allclose(theirs.input_gradient, ours.input_gradient, rtol=1e-4, atol=1e-6)


def test_average_pooling_with_a_free_batch():
    # The builder's own gradient of it ends the process.
    pooled = model(
        "(float[N,3,8,6] x) => (float[N,3,4,3] y) { a = Sigmoid(x)"
        " y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a) }"
    )
    ours, theirs = both(pooled, pictures(3))
    np.testing.assert_allclose(theirs.input_gradient, ours.input_gradient, rtol=1e-5, atol=1e-7)


def test_every_node_that_stands_in_the_way_is_named():
    proto = model("(float[N,3] x) => (float[N,3] y) { a = Atan(x) b = Relu(a) y = Sinh(b) }")
    with pytest.raises(UnsupportedError, match="no gradient") as caught:
        fgonnx.Explainer(proto, engine="ort-training", layout="NF").engine()
    assert [r.op_type for r in caught.value.refusals] == ["Atan", "Sinh"]


def test_a_graph_that_ends_the_process_is_an_error():
    proto = model(
        """(float[N,3] x, bool c) => (float[N,3] y) {
            a = Identity(x)
            y = If<then_branch = t () => (float[N,3] p) { p = Relu(a) }, else_branch = e () => (float[N,3] q)
                { q = Neg(a) }>(c)
        }"""
    )
    with pytest.raises(ModelError, match="gradient builder fails on the model: it ended with status -6"):
        ort_training.build(proto, "y", ["x"])


def test_an_opset_beyond_its_last_one_is_an_error():
    proto = small_cnn()
    proto.opset_import[0].version = onnx.defs.onnx_opset_version()
    with pytest.raises(ModelError, match="opset"):
        fgonnx.Explainer(proto, engine="ort-training").engine()


def test_check_holds_one_engine_against_the_other():
    result = check(small_cnn(), pictures(2), engine="both")
    agreed = [c for c in result.checks if c.name.startswith("engines agree")]
    assert [c.verdict for c in agreed] == ["passed"] * 5
    assert result.passed


def test_an_engine_that_does_not_exist():
    with pytest.raises(OptionError, match="engine='torch' does not exist"):
        fgonnx.Explainer(small_cnn(), engine="torch")
