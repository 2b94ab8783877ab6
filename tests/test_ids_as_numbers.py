"""Ids that a framework gives as floating-point numbers: they are ids where nothing computes with the numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

import fgonnx
from fgonnx.errors import InputError
from fgonnx.text.explainer import TextExplainer
from tests.cli_support import good, refused, run

TABLE = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
IDS = np.array([[3, 1, 0, 5], [2, 2, 4, 0]], np.float32)

NOT_PADDING = IDS > 0
MASKS = {
    "none": ("k = Constant<value_float = 1.0>()", 1),
    "what is not the padding": (
        "e = Equal(ids, zero) n = Not(e) f = Cast<to = 1>(n) k = Unsqueeze(f, two)",
        NOT_PADDING,
    ),
    "above the padding": ("e = Greater(ids, zero) f = Cast<to = 1>(e) k = Unsqueeze(f, two)", NOT_PADDING),
    "all that are in the table": ("e = LessOrEqual(ids, five) f = Cast<to = 1>(e) k = Unsqueeze(f, two)", 1),
    "clipped": ("f = Clip(ids, zero, uno) k = Unsqueeze(f, two)", NOT_PADDING),
    "the least of it and one": ("f = Min(ids, uno) k = Unsqueeze(f, two)", NOT_PADDING),
    "one minus it, above zero": ("d = Sub(uno, ids) e = Relu(d) f = Sub(uno, e) k = Unsqueeze(f, two)", NOT_PADDING),
    "the sign": ("f = Sign(ids) k = Unsqueeze(f, two)", NOT_PADDING),
    "the sign of rows": ("u = Unsqueeze(ids, two) k = Sign(u)", NOT_PADDING),
    "rounded up": ("q = Mul(ids, tenth) f = Ceil(q) k = Unsqueeze(f, two)", NOT_PADDING),
    "rounded": ("q = Mul(ids, tenth) h = Add(q, point) f = Round(h) k = Unsqueeze(f, two)", NOT_PADDING),
    "rounded down": ("q = Div(ids, five) f = Floor(q) k = Unsqueeze(f, two)", IDS == 5),
    "its scale compared": (
        "q = Mul(ids, tenth) e = Greater(q, zero) f = Cast<to = 1>(e) k = Unsqueeze(f, two)",
        NOT_PADDING,
    ),
    "some of several": (
        "q = Mul(ids, rows) e = Greater(q, zero) f = Cast<to = 1>(e) k = Unsqueeze(f, two)",
        NOT_PADDING,
    ),
    "of whole numbers": ("f = Sign(i) g = Cast<to = 1>(f) k = Unsqueeze(g, two)", NOT_PADDING),
    "the size alone": ("s = Shape(ids) q = Expand(half, s) k = Unsqueeze(q, two)", 0.5),
}


def model(body: str) -> onnx.ModelProto:
    values = ", ".join(f"{v:.9g}" for v in TABLE.ravel())
    return parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> net (float[N,T] ids) => (float[N,2] y) '
        f"<float[6,2] w = {{{values}}}, float zero = {{0}}, float five = {{5}}, int64[1] two = {{2}}, "
        f"int64[1] one = {{1}}, float half = {{0.5}}, float uno = {{1}}, float tenth = {{0.1}}, "
        f"float point = {{0.45}}, float[1] rows = {{2}}> {{ {body} p = Mul(r, k) y = ReduceSum<keepdims = 0>(p, one) }}"
    )


@pytest.mark.parametrize(("mask", "kept"), MASKS.values(), ids=MASKS)
def test_they_are_explained_with_respect_to_their_rows(mask, kept):
    m = model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {mask}")
    found = fgonnx.Explainer(m, method="gradient-x-input", psi="signed")(IDS, 1)
    np.testing.assert_allclose(found.saliency, TABLE[IDS.astype(int), 1] * kept, rtol=1e-6)


@pytest.mark.parametrize(
    "look_up",
    [
        "d = Cast<to = 11>(ids) i = Cast<to = 7>(d) r = Gather(w, i)",
        "d = Floor(ids) i = Cast<to = 7>(d) r = Gather(w, i)",
        "d = Round(ids) a = Identity(d) i = Cast<to = 6>(a) r = Gather(w, i)",
        "d = Transpose(ids) i = Cast<to = 6>(d) t = Gather(w, i) r = Transpose<perm = [1, 0, 2]>(t)",
        "d = Add(ids, uno) a = Sub(d, uno) i = Cast<to = 6>(a) r = Gather(w, i)",
    ],
)
@pytest.mark.parametrize("mask", ["clipped", "the sign", "above the padding"])
def test_they_are_followed_to_their_cast(look_up, mask):
    m = model(f"{look_up} {MASKS[mask][0]}")
    found = fgonnx.Explainer(m, method="gradient-x-input", psi="signed")(IDS, 1)
    np.testing.assert_allclose(found.saliency, TABLE[IDS.astype(int), 1] * NOT_PADDING, rtol=1e-6)


@pytest.mark.parametrize("mask", ["clipped", "the least of it and one", "the sign", "rounded up", "rounded down"])
def test_what_is_held_fixed_is_said(mask):
    found = fgonnx.Explainer(model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {MASKS[mask][0]}"))(IDS, 1)
    assert any("is a step between ids; its outcome is held fixed" in note for note in found.notes)
    assert found.rounding_residual().max() < 1e-6


COMPUTED = {
    "itself": ("k = Unsqueeze(ids, two)", IDS),
    "scaled": ("q = Mul(ids, tenth) k = Unsqueeze(q, two)", IDS * 0.1),
    "clipped between others": ("q = Clip(ids, zero, five) k = Unsqueeze(q, two)", IDS),
    "a clip of what is not whole": ("q = Mul(ids, tenth) f = Clip(q, zero, uno) k = Unsqueeze(f, two)", IDS * 0.1),
}


@pytest.mark.parametrize(("mask", "factor"), COMPUTED.values(), ids=COMPUTED)
def test_numbers_that_are_computed_with_are_none(mask, factor):
    m = model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {mask}")
    found = fgonnx.Explainer(m, method="gradient-x-input", psi="signed")(IDS, 1)
    inside = (IDS > 0) & (IDS < 5) if "five" in mask else 1
    expected = TABLE[IDS.astype(int), 1] * factor * inside
    np.testing.assert_allclose(found.saliency.reshape(IDS.shape), expected, rtol=1e-5)
    assert any("held fixed" in note for note in found.notes)


WHOLE_MASKS = {
    "the sign": "s = Sign(ids) f = Cast<to = 1>(s)",
    "clipped": "s = Clip(ids, zero, one) f = Cast<to = 1>(s)",
    "the least of it and one": "s = Min(ids, one) f = Cast<to = 1>(s)",
    "as numbers": "c = Cast<to = 1>(ids) f = Clip(c, low, high)",
}


@pytest.mark.parametrize("mask", WHOLE_MASKS.values(), ids=WHOLE_MASKS)
def test_steps_of_whole_numbers_are_held_fixed_too(mask):
    values = ", ".join(f"{v:.9g}" for v in TABLE.ravel())
    m = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> net (int64[N,T] ids) => (float[N,2] y) '
        f"<float[6,2] w = {{{values}}}, int64 zero = {{0}}, int64 one = {{1}}, float low = {{0}}, float high = {{1}}, "
        f"int64[1] two = {{2}}, int64[1] along = {{1}}> {{ r = Gather(w, ids) {mask} k = Unsqueeze(f, two) "
        "p = Mul(r, k) y = ReduceSum<keepdims = 0>(p, along) }"
    )
    ids = IDS.astype(np.int64)
    found = fgonnx.Explainer(m, method="gradient-x-input", psi="signed")(ids, 1)
    np.testing.assert_allclose(found.saliency, TABLE[ids, 1] * NOT_PADDING, rtol=1e-6)


def test_inspect_says_so(tmp_path):
    onnx.save(model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {MASKS['above the padding'][0]}"), tmp_path / "m.onnx")
    assert "ids of a vocabulary of 6: explained with respect to the rows" in run("inspect", tmp_path / "m.onnx").stdout


WHOLE = {"float32": IDS, "float64": IDS.astype(np.float64), "int64": IDS.astype(np.int64), "one text": IDS[0]}
COMMANDS = {
    "explain": ("MODEL", "IDS", "-o", "OUT"),
    "check": ("MODEL", "IDS"),
    "compare": ("MODEL", "MODEL", "IDS", "-o", "OUT"),
}


@pytest.fixture
def saved(tmp_path):
    onnx.save(model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {MASKS['above the padding'][0]}"), tmp_path / "m.onnx")

    def asked(command, ids):
        np.save(tmp_path / "ids.npy", ids)
        known = {"MODEL": tmp_path / "m.onnx", "IDS": tmp_path / "ids.npy", "OUT": tmp_path / "out"}
        return command, *(known.get(word, word) for word in COMMANDS[command])

    return asked


@pytest.mark.parametrize("ids", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("command", COMMANDS)
def test_whole_numbers_of_any_type_are_taken_from_files(command, ids, saved):
    good(*saved(command, ids if command != "check" else np.atleast_2d(ids)))


def test_they_are_the_same_ids_in_any_type(tmp_path, saved):
    maps = []
    for ids in (IDS, IDS.astype(np.int64)):
        good(*saved("explain", ids))
        maps.append(np.load(tmp_path / "out" / "ids-0001.npy"))
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize(
    ("wrong", "said"), [(3.5, "3.5 at (0, 1)"), (np.nan, "nan at (0, 1)"), (np.inf, "inf at (0, 1)")]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_whole_number_is_named(command, wrong, said, saved):
    ids = IDS.copy()
    ids[0, 1] = wrong
    assert said in refused(*saved(command, ids))


@pytest.mark.parametrize("given", [[3.0, 1.0, 0.0], np.array([3.0, 1.0, 0.0]), np.array([[3.0, 1.0, 0.0]])])
def test_texts_are_given_as_numbers(given):
    explainer = TextExplainer(model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {MASKS['none'][0]}"))
    whole = explainer([3, 1, 0], 1)
    found = explainer(given, 1)
    np.testing.assert_array_equal(found[0].values, whole[0].values)


@pytest.mark.parametrize("given", [[3.0, 1.5], np.array([3.0, 1.5]), np.array([[3.0, 1.5]])])
def test_texts_of_broken_numbers_are_refused(given):
    explainer = TextExplainer(model(f"i = Cast<to = 6>(ids) r = Gather(w, i) {MASKS['none'][0]}"))
    with pytest.raises(InputError, match=r"holds 1\.5 at .*; ids are whole numbers"):
        explainer(given, 1)
