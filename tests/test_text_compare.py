"""Two models of texts compared: by the words, from files and typed, in Python, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import fgonnx
from fgonnx.errors import InputError, ModelError
from tests.cli_support import good, run
from tests.word_models import sums, tokenizer, written

READ = ["the film was superb", "bad film", "not good"]


def pair(folder: Path, scale: float = 1.0) -> tuple[Path, Path]:
    """Write A, and B that differs by a factor of what its words are worth."""
    return written(folder), written(folder, "other.onnx", scale=scale)


def test_models_that_agree_agree_in_every_measure(tmp_path: Path) -> None:
    found = fgonnx.compare(*pair(tmp_path), text=READ)
    assert len(found) == 3
    for name in ("top1", "rank_correlation", "correlation", "overlap", "pointing"):
        assert found.measures[name] == pytest.approx(1), name
    assert found.measures["score_difference"] == pytest.approx(0)
    assert found.parted() == []


def test_words_that_weigh_the_other_way_are_seen(tmp_path: Path) -> None:
    found = fgonnx.compare(*pair(tmp_path, -1), text="the film was superb", target=1)
    assert found[0].measures["correlation"] == pytest.approx(-1)
    assert found[0].measures["pointing"] == 0
    assert (found[0].choice_a, found[0].choice_b) == (1, 0)
    assert found[0].a.values.tolist() == pytest.approx([0, 0.25, 0, 4])
    assert found[0].b.values.tolist() == pytest.approx([0, -0.25, 0, -4])


def test_the_command_writes_rows_pictures_and_a_page(tmp_path: Path) -> None:
    a, b = pair(tmp_path, 0.5)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in READ))
    folder = tmp_path / "out"
    good("compare", a, b, tmp_path / "t.jsonl", "--text", "good <b>", "-o", folder, "--labels", tmp_path / "labels.txt")
    made = json.loads((folder / "summary.json").read_text())
    assert len(made["images"]) == 4
    assert "ssim" not in made["measures"]
    row = made["images"][1]
    assert [w["text"] for w in row["words"]] == READ[0].split()
    assert (row["label_a"], row["label_b"]) == ("good", "good")
    assert row["words"][3]["a"] == pytest.approx(2 * row["words"][3]["b"])
    assert (folder / "t-0002.png").is_file()
    page = (folder / "index.html").read_text()
    assert page.count("B - A") == 4
    assert "<b>" not in page
    assert made["command"][4:6] == [str(tmp_path / "t.jsonl"), "-o"]


def test_a_limit_that_does_not_hold_fails(tmp_path: Path) -> None:
    result = run("compare", *pair(tmp_path, -1), "--text", "superb film", "-o", tmp_path / "o", "--min-pointing", "1")
    assert result.exit_code == 1
    assert "same word on top" in result.output


def test_structural_similarity_of_words_is_refused(tmp_path: Path) -> None:
    result = run("compare", *pair(tmp_path), "--text", "superb", "-o", tmp_path / "out", "--min-ssim", "0.5")
    assert result.exit_code == 2
    assert "it compares pictures" in " ".join(result.output.split())


@pytest.mark.parametrize("kind", ["int64", "float32", "int32"])
def test_ids_that_a_model_takes_as_numbers_may_be_whole(tmp_path: Path, kind: str) -> None:
    name = {"int64": "int64", "float32": "float", "int32": "int32"}[kind]
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g ({name}[N,3] ids) => (float[N,2] y)
        <float[5,2] table = {{1,2,3,4,5,6,7,8,9,10}}, int64[1] axis = {{1}}> {{
            i = Cast<to=7>(ids) r = Gather(table, i) y = ReduceSum<keepdims=0>(r, axis) }}"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "ids.npy", np.array([[0, 1, 4], [2, 2, 3]]))
    good("compare", tmp_path / "m.onnx", tmp_path / "m.onnx", tmp_path / "ids.npy", "-o", tmp_path / "out")
    made = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["score_a"] for row in made["images"]] == [16, 20]


def test_the_tokenizer_beside_either_model_serves_both(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    onnx.save(sums(), tmp_path / "a" / "a.onnx")
    b = written(tmp_path / "b", "b.onnx")
    assert fgonnx.compare(tmp_path / "a" / "a.onnx", b, text="superb film")[0].measures["top1"] == 1


def test_models_of_other_lengths_are_refused(tmp_path: Path) -> None:
    for length in (4, 6):
        model = sums()
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = length
        onnx.save(model, tmp_path / f"{length}.onnx")
    tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match=r"takes 4 tokens and 6\.onnx 6"):
        fgonnx.compare(tmp_path / "4.onnx", tmp_path / "6.onnx", text="superb")


def test_nothing_to_compare_on(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    with pytest.raises(InputError, match="nothing to compare on"):
        fgonnx.compare(a, b)
    with pytest.raises(InputError, match="not both"):
        fgonnx.compare(a, b, np.zeros((1, 3)), text="superb")
