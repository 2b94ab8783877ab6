"""Quantisation by hand: slopes are those of differences over steps far above the quantum."""

from __future__ import annotations

import numpy as np
import pytest

import fgonnx
from fgonnx.errors import UnsupportedError
from tests.integer_networks import network, pictures, slope

MORE = {
    "least": np.float32(-128),
    "most": np.float32(127),
    "zero": np.float32(0),
    "all": np.array([1, 2, 3], np.int64),
    "many": np.float32(1 / 0.03),
    "half": np.float32(0.5),
    "full": np.float32(255),
}

BY_HAND = {
    "in a chain": "a = Div(y, s)\nr = Round(a)\nc = Clip(r, least, most)\nt = Mul(c, s)",
    "beside a skip": "a = Div(y, s)\nr = Round(a)\nc = Clip(r, least, most)\nd = Mul(c, s)\nt = Add(y, d)",
    "bounds first": "a = Div(y, s)\nc = Clip(a, least, most)\nr = Round(c)\nd = Mul(r, s)\nt = Add(y, d)",
    "a zero point": """a = Mul(y, many)
        a1 = Add(a, f3)
        r = Floor(a1)
        c = Clip(r, least, most)
        c1 = Sub(c, f3)
        t = Mul(c1, s)""",
    "rounded by Floor": "a = Div(y, s)\na1 = Add(a, half)\nr = Floor(a1)\nt = Mul(r, s)",
    "undone by a division": "a = Mul(y, many)\nr = Ceil(a)\nt = Div(r, many)",
    "scales by channel": "a = Div(y, sc4)\nr = Round(a)\nd = Mul(r, sc4)\nt = Add(y, d)",
    "a scale that follows from the input": """a = Abs(y)
        m = ReduceMax<keepdims=1>(a, all)
        scale = Div(m, most)
        a1 = Div(y, scale)
        r = Round(a1)
        t = Mul(r, scale)""",
    "stored as int8": """a = Div(y, s)
        r = Round(a)
        c = Clip(r, least, most)
        q = Cast<to=3>(c)
        e = Cast<to=1>(q)
        d = Mul(e, s)
        t = Add(y, d)""",
    "multiplied as integers": """a = Div(y, s)
        r = Round(a)
        c = Clip(r, least, most)
        q = Cast<to=3>(c)
        m = MatMulInteger(q, w8)
        e = Cast<to=1>(m)
        d = Mul(e, fine)
        t = Add(y, d)""",
    "stored as int32": "a = Div(y, s)\nr = Round(a)\nq = Cast<to=6>(r)\ne = Cast<to=1>(q)\nt = Mul(e, s)",
    "stored as uint8, read by DequantizeLinear": """a = Div(y, s)
        a1 = Add(a, i128f)
        r = Round(a1)
        c = Clip(r, zero, full)
        q = Cast<to=2>(c)
        d = DequantizeLinear(q, s, zu)
        t = Add(y, d)""",
}


@pytest.mark.parametrize("case", BY_HAND)
def test_slopes_through_quantisation_by_hand_are_those_of_differences(case: str) -> None:
    regression, correlation = slope(network(BY_HAND[case], more=MORE | {"i128f": np.float32(128)}), pictures(), 0.04)
    assert regression == pytest.approx(1, abs=0.05)
    assert correlation > 0.98


def test_its_rounding_is_a_term_of_its_own() -> None:
    sites = fgonnx.Explainer(network(BY_HAND["in a chain"], more=MORE))(pictures()).sites
    assert [s.name for s in sites if s.kind == "quantisation"] == ["rounded/r::real"]


def test_whole_numbers_that_may_be_out_of_range_are_refused_by_name() -> None:
    branch = "a = Div(y, s)\nr = Round(a)\n[bad] q = Cast<to=3>(r)\ne = Cast<to=1>(q)\nd = Mul(e, s)\nt = Add(y, d)"
    with pytest.raises(UnsupportedError) as caught:
        fgonnx.rewrite(network(branch, more=MORE))
    assert [(r.node, r.op_type) for r in caught.value.refusals] == [("bad", "Cast")]


def test_places_that_are_rounded_are_a_choice() -> None:
    source = network(
        """g = Sigmoid(y)
        a = Mul(g, seven)
        r = Floor(a)
        q = Cast<to=7>(r)
        [places] t = GatherElements<axis=3>(y, q)""",
        more={"seven": np.float32(7)},
    )
    notes = fgonnx.Explainer(source)(pictures()).settings["notes"]
    assert "`GatherElements` 'places' chooses by index; its choice is held fixed" in notes


STEPS = {
    "multiplied twice by what follows from the input": "g = Sigmoid(y)\na = Mul(y, g)\nr = Round(a)\nt = Mul(r, g)",
    "scaled to another size": "a = Div(y, s)\nr = Round(a)\nt = Mul(r, s2)",
    "of a reciprocal": "g = Exp(y)\na = Div(f3, g)\nr = Round(a)\nt = Mul(r, g)",
}


@pytest.mark.parametrize("case", STEPS)
def test_steps_between_other_factors_are_none_of_a_quantiser(case: str) -> None:
    skip = STEPS[case].replace("\nt = ", "\nd = ") + "\nt = Add(d, y)"
    notes = fgonnx.Explainer(network(skip, more=MORE))(pictures()).settings["notes"]
    assert any("constant between its steps" in n for n in notes)


@pytest.mark.parametrize("op_type", ["Round", "Floor", "Ceil", "Sign"])
def test_steps_that_are_no_quantisation_are_noted(op_type: str) -> None:
    source = network(f"[stairs] r = {op_type}(y)\nt = Add(y, r)", more=MORE)
    explanation = fgonnx.Explainer(source)(pictures())
    note = f"`{op_type}` 'stairs' is constant between its steps; its derivative is 0"
    assert note in explanation.settings["notes"]
