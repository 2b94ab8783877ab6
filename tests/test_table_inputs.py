"""Models of tables that have an input for each column: explained one at a time, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import fgonnx
from tests.cli_support import run

COLUMNS = """<ir_version: 8, opset_import: ["": 18, "ai.onnx.ml": 3]>
g (float[N,1] age, float[N,1] dose) => (float[N,1] y) <float[2,1] w = {2, -1}> {
  both = ai.onnx.ml.FeatureVectorizer <inputdimensions = [1, 1]> (age, dose) y = MatMul(both, w) }"""

HEADERS = {
    "both and another": ("age,dose,site", True),
    "tabs": ("dose\tage\tsite", True),
    "one of them": ("age,weight,site", False),
}


@pytest.mark.parametrize("case", HEADERS)
def test_columns_that_are_inputs_of_their_own_are_refused_by_name(tmp_path: Path, case: str) -> None:
    header, named = HEADERS[case]
    mark = "\t" if "\t" in header else ","
    onnx.save(parser.parse_model(COLUMNS), tmp_path / "m.onnx")
    (tmp_path / "rows.csv").write_text("\n".join([header, mark.join("12a"), mark.join("34b"), ""]))
    result = run("explain", tmp_path / "m.onnx", tmp_path / "rows.csv", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert ("(age, dose), and a table is given to one input" in " ".join(result.output.split())) == named


@pytest.mark.parametrize(("name", "adds"), [("age", [6, 2]), ("dose", [-1, -5])])
def test_inputs_of_one_column_each_are_explained_one_at_a_time(name: str, adds: list[float]) -> None:
    given = {"age": np.array([[3.0], [1.0]], np.float32), "dose": np.array([[1.0], [5.0]], np.float32)}
    found = fgonnx.explain(parser.parse_model(COLUMNS), given, input=name, psi="signed")
    np.testing.assert_allclose(found.score, [5, -3])
    np.testing.assert_allclose(np.asarray(found.saliency).reshape(2), adds)
