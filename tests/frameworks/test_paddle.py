"""Paddle: layers, against Paddle's own gradients and biases, and inference models."""

import pytest

from fgonnx import converters
from fgonnx.errors import FgonnxError
from tests.frameworks import agrees, needed, noise

paddle, _ = needed("paddle", "paddle2onnx")
nn = paddle.nn

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (2, 3, 16, 24)


class Attention(nn.Layer):
    """Without LayerNorm: behind a convolution, Paddle 3.3.1 contradicts the differences of its own outputs."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2D(3, 16, 8, stride=8)
        self.q, self.k, self.v, self.head = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        x = self.a(x).flatten(2).transpose([0, 2, 1])
        weights = nn.functional.softmax(paddle.matmul(self.q(x), self.k(x), transpose_y=True) / 4.0)
        return self.head((x + paddle.matmul(weights, self.v(x))).mean(1))


def head(channels):
    return nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(channels, 5)


NETS = {
    "classifier": lambda: nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU(), nn.MaxPool2D(2), *head(8), nn.Softmax()),
    "normalised": lambda: nn.Sequential(nn.Conv2D(3, 8, 3), nn.BatchNorm2D(8), nn.ReLU(), *head(8)),
    "depthwise": lambda: nn.Sequential(nn.Conv2D(3, 8, 3), nn.Conv2D(8, 8, 3, groups=8), nn.Swish(), *head(8)),
    "attention": Attention,
}


def built(name):
    paddle.seed(0)
    net = NETS[name]()
    for p in net.parameters():
        if p.ndim == 1:
            p.set_value(p + 0.3 * paddle.randn(p.shape))
    return net


@pytest.mark.parametrize("name", NETS)
def test_a_layer(name, tmp_path):
    agrees(converters.convert(built(name), tmp_path / "net.onnx", example_input=noise(*SHAPE)))


@pytest.mark.parametrize("name", NETS)
def test_an_inference_model(name, tmp_path):
    net = built(name)
    net.eval()
    spec = [paddle.static.InputSpec([None, *SHAPE[1:]], "float32", "x")]
    paddle.jit.save(net, str(tmp_path / "net"), input_spec=spec)
    (file,) = [p for p in tmp_path.iterdir() if p.suffix in (".json", ".pdmodel")]
    agrees(converters.convert(file, tmp_path / "net.onnx"), explained=False)
    file.with_suffix(".pdiparams").unlink()
    with pytest.raises(FgonnxError, match=r"its weights 'net.pdiparams' must lie next to it"):
        converters.convert(file, tmp_path / "net.onnx")


def test_a_shape_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(FgonnxError, match="number of input's channels"):
        converters.convert(built("classifier"), tmp_path / "net.onnx", example_input=noise(2, 4, 16, 24))
