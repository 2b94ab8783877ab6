"""Files of int8 models of opset 21 and later open with all of ONNX Runtime's optimisations, and give the same."""

import numpy as np
import pytest

import fgonnx
from tests.support import draw, model, pictures, run


def stored(v, n):
    return f"q{n} = QuantizeLinear({v}, s, z) d{n} = DequantizeLinear(q{n}, s, z) "


SPLIT = stored("x", 1) + "c = Conv<pads=[1,1,1,1]>(d1, w1, b1) "
END = "g = GlobalAveragePool({}) f = Flatten(g) y = MatMul(f, v)"
NETS = {
    "max pool": SPLIT
    + "r = Relu(c) "
    + stored("r", 2)
    + "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d2) "
    + stored("p", 3)
    + "e = Conv<pads=[1,1,1,1]>(d3, w2) k = Relu(e) "
    + END.format("k"),
    "overlapping max pool": SPLIT
    + stored("c", 2)
    + "p = MaxPool<kernel_shape=[3,3], strides=[2,2]>(d2) "
    + stored("p", 3)
    + "k = Relu(d3) "
    + END.format("k"),
    "padded max pool": SPLIT
    + stored("c", 2)
    + "p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(d2) "
    + stored("p", 3)
    + "k = LeakyRelu(d3) "
    + END.format("k"),
    "reshaped and turned": SPLIT
    + stored("c", 2)
    + "n = Reshape(d2, rows) "
    + stored("n", 3)
    + "t = Transpose<perm=[0,2,1]>(d3) "
    + stored("t", 4)
    + "u = ReduceMean<keepdims=0>(d4, first) y = MatMul(u, v)",
    "rectifier": SPLIT + stored("c", 2) + "r = Relu(d2) " + stored("r", 3) + "e = Conv<pads=[1,1,1,1]>(d3, w2) "
    "k = Tanh(e) " + END.format("k"),
    "skip connection": SPLIT + "r = Relu(c) " + stored("r", 2) + "e = Conv<pads=[1,1,1,1]>(d2, w2) a = Add(e, d2) "
    "k = Relu(a) " + stored("k", 3) + END.format("d3"),
    "flattened": SPLIT + "r = Relu(c) " + stored("r", 2) + "f = Flatten(d2) h = MatMul(f, wide) y = Relu(h)",
    "products of itself": SPLIT
    + stored("c", 2)
    + "m = Mul(d2, d2) n = Reshape(m, rows) t = Transpose<perm=[0,2,1]>(n) "
    "a = MatMul(n, t) p = Softmax(a) o = MatMul(p, n) u = ReduceMean<keepdims=0>(o, last) y = MatMul(u, v)",
    "instance normalisation": SPLIT
    + stored("c", 2)
    + "i = InstanceNormalization(d2, one, nought) k = Relu(i) "
    + END.format("k"),
}


def network(name, opset):
    body = NETS[name]
    given = draw(w1=(4, 3, 3, 3), b1=(4,), w2=(4, 4, 3, 3), v=(4, 5), wide=(192, 5)) | {
        "s": np.float32(0.03),
        "z": np.int8(0),
        "rows": np.array([-1, 4, 48]),
        "first": np.array([1]),
        "last": np.array([2]),
        "one": np.ones(4, np.float32),
        "nought": np.zeros(4, np.float32),
    }
    words = set("".join(c if c.isalnum() else " " for c in body).split())
    weights = {n: a for n, a in given.items() if n in words}
    return model(f"(float[N,3,8,6] x) => (float[N,5] y) {{ {body} }}", opset, 10, weights)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("form", ["fast", "portable"])
@pytest.mark.parametrize("opset", [21, 22])
def test_files_open_with_all_optimisations(name, form, opset):
    written = fgonnx.rewrite(network(name, opset), form=form, target="argmax")
    x = pictures(2)
    plain, optimised = run(written, {"x": x}, optimise=False), run(written, {"x": x})
    assert np.abs(optimised["completeness"]).max() < 1e-4
    np.testing.assert_allclose(optimised["saliency"], plain["saliency"], atol=0.1 * np.abs(plain["saliency"]).max())


def test_other_files_hold_no_copies():
    sizes = {opset: len(fgonnx.rewrite(network("max pool", opset), form="portable").graph.node) for opset in (18, 21)}
    assert sizes[21] > sizes[18]
