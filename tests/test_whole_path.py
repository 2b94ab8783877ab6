"""What leads from the input to the head carries a cotangent, is a declared choice, or is refused by name.

The certificate of an explanation closes over whatever is taken for a constant, so it cannot show that a path was cut:
slopes are held against differences of ONNX Runtime on the source, over steps far above the quantum.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

import fgonnx
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.session import Session
from fgonnx.engine.rules import registry
from fgonnx.errors import UnsupportedError
from tests.integer_networks import DYNAMIC, D, Q, network, pictures, slope

#: What is neither linear in the integers nor proved to stay within their range, and the node that is named.
REFUSED = {
    "a quotient of two activations": (
        Q
        + "c = Cast<to=6>(q)\nc0 = Abs(c)\nc2 = Add(c0, i3)\n[bad] c1 = Div(c, c2)\ne = Cast<to=1>(c1)\nt = Add(y, e)",
        "bad",
        "Div",
    ),
    "a sign": (Q + "c = Cast<to=6>(q)\n[bad] c1 = Sign(c)\ne = Cast<to=1>(c1)\nt = Add(y, e)", "bad", "Sign"),
    "a sum of squares that may wrap around": (
        Q + "c = Cast<to=6>(q)\nc1 = Mul(c, thousand)\n[bad] m = ReduceSumSquare<keepdims=1>(c1, k)\n"
        "e = Cast<to=1>(m)\nt = Add(y, e)",
        "bad",
        "ReduceSumSquare",
    ),
    "a remainder": (Q + "c = Cast<to=6>(q)\n[bad] c1 = Mod(c, i3)\ne = Cast<to=1>(c1)\nt = Add(y, e)", "bad", "Mod"),
    "a sum that may wrap around": (Q + "[bad] q2 = Add(q, one8)" + D, "bad", "Add"),
    "a product that may wrap around": (Q + "[bad] q2 = Mul(q, low)" + D, "bad", "Mul"),
    "narrowed without a bound": (
        Q + "c = Cast<to=6>(q)\nc1 = Mul(c, i7)\n[bad] q2 = Cast<to=3>(c1)" + D,
        "bad",
        "Cast",
    ),
    "bits moved out": (
        'q = QuantizeLinear(y, s, zu)\n[bad] q2 = BitShift<direction="LEFT">(q, oneu)\n'
        "d = DequantizeLinear(q2, s, zu)\nt = Add(y, d)",
        "bad",
        "BitShift",
    ),
    "bits masked": (
        "q = QuantizeLinear(y, s, zu)\n[bad] q2 = BitwiseAnd(q, oneu)\nd = DequantizeLinear(q2, s, zu)\nt = Add(y, d)",
        "bad",
        "BitwiseAnd",
    ),
    "a table of vectors looked up beside a skip": (
        "q = QuantizeLinear(y, s, zu)\nc = Cast<to=6>(q)\n[bad] d = Gather(names, c)\n"
        "e = ReduceSum<keepdims=0>(d, four)\nt = Add(y, e)",
        "bad",
        "Gather",
    ),
    "a table that is looked up from both ends": (
        Q + "c = Cast<to=6>(q)\nc1 = Mul(c, i2)\n[bad] d = Gather(silu, c1)\nt = Add(y, d)",
        "bad",
        "Gather",
    ),
    "entries of a table picked": (
        "q = QuantizeLinear(y, s, zu)\nc = Cast<to=6>(q)\nh = Reshape(c, line)\n"
        "[bad] d = GatherElements(silu, h)\ne = Reshape(d, map)\nt = Add(y, e)",
        "bad",
        "GatherElements",
    ),
    "one of several values": (
        Q + "c = Cast<to=7>(q)\n[bad] d = OneHot<axis=1>(c, two, onoff)\n"
        "e = ReduceSum<keepdims=0>(d, pick)\nt = Add(y, e)",
        "bad",
        "OneHot",
    ),
    "truncated beside a skip": ("[bad] c = Cast<to=6>(y)\ne = Cast<to=1>(c)\nt = Add(y, e)", "bad", "Cast"),
    "truncated in a chain": ("[bad] c = Cast<to=6>(y)\nt = Cast<to=1>(c)", "bad", "Cast"),
    "a product along an axis": (
        Q + "c = Cast<to=6>(q)\n[bad] m = ReduceProd<keepdims=1>(c, k)\ne = Cast<to=1>(m)\nt = Add(y, e)",
        "bad",
        "ReduceProd",
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
    source = network(Q + "c = Cast<to=6>(q)\n[bad] c1 = Abs(c)\ne = Cast<to=1>(c1)\nt = Add(y, e)")
    node = next(n for n in source.graph.node if n.name == "bad")
    node.op_type, node.domain = "MurmurHash3", "com.microsoft"
    source.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError, match=r"'bad' \(com.microsoft.MurmurHash3"):
        fgonnx.rewrite(source)


def test_every_place_where_the_path_breaks_is_named() -> None:
    branch = (
        Q + "c = Cast<to=6>(q)\n[one] c1 = Sign(c)\n[two_] c2 = Mod(c, i3)\n"
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
    with pytest.raises(UnsupportedError, match=r"'bad' \(Mod"):
        fgonnx.grad(network(REFUSED["a remainder"][0]))
