"""Forms of a gradient that are chosen for their speed compute what the plain ones compute: torch is the witness."""

import numpy as np
import pytest

import fgonnx
from fgonnx.engine.rules.fast import masks
from tests import skips
from tests.support import draw, emitted, model, run

torch = skips.without("torch")

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


# kernel, stride, pad, size, whether a form in phases is taken
STRIDED = [
    (3, 2, 1, 16, True),
    (3, 2, 1, 17, True),
    (1, 2, 0, 16, True),
    (1, 2, 0, 17, True),
    (5, 2, 2, 16, True),
    (7, 2, 3, 18, True),
    (4, 2, 1, 16, True),
    (2, 2, 0, 16, True),
    (3, 2, 0, 17, True),
    (3, 3, 1, 15, False),
    (2, 3, 0, 12, False),
]


@pytest.mark.parametrize(("kernel", "stride", "pad", "size", "phases"), STRIDED)
class TestStridedConvolution:
    def gradients(self, kernel, stride, pad, size):
        weights = draw(w=(32, 16, kernel, kernel))
        proto = model(
            f"""(float[N,16,{size},{size}] x) => (float[N,32,P,Q] y) {{
                y = Conv<strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}]>(x, w)
            }}""",
            weights=weights,
        )
        x = np.random.default_rng(0).standard_normal((2, 16, size, size)).astype(np.float32)
        return proto, x, torch.tensor(weights["w"])

    def test_equals_torch(self, kernel, stride, pad, size, phases):
        proto, x, w = self.gradients(kernel, stride, pad, size)
        _, g, found = gradients(proto, x)
        leaf = torch.tensor(x, requires_grad=True)
        torch.nn.functional.conv2d(leaf, w, stride=stride, padding=pad).backward(torch.tensor(g))
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-5)

    def test_is_in_phases_where_padding_allows_it(self, kernel, stride, pad, size, phases):
        proto, *_ = self.gradients(kernel, stride, pad, size)
        assert all(n.op_type != "ConvTranspose" for n in fgonnx.grad(proto).graph.node) == phases


@pytest.mark.parametrize("include_pad", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "size"),
    [(3, 1, 1, 9), (2, 2, 0, 10), (2, 2, 0, 11), (3, 3, 0, 12), (3, 2, 0, 12), (3, 2, 1, 12), (7, 1, 0, 7)],
)
def test_average_pool_equals_torch(kernel, stride, pad, size, include_pad):
    proto = model(f"""(float[N,16,{size},{size}] x) => (float[N,16,P,Q] y) {{
        y = AveragePool<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}],
                        count_include_pad={include_pad}>(x)
    }}""")
    x = np.random.default_rng(0).standard_normal((2, 16, size, size)).astype(np.float32)
    _, g, found = gradients(proto, x)
    leaf = torch.tensor(x, requires_grad=True)
    truth = torch.nn.functional.avg_pool2d(leaf, kernel, stride, pad, count_include_pad=bool(include_pad))
    truth.backward(torch.tensor(g))
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-6)


# What is enlarged or summed without leaving the blocked layout.
PER_CHANNEL = {
    "a gate for every channel": (
        "p = GlobalAveragePool(x)\n s = Sigmoid(p)\n y = Mul(x, s)",
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    ),
    "a gate to the left": (
        "p = GlobalAveragePool(x)\n s = Sigmoid(p)\n y = Mul(s, x)",
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    ),
    "a mean that keeps its axes": ("y = ReduceMean<axes=[2,3]>(x)", lambda x: x.mean((2, 3), keepdim=True)),
    "a mean that leaves its axes out": ("y = ReduceMean<axes=[2,3], keepdims=0>(x)", lambda x: x.mean((2, 3))),
    "a sum": ("y = ReduceSum<keepdims=0>(x, axes)", lambda x: x.sum((2, 3))),
}


@pytest.mark.parametrize("name", PER_CHANNEL)
def test_one_value_for_a_channel(name):
    body, in_torch = PER_CHANNEL[name]
    rank = in_torch(torch.zeros(1, 16, 5, 6)).ndim
    proto = model(
        f"(float[N,16,5,6] x) => (float[{','.join('NCPQ'[:rank])}] y) {{ {body} }}",
        opset=17,
        weights={"axes": np.array([2, 3])},
    )
    x = np.random.default_rng(0).standard_normal((2, 16, 5, 6)).astype(np.float32)
    _, g, found = gradients(proto, x)
    leaf = torch.tensor(x, requires_grad=True)
    in_torch(leaf).backward(torch.tensor(g))
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-6)
    assert "Resize" in {node.op_type for node in fgonnx.grad(proto).graph.node}


FIRE = """(float[N,16,13,13] x) => (float[N,10] y) {
    s = Conv<kernel_shape=[1,1]>(x, w1, b1)
    r = Relu(s)
    a = Conv<kernel_shape=[1,1]>(r, w2, b2)
    b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w3, b3)
    p = Relu(a)
    q = Relu(b)
    c = Concat<axis=1>(p, q)
    m = MaxPool<kernel_shape=[3,3], strides=[2,2]>(c)
    d = Conv<kernel_shape=[1,1]>(m, w4, b4)
    e = Relu(d)
    z = GlobalAveragePool(e)
    y = Flatten(z)
}"""


class TestFireModule:
    """Squeeze, expand twice, concatenate, pool; a convolution for classifier: what SqueezeNet is made of."""

    WEIGHTS = draw(
        w1=(16, 16, 1, 1),
        b1=(16,),
        w2=(32, 16, 1, 1),
        b2=(32,),
        w3=(16, 16, 3, 3),
        b3=(16,),
        w4=(10, 48, 1, 1),
        b4=(10,),
    )
    OUTPUTS = ("saliency", "target", "contributions", "bias_gradients", "input_gradient")

    @pytest.fixture
    def net(self):
        return model(FIRE, weights=self.WEIGHTS)

    @pytest.fixture
    def x(self):
        return np.random.default_rng(0).standard_normal((3, 16, 13, 13)).astype(np.float32)

    def test_gradient_equals_torch(self, net, x):
        f, w = torch.nn.functional, {k: torch.tensor(v) for k, v in self.WEIGHTS.items()}
        leaf = torch.tensor(x, requires_grad=True)
        r = f.conv2d(leaf, w["w1"], w["b1"]).relu()
        both = [f.conv2d(r, w["w2"], w["b2"]).relu(), f.conv2d(r, w["w3"], w["b3"], padding=1).relu()]
        d = f.conv2d(f.max_pool2d(torch.cat(both, 1), 3, 2), w["w4"], w["b4"]).relu()
        d.mean((2, 3)).max(1).values.sum().backward()
        found = run(fgonnx.rewrite(net, outputs=("input_gradient",)), {"x": x})["input_gradient"]
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-6)

    def test_an_index_and_its_cotangent_explain_alike(self, net, x):
        # The index is followed as the one channel that does not vanish, a cotangent of the user's as any other.
        by_index = run(fgonnx.rewrite(net, outputs=self.OUTPUTS), {"x": x})
        seed = np.eye(10, dtype=np.float32)[by_index["target"]]
        by_seed = run(fgonnx.rewrite(net, outputs=self.OUTPUTS, seed=True), {"x": x, "seed": seed})
        for name in by_seed:
            np.testing.assert_allclose(by_seed[name], by_index[name], rtol=0, atol=2e-6, err_msg=name)

    def test_portable_form_explains_the_same(self, net, x):
        fast, portable = (
            run(fgonnx.rewrite(net, outputs=self.OUTPUTS, form=f), {"x": x}) for f in ("fast", "portable")
        )
        for name in fast:
            np.testing.assert_allclose(portable[name], fast[name], rtol=0, atol=2e-6, err_msg=name)

    def test_the_cotangent_of_a_concatenation_is_never_cut(self, net):
        cut = [n for n in fgonnx.rewrite(net, outputs=("input_gradient",)).graph.node if n.op_type == "Split"]
        assert cut == []

    def test_totals_taken_with_the_map_are_those_taken_alone(self, net, x):
        beside = run(fgonnx.rewrite(net, outputs=("saliency", "contributions")), {"x": x})["contributions"]
        alone = run(fgonnx.rewrite(net, outputs=("contributions",)), {"x": x})["contributions"]
        np.testing.assert_allclose(beside, alone, rtol=0, atol=1e-6)


# An addition hands one cotangent to several values: what is known of it for one of them must not serve another.
SHARED_COTANGENTS = {
    "two ReLUs before a pool": (
        "a = Relu(x)\n u = Neg(x)\n b = Relu(u)\n s = Add(a, b)\n y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)",
        lambda x: torch.nn.functional.max_pool2d(x.relu() + (-x).relu(), 2, 2),
    ),
    "a concatenation and a skip before a pool": (
        "a = Relu(x)\n u = Neg(x)\n b = Relu(u)\n c = Concat<axis=1>(a, b)\n d = Concat<axis=1>(x, x)\n"
        " s = Add(c, d)\n y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)",
        lambda x: torch.nn.functional.max_pool2d(torch.cat([x.relu(), (-x).relu()], 1) + torch.cat([x, x], 1), 2, 2),
    ),
    "a gate with an offset": (
        "s = Sigmoid(x)\n t = Add(s, one)\n y = Mul(x, t)",
        lambda x: x * (x.sigmoid() + 1),
    ),
}


@pytest.mark.parametrize("name", SHARED_COTANGENTS)
def test_a_cotangent_of_several_values(name):
    body, in_torch = SHARED_COTANGENTS[name]
    proto = model(f"(float[N,16,6,6] x) => (float[N,C,P,Q] y) {{ {body} }}", weights={"one": np.float32(1)})
    x = np.random.default_rng(0).standard_normal((2, 16, 6, 6)).astype(np.float32)
    _, g, found = gradients(proto, x)
    leaf = torch.tensor(x, requires_grad=True)
    in_torch(leaf).backward(torch.tensor(g))
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("trans_b", [0, 1])
def test_the_gradient_of_a_logit_is_a_row_of_the_last_layer(trans_b):
    shape = (10, 64) if trans_b else (64, 10)
    net = model(
        f"(float[N,64] x) => (float[N,10] y) {{ r = Relu(x)\n y = Gemm<transB={trans_b}, alpha=0.5>(r, w, b) }}",
        weights=draw(w=shape, b=(10,)),
    )
    x = np.random.default_rng(0).uniform(1, 2, (3, 64)).astype(np.float32)
    found = run(fgonnx.rewrite(net, outputs=("input_gradient", "target")), {"x": x})
    w = draw(w=shape, b=(10,))["w"]
    rows = w if trans_b else w.T
    np.testing.assert_allclose(found["input_gradient"], 0.5 * rows[found["target"]], rtol=1e-6)


@pytest.mark.parametrize("gate", ["x", "v"])
def test_a_gated_sigmoid_writes_the_product_of_cotangent_and_intercept(gate):
    # x sigmoid(x), and a gate that is not the gated value
    net = model(
        f"""(float[N,16,5,5] x) => (float[N,4] y) {{
            v = Conv<kernel_shape=[1,1]>(x, w, b)
            s = Sigmoid(x)
            m = Mul({gate}, s)
            p = GlobalAveragePool(m)
            f = Flatten(p)
            y = Gemm(f, u, c)
        }}""",
        weights=draw(w=(16, 16, 1, 1), b=(16,), u=(16, 4), c=(4,)),
    )
    x = np.random.default_rng(0).standard_normal((2, 16, 5, 5)).astype(np.float32)
    outputs = ("bias_gradients", "completeness")
    found = run(fgonnx.rewrite(net, outputs=outputs, expose=["gradient:s", "bias:s"]), {"x": x})
    product = found["gradient:s"] * found["bias:s"]
    np.testing.assert_allclose(found["bias_gradient:s"], product, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["completeness"], 0, atol=1e-5)


@pytest.mark.parametrize("bound", [6.0, 1.0, 0.7, 3.3, 4.0, 20.0, 1e-3, 255.0])
@pytest.mark.parametrize(
    ("mask", "truth"), [(masks.below, np.less), (masks.reaches, np.greater_equal)], ids=["below", "reaches"]
)
def test_masks_are_exact_beside_their_bound(mask, truth, bound):
    near = np.float32(bound)
    x = np.array([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1e9)), 0, -near], np.float32)
    proto = emitted(lambda op, v: {"y": mask(op, v, bound)}, x=(None,))
    np.testing.assert_array_equal(run(proto, {"x": x})["y"], truth(x, near))


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
