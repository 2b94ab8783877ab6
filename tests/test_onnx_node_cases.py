"""Both laws of a linearisation for the official node test cases of every operator with a derivative.

`EXCEPTIONS` lists every case that does not obey them, with the cause and what the error says. A case that is listed and
passes fails the test, so the table stays true.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch

import pytest

from fgonnx.errors import FgonnxError
from tests import node_cases
from tests.node_cases import DOUBLE, SINGLE, NodeCase, NoDerivative

#: Cases that onnxruntime holds against the laws in float32, and why onnx.reference does not in float64.
IN_FLOAT32 = {
    "*_3d_default": "onnx.reference takes 10 seconds for 32 x 32 x 32",
    "*deform_conv_*": "onnx.reference places its taps in float32",
    "gelu_default_*": "onnx.reference has erf in float32",
    "gridsample*": "onnx.reference places its taps in float32",
    "group_normalization_*": "onnx.reference normalises in float32",
    "l1normalization_*": "onnx.reference forgets the absolute value",
    "maxpool_1d_default": "onnx.reference gives wrong Indices with strides of 1",
    "maxpool_2d_default": "onnx.reference gives wrong Indices with strides of 1",
    "maxpool_2d_pads": "onnx.reference gives wrong Indices with strides of 1",
    "maxpool_2d_same_*": "onnx.reference gives wrong Indices with strides of 1",
    "mvn*": "its function body has constants in float32",
    "scan_sum": "onnx.reference has no Scan of opset 8",
    "scatter_with*_axis": "onnx.reference has no Scatter",
}
#: Outputs that get a cotangent, where it is not all that the schema leaves open.
OUTPUTS = {"LayerNormalization": ["Y"]}  # its statistics are of use to training alone


@dataclass(frozen=True)
class Exempt:
    """Cases that do not obey the laws: a pattern of their names, what the error says, and the cause."""

    pattern: str
    says: str
    cause: str


REFUSED, RUNTIME = "refused", "onnxruntime"
EXCEPTIONS = {
    Exempt("batchnorm_epsilon", "statistics depend on the input", REFUSED): "parameters at inference, yet inputs here",
    Exempt("batchnorm_example", "statistics depend on the input", REFUSED): "parameters at inference, yet inputs here",
    Exempt("batchnorm_*_training_mode", "training mode", REFUSED): "not for inference",
    Exempt("training_dropout*", "training mode", REFUSED): "not for inference",
    Exempt("einsum_batch_diagonal", "diagonal", REFUSED): "an index twice in one operand is not built",
    Exempt("maxunpool_export_with_output_shape", "output_shape", REFUSED): "not built",
    Exempt("resize_downsample_sizes_nearest_not_smaller", "rounding a size up", REFUSED): "its scale is not told",
    Exempt("scatter_elements_with_reduction_m*", "reduction", REFUSED): "only none and add are built",
    Exempt("scatternd_m*", "reduction", REFUSED): "only none and add are built",
    Exempt("*_batchwise", r"layout == 1\) are not supported", RUNTIME): "recurrent layers with the batch first",
    Exempt("mod_*_fmod_0*", "fmod attribute must be true", RUNTIME): "Mod of floats with the divisor's sign",
    Exempt("pow_types_float32_uint*", "NOT_IMPLEMENTED", RUNTIME): "Pow with an unsigned exponent",
}


def outcome(case: NodeCase) -> tuple[str, str]:
    """Hold a case against both laws; return how it came out, and what was said."""
    try:
        problem = node_cases.problem(case, OUTPUTS.get(case.op_type))
    except NoDerivative as reason:
        return "no derivative", str(reason)
    single = any(fnmatch(case.name, pattern) for pattern in IN_FLOAT32)
    try:
        verdict = node_cases.check(problem, node_cases.emit(problem), SINGLE if single else DOUBLE)
    except (FgonnxError, AssertionError) as error:
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ("moved" if verdict.moved else "float32" if single else "float64"), ""


#: Operators whose cases are many, or large.
SLOW = {"Attention", "AveragePool", "GridSample", "LinearAttention", "LpPool", "SoftmaxCrossEntropyLoss"}


@pytest.mark.parametrize(
    "op_type", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in node_cases.operators()]
)
def test_the_official_cases_obey_both_laws(op_type: str, record_property: Callable[[str, object], None]) -> None:
    counts: Counter[str] = Counter()
    wrong = []
    for case in node_cases.collect()[op_type]:
        result, said = outcome(case)
        row = next((r for r in EXCEPTIONS if fnmatch(case.name, r.pattern)), None)
        if row is None and result == "failed":
            wrong.append(f"{case.name}: {said}")
        elif row is not None and result != "failed":
            wrong.append(f"{case.name} is listed in EXCEPTIONS, and passes")
        elif row is not None and not re.search(row.says, said):
            wrong.append(f"{case.name} is listed in EXCEPTIONS, and fails otherwise: {said}")
        counts[row.cause if row is not None else said if result == "no derivative" else result] += 1
    record_property("node_cases", dict(counts))
    assert not wrong, "\n".join(wrong)


def test_every_pattern_has_a_case() -> None:
    names = [case.name for cases in node_cases.collect().values() for case in cases]
    patterns = [*IN_FLOAT32, *(row.pattern for row in EXCEPTIONS)]
    assert [p for p in patterns if not any(fnmatch(n, p) for n in names)] == []


def test_operators_without_a_case_are_known() -> None:
    """Those of If have a condition alone that goes in, those of Trilu integers, those of MaxRoiPool
    and GlobalLpPool do not exist."""
    empty = [name for name, cases in node_cases.collect().items() if not cases]
    assert empty == ["GlobalLpPool", "If", "MaxRoiPool", "Trilu"]
