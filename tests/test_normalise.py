"""Normal form: what each pass ensures, and that results stay the source's whatever was done to the graph."""

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

import fgonnx
from fgonnx.engine.graph import probe
from fgonnx.engine.graph.probe import BATCH, Probe, batch_factor, merge
from fgonnx.engine.graph.session import Session
from fgonnx.engine.model.load import load
from fgonnx.engine.normal import opset
from fgonnx.engine.normal.normalise import normalise
from fgonnx.errors import ModelError, UnsupportedError
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(3)
WEIGHTS = draw(w=(4, 3, 3, 3), b=(4,))


def normal(proto, **options):
    return normalise(load(proto), **options)


def results(form, feeds):
    proto = ir.to_proto(form.model)
    return run(proto, feeds)


def ops(form):
    return [n.op_type for n in form.model.graph]


class TestOpset:
    @pytest.mark.parametrize("opset", [7, 9, 11, 13, 17])
    def test_is_raised(self, opset):
        assert normal(small_cnn(opset=opset)).model.opset_imports[""] == 18

    def test_newer_stays(self):
        assert normal(small_cnn(opset=21)).model.opset_imports[""] == 21

    def test_raising_is_noted(self):
        assert "opset 9 raised to 18" in normal(small_cnn(opset=9)).notes

    def test_raising_keeps_every_weight(self):
        before = {t.name: numpy_helper.to_array(t) for t in small_cnn(opset=9).graph.initializer}
        after = normal(small_cnn(opset=9)).model.graph.initializers
        for name, array in before.items():
            np.testing.assert_array_equal(after[name].const_value.numpy(), array)

    # Operators whose meaning or signature changed, in the form of the opset named.
    OLD = [  # noqa: RUF012
        (7, "u = Upsample<mode='nearest', scales=[1.0,1.0,2.0,2.0]>(x)"),
        (7, "u = Upsample<mode='linear', scales=[1.0,1.0,2.0,2.0]>(x)"),
        (9, "s = Constant<value = float[4] {1.0,1.0,2.0,3.0}>() u = Upsample<mode='linear'>(x, s)"),
        (10, "s = Constant<value = float[4] {1.0,1.0,2.0,2.0}>() u = Resize<mode='linear'>(x, s)"),
        (10, "s = Constant<value = float[4] {1.0,1.0,2.0,2.0}>() u = Resize<mode='nearest'>(x, s)"),
        (7, "u = Dropout<ratio=0.5>(x)"),
        (9, "u = Pad<pads=[0,0,1,1,0,0,1,1], value=0.5>(x)"),
        (9, "u = Clip<min=-0.5, max=0.5>(x)"),
        (9, "u = Slice<axes=[2], starts=[1], ends=[7]>(x)"),
        (11, "u = Softmax<axis=1>(x)"),
        (11, "u = LogSoftmax<axis=2>(x)"),
        (11, "u = ReduceMean<axes=[2,3], keepdims=1>(x)"),
        (12, "u = ReduceSum<axes=[1], keepdims=1>(x)"),
        (11, "a = Squeeze<axes=[0]>(x) u = Unsqueeze<axes=[0]>(a)"),
        (12, "p, q, r = Split<axis=1, split=[1,1,1]>(x) u = Concat<axis=1>(r, p, q)"),
    ]

    @pytest.mark.parametrize(("opset", "body"), OLD, ids=lambda v: str(v)[:40])
    def test_raising_keeps_every_meaning(self, opset, body):
        body = body.replace("'", '"')
        source = model(f"(float[1,3,8,6] x) => (float[a,b,c,d] y) {{ {body} y = Identity(u) }}", opset, 7)
        before, after = run(source, {"x": X[:1]})["y"], results(normal(source), {"x": X[:1]})["y"]
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)

    def test_a_conversion_that_changes_the_results_is_refused(self, monkeypatch):
        # onnx's converter leaves a Resize of before opset 11 with the coordinates of today
        monkeypatch.setattr(opset, "_keep_old_resize", lambda graph: None)
        source = model(
            """(float[N,3,8,6] x) => (float[N,3,16,12] y) <float[4] s = {1.0, 1.0, 2.0, 2.0}> {
                y = Upsample<mode="linear">(x, s)
            }""",
            9,
        )
        with pytest.raises(ModelError, match="raising its opset from 9 to 18 changes its output 'y'"):
            normal(source)


class TestConstants:
    SOURCE = model(
        """(float[N,3,8,6] x) => (float[N,3,8,6] y) {
            c = Constant<value_float=2.0>()
            d = Constant<value = float[1,3,1,1] {1.0, 2.0, 3.0}>()
            m = Mul(x, c)
            y = Add(m, d)
        }"""
    )

    def test_become_initializers(self):
        assert ops(normal(self.SOURCE)) == ["Mul", "Add"]

    def test_leave_the_inputs(self):
        source = small_cnn(opset=8, ir_version=3)
        for tensor in source.graph.initializer:
            source.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        assert [v.name for v in normal(source).model.graph.inputs] == ["x"]

    # A shape computed from the input's, as exporters write it.
    CHAIN = model(
        """(float[N,3,8,6] x) => (float[N,f] y) <int64[1] rest = {-1}, int64 zero = {0}, int64[1] front = {0}> {
            shape = Shape(x)
            n = Gather(shape, zero)
            first = Unsqueeze(n, front)
            target = Concat<axis=0>(first, rest)
            y = Reshape(x, target)
        }"""
    )

    def test_a_computed_shape_still_takes_any_batch(self):
        np.testing.assert_array_equal(results(normal(self.CHAIN), {"x": X})["y"], X.reshape(3, -1))

    def test_a_computed_shape_is_known_exactly(self):
        dims = normal(self.CHAIN).outputs[0].shape.dims
        assert (batch_factor(dims[0]), dims[1]) == (1, 144)

    def test_what_follows_from_shapes_alone_is_folded(self):
        source = model(
            """(float[N,3,8,6] x) => (float[N,3,8,6] y) <int64 two = {2}> {
                shape = Shape(x)
                h = Gather(shape, two)
                f = Cast<to=1>(h)
                y = Div(x, f)
            }"""
        )
        assert ops(normal(source)) == ["Div"]


class TestFunctions:
    SOURCE = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "local": 1]>
        net (float[N,3,8,6] x) => (float[N,3,8,6] y) { a = local.swish(x)  y = local.swish(a) }
        <domain: "local", opset_import: ["": 18]>
        swish (v) => (w) { s = Sigmoid(v)  w = Mul(v, s) }"""
    )

    def test_are_inlined(self):
        assert ops(normal(self.SOURCE)) == ["Sigmoid", "Mul", "Sigmoid", "Mul"]

    def test_are_explained(self):
        e = fgonnx.Explainer(self.SOURCE)(X, 5)
        assert e.rounding_residual().max() < 1e-5


class TestBatch:
    def test_is_a_symbol(self):
        assert normal(small_cnn()).x.shape.dims[0] == ir.SymbolicDim(BATCH)

    @pytest.mark.parametrize("name", ["N", "batch_size", "unk__17", "1"])
    def test_has_one_name_whatever_it_was(self, name):
        assert normal(small_cnn(batch=name)).outputs[0].shape.dims[0] == ir.SymbolicDim(BATCH)

    @pytest.mark.parametrize("target", ["{1, -1}", "{1, 144}", "{-1, 144}"])
    def test_written_into_a_reshape_is_freed(self, target):
        source = model(f"(float[1,3,8,6] x) => (float[1,144] y) <int64[2] s = {target}> {{ y = Reshape(x, s) }}")
        np.testing.assert_array_equal(results(normal(source), {"x": X})["y"], X.reshape(3, 144))

    def test_freed_is_noted(self):
        assert "fixed batch size 1 made free, checked by running two samples" in normal(small_cnn(batch="1")).notes

    @pytest.mark.parametrize(("batch", "sessions"), [("N", 1), ("1", 2)])
    def test_takes_no_more_sessions_than_needed(self, batch, sessions, monkeypatch):
        opened = []
        monkeypatch.setattr(probe, "Session", lambda *a, **k: opened.append(a) or Session(*a, **k))
        normal(small_cnn(batch=batch))
        assert len(opened) == sessions

    def test_is_left_at_one_on_request(self):
        assert not normal(small_cnn(), one_by_one=True).batched

    def test_that_cannot_be_taken_is_noted(self):
        source = model("(float[N,3,8,6] x) => (float[N,3,8,6] y) { m = ReduceMax<keepdims=1>(x)  y = Div(x, m) }")
        assert "the graph does not take a batch: samples are run one by one" in normal(source).notes


class TestProbe:
    def probe(self, **shapes):
        return Probe(shapes, {}, {})

    @pytest.mark.parametrize(
        ("one", "two", "factors"),
        [((1, 3), (2, 3), [1, 0]), ((4, 3), (8, 3), [4, 0]), ((5,), (5,), [0]), ((), (), [])],
    )
    def test_dimensions_that_follow_the_batch_are_symbols(self, one, two, factors):
        assert [batch_factor(d) for d in merge(self.probe(v=one), self.probe(v=two))["v"]] == factors

    @pytest.mark.parametrize(("one", "two"), [((3,), (4,)), ((1, 2), (1,)), ((2,), (3,))])
    def test_other_dependence_is_given_up(self, one, two):
        assert merge(self.probe(v=one), self.probe(v=two)) is None


class TestInput:
    def test_of_strings_is_refused(self):
        with pytest.raises(ModelError, match="no input is an array of floats or of uint8"):
            normal(model("(string[N,3] x) => (string[N,3] y) { y = Identity(x) }"))

    def test_that_could_be_one_of_two_is_asked_for(self):
        source = model("(float[N,3,8,6] x, float[N,3,8,6] z) => (float[N,3,8,6] y) { y = Add(x, z) }")
        with pytest.raises(ModelError, match=r"name one \(input=\), or fix the others \(bind=\): x .*; z"):
            normal(source)

    def test_can_be_named(self):
        source = model("(float[N,3,8,6] x, float[N,3,8,6] z) => (float[N,3,8,6] y) { y = Add(x, z) }")
        assert normal(source, input_name="z").input_name == "z"

    def test_picture_goes_before_numbers(self):
        source = model("(float[N,2] z, float[N,2,8,6] x) => (float[N,2,8,6] y) { y = Add(x, x) }")
        assert normal(source).input_name == "x"


def test_sequences_are_named_when_refused():
    source = model(
        """(float[N,4,8,6] x) => (float[N,2,8,6] y) <int64 two = {2}> {
            parts = SplitToSequence<axis=1>(x, two)
            most = ReduceMax<keepdims=0>(x)
            place = Cast<to=7>(most)
            y = SequenceAt(parts, place)
        }"""
    )
    with pytest.raises(fgonnx.FgonnxError, match=r"SplitToSequence(.|\n)*SequenceAt"):
        fgonnx.rewrite(source)


def test_is_silent(capfd, caplog):
    with caplog.at_level(logging.WARNING):
        normal(small_cnn(opset=9))
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_leaves_the_model_given_alone():
    loaded = load(small_cnn(opset=9))
    before = ir.to_proto(loaded.ir)
    normalise(loaded)
    assert ir.to_proto(loaded.ir) == before


def test_operators_outside_the_standard_are_all_named_before_the_opset_is_raised() -> None:
    source = """<ir_version: 8, opset_import: ["": 13]> g (float[N, 4] x) => (float[N, 4] y) {
        [first] a = StatefulPartitionedCall (x)
        [second] y = Unheard (a)
    }"""
    with pytest.raises(UnsupportedError, match=r"(?s)'first' \(StatefulPartitionedCall.*'second' \(Unheard"):
        fgonnx.rewrite(onnx.parser.parse_model(source))
