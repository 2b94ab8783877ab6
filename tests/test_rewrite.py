"""The rewritten file: valid, self-contained, the same model as before with an explanation beside its outputs."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fgonnx
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.options import Options
from fgonnx.engine.rewrite.rewrite import build
from fgonnx.engine.rewrite.rewritten import sites_of
from fgonnx.errors import ModelError, OptionError, TargetError, UnsupportedError
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(3)
GATED = """(float[N,3,8,6] x) => (float[N,4] p, int64[N] best) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
    s = Sigmoid(a)
    h = Mul(a, s)
    m = GlobalAveragePool(h)
    l = Flatten(m)
    p = Softmax<axis=1>(l)
    best = ArgMax<axis=1, keepdims=0>(p)
}"""


def gated():
    return model(GATED, weights=draw(w=(4, 3, 3, 3), b=(4,)))


def named(proto, *kinds):
    return [v.name for kind in kinds for v in getattr(proto.graph, kind)]


def metadata(proto):
    return {p.key: p.value for p in proto.metadata_props}


both = pytest.mark.parametrize("source", [small_cnn, gated])


class TestFile:
    @both
    def test_is_valid(self, source):
        onnx.checker.check_model(fgonnx.rewrite(source()), full_check=True)

    @both
    def test_has_standard_operators_only(self, source):
        assert {node.domain for node in fgonnx.rewrite(source()).graph.node} == {""}

    @both
    def test_keeps_the_inputs_and_adds_the_target(self, source):
        assert named(fgonnx.rewrite(source()), "input") == ["x", "target_index"]

    def test_has_its_own_outputs_first(self):
        names = ["p", "best", "saliency", "target", "score", "completeness", "contributions"]
        assert named(fgonnx.rewrite(gated()), "output") == names

    @both
    def test_does_not_change_the_model_given(self, source):
        given = source()
        before = given.SerializeToString(deterministic=True)
        fgonnx.rewrite(given)
        assert given.SerializeToString(deterministic=True) == before

    @both
    def test_does_not_change_an_ir_model_given(self, source):
        given = load(source()).ir
        before = onnx.load_from_string(load(given).ir and _bytes(given))
        fgonnx.rewrite(given)
        assert onnx.load_from_string(_bytes(given)) == before

    def test_is_hardly_larger_than_its_source(self):
        source = model(
            """(float[N,3,8,6] x) => (float[N,9] y) {
                a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
                r = Relu(a)
                f = Flatten(r)
                y = Gemm(f, v, c)
            }""",
            weights=draw(w=(64, 3, 3, 3), b=(64,), v=(3072, 9), c=(9,)),
        )
        assert fgonnx.rewrite(source).ByteSize() < source.ByteSize() + 20_000

    @both
    def test_is_the_same_every_time(self, source):
        assert fgonnx.rewrite(source()) == fgonnx.rewrite(source())

    def test_of_a_rewritten_model_is_refused(self):
        with pytest.raises(ModelError, match="fgonnx wrote it"):
            fgonnx.rewrite(fgonnx.rewrite(small_cnn()))


def _bytes(ir_model):
    import onnx_ir as ir

    return ir.to_proto(ir_model).SerializeToString(deterministic=True)


class TestResults:
    @both
    def test_the_models_own_are_unchanged(self, source):
        before, after = run(source(), {"x": X}), run(fgonnx.rewrite(source()), {"x": X})
        for name, value in before.items():
            np.testing.assert_allclose(after[name], value, rtol=1e-6, atol=1e-6)

    @both
    def test_of_a_saved_file_are_the_explainers(self, source, tmp_path):
        path = tmp_path / "explained.onnx"
        onnx.save(fgonnx.rewrite(source()), path)
        found, e = run(str(path), {"x": X}), fgonnx.Explainer(source())(X)
        for name in ("saliency", "target", "score", "completeness", "contributions"):
            np.testing.assert_array_equal(found[name], getattr(e, name))

    def test_default_target_is_the_largest_entry(self):
        found = run(fgonnx.rewrite(small_cnn()), {"x": X})
        np.testing.assert_array_equal(found["target"], found["y"].argmax(1))

    def test_default_target_can_be_set(self):
        found = run(fgonnx.rewrite(small_cnn(), target=2), {"x": X})
        np.testing.assert_array_equal(found["score"], found["y"][:, 2])

    @pytest.mark.parametrize("index", [[3], [0, 4, 2]], ids=["one for all", "one each"])
    def test_target_can_be_given_at_run_time(self, index):
        found = run(fgonnx.rewrite(small_cnn()), {"x": X, "target_index": np.array(index)})
        np.testing.assert_array_equal(found["score"], found["y"][np.arange(3), np.broadcast_to(index, 3)])

    @pytest.mark.parametrize("target", [-2, 5])
    def test_target_out_of_range_is_refused(self, target):
        with pytest.raises(TargetError, match="out of range: 'y' has 5 entries"):
            fgonnx.rewrite(small_cnn(), target=target)

    def test_contributions_have_one_column_per_site(self):
        rewritten = fgonnx.rewrite(small_cnn())
        assert run(rewritten, {"x": X})["contributions"].shape == (3, len(sites_of(rewritten)))

    def test_seed_explains_its_product_with_the_head(self):
        seed = np.random.default_rng(3).standard_normal((3, 5)).astype(np.float32)
        found = run(fgonnx.rewrite(small_cnn(), seed=True), {"x": X, "seed": seed})
        np.testing.assert_allclose(found["score"], (seed * found["y"]).sum(1), rtol=1e-5)

    def test_seed_of_one_entry_is_a_target(self):
        outputs = ("input_gradient", "saliency", "contributions")
        hot = np.eye(5, dtype=np.float32)[[1, 4, 0]]
        by_seed = run(fgonnx.rewrite(small_cnn(), seed=True, outputs=outputs), {"x": X, "seed": hot})
        by_target = run(fgonnx.rewrite(small_cnn(), outputs=outputs), {"x": X, "target_index": np.array([1, 4, 0])})
        for name in outputs:
            np.testing.assert_array_equal(by_seed[name], by_target[name])

    def test_seed_is_linear(self):
        rewritten = fgonnx.rewrite(small_cnn(), seed=True, outputs=("input_gradient",))
        one, two = np.random.default_rng(3).standard_normal((2, 3, 5)).astype(np.float32)
        g = [run(rewritten, {"x": X, "seed": s})["input_gradient"] for s in (one, two, one + two)]
        np.testing.assert_allclose(g[0] + g[1], g[2], atol=1e-5)


class TestHead:
    def test_is_before_a_softmax(self):
        assert metadata(fgonnx.rewrite(gated()))["fgonnx.head_value"] == "l"

    def test_is_the_output_on_request(self):
        found = run(fgonnx.rewrite(gated(), head="output"), {"x": X})
        np.testing.assert_allclose(found["score"], found["p"].max(1), rtol=1e-6)

    def test_output_of_a_softmax_is_complete_too(self):
        found = run(fgonnx.rewrite(gated(), head="output"), {"x": X})
        assert np.abs(found["completeness"] / found["score"]).max() < 1e-5

    @pytest.mark.parametrize("opset", [7, 9, 11, 12, 13])
    def test_has_its_name_of_the_source_at_every_opset(self, opset):
        source = model(
            """(float[N,3,8,6] x) => (float[N,4,1,1] p) {
                a = Conv<kernel_shape=[3,3]>(x, w)
                logits = GlobalAveragePool(a)
                p = Softmax<axis=1>(logits)
            }""",
            opset,
            weights=draw(w=(4, 3, 3, 3)),
        )
        assert metadata(fgonnx.rewrite(source))["fgonnx.head_value"] == "logits"

    def test_of_integers_is_refused(self):
        with pytest.raises(UnsupportedError, match=r"ArgMax.*int64.*Explain the tensor 'p' instead \(output=\)"):
            fgonnx.rewrite(gated(), output="best")

    def test_may_be_any_tensor(self):
        assert metadata(fgonnx.rewrite(gated(), output="l"))["fgonnx.head_value"] == "l"

    def test_unknown_output_is_refused(self):
        with pytest.raises(OptionError, match="has no output 'q'; it has: p, best"):
            fgonnx.rewrite(gated(), output="q")


class TestMetadata:
    def test_says_what_was_done(self):
        found = metadata(fgonnx.rewrite(small_cnn(), method="simple-fullgrad", profile="reference", psi="positive"))
        expected = {
            "version": fgonnx.__version__,
            "method": "simple-fullgrad",
            "profile": "reference",
            "psi": "positive",
            "head": "logits",
            "head_value": "y",
            "layout": "NCHW",
            "input": "x",
            "batch": "any",
        }
        assert {k: found[f"fgonnx.{k}"] for k in expected} == expected

    def test_has_the_hash_of_the_source(self, tmp_path):
        import hashlib

        path = tmp_path / "model.onnx"
        onnx.save(small_cnn(), path)
        expected = hashlib.sha256(path.read_bytes()).hexdigest()
        assert metadata(fgonnx.rewrite(path))["fgonnx.source_sha256"] == expected

    def test_keeps_the_sources_own(self):
        source = small_cnn()
        onnx.helper.set_model_props(source, {"author": "someone"})
        assert metadata(fgonnx.rewrite(source))["author"] == "someone"

    def test_lists_the_sites(self):
        found = [(s.name, s.op_type, s.kind, s.grid, s.in_map) for s in sites_of(fgonnx.rewrite(small_cnn()))]
        assert found == [
            ("input", "", "input", (8, 6), True),
            ("a", "Conv", "bias", (8, 6), True),
            ("d", "Conv", "bias", (4, 3), True),
            ("y", "Gemm", "bias", (), False),
        ]

    def test_names_the_outputs(self):
        assert json.loads(metadata(fgonnx.rewrite(small_cnn()))["fgonnx.outputs"])["saliency"] == "saliency"

    def test_of_another_model_holds_no_sites(self):
        with pytest.raises(ModelError, match="not written by fgonnx"):
            sites_of(small_cnn())


class TestExpose:
    def exposed(self, name):
        return run(fgonnx.rewrite(small_cnn(), expose=[name]), {"x": X})[name]

    def test_an_activation(self):
        source = small_cnn()
        source.graph.output.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None))
        np.testing.assert_allclose(self.exposed("b"), run(source, {"x": X})["b"], atol=1e-6)

    def test_a_gradient(self):
        # y = Gemm(f, w3, b3): the gradient of entry t by f is column t of w3
        weights = {t.name: numpy_helper.to_array(t) for t in small_cnn().graph.initializer}
        target = run(small_cnn(), {"x": X})["y"].argmax(1)
        np.testing.assert_allclose(self.exposed("gradient:f"), weights["w3"].T[target], atol=1e-6)

    def test_a_bias(self):
        bias = next(numpy_helper.to_array(t) for t in small_cnn().graph.initializer if t.name == "b2")
        np.testing.assert_array_equal(self.exposed("bias:d").reshape(-1), bias)

    def test_a_bias_gradient_is_gradient_times_bias(self):
        product = self.exposed("gradient:d") * self.exposed("bias:d")
        np.testing.assert_allclose(self.exposed("bias_gradient:d"), product, atol=1e-7)

    def test_bias_gradients_sum_to_the_contributions(self):
        rewritten = fgonnx.rewrite(gated(), outputs=("contributions", "bias_gradients"))
        found = run(rewritten, {"x": X})
        sums = [found[f"bias_gradient:{s.name}"].sum((1, 2, 3)) for s in sites_of(rewritten)[1:]]
        np.testing.assert_allclose(np.stack(sums, 1), found["contributions"][:, 1:], atol=1e-6)

    @pytest.mark.parametrize("name", ["nothing", "gradient:nothing", "bias:b", "bias_gradient:input", "weird:d"])
    def test_what_there_is_not_is_refused(self, name):
        with pytest.raises(OptionError, match=f"nothing to expose under '{name}'"):
            fgonnx.rewrite(small_cnn(), expose=[name])


class TestNamesThatCollide:
    def renamed(self, old, new):
        source = small_cnn()
        graph = source.graph
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = new if value.name == old else value.name
        for node in graph.node:
            node.input[:] = [new if v == old else v for v in node.input]
            node.output[:] = [new if v == old else v for v in node.output]
        return source

    @pytest.mark.parametrize("name", ["saliency", "target", "score", "target_index", "completeness"])
    @pytest.mark.parametrize("old", ["x", "b", "w1", "y"], ids=["input", "inner value", "weight", "output"])
    def test_are_told_apart(self, old, name):
        source = self.renamed(old, name)
        rewritten = fgonnx.rewrite(source)
        onnx.checker.check_model(rewritten, full_check=True)
        found = run(rewritten, {"x" if old != "x" else name: X})
        np.testing.assert_allclose(found["y" if old != "y" else name], run(small_cnn(), {"x": X})["y"], rtol=1e-6)

    @pytest.mark.parametrize("name", ["saliency", "target", "score", "target_index", "completeness"])
    @pytest.mark.parametrize("old", ["x", "b", "w1", "y"], ids=["input", "inner value", "weight", "output"])
    def test_do_not_disturb_the_explainer(self, old, name):
        found = fgonnx.Explainer(self.renamed(old, name))(X, 1)
        np.testing.assert_array_equal(found.saliency, fgonnx.Explainer(small_cnn())(X, 1).saliency)

    @pytest.mark.parametrize("old", ["x", "w1", "y"], ids=["input", "weight", "output"])
    def test_seed_too(self, old):
        seed = np.ones((3, 5), np.float32)
        found = fgonnx.Explainer(self.renamed(old, "seed"))(X, seed=seed)
        np.testing.assert_array_equal(found.score, fgonnx.Explainer(small_cnn())(X, seed=seed).score)

    def test_the_models_own_output_survives_smoothing(self):
        found = fgonnx.Explainer(self.renamed("y", "saliency"), method="smooth-fullgrad", samples=2)(X)
        np.testing.assert_allclose(found.outputs["saliency"], run(small_cnn(), {"x": X})["y"], rtol=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("method", "gradcam", "method='gradcam' does not exist; choose one of: fullgrad, simple-fullgrad"),
            ("profile", "author", "profile='author' does not exist"),
            ("psi", "square", "psi='square' does not exist"),
            ("head", "softmax", "head='softmax' does not exist; choose one of: logits, output"),
            ("outputs", ("map",), "no output 'map'"),
            ("method", "smooth-fullgrad", "use fgonnx.Explainer"),
            ("input", "z", "has no input 'z'; it has: x"),
            ("input_shape", (1, 4, 8, 6), "does not fit its input"),
        ],
    )
    def test_options_that_do_not_exist(self, option, value, message):
        with pytest.raises(OptionError, match=message):
            fgonnx.rewrite(small_cnn(), **{option: value})

    def test_names_every_node_without_a_rule(self):
        source = model(
            """(float[N,3,4,4] x) => (float[N,3,4,4] y) {
                [one] a = Det2(x)
                [two] b = Relu(a)
                [three] y = Det3(b)
            }"""
        )
        for node in source.graph.node:
            node.domain, node.op_type = ("acme", node.op_type) if node.op_type.startswith("Det") else ("", node.op_type)
        with pytest.raises((UnsupportedError, ModelError), match=r"acme"):
            fgonnx.rewrite(source)

    @pytest.mark.parametrize(
        ("way", "kind"), [("ArgMax<axis=1>(x)", "int64"), ("Cast<to=6>(x)", "int32"), ("Greater(x, x)", "bool")]
    )
    def test_names_where_the_gradient_ends(self, way, kind):
        source = model(f"(float[N,3,4,4] x) => (float[N,c,h,w] y) {{ i = {way}\n y = Cast<to=1>(i) }}")
        with pytest.raises(UnsupportedError, match=f"its output holds {kind} values, which carry no gradient"):
            fgonnx.rewrite(source)

    def test_of_an_output_that_does_not_depend_on_the_input(self):
        source = model("(float[N,3,4,4] x) => (float[2] y) <float[2] c = {1, 2}> { y = Identity(c) }")
        with pytest.raises(ModelError, match="does not depend on the input 'x'"):
            fgonnx.rewrite(source)

    def test_names_a_loop_that_takes_the_input_from_outside(self):
        source = model(
            """(float[N,3] x, int64 count, float[N,3] start) => (float[N,3] y) {
                r = Loop (count, , start) <body = l (int64 i, bool go, float[N,3] before) =>
                    (bool on, float[N,3] after) { on = Identity(go)  after = Add(before, x) }>
                y = Add(r, x)
            }"""
        )
        with pytest.raises(UnsupportedError, match="Loop"):
            fgonnx.rewrite(source, input="x")


@pytest.mark.parametrize(("taken", "slope"), [(True, 2 * X[:, 0, 0] + 1), (False, np.full((3, 6), 2, np.float32))])
def test_a_branch_that_takes_the_input_from_outside(taken, slope):
    source = model(
        """(float[N,6] x, bool c) => (float[N,6] y) {
            r = If (c) <then_branch = t () => (float[N,6] a) { a = Mul(x, x) },
                        else_branch = e () => (float[N,6] b) { b = Identity(x) }>
            y = Add(r, x)
        }"""
    )
    rewritten = fgonnx.rewrite(source, seed=True, outputs=("input_gradient",))
    feeds = {"x": X[:, 0, 0], "c": np.array(taken), "seed": np.ones((3, 6), np.float32)}
    np.testing.assert_allclose(run(rewritten, feeds)["input_gradient"], slope, rtol=1e-6)


def test_options_are_kept_with_the_result():
    options = Options(profile="paper")
    assert build(load(small_cnn()), options).options is options


def test_rows_picked_by_indices_that_follow_the_batch_keep_their_gradient() -> None:
    """What exporters make of as_strided: the data of all samples, flattened, picked by numbers made of its shape."""
    source = """<ir_version: 8, opset_import: ["": 18]> g (float[N, 4] x) => (float[N, 4] y)
        <int64[1] flat = {-1}, int64[2] rows = {-1, 4}, int64 zero = {0}, int64 one = {1}> {
        f = Reshape (x, flat)
        n = Size (x)
        i = Range (zero, n, one)
        p = Gather (f, i)
        s = Mul (p, p)
        y = Reshape (s, rows)
    }"""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    explanation = fgonnx.Explainer(onnx.parser.parse_model(source), input_gradient=True)(x, 1)
    np.testing.assert_allclose(explanation.input_gradient, 2 * x * np.eye(4)[1])
