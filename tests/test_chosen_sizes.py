"""Sizes that follow from values: refused by name where the explanation depends on them, never those of one run."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import fgonnx
from fgonnx.errors import ModelError, UnsupportedError
from tests.support import model

# A number k of 1 to 6, from the data (how many entries are positive) or from a second input.
OF_DATA = "p = Greater(x, zero) b = Cast<to=7>(p) s = ReduceSum<keepdims=0>(b) c = Clip(s, l0, l6) k = Reshape(c, l1)"
OF_INPUT = "k = Clip(n, l0, l6)"

#: The size taken, the operator that is named, and what is said of it.
TAKEN = {
    "Reshape": ("m = Concat<axis=0>(l1, k, d) z = Pad(x, wide) e = Reshape(z, m)", "Reshape", "its size"),
    "Expand": ("m = Concat<axis=0>(k, l6s) e = Expand(x, m)", "Expand", "its size"),
    "Tile": ("m = Concat<axis=0>(l1, k) e = Tile(x, m)", "Tile", "its repeats"),
    "Pad": ("m = Concat<axis=0>(o1, o1, o1, k) e = Pad(x, m)", "Pad", "its pads"),
    "Slice": ("e = Slice(x, o1, k, l1)", "Slice", "its bounds"),
    "Resize by sizes": ("m = Concat<axis=0>(l1, k) e = Resize<mode='linear'>(x, , , m)", "Resize", "its scales, sizes"),
    "Resize along axes": ("e = Resize<mode='linear', axes=[1]>(x, , , k)", "Resize", "its scales, sizes"),
    "TopK": ("e, places = TopK<axis=1>(x, k)", "TopK", "its k"),
    "Split": (
        "r = Sub(l7s, k) m = Concat<axis=0>(k, r) z = Pad(x, one) e, f = Split<axis=1>(z, m)",
        "Split",
        "its size",
    ),
    "Range and Gather": ("q = Squeeze(k) r = Range(o0, q, l0) e = Gather<axis=1>(x, r)", "Gather", "its size"),
    "ConstantOfShape": ("m = Concat<axis=0>(k, l6s) u = ConstantOfShape(m) e = Add(x, u)", "Add", "its size"),
    "OneHot": ("q = Squeeze(k) u = OneHot<axis=0>(o1, q, ab) v = Cast<to=1>(u) e = Mul(x, v)", "Mul", "its size"),
    "Shape of a chosen size": (
        "m = Concat<axis=0>(k, l6s) u = ConstantOfShape(m) w2 = Shape(u) e = Expand(x, w2)",
        "Expand",
        "its size",
    ),
}


def taking(body, number):
    signature = "float[1,6] x" + (", int64[1] n" if number == OF_INPUT else "")
    graph = f"""({signature}) => (float[1,3] y) <
        float zero = {{0}}, int64 l0 = {{1}}, int64 l6 = {{6}}, int64[1] l1 = {{1}}, int64[1] l6s = {{6}},
        int64[1] l7s = {{7}}, int64[1] d = {{-1}}, int64[1] o1 = {{0}}, int64 o0 = {{0}},
        int64[4] wide = {{0, 0, 0, 54}}, int64[4] one = {{0, 0, 0, 1}}, int64[2] ab = {{0, 1}},
        float[1,3] w = {{1, -2, 0.5}}
    > {{
        {number} {body} h = Tanh(e) g = ReduceMax<keepdims=0>(h) j = Reshape(g, both) y = MatMul(j, w)
    }}""".replace("'", '"')
    return model(graph, weights={"both": np.array([1, 1])})


@pytest.mark.parametrize("number", [OF_DATA, OF_INPUT], ids=["data", "input"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_size_on_the_path_that_follows_from_values_is_refused_by_name(name, number):
    body, op_type, words = TAKEN[name]
    with pytest.raises(UnsupportedError) as refused:
        fgonnx.rewrite(taking(body, number))
    (found,) = refused.value.refusals
    source = "x" if number == OF_DATA else "n"
    assert (found.op_type, words in found.why, f"values of the input '{source}'" in found.why) == (op_type, True, True)
    assert ("Give 'n' a fixed value (bind=)" in str(refused.value)) == (number == OF_INPUT)


@pytest.mark.parametrize("number", [OF_DATA, OF_INPUT], ids=["data", "input"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_plain_gradient_refuses_it_too(name, number):
    with pytest.raises(UnsupportedError, match=rf"{TAKEN[name][1]}.*not constant.*values of the input"):
        fgonnx.grad(taking(TAKEN[name][0], number), wrt=["x"])


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("name", sorted(set(TAKEN) - {"Reshape", "OneHot"}))
def test_bound_to_a_value_the_size_is_explained(name, count):
    source = taking(TAKEN[name][0], OF_INPUT)
    x = np.random.default_rng(count).standard_normal((1, 6), np.float32)
    explainer = fgonnx.Explainer(source, bind={"n": np.array([count])}, input_gradient=True)
    found, session = explainer(x), ort.InferenceSession(source.SerializeToString())
    outputs = session.run(None, {"x": x, "n": np.array([count])})[0]
    np.testing.assert_allclose(found.score, outputs.max(axis=1), rtol=1e-5)
    assert found.relative_residual().max() < 1e-5


#: Sizes off the path: whatever they are, the number that follows from them is computed anew.
BESIDE = {
    "a sum over as many": "m = Concat<axis=0>(k, l6s) u = Expand(third, m) v = ReduceSum<keepdims=0>(u) e = Mul(x, v)",
    "their number": "m = Concat<axis=0>(k, l6s) u = Expand(third, m) v = Size(u) q = Cast<to=1>(v) e = Mul(x, q)",
    "an axis": "m = Concat<axis=0>(k, l6s) u = Expand(third, m) v = Shape(u) c0 = Gather<axis=0>(v, o0) "
    "q = Cast<to=1>(c0) e = Mul(x, q)",
    "a mean": "m = Concat<axis=0>(l1, k) u = Expand(third, m) v = ReduceMean<keepdims=1>(u) e = Add(x, v)",
}


@pytest.mark.parametrize("number", [OF_DATA, OF_INPUT], ids=["data", "input"])
@pytest.mark.parametrize("name", BESIDE)
def test_a_number_that_follows_from_a_chosen_size_is_that_of_every_input(name, number):
    source = taking(BESIDE[name], number)
    source.graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), "third"))
    explainer = fgonnx.Explainer(source, input="x", input_gradient=True)
    session = ort.InferenceSession(source.SerializeToString())
    for count in (6, 1, 4):
        x = np.where(np.arange(6) < count, 0.1, -0.1).astype(np.float32)[None] * np.linspace(
            0.5, 1, 6, dtype=np.float32
        )
        fed = {"x": x} if number == OF_DATA else {"x": x, "n": np.array([count])}
        found = explainer(fed)

        def score(moved, fed=fed, target=int(found.target[0])):
            return float(session.run(None, {**fed, "x": moved})[0][0, target])

        steps = np.eye(6, dtype=np.float32)[:, None] * np.float32(1e-3)
        slopes = [(score(x + s) - score(x - s)) / 2e-3 for s in steps]
        np.testing.assert_allclose(found.score, [score(x)], rtol=1e-5)
        np.testing.assert_allclose(found.input_gradient[0], slopes, rtol=2e-2, atol=2e-3)
        assert found.relative_residual().max() < 1e-5


def test_a_size_that_follows_from_the_shape_of_another_input_is_explained():
    source = model(
        """(float[1,1,6,6] x, float[1,1,h,w] ref) => (float[1,3] y) <float[1,3] b = {1, -2, 0.5}> {
            s = Shape(ref) e = Resize<mode="linear">(x, , , s) q = GlobalMaxPool(e) f = Flatten(q) t = Tanh(f)
            y = MatMul(t, b)
        }"""
    )
    explainer, session = fgonnx.Explainer(source, input="x"), ort.InferenceSession(source.SerializeToString())
    x = np.random.default_rng(1).standard_normal((1, 1, 6, 6), np.float32)
    for size in ((4, 4), (9, 5), (7, 7)):
        fed = {"x": x, "ref": np.zeros((1, 1, *size), np.float32)}
        np.testing.assert_allclose(explainer(fed).score, session.run(None, fed)[0].max(axis=1), rtol=1e-5)


@pytest.mark.parametrize("batch", ["1", "N"])
def test_an_input_of_sizes_that_zeros_do_not_fit_is_named(batch):
    source = model(
        f"""(float[{batch},1,6,6] x, int64[2] size) => (float[{batch},3] y) <
            int64[1] one = {{1}}, float[1,3] b = {{1, -2, 0.5}}
        > {{
            s = Concat<axis=0>(one, one, size) e = Resize<mode="linear">(x, , , s) q = GlobalMaxPool(e)
            f = Flatten(q) t = Tanh(f) y = MatMul(t, b)
        }}"""
    )
    with pytest.raises(ModelError, match=r"its input 'size' say how large .* \(Resize\) .* bind 'size' to a value"):
        fgonnx.rewrite(source)
    bound = fgonnx.Explainer(source, bind={"size": np.array([9, 5])})
    assert bound(np.ones((1, 1, 6, 6), np.float32)).relative_residual().max() < 1e-5


#: What an operator finds on the path, and numbers of it.
FOUND = {
    "their mean": "t = Transpose(z) e = GatherND(x, t)",
    "the same, put back": "t = Transpose(z) v = GatherND(x, t) u = Tanh(v) e = ScatterND(x, t, u)",
    "entries by a condition": "e = Compress(x, flat)",
    "as many of the largest": "s = Size(z) c = Reshape(s, l1) k = Clip(c, l0, l6) e, i = TopK<axis=1>(x, k)",
    "zeros for each": "s = Shape(z) c = Gather<axis=0>(s, l1) f = ConstantOfShape(c) u = Reshape(f, d) e = Add(x0, u)",
}


@pytest.mark.parametrize("form", ["fast", "portable"])
@pytest.mark.parametrize("name", FOUND)
def test_as_many_entries_as_are_found_on_the_path_are_refused_by_what_finds_them(name, form):
    found = "a = Reshape(x, d) flat = Greater(a, zero) p = Greater(x, zero) z = NonZero(p) x0 = Slice(x, o1, l1, l1)"
    with pytest.raises(UnsupportedError, match=r"(?s)(NonZero|Compress).*data-dependent length.*Where"):
        fgonnx.rewrite(taking(FOUND[name], found), form=form)


@pytest.mark.parametrize("number", [OF_DATA, OF_INPUT], ids=["data", "input"])
@pytest.mark.parametrize(
    "body",
    [
        "q = Squeeze(k) r = Range(o0, q, l0) j = Reshape(r, row) s1 = Shape(j) u = ConstantOfShape(s1) "
        "e = ScatterElements<axis=1>(x, j, u)",
        "q = Squeeze(k) r = Range(o0, q, l0) j = Reshape(r, row) e = GatherElements<axis=1>(x, j)",
    ],
    ids=["ScatterElements", "GatherElements"],
)
def test_indices_of_a_chosen_number_are_refused(body, number):
    source = taking(body.replace(" j = ", " at = ").replace("(j)", "(at)").replace(", j", ", at"), number)
    source.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "row"))
    with pytest.raises(UnsupportedError, match=r"(Scatter|Gather)Elements.*its size is not constant"):
        fgonnx.rewrite(source)


def test_a_number_of_entries_that_are_found_is_that_of_every_input():
    source = taking("z = NonZero(p) s = Size(z) f = Cast<to=1>(s) e = Mul(x, f)", "p = Greater(x, zero)")
    explainer, session = fgonnx.Explainer(source), ort.InferenceSession(source.SerializeToString())
    for count in (6, 1, 4):
        x = np.where(np.arange(6) < count, 0.1, -0.1).astype(np.float32)[None]
        found = explainer(x)
        np.testing.assert_allclose(found.score, session.run(None, {"x": x})[0].max(axis=1), rtol=1e-5)
        assert found.relative_residual().max() < 1e-5


def test_a_size_that_follows_from_random_numbers_is_refused_by_what_draws_them():
    number = "r = RandomUniformLike(x) p = Greater(r, zero) b = Cast<to=7>(p) s = ReduceSum<keepdims=0>(b) "
    source = taking("e, places = TopK<axis=1>(x, k)", number + "c = Clip(s, l0, l6) k = Reshape(c, l1)")
    with pytest.raises(UnsupportedError, match=r"RandomUniformLike.*draws random numbers"):
        fgonnx.rewrite(source)
