"""Files that onnxruntime reads and that are not as the standard says: read as it reads them, or refused by name."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.model.load import load
from fgonnx.errors import ModelError, UnsupportedError
from tests.support import draw, model, pictures, run, small_cnn

X = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
WEIGHTS = draw(w=(6, 4), v=(4, 5))


def net(body, opset=18, **weights):
    return model(f"(float[N,6] x) => (float[N,5] y) {{ {body} }}", opset, weights=WEIGHTS | weights)


def explained_as_onnxruntime_runs_it(proto, x=X):
    """Explain a model; hold its outputs, the identity and the slopes against onnxruntime on the file as it is."""
    e = Explainer(proto, input_gradient=True)(x)
    given = proto.graph.input[0].name
    truth = run(proto, {given: x})
    for name, array in truth.items():
        np.testing.assert_allclose(e.outputs[name], array, rtol=1e-5, atol=1e-6)
    assert e.rounding_residual().max() < 1e-6
    each = (len(x), *[1] * (x.ndim - 1))
    size = np.abs(e.input_gradient).reshape(len(x), -1).max(1).reshape(each)
    assert size.any()
    direction = e.input_gradient / np.where(size, size, 1)
    slopes = (e.input_gradient * direction).astype(float).reshape(len(x), -1).sum(1)
    step, name, rows = np.float32(1e-3), next(iter(truth)), np.arange(len(x))
    up, down = (run(proto, {given: x + s * direction})[name][rows, e.target].astype(float) for s in (step, -step))
    np.testing.assert_allclose((up - down) / (2 * step), slopes, rtol=0.02)
    return e


class TestOrder:
    @pytest.mark.parametrize(
        "body",
        [
            "t = Relu(h) y = MatMul(t, v) h = MatMul(x, w)",
            "y = Add(a, b) b = Abs(a) a = MatMul(t, v) t = Relu(h) h = MatMul(x, w)",
            "y = MatMul(t, v) t = Cast<to=1>(d) d = Cast<to=11>(h) h = MatMul(x, w)",
            "y = MatMul(s, v) s = Mul(a, b) a, b = Split<axis=1, num_outputs=2>(h) "
            "h = Concat<axis=1>(g, g) g = MatMul(x, w)",
            """y = If (yes) <then_branch = p () => (float[N,5] a) {a = Relu(h)},
                             else_branch = q () => (float[N,5] b) {b = Neg(h)}>
               h = MatMul(t, v) t = MatMul(x, w) yes = Greater(one, zero) one = Constant<value_int=1>()
               zero = Constant<value_int=0>()""",
        ],
        ids=["first last", "backwards", "casts last", "several results", "values of a branch"],
    )
    def test_nodes_are_sorted(self, body):
        explained_as_onnxruntime_runs_it(net(body))

    def test_whatever_a_model_is_given_as(self, tmp_path):
        proto = net("t = Relu(h) y = MatMul(t, v) h = MatMul(x, w)")
        onnx.save(proto, tmp_path / "m.onnx")
        score = Explainer(proto)(X).score
        for given in (tmp_path / "m.onnx", proto.SerializeToString(), onnx.load(tmp_path / "m.onnx")):
            np.testing.assert_array_equal(Explainer(given)(X).score, score)

    @pytest.mark.parametrize(
        ("body", "cycle"),
        [
            ("a = Add(x, a) h = MatMul(a, w) y = MatMul(h, v)", r"'a' \(Add\) needs its own result"),
            (
                "a = Add(x, c) b = Relu(a) c = Neg(b) h = MatMul(c, w) y = MatMul(h, v)",
                r"'a' \(Add\) needs 'c' \(Neg\) needs 'b' \(Relu\) needs 'a'",
            ),
            (
                """yes = Constant<value_int=1>() c = Cast<to=9>(yes) h = MatMul(x, w)
                y = If (c) <then_branch = p () => (float[N,5] a) {g = Add(h, k) k = Relu(g) a = MatMul(k, v)},
                            else_branch = q () => (float[N,5] b) {b = MatMul(h, v)}>""",
                r"'g' \(Add\) needs 'k' \(Relu\) needs 'g'",
            ),
        ],
        ids=["one", "three", "in a branch"],
    )
    def test_a_cycle_is_refused_by_its_nodes(self, body, cycle):
        with pytest.raises(ModelError, match=f"its nodes form a cycle: {cycle}"):
            load(net(body))


class TestTwice:
    """What stands in a file twice counts as in onnxruntime."""

    ADD = "h = MatMul(x, w) t = Add(h, k) y = MatMul(t, v)"

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            (ADD, (1, 2)),
            (ADD, (2, 1, 2)),
            ("k = Constant<value_floats=[1.0,2.0,3.0,4.0]>()" + ADD, (1,)),
        ],
        ids=["initializers", "three", "a Constant node"],
    )
    @pytest.mark.parametrize("rows", [1, 3000])
    def test_constants_of_one_name_are_refused_where_they_differ(self, body, found, rows, tmp_path):
        # onnxruntime takes the last one, or the first one if it is large
        twice = net(body)
        for k in found:
            twice.graph.initializer.append(numpy_helper.from_array(np.full((rows, 4), k, np.float32), "k"))
        onnx.save(twice, tmp_path / "twice.onnx")
        for given in (twice, twice.SerializeToString(), tmp_path / "twice.onnx"):
            with pytest.raises(ModelError, match="holds two constants called 'k', which runtimes read differently"):
                Explainer(given)

    def test_in_a_branch_too(self):
        proto = net(
            """yes = Constant<value_int=1>() c = Cast<to=9>(yes) h = MatMul(x, w)
            y = If (c) <then_branch = p () => (float[N,5] a) {g = Add(h, k) a = MatMul(g, v)},
                        else_branch = q () => (float[N,5] b) {b = MatMul(h, v)}>"""
        )
        branch = next(n for n in proto.graph.node if n.op_type == "If").attribute[0].g
        branch.initializer.extend(numpy_helper.from_array(np.full(4, k, np.float32), "k") for k in (5, 6))
        with pytest.raises(ModelError, match="two constants called 'k'"):
            Explainer(proto)

    @pytest.mark.parametrize("columns", [4, 20000])
    def test_equal_ones_are_one(self, columns, tmp_path):
        again = net("t = MatMul(x, k) y = Relu(t)")
        weight = numpy_helper.from_array(np.random.default_rng(0).random((6, columns), np.float32), "k")
        again.graph.initializer.extend([weight, weight])
        onnx.save(again, tmp_path / "again.onnx")
        explained_as_onnxruntime_runs_it(again)
        found = Explainer(tmp_path / "again.onnx")(X)
        np.testing.assert_allclose(found.outputs["y"], run(again, {"x": X})["y"], rtol=1e-5)

    @pytest.mark.parametrize("domains", [("", ""), ("", "ai.onnx"), ("ai.onnx", "")])
    def test_the_last_import_of_the_standard_counts(self, domains):
        # Softmax over all axes behind the first in opset 11, over the last one in opset 18
        proto = model("(float[N,2,3] x) => (float[N,2,3] y) {t = Softmax<axis=1>(x) y = Mul(t, t)}")
        for versions in ((11, 18), (18, 11)):
            del proto.opset_import[:]
            proto.opset_import.extend(map(helper.make_opsetid, domains, versions))
            x = X.reshape(2, 2, 3)
            found = Explainer(proto, head="output")(x)
            np.testing.assert_allclose(found.outputs["y"], run(proto, {"x": x})["y"], rtol=1e-5)

    @pytest.mark.parametrize(("domain", "name"), [("", "Relu"), ("ai.onnx", "Relu"), ("com.microsoft", "Gelu")])
    def test_operators_count_more_than_functions_of_their_name(self, domain, name):
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        proto = net("h = MatMul(x, w) t = Relu(h) y = MatMul(t, v)")
        proto.opset_import.append(opsets[1])
        proto.graph.node[1].op_type, proto.graph.node[1].domain = name, domain
        negated = helper.make_node("Neg", ["X"], ["Y"])
        proto.functions.append(helper.make_function(domain, name, ["X"], ["Y"], [negated], opsets[:1]))
        assert (
            Explainer(proto)(X).outputs["y"] != run(net("h = MatMul(x, w) t = Neg(h) y = MatMul(t, v)"), {"x": X})["y"]
        ).any()
        explained_as_onnxruntime_runs_it(proto)

    def test_other_functions_are_what_they_say(self):
        proto = net("h = MatMul(x, w) t = Relu(h) y = MatMul(t, v)")
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        proto.graph.node[1].domain = "com.microsoft"  # which has no Relu
        body = [helper.make_node("Neg", ["X"], ["Y"])]
        opsets = [helper.make_opsetid("", 18)]
        proto.functions.append(helper.make_function("com.microsoft", "Relu", ["X"], ["Y"], body, opsets))
        explained_as_onnxruntime_runs_it(proto)

    def test_the_model_given_is_not_changed(self):
        proto = net(self.ADD, k=np.zeros(4, np.float32))
        proto.graph.initializer.append(proto.graph.initializer[-1])
        before = proto.SerializeToString()
        load(proto)
        assert proto.SerializeToString() == before


class TestNewerOperators:
    """onnxruntime takes the LayerNormalization of opset 17 in older files, as its optimiser writes it."""

    BODY = "h = MatMul(x, w) t = LayerNormalization<axis=-1, epsilon={}>(h, g, b) {}"

    @pytest.mark.parametrize("opset", [9, 11, 13, 14, 16])
    @pytest.mark.parametrize(
        "end",
        ["y = MatMul(t, v)", "s = Softmax<axis=1>(t) y = MatMul(s, v)", "c = Clip(t) y = MatMul(c, v)"],
        ids=["alone", "before a Softmax", "before a Clip"],
    )
    def test_are_kept_when_the_opset_is_raised(self, opset, end):
        if opset < 11 and "Clip" in end:
            end = end.replace("Clip(", "Clip<min=-1.0, max=1.0>(")
        proto = net(self.BODY.format(1e-3, end), opset, g=np.full(4, 1.5, np.float32), b=np.ones(4, np.float32))
        explained_as_onnxruntime_runs_it(proto)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("Gelu(h)", r"'t' \(Gelu, opset 14\): the operator came with opset 20, after that of the file"),
            ("RMSNormalization(h, g)", r"\(RMSNormalization, opset 14\): the operator came with opset 23"),
            ("Swirl(h)", r"\(Swirl, opset 14\): the standard has no such operator"),
        ],
    )
    def test_that_onnxruntime_does_not_take_are_refused_by_name(self, call, message):
        proto = net(f"h = MatMul(x, w) t = {call} y = MatMul(t, v)", 14, g=np.ones(4, np.float32))
        with pytest.raises(UnsupportedError, match=message):
            Explainer(proto)(X)


class TestTrainingMode:
    IMAGE = "(float[N,3,8,6] x) => (float[N,4] y)"
    WEIGHTS = draw(k=(4, 3, 3, 3)) | {
        "one": np.ones(4, np.float32),
        "zero": np.zeros(4, np.float32),
        "yes": np.array(True),
        "ratio": np.array(0.3, np.float32),
    }
    TAIL = "g = GlobalAveragePool(t) y = Flatten(g)"

    @pytest.mark.parametrize("opset", [15, 17, 18, 20])
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (
                "bn, m, u = BatchNormalization<training_mode=1>(c, one, zero, zero, one) t = Relu(bn)",
                r"'bn' \(BatchNormalization, opset \d+\): it is in training mode: it normalises by the statistics",
            ),
            ("d = Dropout(c, ratio, yes) t = Relu(d)", r"'d' \(Dropout, opset \d+\): it is in training mode: it drops"),
            (
                "d, mask = Dropout<seed=7>(c, ratio, yes) t = Relu(d)",
                r"'d' \(Dropout, opset \d+\): it is in training mode",
            ),
            (
                "no = Not(yes) on = Not(no) d = Dropout(c, ratio, on) t = Relu(d)",
                r"\(Dropout, opset \d+\): it is in train",
            ),
            ("r = RandomNormalLike(c) t = Add(c, r)", r"'r' \(RandomNormalLike, opset \d+\): it draws random numbers"),
            ("r = RandomUniform<shape=[4,6,4]>() t = Mul(c, r)", r"'r' \(RandomUniform, opset \d+\): it draws random"),
            ("p = Sigmoid(c) r = Bernoulli(p) t = Mul(c, r)", r"'r' \(Bernoulli, opset \d+\): it draws random numbers"),
        ],
        ids=["batch norm", "dropout", "seeded", "computed", "noise", "gate", "bernoulli"],
    )
    def test_is_refused_as_that(self, body, message, opset):
        proto = model(f"{self.IMAGE} {{ c = Conv(x, k) {body} {self.TAIL} }}", opset, weights=self.WEIGHTS)
        with pytest.raises(UnsupportedError, match=message):
            Explainer(proto)(pictures(1))

    def test_names_every_such_node(self):
        body = """c = Conv(x, k) bn, m, u = BatchNormalization<training_mode=1>(c, one, zero, zero, one)
            d = Dropout(bn, ratio, yes) t = Relu(d)"""
        found = fgonnx.inspect(model(f"{self.IMAGE} {{ {body} {self.TAIL} }}", 17, weights=self.WEIGHTS))
        assert [(r["op_type"], r["node"]) for r in found["refusals"]] == [
            ("BatchNormalization", "bn"),
            ("Dropout", "d"),
        ]

    def test_what_comes_before_is_explained(self):
        body = "c = Conv(x, k) t = Relu(c) g = GlobalAveragePool(t) f = Flatten(g) y = Dropout(f, ratio, yes)"
        proto = model(f"{self.IMAGE} {{ {body} }}", 17, weights=self.WEIGHTS)
        with pytest.raises(UnsupportedError, match="it is in training mode"):
            Explainer(proto)(pictures(1))
        assert Explainer(proto, output="f")(pictures(1)).rounding_residual().max() < 1e-6

    @pytest.mark.parametrize(
        "body",
        [
            "t = Dropout(c, ratio)",
            "no = Not(yes) t = Dropout(c, ratio, no)",
            "t = BatchNormalization(c, one, zero, zero, one)",
            "r = RandomNormalLike(c) s = Shape(r) z = Expand(small, s) t = Add(c, z)",
        ],
        ids=["dropout", "switched off", "batch norm", "the shape of noise"],
    )
    def test_inference_is_explained(self, body):
        small = {"small": np.full(1, 0.1, np.float32)}
        proto = model(f"{self.IMAGE} {{ c = Conv(x, k) {body} {self.TAIL} }}", weights=self.WEIGHTS | small)
        explained_as_onnxruntime_runs_it(proto, pictures(2))


class TestSequences:
    LOOP = """
        c = Conv(x, k) parts = SplitToSequence<axis=1>(c, two) none = SequenceEmpty<dtype=1>()
        {count}
        all = Loop(count, yes, none) <
        body = step (int64 i, bool go, seq(float[]) acc) => (bool go2, seq(float[]) acc2) {{
            e = SequenceAt(parts, i) r = Relu(e) acc2 = SequenceInsert(acc, r) go2 = Identity(go)
        }}>"""
    COUNTED = "count = SequenceLength(parts)"
    TAILS = (
        "t = ConcatFromSequence<axis=1>(all)",
        "same = Identity(all) t = ConcatFromSequence<axis=1>(same)",
        "t = SequenceAt(all, zero)",
    )

    def source(self, tail, opset, count=COUNTED):
        loop = self.LOOP.format(count=count)
        return model(
            f"(float[N,3,8,6] x) => (float[N,C] y) {{ {loop} {tail} g = GlobalAveragePool(t) y = Flatten(g) }}",
            opset,
            weights=draw(k=(4, 3, 3, 3)) | {"two": np.array(2), "zero": np.array(0), "yes": np.array(True)},
        )

    @pytest.mark.parametrize("tail", TAILS)
    @pytest.mark.parametrize("opset", [17, 18])
    def test_of_constant_length_are_explained(self, tail, opset):
        explained_as_onnxruntime_runs_it(self.source(tail, opset), pictures(2))

    @pytest.mark.parametrize("tail", TAILS)
    @pytest.mark.parametrize("opset", [17, 18])
    def test_are_refused_as_the_models_own_nodes(self, tail, opset):
        counted = "top = ReduceMax<keepdims=0>(x) high = Cast<to=7>(top) on = Mul(high, zero) count = Add(on, two)"
        proto = self.source(tail, opset, counted)
        run(proto, {"x": pictures(1)})
        with pytest.raises(UnsupportedError) as caught:
            Explainer(proto)(pictures(1))
        own = {n.op_type for n in proto.graph.node} | {"SequenceAt", "SequenceInsert"}
        assert caught.value.refusals
        assert {r.op_type for r in caught.value.refusals} <= own
        assert "Shape" not in str(caught.value)


class TestOrtFormat:
    def ort_file(self, folder, proto):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(folder / "model.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return folder / "model.ort"

    @pytest.mark.parametrize(
        "proto", [small_cnn(), small_cnn(batch=1), net("h = MatMul(x, w) t = Tanh(h) y = MatMul(t, v)")]
    )
    def test_is_turned_back(self, proto, tmp_path):
        x = X if len(proto.graph.input[0].type.tensor_type.shape.dim) == 2 else pictures(2)
        path = self.ort_file(tmp_path, proto)
        expected = Explainer(proto)(x)
        for given in (path, path.read_bytes()):
            found = Explainer(given)(x)
            np.testing.assert_allclose(found.saliency, expected.saliency, rtol=1e-4, atol=1e-5)
        assert fgonnx.check(path, x).checks[0].verdict == "passed"

    def test_is_named_where_it_cannot_be(self, tmp_path):
        path = self.ort_file(tmp_path, small_cnn())
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(
            ModelError, match=r"model.ort: is in onnxruntime's own format \(.ort\), .*give the .onnx file"
        ):
            load(path)


class TestWeightsElsewhere:
    def test_of_a_model_without_a_folder(self, tmp_path):
        onnx.save(small_cnn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
        proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        for given, where in ((proto, "the ModelProto"), (proto.SerializeToString(), "the bytes given")):
            with pytest.raises(ModelError, match=f"{where}: its weights 'w1' are in a file, 'm.bin', .* give the path"):
                Explainer(given)

    def test_beside_the_working_folder_are_found(self, tmp_path, monkeypatch):
        onnx.save(small_cnn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
        monkeypatch.chdir(tmp_path)
        load(onnx.load("m.onnx", load_external_data=False))


class TestParameters:
    """`inspect` counts weights wherever they are."""

    @pytest.mark.parametrize(
        ("body", "weights", "count"),
        [
            ("h = MatMul(x, w) y = MatMul(h, v)", {}, 44),
            ("k = Constant<value=float[1,4]{1,2,3,4}>() h = MatMul(x, w) t = Add(h, k) y = MatMul(t, v)", {}, 48),
            ("k = Constant<value_floats=[1.0,2.0,3.0,4.0]>() h = MatMul(x, w) t = Add(h, k) y = MatMul(t, v)", {}, 48),
            (
                """yes = Constant<value_int=1>() c = Cast<to=9>(yes) h = MatMul(x, w)
                y = If (c) <
                    then_branch = p () => (float[N,5] a) <float[1,4] k = {1,2,3,4}> {g = Add(h, k) a = MatMul(g, v)},
                    else_branch = q () => (float[N,5] b) {
                        j = Constant<value=float[1,4]{1,2,3,4}>() g2 = Add(h, j) b = MatMul(g2, v)
                    }>""",
                {},
                44 + 4 + 4 + 1,
            ),
        ],
        ids=["initializers", "constant", "constant list", "branches"],
    )
    def test_are_counted(self, body, weights, count):
        assert fgonnx.inspect(net(body, **weights))["model"]["parameters"] == count

    def test_in_local_functions_too(self):
        body = net("h = MatMul(x, w) t = Relu(h) y = MatMul(t, v)")
        body.graph.node[1].op_type, body.graph.node[1].domain = "Shift", "loc"
        body.opset_import.append(helper.make_opsetid("loc", 1))
        one = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones((1, 4), np.float32)))
        added = helper.make_node("Add", ["X", "k"], ["Y"])
        opsets = [helper.make_opsetid("", 18)]
        body.functions.append(helper.make_function("loc", "Shift", ["X"], ["Y"], [one, added], opsets))
        assert fgonnx.inspect(body)["model"]["parameters"] == 48


@pytest.mark.parametrize("keeps", [0, 1, 2, 255, -1])
def test_only_a_one_switches_on(keeps):
    proto = net("h = MatMul(x, w) r = Relu(h) z = MatMul(r, v) y = Add(z, m2)")
    step = helper.make_node("ReduceMean", ["z", "one"], ["m"], keepdims=keeps)
    back = helper.make_node("Reshape", ["m", "column"], ["m2"])
    proto.graph.node.insert(3, step)
    proto.graph.node.insert(4, back)
    for name, array in (("one", np.array([1])), ("column", np.array([-1, 1]))):
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    explained_as_onnxruntime_runs_it(proto)


@pytest.mark.parametrize("reduction", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"])
def test_an_axis_may_be_named_twice(reduction):
    proto = model(
        f"(float[N,6,2] x) => (float[N,5] y) {{ r = {reduction}<axes=[2, -1], keepdims=0>(x) h = MatMul(r, w) "
        "s = Tanh(h) y = MatMul(s, v) }",
        11,
        weights=WEIGHTS,
    )
    explained_as_onnxruntime_runs_it(proto, np.random.default_rng(1).random((2, 6, 2), np.float32))


def test_sizes_beyond_any_memory_are_refused():
    proto = model(f"(float[2,3,{2**31 - 1},8] x) => (float[2,3] y) {{ y = ReduceMean<axes=[2,3],keepdims=0>(x) }}", 17)
    with pytest.raises(ModelError, match="holds more than 2,147,483,648 numbers"):
        fgonnx.check(proto)


class TestOutputsThatAreInputs:
    BODY = "<float[6,2] a = {1,2,3,4,5,6,7,8,9,10,11,12}> { y = MatMul(x, a) }"

    @pytest.mark.parametrize(
        ("given", "again"),
        [
            ("float[N,6]", "float[N,6]"),
            ("float[N,6]", "float[N,7]"),
            ("float[N,6]", "double[N,6]"),
            ("float[N,6]", "float[6]"),
            ("float[2,6]", "float[M,6]"),
        ],
    )
    def test_the_type_of_the_input_counts(self, given, again):
        text = f'<ir_version: 8, opset_import: ["": 17]> net ({given} x) => (float[N,2] y, {again} x) {self.BODY}'
        x = np.ones((2, 6), np.float32)
        found = Explainer(onnx.parser.parse_model(text), method="gradient-x-input", psi="signed")(x, 1)
        np.testing.assert_allclose(found.saliency, [[2, 4, 6, 8, 10, 12]] * 2)

    @pytest.mark.parametrize("again", ["float[6]", "float[N,6]", "float[K]"])
    def test_without_a_batch_it_is_left_out(self, again):
        text = f'<ir_version: 8, opset_import: ["": 17]> net (float[6] x) => (float[2] y, {again} x) {self.BODY}'
        source = onnx.parser.parse_model(text)
        found = Explainer(source, method="gradient-x-input", psi="signed")(np.ones((1, 6), np.float32), 1)
        np.testing.assert_allclose(found.saliency, [[2, 4, 6, 8, 10, 12]])
        assert any("left out of the outputs, as it is an input itself: 'x'" in note for note in found.notes)
        content = fgonnx.rewrite(source).SerializeToString()
        written = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(written.run(["y"], {"x": np.ones(6, np.float32)})[0], [36, 42])
