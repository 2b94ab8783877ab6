"""Held against the source: an explanation of another computation than the model's is refused, by name."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

import fgonnx
from fgonnx.audit.comparison import alignment
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.errors import NumericError
from fgonnx.explain import exact as exact_module
from fgonnx.explain import source as source_module
from tests.cli_support import CIRCLE, SHAPES, good
from tests.support import draw, model, pictures, small_cnn

X = pictures(3)
SPOILED = ("w2", "b2", "w3")


class Spoiled(fgonnx.Explainer):
    """An explainer whose rewritten graph has one weight changed: a fault of fgonnx's own."""

    def __init__(self, *args, weight, **options):
        super().__init__(*args, **options)

        def spoilt(loaded, wanted):
            rewritten = build(loaded, wanted)
            value = rewritten.model.graph.initializers[weight]
            value.const_value = ir.tensor(1.1 * value.const_value.numpy(), name=weight)
            return rewritten

        self._engines.build = spoilt


@pytest.mark.parametrize("weight", SPOILED)
def test_a_graph_that_computes_something_else_is_refused(weight):
    with pytest.raises(NumericError, match="'y' of the explained graph is not what the model computes"):
        Spoiled(small_cnn(), weight=weight)(X)


def test_the_first_node_that_parts_is_named():
    with pytest.raises(NumericError, match=r"the first node that parts is '\S+' \(Conv\)"):
        Spoiled(small_cnn(), weight="w2")(X)


def test_both_numbers_are_named():
    with pytest.raises(NumericError, match=r": -?[\d.]+ where the model gives -?[\d.]+"):
        Spoiled(small_cnn(), weight="w3")(X)


def test_it_can_be_switched_off():
    assert Spoiled(small_cnn(), weight="w3", verify=False)(X).saliency.shape == (3, 8, 6)


@pytest.mark.parametrize("batch", ["N", 1])
def test_a_right_graph_passes_with_any_batch(batch):
    explainer = fgonnx.Explainer(small_cnn(batch))
    explainer(X)
    assert explainer.engine(X.shape).verified


def test_it_is_done_once_for_each_size_and_kind_of_session(monkeypatch):
    calls = []
    monkeypatch.setattr(exact_module, "hold_against_source", lambda *_, **__: calls.append(1))
    explainer = fgonnx.Explainer(small_cnn())
    for _ in range(3):
        explainer(X)
    explainer(X, seed=np.ones(5))
    assert len(calls) == 2


SEVERAL = """(float[N,4] x, float[N,4] mask) => (float[N,2] y) {
    n = Mul(x, mask)
    s = Sigmoid(n)
    y = MatMul(s, w)
}"""


def test_the_source_runs_once_at_a_first_call(monkeypatch):
    runs = []
    opened = source_module.as_defined

    def counted(*given):
        session = opened(*given)
        run = session.run
        session.run = lambda *a: runs.append(1) or run(*a)
        return session

    for module in (source_module, exact_module):
        monkeypatch.setattr(module, "as_defined", counted)
    explainer = fgonnx.Explainer(model(SEVERAL, opset=13, weights=draw(w=(4, 2))), input="x")
    x = np.random.default_rng(0).random((3, 4), np.float32)
    explainer({"x": x, "mask": x})
    assert len(runs) == 1


@pytest.mark.parametrize("wrong", ["score", "y"])
def test_nothing_is_missed_by_running_it_once(wrong, monkeypatch):
    explainer = fgonnx.Explainer(model(SEVERAL, opset=13, weights=draw(w=(4, 2))), input="x")
    x = np.random.default_rng(0).random((3, 4), np.float32)
    engine = explainer.engine(x.shape)
    spoilt = engine.rewritten.names.get(wrong, wrong)
    run = engine.session.run
    monkeypatch.setattr(engine.session, "run", lambda *a: {k: v + (k == spoilt) for k, v in run(*a).items()})
    with pytest.raises(NumericError, match="'y' of the explained graph is not what the model computes"):
        explainer({"x": x, "mask": x})


def test_random_outputs_are_not_compared():
    source = model(
        """(float[N,3,8,6] x) => (float[N,3,8,6] y, float[2] z) {
            y = Relu(x)
            z = RandomNormal<shape = [2]>()
        }"""
    )
    assert fgonnx.Explainer(source)(X, 0).saliency.shape == (3, 8, 6)


def test_the_score_is_compared_where_outputs_are_right(monkeypatch):
    explainer = fgonnx.Explainer(small_cnn())
    engine = explainer.engine(X.shape)
    score = engine.rewritten.names["score"]
    run = engine.session.run
    monkeypatch.setattr(engine.session, "run", lambda *a: {k: v + (k == score) for k, v in run(*a).items()})
    with pytest.raises(NumericError, match="'y' of the explained graph is not what the model computes"):
        explainer(X)


def test_the_command_has_the_switch(tmp_path):
    good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--no-verify", "--threads", 1)
    assert (tmp_path / "circle.json").is_file()


def test_layers_are_compared_in_a_graph_that_computes_what_the_model_does(monkeypatch):
    def spoilt(self, *given):
        found = measure(self, *given)
        return replace(found, head_b=found.head_b * np.float32(1.1))

    measure = alignment.Alignment.measure
    monkeypatch.setattr(alignment.Alignment, "measure", spoilt)
    with pytest.raises(NumericError, match=r"the layers that are compared lead to \S+ for 'y', where the model gives"):
        fgonnx.compare(small_cnn(), small_cnn(), X)
    assert len(fgonnx.compare(small_cnn(), small_cnn(), X, verify=False)) == 3
