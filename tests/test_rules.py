"""Every rule is held against both laws of a linearisation, for every row of the table in rule_cases."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from fgonnx import rules
from fgonnx.errors import UnsupportedError
from tests import linearisation
from tests.linearisation import Case
from tests.rule_cases import CASES

PROVED = [case for case in CASES if not case.refused]
REFUSED = [case for case in CASES if case.refused]


def test_every_rule_has_a_row_and_every_row_its_own_name():
    rows = {(case.op_type, getattr(rules.find(case.op_type, case.opset), "since", None)) for case in CASES}
    assert sorted((r.op_type, r.since) for r in rules.rules() if not r.domain) == sorted(rows)
    ids = [case.id for case in CASES]
    assert sorted({i for i in ids if ids.count(i) > 1}) == []


@pytest.mark.parametrize("case", PROVED, ids=lambda case: case.id)
def test_a_rule_obeys_both_laws(case: Case):
    linearisation.check(case)
