"""Sequences of known length are the tensors they hold; others are refused by the model's own node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.graph.session import Session
from fgonnx.errors import UnsupportedError
from tests.integer_networks import network, pictures, slope

LOOP = """n = SequenceLength(q)
        e0 = SequenceEmpty()
        all = Loop(n, go, e0) <body = b (int64 i, bool c, seq(float) acc) => (bool d, seq(float) acc2) {
            d = Identity(c)
            e = SequenceAt(q, i)
            r = Relu(e)
            acc2 = SequenceInsert(acc, r)
        }>
        t = ConcatFromSequence<axis=1>(all)"""
MORE = {
    "go": np.array(True),
    "minus1": np.int64(-1),
    "zero": np.int64(0),
    "one": np.int64(1),
    "uneven": np.array([1, 3], np.int64),
    "ax1": np.array([1], np.int64),
}
S = "q = SplitToSequence<axis=1>(y, two)\n"

KNOWN = {
    "split and joined": S + "t = ConcatFromSequence<axis=1>(q)",
    "split unevenly": "q = SplitToSequence<axis=1>(y, uneven)\nt = ConcatFromSequence<axis=1>(q)",
    "split into single entries": "q = SplitToSequence<axis=1>(y)\nt = ConcatFromSequence<axis=1>(q)",
    "split into rows without the axis, stacked": """q = SplitToSequence<axis=1, keepdims=0>(y)
        t = ConcatFromSequence<axis=1, new_axis=1>(q)""",
    "the last part does not fill its size": """q = SplitToSequence<axis=2>(y, three)
        a = SequenceAt(q, minus1)
        b0 = SequenceAt(q, zero)
        t = Concat<axis=2>(a, b0)""",
    "an axis from the end": "q = SplitToSequence<axis=-1>(y, two)\nt = SequenceAt(q, one)",
    "elements": S + "a = SequenceAt(q, minus1)\nb0 = SequenceAt(q, zero)\nt = Concat<axis=1>(a, b0)",
    "built and read": """h = Sigmoid(y)
        q = SequenceConstruct(y, h, y)
        q1 = SequenceErase(q, zero)
        t = SequenceAt(q1, zero)""",
    "the last one erased": """h = Sigmoid(y)
        q = SequenceConstruct(y, h, y)
        q1 = SequenceErase(q)
        t = ConcatFromSequence<axis=2>(q1)""",
    "inserted in front and in the middle": """h = Sigmoid(y)
        g = Neg(y)
        e = SequenceEmpty()
        q1 = SequenceInsert(e, h)
        q2 = SequenceInsert(q1, g, zero)
        q3 = SequenceInsert(q2, y, minus1)
        t = ConcatFromSequence<axis=3>(q3)""",
    "a length as a number": S
    + "n = SequenceLength(q)\nnumber = Cast<to=1>(n)\na = ConcatFromSequence<axis=1>(q)\nt = Mul(a, number)",
    "a loop over the elements": S + LOOP,
    "a map over the elements": S
    + """q1 = SequenceMap(q) <body = b (float[N,2,8,8] e) => (float[N,2,8,8] r) { r = Sigmoid(e) }>
        t = ConcatFromSequence<axis=1>(q1)""",
    "an element that is chosen by a constant condition": S
    + """n = SequenceLength(q)
        whether = Equal(n, two)
        t0 = If(whether) <
            then_branch = g () => (float[N,2,8,8] a) { a = SequenceAt(q, one) },
            else_branch = h () => (float[N,2,8,8] b1) { b1 = SequenceAt(q, zero) }>
        t = Concat<axis=1>(t0, t0)""",
    "beside a skip": S + "a = ConcatFromSequence<axis=1>(q)\nr = Relu(a)\nt = Add(y, r)",
    "an optional tensor": "o = Optional(y)\nt = OptionalGetElement(o)",
    "an optional sequence": S + "o = Optional(q)\nq1 = OptionalGetElement(o)\nt = ConcatFromSequence<axis=1>(q1)",
    "an optional tensor that is there": """o = Optional(y)
        whether = OptionalHasElement(o)
        t = If(whether) <
            then_branch = g () => (float[N,4,8,8] a) { a = OptionalGetElement(o) },
            else_branch = h () => (float[N,4,8,8] b1) { b1 = Neg(y) }>""",
    "constants among the elements": """q = SequenceConstruct(y, row4)
        a = SequenceAt(q, zero)
        c = SequenceAt(q, one)
        t = Mul(a, c)""",
    "along the batch, one sample at a time": """q = SplitToSequence<axis=0>(y, one)
        t = ConcatFromSequence<axis=0>(q)""",
    "a sequence of constants": """q = SequenceConstruct(zero, one)
        i = SequenceAt(q, one)
        j = Unsqueeze(i, top)
        h = Gather<axis=1>(y, j)
        t = Add(y, h)""",
}


def built(branch: str) -> onnx.ModelProto:
    more = MORE | {
        "three": np.int64(3),
        "row4": np.arange(1, 5).astype(np.float32).reshape(1, 4, 1, 1),
        "top": np.array([0], np.int64),
    }
    return network(branch, more=more)


@pytest.mark.parametrize("case", KNOWN)
def test_what_a_known_sequence_holds_is_explained(case: str) -> None:
    regression, correlation = slope(built(KNOWN[case]), pictures(), 1e-3, directions=20)
    assert regression == pytest.approx(1, abs=0.01)
    assert correlation > 0.999


#: Branches whose sequences are read at places, or have lengths, that follow from the input; the nodes that are named.
UNKNOWN = {
    "a place": (
        "[parts] q = SplitToSequence<axis=1>(y, two)\nm = ReduceMax<keepdims=0>(y)\nwhether = Greater(m, f0)\n"
        "i = Cast<to=7>(whether)\n[read] a = SequenceAt(q, i)\nt = Concat<axis=1>(a, a)",
        ["parts", "read"],
    ),
    "a choice between sequences": (
        """m = ReduceMax<keepdims=0>(y)
        whether = Greater(m, f0)
        [choice] q = If(whether) <
            then_branch = g () => (seq(float) a) { a = SequenceConstruct(y) },
            else_branch = h () => (seq(float) b1) { b1 = SequenceConstruct(y, y) }>
        [join] t = ConcatFromSequence<axis=2>(q)""",
        ["choice", "join"],
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_refused_by_the_models_own_nodes(case: str) -> None:
    branch, names = UNKNOWN[case]
    Session(built(branch)).run({"x": pictures()})  # it is a model that runs
    with pytest.raises(UnsupportedError) as caught:
        fgonnx.rewrite(built(branch))
    assert [r.node for r in caught.value.refusals] == names
