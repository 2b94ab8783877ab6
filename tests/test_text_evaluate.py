"""Measures of explanations of texts: by hand on a bag of words, on the command line, from files, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fgonnx import evaluate
from fgonnx.errors import InputError, OptionError, TargetError
from fgonnx.jobs.evaluate_plan import Plan
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.text_evaluate import TextEvaluation
from fgonnx.text.options import Texts
from fgonnx.text.read import texts
from tests.cli_support import good, run
from tests.word_models import written


def probability(worth: float) -> float:
    return float(1 / (1 + np.exp(-worth)))


def test_probabilities_without_words_are_those_by_hand(tmp_path: Path) -> None:
    found = evaluate.text_measures(written(tmp_path), ["film superb was good"])
    falls = [6.25 - 4, 6.25 - 4, 6.25 - 4, 0.25]  # what is left without 5, 10, 20 % (one word) and half of the words
    expected = probability(6.25) - np.mean([probability(w) for w in falls])
    assert found["comprehensiveness"].values["drop"] == pytest.approx(expected)
    alone = [4, 4, 4, 6]
    expected = probability(6.25) - np.mean([probability(w) for w in alone])
    assert found["sufficiency"].values["drop"] == pytest.approx(expected)
    assert found["deletion"].curve is not None
    assert found["deletion"].curve[0][[0, 5, 10]] == pytest.approx([probability(w) for w in (6.25, 0.25, 0)])
    assert found["insertion"].curve is not None
    assert found["insertion"].curve[0][[0, 5, 10]] == pytest.approx([probability(w) for w in (0, 6, 6.25)])
    assert found["completeness"].values["residual"] == pytest.approx(0, abs=1e-6)


def test_the_true_order_is_better_than_a_random_one(tmp_path: Path) -> None:
    path, read = written(tmp_path), ["the film was superb", "good the the film", "film was not superb"]
    right, random = (evaluate.text_measures(path, read, method=m) for m in ("occlusion", "random"))
    assert right["deletion"].values["auc"].mean() < random["deletion"].values["auc"].mean()
    assert right["comprehensiveness"].values["drop"].mean() > random["comprehensiveness"].values["drop"].mean()


def test_a_sigmoid_of_each_class_is_its_probability(tmp_path: Path) -> None:
    found = evaluate.text_measures(written(tmp_path, extra="y = Sigmoid(s)"), ["the superb good"], 0)
    assert found["deletion"].curve is not None
    assert found["deletion"].curve[0] == pytest.approx([0.5] * 11)


FILES = {
    "a.csv": "text,label\nthe film was superb,good\nbad film,bad\n",
    "b.csv": "label;text\ngood;the film, was superb\nbad;bad film\n",
    "c.jsonl": '{"text": "the film was superb", "label": "good"}\n{"text": "bad film", "label": 0}\n',
    "d.tsv": "text\tlabel\nthe film was superb\t1\nbad film\t0\n",
}


@pytest.mark.parametrize("name", FILES)
def test_texts_of_files_have_their_classes(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    (tmp_path / name).write_text(FILES[name])
    folder = tmp_path / "out"
    options = ("--target", "label", "--methods", "fullgrad,random", "--labels", tmp_path / "labels.txt")
    good("evaluate", path, tmp_path / name, "-o", folder, *options)
    made = json.loads((folder / "summary.json").read_text())
    assert (made["data"]["images"], made["data"]["of"], made["data"]["accuracy"]) == (2, "texts", 1.0)
    assert {e["measure"] for e in made["results"]} >= {"deletion", "insertion", "comprehensiveness", "sufficiency"}
    page = (folder / "index.html").read_text()
    assert "superb</bdi>" in page
    assert (folder / "maps" / f"{name.split('.')[0]}-0000.png").is_file()
    saved = np.load(folder / "maps" / "fullgrad" / f"{name.split('.')[0]}-0000.npy")
    assert [round(float(v), 3) for v in saved if v] == [0.25, 4]
    first = (folder / "journal.jsonl").read_text()
    good("evaluate", path, tmp_path / name, "-o", folder, *options)
    assert (folder / "journal.jsonl").read_text() == first


REFUSED = {
    "a measure of pictures": ({"measures": ("energy",)}, OptionError, "not defined for words"),
    "a method of pictures": ({"methods": ("edge",)}, OptionError, "looks at pixels"),
    "settings of a measure": (
        {"measures": ("deletion",), "methods": ("rise:samples=5",)},
        OptionError,
        "looks at pixels",
    ),
    "classes that are not there": ({"target": "label"}, OptionError, "has no class"),
    "masks": ({"masks": Path("masks")}, OptionError, "masks are pictures"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_for_texts_is_refused(tmp_path: Path, case: str) -> None:
    plan, error, said = REFUSED[case]
    with pytest.raises(error, match=said):
        TextEvaluation(written(tmp_path), [], ["good film"], tmp_path / "out", Plan(**plan))


def test_a_class_that_is_none_of_the_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\ngood film,lovely\n")
    reading = Reading(labels=written(tmp_path).parent / "labels.txt")
    with pytest.raises(TargetError, match="'lovely'"):
        TextEvaluation(
            tmp_path / "bag.onnx",
            [tmp_path / "a.csv"],
            [],
            tmp_path / "out",
            Plan(target="label"),
            reading=reading,
            texts=Texts(column="text"),
        )


def test_a_text_for_a_model_of_pictures_is_refused(tmp_path: Path) -> None:
    result = run("evaluate", "examples/shapes.onnx", "--text", "a film", "-o", tmp_path)
    assert result.exit_code == 2
    assert "no text can be given" in " ".join(result.output.split())


def test_a_text_that_is_cut_by_a_comma_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\nfine\n"well, yes"\nwell, no\n')
    with pytest.raises(InputError, match=r"line 4: 2 cells.*in quotes"):
        texts([tmp_path / "a.csv"], [], None, as_bytes=False)
