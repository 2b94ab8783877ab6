"""Models of tables that have an input for each column: their rows are explained as those of one input, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import fgonnx
from tests.cli_support import good, run
from tests.support import run as outputs_of

COLUMNS = """<ir_version: 8, opset_import: ["": 18, "ai.onnx.ml": 3]>
g (float[N,1] age, float[N,1] dose) => (float[N,1] y) <float[2,1] w = {2, -1}> {
  both = ai.onnx.ml.FeatureVectorizer <inputdimensions = [1, 1]> (age, dose) y = MatMul(both, w) }"""

MIXED = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,1] age, int64[N,1] visits, double[M,1] dose, float[K] pulse, bool[N,1] smokes) => (float[N,2] y)
  <float[5,2] w = {2, 1, -1, 0.5, 3, -2, 0.1, 0.2, 1, -1}, float[2] b = {0.5, -0.25}, int64[2] s = {-1, 1}> {
    v = Cast<to=1>(visits) d = Cast<to=1>(dose) p = Reshape(pulse, s) k = Cast<to=1>(smokes)
    all = Concat<axis=1>(age, v, d, p, k) z = Gemm(all, w, b) r = Relu(z) y = Mul(r, z) }"""
TYPES = {"age": np.float32, "visits": np.int64, "dose": np.float64, "pulse": np.float32, "smokes": np.bool_}

CATEGORY = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,1] age, int64[N,1] site) => (float[N,1] y)
  <float[3,2] e = {1, 0, 0, 2, -1, 1}, float[1] w = {2}, float[2,1] u = {1, -1}, int64[1] at = {1}> {
    a = Mul(age, w) rows = Gather(e, site) flat = Squeeze(rows, at) c = MatMul(flat, u) y = Add(a, c) }"""

COUNTS = """<ir_version: 8, opset_import: ["": 18]>
g (int64[N,1] age, int64[N,1] visits, int32[N] dose) => (float[N,1] y) <float[3,1] w = {2, -1, 3}, int64[1] at = {1}> {
    d = Unsqueeze(dose, at) e = Cast<to=7>(d) both = Concat<axis=1>(age, visits) same = Identity(both)
    f = Cast<to=1>(same) g = Cast<to=1>(e) all = Concat<axis=1>(f, g) y = MatMul(all, w) }"""

SCALED = """<ir_version: 8, opset_import: ["": 18, "ai.onnx.ml": 3]>
g (int64[N,1] age, int64[N,1] visits, int64[N,1] dose) => (float[N,1] y) <float[3,1] w = {2, -1, 3}> {
    all = Concat<axis=1>(age, visits, dose)
    s = ai.onnx.ml.Scaler<offset=[0.0, 0.0, 0.0], scale=[1.0, 1.0, 1.0]>(all) y = MatMul(s, w) }"""

SUMMED = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,1] age, int64[N,1] visits) => (float[N,1] y) <int64[1] two = {2}> {
    v = Mul(visits, two) f = Cast<to=1>(v) y = Add(age, f) }"""

TEXTS = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,1] age, float[N,1] dose, string[N,1] site) => (float[N,1] y, string[N,1] same) {
  y = Add(age, dose) same = Identity(site) }"""


def saved(folder: Path, text: str, rows: str, name: str = "rows.csv") -> tuple[Path, Path]:
    onnx.save(parser.parse_model(text), folder / "m.onnx")
    (folder / name).write_text(rows)
    return folder / "m.onnx", folder / name


def records(folder: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]


HEADERS = {
    "in the order of the inputs": "age,dose\n1,2\n3,5\n",
    "in another": "dose,age\n2,1\n5,3\n",
    "with others": "site,dose,note,age\n1,2,a,1\n2,5,b,3\n",
    "tabs": "dose\tage\n2\t1\n5\t3\n",
}


@pytest.mark.parametrize("case", HEADERS)
def test_columns_are_given_to_inputs_by_name(tmp_path: Path, case: str) -> None:
    name = "rows.tsv" if case == "tabs" else "rows.csv"
    good("explain", *saved(tmp_path, COLUMNS, HEADERS[case], name), "-o", tmp_path / "out")
    found = records(tmp_path / "out")
    assert [r["features"]["names"] for r in found] == [["age", "dose"]] * 2
    assert [r["features"]["values"] for r in found] == [[1, 2], [3, 5]]
    assert [r["features"]["contributions"] for r in found] == [[2, -2], [6, -5]]
    assert [r["score"] for r in found] == [0, 1]


class TestInputsOfSeveralTypes:
    ROWS = np.array([[0.5, 3, 0.25, 1.5, 1], [2, 1, 0.5, -1, 0]])

    @pytest.fixture
    def explained(self, tmp_path):
        lines = ["pulse,smokes,age,visits,dose", *(f"{p},{s:.0f},{a},{v:.0f},{d}" for a, v, d, p, s in self.ROWS), ""]
        good("explain", *saved(tmp_path, MIXED, "\n".join(lines)), "-o", tmp_path / "out", "--target", "0")
        return records(tmp_path / "out")

    def given(self, rows):
        columns = zip(TYPES.items(), rows.T, strict=True)
        return {n: c.astype(t) if n == "pulse" else c.astype(t)[:, None] for (n, t), c in columns}

    def test_have_the_scores_of_the_model_as_it_is(self, explained):
        wanted = outputs_of(parser.parse_model(MIXED), self.given(self.ROWS))["y"]
        np.testing.assert_allclose([r["score"] for r in explained], wanted[:, 0], rtol=1e-6)

    def test_have_its_slopes_where_they_are_floats(self, explained):
        source, step = parser.parse_model(MIXED), 1e-3
        for i, r in enumerate(explained):
            for k in (0, 2, 3):
                shift = step * np.eye(5)[k]
                up, down = (
                    outputs_of(source, self.given((self.ROWS[i] + s)[None]))["y"][0, 0] for s in (shift, -shift)
                )
                slope = (up - down) / (2 * step)
                assert r["features"]["contributions"][k] == pytest.approx(slope * self.ROWS[i, k], rel=1e-2)

    def test_add_up(self, explained):
        for r in explained:
            total = sum(r["features"]["contributions"]) + r["features"]["biases"]
            assert total == pytest.approx(r["score"], rel=1e-5)


@pytest.mark.parametrize("text", [COUNTS, SCALED], ids=["cast", "scaled"])
def test_whole_numbers_that_become_floats_add_as_floats_do(tmp_path: Path, text: str) -> None:
    good("explain", *saved(tmp_path, text, "visits,dose,age\n2,7,30\n0,1,4\n"), "-o", tmp_path / "out")
    assert [r["features"]["contributions"] for r in records(tmp_path / "out")] == [[60, -2, 21], [8, 0, 3]]


def test_what_a_category_adds_is_not_among_the_features(tmp_path: Path) -> None:
    good("explain", *saved(tmp_path, CATEGORY, "age,site\n1.5,0\n2,2\n"), "-o", tmp_path / "out")
    found = records(tmp_path / "out")
    assert [r["features"]["contributions"] for r in found] == [[3, 0], [4, 0]]
    assert [r["features"]["biases"] for r in found] == [1, -2]


@pytest.mark.parametrize("command", ["check", "compare", "audit"])
def test_other_commands_take_them(tmp_path: Path, command: str) -> None:
    net, rows = saved(tmp_path, COLUMNS, "dose,age\n2,1\n5,3\n")
    nets = [net, net] if command == "compare" else [net]
    good(command, *nets, rows, *([] if command == "check" else ["-o", tmp_path / "out"]))
    if command == "audit":
        table = json.loads((tmp_path / "out" / "report.json").read_text())
        assert "age" in json.dumps(table)


REFUSED = {
    "texts": (TEXTS, "age,dose,site\n1,2,a\n", [], "and texts as 'site': texts of categories have no gradient"),
    "a missing one": (MIXED, "age,visits,doses\n1,2,3\n", [], "has another, 'dose', that no column is called by"),
    "a part": (MIXED, "age,visits\n1.5,2.5\n", [], "has another, 'dose', that no column is called by"),
    "one of them": (COLUMNS, "age,dose\n1,2\n", ["--input", "age"], "leave --input age out"),
    "some channels": (COLUMNS, "age,dose,x\n1,2,3\n", ["--channels", "age,x"], "names others than age, dose"),
    "a fraction": (CATEGORY, "age,site\n1,0\n1,1.5\n", [], "line 3, column 'site': 1.5 does not fit the input 'site'"),
    "a large number": (CATEGORY, "age,site\n1,16777217\n", [], "takes whole numbers up to 16,777,216"),
    "no truth value": (MIXED, "age,visits,dose,pulse,smokes\n1,1,1,1,2\n", [], "which takes 0 or 1"),
    "whole numbers calculated": (
        SUMMED,
        "age,visits\n1,2\n",
        [],
        "calculates whole numbers of 'visits', which have no",
    ),
    "a text": (COLUMNS, "age,dose\n1,2\n1,much\n", [], "line 3, column 'dose': 'much' is no number"),
}


_OF_FILES = ("one of them", "some channels", "a text")
"""Cases that audits meet otherwise: channels are options of their own, and rows that cannot be read are counted."""


@pytest.mark.parametrize(
    ("command", "case"),
    [(c, n) for c in ("explain", "check", "compare", "audit") for n in REFUSED if c != "audit" or n not in _OF_FILES],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, case: str, command: str) -> None:
    text, rows, options, why = REFUSED[case]
    net, table = saved(tmp_path, text, rows)
    nets = [net, net] if command == "compare" else [net]
    result = run(command, *nets, table, *options, *([] if command == "check" else ["-o", tmp_path / "out"]))
    assert result.exit_code == 2, result.output
    assert why in " ".join(result.output.split())


def test_evaluate_says_what_takes_tables(tmp_path: Path) -> None:
    result = run("evaluate", *saved(tmp_path, COLUMNS, "age,dose\n1,2\n"), "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "rows of tables are explained ('fgonnx explain') and audited" in " ".join(result.output.split())


def test_a_table_that_names_one_input_is_none_of_its_own(tmp_path: Path) -> None:
    result = run("explain", *saved(tmp_path, COLUMNS, "age,weight\n1,2\n"), "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "several inputs could be explained" in " ".join(result.output.split())


@pytest.mark.parametrize(("name", "adds"), [("age", [6, 2]), ("dose", [-1, -5])])
def test_inputs_of_one_column_each_are_explained_one_at_a_time(name: str, adds: list[float]) -> None:
    given = {"age": np.array([[3.0], [1.0]], np.float32), "dose": np.array([[1.0], [5.0]], np.float32)}
    found = fgonnx.explain(parser.parse_model(COLUMNS), given, input=name, psi="signed")
    np.testing.assert_allclose(found.score, [5, -3])
    np.testing.assert_allclose(np.asarray(found.saliency).reshape(2), adds)
