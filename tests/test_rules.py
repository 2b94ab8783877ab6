"""Every rule is held against both laws of a linearisation, for every row of the table in rule_cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fgonnx import lowerings, rules
from fgonnx.emit import Emitter
from fgonnx.errors import UnsupportedError
from tests import linearisation
from tests.linearisation import Array, Case, Draw, Given
from tests.rule_cases import CASES

PROVED = [case for case in CASES if not case.refused]
REFUSED = [case for case in CASES if case.refused]

#: What convolutional networks in half precision are made of.
COMMON = {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "HardSigmoid",
    "HardSwish", "LeakyRelu", "MatMul", "MaxPool", "Mul", "PRelu", "ReduceMean", "Relu", "Reshape", "Sigmoid",
    "Softmax", "Sub", "Tanh", "Transpose",
}  # fmt: skip
IN_HALF = [case for case in PROVED if case.op_type in COMMON and not case.runtime]

#: Attributes of a schema that a rule leaves out, so that nodes with them are refused.
LEFT_OUT: dict[str, set[str]] = {}


def name(case: Case) -> str:
    return case.id


def test_every_rule_has_a_row_and_every_row_its_own_name():
    found = [rules.find(case.op_type, case.opset) for case in CASES]
    assert None not in found
    assert {(r.op_type, r.since) for r in rules.rules() if not r.domain} == {(r.op_type, r.since) for r in found if r}
    ids = [case.id for case in CASES]
    assert sorted({i for i in ids if ids.count(i) > 1}) == []


@pytest.mark.parametrize("rule", [r for r in rules.rules() if not r.domain], ids=lambda r: f"{r.op_type}-{r.since}")
def test_a_rule_takes_the_attributes_of_its_operator_and_no_others(rule: rules.Rule):
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if (s.name, s.domain) == (rule.op_type, "")]
    newest = max(s.since_version for s in schemas)
    attributes = {a for s in schemas for a in s.attributes if s.since_version in (newest, max(18, rule.since))}
    shared = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "CastLike", "ScatterElements", "ScatterND"}
    assert attributes - rule.attributes() == LEFT_OUT.get(rule.op_type, set())
    if rule.op_type not in shared:  # rules of several operators take the attributes of all
        assert rule.attributes() <= {a for s in schemas for a in s.attributes}


@pytest.mark.parametrize("case", PROVED, ids=name)
def test_both_laws_hold(case: Case):
    linearisation.check(case)


@pytest.mark.parametrize("case", PROVED, ids=name)
def test_two_batches_at_once_are_one_after_the_other(case: Case, record_property: Callable[[str, object], None]):
    record_property("batched", linearisation.check_batch(case))


@pytest.mark.parametrize("case", IN_HALF, ids=name)
def test_float16_is_close(case: Case):
    linearisation.check_half(case)


@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_a_refusal_says_why(case: Case):
    arrays = case.arrays(np.float32)
    y = next(a for a in arrays if a is not None)
    if "to" in case.attributes:
        y = y.astype(onnx.helper.tensor_dtype_to_np_dtype(case.attributes["to"]))
    ys = [y] * case.outputs  # refused before its shape matters
    with pytest.raises(UnsupportedError, match=case.refused):
        linearisation.emit(case, arrays, ys)
