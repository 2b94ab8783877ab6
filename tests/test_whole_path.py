"""What leads from the input to the head carries a cotangent, is a declared choice, or is refused by name.

The certificate of an explanation closes over whatever is taken for a constant, so it cannot show that a path was cut:
slopes are held against differences of ONNX Runtime on the source, over steps far above the quantum.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import fgonnx
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.session import Session
from fgonnx.engine.rules import registry
from fgonnx.errors import UnsupportedError
from tests.support import model

RNG = np.random.default_rng(0)
W = (0.25 * RNG.normal(size=(4, 3, 3, 3))).astype(np.float32)
B = (0.2 * RNG.normal(size=4)).astype(np.float32)
CONSTANTS = {
    "w": W,
    "b": B,
    "fc": RNG.normal(size=(4, 5)).astype(np.float32),
    # scales and zero points
    "s": np.float32(0.03),
    "s2": np.float32(0.025),
    "sc": np.array([0.02, 0.03, 0.04, 0.025], np.float32),
    "sc4": np.array([0.02, 0.03, 0.04, 0.025], np.float32).reshape(4, 1, 1),
    "z0": np.int8(0),
    "z3": np.int8(3),
    "zu": np.uint8(128),
    "zc": np.array([0, 3, -2, 1], np.int8),
    "zc4": np.array([0, 3, -2, 1], np.float32).reshape(4, 1, 1),
    # bounds
    "low": np.int8(-40),
    "high": np.int8(35),
    "l32": np.int32(-100),
    "h32": np.int32(90),
    "row": np.array([-128, 4, 30, -3], np.int8).reshape(4, 1, 1),
    # numbers
    "one8": np.int8(1),
    "oneu": np.uint8(1),
    "i2": np.int32(2),
    "i3": np.int32(3),
    "i5": np.array([5, -20, 0, 9], np.int32).reshape(4, 1, 1),
    "i7": np.int32(7),
    "i128": np.int32(128),
    "f0": np.float32(0),
    "f3": np.float32(3),
    "grey": np.float32(0.02),
    "table": np.linspace(0, 3, 256).astype(np.float32),
    # places
    "mask": np.array([True, False, True, True]).reshape(4, 1, 1),
    "order": np.array([2, 0, 1, 3], np.int64),
    "pick": np.array([1], np.int64),
    "at": np.array([[2]], np.int64),
    "k": np.array([2], np.int64),
    "wide": np.array([0, 0, 8, 8], np.int64),
    "onoff": np.array([0, 1], np.float32),
    "two": np.int64(2),
}


def network(
    branch: str, *, opset: int = 18, dtype: str = "float", more: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """Convolution y of x, then what the branch computes of it, t, then a dense head."""
    front = "y = Conv(x, w, b)" if dtype == "float" else ""
    text = f"""({dtype}[N,3,10,10] x) => (float[N,5] logits) {{
        {front}
        {branch}
        p = GlobalAveragePool(t)
        f = Flatten(p)
        logits = MatMul(f, fc)
    }}"""
    constants = CONSTANTS | (more or {})
    return model(text, opset, 9, {n: a for n, a in constants.items() if n in _words(text)})


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


def slope(source: onnx.ModelProto, x: np.ndarray, step: float, directions: int = 60) -> tuple[float, float]:
    """Return how the slopes of ONNX Runtime regress on those of the explanation, and their correlation."""
    explanation = fgonnx.Explainer(source, input_gradient=True)(x, 2)
    assert explanation.rounding_residual().max() < 1e-5
    assert explanation.input_gradient is not None
    session = Session(source)
    rng = np.random.default_rng(1)
    found, expected = [], []
    for _ in range(directions):
        v = np.sign(rng.normal(size=x.shape)).astype(np.float32)
        ends = [session.run({"x": (x + k * step * v).astype(x.dtype)})["logits"][:, 2] for k in (1, -1)]
        expected.append((ends[0] - ends[1]) / (2 * step))
        found.append((explanation.input_gradient * v).reshape(len(x), -1).sum(axis=1))
    g, t = np.array(found), np.array(expected)
    return float((g * t).sum() / (g * g).sum()), float(np.corrcoef(g.ravel(), t.ravel())[0, 1])


def pictures() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(3, 3, 10, 10)).astype(np.float32)


Q = "q = QuantizeLinear(y, s, z0)\n"
Q3 = "q = QuantizeLinear(y, s, z3)\n"
D = "\nd = DequantizeLinear(q2, s, z0)\nt = Add(y, d)"
D3 = "\nt = DequantizeLinear(q2, s, z3)"

DYNAMIC = """[dyn] q, qs, qz = DynamicQuantizeLinear(y)
        c = Cast<to=1>(q)
        z = Cast<to=1>(qz)
        c1 = Sub(c, z)
        t = Mul(c1, qs)"""

#: What is computed on quantised values between QuantizeLinear and the head, beside a skip connection and without one.
RIGHT = {
    "Relu beside a skip": Q + "q2 = Relu(q)" + D,
    "Relu with a zero point": Q3 + "q2 = Relu(q)" + D3,
    "Relu, scale by channel": """q = QuantizeLinear<axis=1>(y, sc, zc)
        q2 = Relu(q)
        t = DequantizeLinear<axis=1>(q2, sc, zc)""",
    "Clip to fewer bits": Q + "q2 = Clip(q, low, high)\nt = DequantizeLinear(q2, s, z0)",
    "Clip with a zero point, beside a skip": Q3
    + "q2 = Clip(q, low, high)\nd = DequantizeLinear(q2, s, z3)\nt = Add(y, d)",
    "Clip, scale by channel": """q = QuantizeLinear<axis=1>(y, sc, zc)
        q2 = Clip(q, low, high)
        t = DequantizeLinear<axis=1>(q2, sc, zc)""",
    "Clip from below alone": Q + "q2 = Clip(q, low)" + D,
    "Clip, then Max": Q + "q1 = Clip(q, low, high)\nq2 = Max(q1, row)" + D,
    "Max with constants, beside a skip": Q + "q2 = Max(q, row)" + D,
    "Min with constants": Q3 + "q2 = Min(q, row)" + D3,
    "Max of two branches": Q + "h = Neg(y)\nr = QuantizeLinear(h, s, z0)\nq2 = Max(q, r)" + D,
    "Min of two scales, read in the first": Q + "h = Neg(y)\nr = QuantizeLinear(h, s2, z3)\nq2 = Min(q, r)" + D,
    "MaxPool, then Relu": Q + "q1 = MaxPool<kernel_shape=[2,2]>(q)\nq2 = Relu(q1)\nt = DequantizeLinear(q2, s, z0)",
    "ScatterND beside a skip": Q
    + """h = Neg(y)
        r = QuantizeLinear(h, s2, z0)
        m = Transpose<perm=[1,0,2,3]>(q)
        n = Transpose<perm=[1,0,2,3]>(r)
        u = Gather<axis=0>(n, pick)
        v = ScatterND(m, at, u)
        q2 = Transpose<perm=[1,0,2,3]>(v)"""
    + D,
    "Where with constants": Q + "q2 = Where(mask, q, row)" + D,
    "elements in another order": Q3 + "q1 = Gather<axis=1>(q, order)\nq2 = Relu(q1)" + D3,
    "dequantised by hand": Q3 + "c = Cast<to=1>(q)\nc1 = Sub(c, f3)\nt = Mul(c1, s)",
    "dequantised by hand, by channel": """q = QuantizeLinear<axis=1>(y, sc, zc)
        c = Cast<to=1>(q)
        c1 = Sub(c, zc4)
        d = Mul(c1, sc4)
        t = Add(d, y)""",
    "uint8, dequantised by hand in integers": """q = QuantizeLinear(y, s, zu)
        c = Cast<to=6>(q)
        c1 = Sub(c, i128)
        c2 = Cast<to=1>(c1)
        d = Mul(c2, s)
        t = Add(d, y)""",
    "integer bias and factor": Q
    + "c = Cast<to=6>(q)\nc1 = Add(c, i5)\nc2 = Mul(c1, i7)\ne = Cast<to=1>(c2)\nt = Mul(e, s)",
    "a residual sum in integers": """h = Sigmoid(y)
        q = QuantizeLinear(y, s, z3)
        r = QuantizeLinear(h, s2, z0)
        c = Cast<to=6>(q)
        e = Cast<to=6>(r)
        a = Add(c, e)
        a1 = Sub(a, i3)
        a2 = Cast<to=1>(a1)
        t = Mul(a2, s)""",
    "a product of integers": """h = Sigmoid(y)
        q = QuantizeLinear(y, s, z0)
        r = QuantizeLinear(h, s2, z0)
        c = Cast<to=6>(q)
        e = Cast<to=6>(r)
        a = Mul(c, e)
        a2 = Cast<to=1>(a)
        a3 = Mul(a2, s)
        t = Mul(a3, s2)""",
    "quantised dynamically, dequantised by hand": DYNAMIC,
    "Neg and Abs": Q + "c = Cast<to=6>(q)\nc1 = Abs(c)\nc2 = Neg(c1)\ne = Cast<to=1>(c2)\nt = Mul(e, s)",
    "saturated, then narrowed": Q
    + "c = Cast<to=6>(q)\nc1 = Mul(c, i2)\nc2 = Clip(c1, l32, h32)\nq2 = Cast<to=3>(c2)"
    + D,
}


@pytest.mark.parametrize("case", RIGHT)
def test_slopes_through_integer_values_are_those_of_differences(case: str) -> None:
    regression, correlation = slope(network(RIGHT[case]), pictures(), 0.04)
    assert regression == pytest.approx(1, abs=0.05)
    assert correlation > 0.98


def test_an_integer_picture_is_carried_through_integer_arithmetic() -> None:
    """(x - 128) in int32, then / 50: slopes are those of the network behind, per grey level."""
    branch = """c = Cast<to=6>(x)
        c1 = Sub(c, i128)
        c2 = Cast<to=1>(c1)
        e = Mul(c2, grey)
        y = Conv(e, w, b)
        t = Sigmoid(y)"""
    x = np.random.default_rng(3).integers(20, 230, (3, 3, 10, 10)).astype(np.uint8)
    regression, correlation = slope(network(branch, dtype="uint8"), x, 2.0)
    assert regression == pytest.approx(1, abs=0.02)
    assert correlation > 0.999


#: What is neither linear in the integers nor proved to stay within their range, and the node that is named.
REFUSED = {
    "a quotient beside a skip": (
        Q + "c = Cast<to=6>(q)\n[bad] c1 = Div(c, i3)\ne = Cast<to=1>(c1)\nt = Add(y, e)",
        "bad",
        "Div",
    ),
    "a remainder": (Q + "c = Cast<to=6>(q)\n[bad] c1 = Mod(c, i3)\ne = Cast<to=1>(c1)\nt = Add(y, e)", "bad", "Mod"),
    "a sum that may wrap around": (Q + "[bad] q2 = Add(q, one8)" + D, "bad", "Add"),
    "a product that may wrap around": (Q + "[bad] q2 = Mul(q, low)" + D, "bad", "Mul"),
    "narrowed without a bound": (
        Q + "c = Cast<to=6>(q)\nc1 = Mul(c, i7)\n[bad] q2 = Cast<to=3>(c1)" + D,
        "bad",
        "Cast",
    ),
    "bits moved": (
        'q = QuantizeLinear(y, s, zu)\n[bad] q2 = BitShift<direction="RIGHT">(q, oneu)\n'
        "d = DequantizeLinear(q2, s, zu)\nt = Add(y, d)",
        "bad",
        "BitShift",
    ),
    "a table looked up beside a skip": (
        "q = QuantizeLinear(y, s, zu)\nc = Cast<to=6>(q)\n[bad] d = Gather(table, c)\nt = Add(y, d)",
        "bad",
        "Gather",
    ),
    "one of several values": (
        Q + "c = Cast<to=7>(q)\n[bad] d = OneHot<axis=1>(c, two, onoff)\n"
        "e = ReduceSum<keepdims=0>(d, pick)\nt = Add(y, e)",
        "bad",
        "OneHot",
    ),
    "truncated beside a skip": ("[bad] c = Cast<to=6>(y)\ne = Cast<to=1>(c)\nt = Add(y, e)", "bad", "Cast"),
    "truncated in a chain": ("[bad] c = Cast<to=6>(y)\nt = Cast<to=1>(c)", "bad", "Cast"),
    "a maximum of integers": (
        Q + "c = Cast<to=6>(q)\n[bad] m = ReduceMax<keepdims=1>(c, k)\ne = Cast<to=1>(m)\nt = Add(y, e)",
        "bad",
        "ReduceMax",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(case: str) -> None:
    branch, name, op_type = REFUSED[case]
    source = network(branch)
    Session(source).run({"x": pictures()})  # it is a model that runs
    with pytest.raises(UnsupportedError) as caught:
        fgonnx.rewrite(source)
    assert [(r.node, r.op_type) for r in caught.value.refusals] == [(name, op_type)]


def test_operators_that_are_not_known_are_refused_beside_a_skip() -> None:
    """An operator of another domain that takes integers: it has no rule, and its result is no constant."""
    source = network(Q + "[bad] q2 = Relu(q)" + D)
    node = next(n for n in source.graph.node if n.name == "bad")
    node.op_type, node.domain = "QLinearWhere", "com.microsoft"
    node.input[:] = ["mask", "q", "s", "z0", "row", "s", "z0", "s", "z0"]
    source.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(CONSTANTS[n]), n) for n in ("mask", "row"))
    source.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError, match=r"'bad' \(com.microsoft.QLinearWhere"):
        fgonnx.rewrite(source)


def test_every_place_where_the_path_breaks_is_named() -> None:
    branch = (
        Q + "c = Cast<to=6>(q)\n[one] c1 = Div(c, i3)\n[two_] c2 = Mod(c, i3)\n"
        "c3 = Add(c1, c2)\ne = Cast<to=1>(c3)\nt = Add(y, e)"
    )
    with pytest.raises(UnsupportedError) as caught:
        fgonnx.rewrite(network(branch))
    assert [r.node for r in caught.value.refusals] == ["one", "two_"]


#: Choices that depend on the input, and what is said of them.
HELD = {
    "TopK": ("[top] v, i = TopK<axis=3>(y, k)\nt = Relu(v)", "`TopK` 'top' chooses by index; its choice is held fixed"),
    "Where": (
        "c = Greater(y, f0)\n[pick_] t = Where(c, y, f3)",
        "`Where` 'pick_' chooses by a condition; its choice is held fixed",
    ),
    "a mask by comparison": (
        "[above] c = Greater(y, f0)\nm = Cast<to=1>(c)\nt = Mul(y, m)",
        "`Greater` 'above' compares; its outcome is held fixed",
    ),
    "a mask by Cast": (
        "r = Relu(y)\n[nonzero] c = Cast<to=9>(r)\nm = Cast<to=1>(c)\nt = Mul(y, m)",
        "`Cast` 'nonzero' compares; its outcome is held fixed",
    ),
    "GatherElements": (
        "i = ArgMax<axis=3,keepdims=1>(y)\n[most] t = GatherElements<axis=3>(y, i)",
        "`GatherElements` 'most' chooses by index; its choice is held fixed",
    ),
    "ArgMax as a number": (
        "[which] i = ArgMax<axis=3,keepdims=1>(y)\nm = Cast<to=1>(i)\nt = Mul(y, m)",
        "`ArgMax` 'which' chooses by index; its choice is held fixed",
    ),
    "a dynamic scale": (
        DYNAMIC,
        "`DynamicQuantizeLinear` 'dyn' takes its scale from the input; it is held fixed",
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_choices_that_depend_on_the_input_are_noted(case: str) -> None:
    branch, note = HELD[case]
    explainer = fgonnx.Explainer(network(branch))
    assert [n for n in explainer(pictures()).settings["notes"] if "held fixed" in n] == [note]


@pytest.mark.parametrize("case", [c for c in HELD if c != "a dynamic scale"])
def test_slopes_beside_choices_are_those_of_differences(case: str) -> None:
    regression, correlation = slope(network(HELD[case][0]), pictures(), 1e-4)
    assert regression == pytest.approx(1, abs=0.02)
    assert correlation > 0.99


def test_several_choices_of_one_kind_are_one_note() -> None:
    lines = [f"[w{i}] c{i} = Greater(y{i}, f0)\ny{i + 1} = Where(c{i}, y{i}, f{3 * (i % 2)})" for i in range(5)]
    branch = "y0 = Neg(y)\n" + "\n".join(lines) + "\nt = Relu(y5)"
    notes = fgonnx.Explainer(network(branch))(pictures()).settings["notes"]
    assert sum("held fixed" in n for n in notes) == 1
    assert "and 2 more choose by a condition" in " ".join(notes)


UNNOTED = {
    "a mask that is constant": "t = Where(mask, y, f3)",
    "places that are constant": "t = Gather<axis=1>(y, order)",
    "shapes": "i = Shape(y)\nh = Flatten(y)\nt = Reshape(h, i)",
    "kinks": "m = MaxPool<kernel_shape=[2,2]>(y)\nt = Relu(m)",
}


@pytest.mark.parametrize("case", UNNOTED)
def test_what_does_not_depend_on_the_input_is_not_noted(case: str) -> None:
    notes = fgonnx.Explainer(network(UNNOTED[case]))(pictures()).settings["notes"]
    assert not [n for n in notes if "held fixed" in n]


def test_a_choice_that_the_head_does_not_depend_on_is_not_noted() -> None:
    source = network("i = ArgMax<axis=1>(y)\nt = Relu(y)")
    source.graph.output.append(onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, None))
    assert not [n for n in fgonnx.Explainer(source)(pictures()).settings["notes"] if "held fixed" in n]


def test_a_rule_that_is_silent_about_an_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._RULES, ("com.microsoft", "FusedMatMul"), [])

    @fgonnx.rule("FusedMatMul", domain="com.microsoft", note="the gradient of its first input alone")
    def silent(op: Emitter, y: ir.Value, a: ir.Value, b: ir.Value) -> fgonnx.Local:
        return fgonnx.Local(lambda g: op.MatMul(g, op.Transpose(b, perm=[0, 1, 3, 2])))

    source = network("r = Relu(y)\n[bad] t = MatMul(y, r)")
    next(n for n in source.graph.node if n.name == "bad").op_type = "FusedMatMul"
    next(n for n in source.graph.node if n.name == "bad").domain = "com.microsoft"
    source.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError, match=r"'bad' .*its rule gives no cotangent for input 1"):
        fgonnx.rewrite(source)


def test_plain_gradients_are_refused_where_the_path_breaks() -> None:
    with pytest.raises(UnsupportedError, match=r"'bad' \(Div"):
        fgonnx.grad(network(REFUSED["a quotient beside a skip"][0]))
