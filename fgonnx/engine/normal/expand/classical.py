"""Operators of classical machine learning that are linear or nearly so, written out in standard ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fgonnx.engine.graph.emit import Emitter
from fgonnx.engine.graph.origin import say_why
from fgonnx.engine.graph.values import dims_of, producer_of, required
from fgonnx.engine.normal.expand.controlflow import replace

ML = "ai.onnx.ml"
SUM_OF_ONE = "fgonnx.sum_of_one"
"""Metadata of a Sigmoid whose results are those of two classes: p and 1 - p."""

_TRANSFORMS = {"NONE": "Identity", "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}


def _numbers(node: ir.Node, name: str) -> Any:
    attribute = node.attributes.get(name)
    return None if attribute is None else np.asarray(attribute.value, np.float32)


def _text(node: ir.Node, name: str, usual: str) -> str:
    attribute = node.attributes.get(name)
    return usual if attribute is None else str(attribute.value)


def _linear(op: Emitter, node: ir.Node, rows: int) -> ir.Value | None:
    """Write x W' + b and the transform behind it; None where the transform is none of those known."""
    x, weights, intercepts = required(node, 0), _numbers(node, "coefficients"), _numbers(node, "intercepts")
    transform = _TRANSFORMS.get(_text(node, "post_transform", "NONE"))
    features = dims_of(x)[-1]
    if transform is None or weights is None or not isinstance(features, int) or weights.size != rows * features:
        return None
    if x.dtype != ir.DataType.FLOAT:
        x = op.Cast(x, to=ir.DataType.FLOAT.value)
    made = op.MatMul(x, op.constant(np.ascontiguousarray(weights.reshape(rows, features).T), "coefficients"))
    if intercepts is not None and intercepts.size:
        made = op.Add(made, op.constant(intercepts.reshape(-1), "intercepts"))
    if transform == "Softmax":
        return op.Softmax(made, axis=-1)
    found = op.emit(transform, made)
    if transform == "Sigmoid" and rows == 2 and _opposite(weights) and (intercepts is None or _opposite(intercepts)):
        producer_of(found).meta[SUM_OF_ONE] = True
    return found


def _opposite(rows: npt.NDArray[np.float32]) -> bool:
    """Tell whether what belongs to the second of two classes is the first's with the other sign."""
    return not rows.size or bool((rows.reshape(2, -1).sum(axis=0) == 0).all())


def linear_classifier(model: ir.Model, node: ir.Node) -> bool:
    """Write the scores of a LinearClassifier out; its labels stay its own."""
    scores = node.outputs[1]
    if not scores.uses() and not scores.is_graph_output():
        return False
    labels = node.attributes.get("classlabels_ints") or node.attributes.get("classlabels_strings")
    count = len(labels.value) if labels is not None else 0
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    made = _linear(op, node, count) if count > 1 else None
    if made is None:
        return say_why(node, "it has one row of coefficients for two classes, or a transform that is not written out")
    if scores.is_graph_output():
        name, scores.name = scores.name, f"{scores.name}::before_expansion"
        made.name = name
    made.type = scores.type
    scores.replace_all_uses_with(made, replace_graph_outputs=True)
    return True


def linear_regressor(model: ir.Model, node: ir.Node) -> bool:
    """Write a LinearRegressor out."""
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    targets = node.attributes.get("targets")
    made = _linear(op, node, 1 if targets is None else targets.as_int())
    if made is None:
        return say_why(node, "its transform is not written out")
    replace(model.graph, node, [made])
    return True


def scaler(model: ir.Model, node: ir.Node) -> bool:
    """Write (x - offset) * scale out."""
    x, offset, scale = required(node, 0), _numbers(node, "offset"), _numbers(node, "scale")
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    made = x if x.dtype == ir.DataType.FLOAT else op.Cast(x, to=ir.DataType.FLOAT.value)
    if offset is not None and offset.size:
        made = op.Sub(made, op.constant(offset, "offset"))
    if scale is not None and scale.size:
        made = op.Mul(made, op.constant(scale, "scale"))
    replace(model.graph, node, [op.Identity(made) if made is x else made])
    return True


def normalizer(model: ir.Model, node: ir.Node) -> bool:
    """Write a Normalizer out: rows over their sum of absolute values, length or largest value."""
    x, kind = required(node, 0), _text(node, "norm", "MAX")
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    made = x if x.dtype == ir.DataType.FLOAT else op.Cast(x, to=ir.DataType.FLOAT.value)
    if kind == "MAX":
        size = op.ReduceMax(made, [-1], keepdims=1)
    else:
        size = op.emit("ReduceL1" if kind == "L1" else "ReduceL2", made, [-1], keepdims=1)
    replace(model.graph, node, [op.Div(made, size)])
    return True


def feature_extractor(model: ir.Model, node: ir.Node) -> bool:
    """Write an ArrayFeatureExtractor as the Gather of columns that it is."""
    x, places = required(node, 0), required(node, 1)
    if x.dtype is None or not x.dtype.is_floating_point() or len(dims_of(x)) < 2:
        return say_why(node, "it selects entries of a single axis, or of what are no real numbers")
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    replace(model.graph, node, [op.Gather(x, op.Reshape(places, [-1]), axis=-1)])
    return True


def imputer(model: ir.Model, node: ir.Node) -> bool:
    """Write an Imputer out: a constant where an entry is missing, the entry elsewhere."""
    x, filled = required(node, 0), _numbers(node, "imputed_value_floats")
    width = dims_of(x)[-1] if dims_of(x) else None
    if x.dtype != ir.DataType.FLOAT or filled is None or filled.size not in (1, width):
        return say_why(node, "it is not of float32, or has not one value for each feature")
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    attribute = node.attributes.get("replaced_value_float")
    missing = np.array(0.0 if attribute is None else attribute.as_float(), np.float32)
    absent = op.IsNaN(x) if np.isnan(missing) else op.Equal(x, op.constant(missing, "missing"))
    replace(model.graph, node, [op.Where(absent, op.constant(filled.reshape(-1), "filled"), x)])
    return True


def feature_vectorizer(model: ir.Model, node: ir.Node) -> bool:
    """Write a FeatureVectorizer as the Concat of columns that it is."""
    sizes = node.attributes.get("inputdimensions")
    widths = [dims_of(v)[1] if v is not None and len(dims_of(v)) == 2 else None for v in node.inputs]
    if sizes is None or widths != list(sizes.value):
        return say_why(node, "its inputs are not tables of as many columns as it says")
    op = Emitter(model.graph, prefix=f"{node.name}/", before=node)
    parts = [v if v.dtype == ir.DataType.FLOAT else op.Cast(v, to=ir.DataType.FLOAT.value) for v in node.inputs if v]
    replace(model.graph, node, [op.Concat(*parts, axis=1)])
    return True


EXPANDERS = {
    (ML, "ArrayFeatureExtractor"): feature_extractor,
    (ML, "FeatureVectorizer"): feature_vectorizer,
    (ML, "Imputer"): imputer,
    (ML, "LinearClassifier"): linear_classifier,
    (ML, "LinearRegressor"): linear_regressor,
    (ML, "Normalizer"): normalizer,
    (ML, "Scaler"): scaler,
}
