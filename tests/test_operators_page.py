"""docs/operators.md is what the registry says."""

from pathlib import Path

import onnx
import pytest

from benchmarks import operators

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"


def test_the_page_of_operators_is_up_to_date() -> None:
    committed = PAGE.read_text(encoding="utf-8")
    if f"onnx\n{onnx.__version__} " not in committed:
        pytest.skip("written with the operators of another version of onnx")
    assert operators.page() == committed, "run python -m benchmarks.operators > docs/operators.md"


def test_every_operator_with_a_derivative_is_on_it() -> None:
    schemas = [s for s in onnx.defs.get_all_schemas() if not s.domain]
    differentiable = onnx.defs.OpSchema.DifferentiationCategory.Differentiable
    marked = {s.name for s in schemas if any(i.differentiation_category == differentiable for i in s.inputs)}
    rows = {row[0]: row[2] for row in operators.standard()}
    assert marked <= set(rows)
    assert {name for name in marked if rows[name].startswith(("refused", "no derivative"))} == set()
