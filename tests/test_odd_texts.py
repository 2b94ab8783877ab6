"""Rows without a text, classes that a model lacks, Parquet, what is not seen in words, and where messages say it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgonnx.errors import FgonnxError, InputError, TargetError
from fgonnx.jobs.audit.options import EXPORTS
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.text import split_blank
from fgonnx.jobs.text_evaluate import TextEvaluation
from fgonnx.pictures.show import words as drawing
from fgonnx.pictures.show.words import Shaded
from fgonnx.text.read import texts
from fgonnx.wording import visible
from tests import skips
from tests.cli_support import refused, run
from tests.word_models import written

METHODS = ("--methods", "fullgrad", "--measures", "sparseness")
GOOD = "the film was superb"
BLANK = {
    "a.csv": (f"text,label\n{GOOD},good\n,good\n  ,bad\nbad film,bad\n", ["line 3", "line 4"]),
    "quoted.csv": (f'text,label\n"the film\nwas good",good\n\n"",good\n{GOOD},good\n', ["line 5"]),
    "b.tsv": (f"text\tlabel\n \tgood\n{GOOD}\tgood\n", ["line 2"]),
    "c.jsonl": (
        f'{{"text": "{GOOD}"}}\n\n{{"text": null}}\n{{"text": ""}}\n{{"text": " ", "label": "good"}}\n',
        ["line 3", "line 4", "line 5"],
    ),
}


def read(path: Path, column: str | None = None):
    return texts([path], [], column, as_bytes=False)


class TestRowsWithoutAText:
    @pytest.mark.parametrize("name", BLANK)
    def test_are_left_out_by_their_line(self, tmp_path, name):
        content, lines = BLANK[name]
        (tmp_path / name).write_text(content)
        kept, left = split_blank(read(tmp_path / name))
        assert GOOD in [text.content for text in kept]
        assert left == {f"'{tmp_path / name}', {line}": "there is no text" for line in lines}

    @pytest.mark.parametrize("command", ["evaluate", "compare"])
    @pytest.mark.parametrize("name", ["a.csv", "c.jsonl"])
    def test_are_counted_and_named_and_the_exit_code_is_1(self, tmp_path, command, name):
        content, lines = BLANK[name]
        (tmp_path / name).write_text(content)
        path = written(tmp_path)
        own = (*METHODS, "--labels", tmp_path / "labels.txt") if command == "evaluate" else ()
        models = [path] * (1 if command == "evaluate" else 2)
        result = run(command, *models, tmp_path / name, "-o", tmp_path / "out", *own)
        assert result.exit_code == 1, result.output
        assert f"{len(lines)}:" in result.output
        made = json.loads((tmp_path / "out" / "summary.json").read_text())
        skipped = made["data"]["skipped"] if command == "evaluate" else made["skipped"]
        assert [where.rpartition(", ")[2] for where in skipped] == lines

    @pytest.mark.parametrize("content", ['{"text": null}\n', '{"text": ""}\n{"text": " "}\n'])
    @pytest.mark.parametrize("command", ["evaluate", "compare", "explain"])
    def test_are_refused_where_there_is_no_other(self, tmp_path, command, content):
        (tmp_path / "a.jsonl").write_text(content)
        models = [written(tmp_path)] * (2 if command == "compare" else 1)
        said = refused(command, *models, tmp_path / "a.jsonl", "-o", tmp_path / "out")
        assert "line 1: there is no text" in said

    def test_numbers_are_no_texts(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
        with pytest.raises(InputError, match="line 2: 'text' holds 3, which is no text"):
            read(tmp_path / "a.jsonl")


def evaluation(folder: Path, content: str) -> TextEvaluation:
    (folder / "a.csv").write_text(content)
    path = written(folder)
    return TextEvaluation(path, [folder / "a.csv"], [], folder / "out", reading=Reading(labels=folder / "labels.txt"))


CLASSES = {
    "another name": ("text,label\ngood film,lovely\n", "'lovely'"),
    "one of several": ("text,label\ngood film,good\nbad film,awful\n", "1 of 2 classes.*'awful'"),
    "an index too large": ("text,label\ngood film,7\n", "'7'"),
}


class TestClassesOfTexts:
    @pytest.mark.parametrize("case", CLASSES)
    def test_that_the_model_lacks_end_the_run_before_it_begins(self, tmp_path, case):
        content, said = CLASSES[case]
        with pytest.raises(TargetError, match=said):
            evaluation(tmp_path, content)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("content", ["text,label\ngood film,good\nbad film,\n", "text,label\ngood film,1\n"])
    def test_may_be_missing_and_may_be_indices(self, tmp_path, content):
        assert evaluation(tmp_path, content).skipped == {}


class TestParquet:
    @pytest.fixture
    def table(self, tmp_path):
        pa, pq = skips.without("pyarrow"), skips.without("pyarrow.parquet")

        def write(columns):
            pq.write_table(pa.table(columns), tmp_path / "t.parquet")
            return tmp_path / "t.parquet"

        return write

    def test_holds_texts_and_their_classes(self, table):
        found = read(table({"review": [GOOD, None, "bad"], "label": ["good", "bad", None]}), "review")
        assert [(t.content, t.label) for t in found] == [(GOOD, "good"), ("", "bad"), ("bad", None)]
        assert found[1].where.endswith("t.parquet', row 1")

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"text": [1, 2]}, "row 0: 'text' holds 1, which is no text"),
            ({"a": ["x"], "b": ["y"]}, "has several columns"),
            ({"text": []}, "holds no texts"),
        ],
    )
    def test_without_texts_is_refused(self, table, columns, said):
        with pytest.raises(FgonnxError, match=said):
            read(table(columns))

    def test_that_is_none_is_refused(self, tmp_path, table):
        path = table({"text": ["x"]})
        path.write_bytes(b"PAR1 and nothing else")
        with pytest.raises(InputError, match="cannot be read as Parquet"):
            read(path)

    def test_names_what_is_missing(self, table, monkeypatch):
        path = table({"text": ["x"]})
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(InputError, match="needs pyarrow: pip install"):
            read(path)

    @pytest.mark.parametrize("command", ["evaluate", "compare"])
    def test_is_taken_by_every_command(self, tmp_path, table, command):
        path, model = table({"text": [GOOD, "bad film"]}), written(tmp_path)
        given = (model, path, *METHODS) if command == "evaluate" else (model, model, path)
        assert run(command, *given, "-o", tmp_path / "out").exit_code == 0


SEEN = {
    "plain": ("superb, naïve", "superb, naïve"),
    "an override of the direction": ("go\u202eod", "go\\u202eod"),
    "isolates": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "a mark of the direction": ("x\u200f", "x\\u200f"),
    "a space of no width": ("su\u200bperb", "su\\u200bperb"),
    "a soft hyphen": ("su\u00adperb", "su\\xadperb"),
    "a mark of the byte order": ("\ufeffgood", "\\ufeffgood"),
    "a space that does not break": ("a\u00a0b", "a\\xa0b"),
    "a letter of no ink": ("a\u3164b", "a\\u3164b"),
    "an invisible tag": ("a\U000e0061", "a\\U000e0061"),
    "a joiner between Latin letters": ("go\u200dod", "go\\u200dod"),
    "a joiner of Persian": ("می\u200cخواهم", "می\u200cخواهم"),
    "a joiner of pictures": ("👩\u200d💻", "👩\u200d💻"),
    "the form of a picture": ("❤\ufe0f", "❤\ufe0f"),
    "the form of a Latin letter": ("a\ufe0f", "a\\ufe0f"),
    "joiners in a row": ("می\u200c\u200d", "می\u200c\\u200d"),
    "a joiner behind a form": ("❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"),
    "a joiner at the beginning": ("\u200dgood", "\\u200dgood"),
    "a joiner behind a mark of the direction": ("x\u202e\u200d", "x\\u202e\\u200d"),
    "joiners in a row behind a Latin letter": ("a\u200d\u200d", "a\\u200d\\u200d"),
    "a control": ("a\x07", "a\\x07"),
    "Chinese and Arabic": ("电影 جميل", "电影 جميل"),
}


class TestWhatIsNotSeen:
    @pytest.mark.parametrize("case", SEEN)
    def test_is_shown_by_its_code_point(self, case):
        given, wanted = SEEN[case]
        assert visible(given) == wanted
        page = drawing.page([drawing.as_html([Shaded(given, 1.0)], given, [given])], given)
        assert page.count(f">{wanted}<") == 4

    def test_of_a_word_turns_no_other(self):
        page = drawing.as_html([Shaded("good", 1.0), Shaded("\u05d8\u05d5\u05d1", 1.0)], "")
        assert page.count("<bdi") == 2
        assert "unicode-bidi:isolate" in page


class TestWords:
    def test_a_comparison_of_texts_is_of_texts(self, tmp_path):
        (tmp_path / "a.csv").write_text(f"text\n{GOOD}\nbad film\n")
        model = written(tmp_path)
        result = run("compare", model, model, tmp_path / "a.csv", "-o", tmp_path / "out")
        assert result.exit_code == 0, result.output
        assert "recording" not in result.output

    @pytest.mark.parametrize("content", ["", "\n\n"])
    def test_an_empty_table_lacks_texts(self, tmp_path, content):
        skips.without("pyarrow")
        skips.without("sklearn")
        skips.without("filelock")
        (tmp_path / "a.csv").write_text(content)
        said = refused("audit", written(tmp_path), tmp_path / "a.csv", "-o", tmp_path / "run")
        assert "it needs a header and rows of texts" in said

    @pytest.mark.parametrize("kind", EXPORTS)
    def test_a_run_of_texts_has_no_pictures_to_export(self, tmp_path, kind):
        for name in ("pyarrow", "sklearn", "filelock", "h5py"):
            skips.without(name)
        (tmp_path / "a.csv").write_text(f"text,of\n{GOOD},a\n,b\nbad film,c\n")
        options = ("--sanity", "0")
        result = run("audit", written(tmp_path), tmp_path / "a.csv", "-o", tmp_path / "run", *options)
        assert result.exit_code == 1, result.output
        from fgonnx.jobs.audit import arrow
        from fgonnx.jobs.audit.job import records

        found = {row["row"]["name"]: row["error"] for row in arrow.records(records(tmp_path / "run"))}
        assert found == {"a.csv#0": None, "a.csv#1": "'a.csv', line 3: there is no text", "a.csv#2": None}
        said = refused("report", tmp_path / "run", "--export", kind)
        assert "holds texts, and other tools are given pictures" in said
