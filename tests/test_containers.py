"""Outputs that are maps, sequences or optional values beside tensors, as exporters of scikit-learn write them."""

import numpy as np
import pytest
from onnx import TensorProto, helper

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.model.load import load
from fgonnx.errors import ModelError, UnsupportedError
from tests.support import draw, model, run

X = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
NODE, VALUE = helper.make_node, helper.make_value_info
FLOATS = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
KEYS = {"classlabels_int64s": list(range(5))}, {"classlabels_strings": list("abcde")}
ZIP, ZIP_TEXT = (NODE("ZipMap", ["y"], ["p"], domain="ai.onnx.ml", **keys) for keys in KEYS)
LABEL = NODE("ArgMax", ["y"], ["label"], axis=1, keepdims=0)
SPLIT = NODE("SplitToSequence", ["y"], ["s"], axis=1)
MAYBE = NODE("Optional", ["y"], ["s"])
OUT = {
    "label": helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
    "y": helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5]),
    "p": VALUE("p", helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, FLOATS))),
    "text": VALUE("p", helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, FLOATS))),
    "s": VALUE("s", helper.make_sequence_type_proto(FLOATS)),
    "maybe": VALUE("s", helper.make_optional_type_proto(FLOATS)),
}


def net(nodes, outputs, body="h = MatMul(x, w) t = Relu(h) g = MatMul(t, v) y = Softmax<axis=1>(g)", weights=None):
    proto = model(f"(float[N,6] x) => (float[N,5] y) {{ {body} }}", weights=weights or draw(w=(6, 4), v=(4, 5)))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    proto.graph.node.extend(nodes)
    del proto.graph.output[:]
    proto.graph.output.extend(OUT[name] for name in outputs)
    return proto


PLAIN = net([], ["y"])


class TestSetAside:
    @pytest.mark.parametrize(
        ("nodes", "outputs", "left"),
        [
            ([LABEL, ZIP], ["label", "p"], ["label", "y"]),
            ([LABEL, ZIP_TEXT], ["label", "text"], ["label", "y"]),
            ([ZIP], ["p"], ["y"]),
            ([ZIP_TEXT], ["text"], ["y"]),
            ([ZIP], ["p", "y"], ["y"]),
            ([ZIP], ["y", "p"], ["y"]),
            ([SPLIT], ["y", "s"], ["y"]),
            ([SPLIT], ["s", "y"], ["y"]),
            ([MAYBE], ["maybe", "y"], ["y"]),
            ([LABEL, ZIP, SPLIT], ["s", "label", "p"], ["label", "y"]),
        ],
    )
    def test_the_tensor_is_explained(self, nodes, outputs, left):
        proto = net(nodes, outputs)
        run(proto, {"x": X})
        found, plain = Explainer(proto)(X), Explainer(PLAIN)(X)
        assert list(found.outputs) == left
        np.testing.assert_array_equal(found.saliency, plain.saliency)
        np.testing.assert_array_equal(found.target, plain.target)

    def test_a_note_names_them(self):
        notes = fgonnx.inspect(net([LABEL, ZIP, SPLIT], ["label", "p", "s"]))["explanation"]["notes"]
        assert notes[:2] == [
            "the output 'p' is a map and is set aside; 'y' holds its numbers",
            "the output 's' is no tensor and is set aside",
        ]

    def test_what_is_declared_of_maps_is_passed_over(self):
        proto = net([LABEL, ZIP], ["label"])
        proto.graph.value_info.append(OUT["p"])
        with pytest.raises(UnsupportedError, match=r"'ArgMax_4' .*Explain the tensor 'y' instead"):
            Explainer(proto)(X)

    def test_what_others_need_stays(self):
        middle = NODE("SequenceAt", ["s", "zero"], ["z"])
        proto = net([SPLIT, middle], ["s"], weights=draw(w=(6, 4), v=(4, 5)) | {"zero": np.array(0)})
        proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 1]))
        assert [n.op_type for n in load(proto).ir.graph][-2:] == ["SplitToSequence", "SequenceAt"]

    def test_the_model_given_is_not_changed(self):
        proto = net([LABEL, ZIP], ["label", "p"])
        before = proto.SerializeToString()
        load(proto)
        assert proto.SerializeToString() == before


class TestAlone:
    @pytest.mark.parametrize("nodes", [[SPLIT], [NODE("SequenceConstruct", ["y", "g"], ["s"])]])
    def test_a_sequence_is_refused_by_its_node(self, nodes):
        with pytest.raises(UnsupportedError, match=rf"'{nodes[0].op_type}_4' .*sequence or optional value has"):
            Explainer(net(nodes, ["s"]))(X)

    def test_a_map_of_another_operator_is_refused_by_its_node(self):
        proto = net([NODE("CastMap", ["y"], ["p"], name="other", domain="ai.onnx.ml")], ["p"])
        with pytest.raises(ModelError, match=r"its only output 'p' is a map of the node 'other' \(CastMap\)"):
            Explainer(proto)

    def test_the_classifier_behind_a_zipmap_is_explained(self):
        linear = NODE(
            "LinearClassifier",
            ["x"],
            ["label", "y"],
            domain="ai.onnx.ml",
            coefficients=[0.1] * 30,
            intercepts=[0.1] * 5,
            classlabels_ints=list(range(5)),
        )
        proto = net([linear, ZIP], ["label", "p"], body="y = Identity(x)")
        del proto.graph.node[0]
        run(proto, {"x": X})
        gradient = Explainer(proto, input_gradient=True)(X).input_gradient
        np.testing.assert_allclose(gradient, np.full_like(X, 0.1), rtol=1e-6)
