"""Samples of an explanation are chosen as entries of a numpy array are: by number, slice, list or mask."""

import numpy as np
import pytest

import fgonnx
from tests.support import model, run

NET = """
    (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 0, -2, 1, 3, -1}, float[2] b = {0.5, -1}> {
        z = Gemm(x, w, b)
        y = Relu(z)
    }"""
X = np.array([[1, 0, 0], [0, 1, 2], [2, 1, 0], [0, 3, 3]], np.float32)


@pytest.fixture(scope="module")
def all_four():
    return fgonnx.explain(model(NET), X, scores=True, input_gradient=True)


WAYS = {
    "numbers": [0, 2],
    "another order": [3, 1],
    "from the end": [-1, 0],
    "twice": [1, 1],
    "an array": np.array([2, 3]),
    "small whole numbers": np.array([1], np.uint8),
    "a mask": np.array([True, False, True, True]),
    "a list of booleans": [False, True, False, False],
    "a slice": slice(1, None, 2),
    "backwards": slice(None, None, -1),
}


@pytest.mark.parametrize("index", WAYS.values(), ids=WAYS)
class TestSome:
    def test_have_the_rows_that_numpy_gives(self, all_four, index):
        some = all_four[index]
        for name in ("saliency", "score", "target", "scores", "contributions", "completeness", "input_gradient"):
            np.testing.assert_array_equal(getattr(some, name), getattr(all_four, name)[index])
        np.testing.assert_array_equal(some.outputs["y"], run(model(NET), {"x": X})["y"][index])

    def test_have_the_records_of_their_samples(self, all_four, index):
        some = all_four[index]
        numbers = np.arange(4)[index]
        assert [some.to_dict(i)["tensor"] for i in range(len(some))] == [
            all_four.to_dict(int(n))["tensor"] for n in numbers
        ]
        assert some.described == tuple(all_four.described[n] for n in numbers)
        assert [e.score[0] for e in some] == all_four.score[index].tolist()


REFUSED = {
    "too far": ([0, 4], IndexError, "there are 4 samples, 0 to 3; there is no sample 4"),
    "a short mask": ([True, False], IndexError, "the mask has 2 booleans, there are 4 samples"),
    "an empty mask": (np.zeros(4, bool), IndexError, "the index holds none of the 4 samples"),
    "an empty list": ([], IndexError, "holds none of the 4 samples"),
    "fractions": ([0.0, 1.0], TypeError, "a list of their numbers or a mask of 4 booleans, not by float64"),
    "two axes": (np.ones((4, 1), bool), TypeError, r"not by bool of the shape \(4, 1\)"),
    "a truth value": (True, TypeError, "not by True"),
    "a pair": ((0, 1), TypeError, r"not by \(0, 1\)"),
    "a name": ("star", TypeError, "not by 'star'"),
    "nothing": (None, TypeError, "not by None"),
}


@pytest.mark.parametrize(("index", "kind", "why"), REFUSED.values(), ids=REFUSED)
def test_what_chooses_no_samples_is_refused(all_four, index, kind, why):
    with pytest.raises(kind, match=why):
        all_four[index]


WORDS = """
    (int64[N,T] ids) => (float[N,2] y)
        <float[4,2] e = {0, 0, 1, 2, 0.5, -1, -1, 2}, float[2,2] w = {1, -1, 0.5, 2}, int64[1] at = {1}> {
        g = Gather(e, ids)
        s = ReduceMean<keepdims=0>(g, at)
        y = MatMul(s, w)
    }"""


@pytest.mark.parametrize("index", [[0, 2], np.array([True, False, True]), slice(0, None, 2)], ids=str)
def test_texts_are_chosen_alike(index):
    found = fgonnx.explain(model(WORDS), text=[[1, 2], [3, 3], [2, 1, 3]])
    assert [f.score for f in found[index]] == [found[0].score, found[2].score]
    assert type(found[index]) is type(found)


def test_remarks_stay_with_their_samples():
    e = fgonnx.explain(model(NET), X)
    e.settings["remarks"] = ["", "of the second", "", ""]
    assert "of the second" in e[[1, 3]].to_dict(0)["notes"]
    assert "of the second" not in e[[0, 3]].to_dict(0)["notes"]
    assert "of the second" in e[1].to_dict()["notes"]
