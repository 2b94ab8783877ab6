"""Expand normalisation by statistics of the input's own entries, computed as onnxruntime's kernels do."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.normal.expand import functions
from fgonnx.engine.normal.expand.build import Builder, Expander, expanders

_EPSILON = 1e-9
_MEAN_VARIANCE = ("", "MeanVarianceNormalization")


def mean_variance_normalization(op: Emitter, x: ir.Value, *, axes: Sequence[int] = (0, 2, 3)) -> ir.Value:
    """(x - m) / (s + 1e-9), with mean m and standard deviation s along the axes.

    The standard's function body has the variance as E x^2 - (E x)^2, which cancels where the mean is large, and is
    typed for float32 alone.
    """
    centred = op.Sub(x, op.ReduceMean(x, list(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), list(axes), keepdims=1)
    return op.Div(centred, op.Add(op.Sqrt(variance), _EPSILON))


def rms_normalization(model: ir.Model, node: ir.Node) -> bool:
    """Expand by the function body; float64 stays float64 whatever the type that the node names for its statistics."""
    x = node.inputs[0]
    if x is not None and x.dtype == ir.DataType.DOUBLE:
        node.attributes["stash_type"] = ir.AttrInt64("stash_type", x.dtype.value)
    return functions.expand(model, node)


BUILDERS: dict[tuple[str, str], Builder] = {_MEAN_VARIANCE: mean_variance_normalization}


def expand_half(model: ir.Model) -> bool:
    """Expand what onnxruntime runs in half precision in older operator sets, but not in the one they are raised to.

    Requires: types. Returns whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        x = node.inputs[0] if node.inputs else None
        if (node.domain, node.op_type) == _MEAN_VARIANCE and x is not None and x.dtype == ir.DataType.FLOAT16:
            changed |= EXPANDERS[_MEAN_VARIANCE](model, node)
    if changed:
        functions.settle(model)
    return changed


EXPANDERS: dict[tuple[str, str], Expander] = {**expanders(BUILDERS), ("", "RMSNormalization"): rms_normalization}
