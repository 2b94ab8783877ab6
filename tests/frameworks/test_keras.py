"""Keras 3 networks: by two exporters, from objects and files, against Keras' own gradients and biases."""

import numpy as np
import pytest

import fgonnx
from fgonnx import converters
from fgonnx.errors import FgonnxError, UnsupportedError
from tests.frameworks import agrees, needed, noise

keras, _, _ = needed("keras", "tensorflow", "tf2onnx")
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (24, 32, 3)


def classifier():
    i = keras.Input(SHAPE)
    x = L.Conv2D(8, 3, activation="relu")(i)
    x = L.MaxPooling2D()(x)
    x = L.Conv2D(12, 3, padding="same", activation="relu")(x)
    return i, L.Dense(5, activation="softmax")(L.Flatten()(x))


def normalised():
    i = keras.Input(SHAPE)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(i)))
    y = L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x))
    x = L.ReLU()(L.add([x, y]))
    return i, L.Dense(5)(L.GlobalAveragePooling2D()(x))


def depthwise():
    i = keras.Input(SHAPE)
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(i)))
    x = L.Activation("silu")(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(x)))
    x = L.SeparableConv2D(12, 3, activation="relu")(x)
    return i, L.Dense(5)(L.GlobalAveragePooling2D()(x))


def attention():
    i = keras.Input(SHAPE)
    x = L.Reshape((12, 16))(L.Conv2D(16, 8, strides=8)(L.Rescaling(1 / 127.5, -1.0)(i)))
    y = L.LayerNormalization()(x)
    x = x + L.MultiHeadAttention(2, 8)(y, y)
    return i, L.Dense(5)(L.GlobalAveragePooling1D()(L.Dense(16, activation="relu")(x)))


NETS = {f.__name__: f for f in (classifier, normalised, depthwise, attention)}


def built(name, seed=0):
    """A network whose biases and statistics are not those of a fresh one."""
    keras.utils.set_random_seed(seed)
    net = keras.Model(*NETS[name]())
    rng = np.random.default_rng(seed)
    for weight in net.weights:
        value = np.asarray(weight)
        if value.ndim == 1:
            moved = value + 0.3 * rng.standard_normal(value.shape)
            weight.assign(np.abs(moved) + 0.1 if "variance" in weight.name or "gamma" in weight.name else moved)
    return net


@pytest.mark.parametrize("name", NETS)
def test_the_file_is_the_network(name, tmp_path):
    agrees(converters.convert(built(name), tmp_path / "net.onnx"))


def test_keras_own_export(tmp_path):
    report = converters.convert(built("normalised"), tmp_path / "net.onnx", exporter="keras")
    agrees(report)
    assert report.exporter == "Keras' ONNX export"


@pytest.mark.parametrize("name", ["normalised", "depthwise"])
def test_two_exporters_give_one_map(name, tmp_path):
    maps = []
    for exporter in ("tf2onnx", "keras"):
        converters.convert(built(name), tmp_path / f"{exporter}.onnx", exporter=exporter)
        maps.append(fgonnx.Explainer(tmp_path / f"{exporter}.onnx")(noise(2, *SHAPE, seed=3)).saliency)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-4 * maps[1].max())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_are_recognised_by_content(suffix, tmp_path):
    built("normalised").save(tmp_path / f"net{suffix}")
    (tmp_path / f"net{suffix}").rename(tmp_path / "net.bin")
    kind = converters.recognise(tmp_path / "net.bin")
    assert kind.framework == "keras"
    (tmp_path / "net.bin").rename(tmp_path / f"net{suffix}")
    agrees(converters.convert(tmp_path / f"net{suffix}", tmp_path / "net.onnx"))


def test_gelu_is_exported_although_tf2onnx_knows_no_erfc(tmp_path):
    i = keras.Input((8,))
    net = keras.Model(i, L.Dense(3)(L.Dense(16, activation="gelu")(i)))
    agrees(converters.convert(net, tmp_path / "net.onnx"), maps=False)


def test_nested_models_show_their_layers(tmp_path):
    inner = built("depthwise")
    i = keras.Input(SHAPE)
    agrees(converters.convert(keras.Model(i, L.Softmax()(inner(i))), tmp_path / "net.onnx"))


def test_labels_and_preprocessing_are_in_the_file(tmp_path):
    how = fgonnx.Preprocessing(scale=1 / 127.5, mean=(1.0,))
    converters.convert(built("classifier"), tmp_path / "net.onnx", preprocessing=how, labels=list("abcde"))
    explainer = fgonnx.Explainer(tmp_path / "net.onnx")
    assert explainer.labels == tuple("abcde")
    assert '"layout": "NHWC"' in explainer.loaded.preprocessing_json()


def test_a_decision_is_refused_by_the_name_of_its_layer(tmp_path):
    import tensorflow as tf

    class Decides(L.Layer):
        def call(self, x):
            return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x + 1.0)

    net = keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3), Decides(name="decides")])
    with pytest.raises(UnsupportedError, match=r"/decides.*one of two branches"):
        converters.convert(net, tmp_path / "net.onnx")


class Own(L.Layer):
    def call(self, x):
        return x * 2.0


def custom_layer_file(tmp_path):
    keras.Sequential([keras.Input(SHAPE), Own(name="mine"), L.Flatten(), L.Dense(3)]).save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def weights_only(tmp_path):
    built("classifier").save_weights(tmp_path / "net.weights.h5")
    return tmp_path / "net.weights.h5"


def python_in_a_layer(_):
    import tensorflow as tf

    class Script(L.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(lambda a: a * 2, [x], tf.float32), x.shape)

        def compute_output_shape(self, shape):
            return shape

    return keras.Sequential([keras.Input(SHAPE), Script(name="script")])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (custom_layer_file, {}, "custom layers, whose code is not in the file: layer 'mine' (Own)"),
        (weights_only, {}, "A file of weights only"),
        (python_in_a_layer, {}, "script"),
        (lambda _: built("classifier"), {"example_input": noise(2, 24, 30, 3)}, "the example has (2, 24, 30, 3)"),
        (lambda _: built("classifier"), {"exporter": "other"}, "choose one of: tf2onnx, keras"),
        (lambda _: built("classifier"), {"fold": True}, "keras knows no option fold"),
    ],
)
def test_refusals_name_what_is_wrong(source, options, message, tmp_path):
    with pytest.raises(FgonnxError) as caught:
        converters.convert(source(tmp_path), tmp_path / "net.onnx", **options)
    assert message in str(caught.value)
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_texts_are_explained_by_the_rows_of_their_embedding(dtype, tmp_path):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    i, rows = keras.Input((12,), dtype=dtype), keras.Input((12, 8))
    table, layers = L.Embedding(30, 8), [L.Conv1D(8, 3, activation="relu"), L.GlobalAveragePooling1D(), L.Dense(3)]
    after, behind = rows, table(i)
    for layer in layers:
        after, behind = layer(after), layer(behind)
    net, rest = keras.Model(i, behind), keras.Model(rows, after)
    ids = np.random.default_rng(0).integers(0, 30, (2, 12))
    report = converters.convert(net, tmp_path / "net.onnx", example_input=ids.astype(dtype))
    assert report.passed
    e = fgonnx.Explainer(tmp_path / "net.onnx", input_gradient=True)(ids, 1)
    with tf.GradientTape() as tape:
        x = tf.constant(np.asarray(table(ids)))
        tape.watch(x)
        score = rest(x)[:, 1]
    np.testing.assert_allclose(e.input_gradient, tape.gradient(score, x).numpy(), atol=1e-5)
    assert e.rounding_residual().max() < 1e-5
