"""What the steps of a recurrent layer add to the score lies at their time, however the layer is written."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import fgonnx
from fgonnx.engine.normal.expand import recurrent
from tests import skips
from tests.support import model
from tests.test_recurrence import CASES, layer, waves

STEPS = 7


def explained(source, x, **options):
    return fgonnx.Explainer(source, layout="NWC", **options)(x, 2)


@pytest.mark.parametrize("name", CASES)
def test_one_step_after_the_other_gives_the_signed_map_of_all_at_once(name, monkeypatch):
    source, x = layer(steps=STEPS, **CASES[name]), waves(1 if CASES[name].get("batch") == 1 else 3, STEPS)
    found = explained(source, x, psi="signed")
    monkeypatch.setattr(recurrent, "MOST_STEPS", 3)
    expected = explained(source, x, psi="signed")
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=2e-6 * np.abs(expected.saliency).max())
    assert found.localised_share().min() == pytest.approx(1)
    assert expected.localised_share().min() == pytest.approx(1)


@pytest.mark.parametrize("method", ["fullgrad", "net-fullgrad"])
@pytest.mark.parametrize("name", ["LSTM", "LSTM, both ways", "LSTM, lengths", "RNN"])
def test_the_maps_are_those_of_all_at_once(name, method, monkeypatch):
    source, x = layer(steps=STEPS, **CASES[name]), waves(1 if CASES[name].get("batch") == 1 else 3, STEPS)
    found = explained(source, x, method=method)
    monkeypatch.setattr(recurrent, "MOST_STEPS", 3)
    np.testing.assert_allclose(found.saliency, explained(source, x, method=method).saliency, rtol=1e-4, atol=1e-6)


def frames(kind="LSTM", *, last=True, rate=2):
    """A convolution over time with a stride, a recurrent layer over its frames, a dense head."""
    rng = np.random.default_rng(3)
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    arrays = {
        "k": 0.5 * rng.normal(size=(5, 2, 3)),
        "kb": 0.2 * rng.normal(size=5),
        "w": 0.6 * rng.normal(size=(1, gates * 4, 5)),
        "r": 0.4 * rng.normal(size=(1, gates * 4, 4)),
        "b": 0.3 * rng.normal(size=(1, 8 * gates)),
        "fc": rng.normal(size=(4, 3)),
        "fb": rng.normal(size=3),
    }
    read = "s = Gather <axis=0> (h, at)" if last else "s = ReduceMean <keepdims=0> (h, at)"
    at = "int64 at = {-1}" if last else "int64[1] at = {0}"
    text = f"""(float[N,2,24] x) => (float[N,3] y) <{at}, int64[1] one = {{1}}> {{
        c = Conv <strides=[{rate}], pads=[1,1]> (x, k, kb)
        u = Relu (c)
        t = Transpose <perm=[2,0,1]> (u)
        a = {kind} <hidden_size=4> (t, w, r, b)
        h = Squeeze (a, one)
        {read}
        p = MatMul (s, fc)
        y = Add (p, fb)
    }}"""
    return model(text, weights={n: a.astype(np.float32) for n, a in arrays.items()})


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("last", [True, False])
def test_all_but_the_head_has_a_place(kind, last):
    e = fgonnx.Explainer(frames(kind, last=last), psi="signed")(
        np.random.default_rng(1).normal(size=(2, 2, 24)).astype("f4"), 1
    )
    assert [s.name for s in e.sites if not s.in_map] == ["y"]
    assert {s.grid for s in e.sites if s.in_map} == {(24,), (12,)}
    np.testing.assert_allclose(e.saliency.sum(axis=1), e.localised(), rtol=1e-5)
    assert e.rounding_residual().max() < 1e-6


def test_a_step_that_decides_is_where_the_map_is():
    """Of a layer whose states do not depend on each other, the map of the last step is at the end."""
    source = frames("RNN")
    for tensor in source.graph.initializer:
        if tensor.name == "r":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 4, 4), np.float32), "r"))
    x = np.random.default_rng(1).normal(size=(1, 2, 24)).astype("f4")
    e = fgonnx.Explainer(source, psi="signed")(x, 1)
    assert not e.saliency[0, :20].any()
    assert np.abs(e.saliency[0, 21:]).min() > 0


def stacked():
    """A recurrent layer in both directions over the results of another, and the mean over time."""
    rng = np.random.default_rng(4)
    arrays = {
        "w": 0.6 * rng.normal(size=(2, 16, 3)),
        "r": 0.4 * rng.normal(size=(2, 16, 4)),
        "b": 0.3 * rng.normal(size=(2, 32)),
        "v": 0.6 * rng.normal(size=(2, 12, 8)),
        "s": 0.4 * rng.normal(size=(2, 12, 4)),
        "d": 0.3 * rng.normal(size=(2, 24)),
        "k": rng.normal(size=(8, 8, 3)),
        "kb": rng.normal(size=8),
        "fc": rng.normal(size=(8, 3)),
    }
    text = """(float[N,7,3] x) => (float[N,3] y) <int64[3] rows = {0, 0, 8}, int64[1] last = {2}> {
        t = Transpose <perm=[1,0,2]> (x)
        a = LSTM <hidden_size=4, direction="bidirectional"> (t, w, r, b)
        a1 = Transpose <perm=[0,2,1,3]> (a)
        a2 = Reshape (a1, rows)
        c = GRU <hidden_size=4, direction="bidirectional"> (a2, v, s, d)
        c1 = Transpose <perm=[0,2,1,3]> (c)
        c2 = Reshape (c1, rows)
        e = Transpose <perm=[1,2,0]> (c2)
        f = Conv <pads=[1,1]> (e, k, kb)
        g = Relu (f)
        m = ReduceMean <keepdims=0> (g, last)
        y = MatMul (m, fc)
    }"""
    return model(text, weights={n: a.astype(np.float32) for n, a in arrays.items()})


def test_what_is_behind_a_layer_has_a_place_too(monkeypatch):
    source, x = stacked(), waves(2, STEPS)
    found = fgonnx.Explainer(source, psi="signed")(x, 2)
    assert found.localised_share().min() == pytest.approx(1)
    monkeypatch.setattr(recurrent, "MOST_STEPS", 3)
    expected = fgonnx.Explainer(source, psi="signed")(x, 2)
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=2e-6 * np.abs(expected.saliency).max())


def scanned(axis=0, direction=0):
    """A Scan of the model's own, unrolled: h = tanh(x_t + 0.5 h + 0.1), and the mean over all steps."""
    h, x, y, u = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("h", "x_t", "h_out", "row"))
    half, more = (numpy_helper.from_array(np.array(v, np.float32), n) for v, n in ((0.5, "half"), (0.1, "more")))
    nodes = [
        helper.make_node("Mul", ["h", "half"], ["m"]),
        helper.make_node("Add", ["x_t", "m"], ["a"]),
        helper.make_node("Add", ["a", "more"], ["b"]),
        helper.make_node("Tanh", ["b"], ["h_out"]),
        helper.make_node("Identity", ["h_out"], ["row"]),
    ]
    body = helper.make_graph(nodes, "step", [h, x], [y, u], [half, more])
    directions = {"scan_input_directions": [direction], "scan_output_directions": [direction]}
    scan = helper.make_node(
        "Scan", ["h0", "x2"], ["last", "rows"], body=body, num_scan_inputs=1, scan_input_axes=[axis], **directions
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["x", "zero"], ["x2"]),
            scan,
            helper.make_node("ReduceSum", ["rows", "zero"], ["s"], keepdims=0),
            helper.make_node("Unsqueeze", ["s", "zero"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 3] if axis == 0 else [1, 3, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [
            numpy_helper.from_array(np.zeros(3, np.float32), "h0"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(("axis", "direction"), [(0, 0), (0, 1), (1, 0)])
def test_steps_of_a_scan_of_the_models_own_have_a_place(axis, direction):
    source = scanned(axis, direction)
    onnx.checker.check_model(source)
    x = np.random.default_rng(2).normal(size=(1, 6, 3) if axis == 0 else (1, 3, 6)).astype("f4")
    e = fgonnx.Explainer(source, layout="NWC" if axis == 0 else "NCW", psi="signed")(x, 1)
    assert e.localised_share()[0] == pytest.approx(1)
    np.testing.assert_allclose(e.saliency.sum(), e.score[0], rtol=1e-5)


def test_steps_that_read_one_entry_again_and_again_have_no_place():
    """A Scan over something else, each step of which reads the last entry in time: that is not when it happens."""
    h, u, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("h", "u", "h_out"))
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["x2", "at"], ["e"], axis=0),
            helper.make_node("Add", ["e", "h"], ["a"]),
            helper.make_node("Add", ["a", "u"], ["b"]),
            helper.make_node("Tanh", ["b"], ["h_out"]),
        ],
        "step",
        [h, u],
        [y],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["x", "zero"], ["x2"]),
            helper.make_node("Scan", ["h0", "us"], ["s"], body=body, num_scan_inputs=1),
            helper.make_node("Unsqueeze", ["s", "zero"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [
            numpy_helper.from_array(np.zeros(3, np.float32), "h0"),
            numpy_helper.from_array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), "us"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
            numpy_helper.from_array(np.array(5, np.int64), "at"),
        ],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    e = fgonnx.Explainer(source, layout="NWC")(np.random.default_rng(2).normal(size=(1, 6, 3)).astype("f4"), 1)
    assert [s.in_map for s in e.sites] == [True] + [False] * (len(e.sites) - 1)


def cells():
    """Cells of torch that are called in a loop, which the exporter writes out: a module and an input for each."""
    torch = skips.without("torch")
    nn = torch.nn

    class Loop(nn.Module):
        def __init__(self, kind, *, backwards=False, strided=False, stacked=False):
            super().__init__()
            self.conv = nn.Conv1d(3, 3, 3, stride=2, padding=1) if strided else None
            self.cell, self.f = getattr(nn, kind)(3, 8), nn.Linear(8, 4)
            self.above = getattr(nn, kind)(8, 8) if stacked else None
            self.backwards, self.pair = backwards, kind == "LSTMCell"

        def forward(self, x):
            if self.conv is not None:
                x = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
            zero = torch.zeros(x.shape[0], 8)
            h = k = (zero, zero) if self.pair else zero
            steps = range(x.shape[1])
            for t in reversed(steps) if self.backwards else steps:
                h = self.cell(x[:, t], h)
                if self.above is not None:
                    k = self.above(h[0] if self.pair else h, k)
            last = h if self.above is None else k
            return self.f(last[0] if self.pair else last)

    torch.manual_seed(0)
    return {
        "LSTM": Loop("LSTMCell"),
        "GRU": Loop("GRUCell"),
        "RNN": Loop("RNNCell"),
        "LSTM, backwards": Loop("LSTMCell", backwards=True),
        "GRU behind a stride": Loop("GRUCell", strided=True),
        "two LSTMs": Loop("LSTMCell", stacked=True),
    }


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN", "LSTM, backwards", "GRU behind a stride", "two LSTMs"])
def test_steps_that_an_exporter_has_written_out_have_a_place(name):
    torch, found = skips.without("torch"), cells()[name]
    file, x = io.BytesIO(), torch.randn(1, 8, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(found.eval(), x, file, dynamo=False, input_names=["x"], output_names=["y"])
    e = fgonnx.Explainer(file.getvalue(), psi="signed")(x.numpy(), 1)
    assert [s.name for s in e.sites if not s.in_map] == ["y"]
    np.testing.assert_allclose(e.saliency.sum(axis=1), e.localised(), rtol=1e-4, atol=1e-6)


READ = {
    "Gather": "e{t} = Gather<axis=1>(x, i{t})",
    "Slice and Squeeze": "p{t} = Slice(x, a{t}, b{t}, one) e{t} = Squeeze(p{t}, one)",
    "Slice to the end": "p{t} = Slice(x, a{t}, c{t}, one) e{t} = Squeeze(p{t}, one)",
    "Split and Squeeze": "e{t} = Squeeze(q{t}, one)",
}


def unrolled(how, count=5):
    """Return a recurrence that is written out, whose steps read their entries in some way."""
    step = "m{t} = MatMul(e{t}, w) s{t} = Add(m{t}, k) l{t} = MatMul(h{t}, r) d{t} = Add(s{t}, l{t}) h{u} = Tanh(d{t})"
    steps = " ".join(f"{READ[how]} {step}".format(t=t, u=t + 1) for t in range(count))
    ends = [t + 1 if t < count - 1 else 2**63 - 1 for t in range(count)]
    numbers = "".join(
        f"int64 i{t} = {{{t}}}, int64[1] a{t} = {{{t}}}, int64[1] b{t} = {{{t + 1}}}, int64[1] c{t} = {{{ends[t]}}}, "
        for t in range(count)
    )
    parted = f"{', '.join(f'q{t}' for t in range(count))} = Split<axis=1, num_outputs={count}>(x)"
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1,{count},2] x) => (float[1,2] y)
        <{numbers} int64[1] one = {{1}}, float[2,2] w = {{1,-1, 0.5,1}}, float[2] k = {{0.25,0.5}},
         float[2,2] r = {{0.5,0, 0,-0.5}}, float[1,2] h0 = {{0,0}}, float[2,2] v = {{1,0, 0,1}}> {{
            {parted if how.startswith("Split") else ""} {steps} y = MatMul(h{count}, v) }}"""
    )


@pytest.mark.parametrize("how", READ)
def test_steps_have_the_same_place_however_they_read_their_entry(how):
    x = np.linspace(-1, 1, 10, dtype="f4").reshape(1, 5, 2)
    found, plain = (fgonnx.Explainer(unrolled(one), psi="signed", layout="NWC")(x, 0) for one in (how, "Gather"))
    assert [s.name for s in found.sites if not s.in_map] == []
    np.testing.assert_allclose(found.saliency, plain.saliency, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.saliency.sum(axis=1), found.score, rtol=1e-5)


def test_what_is_done_with_every_entry_alone_is_no_recurrence():
    """A dense layer that a loop calls for every entry: its maps are what they were."""
    text = """(float[N,4,3] x) => (float[N,2] y) <int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3}> {
        a0 = Gather<axis=1>(x, i0) b0 = Gemm(a0, w, b) r0 = Relu(b0)
        a1 = Gather<axis=1>(x, i1) b1 = Gemm(a1, w, b) r1 = Relu(b1)
        a2 = Gather<axis=1>(x, i2) b2 = Gemm(a2, w, b) r2 = Relu(b2)
        a3 = Gather<axis=1>(x, i3) b3 = Gemm(a3, w, b) r3 = Relu(b3)
        s = Sum(r0, r1, r2, r3) y = MatMul(s, v)
    }"""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(3, 5)), "b": rng.normal(size=5), "v": rng.normal(size=(5, 2))}
    source = model(text, weights={n: a.astype(np.float32) for n, a in weights.items()})
    e = fgonnx.Explainer(source, layout="NWC")(rng.normal(size=(2, 4, 3)).astype("f4"), 1)
    assert [s.in_map for s in e.sites] == [True, False, False, False, False]


def test_in_half_precision_too():
    wide, source = fgonnx.Explainer(frames(), psi="signed"), frames()
    for i, tensor in enumerate(source.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT:
            source.graph.initializer[i].CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
            )
    for v in (*source.graph.input, *source.graph.output):
        v.type.tensor_type.elem_type = TensorProto.FLOAT16
    x = np.random.default_rng(1).normal(size=(2, 2, 24)).astype(np.float16)
    found = fgonnx.Explainer(source, psi="signed")(x, 1)
    expected = wide(x.astype(np.float32), 1)
    assert {s.name for s in found.sites if not s.in_map and s.kind != "quantisation"} == {"widened/y::wide"}
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=0.02 * np.abs(expected.saliency).max())
