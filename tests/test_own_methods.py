"""Methods of one's own: a function of a sample, by its name or as it is."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from fgonnx import methods
from fgonnx.engine.methods import own, registry
from fgonnx.errors import NumericError, OptionError
from tests.support import pictures, small_cnn

X = pictures(3)
CNN = small_cnn()


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(own, "_FUNCTIONS", {})


def numeric(sample, step: float = 1e-3):
    """Central differences of the score, entry by entry."""
    steps = step * np.eye(sample.x.size).reshape(-1, *sample.x.shape[1:])
    drops = sample.scores(sample.x + steps) - sample.scores(sample.x - steps)
    return (drops / (2 * step)).reshape(sample.x.shape)


def explained(method, x=X[:1], **options):
    return fgonnx.Explainer(CNN, method=method, **options)(x)


def test_a_function_is_a_method_as_it_is():
    expected = explained("gradient").attribution
    found = explained(numeric).attribution
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()


def test_an_attribution_makes_the_map_that_it_makes_of_fgonnx():
    def mine(sample):
        return sample.gradients(sample.x)

    fgonnx.method("mine", gradient=True)(mine)
    for psi in ("abs", "positive", "signed"):
        expected, found = explained("gradient", X, psi=psi), explained("mine", X, psi=psi)
        np.testing.assert_allclose(found.saliency, expected.saliency, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.attribution, expected.attribution, rtol=1e-5, atol=1e-7)


def test_smoothgrad_in_three_lines_is_smoothgrad():
    @fgonnx.method(gradient=True)
    def smooth(sample, samples: int = 50, sigma: float = 0.15, random_state: int = 0):
        noise = sample.generator(random_state).standard_normal((samples, *sample.x.shape[1:]))
        return sample.gradients(sample.x + noise * sigma * (sample.x.max() - sample.x.min())).mean(axis=0)

    np.testing.assert_allclose(explained(smooth, X).saliency, explained("smoothgrad", X).saliency, rtol=1e-4)
    few = explained("smooth", X, samples=3).settings
    assert (few["samples"], few["sigma"]) == (3, 0.15)


def test_a_map_is_taken_as_it_is():
    made = explained(lambda sample: np.full(sample.grid, 2.0)).saliency
    assert made.shape == (1, *X.shape[2:])
    assert (made == 2).all()


def test_it_has_a_name_a_note_and_a_source():
    @fgonnx.method(source="A book.")
    def two_words(sample):
        """What it computes.

        And how.
        """
        return sample.x

    assert "two-words" in methods.names()
    assert methods.describe("two-words") == "What it computes. A book."
    assert fgonnx.Options(method=two_words) == fgonnx.Options(method="two-words")


def test_functions_of_the_same_name_stay_apart():
    def factory(value):
        def made(sample):
            return np.full(sample.grid, value)

        return made

    first, second = factory(1.0), factory(2.0)
    kept = fgonnx.Explainer(CNN, method=first)
    assert explained(second).saliency.max() == 2
    assert kept(X[:1]).saliency.max() == 1
    assert explained(first).saliency.max() == 1


def test_a_name_given_again_is_the_new_function():
    fgonnx.method("again")(lambda sample: np.full(sample.grid, 1.0))
    fgonnx.method("again")(lambda sample: np.full(sample.grid, 2.0))
    assert explained("again").saliency.max() == 2


def test_the_graph_of_another_function_of_that_name_is_not_taken_from_the_cache(tmp_path):
    fgonnx.method("again")(lambda sample: sample.x)
    explained("again", cache=tmp_path)
    fgonnx.method("again", gradient=True)(lambda sample: sample.gradients(sample.x))
    expected = explained("gradient").saliency
    np.testing.assert_allclose(explained("again", cache=tmp_path).saliency, expected, rtol=1e-5, atol=1e-7)


def test_the_other_commands_know_it():
    fgonnx.method("edges-of-mine")(lambda sample: np.abs(np.gradient(sample.x.mean(axis=(0, 1)))[0]))
    assert fgonnx.explain(CNN, X, method="edges-of-mine").saliency.shape == (3, *X.shape[2:])
    assert "edges-of-mine" in registry.names()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: 0, "takes no sample"),
        (lambda *, sample: 0, "takes no sample"),
        (lambda sample: np.zeros((2, 2)), r"returned an array of the shape \(2, 2\)"),
        (lambda sample: "a map", "returned str"),
        (lambda sample: sample.gradients(sample.x), r"@fgonnx\.method\(gradient=True\)"),
        (lambda sample: sample.scores(np.zeros((2, 2))), "variations have the shape"),
    ],
)
def test_what_is_no_method_is_refused(function, said):
    with pytest.raises(OptionError, match=said):
        explained(function)


@pytest.mark.parametrize("name", ["gradient", "fullgrad", "rise"])
def test_the_names_of_fgonnx_are_taken(name):
    with pytest.raises(OptionError, match="give yours another name"):
        fgonnx.method(name)(lambda sample: sample.x)


def test_settings_have_the_types_of_their_parameters():
    @fgonnx.method("typed")
    def typed(sample, count: int = 3, share: float = 1, name: str = "a", on: bool = False, free=None):
        return np.full(sample.grid, count * share)

    assert explained("typed", count=2, share=0.5).saliency.max() == 1
    for wrong in ({"count": 1.5}, {"name": 3}, {"on": "maybe"}):
        with pytest.raises(OptionError):
            explained("typed", **wrong)
    with pytest.raises(OptionError, match="'shar'"):
        explained("typed", shar=3)
    assert methods.find("typed").parse(["count=4", "on=yes"]) == {"count": 4, "on": True}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_function_whose_result_is_not_finite_is_blamed_by_name(value, gradient):
    @fgonnx.method("broken", gradient=gradient)
    def broken(sample):
        return np.full(sample.grid, value)

    with pytest.raises(NumericError, match="the method 'broken' returned NaN or infinity for sample 0; return finite"):
        explained("broken")


def test_a_function_may_return_what_the_model_gave():
    def passed(sample):
        return np.full(sample.grid, sample.scores(sample.x * np.inf)[0])

    with pytest.raises(NumericError, match=r"'passed' returned .*, as what the model gave for variations"):
        explained(passed)


def test_no_parentheses_are_needed():
    @fgonnx.method
    def plain_ones(sample):
        return np.ones(sample.grid)

    assert callable(plain_ones)
    for name in ("plain-ones", "plain_ones", plain_ones):
        assert (explained(name).saliency == 1).all()


@pytest.mark.parametrize("name", [3, b"x", ["x"], ""])
def test_a_name_that_is_none_is_refused_where_it_is_given(name):
    with pytest.raises(OptionError, match="name"):
        fgonnx.method(name)


@pytest.mark.parametrize("name", ["my_grad", "_my_grad"])
def test_a_method_is_known_by_the_name_of_its_function(name):
    @fgonnx.method()
    def my_grad(sample):
        return np.ones(sample.grid)

    assert explained(name).settings["method"] == "my-grad"


def test_a_misspelt_method_of_ones_own_is_recognised():
    fgonnx.method()(numeric)
    with pytest.raises(OptionError, match=r"did you mean 'numeric'\?"):
        explained("numerik")
