"""onnx-ad, an independent derivation of gradient graphs, agrees on one official case of every operator it has."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest

from fgonnx.errors import FgonnxError
from tests import node_cases, skips
from tests.linearisation import runner
from tests.node_cases import Emitted, NoDerivative, Problem
from tests.test_onnx_node_cases import OUTPUTS

onnx_ad = skips.without("onnx_ad")

#: What it refuses by design.
REFUSES = {
    "CausalConvWithState": "a grouped Conv is not differentiated with respect to its weight",
    "ConvTranspose": "not differentiated with respect to its weight",
    "Loop": "Concat is differentiable in reverse only where",
    "RoiAlign": "not differentiated in its boxes",
}
#: Where it is wrong: the finite differences of test_onnx_node_cases say so.
DIFFERS = {"Det": "it takes the derivative for zero", "Pad": "it takes the value that is padded with for a constant"}
OPSET = 18
#: Operators none of whose official cases has a derivative that fgonnx takes.
NONE = ("BatchNormalization", "GlobalLpPool", "If", "MaxRoiPool", "Trilu")


def first(op_type: str) -> tuple[Problem, Emitted] | None:
    """Return the first case of an operator that has a derivative and that fgonnx takes."""
    for case in node_cases.collect()[op_type]:
        try:
            problem = node_cases.problem(case, OUTPUTS.get(op_type))
            emitted = node_cases.emit(problem)
            if raised(problem.model) is not None:
                return problem, emitted
        except (NoDerivative, FgonnxError):
            continue
    return None


def raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Raise a model to opset 18, whose operators onnx-ad writes; None for Scan of opset 8, which has other inputs."""
    if model.opset_import[0].version < 9 and any(node.op_type == "Scan" for node in model.graph.node):
        return None
    return model if model.opset_import[0].version >= OPSET else onnx.version_converter.convert_version(model, OPSET)


@pytest.mark.parametrize("op_type", NONE)
def test_operators_without_a_derivative_are_known(op_type: str) -> None:
    assert first(op_type) is None


@pytest.mark.parametrize("op_type", [name for name in node_cases.operators() if name not in NONE])
def test_the_cotangents_are_those_of_onnx_ad(op_type: str) -> None:
    found = first(op_type)
    assert found is not None, "no official case with a derivative"
    problem, emitted = found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adjoint = onnx_ad.reverse(raised(problem.model), layout="onnx")
        except onnx_ad.UnsupportedOperator as refusal:
            with pytest.raises(onnx_ad.UnsupportedOperator, match=REFUSES.get(op_type, "$^")):
                raise refusal from None
            return
    assert op_type not in REFUSES
    rng = problem.rng()
    point = {n: np.asarray(a + 0.05 * rng.uniform(size=a.shape), np.float32) for n, a in problem.point.items()}
    y = node_cases.function(problem.model, reference=False)(point)[0]
    g = rng.standard_normal(y.shape).astype(np.float32)
    # the number of seeds is its last axis
    outputs = [v.name for v in adjoint.graph.output]
    results = runner(adjoint, reference=False)({**point, f"adj_{problem.head}": g[..., None]})
    theirs = dict(zip(outputs, results, strict=True))
    ours = node_cases.function(emitted.model, reference=False)({**point, "seed": g})
    vjps = dict(zip(emitted.reached, ours[1:], strict=False))
    agree = []
    for name, array in point.items():
        expected = theirs[f"adj_{name}"].reshape(array.shape)
        vjp = vjps.get(name, np.zeros(array.shape))
        scale = max(float(np.abs(v).max(initial=0.0)) for v in (expected, vjp))
        agree.append(np.allclose(vjp, expected, rtol=0, atol=1e-5 * scale))
    assert all(agree) == (op_type not in DIFFERS)
