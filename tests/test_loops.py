"""A loop that would not end is refused before anything is run; one that a condition ends is not looked at."""

import numpy as np
import pytest
from onnx import parser

from fgonnx import Explainer
from fgonnx.engine.model.load import load
from fgonnx.errors import ModelError, UnsupportedError
from tests.support import run

HEAD = '<ir_version: 8, opset_import: ["": 18]> net (float[N,3] x) => (float[N,3] y)'
STEP = "(int64 i, bool c, float[N,3] a) => (bool c2, float[N,3] a2)"
ENDLESS = {
    "passed on": "<int64 m = {%d}, bool t = {1}> { y = Loop(m, t, x) <body = b " + STEP + " { c2 = Identity(c) "
    "a2 = Tanh(a) }> }",
    "always true": "<int64 m = {%d}, bool t = {1}> { y = Loop(m, t, x) <body = b " + STEP + " "
    "{ c2 = Constant<value = bool {1}>() a2 = Tanh(a) }> }",
    "a constant count": "<bool t = {1}> { m = Constant<value = int64 {%d}>() y = Loop(m, t, x) <body = b " + STEP + " "
    "{ c2 = Identity(c) a2 = Tanh(a) }> }",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("count", [9_000_000_000_000, 2**63 - 1, 10_000_001])
def test_absurd_counts_are_refused(body, count):
    with pytest.raises(ModelError, match=r"'y' \(Loop\).* more than "):
        load(parser.parse_model(f"{HEAD} {body % count}"))


def test_loops_inside_of_each_other_are_counted_together():
    inner = "(int64 j, bool d, float[N,3] e) => (bool d2, float[N,3] e2) { d2 = Identity(d) e2 = Tanh(e) }"
    body = f"{STEP} {{ c2 = Identity(c) a2 = Loop(m, t, a) <body = k {inner}> }}"
    text = f"{HEAD} <int64 m = {{%d}}, bool t = {{1}}> {{ y = Loop(m, t, x) <body = b {body}> }}"
    load(parser.parse_model(text % 200))
    with pytest.raises(ModelError, match="its steps are 320,000 nodes, more than the bound of 100,000"):
        load(parser.parse_model(text % 400))


def test_a_loop_inside_of_a_function_is_counted():
    text = (
        '<ir_version: 8, opset_import: ["": 18, "own": 1]> net (float[N,3] x) => (float[N,3] y) { y = own.f(x) } '
        '<domain: "own", opset_import: ["": 18]> f (x) => (y) { m = Constant<value = int64 {9000000000}>() '
        f"t = Constant<value = bool {{1}}>() y = Loop(m, t, x) <body = b {STEP} {{ c2 = Identity(c) a2 = Tanh(a) }}> }}"
    )
    with pytest.raises(ModelError, match=r"'y' \(Loop\): written out, its steps are 18,000,000,000 nodes"):
        load(parser.parse_model(text))


def test_a_count_that_a_condition_ends_is_taken():
    text = (
        f"{HEAD} <int64 m = {{9223372036854775807}}, bool t = {{1}}, int64 three = {{3}}> "
        f"{{ y = Loop(m, t, x) <body = b {STEP} {{ c2 = Less(i, three) a2 = Tanh(a) }}> }}"
    )
    load(parser.parse_model(text))


def test_a_short_loop_is_explained():
    found = Explainer(parser.parse_model(f"{HEAD} {ENDLESS['passed on'] % 4}"))(np.ones((2, 3), np.float32))
    assert found.rounding_residual().max() < 1e-5


KEEPS_GOING = {
    "an outer initializer": ("", "c2 = Identity(t)"),
    "an outer Constant": ("k = Constant<value = bool {1}>()", "c2 = Identity(k)"),
    "an outer Cast": ("o = Constant<value_int = 1>() k = Cast<to = 9>(o)", "c2 = Identity(k)"),
    "the outer value itself": ("o = Constant<value_int = 1>() k = Cast<to = 9>(o)", "c2 = And(k, c)"),
    "a Cast in the body": ("", "o = Constant<value_int = 1>() c2 = Cast<to = 9>(o)"),
    "a comparison": ("", "o = Constant<value_float = 1.5>() z = Constant<value_float = 2.0>() c2 = Less(o, z)"),
    "passed on twice": ("", "k = Identity(c) c2 = Identity(k)"),
    "both of two": ("", "k = Not(t) l = Not(k) c2 = And(c, l)"),
}
STOPS = {"after one step": ("", "c2 = Not(t)", 1), "an outer false": ("k = Not(t)", "c2 = And(k, c)", 1)}


def loop(before, condition, count=3, start="t"):
    step = f"{STEP} {{ {condition} a2 = Tanh(a) }}"
    return parser.parse_model(
        f"{HEAD} <int64 m = {{{count}}}, bool t = {{1}}> {{ {before} y = Loop(m, {start}, x) <body = b {step}> }}"
    )


@pytest.mark.parametrize(
    ("before", "condition", "steps"),
    [*((*given, 3) for given in KEEPS_GOING.values()), *STOPS.values()],
    ids=[*KEEPS_GOING, *STOPS],
)
def test_a_condition_that_constants_decide_is_known(before, condition, steps):
    x = np.full((2, 3), 0.5, np.float32)
    found = Explainer(loop(before, condition), method="gradient-x-input", psi="signed")(x, 0)
    wanted, slope = x[:, :1].astype(np.float64), 1.0
    for _ in range(steps):
        wanted = np.tanh(wanted)
        slope = slope * (1 - wanted**2)
    np.testing.assert_allclose(found.score, wanted[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.saliency.reshape(2, 3)[:, :1], slope * x[:, :1], rtol=1e-5)


@pytest.mark.parametrize(("before", "condition"), KEEPS_GOING.values(), ids=KEEPS_GOING)
def test_an_absurd_count_that_constants_do_not_end_is_refused(before, condition):
    with pytest.raises(ModelError, match="more than the bound"):
        load(loop(before, condition, 2**63 - 1))


def counted(first, condition, after="k2 = Add(k, one)", kind="int64", trips="", start="t"):
    """A Loop that carries a counter beside its data: (first, kind), what becomes of it, and the condition."""
    step = f"(int64 i, bool c, {kind} k, float[N,3] a) => (bool c2, {kind} k2, float[N,3] a2) "
    return parser.parse_model(
        f"{HEAD} <int64 m = {{9}}, bool t = {{1}}, {kind} k0 = {{{first}}}, {kind} one = {{1}}, {kind} five = {{5}}> "
        f"{{ z, y = Loop({trips}, {start}, k0, x) <body = b {step} {{ {after} {condition} a2 = Tanh(a) }}> }}"
    )


COUNTED = {
    "a while loop": (counted(2, "c2 = Less(k2, five)"), 3),
    "compared before it counts": (counted(2, "c2 = Less(k, five)"), 4),
    "a number of steps beyond": (counted(2, "c2 = Less(k2, five)", trips="m"), 3),
    "a number of steps before": (counted(-20, "c2 = Less(k2, five)", trips="m"), 9),
    "downwards": (counted(8, "c2 = Greater(k2, five)", "k2 = Sub(k, one)"), 3),
    "as numbers with fractions": (counted(2, "f = Cast<to = 1>(k2) g = Cast<to = 1>(five) c2 = Less(f, g)"), 3),
    "its own number": (counted(0, "c2 = Less(i, five)"), 6),
    "a counter that doubles": (counted(1, "c2 = LessOrEqual(k2, five)", "k2 = Add(k, k)"), 3),
    "one that wraps around": (counted(100, "z0 = Sub(one, one) c2 = Greater(k2, z0)", "k2 = Mul(k, five)", "int8"), 1),
    "rounded in its type": (counted(16777215, "c2 = Less(k, k2)", kind="float"), 2),
}


@pytest.mark.parametrize(("model", "steps"), COUNTED.values(), ids=COUNTED)
def test_a_condition_that_a_counter_decides_is_known(model, steps):
    x = np.full((2, 3), 0.5, np.float32)
    found = Explainer(model, method="gradient-x-input", psi="signed", output="y")(x, 0)
    wanted, slope = x[:, 0].astype(np.float64), 1.0
    for _ in range(steps):
        wanted = np.tanh(wanted)
        slope = slope * (1 - wanted**2)
    np.testing.assert_allclose(found.score, wanted, rtol=1e-6)
    np.testing.assert_allclose(found.saliency.reshape(2, 3)[:, 0], slope * x[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (counted(2, "c2 = Identity(c)"), "nothing ends its steps"),
        (counted(2, "c2 = Less(k2, five)", "k2 = Identity(k)"), "nothing ends its steps"),
        (counted(2, "c2 = Less(k2, five)", "zero = Sub(one, one) k2 = Add(k, zero)"), "nothing ends its steps"),
        (counted(2, "c2 = Less(k2, five)", "k2 = Sub(five, k)"), "nothing ends its steps"),
        (counted(1, "c2 = Less(k2, five)", "k2 = Sub(k, one)"), "more than the bound of 100,000"),
    ],
)
def test_a_while_loop_that_nothing_ends_is_refused(model, why):
    with pytest.raises(ModelError, match=why):
        load(model)


def test_too_many_steps_of_a_while_loop_are_refused():
    with pytest.raises(UnsupportedError, match="it has more than 512 steps"):
        Explainer(counted(-2000, "c2 = Less(k2, five)"))(np.ones((2, 3), np.float32))


def test_the_size_of_an_input_ends_a_while_loop():
    step = (
        "(int64 i, bool c, int64 k, float[N,3] s) => (bool c2, int64 k2, float[N,3] s2) "
        "{ k2 = Add(k, one) c2 = Less(k2, n) r = Gather<axis = 1>(x, k) s1 = Add(s, r) s2 = Tanh(s1) }"
    )
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> net (float[N,T,3] x) => (float[N,3] y) '
        "<int64 zero = {0}, int64 one = {1}, float[1,1] o = {0}> { d = Shape(x) n = Gather(d, one) go = Less(zero, n) "
        f"r0 = Gather<axis = 1>(x, zero) s0 = Mul(r0, o) k, y = Loop(, go, zero, s0) <body = b {step}> }}"
    )
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    found = Explainer(model, layout="NTF")(x, 0)
    s = np.zeros((2, 3))
    for t in range(4):
        s = np.tanh(s + x[:, t])
    np.testing.assert_allclose(found.score, s[:, 0], rtol=1e-6)
    assert found.rounding_residual().max() < 1e-5


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("z = Constant<value_float = 0.5>() p = ReduceMax<keepdims = 0>(a) c2 = Less(p, z)", "may end it before"),
    ],
)
def test_a_condition_that_steps_decide_is_refused(condition, why):
    with pytest.raises(UnsupportedError, match=why):
        Explainer(loop("", condition))(np.ones((2, 3), np.float32))


def idle(count="0", start="t", before="", steps="c2 = Identity(c) a2 = Tanh(a) r = Exp(a)", tail="y = Tanh(h)"):
    """A Loop between two layers whose rows of steps are an output, too."""
    step = f"(int64 i, bool c, float[N,3] a) => (bool c2, float[N,3] a2, float[2,3] r) {{ {steps} }}"
    return parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> net (float[N,3] x) => (float[N,3] y, float[S,2,3] s) '
        f"<int64 m = {{{count}}}, bool t = {{1}}> "
        f"{{ {before} g = Sin(x) h, s = Loop({'' if count == '' else 'm'}, {start}, g) <body = b {step}> {tail} }}"
    )


WITHOUT_STEPS = {
    "a number of steps of none": idle(),
    "one below none": idle("-3"),
    "a condition that is false where it starts": idle("7", "k", "k = Not(t)"),
    "both": idle("0", "k", "k = Not(t)"),
    "a while loop that does not start": idle("9223372036854775807", "k", "k = Not(t)"),
    "a condition that data decide": idle(
        steps="z = Constant<value_float = 0.5>() p = ReduceMax<keepdims = 0>(a) c2 = Less(p, z) a2 = Tanh(a) r = Exp(a)"
    ),
    "its values are the output": idle(tail="y = Identity(h)"),
    "rows that are read": idle(tail="e = ReduceSum<keepdims = 0>(s) w = Add(h, e) y = Tanh(w)"),
}


@pytest.mark.parametrize("model", WITHOUT_STEPS.values(), ids=WITHOUT_STEPS)
def test_a_loop_without_steps_passes_on_what_it_is_given(model):
    x = np.random.default_rng(3).standard_normal((2, 3)).astype(np.float32)
    truth = run(model, {"x": x})
    found = Explainer(model, method="gradient", psi="signed", output="y")(x, 1)
    np.testing.assert_allclose(found.score, truth["y"][:, 1], rtol=1e-6)
    h = 1e-3
    step = np.array([0, h, 0], np.float32)
    slopes = [(run(model, {"x": x + step})["y"] - run(model, {"x": x - step})["y"])[:, 1] / (2 * h)]
    np.testing.assert_allclose(found.saliency.reshape(2, 3)[:, 1], slopes[0], rtol=2e-3, atol=1e-4)
    np.testing.assert_array_equal(found.outputs["s"], truth["s"])


def test_a_loop_inside_of_one_without_steps_is_not_counted():
    inner = "(int64 j, bool d, float[N,3] e) => (bool d2, float[N,3] e2) { d2 = Identity(d) e2 = Tanh(e) }"
    body = f"{STEP} {{ c2 = Identity(c) a2 = Loop(m, t, a) <body = k {inner}> }}"
    weights = "<int64 m = {9000000000}, int64 none = {0}, bool t = {1}>"
    load(parser.parse_model(f"{HEAD} {weights} {{ y = Loop(none, t, x) <body = b {body}> }}"))


def test_a_node_that_computes_nothing_is_not_looked_at():
    model = parser.parse_model(f"{HEAD} {{ y = Tanh(x) }}")
    model.graph.node.add()
    found = Explainer(model)(np.ones((2, 3), np.float32))
    np.testing.assert_allclose(found.score, np.tanh(1), rtol=1e-6)
