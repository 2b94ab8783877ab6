"""TensorFlow Lite, in floating point and int8, against LiteRT's interpreter."""

import numpy as np
import pytest

import fgonnx
from fgonnx import converters
from fgonnx.errors import FgonnxError
from tests.frameworks import agrees, needed, noise

tf, _, _ = needed("tensorflow", "tf2onnx", "ai_edge_litert")

from tests.frameworks.test_keras import NETS, SHAPE, built  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def lite(name, tmp_path, *, int8=False, faces=None):
    converter = tf.lite.TFLiteConverter.from_keras_model(built(name))
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([noise(1, *SHAPE, seed=i)] for i in range(16))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if faces is not None:
        converter.inference_input_type = converter.inference_output_type = faces
    path = tmp_path / "net.tflite"
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize("name", NETS)
def test_floating_point(name, tmp_path):
    agrees(converters.convert(lite(name, tmp_path), tmp_path / "net.onnx"), explained=False)


@pytest.mark.parametrize("name", ["classifier", "normalised", "depthwise"])
def test_int8_is_within_one_step(name, tmp_path):
    report = converters.convert(lite(name, tmp_path, int8=True, faces=tf.int8), tmp_path / "net.onnx")
    assert report.passed, report.measurements
    assert {m.unit for m in report.measurements} == {"quantisation steps"}
    assert max(m.maximum for m in report.measurements) <= 1


def test_int8_is_explained_from_real_numbers(tmp_path):
    converters.convert(lite("normalised", tmp_path, int8=True, faces=tf.int8), tmp_path / "net.onnx")
    x = noise(2, *SHAPE, seed=3)
    explanation = fgonnx.Explainer(tmp_path / "net.onnx")(x)
    assert explanation.rounding_residual().max() < 1e-5
    converters.convert(built("normalised"), tmp_path / "float.onnx")
    original = fgonnx.Explainer(tmp_path / "float.onnx")(x, explanation.target)
    assert np.corrcoef(explanation.saliency.ravel(), original.saliency.ravel())[0, 1] > 0.9


def test_a_shape_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(FgonnxError, match=r"takes \(-1, 24, 32, 3\), the example has \(1, 24, 30, 3\)"):
        converters.convert(lite("classifier", tmp_path), tmp_path / "net.onnx", example_input=noise(1, 24, 30, 3))


def test_a_truncated_file_is_refused(tmp_path):
    path = lite("classifier", tmp_path)
    path.write_bytes(path.read_bytes()[:64])
    with pytest.raises(FgonnxError, match="is not a TensorFlow Lite model"):
        converters.convert(path, tmp_path / "net.onnx")
