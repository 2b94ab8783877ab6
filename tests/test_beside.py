"""Samples of a batch are explained side by side, with the results of one run of all."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from fgonnx import Explainer
from tests.support import draw, model, small_cnn

# `fgonnx.explain` is the function
beside = importlib.import_module("fgonnx.explain.beside")

CNN = small_cnn()
X = np.random.default_rng(0).standard_normal((5, 3, 8, 6)).astype(np.float32)
STATE = model(
    "(float[N,3,8,6] x, float[N,3,1,1] s) => (float[N,K] y) "
    "{ a = Mul(x, s)\nr = Relu(a)\np = GlobalAveragePool(r)\ny = Flatten(p) }"
)
#: Beside the scores, a list of the entries above zero: as long as there are such entries.
LIST = model(
    "(float[N,3,8,6] x) => (float[N,K] y, int64[2,M] found) "
    "{ c = Conv(x, w)\np = GlobalAveragePool(c)\ny = Flatten(p)\nr = Relu(y)\nfound = NonZero(r) }",
    weights=draw(w=(4, 3, 3, 3)),
)


@pytest.fixture(autouse=True)
def every_model_is_large_enough(monkeypatch):
    monkeypatch.setattr(beside, "_SMALL", 0)


def session_of(explainer, x=X):
    return explainer.engine(x.shape).session


def assert_equal(found, expected):
    for name in ("saliency", "score", "contributions", "completeness", "target"):
        if getattr(expected, name) is None:
            continue
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-5, err_msg=name)
    for name, array in expected.outputs.items():
        np.testing.assert_allclose(found.outputs[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("spin", [True, False])
@pytest.mark.parametrize("method", ["fullgrad", "net-fullgrad", "grad-cam"])
def test_the_results_are_those_of_one_run(method, spin):
    one, two = (Explainer(CNN, threads=n, method=method, spin=spin) for n in (1, 2))
    assert_equal(two(X, [1, 0, 2, 1, 0]), one(X, [1, 0, 2, 1, 0]))


def test_methods_of_several_runs_take_their_variations_side_by_side():
    one, two = (Explainer(CNN, threads=n, method="smooth-fullgrad", samples=6) for n in (1, 2))
    np.testing.assert_allclose(two(X[:1]).saliency, one(X[:1]).saliency, rtol=0, atol=1e-5)


def test_every_input_with_samples_is_divided():
    feeds = {"x": X, "s": np.arange(1, 16, dtype=np.float32).reshape(5, 3, 1, 1)}
    one, two = (Explainer(STATE, threads=n, input="x")(feeds) for n in (1, 2))
    assert_equal(two, one)


def test_results_that_are_no_rows_come_from_one_run():
    explainer = Explainer(LIST, threads=2, output="y")
    found = explainer(X)
    assert_equal(found, Explainer(LIST, threads=1, output="y")(X))


@pytest.mark.parametrize(
    ("options", "apart"),
    [({}, True), ({"threads": 1}, True), ({"batch_size": 1}, False)],
)
def test_it_takes_batches(options, apart):
    explainer = Explainer(CNN, **{"threads": 2, **options})
    assert isinstance(session_of(explainer), beside.SideBySide) == apart


def test_fewer_samples_than_threads_share_them():
    explainer = Explainer(CNN, threads=4)
    session = session_of(explainer)
    explainer(X[:3])
    assert session._single is None
    explainer(X[:4])
    assert session._single is not None


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("spin", [True, False])
def test_results_do_not_depend_on_the_number_of_threads(count, spin):
    found = [Explainer(CNN, threads=n, spin=spin)(X[:count]) for n in (1, 2, 4)]
    for name in ("saliency", "score", "contributions", "completeness"):
        assert len({getattr(one, name).tobytes() for one in found}) == 1, name


def test_small_models_run_in_one_piece(monkeypatch):
    monkeypatch.undo()
    assert not isinstance(session_of(Explainer(CNN, threads=2)), beside.SideBySide)


def test_large_weights_are_not_kept_twice(monkeypatch):
    monkeypatch.setattr(beside, "_LARGE", 100)
    assert not isinstance(session_of(Explainer(CNN, threads=2)), beside.SideBySide)


def test_entangled_samples_are_not_divided():
    explainer = Explainer(CNN, threads=2)
    engine = explainer.engine(X.shape)
    entangled = replace(engine.rewritten, entangled="they are")
    plain = session_of(explainer)._session
    assert beside.side_by_side(entangled, plain, explainer.running, None) is plain
