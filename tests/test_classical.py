"""Linear operators of classical machine learning, as converters of scikit-learn write them, ZipMap included."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fgonnx
from fgonnx import Explainer
from fgonnx.errors import UnsupportedError
from tests.support import run

ML = "ai.onnx.ml"
RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 6)).astype(np.float32)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, domain=ML, **attributes)


def classifier(transform, rows=3, classes=3, **labels):
    return node(
        "LinearClassifier",
        ["v"],
        ["label", "scores"],
        coefficients=RNG.standard_normal(rows * 6).tolist(),
        intercepts=RNG.standard_normal(rows).tolist(),
        post_transform=transform,
        **labels or {"classlabels_ints": list(range(classes))},
    )


def source(nodes, outputs):
    declared = {
        "label": helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        "named": helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
        "code": helper.make_tensor_value_info("code", TensorProto.STRING, None),
        "scores": helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", None]),
        "y": helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", None]),
        "map": helper.make_value_info(
            "map",
            helper.make_sequence_type_proto(
                helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
            ),
        ),
    }
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])], [declared[o] for o in outputs]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


SCALED = node("Scaler", ["x"], ["v"], offset=[0.5] * 6, scale=[2.0, 1.0, 0.5, 1.0, 1.0, 3.0])
SAME = helper.make_node("Identity", ["x"], ["v"])
ZIPPED = node("ZipMap", ["scores"], ["map"], classlabels_int64s=[0, 1, 2])
CASES = {
    "scores": ([SAME, classifier("NONE")], ["label", "scores"], "scores"),
    "softmax": ([SAME, classifier("SOFTMAX")], ["label", "scores"], "scores"),
    "logistic": ([SAME, classifier("LOGISTIC")], ["label", "scores"], "scores"),
    "two classes": ([SAME, classifier("LOGISTIC", 2, 2)], ["label", "scores"], "scores"),
    "names": ([SAME, classifier("SOFTMAX", classlabels_strings=["a", "b", "c"])], ["named", "scores"], "scores"),
    "behind a scaler": ([SCALED, classifier("SOFTMAX")], ["label", "scores"], "scores"),
    "normalised": (
        [SAME, classifier("LOGISTIC"), node("Normalizer", ["scores"], ["y"], norm="L1")],
        ["label", "y"],
        "y",
    ),
    "zipped": ([SAME, classifier("SOFTMAX"), ZIPPED], ["label", "map"], "scores"),
    "regression": (
        [
            node("Normalizer", ["x"], ["v"], norm="L2"),
            node(
                "LinearRegressor",
                ["v"],
                ["y"],
                coefficients=X.reshape(-1)[:12].tolist(),
                intercepts=[1.0, 2.0],
                targets=2,
            ),
        ],
        ["y"],
        "y",
    ),
}


def tensor(values, kind=TensorProto.INT64):
    return helper.make_node("Constant", [], ["places"], value=helper.make_tensor("places", kind, [len(values)], values))


CASES |= {
    "chosen features": (
        [tensor([5, 0, 2]), node("ArrayFeatureExtractor", ["x", "places"], ["y"])],
        ["y"],
        "y",
    ),
    "missing as NaN": (
        [
            node("Imputer", ["x"], ["v"], imputed_value_floats=[1.0] * 6, replaced_value_float=float("nan")),
            classifier("NONE"),
        ],
        ["label", "scores"],
        "scores",
    ),
    "missing as a number": (
        [
            node("Imputer", ["x"], ["v"], imputed_value_floats=[1.0], replaced_value_float=float(X[0, 0])),
            node("Scaler", ["v"], ["y"], offset=[0.5] * 6, scale=[2.0] * 6),
        ],
        ["y"],
        "y",
    ),
}


@pytest.mark.parametrize("name", [n for n in CASES if n != "missing as a number"])
def test_linear_parts_are_explained(name):
    nodes, outputs, head = CASES[name]
    made = source(nodes, outputs)
    found = Explainer(made, head="output", input_gradient=True)(X)
    plain = onnx.ModelProto.FromString(made.SerializeToString())
    if "map" in outputs:
        del plain.graph.output[:]
        plain.graph.output.append(helper.make_tensor_value_info(head, TensorProto.FLOAT, ["N", None]))
    truth = run(plain, {"x": X})
    np.testing.assert_allclose(found.outputs[head], truth[head], rtol=1e-5, atol=1e-6)
    if "label" in truth:
        assert found.outputs["label"].tolist() == truth["label"].tolist()
    assert found.rounding_residual().max() < 1e-5
    measured = np.zeros_like(X, dtype=float)
    for column in range(6):
        step = np.zeros_like(X)
        step[:, column] = 1e-2
        up, down = (run(plain, {"x": X + s * step})[head].astype(float) for s in (1, -1))
        measured[:, column] = ((up - down) / 2e-2)[np.arange(len(X)), found.target]
    np.testing.assert_allclose(found.input_gradient, measured, atol=0.01 * np.abs(measured).max())


@pytest.mark.parametrize("given", [("SOFTMAX_ZERO", 3, 3), ("PROBIT", 3, 3), ("NONE", 1, 2)])
def test_what_is_not_written_out_is_refused_with_its_reason(given):
    with pytest.raises(UnsupportedError, match=r"\(ai.onnx.ml.LinearClassifier.*one row of coefficients"):
        fgonnx.rewrite(source([SAME, classifier(*given)], ["label", "scores"]))


def test_where_a_feature_is_missing_it_adds_nothing():
    nodes, outputs, _ = CASES["missing as a number"]
    found = Explainer(source(nodes, outputs), input_gradient=True)(X, 0)
    np.testing.assert_allclose(found.score, run(source(nodes, outputs), {"x": X})["y"][:, 0], rtol=1e-6)
    assert found.input_gradient[:, 0].tolist() == [0, 2, 2, 2]


NAMED = ["healthy", "ill", "unsure"]
CHOSEN = helper.make_node("ArgMax", ["scores"], ["place"], axis=1, keepdims=0)
TEXTS = helper.make_node(
    "Constant", [], ["texts"], value=helper.make_tensor("texts", TensorProto.STRING, [3], [n.encode() for n in NAMED])
)
LABELLED = {
    "a ZipMap": (
        [SAME, classifier("SOFTMAX"), node("ZipMap", ["scores"], ["map"], classlabels_strings=NAMED)],
        ["label", "map"],
    ),
    "a classifier": ([SAME, classifier("SOFTMAX", classlabels_strings=NAMED)], ["named", "scores"]),
    "a LabelEncoder": (
        [
            SAME,
            classifier("SOFTMAX"),
            node("LabelEncoder", ["label"], ["code"], keys_int64s=[0, 1, 2], values_strings=NAMED),
        ],
        ["code", "scores"],
    ),
    "an ArrayFeatureExtractor": (
        [SAME, classifier("SOFTMAX"), TEXTS, CHOSEN, node("ArrayFeatureExtractor", ["texts", "place"], ["code"])],
        ["code", "scores"],
    ),
}


@pytest.mark.parametrize("name", LABELLED)
def test_names_of_classes_are_the_labels(name):
    made = source(*LABELLED[name])
    assert fgonnx.Explainer(made).labels == tuple(NAMED)
    assert fgonnx.explain(made, X, "ill").target.tolist() == [1] * 4
    assert fgonnx.explain(made, X, "ill").to_dict()["target"]["label"] == "ill"


def test_names_that_are_given_count_more():
    made = source(*LABELLED["a ZipMap"])
    assert fgonnx.Explainer(made, labels=["a", "b", "c"]).labels == ("a", "b", "c")
    made.metadata_props.add(key="fgonnx.labels", value='["p", "q", "r"]')
    assert fgonnx.Explainer(made).labels == ("p", "q", "r")


@pytest.mark.parametrize("keys", [[0, 2, 3], [2, 1, 0]])
def test_an_encoder_that_does_not_count_names_no_classes(keys):
    encoder = node("LabelEncoder", ["label"], ["code"], keys_int64s=keys, values_strings=NAMED)
    assert fgonnx.Explainer(source([SAME, classifier("SOFTMAX"), encoder], ["code", "scores"])).labels is None
