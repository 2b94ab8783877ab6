"""Expand normalisation by statistics of the input's own entries, computed as onnxruntime's kernels do."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.normal.expand import functions
from fgonnx.engine.normal.expand.build import Builder, Expander, expanders

_EPSILON = 1e-9


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


BUILDERS: dict[tuple[str, str], Builder] = {("", "MeanVarianceNormalization"): mean_variance_normalization}

EXPANDERS: dict[tuple[str, str], Expander] = {**expanders(BUILDERS), ("", "RMSNormalization"): rms_normalization}
