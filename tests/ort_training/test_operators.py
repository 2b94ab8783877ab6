"""Operator by operator, on the table of cases: the gradient builder gives the rules' cotangents, or refuses."""

import contextlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fgonnx.engine.walk.witness import ort_training
from fgonnx.engine.walk.witness.lower import LOWERINGS, TAKEN
from fgonnx.errors import UnsupportedError
from tests import linearisation
from tests.rule_cases import CASES

ROWS = {}
for case in CASES:
    if not case.refused and not case.runtime:
        ROWS.setdefault(case.op_type, []).append(case)

ENGINE = [op for op in ROWS if op in LOWERINGS or op in TAKEN]
OTHERS = [op for op in ROWS if op not in LOWERINGS and op not in TAKEN]
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A process for each of a thousand rows would take minutes, and none of them ends it."""
    from fgonnx.engine.walk.witness import builder

    def build(model, head, sources):
        return ir.from_proto(onnx.load_from_string(builder.build(model.SerializeToString(), head, set(sources))))

    monkeypatch.setattr(ort_training, "build", build)


def runs(case):
    """The case's arrays, outputs and cotangent; None where this old release cannot run the node itself."""
    arrays = case.arrays(np.float32)
    with contextlib.suppress(Exception):
        ys = linearisation.node_forward(case, arrays, reference=False)(linearisation.points(case, arrays))
        return arrays, ys, linearisation.cotangent(case, ys, np.float32)
    return None


def linearised(case, found, **options):
    arrays, ys, g = found
    return linearisation.evaluate(case, arrays, g, ys, reference=False, **options)


@pytest.mark.parametrize("op_type", ENGINE)
def test_cotangents_are_those_of_the_rule(op_type):
    agreed = 0
    for case in ROWS[op_type]:
        if (found := runs(case)) is None:
            continue
        ours = linearised(case, found).vjps
        try:
            theirs = linearised(case, found, walk=ort_training.walk).vjps
        except UnsupportedError:
            continue
        for i, v in ours.items():
            assert np.abs(theirs[i] - v).max() <= TOLERANCE * np.abs(v).max(), f"{case.id}, input {i}"
        agreed += 1
    assert agreed or op_type in ("Cast", "CastLike")  # which stay in float32


@pytest.mark.parametrize("op_type", OTHERS)
def test_what_it_has_no_gradient_for_is_refused(op_type):
    for case in ROWS[op_type]:
        if (found := runs(case)) is not None:
            with pytest.raises(UnsupportedError, match="engine='fgonnx'"):
                linearised(case, found, walk=ort_training.walk)
