"""Forms of a gradient that are chosen for their speed compute what the plain ones compute: torch is the witness."""

import numpy as np
import onnx_ir as ir
import pytest

import fgonnx
from fgonnx import lowerings
from fgonnx.emit import Emitter
from tests.support import draw, model, run

torch = pytest.importorskip("torch")

# kernel, stride, pads before and behind, size, ceil_mode, whether the form without indices is taken
POOLS = [
    (3, 2, (0, 0), 21, 0, True),
    (3, 2, (0, 0), 20, 1, True),
    (3, 2, (0, 0), 20, 0, True),
    (3, 2, (1, 0), 16, 0, True),
    (3, 2, (1, 1), 16, 0, True),
    (3, 2, (1, 1), 17, 0, False),
    (2, 2, (0, 0), 16, 0, True),
    (2, 2, (0, 0), 17, 0, True),
    (2, 2, (0, 0), 17, 1, True),
    (2, 3, (0, 0), 11, 0, True),
    (3, 1, (0, 0), 9, 0, True),
    (3, 1, (1, 1), 9, 0, False),
    (3, 3, (0, 0), 14, 0, True),
    (5, 1, (0, 0), 9, 0, False),
]


def pool(kernel, stride, pads, size, ceil_mode, channels=16):
    """A max pool of (N, channels, size, size)."""
    before, behind = pads
    return model(f"""(float[N,{channels},{size},{size}] x) => (float[N,{channels},P,Q] y) {{
        y = MaxPool<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}],
                    pads=[{before},{before},{behind},{behind}], ceil_mode={ceil_mode}>(x)
    }}""")


def gradients(proto, x):
    """The pool, a cotangent drawn for it, and the gradient of the input."""
    y = run(proto, {"x": x})["y"]
    g = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    return y, g, run(fgonnx.grad(proto), {"x": x, "y_grad": g})["x_grad"]


def without_indices(proto):
    return all(node.op_type != "ScatterElements" for node in fgonnx.grad(proto).graph.node)


@pytest.mark.parametrize(("kernel", "stride", "pads", "size", "ceil_mode", "fast"), POOLS)
class TestMaxPool:
    def test_equals_torch(self, kernel, stride, pads, size, ceil_mode, fast):
        x = np.random.default_rng(0).standard_normal((2, 16, size, size)).astype(np.float32)
        _, g, found = gradients(pool(kernel, stride, pads, size, ceil_mode), x)
        before, behind = pads
        leaf = torch.tensor(x, requires_grad=True)
        padded = torch.nn.functional.pad(leaf, (before, behind, before, behind), value=-torch.inf)
        truth = torch.nn.functional.max_pool2d(padded, kernel, stride, ceil_mode=bool(ceil_mode))
        truth.backward(torch.tensor(g))
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-6)

    def test_is_complete_with_ties(self, kernel, stride, pads, size, ceil_mode, fast):
        x = np.random.default_rng(0).integers(-1, 2, (2, 16, size, size)).astype(np.float32)
        y, g, found = gradients(pool(kernel, stride, pads, size, ceil_mode), x)
        assert np.sum(found * x, dtype=np.float64) == pytest.approx(np.sum(g * y, dtype=np.float64), rel=1e-5)

    def test_is_without_indices_where_it_can_be(self, kernel, stride, pads, size, ceil_mode, fast):
        assert without_indices(pool(kernel, stride, pads, size, ceil_mode)) == fast


def test_the_first_of_equal_elements_gets_the_cotangent():
    x = np.ones((1, 16, 9, 9), np.float32)
    _, g, found = gradients(pool(3, 3, (0, 0), 9, 0), x)
    np.testing.assert_array_equal(found[:, :, ::3, ::3], g)


def test_padding_never_gets_the_cotangent_of_a_zero():
    x = np.full((1, 16, 16, 16), -1.0, np.float32)
    x[:, :, 0, 0] = 0.0
    _, g, found = gradients(pool(3, 2, (1, 0), 16, 0), x)
    np.testing.assert_array_equal(found[:, :, 0, 0], g[:, :, 0, 0])


def test_few_channels_are_left_to_the_indices():
    assert not without_indices(pool(3, 2, (0, 0), 21, 0, channels=4))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [11, 12])
@pytest.mark.parametrize("stride", [2, 3])
def test_strided_depthwise_convolution_equals_torch(kernel, size, stride):
    half = kernel // 2
    proto = model(
        f"""(float[N,8,{size},{size}] x) => (float[N,8,P,Q] y) {{
            y = Conv<group=8, strides=[{stride},{stride}], pads=[{half},{half},{half},{half}]>(x, w)
        }}""",
        weights=draw(w=(8, 1, kernel, kernel)),
    )
    x = np.random.default_rng(0).standard_normal((2, 8, size, size)).astype(np.float32)
    _, g, found = gradients(proto, x)
    leaf = torch.tensor(x, requires_grad=True)
    weights = torch.tensor(draw(w=(8, 1, kernel, kernel))["w"])
    torch.nn.functional.conv2d(leaf, weights, stride=stride, padding=half, groups=8).backward(torch.tensor(g))
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bound", [6.0, 1.0, 0.7, 3.3, 4.0, 20.0, 1e-3, 255.0])
@pytest.mark.parametrize(
    ("mask", "truth"), [(lowerings.below, np.less), (lowerings.reaches, np.greater_equal)], ids=["below", "reaches"]
)
def test_masks_are_exact_beside_their_bound(mask, truth, bound):
    near = np.float32(bound)
    x = np.array([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1e9)), 0, -near], np.float32)
    proto = written(lambda op, v: mask(op, v, bound))
    np.testing.assert_array_equal(run(proto, {"x": x})["y"], truth(x, near))


def written(make):
    """A model of one vector x and what is made of it."""
    x = ir.Value(name="x", shape=ir.Shape([None]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 18}, name="mask")
    y = make(Emitter(graph), x)
    y.name, y.shape = "y", ir.Shape([None])
    graph.outputs.append(y)
    return ir.to_proto(ir.Model(graph, ir_version=8))


class TestPortable:
    CNN = """(float[N,3,12,12] x) => (float[N,5] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        r = Clip(a, zero, six)
        p = MaxPool<kernel_shape=[3,3], strides=[2,2]>(r)
        s = Sigmoid(p)
        f = Flatten(s)
        y = Gemm(f, v, c)
    }"""

    @pytest.fixture
    def cnn(self):
        weights = draw(w=(8, 3, 3, 3), b=(8,), v=(200, 5), c=(5,))
        bounds = {"zero": np.float32(0), "six": np.float32(0.5)}
        return model(self.CNN, weights={**weights, **bounds})

    def test_explains_the_same(self, cnn):
        x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
        fast, portable = (run(fgonnx.rewrite(cnn, form=form), {"x": x}) for form in ("fast", "portable"))
        for name, array in fast.items():
            np.testing.assert_allclose(portable[name], array, rtol=0, atol=2e-6)

    def test_has_neither_steep_functions_nor_indices(self, cnn):
        used = {node.op_type for node in fgonnx.rewrite(cnn, form="portable").graph.node}
        assert not used & {"HardSigmoid", "ScatterElements"}
