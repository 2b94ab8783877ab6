"""Malformed models are refused by name: functions without end, damaged tensors, attributes that none has."""

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.model.load import load
from fgonnx.errors import ModelError
from tests.cli_support import run as command
from tests.support import draw, model, run, small_cnn

X = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
NODE = helper.make_node


def net(body="h = MatMul(x, w) t = LeakyRelu(h) y = MatMul(t, v)", opset=18, **weights):
    return model(f"(float[N,6] x) => (float[N,5] y) {{ {body} }}", opset, weights=draw(w=(6, 4), v=(4, 5)) | weights)


def changed(change, *body, **weights):
    proto = net(*body, **weights)
    change(proto)
    return proto


def function(name, *nodes, inputs=("X",), opset=18):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("loc", 1)]
    return helper.make_function("loc", name, inputs, ["Y"], nodes, imports)


def with_functions(*functions, call="A", opset=18, body="h = MatMul(x, w) t = LeakyRelu(h) y = MatMul(t, v)"):
    proto = net(body, opset)
    node = next(n for n in proto.graph.node if n.op_type == "LeakyRelu")
    node.op_type, node.domain = call, "loc"
    proto.opset_import.append(helper.make_opsetid("loc", 1))
    proto.functions.extend(functions)
    return proto


def calls(name, *, domain="loc"):
    return NODE(name, ["X"], ["Y"], domain=domain)


def within_a_branch():
    branches = [
        helper.make_graph([NODE(op, ["X"], ["q"], domain=d)], g, [], [helper.make_tensor_value_info("q", 1, None)])
        for op, d, g in (("A", "loc", "p"), ("Neg", "", "q"))
    ]
    yes = NODE("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    return function("A", yes, NODE("If", ["c"], ["Y"], then_branch=branches[0], else_branch=branches[1]))


def laughs(depth):
    """Ten calls of ten calls of ...: 10^depth nodes."""
    links = ["X", *(f"t{j}" for j in range(9)), "Y"]
    ten = [(links[j], links[j + 1]) for j in range(10)]
    inner = [
        function(f"L{i}", *(NODE(f"L{i - 1}", [a], [b], domain="loc") for a, b in ten)) for i in range(1, depth + 1)
    ]
    return with_functions(function("L0", NODE("Relu", ["X"], ["Y"])), *inner, call=f"L{depth}")


class TestFunctions:
    @pytest.mark.parametrize(
        ("proto", "message"),
        [
            (with_functions(function("A", calls("A"))), "its functions form a circle: 'loc:A' calls 'loc:A'"),
            (
                with_functions(function("A", NODE("Tanh", ["t"], ["Y"]))),
                r"function 'loc:A': node 'Y' \(Tanh\) reads 't', which nothing in the file provides",
            ),
            (
                with_functions(function("A", NODE("Tanh", ["h"], ["Y"]))),
                r"function 'loc:A': node 'Y' \(Tanh\) reads 'h', which nothing in the file provides",
            ),
            (
                with_functions(function("A", NODE("Tanh", ["X"], ["Z"]))),
                "function 'loc:A': its output 'Y' is the result of no node",
            ),
            (
                with_functions(function("A", calls("B")), function("B", calls("C")), function("C", calls("B"))),
                "circle: 'loc:B' calls 'loc:C' calls 'loc:B'",
            ),
            (
                with_functions(function("A", calls("Relu", domain="")), function("B", calls("B"))),
                "circle: 'loc:B' calls 'loc:B'",
            ),
            (with_functions(within_a_branch()), "circle: 'loc:A' calls 'loc:A'"),
            (laughs(9), r"written out, its functions are 1,000,000,00\d nodes, more than the bound"),
            (laughs(60), r"written out, its functions are 1.0e\+60 nodes"),
            (
                with_functions(function("A", calls("Relu", domain="")), function("A", calls("Neg", domain=""))),
                "holds two functions called 'loc:A'",
            ),
            (
                changed(
                    lambda m: m.MergeFrom(with_functions(function("A", calls("Relu", domain="")))),
                    "h = MatMul(x, w) t = Relu(h) y = MatMul(t, v)",
                ),
                "two constants called 'w'|result of no node|Duplicate|not a valid",
            ),
        ],
        ids=[
            "itself",
            "of nothing",
            "of a value outside",
            "without its result",
            "each other",
            "uncalled",
            "in a branch",
            "laughs",
            "more laughs",
            "twice",
            "two models in one",
        ],
    )
    def test_without_end_or_sense_are_refused(self, proto, message):
        with pytest.raises(ModelError, match=message):
            Explainer(proto)(X)

    def test_nested_ones_are_explained(self):
        proto = laughs(2)
        found = Explainer(proto)(X)
        np.testing.assert_allclose(found.outputs["y"], run(proto, {"x": X})["y"], rtol=1e-5)

    def test_calls_with_more_inputs_than_the_function(self):
        proto = with_functions(function("A", calls("Relu", domain="")))
        proto.graph.node[1].input.append("h")
        with pytest.raises(ModelError, match=r"node 't' \(A\) has 2 inputs, its function 'loc:A' 1"):
            Explainer(proto)

    @pytest.mark.parametrize(("own", "other"), [(18, 11), (11, 18), (13, 11), (11, 13)])
    def test_of_another_opset_are_read_in_that_of_the_model(self, own, other):
        # Softmax over all axes behind the first before opset 13, over one axis since
        softmax = function("A", NODE("Softmax", ["X"], ["Y"], axis=1), opset=other)
        body = "{h = MatMul(x, w) t = LeakyRelu(h) y = MatMul(t, v)}"
        proto = with_functions(softmax, opset=own)
        graph = model(f"(float[N,2,6] x) => (float[N,2,5] y) {body}", own, weights=draw(w=(6, 4), v=(4, 5))).graph
        graph.node[1].op_type, graph.node[1].domain = "A", "loc"
        proto.graph.CopyFrom(graph)
        x = np.random.default_rng(1).standard_normal((3, 2, 6)).astype(np.float32)
        found = Explainer(proto)(x)
        np.testing.assert_allclose(found.outputs["y"], run(proto, {"x": x})["y"], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("own", "other", "nodes", "message"),
        [
            (
                18,
                11,
                [NODE("Unsqueeze", ["X"], ["u"], axes=[0]), NODE("Squeeze", ["u"], ["Y"], axes=[0])],
                r"function 'loc:A': node 'u' \(Unsqueeze\): it has an attribute 'axes', which is none of .* opset 18",
            ),
            (18, 6, [NODE("Clip", ["X"], ["Y"], min=-1.0)], r"node 'Y' \(Clip\): it has an attribute 'min'"),
            (
                14,
                18,
                [NODE("Constant", [], ["a"], value_ints=[1]), NODE("ReduceMean", ["X", "a"], ["Y"])],
                r"node 'Y' \(ReduceMean\): it has 2 inputs where the operator has 1, of opset 14",
            ),
        ],
    )
    def test_that_do_not_run_in_it_are_refused(self, own, other, nodes, message):
        proto = with_functions(function("A", *nodes, opset=other), opset=own)
        with pytest.raises(Exception, match=r"INVALID_GRAPH|FAIL"):
            run(proto, {"x": X})
        with pytest.raises(ModelError, match=message):
            Explainer(proto)

    @pytest.mark.parametrize("given", [{}, {"slope": 0.3}])
    def test_attributes_of_the_call_are_those_of_the_body(self, given):
        body = NODE("LeakyRelu", ["X"], ["Y"])
        body.attribute.append(AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT))
        leaky = function("A", body)
        leaky.attribute.append("slope")
        proto = with_functions(leaky)
        proto.graph.node[1].attribute.extend(helper.make_attribute(k, v) for k, v in given.items())
        np.testing.assert_allclose(Explainer(proto)(X).outputs["y"], run(proto, {"x": X})["y"], rtol=1e-5)

    @pytest.mark.parametrize("value", [None, 0.7])
    def test_attributes_of_no_function(self, value):
        proto = net()
        proto.graph.node[1].attribute.append(
            AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT, f=value)
        )
        with pytest.raises(ModelError, match=r"'t' \(LeakyRelu\): its attribute 'alpha' stands for 'slope' of a funct"):
            Explainer(proto)


def named(name):
    return lambda m: setattr(first(m), "name", name)


def first(proto):
    return proto.graph.initializer[0]


def constant(proto):
    return proto.graph.node[0].attribute[0].t


def attribute(*attributes):
    return lambda m: m.graph.node[1].attribute.extend(attributes)


ADDED = "k = Constant<value=float[4]{1,2,3,4}>() h = MatMul(x, w) t = Add(h, k) y = MatMul(t, v)"
BRANCH = """yes = Constant<value_int=1>() c = Cast<to=9>(yes) h = MatMul(x, w)
    y = If (c) <then_branch = p () => (float[N,5] a) {g = Relu(zz) a = MatMul(g, v)},
                else_branch = q () => (float[N,5] b) {b = MatMul(h, v)}>"""
TYPELESS = AttributeProto(name="alpha", f=0.5)
CAST = "c = Cast<to=1>(x) h = MatMul(c, w) y = MatMul(h, v)"
SOFTMAX = "h = MatMul(x, w) t = Softmax<axis=9>(h) y = MatMul(t, v)"
DOUBLES = ADDED.replace("float[4]", "double[4]")


def as_is(proto):
    pass


def put(part, field, value):
    return lambda m: setattr(part(m), field, value)


def cut(proto):
    first(proto).raw_data = first(proto).raw_data[:-4]


def lengthen(proto):
    first(proto).raw_data += b"12"


def relu(proto):
    return proto.graph.node[1]


ROWS = {
    "too short": (cut, "'w' has 92 bytes where its shape"),
    "too long": (lengthen, "'w' has 98 bytes where its shape"),
    "nothing": (lambda m: first(m).ClearField("raw_data"), r"'w' has 0 numbers where its shape \[6, 4\] takes 24"),
    "huge": (lambda m: first(m).dims.append(10**17), "has the shape .* which none can have"),
    "overflow": (lambda m: first(m).dims.extend([2**62, 8]), "has the shape .* which none can have"),
    "negative": (lambda m: first(m).dims.append(-1), "has the shape .* which none can have"),
    "type 99": (put(first, "data_type", 99), "is of the element type 99, which does not exist"),
    "type 0": (put(first, "data_type", 0), "is of the element type 0, which does not exist"),
    "constant short": (put(constant, "raw_data", b"1234"), r"of node 'k' \(Constant\) has 4 bytes", ADDED),
    "constant type": (put(constant, "data_type", 99), "of node 'k' .* element type 99", ADDED),
    "unknown attribute": (attribute(helper.make_attribute("zz", 1)), r"'t' \(LeakyRelu\): it has an attribute 'zz'"),
    "its type": (attribute(helper.make_attribute("alpha", 1)), "'alpha' is a INT, not a FLOAT as the operator's"),
    "attribute twice": (attribute(*[helper.make_attribute("alpha", 0.5)] * 2), "has two attributes of one name"),
    "no type": (attribute(TYPELESS), "attribute 'alpha' has no value"),
    "type without value": (attribute(AttributeProto(name="alpha", type=AttributeProto.GRAPH)), "'alpha' has no value"),
    "missing": (lambda m: m.graph.node[0].ClearField("attribute"), "lacks the attribute 'to'", CAST),
    "inputs": (lambda m: relu(m).input.append("h"), "it has 2 inputs where the operator has 1"),
    "outputs": (lambda m: relu(m).output.append("t2"), "it has 2 outputs where the operator has 1"),
    "reads nothing": (as_is, r"node 'g' \(Relu\) reads 'zz', which nothing in the file provides", BRANCH),
    "output of nothing": (put(lambda m: m.graph.output[0], "name", "none"), "output 'none' is the result of no node"),
    "unknown operator": (put(relu, "op_type", "Swirl"), r"onnxruntime does not take the model: .*\(\"\", Swirl"),
    "unknown domain": (put(relu, "domain", "my.ops"), "No opset import for domain 'my.ops'"),
    "axis": (as_is, "'axis' must be in", SOFTMAX),
    "types": (as_is, "onnxruntime does not take the model: .*bound to different types", DOUBLES),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_is_refused_by_name(row, tmp_path):
    change, message, *body = row
    proto = changed(change, *body)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(proto, {"x": X})
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    for given in (proto, tmp_path / "m.onnx"):
        with pytest.raises(ModelError, match=message):
            Explainer(given)(X)
        with pytest.raises(ModelError, match=message):
            fgonnx.inspect(given)


class TestContent:
    """Files whose bytes are no model."""

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\x00\x01\x02", "is not an ONNX file, or is truncated"),
            (net().SerializeToString()[:-30], "is not an ONNX file, or is truncated"),
            (
                net().SerializeToString().replace(b"LeakyRelu", b"Leaky\xff\xfe\xfdu"),
                "text b'Leaky.*' is not UTF-8",
            ),
            (
                changed(lambda m: setattr(first(m), "name", "QQ")).SerializeToString().replace(b"QQ", b"\xff\xfe"),
                "is not UTF-8",
            ),
        ],
    )
    def test_is_refused(self, content, message, tmp_path):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=message):
            load(content)
        with pytest.raises(ModelError, match=message):
            load(tmp_path / "m.onnx")
        result = command("inspect", tmp_path / "m.onnx")
        assert result.exit_code == 2
        assert isinstance(result.exception, SystemExit)

    def test_fields_that_onnx_does_not_have_are_passed_over(self, tmp_path):
        # a group, as protobuf wrote before version 3; onnxruntime takes the file
        proto = changed(lambda m: None, large=np.zeros((200, 200), np.float32))
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString() + b"\xa3\x06\xa4\x06")
        found = Explainer(tmp_path / "m.onnx")(X)
        np.testing.assert_allclose(found.outputs["y"], run(tmp_path / "m.onnx", {"x": X})["y"], rtol=1e-5)


class TestSizes:
    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ("3,1000000,1000000", "holds more than 2,147,483,648 numbers"),
            ("3,4611686018427387904,8", "holds more than"),
            ("3,0,8", "holds no numbers"),
            ("3,-5,8", "'x' has a size below zero"),
            ("3,-1,8", "has free sizes; give them"),
        ],
    )
    def test_no_input_can_have(self, sizes, message):
        proto = model(
            f"(float[N,{sizes.replace('-', 'H')}] x) => (float[N,M] y) {{g = GlobalAveragePool(x) y = Flatten(g)}}"
        )
        for dim, size in zip(
            proto.graph.input[0].type.tensor_type.shape.dim[1:], map(int, sizes.split(",")), strict=True
        ):
            dim.dim_value = size
        with pytest.raises(ModelError, match=message):
            fgonnx.rewrite(proto)

    def test_a_negative_batch_is_a_free_one(self):
        # as old converters write it
        proto = small_cnn()
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
        x = np.random.default_rng(0).standard_normal((3, 3, 8, 6)).astype(np.float32)
        np.testing.assert_array_equal(Explainer(proto)(x).saliency, Explainer(small_cnn())(x).saliency)


class TestWeightsElsewhere:
    @staticmethod
    def external(**entries):
        def change(proto):
            tensor = first(proto)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)

        return changed(change)

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ({"location": "w.bin", "offset": "-8"}, "the initializer 'w' lies at byte -8 of a file"),
            ({"location": "w.bin", "offset": "0", "length": "-8"}, "-8 bytes long, where its shape .* takes 96"),
            ({"location": "w.bin", "length": "12"}, "12 bytes long, where its shape .* takes 96"),
            ({"location": "w.bin", "offset": "many"}, "lies at byte many of a file"),
            ({"offset": "0"}, "the initializer 'w' is in a file that is not named"),
            ({"location": "q" * 5000}, r"qqq\.\.\.' is missing"),
            ({"location": "w.bin", "offset": "8"}, "is truncated: 'w' ends at byte 104, the file at 96"),
            ({"location": "../w.bin"}, "point outside the model's folder"),
            ({"location": "/etc/passwd"}, "point outside the model's folder"),
        ],
    )
    def test_in_no_place_are_refused(self, entries, message, tmp_path):
        (tmp_path / "w.bin").write_bytes(bytes(96))
        (tmp_path / "m.onnx").write_bytes(self.external(**entries).SerializeToString())
        with pytest.raises(ModelError, match=message):
            load(tmp_path / "m.onnx")

    def test_of_constants_count_too(self, tmp_path):
        proto = net(ADDED)
        tensor = constant(proto)
        tensor.Clear()
        tensor.CopyFrom(TensorProto(name="k", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL))
        tensor.external_data.add(key="location", value="../../etc/passwd")
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(ModelError, match="the weights of 'k' point outside the model's folder"):
            load(tmp_path / "m.onnx")


class TestSparse:
    VALUES = np.array([2.0, -3.0], np.float32)

    @pytest.mark.parametrize("indices", [np.array([1, 7]), np.array([[0, 1], [1, 3]])], ids=["linear", "coordinates"])
    @pytest.mark.parametrize("place", ["initializer", "Constant"])
    def test_constants_are_written_out(self, indices, place):
        proto = net("h = MatMul(x, w) s = MatMul(h, q) t = Relu(s) y = MatMul(t, v)", q=np.eye(4, dtype=np.float32))
        del proto.graph.initializer[-1]
        sparse = onnx.helper.make_sparse_tensor(
            numpy_helper.from_array(self.VALUES, "q"), numpy_helper.from_array(indices, "where"), [4, 4]
        )
        if place == "Constant":
            proto.graph.node.insert(0, NODE("Constant", [], ["q"], sparse_value=sparse))
        elif indices.ndim == 1:
            proto.graph.sparse_initializer.append(sparse)
        else:
            indices = np.array([[0, 1], [1, 3]])
            proto.graph.sparse_initializer.append(sparse)
        dense = np.zeros(16, np.float32)
        dense[[1, 7]] = self.VALUES
        weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        truth = np.maximum(X @ weights["w"] @ dense.reshape(4, 4), 0) @ weights["v"]
        np.testing.assert_allclose(Explainer(proto, verify=False)(X).outputs["y"], truth, rtol=1e-4, atol=1e-6)
        if place == "initializer":
            np.testing.assert_allclose(run(proto, {"x": X})["y"], truth, rtol=1e-4, atol=1e-6)


class TestRuns:
    """What fails while it runs: said of the model where it fails, too."""

    def source(self):
        body = """i = Cast<to=7>(x) s = ReduceMax<keepdims=0>(i) h = Gather<axis=0>(table, s)
            m = MatMul(x, w) t = Relu(m) z = MatMul(t, v) y = Mul(z, h)"""
        return net(body, table=np.ones(3, np.float32))

    def test_is_the_models_own(self):
        explainer = Explainer(self.source())
        explainer(np.abs(X))
        with pytest.raises(ModelError, match=r"^net: onnxruntime failed to run the model: .*Gather"):
            explainer(X + 90)

    def test_is_said_of_what_was_added(self, monkeypatch):
        explainer = Explainer(self.source())
        session = explainer.engine().session

        def fails(feeds, outputs=None):
            raise ModelError("onnxruntime failed to run the model: a node of its own")

        monkeypatch.setattr(session, "run", fails)
        with pytest.raises(ModelError, match=r"^net: onnxruntime runs the model, but not what fgonnx wrote beside it"):
            explainer(np.abs(X))

    def test_sessions_are_told_apart(self, monkeypatch):
        def fails(self, model, folder):
            raise ModelError("onnxruntime does not take the model: a node of its own")

        explainer = Explainer(self.source())
        monkeypatch.setattr(type(explainer.running), "session", fails)
        with pytest.raises(ModelError, match=r"^net: onnxruntime runs the model, but not what fgonnx wrote beside it"):
            explainer(np.abs(X))

    def test_a_fault_of_the_rewriter_is_told_as_one(self, monkeypatch):
        def fails(*args, **kwargs):
            raise KeyError("nothing")

        monkeypatch.setattr("fgonnx.engine.rewrite.rewrite.normalise", fails)
        with pytest.raises(
            ModelError, match=r"cannot be rewritten, although onnxruntime takes it \(KeyError: .*a fault of"
        ):
            Explainer(self.source())(X)

    def test_memory_that_there_is_not_is_no_fault(self, monkeypatch):
        def fails(*args, **kwargs):
            raise MemoryError("Unable to allocate 768. GiB")

        monkeypatch.setattr("fgonnx.engine.rewrite.rewrite.normalise", fails)
        with pytest.raises(ModelError, match="takes more memory than there is: Unable to allocate"):
            Explainer(self.source())(X)


class TestBeforeAnythingIsRun:
    """Nodes and loops that onnxruntime refuses, or would never leave."""

    @pytest.mark.parametrize("perm", [[9, 8, 1, 2], [0, 0, 1, 2], [-1, 0, 1, 2]])
    def test_axes_that_are_none(self, perm):
        proto = model(f"(float[1,3,8,8] x) => (float[N,M] y) {{ t = Transpose<perm={perm}>(x) y = Flatten(t) }}")
        with pytest.raises(ModelError, match="onnxruntime does not take the model"):
            Explainer(proto)(np.zeros((1, 3, 8, 8), np.float32))

    @pytest.mark.parametrize("steps", [2**31, 10**6, 2**62])
    @pytest.mark.parametrize("condition", ["y", ""])
    def test_a_loop_that_nothing_ends(self, steps, condition):
        proto = looping(steps, condition)
        with pytest.raises(ModelError, match=r"written out, its steps are .* nodes, more than the bound of 100,000"):
            load(proto)

    def test_a_loop_that_its_condition_ends(self):
        proto = looping(2**62, "y")
        body = proto.graph.node[0].attribute[0].g
        body.node[0].op_type = "Not"
        load(proto)


def looping(steps, condition):
    value, kind = helper.make_tensor_value_info, TensorProto
    body = helper.make_graph(
        [NODE("Identity", ["go"], ["on"]), NODE("Relu", ["a"], ["b"])],
        "body",
        [value("i", kind.INT64, []), value("go", kind.BOOL, []), value("a", kind.FLOAT, None)],
        [value("on", kind.BOOL, []), value("b", kind.FLOAT, None)],
    )
    weights = [numpy_helper.from_array(np.array(steps), "n"), numpy_helper.from_array(np.array(True), "y")]
    graph = helper.make_graph(
        [NODE("Loop", ["n", condition, "x"], ["z"], body=body)],
        "loop",
        [value("x", kind.FLOAT, ["N", 6])],
        [value("z", kind.FLOAT, ["N", 6])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
