"""`check` on models whose subgraphs read the explained input, on quantisers written by hand, and on what is zero."""

from dataclasses import replace

import numpy as np
import pytest

from fgonnx.audit.check import check
from fgonnx.audit.measure import Function
from fgonnx.audit.slopes import slope
from fgonnx.engine.walk import backward
from tests.support import draw, model

STEP = "m = MatMul(hh, w)\ns = Add(xt, m)\nho = Tanh(s)"
#: A recurrence from a state of zeros, whose body reads what is explained from the graph around it.
READERS = {
    "Loop": "z = Identity(h0)\nl = Loop(n, t, z) <body = b (int64 i, bool c, float[1,4] hh) => (bool co, float[1,4] ho)"
    "{ xt = Gather<axis=1>(d, i)\nSTEP\nco = Identity(c) }>",
    "Scan": "l, rows = Scan<num_scan_inputs=1, body = b (float[1,4] hh, int64 i) => (float[1,4] ho, float[1,4] yo)"
    "{ xt = Gather<axis=1>(d, i)\nSTEP\nyo = Identity(ho) }>(h0, places)",
    "Scan of two, backwards": "d1 = ReduceSum<keepdims=0>(d, zeroth)\n"
    "last, rows = Scan<num_scan_inputs=2, scan_input_directions=[1, 0],"
    "scan_output_directions=[1], body = b (float[4] hh, float[4] xs, int64 i) => (float[4] ho, float[4] yo)"
    "{ u = Unsqueeze(hh, zeroth)\nm1 = MatMul(u, w)\nm = Squeeze(m1, zeroth)\nxg = Gather<axis=0>(d1, i)\n"
    "xt = Mul(xs, xg)\ns = Add(xt, m)\nho = Tanh(s)\nyo = Identity(ho) }>(h1, d1, places)\n"
    "l = ReduceMean<keepdims=1>(rows, zeroth)",
    "Loop in an If": "l = If(t) <then_branch = p () => (float[1,4] a) { z = Identity(h0)\na = Loop(n, t, z) "
    "<body = b (int64 i, bool c, float[1,4] hh) => (bool co, float[1,4] ho) { xt = Gather<axis=1>(d, i)\nSTEP\n"
    "co = Identity(c) }> }, else_branch = q () => (float[1,4] e) { e = Identity(h0) }>",
    "If in a Loop": "z = Identity(h0)\nl = Loop(n, t, z) <body = b (int64 i, bool c, float[1,4] hh) => "
    "(bool co, float[1,4] ho) { xt = If(t) <then_branch = p () => (float[1,4] a) { a = Gather<axis=1>(d, i) },"
    "else_branch = q () => (float[1,4] e) { e = Identity(h0) }>\nSTEP\nco = Identity(c) }>",
}
BEFORE = {
    "float": "d = Identity(x)",
    "bfloat16": "q = Cast<to=16>(x)\nd = Cast<to=1>(q)",
    "float16": "q = Cast<to=10>(x)\nd = Cast<to=1>(q)",
    "QDQ": "q = QuantizeLinear(x, scale, zero)\nd = DequantizeLinear(q, scale, zero)",
}
NUMBERS = {
    "n": np.int64(5),
    "t": np.array(True),
    "h0": np.zeros((1, 4), np.float32),
    "h1": np.zeros(4, np.float32),
    "zeroth": np.array([0]),
    "places": np.arange(5),
    "scale": np.float32(0.02),
    "zero": np.int8(0),
}


def recurrent(reader, before):
    weights = draw(1, w=(4, 4), wo=(4, 3), w1=(20, 3))
    body = READERS[reader].replace("STEP", STEP)
    text = f"{BEFORE[before]}\n{body}\nln = MatMul(l, wo)\nf = Flatten(d)\ng = MatMul(f, w1)\ny = Add(g, ln)"
    used = {k: v for k, v in NUMBERS.items() if k in text.replace("(", " ").replace(")", " ").replace(",", " ").split()}
    return model(f"(float[1,5,4] x) => (float[1,3] y) {{ {text} }}", weights=weights | used)


X = np.random.default_rng(2).normal(size=(1, 5, 4)).astype(np.float32) / 2


def slopes(source, x=X):
    return [c for c in check(source, x, head="output", threads=1).checks if "slope" in c.name]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("reader", READERS)
def test_a_right_gradient_through_a_subgraph_passes(reader, before):
    assert {c.verdict for c in slopes(recurrent(reader, before))} == {"passed"}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("reader", READERS)
def test_a_gradient_that_lacks_a_subgraph_fails(reader, before, monkeypatch):
    right = backward._linearise

    def linearise(op, node, *rest):
        local = right(op, node, *rest)
        return replace(local, vjp=lambda g: op.Mul(g, 0.0)) if node.op_type == "Tanh" else local

    monkeypatch.setattr(backward, "_linearise", linearise)
    verdicts = {c.verdict for c in slopes(recurrent(reader, before))}
    assert "failed" in verdicts
    assert "passed" not in verdicts


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "passed"), (0.5, "undecided"), (0.0, "undecided")])
def test_slopes_taken_forwards_do_not_outvote_differences_that_are_sure(factor, verdict):
    rng = np.random.default_rng(0)
    x, directions = rng.normal(size=(2, 6)), [rng.normal(size=(2, 6)) for _ in range(4)]
    wrong = factor * np.cos(x)
    f = Function(
        lambda x: np.sin(x).sum(1),
        lambda x: (np.sin(x).sum(1), factor * np.cos(x)),
        np.full(2, 1e-16),
        False,
        lambda i, moves, other: ((moves[:, 0] * wrong[i]).sum(1), False),
    )
    assert slope(f, x, wrong, directions, 1e-2, directions).verdict == verdict


def test_what_is_in_the_way_is_named():
    text = """b = Cast<to=16>(x)
        d = Cast<to=1>(b)
        q = SequenceConstruct(d, x)
        y = SequenceMap(q) <body = m (float[1,3,4] e) => (float[1,3,4] o) { o = Sin(e) }>
        z = ConcatFromSequence<axis=1>(y)"""
    found = slopes(model(f"(float[1,3,4] x) => (float[1,6,4] z) {{ {text} }}"), np.ones((1, 3, 4), np.float32) / 3)
    assert all("SequenceMap" in c.detail for c in found if c.verdict == "undecided")
    assert "passed" not in {c.verdict for c in found}


@pytest.mark.parametrize(
    "filled",
    [
        "s0 = SplitToSequence<axis=1, keepdims=1>(x, one)\ne = SequenceEmpty()\nq = Loop(n, t, e) <body = b (int64 i, "
        "bool c, seq(float) acc) => (bool co, seq(float) ao) { xt = SequenceAt(s0, i)\ng = Sin(xt)\n"
        "ao = SequenceInsert(acc, g)\nco = Identity(c) }>\ny = ConcatFromSequence<axis=1>(q)",
        "y0 = Loop(n, t, x) <body = b (int64 i, bool c, float[1,3,4] h) => (bool co, float[1,3,4] ho)"
        "{ ho = Sin(x)\nco = Identity(c) }>\ny = Identity(y0)",
    ],
    ids=["a sequence", "the state"],
)
def test_a_body_that_fills_what_it_returns_does_not_fail(filled):
    numbers = {"n": np.int64(3), "t": np.array(True)} | ({"one": np.int64(1)} if "one)" in filled else {})
    source = model(f"(float[1,3,4] x) => (float[1,3,4] y) {{ {filled} }}", weights=numbers)
    x = np.random.default_rng(0).random((1, 3, 4), np.float32)
    assert "failed" not in {c.verdict for c in slopes(source, x)}


QUANTISERS = {
    "divided and multiplied": "d = Div(x, s)\nr = Round(d)\nq = Mul(r, s)",
    "clipped after": "d = Div(x, s)\nr = Round(d)\nc = Clip(r, lo, hi)\nq = Mul(c, s)",
    "clipped before": "d = Div(x, s)\nc = Clip(d, lo, hi)\nr = Round(c)\nq = Mul(r, s)",
    "with a zero point": "d = Div(x, s)\na = Add(d, z)\nr = Round(a)\nc = Clip(r, none, most)\nb = Sub(c, z)\n"
    "q = Mul(b, s)",
    "multiplied and divided": "d = Mul(x, i)\nr = Round(d)\nq = Div(r, i)",
    "floored": "d = Div(x, s)\na = Add(d, half)\nr = Floor(a)\nq = Mul(r, s)",
    "stored": "d = Div(x, s)\na = Add(d, z)\nr = Round(a)\nc = Clip(r, none, most)\nu = Cast<to=2>(c)\n"
    "f = Cast<to=1>(u)\nb = Sub(f, z)\nq = Mul(b, s)",
    "scaled by its input": "a = Abs(x)\nm = ReduceMax(a, one)\nv = Div(m, hi)\nd = Div(x, v)\nr = Round(d)\n"
    "q = Mul(r, v)",
}
PARAMETERS = {"s": 0.02, "i": 50, "lo": -128, "hi": 127, "z": 120, "none": 0, "most": 255, "half": 0.5}


def quantised(form):
    weights = draw(3, k=(4, 3, 3, 3))
    text = QUANTISERS[form]
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {k: np.float32(v) for k, v in PARAMETERS.items() if k in words}
    used |= {"one": np.array([1, 2, 3])} if "one" in words else {}
    return model(
        f"(float[N,3,6,6] x) => (float[N,4] y) {{ {text}\nw = Conv(q, k)\np = Relu(w)\n"
        "g = GlobalAveragePool(p)\ny = Flatten(g) }",
        weights=weights | used,
    )


PICTURES = np.random.default_rng(4).normal(size=(2, 3, 6, 6)).astype(np.float32) / 2


@pytest.mark.parametrize("form", QUANTISERS)
def test_a_quantiser_written_by_hand_passes(form):
    assert [c.verdict for c in slopes(quantised(form), PICTURES)] == ["passed"] * 2


@pytest.mark.parametrize("form", QUANTISERS)
def test_half_the_gradient_behind_such_a_quantiser_does_not_pass(form, monkeypatch):
    right = backward._linearise

    def linearise(op, node, *rest):
        local = right(op, node, *rest)
        return replace(local, vjp=lambda g: op.Mul(g, 0.5)) if node.op_type == "Relu" else local

    monkeypatch.setattr(backward, "_linearise", linearise)
    assert "passed" not in {c.verdict for c in slopes(quantised(form), PICTURES)}


@pytest.mark.parametrize("cast", ["", "c = Cast<to=6>(m)\n"], ids=["read", "cast"])
def test_a_mask_of_any_name_hides_nothing_of_what_is_drawn(cast):
    given = "c" if cast else "m"
    source = model(
        f"({'bool' if cast else 'int32'}[1,3] m, float[1,3,8] x) => (float[1,3,8] y) {{ {cast}k = MatMul(x, w)\n"
        f"y = com.microsoft.MultiHeadAttention<num_heads=2>(x, k, k, , {given}) }}",
        weights=draw(5, w=(8, 8)),
    )
    found = check(source, input="x", head="output", samples=1, threads=1)
    assert [c.verdict for c in found.checks] == ["passed"] * 4


def test_a_score_and_its_slope_that_cancel_to_nothing_are_zero():
    text = "e = Exp(x)\nc = CumSum<reverse=1>(e, one)\nl = Log(c)\ny = Sub(x, l)"
    source = model(f"(float[N,6] x) => (float[N,6] y) {{ {text} }}", weights={"one": np.int64(1)})
    x = np.random.default_rng(7).normal(size=(2, 6)).astype(np.float32)
    found = check(source, x, 5, head="output", threads=1)
    assert "failed" not in {c.verdict for c in found.checks}


def test_bits_that_are_dropped_are_steps():
    source = model(
        '(uint8[N,6] x) => (float[N,3] y) { h = BitShift<direction="RIGHT">(x, four)\nf = Cast<to=1>(h)\n'
        "y = MatMul(f, w) }",
        weights=draw(6, w=(6, 3)) | {"four": np.uint8(4)},
    )
    x = np.random.default_rng(3).integers(0, 255, (1, 6)).astype(np.uint8)
    found = check(source, x, head="output", threads=1)
    assert "failed" not in {c.verdict for c in found.checks}
    assert any("BitShift" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(3))
def test_a_table_looked_up_by_what_is_quantised_does_not_fail(seed):
    table = (np.tanh((np.arange(256) - 128) / 60) * 100 + 128).astype(np.uint8)
    source = model(
        """(float[N,8] x) => (float[N,5] y) {
            q = QuantizeLinear(x, s, z)
            i = Cast<to=7>(q)
            t = Gather(table, i)
            d = DequantizeLinear(t, u, z)
            e = Add(d, x)
            y = MatMul(e, w)
        }""",
        weights=draw(seed, w=(8, 5))
        | {"s": np.float32(0.03), "u": np.float32(0.01), "z": np.uint8(128), "table": table},
    )
    x = np.random.default_rng(seed).normal(size=(2, 8)).astype(np.float32)
    assert "failed" not in {c.verdict for c in slopes(source, x)}
