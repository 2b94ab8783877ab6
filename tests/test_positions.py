"""Heads of several axes, such as sequences of classes: everything written names an entry by its position."""

import json

import numpy as np
import onnx
import pytest

from fgonnx.jobs import record
from fgonnx.jobs.compared import called, scores_said
from tests.cli_support import good
from tests.support import draw, model

STEPS, CLASSES = 6, 5
X = np.random.default_rng(3).standard_normal((1, 3, 4, STEPS)).astype(np.float32)
SHAPES = {"TC": [-1, STEPS, CLASSES], "T1C": [-1, STEPS, 1, CLASSES]}


def sequence(path, shape, winner):
    """A head of classes at each step, the largest at one of them."""
    won = np.zeros((1, STEPS, CLASSES), np.float32)
    won[0, winner[0], winner[1]] = 50
    proto = model(
        f"""(float[N,3,4,{STEPS}] x) => (float[{",".join("NABC"[: len(shape) + 1])}] y) {{
            c = Conv(x, w) r = Relu(c) s = Squeeze(r, two) t = Transpose<perm=[0,2,1]>(s) u = Add(t, won)
            y = Reshape(u, to)
        }}""",
        weights=draw(w=(CLASSES, 3, 4, 1)) | {"won": won, "two": np.array([2]), "to": np.array(SHAPES[shape])},
    )
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    ("shape", "index", "position", "name"),
    [
        ((10,), 7, [7], "7"),
        ((1, 10), 7, [0, 7], "7"),
        ((10, 1, 1), 7, [7, 0, 0], "7"),
        ((6, 5), 25, [5, 0], "25 (5, 0)"),
        ((6, 5), 3, [0, 3], "3 (0, 3)"),
        ((6, 5), 0, [0, 0], "0 (0, 0)"),
        ((6, 1, 5), 25, [5, 0, 0], "25 (5, 0, 0)"),
        ((1, 6, 5), 28, [0, 5, 3], "28 (0, 5, 3)"),
    ],
)
def test_an_entry_has_its_position_where_there_are_several_axes(shape, index, position, name):
    entry = {"index": index, "position": position, "label": None}
    about = {"explained": {"shape": list(shape)}}
    assert record.name_of(entry, about) == record.first_name(entry, about) == name
    assert record.name_of(entry | {"label": "cat, pet"}, about) == "cat, pet"
    assert record.first_name(entry | {"label": "cat, pet"}, about) == "cat"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("winner", [(5, 0), (0, 3), (0, 0), (4, 2)])
def test_a_sequence_is_explained_at_a_position(tmp_path, monkeypatch, shape, winner):
    monkeypatch.setenv("COLUMNS", "160")
    path = sequence(tmp_path / "net.onnx", shape, winner)
    np.save(tmp_path / "x.npy", X)
    said = good("explain", path, tmp_path / "x.npy", "-o", tmp_path / "out")
    made = json.loads((tmp_path / "out" / "x-0000.json").read_text())
    place = winner if shape == "TC" else (winner[0], 0, winner[1])
    name = f"{winner[0] * CLASSES + winner[1]} {place}"
    assert f"{name} (" in said
    assert record.target_of(made) == name
    assert made["explained"]["shape"] == SHAPES[shape][1:]


ROW = {
    "target": 28,
    "target_label": None,
    "explained": "(5, 3), the largest",
    "choice_a": 28,
    "choice_b": 26,
    "position_a": [5, 3],
    "position_b": [5, 1],
    "label_a": None,
    "label_b": None,
    "score_a": 3.0,
    "score_b": 2.0,
    "probability_a": None,
    "probability_b": None,
    "score_difference": 0.5,
}


@pytest.mark.parametrize(
    ("changed", "a", "b"),
    [
        ({}, "A: score 3 for (5, 3), its largest", "B: score 2 for (5, 3), A's largest; its largest entry is (5, 1)"),
        (
            {"choice_b": 28, "position_b": [5, 3]},
            "A: score 3 for (5, 3), its largest",
            "B: score 2 for (5, 3), its largest",
        ),
        (
            {"explained": "(5, 1)", "target": 26},
            "A: score 3 for (5, 1); its largest entry is (5, 3)",
            "B: score 2 for (5, 1)",
        ),
        (
            {"explained": "28, the largest", "position_a": None, "position_b": None},
            "A: score 3 for 28, its largest",
            "B: score 2 for 28, A's largest; chooses 26",
        ),
        (
            {"target_label": "cat", "label_a": "cat", "label_b": "dog", "position_a": None, "position_b": None},
            "A: score 3 for cat",
            "B: score 2 for cat; chooses dog",
        ),
    ],
)
def test_what_two_models_say_is_in_one_notation(changed, a, b):
    assert scores_said(ROW | changed)[:2] == [a, b]


@pytest.mark.parametrize(("first", "second"), [("TC", "TC"), ("T1C", "T1C"), ("T1C", "TC")])
def test_two_sequences_are_compared_by_position(tmp_path, first, second):
    a, b = sequence(tmp_path / "a.onnx", first, (5, 0)), sequence(tmp_path / "b.onnx", second, (4, 0))
    np.save(tmp_path / "x.npy", X)
    said = good("compare", a, b, tmp_path / "x.npy", "-o", tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "summary.json").read_text())["images"]
    places = [(5, 0), (4, 0)] if first == "TC" else [(5, 0, 0), (4, 0, 0)]
    assert [row["position_a"], row["position_b"]] == [list(place) for place in places]
    assert [called(row, "a"), called(row, "b")] == [str(place) for place in places]
    assert all(str(place) in said for place in places)
