"""JAX: functions, Flax NNX modules and Linen modules, against JAX' own gradients and Flax' biases."""

import numpy as np
import pytest

import fgonnx
from fgonnx import converters
from fgonnx.errors import FgonnxError
from tests.frameworks import agrees, needed, noise

jax, flax, _ = needed("jax", "flax", "jax2onnx")

import flax.linen as nn  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (2, 16, 24, 3)


class Classifier(nnx.Module):
    def __init__(self, r):
        self.a, self.b = nnx.Conv(3, 8, (3, 3), rngs=r), nnx.Conv(8, 12, (3, 3), strides=2, rngs=r)
        self.head = nnx.Linear(12, 5, rngs=r)

    def __call__(self, x):
        return nnx.softmax(self.head(nnx.relu(self.b(nnx.relu(self.a(x)))).mean((1, 2))))


class Normalised(nnx.Module):
    def __init__(self, r):
        self.a, self.norm = nnx.Conv(3, 8, (3, 3), rngs=r), nnx.BatchNorm(8, rngs=r)
        self.up, self.head = nnx.ConvTranspose(8, 4, (2, 2), strides=2, rngs=r), nnx.Linear(4, 5, rngs=r)

    def __call__(self, x):
        return self.head(nnx.relu(self.up(nnx.relu(self.norm(self.a(x))))).mean((1, 2)))


class Depthwise(nnx.Module):
    def __init__(self, r):
        self.a, self.norm = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=r), nnx.BatchNorm(8, rngs=r)
        self.b = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=r)
        self.head = nnx.Linear(8, 5, rngs=r)

    def __call__(self, x):
        return self.head(nnx.silu(self.b(nnx.relu6(self.norm(self.a(x))))).mean((1, 2)))


class Attention(nnx.Module):
    def __init__(self, r):
        self.a, self.norm = nnx.Conv(3, 16, (8, 8), strides=8, rngs=r), nnx.LayerNorm(16, rngs=r)
        self.attention = nnx.MultiHeadAttention(2, 16, rngs=r, decode=False)
        self.head = nnx.Linear(16, 5, rngs=r)

    def __call__(self, x):
        x = self.a(x).reshape(x.shape[0], -1, 16)
        return self.head((x + self.attention(self.norm(x))).mean(1))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3))(x)))
        x = nn.silu(nn.Conv(8, (3, 3), feature_group_count=8)(x))
        return nn.log_softmax(nn.Dense(5)(x.mean((1, 2))))


def moved(tree, seed=0):
    """Vectors (biases, scales, statistics) are not those of a fresh network."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.abs(a + 0.3 * rng.standard_normal(a.shape)) if a.ndim == 1 else a, tree)


def built(kind):
    net = kind(nnx.Rngs(0))
    nnx.update(net, moved(nnx.state(net, (nnx.Param, nnx.BatchStat))))
    return net


def linen():
    net = Linen()
    return net, moved(net.init(jax.random.key(0), noise(*SHAPE)))


@pytest.mark.parametrize("kind", [Classifier, Normalised, Depthwise, Attention])
def test_nnx(kind, tmp_path):
    agrees(converters.convert(built(kind), tmp_path / "net.onnx", example_input=noise(*SHAPE)))


def test_linen(tmp_path):
    report = converters.convert(linen(), tmp_path / "net.onnx", example_input=noise(*SHAPE))
    agrees(report)
    assert report.head == "logits"
    assert report.head_stripped == "LogSoftmax"


def test_a_function_gives_the_map_of_its_module(tmp_path):
    net, variables = linen()
    x = noise(*SHAPE, seed=3)
    converters.convert((net, variables), tmp_path / "module.onnx", example_input=x)
    report = converters.convert(
        lambda x: net.apply(variables, x), tmp_path / "function.onnx", framework="jax", example_input=x
    )
    assert report.worst("input-gradient") < 1e-4
    a, b = (fgonnx.Explainer(tmp_path / f"{n}.onnx")(x).saliency for n in ("module", "function"))
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("source", "x", "message"),
    [
        (Linen(), noise(*SHAPE), r"give \(module, variables\)"),
        (lambda x: x, None, "give example_input"),
        (lambda x: x * 2 if x.sum() > 0 else x, noise(*SHAPE), "cannot export the model: TracerBoolConversionError"),
        ("net.msgpack", noise(*SHAPE), "no file format of its own"),
    ],
)
def test_refusals_say_what_to_do(source, x, message, tmp_path):
    with pytest.raises(FgonnxError, match=message):
        converters.convert(source, tmp_path / "net.onnx", framework="jax", example_input=x)


def test_a_shape_that_does_not_fit_names_the_layer(tmp_path):
    with pytest.raises(FgonnxError, match="Conv_0"):
        converters.convert(linen(), tmp_path / "net.onnx", example_input=noise(2, 16, 24, 4))
