"""Models with several inputs: fixed beforehand, or given with every sample; states without a batch axis in front."""

import json

import numpy as np
import pytest
from onnx import numpy_helper

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.model import bind
from fgonnx.engine.model.inputs import free_inputs
from fgonnx.engine.model.load import load
from fgonnx.errors import InputError, ModelError, OptionError
from tests.support import draw, model, run

#: A signal, a state of two layers with the batch in its middle, and a rate that decides about a branch.
SOURCE = model(
    """(float[batch,16] x, float[2,batch,3] state, int64 rate) => (float[batch,3] y) {
        limit = Constant<value_int=16000>()
        fast = Equal(rate, limit)
        h = Gemm(x, w, b)
        first = Constant<value_int=0>()
        s = Gather<axis=0>(state, first)
        z = Add(h, s)
        y = If(fast) <
            then_branch = fast_branch () => (float[batch,3] p) { p = Sigmoid(z) },
            else_branch = slow_branch () => (float[batch,3] q) { q = Tanh(z) }
        >
    }""",
    weights=draw(w=(16, 3), b=(3,)),
)
X = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
STATE = np.random.default_rng(1).standard_normal((2, 1, 3)).astype(np.float32)
RATE = np.array(16000)


class TestBound:
    def test_inputs_are_gone_and_outputs_the_same(self):
        e = Explainer(SOURCE, bind={"rate": 16000, "state": STATE})(X)
        expected = [run(SOURCE, {"x": X[i : i + 1], "state": STATE, "rate": RATE})["y"][0] for i in range(2)]
        np.testing.assert_allclose(e.outputs["y"], expected, rtol=1e-5)
        assert e.rounding_residual().max() < 1e-6

    def test_the_branch_that_is_taken_lets_its_sigmoid_be_set_aside(self):
        assert Explainer(SOURCE, bind={"rate": 16000, "state": 0})(X).head_stripped == "Sigmoid"

    def test_a_number_fills_the_shape(self):
        found = Explainer(SOURCE, bind={"rate": 16000, "state": 0})(X).score
        np.testing.assert_array_equal(found, Explainer(SOURCE, bind={"rate": 16000, "state": 0 * STATE})(X).score)

    def test_explanations_say_so(self):
        settings = Explainer(SOURCE, bind={"rate": 16000, "state": 0})(X).settings
        assert settings["bound"] == {"rate": "int64 16000", "state": "float32 [2, 1, 3], all 0.0"}

    def test_rewritten_models_say_so(self):
        proto = fgonnx.rewrite(SOURCE, bind={"rate": 16000, "state": STATE})
        assert [v.name for v in proto.graph.input] == ["x", "target_index"]
        stored = json.loads({p.key: p.value for p in proto.metadata_props}["fgonnx.bound"])
        assert stored["state"].startswith("float32 [2, 1, 3], sha256 ")

    def test_they_are_default_values_that_onnxruntime_does_not_fold(self):
        graph = bind.bind(load(SOURCE), {"rate": 16000, "state": STATE}).ir.graph
        assert [v.name for v in graph.inputs] == ["x", "state", "rate"]
        assert [v.name for v in free_inputs(graph)] == ["x"]
        assert set(graph.initializers) >= {"state", "rate"}

    def test_once(self):
        with pytest.raises(OptionError, match="has no input 'rate' that could be bound; it has: x, state"):
            bind.bind(bind.bind(load(SOURCE), {"rate": 16000}), {"rate": 8000})

    def test_large_ones_are_read_by_every_session(self):
        proto = model("(float[N,4] x, float[1,20000] bias) => (float[N,20000] y) {a = MatMul(x, w) y = Add(a, bias)}")
        proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 20000), np.float32), "w"))
        bias = np.arange(20000, dtype=np.float32)[None] / 20000
        found = fgonnx.check(proto, X[:, :4], bind={"bias": bias})
        assert found.checks[0].verdict == "passed"
        found = Explainer(proto, bind={"bias": bias})(X[:, :4]).outputs["y"]
        np.testing.assert_allclose(found, X[:, :4].sum(1, keepdims=True) + bias, rtol=1e-5)

    def test_the_model_given_is_not_changed(self):
        loaded = load(SOURCE)
        bind.bind(loaded, {"rate": 1})
        assert [v.name for v in loaded.ir.graph.inputs] == ["x", "state", "rate"]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"speed": 1}, "has no input 'speed' that could be bound; it has: x, state, rate"),
            ({"state": np.zeros((2, 3))}, r"'state' has the shape \(2, \?, 3\), its bound value \(2, 3\)"),
            ({"rate": 0.5}, "'rate' is int64; its bound value does not fit"),
            ({"rate": "fast"}, "'rate' is int64; its bound value does not fit"),
            ({"x": 0, "state": 0, "rate": 0}, "all of its inputs are bound"),
        ],
    )
    def test_values_that_do_not_fit_are_refused(self, values, message):
        with pytest.raises(OptionError, match=message):
            Explainer(SOURCE, bind=values)


def gated(dims, use):
    """A linear layer whose hidden values are scaled by a second input of free sizes."""
    return model(
        f"(float[N,6] x, {dims} second) => (float[N,3] y) {{ h = MatMul(x, v) t = Tanh(h) {use} g = Mul(t, m) "
        "y = MatMul(g, w) }",
        weights=draw(v=(6, 4), w=(4, 3), table=(20, 4)) | {"ax": np.array([1]), "both": np.array([1, 2])},
    )


class TestSizesOfOtherInputs:
    """Those of the arrays given, each call its own."""

    CASES = (
        ("int64[N,L]", "e = Gather(table, second) m = ReduceMean<keepdims=0>(e, ax)", (7,), (3,)),
        ("float[N,L,4]", "m = ReduceSum<keepdims=0>(second, ax)", (5, 4), (2, 4)),
        ("float[N,4,A,B]", "a = GlobalAveragePool(second) m = Flatten(a)", (4, 3, 5), (4, 6, 2)),
        ("float[N,L]", "r = ReduceMax(second, ax) m = Exp(r)", (9,), (1,)),
    )

    @pytest.mark.parametrize(("dims", "use", "first", "other"), CASES)
    def test_are_taken_from_the_call(self, dims, use, first, other):
        proto = gated(dims, use)
        explainer = Explainer(proto, input="x")
        for shape in (first, other, first):
            rng = np.random.default_rng(len(shape))
            second = rng.integers(0, 20, (2, *shape)) if "int" in dims else rng.random((2, *shape), np.float32)
            fed = {"x": X[:, :6], "second": second}
            e = explainer(fed)
            np.testing.assert_allclose(e.outputs["y"], run(proto, fed)["y"], rtol=1e-5)
            assert e.rounding_residual().max() < 1e-6
            assert fgonnx.check(proto, fed, input="x").checks[0].verdict == "passed"
            np.testing.assert_allclose(explainer.head(fed)[[0, 1], e.target], e.score, rtol=1e-5)

    def test_are_told_apart_in_the_cache(self, tmp_path):
        dims, use, first, other = self.CASES[1]
        for shape in (first, other):
            fed = {"x": X[:, :6], "second": np.ones((2, *shape), np.float32)}
            found = Explainer(gated(dims, use), input="x", cache=tmp_path)(fed)
            np.testing.assert_array_equal(found.score, Explainer(gated(dims, use), input="x")(fed).score)

    def test_that_are_fixed_are_refused_if_others(self):
        fed = {"x": X[:, :6], "second": np.ones((2, 3, 4), np.float32)}
        explainer = Explainer(gated("float[N,5,4]", self.CASES[1][1]), input="x")
        with pytest.raises(InputError, match=r"'second' must have the shape \(N, 5, 4\), the array has \(2, 3, 4\)"):
            explainer(fed)


class TestSizesOfBoundNumbers:
    """A number fills the shape that is given by name."""

    SOURCE = gated("float[A,B,4]", "m = ReduceSum<keepdims=0>(second, ax)")

    @pytest.mark.parametrize("size", [1, 3])
    @pytest.mark.parametrize("shapes", [lambda s: {"second": (1, s, 4)}, lambda s: {"second": (1, s, 4), "x": (1, 6)}])
    def test_are_those_given(self, size, shapes):
        found = Explainer(self.SOURCE, bind={"second": 0.5}, input_shape=shapes(size))(X[:, :6])
        fed = {"x": X[:, :6], "second": np.full((1, size, 4), 0.5, np.float32)}
        np.testing.assert_allclose(found.outputs["y"], run(self.SOURCE, fed)["y"], rtol=1e-5)

    def test_are_asked_for(self):
        with pytest.raises(OptionError, match=r"which a single number does not tell; give them \(input_shape="):
            Explainer(self.SOURCE, bind={"second": 0.5})

    @pytest.mark.parametrize("shape", [(1, 3, 5), (3, 4)])
    def test_that_do_not_fit_are_refused(self, shape):
        with pytest.raises(OptionError, match="does not fit its input second"):
            Explainer(self.SOURCE, bind={"second": 0.5}, input_shape={"second": shape})

    def test_of_an_array_are_its_own(self):
        given = np.ones((1, 2, 4), np.float32)
        with pytest.raises(OptionError, match=r"is given the shape \(1, 3, 4\), its bound value \(1, 2, 4\)"):
            Explainer(self.SOURCE, bind={"second": given}, input_shape={"second": (1, 3, 4)})

    def test_are_those_given_in_a_file(self):
        proto = fgonnx.rewrite(self.SOURCE, bind={"second": 0.5}, input_shape={"second": (1, 3, 4)})
        assert next(list(t.dims) for t in proto.graph.initializer if t.name == "second") == [1, 3, 4]


class TestText:
    def test_is_read(self, tmp_path):
        np.save(tmp_path / "s.npy", STATE)
        found = bind.parse(["rate=16000", "gain=0.5", "mask=zeros", f"state={tmp_path / 's.npy'}"])
        np.testing.assert_array_equal(found.pop("state"), STATE)
        assert found == {"rate": 16000, "gain": 0.5, "mask": 0}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("rate", "'rate' is not of the form NAME=VALUE"),
            ("rate=fast", "neither a number, nor zeros, nor a .npy file"),
            ("state=none.npy", "'none.npy' does not exist"),
        ],
    )
    def test_that_means_nothing_is_refused(self, text, message):
        with pytest.raises(OptionError, match=message):
            bind.parse([text])


class TestGiven:
    E = Explainer(SOURCE, input="x", bind={"rate": 16000})

    def test_a_state_serves_all_samples(self):
        found = self.E({"x": X, "state": STATE})
        np.testing.assert_allclose(found.score, Explainer(SOURCE, bind={"rate": 16000, "state": STATE})(X).score)

    def test_missing_inputs_are_named(self):
        with pytest.raises(InputError, match=r"takes the inputs x, state; missing: state; .*bind="):
            self.E(X)

    def test_several_that_could_be_meant_ask(self):
        with pytest.raises(ModelError, match="several inputs could be explained; name one"):
            Explainer(SOURCE, bind={"rate": 16000})({"x": X, "state": STATE})


UNNAMED = "(float[N,6] x) => (float[N,3] y) { t = Tanh(x) y = MatMul(t, w) }"
ONE_PLACE = """(float[N,2,5,5] x) => (float[N,3] y) <int64[4] one = {1, -1, 5, 5}, int64[4] back = {-1, 2, 3, 3}> {
    a = Reshape(x, one) c = Conv<group=2>(a, k) b = Reshape(c, back) t = Tanh(b) f = Flatten(t) y = MatMul(f, w)
}"""


def test_a_weight_that_is_given_is_answered_with_what_to_do() -> None:
    graph = "(float[N,6] x, float[6,3] w) => (float[N,3] y) { t = Tanh(x) y = MatMul(t, w) }"
    source = model(graph, weights={"w": np.ones((6, 3), np.float32)})
    feeds = {"x": np.ones((1, 6), np.float32), "w": np.ones((6, 3), np.float32)}
    with pytest.raises(InputError, match=r"'w' has its value in the file.*write those into the file"):
        fgonnx.Explainer(source, cache=False)(feeds)


def test_names_of_the_models_own_are_no_sign_of_who_wrote_it() -> None:
    source = model(UNNAMED, weights={"w": np.ones((6, 3), np.float32)})
    source.graph.node[0].output[0] = source.graph.node[1].input[0] = "fg/t"
    with pytest.raises(ModelError, match=r"values named 'fg/t' and the like, names that fgonnx keeps.*rename them"):
        fgonnx.rewrite(source)


def test_sizes_are_those_of_the_models_own_input() -> None:
    draws = np.random.default_rng(0).normal
    weights = {"k": draws(size=(2, 1, 3, 3)), "w": draws(size=(18, 3))}
    source = model(ONE_PLACE, weights={k: v.astype(np.float32) for k, v in weights.items()})
    with pytest.raises(ModelError, match=r"x \(float \[N, 2, 5, 5\]\)"):
        fgonnx.Explainer(source, cache=False)(np.ones((3, 2, 5, 5), np.float32))
