"""Choices that are held fixed are named wherever a model is described, explained, checked or compared."""

import json

import numpy as np
import onnx
import pytest

import fgonnx
from tests.cli_support import good
from tests.support import draw, model

CHOICES = {
    "TopK": ("k = Constant<value_ints=[3]>() t, i = TopK(f, k)", "its choice is held fixed"),
    "Where": (
        "h = Constant<value_float=0.1>() c = Greater(f, h) z = Mul(f, h) q = Where(c, f, z) "
        "k = Constant<value_ints=[3]>() s = Constant<value_ints=[0]>() o = Constant<value_ints=[1]>() "
        "t = Slice(q, s, k, o)",
        "its choice is held fixed",
    ),
    "GatherElements": (
        "i = ArgMax<axis=1, keepdims=1>(f) g = GatherElements<axis=1>(f, i) t = Concat<axis=1>(g, g, g)",
        "its choice is held fixed",
    ),
}


def choosing(op_type):
    return model(
        f"""(float[N,3,8,8] x) => (float[N,4] y) {{
            a = Conv(x, w, b)
            p = GlobalAveragePool(a)
            f = Flatten(p)
            {CHOICES[op_type][0]}
            y = Gemm(t, v)
        }}""",
        weights=draw(w=(6, 3, 3, 3), b=(6,), v=(3, 4)),
    )


def says(notes, op_type):
    return any(f"`{op_type}`" in note and CHOICES[op_type][1] in note for note in notes)


@pytest.fixture(params=CHOICES)
def case(request, tmp_path):
    """An operator that chooses, a model of it as a file, and a sample as another."""
    path, sample = tmp_path / "model.onnx", tmp_path / "x.npy"
    onnx.save(choosing(request.param), path)
    np.save(sample, np.random.default_rng(0).random((1, 3, 8, 8), np.float32))
    return request.param, path, sample


def test_in_python(case):
    op_type, path, sample = case
    x = np.load(sample)
    assert says(fgonnx.inspect(path)["explanation"]["notes"], op_type)
    assert says(fgonnx.Explainer(path)(x).notes, op_type)
    assert says(fgonnx.check(path, x, directions=1).notes, op_type)
    assert says(fgonnx.compare(path, path, x).notes, op_type)


def test_notes_of_one_model_say_which(case):
    op_type, path, sample = case
    plain = model(
        """(float[N,3,8,8] x) => (float[N,4] y) {
            a = Conv(x, w, b) p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, v)
        }""",
        weights=draw(w=(6, 3, 3, 3), b=(6,), v=(6, 4)),
    )
    found = fgonnx.compare(plain, path, np.load(sample)).notes
    assert says([note for note in found if note.startswith("model B: ")], op_type)


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_on_the_command_line(case, command):
    op_type, path, sample = case
    given = () if command == "inspect" else (sample, "--directions", 2, "--threads", 1)
    text = " ".join(good(command, path, *given).split())
    assert f"`{op_type}`" in text
    assert "held fixed" in text


def test_in_the_record_of_an_explanation(case, tmp_path):
    op_type, path, sample = case
    text = good("explain", path, sample, "-o", tmp_path / "out", "--threads", 1)
    assert f"`{op_type}`" in text
    (record,) = (tmp_path / "out").glob("*.json")
    assert says(json.loads(record.read_text())["notes"], op_type)


def test_in_the_summary_of_a_comparison(case, tmp_path):
    op_type, path, sample = case
    text = good("compare", path, path, sample, "-o", tmp_path / "out", "--threads", 1)
    assert f"`{op_type}`" in text
    assert says(json.loads((tmp_path / "out" / "summary.json").read_text())["notes"], op_type)


WRITTEN_OUT = {
    "GridSample": "t = MatMul(f, w1) b = Add(t, one) c = Reshape(b, ones) g = AffineGrid(c, size) s = GridSample(x, g)",
    "GridSample, nearest": "t = MatMul(f, w1) b = Add(t, one) c = Reshape(b, ones) g = AffineGrid(c, size) "
    's = GridSample<mode="nearest">(x, g)',
    "GreaterOrEqual": "h = ReduceMean(x) c = GreaterOrEqual(x, h) z = Neg(x) s = Where(c, x, z)",
    "LessOrEqual": "h = ReduceMean(x) c = LessOrEqual(x, h) z = Neg(x) s = Where(c, x, z)",
}


@pytest.mark.parametrize("body", WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_notes_name_the_models_own_nodes(body):
    """Operators that are written out in others stand for themselves."""
    given = draw(w1=(192, 6), v=(3, 4)) | {
        "one": np.array([1, 0, 0, 0, 1, 0], np.float32),
        "ones": np.array([1, 2, 3]),
        "size": np.array([1, 3, 8, 8]),
    }
    used = {n: a for n, a in given.items() if n in body.replace("(", " ").replace(")", " ").replace(",", " ") + " v"}
    source = model(
        f"(float[1,3,8,8] x) => (float[1,4] y) {{ f = Flatten(x) {body} r = Relu(s) "
        "p = GlobalAveragePool(r) q = Flatten(p) y = MatMul(q, v) }",
        20,
        9,
        used,
    )
    for i, node in enumerate(source.graph.node):
        node.name = f"own{i}"
    notes = fgonnx.Explainer(source)(np.random.default_rng(0).random((1, 3, 8, 8), np.float32)).notes
    held = [note for note in notes if note.startswith("`")]
    assert held
    assert all(part.startswith("own") and "/" not in part for note in held for part in note.split("'")[1:2])
    operators = {node.op_type for node in source.graph.node}
    assert {note.split("`")[1] for note in held} <= operators
