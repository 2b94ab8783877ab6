"""The portable form: nothing in it that a runtime gets wrong or refuses, and the map of the fast form."""

from functools import cache

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx.engine.maps.interpolate import scale_to
from fgonnx.engine.rewrite.portable import MOST, portable_violations
from tests.cli_support import ROOT
from tests.conftest import SHARED
from tests.support import draw, model, run, small_cnn

EXAMPLE_MODELS = ROOT / "examples"
CHAIN = "".join(f"a{i + 1} = Relu(a{i})\n" for i in range(20))


def _many(op_type, count, attributes=""):
    """A network that joins `count` scaled copies of its input, per channel."""
    copies = "\n".join(f"v{i} = Mul(x, k{i})" for i in range(count))
    names = ", ".join(f"v{i}" for i in range(count))
    return f"{copies}\nj = {op_type}{attributes}({names})\np = GlobalAveragePool(j)\ny = Flatten(p)"


def _factors(count):
    return {f"k{i}": np.float32(1 + 0.1 * i) for i in range(count)}


STRIDED = "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]"
CONV = f"a = Conv<{STRIDED}>(x, w, b)\nr = Relu(a)\n"
SQUARE = CONV + (f"d = Conv<{STRIDED}>(r, s, b)\nq = Relu(d)\np = GlobalAveragePool(q)\ny = Flatten(p)")
WEIGHTS = draw(w=(4, 3, 3, 3), b=(4,), s=(4, 4, 3, 3))

#: Body, weights, and the attributes of `rewrite`: what each has that a runtime stumbles over.
NETWORKS = {
    "square strided convolutions": (SQUARE, WEIGHTS),
    "one weight tensor for two convolutions": (
        SQUARE.replace(
            "q = Relu(d)", "m = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(d, s, b)\nq = Relu(m)"
        ),
        WEIGHTS,
    ),
    "quantised weights of a strided convolution": (
        "q = DequantizeLinear<axis=0>(i, z)\na = Conv<kernel_shape=[3,3], strides=[2,2]>(x, q)\nr = Relu(a)\n"
        "p = GlobalAveragePool(r)\ny = Flatten(p)",
        {
            "i": np.random.default_rng(0).integers(-90, 90, (3, 3, 3, 3)).astype(np.int8),
            "z": np.array([0.01, 0.02, 0.03], np.float32),
        },
    ),
    "a transposed convolution": (
        "a = ConvTranspose<kernel_shape=[3,3], strides=[2,2]>(x, t)\nr = Relu(a)\nc = Conv<kernel_shape=[3,3]>(r, t)\n"
        "p = GlobalMaxPool(c)\ny = Flatten(p)",
        draw(t=(3, 3, 3, 3)),
    ),
    "a sum of nine": (_many("Sum", 9), _factors(9)),
    "a sum of one": ("r = Relu(x)\ns = Sum(r)\np = GlobalAveragePool(s)\ny = Flatten(p)", {}),
    "a concatenation of thirty": (_many("Concat", 30, "<axis=1>"), _factors(30)),
    "a maximum of eight": (_many("Max", 8), _factors(8)),
    "a split into twelve": (
        "a, b, c, d, e, f, g, h, i, j, k, l = Split<axis=3, num_outputs=12>(x)\n"
        "s = Concat<axis=1>(a, l, b, k, c, j, d, i, e, h, f, g)\nr = Relu(s)\np = GlobalAveragePool(r)\ny = Flatten(p)",
        {},
    ),
    "square dense layers": (
        "p = GlobalAveragePool(x)\nf = Flatten(p)\na = MatMul(f, u)\nr = Tanh(a)\nc = MatMul(r, t)\nq = Tanh(c)\n"
        "y = Gemm(q, v, b)",
        draw(u=(3, 4), t=(4, 4), v=(4, 4), b=(4,)),
    ),
    "strided depthwise convolutions": (
        "a = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], group=3>(x, k, b)\nr = Clip(a, low, high)\n"
        "c = Conv<kernel_shape=[5,5], strides=[2,2], pads=[2,2,2,2], group=3>(r, f)\ns = Sigmoid(c)\nm = Mul(c, s)\n"
        "p = GlobalAveragePool(m)\ny = Flatten(p)",
        {**draw(k=(3, 1, 3, 3), b=(3,), f=(3, 1, 5, 5)), "low": np.float32(0), "high": np.float32(1)},
    ),
    "many layers": (f"a0 = Mul(x, two)\n{CHAIN}p = GlobalAveragePool(a20)\ny = Flatten(p)", {"two": np.float32(2)}),
    "many biases": (
        "r0 = Relu(x)\n"
        + "".join(f"c{i} = Conv(r{i}, w, b)\nr{i + 1} = Relu(c{i})\n" for i in range(12))
        + "p = GlobalAveragePool(r12)\ny = Flatten(p)",
        draw(w=(3, 3, 1, 1), b=(3,)),
    ),
    "a global max pool": ("r = Relu(x)\np = GlobalMaxPool(r)\ny = Flatten(p)", {}),
    "pools with ceil_mode": (
        "a = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)\n"
        "b = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(a)\np = GlobalAveragePool(b)\ny = Flatten(p)",
        {},
    ),
    "quantised values": (
        "q = QuantizeLinear(x, z)\nd = DequantizeLinear(q, z)\na = Conv<kernel_shape=[3,3]>(d, w, b)\n"
        "p = GlobalAveragePool(a)\ny = Flatten(p)",
        {**WEIGHTS, "z": np.float32(0.05)},
    ),
    "a sequence": (
        "h = Unsqueeze(x, one)\nf = Reshape(h, shape)\na = Conv<kernel_shape=[3], pads=[1,1], strides=[2]>(f, w1, b1)\n"
        "r = Relu(a)\np = GlobalAveragePool(r)\ny = Flatten(p)",
        {"one": np.array([1]), "shape": np.array([0, 3, -1]), **draw(w1=(4, 3, 3), b1=(4,))},
    ),
}


@cache
def network(name):
    body, weights = NETWORKS[name]
    return model(f"(float[N,3,13,12] x) => (float[N,K] y) {{ {body} }}", weights=weights)


X = np.random.default_rng(1).standard_normal((2, 3, 13, 12)).astype(np.float32)

every_network = pytest.mark.parametrize("name", NETWORKS)
every_form = pytest.mark.parametrize("form", ["portable", "openvino"])


@every_network
@every_form
@pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
def test_nothing_stands_in_the_way(name, form, psi):
    assert portable_violations(fgonnx.rewrite(network(name), form=form, psi=psi)) == []


@every_network
@every_form
@pytest.mark.parametrize("options", [{}, {"psi": "signed"}, {"psi": "positive"}, {"method": "net-fullgrad"}])
def test_all_forms_explain_alike(name, form, options):
    fast, other = (run(fgonnx.rewrite(network(name), form=f, **options), {"x": X}) for f in ("fast", form))
    assert list(other) == list(fast)
    for output, array in fast.items():
        atol = 2e-6 * max(1.0, float(np.abs(fast["contributions"]).max()))
        np.testing.assert_allclose(other[output], array, rtol=0, atol=atol, err_msg=output)


@every_network
@every_form
def test_the_file_is_valid(name, form):
    onnx.checker.check_model(fgonnx.rewrite(network(name), form=form), full_check=True)


EXAMPLES = ("shapes", "parts", "parts_vit")


@pytest.mark.parametrize("form", ["fast", "portable"])
@pytest.mark.parametrize("target", ["input", "argmax", 0])
@pytest.mark.parametrize("name", [*NETWORKS, *EXAMPLES])
def test_every_initializer_is_read_or_given_out(name, target, form):
    """ONNX Runtime warns of others whenever it loads the file."""
    source = EXAMPLE_MODELS / f"{name}.onnx" if name in EXAMPLES else network(name)
    graph = fgonnx.rewrite(source, form=form, target=target).graph
    used = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
    assert [t.name for t in graph.initializer if t.name not in used] == []


@every_network
def test_a_plain_gradient_is_portable_too(name):
    fast, portable = (fgonnx.grad(network(name), form=f) for f in ("fast", "portable"))
    assert portable_violations(portable) == []
    cotangent = np.ones((2, *run(network(name), {"x": X})["y"].shape[1:]), np.float32)
    a, b = (run(proto, {"x": X, "y_grad": cotangent})["x_grad"] for proto in (fast, portable))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "what",
    [
        "value_info",
        f"more than {MOST} values",
        "in place of scales",
        "OneHot",
        "names an output",
        "as factor",
        "three axes",
    ],
)
def test_the_fast_form_has_what_the_check_finds(what):
    body, weights = NETWORKS["many biases"]
    pooled = body.replace("p = GlobalAveragePool(r12)", "h = Conv<strides=[2,2]>(r12, w, b)\np = GlobalAveragePool(h)")
    source = model(f"(float[N,3,13,12] x) => (float[N,K] y) {{ {pooled} }}", weights=weights)
    assert any(what in v for v in portable_violations(fgonnx.rewrite(source)))


BROKEN = {
    "shares its weights": SQUARE.replace("d = Conv", "d = ConvTranspose").replace("q = Relu(d)", "q = Conv(d, s)"),
    "has ceil_mode": NETWORKS["pools with ceil_mode"][0],
    "is no Add": NETWORKS["a sum of nine"][0],
    "Concat 'j' has more than 7": NETWORKS["a concatenation of thirty"][0].replace("j =", "[j] j ="),
    "quantisers of opset 18": NETWORKS["quantised values"][0],
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_check_sees_the_sources_own(what):
    assert any(
        what in v for v in portable_violations(model(f"(float[N,3,13,12] x) => (float[N,K] y) {{ {BROKEN[what]} }}"))
    )


def test_a_network_deeper_than_pythons_stack():
    """Square weights behind 600 layers: whether a factor is a constant is asked of everything in front of it."""
    layers = "".join(f"v{i + 1} = Tanh(v{i}) " for i in range(600))
    text = f"""<ir_version: 8, opset_import: ["": 18]>
        g (float[N,4] x) => (float[N,4] y) {{ v0 = MatMul(x, w) {layers} y = MatMul(v600, w) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    outputs = ("score", "contributions")
    feeds = {"x": np.full((1, 4), 0.5, np.float32)}
    fast, portable = (
        run(fgonnx.rewrite(proto, form=form, target=1, outputs=outputs), feeds) for form in ("fast", "portable")
    )
    np.testing.assert_allclose(portable["contributions"], fast["contributions"], rtol=0, atol=1e-6)


def test_operator_sets_that_nothing_uses_are_left_out():
    source = small_cnn()
    source.opset_import.append(onnx.helper.make_opsetid("ai.onnx.training", 1))
    assert [o.domain for o in fgonnx.rewrite(source, form="portable").opset_import] == [""]


def test_outputs_are_named_where_they_are_computed():
    proto = fgonnx.rewrite(small_cnn(), form="portable")
    by_output = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert "Identity" not in {by_output[v.name] for v in proto.graph.output}


# Kernel, strides, pads, more; with whole numbers as input, so that windows have several maxima.
POOLS = [
    ((3, 3), (2, 2), (1, 1, 1, 1), {}),
    ((3, 3), (2, 2), (0, 0, 0, 0), {}),
    ((3, 3), (2, 2), (0, 0, 0, 0), {"ceil_mode": 1}),
    ((2, 2), (2, 2), (0, 0, 0, 0), {}),
    ((2, 2), (3, 3), (0, 0, 0, 0), {}),
    ((5, 5), (1, 1), (2, 2, 2, 2), {}),
    ((4, 2), (2, 1), (1, 0, 2, 1), {}),
    ((3, 1), (2, 2), (1, 0, 1, 0), {}),
    ((1, 1), (2, 2), (0, 0, 0, 0), {}),
    ((3, 3), (1, 2), (0, 0, 0, 0), {"dilations": [2, 2]}),
    ((2, 3), (3, 2), (0, 2, 0, 2), {"dilations": [3, 1]}),
    ((2, 3), (2, 1), (0, 0, 0, 0), {"storage_order": 1}),
    ((3, 3), (2, 2), (), {"auto_pad": "SAME_LOWER"}),
    ((3,), (2,), (1, 1), {}),
    ((4,), (3,), (0, 0), {"ceil_mode": 1}),
    ((2, 3, 2), (2, 2, 1), (0, 1, 0, 0, 1, 1), {}),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1, 1, 1, 1), {"ceil_mode": 1}),
]


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE], ids=["float", "double"])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_max_pool_without_indices_gives_equal_maxima_the_same_cotangent(pool, kind, channels):
    kernel, strides, pads, more = pool
    node = onnx.helper.make_node(
        "MaxPool", ["x"], ["y"], kernel_shape=kernel, strides=strides, pads=pads or None, **more
    )
    shape = ["N", channels, *(11, 9, 7)[: len(kernel)]]
    graph = onnx.helper.make_graph(
        [node],
        "pool",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info("y", kind, ["N", channels, *"abc"[: len(kernel)]])],
    )
    source = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 2, (2, *shape[1:])).astype(dtype)
    g = rng.standard_normal(run(source, {"x": x})["y"].shape).astype(dtype)
    fast, portable = (fgonnx.grad(source, form=f) for f in ("fast", "portable"))
    assert portable_violations(portable) == []
    a, b = (run(proto, {"x": x, "y_grad": g})["x_grad"] for proto in (fast, portable))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)


CEILED = [
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [2, 3], "strides": [3, 2], "count_include_pad": 1}),
    ("AveragePool", {"kernel_shape": [4, 4], "strides": [3, 3], "pads": [2, 0, 0, 3], "count_include_pad": 1}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [3, 2]}),
    ("LpPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
]


@pytest.mark.parametrize(("op_type", "attributes"), CEILED, ids=str)
def test_ceil_mode_is_padding(op_type, attributes):
    given = ", ".join(f"{k}={v}" for k, v in attributes.items())
    body = f"x2 = Abs(x)\na = {op_type}<{given}, ceil_mode=1>(x2)\np = GlobalAveragePool(a)\ny = Flatten(p)"
    source = model(f"(float[N,3,12,10] x) => (float[N,3] y) {{ {body} }}")
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 10)).astype(np.float32)
    proto = fgonnx.rewrite(source, form="portable", expose=("a",))
    assert portable_violations(proto) == []
    np.testing.assert_allclose(run(proto, {"x": x})["y"], run(source, {"x": x})["y"], rtol=1e-6)


SCALED = [(1, 7), (3, 7), (7, 224), (13, 229), (55, 224), (112, 224), (97, 1000), (224, 7), (999, 7), (41, 83)]


@pytest.mark.parametrize(("before", "after"), SCALED)
def test_a_scale_gives_exactly_the_size(before, after):

    scale = np.float32(scale_to(before, after))
    assert int(np.float32(before) * scale) == int(before * float(scale)) == after


#: What models want where sizes are free.
FREE = {
    "silero_vad_16k_op15": {"input": "input", "input_shape": (1, 576)},
    "silero_vad_v5": {"bind": {"sr": 16000, "state": 0}, "input_shape": (1, 576)},
}
#: With equal maxima in windows that are padded, and one of another kind.
FAST = ("shufflenet_v2_int8_qlinear", "kws_dscnn_mlperf")
SLOW = sorted({p.stem for p in (SHARED / "models").glob("*.onnx")} - set(FAST))


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_trained_models(name):
    proto = fgonnx.rewrite(SHARED / "models" / f"{name}.onnx", form="portable", **FREE.get(name, {}))
    assert portable_violations(proto) == []


@pytest.mark.usefixtures("shared")
def test_equal_maxima_of_a_quantised_network_get_the_same_cotangent_in_both_forms():
    path = SHARED / "models" / "shufflenet_v2_int8_qlinear.onnx"
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    name = onnx.load(path).graph.input[0].name
    a, b = (run(fgonnx.rewrite(path, form=f), {name: x})["saliency"] for f in ("fast", "portable"))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-6 * a.max())


class TestGradientOfAPicture:
    """Strided convolutions of few channels: one convolution to all phases, in place of a transposed one."""

    @staticmethod
    def gradients(kernel, strides, pads, size, channels=3, dilations=(1, 1)):
        """Return the portable file, and the gradient by both forms."""
        attributes = f"strides={[*strides]}, pads={[*pads]}, dilations={[*dilations]}"
        net = model(
            f"(float[N,{channels},{size[0]},{size[1]}] x) => (float[N,K] y) "
            f"{{ a = Conv<{attributes}>(x, w) r = Tanh(a) f = Flatten(r) y = ReduceSum(f, one) }}",
            weights={**draw(w=(5, channels, *kernel)), "one": np.array([1])},
        )
        x = np.random.default_rng(0).standard_normal((2, channels, *size)).astype(np.float32)
        files = [fgonnx.rewrite(net, form=form, outputs=("input_gradient",)) for form in ("portable", "fast")]
        return files[0], [run(file, {"x": x})["input_gradient"] for file in files]

    @pytest.mark.parametrize(
        ("kernel", "stride", "pads", "size", "channels"),
        [
            ((3, 3), 2, (1, 1, 1, 1), (12, 13), 3),
            ((3, 3), 2, (0, 0, 0, 0), (13, 13), 1),
            ((7, 7), 2, (3, 3, 3, 3), (16, 14), 3),
            ((4, 4), 4, (0, 0, 0, 0), (16, 16), 3),
            ((11, 11), 4, (2, 2, 2, 2), (23, 20), 3),
            ((2, 3), 3, (0, 1, 1, 0), (14, 11), 4),
            ((1, 1), 2, (0, 0, 0, 0), (9, 8), 2),
            ((3, 2), 4, (1, 0, 2, 3), (17, 9), 2),
        ],
    )
    def test_is_that_of_the_fast_form(self, kernel, stride, pads, size, channels):
        file, (ours, theirs) = self.gradients(kernel, (stride, stride), pads, size, channels)
        operators = [n.op_type for n in file.graph.node]
        assert "ConvTranspose" not in operators
        assert "DepthToSpace" in operators
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())

    @pytest.mark.parametrize(
        ("strides", "channels", "dilations"), [((2, 3), 3, (1, 1)), ((2, 2), 5, (1, 1)), ((2, 2), 3, (2, 2))]
    )
    def test_is_a_transposed_convolution_elsewhere(self, strides, channels, dilations):
        file, (ours, theirs) = self.gradients((3, 3), strides, (1, 1, 1, 1), (13, 13), channels, dilations)
        assert "DepthToSpace" not in [n.op_type for n in file.graph.node]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())
