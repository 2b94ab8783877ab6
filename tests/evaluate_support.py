"""Models of known behaviour to measure on: a linear one without onnxruntime, and small networks."""

from types import SimpleNamespace

import numpy as np
from onnx import numpy_helper, parser

import fgonnx
from fgonnx.audit import evaluate

SIDE = 8


class Linear:
    """Two classes: <w, x> and 0; its map is whatever it is told, of x and the target."""

    def __init__(self, weights, saliency=None):
        self.weights = weights
        self.saliency = saliency or (lambda x, target: np.abs(weights * x[:, 0]))

    def head(self, x):
        first = (x[:, 0] * self.weights).sum(axis=(1, 2))
        return np.stack([first, np.zeros_like(first)], axis=1)

    def __call__(self, x, target=None):
        maps = self.saliency(x, target)
        return SimpleNamespace(saliency=maps, contributions=None, completeness=None, delta=None)


def samples(count=3, channels=1, seed=0):
    return np.random.default_rng(seed).normal(size=(count, channels, SIDE, SIDE))


def data(x, **known):
    count = len(x)
    return evaluate.Data(x, np.zeros(count, np.int64), "NCHW", np.arange(count), **known)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def relu_net(channels=1, side=SIDE, classes=4):
    """Two convolutions with ReLU, a mean and a dense layer, with random weights."""
    proto = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        net (float[N,{channels},{side},{side}] x) => (float[N,{classes}] y) {{
            c = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(c)
            d = Conv<pads=[1,1,1,1]>(r, w2, b2)  q = Relu(d)
            p = GlobalAveragePool(q)  f = Flatten(p)  y = Gemm(f, w3, b3)
        }}"""
    )
    weights = {
        "w1": draw(1, 5, channels, 3, 3),
        "b1": draw(2, 5),
        "w2": draw(3, 6, 5, 3, 3),
        "b2": draw(4, 6),
        "w3": draw(5, 6, classes),
        "b3": draw(6, classes),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return proto


def measured(text, explainer, given, **options):
    return evaluate.get(text)(explainer, given, **options)


def subject(method="fullgrad", model=None, **options):
    return evaluate.Subject(model or relu_net(), method, **options)


def of_net(count=3, **known):
    x = draw(7, count, 1, SIDE, SIDE)
    return evaluate.Data.of(fgonnx.Explainer(relu_net()), x, **known)
