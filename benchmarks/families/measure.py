"""One network exported, explained and compared with its framework's own gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.families.exports import Case, keras_case, torch_case
from benchmarks.families.networks import Family

Array = npt.NDArray[Any]

RESIDUAL = 1e-5
GRADIENT = 1e-4


@dataclass
class Row:
    """What one measurement found; `failure` says why there are no numbers.

    Attributes
    ----------
    nodes, rewritten : int
        Number of nodes before and after.
    operators : list of str
        Operators of the source.
    gradient : float
        `max |g - truth| / max |truth|` of the input-gradient against autograd in float64.
    autograd : float
        The same for the framework's own autograd in float32.
    residual, rounding : float
        Largest residual relative to the score, and to the sum of the absolute contributions.
    exact_gradient, exact_residual : float or None
        Gradient error and residual of the same rewritten graph evaluated in float64, where float32 missed its mark.
    as_is : float or None
        That gradient error for an export with BatchNormalization left as it is, where it is large with it folded.
    exact_failure : str
        Why that could not be evaluated.
    share : float
        Mean share of the absolute contributions that the map shows.
    batch : str
        "any" or "1".
    seconds : float
        To rewrite.
    """

    family: str
    package: str
    shape: list[int]
    exporter: str
    opset: int
    failure: str = ""
    nodes: int = 0
    rewritten: int = 0
    operators: list[str] = field(default_factory=list)
    gradient: float = 0.0
    autograd: float = 0.0
    residual: float = 0.0
    rounding: float = 0.0
    exact_gradient: float | None = None
    exact_residual: float | None = None
    as_is: float | None = None
    exact_failure: str = ""
    share: float = 0.0
    batch: str = ""
    seconds: float = 0.0


def measure(family: Family, exporter: str, opset: int) -> Row:
    """Export one network, explain it and compare."""
    row = Row(family.name, family.package, list(family.shape), exporter, opset)
    case = keras_case(family, opset) if exporter == "tf2onnx" else torch_case(family, exporter, opset)
    row.nodes = len(case.model.graph.node)
    row.operators = sorted({n.op_type for n in case.model.graph.node})
    _explain(case, row)
    return row


def _explain(case: Case, row: Row) -> None:
    import fgonnx

    explainer = fgonnx.Explainer(case.model, input_gradient=True)
    start = time.perf_counter()
    engine = explainer.engine(case.x.shape)
    row.seconds = time.perf_counter() - start
    row.rewritten = len(list(engine.rewritten.model.graph))
    found = explainer(case.x)
    assert found.target is not None
    assert found.input_gradient is not None
    truth = case.gradient(found.target, "float64")
    row.gradient = _distance(found.input_gradient, truth)
    row.autograd = _distance(case.gradient(found.target, "float32"), truth)
    row.residual = float(found.relative_residual().max())
    row.rounding = float(found.rounding_residual().max())
    row.share = float(found.localised_share().mean())
    row.batch = found.settings["batch"]
    if row.residual > RESIDUAL or row.gradient > GRADIENT:
        try:
            _in_float64(case, row, found.target, truth)
        except Exception as error:  # the reference implementation has gaps of its own
            row.exact_failure = type(error).__name__


def _in_float64(case: Case, row: Row, targets: Array, truth: Array) -> None:
    row.exact_gradient, row.exact_residual = _evaluated(case.model, case.x, targets, truth)
    if row.exact_gradient > GRADIENT and case.as_is is not None:
        row.as_is, _ = _evaluated(case.as_is(), case.x, targets, truth)


def _evaluated(model: onnx.ModelProto, x: Array, targets: Array, truth: Array) -> tuple[float, float]:
    """Return gradient error and residual of the rewritten graph in float64."""
    from onnx.reference import ReferenceEvaluator

    import fgonnx
    from tests.support import in_float64

    proto = fgonnx.rewrite(model, outputs=("score", "completeness", "input_gradient"))
    name = next(i.name for i in proto.graph.input if i.name != "target_index")
    evaluator = ReferenceEvaluator(in_float64(proto), new_ops=[_grouped_conv_transpose()])
    names = [o.name for o in proto.graph.output]
    feeds = {name: x.astype(np.float64), "target_index": targets}
    exact = dict(zip(names, evaluator.run(names, feeds), strict=True))
    return _distance(exact["input_gradient"], truth), float(np.abs(exact["completeness"] / exact["score"]).max())


def _grouped_conv_transpose() -> Any:
    """Return onnx.reference's ConvTranspose, run group by group: with several groups its own fails."""
    from onnx.reference.ops import op_conv_transpose

    class ConvTranspose(op_conv_transpose.ConvTranspose):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, w: Array, b: Array | None = None, group: int | None = None, **how: Any) -> Any:
            count = group or 1
            pieces = zip(np.split(x, count, 1), np.split(w, count, 0), strict=True)
            y = np.concatenate([super(ConvTranspose, self)._run(i, k, None, group=1, **how)[0] for i, k in pieces], 1)
            return (y if b is None else y + b.reshape(1, -1, *[1] * (y.ndim - 2)),)

    return ConvTranspose


def _distance(found: Array, truth: Array) -> float:
    return float(np.abs(found - truth).max() / np.abs(truth).max())
