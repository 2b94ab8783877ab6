"""TensorFlow: SavedModels, frozen graphs and functions."""

import pytest

import fgonnx
from fgonnx import converters
from fgonnx.errors import FgonnxError
from tests.frameworks import needed, noise

tf, keras, _ = needed("tensorflow", "keras", "tf2onnx")

from tests.frameworks.test_keras import NETS, SHAPE, built  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def saved(net, tmp_path):
    net.export(tmp_path / "saved", verbose=False)
    return tmp_path / "saved"


def frozen(net, tmp_path):
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((None, *SHAPE))
    function = convert_variables_to_constants_v2(
        tf.function(lambda x: net(x, training=False)).get_concrete_function(spec)
    )
    tf.io.write_graph(function.graph.as_graph_def(), str(tmp_path), "net.pb", as_text=False)
    return tmp_path / "net.pb"


def agrees(report):
    assert report.passed, report.measurements
    assert report.worst("output") < 1e-5
    assert 0 < report.worst("input-gradient") < 1e-4


@pytest.mark.parametrize("source", [saved, frozen])
@pytest.mark.parametrize("name", NETS)
def test_the_file_is_the_network(name, source, tmp_path):
    agrees(converters.convert(source(built(name), tmp_path), tmp_path / "net.onnx"))


def test_a_saved_model_gives_the_map_of_its_network(tmp_path):
    net, x = built("normalised"), noise(2, *SHAPE, seed=3)
    converters.convert(net, tmp_path / "keras.onnx")
    converters.convert(saved(net, tmp_path), tmp_path / "saved.onnx")
    a, b = (fgonnx.Explainer(tmp_path / f"{n}.onnx")(x).saliency for n in ("keras", "saved"))
    assert abs(a - b).max() < 1e-4 * a.max()


def test_a_function_needs_an_example(tmp_path):
    @tf.function
    def net(x):
        return tf.nn.softmax(tf.reduce_mean(tf.nn.relu(x), (1, 2)))

    agrees(converters.convert(net, tmp_path / "net.onnx", framework="tensorflow", example_input=noise(2, 8, 8, 3)))
    with pytest.raises(FgonnxError, match="give example_input"):
        converters.convert(net, tmp_path / "net.onnx", framework="tensorflow")


def test_an_unknown_signature_is_refused_with_those_there_are(tmp_path):
    path = saved(built("classifier"), tmp_path)
    with pytest.raises(FgonnxError, match="no signature 'other'; it has: serv"):
        converters.convert(path, tmp_path / "net.onnx", signature="other")
