"""Models of ids: explained with respect to the rows that the ids select, exactly as the model of these rows is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import fgonnx
from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.rules.registry import Local
from fgonnx.engine.walk import backward
from fgonnx.errors import InputError, ModelError, OptionError, UnsupportedError
from tests.support import draw, model, run

V, D, T = 20, 6, 7
IDS = np.random.default_rng(0).integers(1, V, (3, T))
IDS[1, 5:] = 0
WEIGHTS = draw(
    0,
    table=(V, D),
    other=(V, 4),
    places=(T, D),
    w=(D, 5),
    b=(5,),
    h=(5, 3),
    hb=(3,),
    conv=(5, D, 3),
    wide=(D + 4, 5),
    onehot=(5, V, 3),
)
WEIGHTS["table"] *= 3

#: The rows' way to the logits, as a graph of `e`, (N, T, D).
REST = """
    p = Add(e, places)
    l = MatMul(p, w)
    a = Add(l, b)
    r = Gelu(a)
    m = ReduceMean<keepdims=0>(r, one)
    z = MatMul(m, h)
    y = Add(z, hb)
"""
CONVOLUTION = """
    c = Transpose<perm=[0,2,1]>(e)
    l = Conv<pads=[1,1]>(c, conv)
    r = Relu(l)
    m = ReduceMax<keepdims=0>(r, two)
    z = MatMul(m, h)
    y = Add(z, hb)
"""
CONSTANTS = """
    one = Constant<value_ints=[1]>()
    two = Constant<value_ints=[2]>()
    none = Constant<value_int=0>()
"""


def of_ids(front: str, rest: str = REST, ids: str = "int64[N,T] ids") -> onnx.ModelProto:
    return model(f"({ids}) => (float[N,3] y) {{ {CONSTANTS} {front} {rest} }}", 20, 9, WEIGHTS)


def of_rows(rest: str = REST, shape: str = f"N,{T},{D}") -> onnx.ModelProto:
    return model(f"(float[{shape}] e) => (float[N,3] y) {{ {CONSTANTS} {rest} }}", 20, 9, WEIGHTS)


FRONTS = {
    "gather": "e = Gather(table, ids)",
    "int32": "i = Cast<to=6>(ids) e = Gather(table, i)",
    "shifted back": "s = Constant<value_int=2>() u = Add(ids, s) i = Sub(u, s) e = Gather(table, i)",
    "clipped": "u = Constant<value_int=19>() i = Clip(ids, none, u) e = Gather(table, i)",
    "wrapped": "q = Less(ids, none) n = Constant<value_int=20>() s = Add(ids, n) i = Where(q, s, ids) "
    "e = Gather(table, i)",
    "wrapped by products": "v = Constant<value_int=20>() s = Add(ids, v) q = Less(ids, none) k = Cast<to=7>(q) "
    "n = Not(q) t = Cast<to=7>(n) f = Mul(k, s) g = Mul(ids, t) i = Add(f, g) e = Gather(table, i)",
    "there and back": "k = Constant<value_ints=[-1]>() f = Reshape(ids, k) g = Gather(table, f) s = Shape(ids) "
    "d = Constant<value_ints=[6]>() t = Concat<axis=0>(s, d) e = Reshape(g, t)",
    "transposed": "t = Transpose<perm=[1,0]>(ids) g = Gather(table, t) e = Transpose<perm=[1,0,2]>(g)",
    "one-hot": "n = Constant<value_int=20>() v = Constant<value_floats=[0.0,1.0]>() o = OneHot(ids, n, v) "
    "e = MatMul(o, table)",
    "one-hot by comparison": "u = Unsqueeze(ids, two) n = Constant<value_int=20>() s = Constant<value_int=1>() "
    "k = Range(none, n, s) q = Equal(u, k) o = Cast<to=1>(q) e = MatMul(o, table)",
    "turned table": "t = Transpose<perm=[1,0]>(table) g = Gather<axis=1>(t, ids) e = Transpose<perm=[1,2,0]>(g)",
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
@pytest.mark.parametrize("rest", [REST, CONVOLUTION], ids=["dense", "convolution"])
def test_ids_are_explained_as_the_rows_that_they_select(front: str, rest: str) -> None:
    found = fgonnx.Explainer(of_ids(front, rest), psi="signed", input_gradient=True)(IDS)
    expected = fgonnx.Explainer(of_rows(rest), psi="signed", input_gradient=True, layout="NWC")(WEIGHTS["table"][IDS])
    assert found.saliency.shape == (3, T)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-5)
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=1e-5)
    np.testing.assert_allclose(found.contributions.sum(axis=1), expected.contributions.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.completeness, 0, atol=1e-5)
    if found.input_gradient.shape == expected.input_gradient.shape:
        np.testing.assert_allclose(found.input_gradient, expected.input_gradient, atol=1e-6)


def test_positions_are_a_term_of_their_own_among_the_tokens() -> None:
    e = fgonnx.Explainer(of_ids(FRONTS["gather"]), bias_gradients=True)(IDS)
    site = next(s for s in e.sites if s.name == "p")
    assert (site.grid, site.in_map) == ((T,), True)
    product = e.bias_gradients["p"]
    gradient = fgonnx.Explainer(of_ids(FRONTS["gather"]), input_gradient=True)(IDS).input_gradient
    np.testing.assert_allclose(product, gradient * WEIGHTS["places"], atol=1e-6)


def test_rows_of_two_tables_are_explained_side_by_side() -> None:
    both = REST.replace("p = Add(e, places)", "p = Identity(e)").replace("MatMul(p, w)", "MatMul(p, wide)")
    front = "f = Gather(table, ids) g = Gather(other, ids) e = Concat<axis=2>(f, g)"
    found = fgonnx.Explainer(of_ids(front, both), input_gradient=True)(IDS)
    rows = np.concatenate([WEIGHTS["table"][IDS], WEIGHTS["other"][IDS]], axis=2)
    expected = fgonnx.Explainer(of_rows(both, f"N,{T},{D + 4}"), input_gradient=True, layout="NWC")(rows)
    np.testing.assert_allclose(found.input_gradient, expected.input_gradient, atol=1e-6)
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=1e-4)


def test_a_convolution_over_a_one_hot_encoding_is_explained_by_the_encoding() -> None:
    rest = CONVOLUTION.replace("Transpose<perm=[0,2,1]>(e)", "Transpose<perm=[0,2,1]>(o)").replace(
        "c, conv", "c, onehot"
    )
    front = "n = Constant<value_int=20>() v = Constant<value_floats=[0.0,1.0]>() o = OneHot(ids, n, v)"
    found = fgonnx.Explainer(of_ids(front, rest), input_gradient=True, method="gradient-x-input", psi="signed")(IDS)
    assert found.input_gradient.shape == (3, T, V)
    at = np.take_along_axis(found.input_gradient, IDS[..., None], 2)[..., 0]
    np.testing.assert_allclose(found.saliency, at, atol=1e-6)


MASKED = """
    none = Constant<value_int=0>()
    two = Constant<value_ints=[2]>()
    one = Constant<value_ints=[1]>()
    q = Equal(ids, none)
    n = Not(q)
    f = Cast<to=1>(n)
    u = Unsqueeze(f, two)
    e = Gather(table, ids)
    k = Mul(e, u)
    l = MatMul(k, w)
    r = Gelu(l)
    s = ReduceSum<keepdims=0>(r, one)
    y = MatMul(s, h)
"""
PLACED = """
    none = Constant<value_int=0>()
    last = Constant<value_int=1>()
    one = Constant<value_ints=[1]>()
    q = Greater(ids, none)
    f = Cast<to=7>(q)
    c = CumSum(f, last)
    g = Gather(other_places, c)
    e = Gather(table, ids)
    p = Add(e, g)
    l = MatMul(p, w)
    r = Gelu(l)
    s = ReduceSum<keepdims=0>(r, one)
    y = MatMul(s, h)
"""
POOLED = """
    last = Constant<value_int=1>()
    e = Gather(table, ids)
    l = MatMul(e, w)
    r = Gelu(l)
    i = ArgMax<axis=1, keepdims=1>(ids)
    two = Constant<value_ints=[2]>()
    u = Unsqueeze(i, two)
    g = GatherND<batch_dims=1>(r, i)
    y = MatMul(g, h)
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (MASKED, "`Equal` 'q' compares; its outcome is held fixed"),
        (PLACED, "`Gather` 'g' chooses by index; its choice is held fixed"),
        (POOLED, "`GatherND` 'g' chooses by index; its choice is held fixed"),
    ],
    ids=["mask", "positions", "pooling"],
)
def test_what_else_reads_the_ids_is_held_fixed_and_listed(body: str, said: str) -> None:
    weights = {**WEIGHTS, **draw(1, other_places=(T + 1, D))}
    proto = model(f"(int64[N,{T}] ids) => (float[N,3] y) {{ {body} }}", 20, 9, weights)
    for node in proto.graph.node:
        node.name = node.output[0]
    assert said in fgonnx.Explainer(proto)(IDS).notes
    assert fgonnx.check(proto, IDS, directions=2).passed


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("f = Cast<to=1>(ids) u = Unsqueeze(f, two) k = Mul(e, u) r = MatMul(k, w)", "Cast"),
        ("f = Cast<to=1>(ids) u = Unsqueeze(f, two) v = Sin(u) k = Add(e, v) r = MatMul(k, w)", "Cast"),
    ],
    ids=["times the ids", "a function of the ids"],
)
def test_numbers_computed_from_ids_are_refused_by_name(body: str, named: str) -> None:
    text = f"{CONSTANTS} e = Gather(table, ids) {body} s = ReduceSum<keepdims=0>(r, one) y = MatMul(s, h)"
    proto = model(f"(int64[N,{T}] ids) => (float[N,3] y) {{ {text} }}", 20, 9, WEIGHTS)
    with pytest.raises(UnsupportedError) as refused:
        fgonnx.Explainer(proto)(IDS)
    assert named in str(refused.value)


@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_checked_gradient_is_that_of_the_rows(batch: str) -> None:
    proto = of_ids(FRONTS["gather"], ids=f"int64[{batch},{T}] ids")
    assert fgonnx.check(proto, directions=3).passed


def test_a_wrong_slope_of_the_rows_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    right = backward._linearise

    def halved(op: Emitter, node: ir.Node, opset: int, modify: backward.Modify | None = None) -> Local:
        found = right(op, node, opset, modify)
        if node.op_type != "MatMul":
            return found
        return Local(lambda g: [op.Mul(v, 0.5) if v is not None else v for v in found.vjp(g)])

    monkeypatch.setattr(backward, "_linearise", halved)
    assert fgonnx.check(of_ids(FRONTS["gather"]), IDS, directions=3, cache=False).verdict == "failed"


def test_layouts_with_time_first_or_without_a_batch() -> None:
    first = model(
        f"(int64[T,N] ids) => (float[N,3] y) {{ {CONSTANTS} g = Gather(table, ids) e = Transpose<perm=[1,0,2]>(g) "
        f"{CONVOLUTION} }}",
        20,
        9,
        WEIGHTS,
    )
    single = model(
        f"(int64[{T}] ids) => (float[1,3] y) {{ {CONSTANTS} g = Gather(table, ids) k = Constant<value_ints=[0]>() "
        f"e = Unsqueeze(g, k) {CONVOLUTION} }}",
        20,
        9,
        WEIGHTS,
    )
    expected = fgonnx.Explainer(of_ids(FRONTS["gather"], CONVOLUTION), input_gradient=True)(IDS)
    turned = fgonnx.Explainer(first, layout="TN", input_gradient=True)(np.ascontiguousarray(IDS.T))
    np.testing.assert_allclose(turned.saliency, expected.saliency, atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(turned.input_gradient, 1, 0), expected.input_gradient, atol=1e-6)
    alone = fgonnx.Explainer(single)(IDS[0])
    np.testing.assert_allclose(alone.saliency, expected.saliency[:1], atol=1e-5)


def test_ids_given_as_floating_point_numbers() -> None:
    proto = of_ids("i = Cast<to=6>(ids) e = Gather(table, i)", ids=f"float[N,{T}] ids")
    expected = fgonnx.Explainer(of_ids(FRONTS["gather"]))(IDS)
    np.testing.assert_allclose(fgonnx.Explainer(proto)(IDS.astype(np.float32)).saliency, expected.saliency, atol=1e-5)
    np.testing.assert_allclose(fgonnx.Explainer(proto)(IDS).saliency, expected.saliency, atol=1e-5)


def test_bytes_select_rows() -> None:
    weights = {**WEIGHTS, **draw(3, table=(256, D))}
    text = f"{CONSTANTS} i = Cast<to=6>(ids) e = Gather(table, i) {REST}"
    proto = model(f"(uint8[N,{T}] ids) => (float[N,3] y) {{ {text} }}", 20, 9, weights)
    e = fgonnx.Explainer(proto, input_gradient=True)(IDS.astype(np.uint8))
    assert e.input_gradient.shape == (3, T, D)
    assert np.abs(e.completeness).max() < 1e-6


def test_half_precision_and_quantised_tables(tmp_path: Path) -> None:
    half = {"half": WEIGHTS["table"].astype(np.float16)}
    proto = model(
        f"(int64[N,{T}] ids) => (float[N,3] y) {{ {CONSTANTS} g = Gather(half, ids) e = Cast<to=1>(g) {REST} }}",
        20,
        9,
        {**WEIGHTS, **half},
    )
    expected = fgonnx.Explainer(of_ids(FRONTS["gather"]))(IDS)
    np.testing.assert_allclose(fgonnx.Explainer(proto)(IDS).saliency, expected.saliency, rtol=0.02, atol=0.02)
    onnx.save(of_ids(FRONTS["gather"]), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx", weight_type=QuantType.QUInt8)
    ops = {n.op_type for n in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"DynamicQuantizeLinear", "DequantizeLinear"} <= ops
    e = fgonnx.Explainer(tmp_path / "int8.onnx", batch_size=1)(IDS)
    assert np.abs(e.rounding_residual()).max() < 1e-5
    np.testing.assert_allclose(e.score, expected.score, atol=0.1)


def test_driven_methods_vary_the_rows() -> None:
    proto = of_ids(FRONTS["gather"])
    found = fgonnx.Explainer(proto, method="integrated-gradients")(IDS)
    expected = fgonnx.Explainer(of_rows(), method="integrated-gradients", layout="NWC")(WEIGHTS["table"][IDS])
    np.testing.assert_allclose(found.attribution, expected.attribution, atol=1e-5)
    np.testing.assert_allclose(found.delta, 0, atol=1e-4)
    hidden = fgonnx.Explainer(proto, method="occlusion", window=1, stride=1)(IDS)
    one = fgonnx.Explainer(of_rows(), method="occlusion", layout="NWC", window=1, stride=1)(WEIGHTS["table"][IDS])
    np.testing.assert_allclose(hidden.saliency, one.saliency, atol=1e-5)


def test_the_head_of_a_driven_method_is_that_of_the_ids() -> None:
    proto = of_ids(FRONTS["gather"])
    driven = fgonnx.Explainer(proto, method="smoothgrad", samples=2)
    np.testing.assert_allclose(driven.head(IDS), fgonnx.Explainer(proto).head(IDS), atol=1e-6)
    assert driven(IDS, 1).target.tolist() == [1, 1, 1]


def test_a_written_file_takes_ids_and_explains_itself(tmp_path: Path) -> None:
    proto = of_ids(FRONTS["gather"], ids=f"int64[N,{T}] ids")
    written = fgonnx.rewrite(proto, form="portable")
    results = run(written, {"ids": IDS})
    expected = fgonnx.Explainer(proto)(IDS)
    np.testing.assert_allclose(results["saliency"], expected.saliency, atol=1e-4)
    fgonnx.save(written, tmp_path / "explained.onnx") if hasattr(fgonnx, "save") else onnx.save(
        written, tmp_path / "explained.onnx"
    )
    again = fgonnx.Explainer(tmp_path / "explained.onnx")(IDS)
    np.testing.assert_allclose(again.saliency, expected.saliency, atol=1e-4)
    with pytest.raises(InputError, match="the model's table has the ids 0 to 19"):
        fgonnx.Explainer(tmp_path / "explained.onnx")(IDS + V)


def test_lengths_that_are_free_are_explained_length_by_length() -> None:
    explainer = fgonnx.Explainer(of_ids(FRONTS["gather"], CONVOLUTION))
    for length in (3, 5):
        assert explainer(IDS[:, :length]).saliency.shape == (3, length)


BAD = {
    "outside the vocabulary": (
        IDS + V,
        "the ids 'ids' hold 3[0-9] at \\(0, 0\\), and the model's table has the ids 0 to 19",
    ),
    "fractions": (IDS + 0.5, r"hold [0-9.]+\.5 at \(0, 0\); ids are whole numbers"),
    "nothing": (np.zeros((1, 0), np.int64), "holds nothing"),
    "lengths": (np.array([[1, 2], [1]], dtype=object), "is object"),
}


@pytest.mark.parametrize(("ids", "said"), BAD.values(), ids=BAD)
def test_bad_ids_are_refused_in_words(ids: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fgonnx.Explainer(of_ids(FRONTS["gather"], CONVOLUTION))(ids)


def test_ids_of_which_none_is_chosen() -> None:
    body = f"{CONSTANTS} f = Gather(table, left) g = Gather(table, right) e = Add(f, g) {REST}"
    two = model(f"(int64[N,{T}] left, int64[N,{T}] right) => (float[N,3] y) {{ {body} }}", 20, 9, WEIGHTS)
    with pytest.raises(ModelError, match="several inputs could be explained"):
        fgonnx.Explainer(two)({"left": IDS, "right": IDS})
    e = fgonnx.Explainer(two, input="right")({"left": IDS, "right": IDS})
    assert e.saliency.shape == (3, T)
    with pytest.raises(OptionError, match="has no input 'middle'"):
        fgonnx.Explainer(two, input="middle")({"left": IDS, "right": IDS})


def test_types_and_masks_beside_ids_are_not_chosen() -> None:
    body = f"{CONSTANTS} f = Gather(table, input_ids) g = Gather(places, token_type_ids) e = Add(f, g) {REST}"
    proto = model(
        f"(int64[N,{T}] input_ids, int64[N,{T}] token_type_ids) => (float[N,3] y) {{ {body} }}", 20, 9, WEIGHTS
    )
    e = fgonnx.Explainer(proto)({"input_ids": IDS, "token_type_ids": np.zeros_like(IDS)})
    assert e.settings["notes"] is not None
    assert next(s.name for s in e.sites if s.op_type == "Add") == "e"
    with pytest.raises(OptionError, match="nor of ids"):
        fgonnx.Explainer(model("(int64[N,7] ids) => (float[N,7] y) { y = Cast<to=1>(ids) }"), input="ids")(IDS)


def test_the_fused_embedding_layer_of_onnxruntime() -> None:
    rng = np.random.default_rng(2)
    table, places, types = (rng.standard_normal((n, D)).astype(np.float32) for n in (V, 16, 2))
    gamma, beta = (rng.standard_normal(D).astype(np.float32) for _ in range(2))
    arrays = {"table": table, "places": places, "types": types, "gamma": gamma, "beta": beta, "h": WEIGHTS["w"]}
    nodes = [
        helper.make_node(
            "EmbedLayerNormalization",
            ["ids", "kinds", "table", "places", "types", "gamma", "beta", "mask"],
            ["e", "lengths"],
            domain="com.microsoft",
            epsilon=1e-5,
        ),
        helper.make_node("ReduceMean", ["e", "one"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "h"], ["y"]),
    ]
    ints = [helper.make_tensor_value_info(n, TensorProto.INT32, ["N", T]) for n in ("ids", "kinds", "mask")]
    graph = helper.make_graph(
        nodes,
        "net",
        ints,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [*(numpy_helper.from_array(a, n) for n, a in arrays.items()), numpy_helper.from_array(np.array([1]), "one")],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)], ir_version=9
    )
    given = {n: (IDS if n == "ids" else np.ones_like(IDS)).astype(np.int32) for n in ("ids", "kinds", "mask")}
    e = fgonnx.Explainer(proto, input_gradient=True)(given)
    session = ort.InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(e.outputs["y"], session.run(None, given)[0], atol=1e-5)
    assert e.input_gradient.shape == (3, T, D)
    assert np.abs(e.completeness).max() < 1e-5
    assert fgonnx.check(proto, given, directions=2).passed


WRITTEN_OUT = {
    "with its largest": "k = ReduceMax<keepdims=1>(y0, one) d = Sub(y0, k) x = Exp(d) "
    "s = ReduceSum<keepdims=1>(x, one) y = Div(x, s)",
    "bounded and reshaped": "k = ReduceMax<keepdims=0>(y0, one) low = Constant<value_float=-1e30>() m0 = Max(low, k) "
    "c = Constant<value_ints=[-1,1]>() r0 = Reshape(m0, c) d = Sub(y0, r0) x = Exp(d) "
    "s = ReduceSum<keepdims=1>(x, one) y = Div(x, s)",
    "plain": "x = Exp(y0) s = ReduceSum<keepdims=1>(x, one) y = Div(x, s)",
}


@pytest.mark.parametrize("softmax", WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_what_is_explained_lies_before_a_softmax_that_is_written_out(softmax: str) -> None:
    rest = f"{REST.replace('y = Add(z, hb)', 'y0 = Add(z, hb)')} {softmax}"
    e = fgonnx.Explainer(of_rows(rest), layout="NWC")(WEIGHTS["table"][IDS])
    expected = fgonnx.Explainer(of_rows(), layout="NWC")(WEIGHTS["table"][IDS])
    assert (e.head, e.head_stripped) == ("y0", "Softmax")
    np.testing.assert_allclose(e.score, expected.score, atol=1e-6)


def test_a_quotient_that_is_no_softmax_is_explained_itself() -> None:
    quotient = "x = Exp(y0) s = ReduceSum<keepdims=1>(y0, one) y = Div(x, s)"
    rest = f"{REST.replace('y = Add(z, hb)', 'y0 = Add(z, hb)')} {quotient}"
    assert fgonnx.Explainer(of_rows(rest), layout="NWC")(WEIGHTS["table"][IDS]).head == "y"


#: What is looked up of six ids, in ONNX text that makes `i` of `ids`, and which of the ids each entry is; None: none.
MOVED = {
    "without the first": ("i = Slice(ids, c1, c9, c1)", [1, 2, 3, 4, 5]),
    "without the last": ("i = Slice(ids, c0, cm1, c1)", [0, 1, 2, 3, 4]),
    "every second": ("i = Slice(ids, c0, c9, c1, c2)", [0, 2, 4]),
    "turned": ("i = Slice(ids, cm1, low, c1, cm1)", [5, 4, 3, 2, 1, 0]),
    "twice": ("i = Concat<axis=1>(ids, ids)", [0, 1, 2, 3, 4, 5] * 2),
    "rolled": ("a = Slice(ids, c1, c9, c1) v = Slice(ids, c0, c1, c1) i = Concat<axis=1>(a, v)", [1, 2, 3, 4, 5, 0]),
    "parts exchanged": (
        "a = Slice(ids, c0, c2, c1) v = Slice(ids, c2, c4, c1) d = Slice(ids, c4, c9, c1) i = Concat<axis=1>(v, a, d)",
        [2, 3, 0, 1, 4, 5],
    ),
    "padded": ("i = Pad(ids, pads)", [None, 0, 1, 2, 3, 4, 5, None]),
    "by a list": ("i = Gather<axis=1>(ids, list)", [3, 1, 1, 5]),
    "in pairs": ("i = Gather<axis=1>(ids, pairs)", [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]),
    "time first": ("i = Transpose<perm=[1,0]>(ids)", [0, 1, 2, 3, 4, 5]),
    "behind a start": (
        "s = Slice(ids, c0, c1, c1) z = Shape(s) n = ConstantOfShape<value=int64[1]{2}>(z) i = Concat<axis=1>(n, ids)",
        [None, 0, 1, 2, 3, 4, 5],
    ),
}
INDICES = {
    **{f"c{k}": np.array([k]) for k in (0, 1, 2, 4, 9)},
    "cm1": np.array([-1]),
    "low": np.array([-99]),
    "pads": np.array([0, 1, 0, 1]),
    "list": np.array([3, 1, 1, 5]),
    "pairs": np.array([[k, k + 1] for k in range(5)]),
}
SIX = np.array([[4, 7, 9, 11, 13, 15], [1, 2, 3, 5, 6, 8]])


def summed(body: str, *, square: bool = True) -> onnx.ModelProto:
    """Return a model whose score is a sum over the rows `e` of what each adds."""
    own = "r = Mul(e, e)" if square else "r = Identity(e)"
    text = f"{body} {own} m = MatMul(r, w) k = Reshape(m, flat) y = ReduceSum<keepdims=1>(k, last)"
    arrays = {**WEIGHTS, **INDICES, "flat": np.array([0, -1]), "last": np.array([1]), **draw(4, w=(D, 1))}
    if "Transpose" in body:
        text = text.replace("k = Reshape(m, flat)", "q = Transpose<perm=[1,0,2]>(m) k = Reshape(q, flat)")
    return model(f"(int64[N,6] ids) => (float[N,1] y) {{ {text} }}", 20, 9, arrays)


@pytest.mark.parametrize(("moves", "of"), MOVED.values(), ids=MOVED)
@pytest.mark.parametrize("method", ["gradient-x-input", "integrated-gradients"])
def test_rows_count_at_their_own_tokens_wherever_the_model_puts_them(
    moves: str, of: list[int | None], method: str
) -> None:
    each = (WEIGHTS["table"] ** 2 @ draw(4, w=(D, 1))["w"])[SIX, 0]  # what a row adds; its slope times it is twice that
    times = np.array([of.count(t) for t in range(6)])
    e = fgonnx.Explainer(summed(f"{moves} e = Gather(table, i)"), method=method, psi="signed")(SIX)
    expected = each * times * (2 if method == "gradient-x-input" else 1)
    np.testing.assert_allclose(e.saliency, expected, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("moves", "of"), MOVED.values(), ids=MOVED)
def test_the_map_of_moved_ids_is_of_no_other_tokens(moves: str, of: list[int | None]) -> None:
    proto = summed(f"{moves} e = Gather(table, i)", square=False)
    e = fgonnx.Explainer(proto, psi="signed")(SIX)
    each = (WEIGHTS["table"] @ draw(4, w=(D, 1))["w"])[SIX, 0]
    np.testing.assert_allclose(e.saliency, each * [of.count(t) for t in range(6)], atol=1e-4)
    np.testing.assert_allclose(e.completeness, 0, atol=1e-4)


def test_each_look_up_of_the_ids_counts_at_its_own_tokens() -> None:
    moves = (
        "s = Slice(ids, c0, c1, c1) z = Shape(s) n = ConstantOfShape<value=int64[1]{0}>(z) "
        "a = Slice(ids, c0, cm1, c1) i = Concat<axis=1>(n, a)"
    )
    body = f"{moves} f = Gather(table, ids) g = Gather(second, i) e = Add(f, g)"
    proto = summed(body, square=False)
    proto.graph.initializer.append(numpy_helper.from_array(draw(5, second=(V, D))["second"], "second"))
    w = draw(4, w=(D, 1))["w"]
    own, before = (WEIGHTS["table"] @ w)[SIX, 0], (draw(5, second=(V, D))["second"] @ w)[SIX, 0]
    before[:, -1] = 0  # no token follows the last
    for method in ("fullgrad", "gradient-x-input", "integrated-gradients"):
        e = fgonnx.Explainer(proto, psi="signed", method=method)(SIX)
        np.testing.assert_allclose(e.saliency, own + before, atol=1e-4)


def test_characters_of_words_are_tokens_along_both_axes() -> None:
    text = "e = Gather(table, ids) r = MatMul(e, w) k = Reshape(r, flat) y = ReduceSum<keepdims=1>(k, last)"
    arrays = {**WEIGHTS, "flat": np.array([0, -1]), "last": np.array([1]), **draw(4, w=(D, 1))}
    proto = model(f"(int64[N,2,3] ids) => (float[N,1] y) {{ {text} }}", 20, 9, arrays)
    e = fgonnx.Explainer(proto, psi="signed")(SIX.reshape(2, 2, 3))
    np.testing.assert_allclose(e.saliency, (WEIGHTS["table"] @ arrays["w"])[SIX, 0].reshape(2, 2, 3), atol=1e-4)


def test_ids_made_of_those_of_several_tokens_are_refused_by_name() -> None:
    moves = "v = Slice(ids, c0, cm1, c1) a = Slice(ids, c1, c9, c1) i = Max(a, v)"
    with pytest.raises(ModelError, match="computed of several ids of 'ids' at once"):
        fgonnx.Explainer(summed(f"{moves} e = Gather(table, i)"))(SIX)


def test_a_number_is_not_bound_to_a_mask_as_long_as_the_text() -> None:
    body = "f = Cast<to=1>(mask) u = Unsqueeze(f, two) g = Gather(table, ids) e = Mul(g, u)"
    proto = model(
        f"(int64[N,L] ids, int64[N,L] mask) => (float[N,3] y) {{ {CONSTANTS} {body} {CONVOLUTION} }}", 20, 9, WEIGHTS
    )
    with pytest.raises(OptionError, match="bind it to an array of the sizes that it is to have, as mask="):
        fgonnx.Explainer(proto, bind={"mask": 1})(IDS)


def test_wider_ids_are_taken_where_a_model_has_narrower_ones(tmp_path: Path) -> None:
    proto = of_ids(FRONTS["gather"], ids=f"int32[N,{T}] ids")
    expected = fgonnx.Explainer(proto)(IDS)
    assert fgonnx.check(proto, IDS, directions=2).passed
    found = fgonnx.compare(proto, proto, IDS)
    np.testing.assert_allclose(found.b.score, expected.score, atol=1e-6)
