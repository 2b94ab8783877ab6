"""The libra backward pass: what it holds, against torch; the certificate by input and biases alone."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fgonnx
from fgonnx import Explainer, Options, rewrite
from fgonnx.engine.normal.expand import recurrent
from fgonnx.errors import OptionError
from tests import skips
from tests.cli_support import CIRCLE, SHAPES, good, refused
from tests.support import VIT, draw, model, pictures, run, small_cnn

torch = skips.without("torch")

from tests.witness import libra, tokennets, torchnets  # noqa: E402

TRANSFORMERS = ["vit", "deit", "vit_pooled", "swin", "convnext", "mobilevit"]
EXPORTS = {"operators of the standard": 18, "normalisation written out": 16}


def literal(net, x, target):
    """Return the input-gradient and the contributions of the parameters that are added, by torch."""
    x = torch.from_numpy(x).requires_grad_()
    added = {n: p for n, p in net.named_parameters() if n.rsplit(".")[-1] in ("bias", "extra", "positions")}
    for p in added.values():
        p.requires_grad_()
    with libra.libra(net):
        score = net(x)[:, target].sum()
    g, *gradients = torch.autograd.grad(score, [x, *added.values()])
    return g.numpy(), [float((p * gp).sum().detach()) for p, gp in zip(added.values(), gradients, strict=True)]


@pytest.mark.parametrize("opset", EXPORTS.values(), ids=EXPORTS)
@pytest.mark.parametrize("name", TRANSFORMERS)
class TestTransformers:
    @pytest.fixture
    def found(self, name, opset):
        build, shape = tokennets.NETS[name]
        net, x = build(0), pictures(2, shape[1:])
        exported = torchnets.export(build(0), (2, *shape[1:]), folded=True, opset=opset)
        explanation = Explainer(exported, backward="libra", input_gradient=True, threads=1)(x, 1)
        return explanation, literal(net, x, 1), x

    def test_the_gradient_is_that_of_torch(self, found):
        explanation, (expected, _), _ = found
        np.testing.assert_allclose(explanation.input_gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    def test_input_and_biases_are_all(self, found, name):
        explanation, (expected, added), x = found
        assert explanation.rounding_residual().max() < 1e-6
        assert {s.kind for s in explanation.sites} == {"input", "bias"}
        np.testing.assert_allclose(explanation.contributions[:, 0], (expected * x).sum((1, 2, 3)), rtol=1e-3, atol=1e-4)
        if name != "mobilevit":  # whose BatchNormalization also subtracts means
            total = explanation.contributions[:, 1:].sum()
            np.testing.assert_allclose(total, sum(added), rtol=0, atol=1e-4 * np.abs(added).sum())


NORMALISED = """
    m = ReduceMean<axes=[-1]>(x)
    d = Sub(x, m)
    q = Mul(d, d)
    v = ReduceMean<axes=[-1]>(q)
    e = Add(v, eps)
    s = Sqrt(e)
"""
HALF = "one half of each"
#: What is written between x (N, 6) and z (N, 6), and the same in torch with what is held detached.
NODES = {
    "Gelu": ("z = Gelu(x)", lambda x: libra.gated(x, torch.nn.functional.gelu(x))),
    "Gelu, approximate": (
        'z = Gelu<approximate="tanh">(x)',
        lambda x: libra.gated(x, torch.nn.functional.gelu(x, approximate="tanh")),
    ),
    "HardSwish": ("z = HardSwish(x)", lambda x: libra.gated(x, torch.nn.functional.hardswish(x))),
    "Mish": ("z = Mish(x)", lambda x: libra.gated(x, torch.nn.functional.mish(x))),
    "SiLU as a product": ("g = Sigmoid(x)\n z = Mul(x, g)", lambda x: libra.gated(x, torch.nn.functional.silu(x))),
    "SiLU, gate first": ("g = Sigmoid(x)\n z = Mul(g, x)", lambda x: libra.gated(x, torch.nn.functional.silu(x))),
    "Gelu as a product": (
        "a = Div(x, root)\n b = Erf(a)\n c = Add(b, one)\n h = Mul(x, half)\n z = Mul(h, c)",
        lambda x: libra.gated(x, torch.nn.functional.gelu(x)),
    ),
    "HardSwish as a product": (
        "a = Add(x, three)\n c = Clip(a, zero, six)\n d = Div(c, six)\n z = Mul(x, d)",
        lambda x: libra.gated(x, torch.nn.functional.hardswish(x)),
    ),
    "a gate of another value": (
        "a = MatMul(x, w)\n g = Sigmoid(a)\n z = Mul(g, x)",
        lambda x, w: x * torch.sigmoid(x @ w).detach(),
    ),
    "a gate of a bounded value": (
        "a = MatMul(x, w)\n g = Sigmoid(a)\n t = Tanh(x)\n z = Mul(g, t)",
        lambda x, w: torch.tanh(x) * torch.sigmoid(x @ w).detach(),
    ),
    "a product of two": (
        "a = MatMul(x, w)\n z = Mul(x, a)",
        lambda x, w: (x * (x @ w).detach() + x.detach() * (x @ w)) / 2,
    ),
    "SwiGLU": (
        "a = MatMul(x, w)\n g = Sigmoid(x)\n s = Mul(x, g)\n z = Mul(s, a)",
        lambda x, w: (
            (
                libra.gated(x, torch.nn.functional.silu(x)) * (x @ w).detach()
                + torch.nn.functional.silu(x).detach() * (x @ w)
            )
            / 2
        ),
    ),
    "a square": ("z = Mul(x, x)", lambda x: x * x.detach()),
    "a quotient": ("a = Exp(x)\n z = Div(x, a)", lambda x: x / torch.exp(x).detach()),
    "LayerNormalization": (
        "z = LayerNormalization<axis=-1>(x, gamma, beta)",
        lambda x, w, gamma, beta: libra.standardised(x, (-1,), 1e-5) * gamma + beta,
    ),
    "LayerNormalization without a bias": (
        "z = LayerNormalization<axis=-1, epsilon=0.01>(x, gamma)",
        lambda x, w, gamma: libra.standardised(x, (-1,), 0.01) * gamma,
    ),
    "written out, divided": (NORMALISED + "z = Div(d, s)", lambda x: libra.standardised(x, (-1,), 1e-5)),
    "written out, multiplied": (
        NORMALISED + "r = Reciprocal(s)\n z = Mul(d, r)",
        lambda x: libra.standardised(x, (-1,), 1e-5),
    ),
    "written out, a power": (
        NORMALISED + "r = Pow(e, minus)\n z = Mul(d, r)",
        lambda x: libra.standardised(x, (-1,), 1e-5),
    ),
    "root mean square": (
        "q = Mul(x, x)\n v = ReduceMean<axes=[-1]>(q)\n e = Add(v, eps)\n s = Sqrt(e)\n z = Div(x, s)",
        lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5).detach(),
    ),
    "LayerNormalization with its statistics": (
        "z, mean, deviation = LayerNormalization<axis=-1>(x, gamma, beta)",
        lambda x, w, gamma, beta: libra.standardised(x, (-1,), 1e-5) * gamma + beta,
    ),
    "InstanceNormalization": (
        """i = Constant<value_ints=[1]>()
        t = Unsqueeze(x, i)
        n = InstanceNormalization(t, c1, c2)
        z = Squeeze(n, i)""",
        lambda x: libra.standardised(x, (-1,), 1e-5) * 0.5 + 3,
    ),
    "GroupNormalization": (
        "t = Unsqueeze(x, two)\n n = GroupNormalization<num_groups=2>(t, gamma, beta)\n z = Squeeze(n, two)",
        lambda x, w, gamma, beta: libra.standardised(x.reshape(-1, 2, 3), (-1,), 1e-5).reshape(-1, 6) * gamma + beta,
    ),
    "LpNormalization": (
        "z = LpNormalization<axis=-1, p=2>(x)",
        lambda x: x / x.norm(dim=-1, keepdim=True).detach(),
    ),
    "LpNormalization, p = 1": (
        "z = LpNormalization<axis=-1, p=1>(x)",
        lambda x: x / x.abs().sum(-1, keepdim=True).detach(),
    ),
    "RMSNormalization": (
        "z = RMSNormalization<axis=-1>(x, gamma)",
        lambda x, w, gamma: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5).detach() * gamma,
    ),
    "Swish": ("z = Swish(x)", lambda x: libra.gated(x, torch.nn.functional.silu(x))),
    "a length written out": (
        "q = ReduceL2<keepdims=1>(x, axis)\n z = Div(x, q)",
        lambda x: x / x.norm(dim=-1, keepdim=True).detach(),
    ),
    "attention": (
        """t = Unsqueeze(x, two)
        tt = Transpose<perm=[0,2,1]>(t)
        k = MatMul(t, tt)
        p = Softmax<axis=-1>(k)
        o = MatMul(p, t)
        z = Squeeze(o, two)""",
        lambda x: (torch.softmax(x[:, :, None] * x[:, None, :], -1).detach() @ x[:, :, None])[..., 0],
    ),
    "attention by letters": (
        """k = Einsum<equation="ni,nj->nij">(x, x)
        p = Softmax<axis=-1>(k)
        z = Einsum<equation="nij,nj->ni">(p, x)""",
        lambda x: (torch.softmax(x[:, :, None] * x[:, None, :], -1).detach() @ x[:, :, None])[..., 0],
    ),
    "scores without a softmax": (
        """t = Unsqueeze(x, two)
        tt = Transpose<perm=[0,2,1]>(t)
        k = MatMul(t, tt)
        z = ReduceSum<keepdims=0>(k, two)""",
        lambda x: (x * x.detach().sum(-1, keepdim=True) + x.detach() * x.sum(-1, keepdim=True)) / 2,
    ),
}
CONSTANTS = {
    "root": 2**0.5,
    "one": 1.0,
    "half": 0.5,
    "three": 3.0,
    "zero": 0.0,
    "six": 6.0,
    "eps": 1e-5,
    "minus": -0.5,
}
WEIGHTS = {
    **draw(w=(6, 6), out=(6, 3), gamma=(6,), beta=(6,)),
    **{name: np.array(value, np.float32) for name, value in CONSTANTS.items()},
    "c1": np.array([0.5], np.float32),
    "c2": np.array([3], np.float32),
    "two": np.array([2]),
    "axis": np.array([-1]),
}


@pytest.mark.parametrize("name", NODES)
class TestNodes:
    X = pictures(3, (6,), seed=3) * 2

    def explained(self, name):
        body = NODES[name][0]
        source = model(
            f"(float[N,6] x) => (float[N,3] y) {{ {body}\n y = MatMul(z, out) }}",
            opset=17 if "axes=" in body else 24 if name in ("RMSNormalization", "Swish") else 21,
            weights=WEIGHTS,
        )
        return Explainer(source, backward="libra", input_gradient=True, threads=1)(self.X, 1)

    def test_the_gradient_is_that_of_torch(self, name):
        function, x = NODES[name][1], torch.from_numpy(self.X).requires_grad_()
        taken = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        z = function(x, *(torch.from_numpy(WEIGHTS[n]) for n in taken))
        (expected,) = torch.autograd.grad((z @ torch.from_numpy(WEIGHTS["out"]))[:, 1].sum(), x)
        found = self.explained(name)
        np.testing.assert_allclose(found.input_gradient, expected.numpy(), rtol=1e-4, atol=1e-5)

    def test_nothing_implicit_remains(self, name):
        found = self.explained(name)
        assert found.rounding_residual().max() < 1e-5  # of scores that are sums of either sign
        left = {s.op_type for s in found.sites if s.kind == "implicit"}
        assert left <= ({"Tanh"} if name == "a gate of a bounded value" else set())


def test_a_gate_at_zero_is_its_limit():
    source = model("(float[N,4] x) => (float[N,4] y) { y = Gelu(x) }", opset=20)
    found = Explainer(source, backward="libra", input_gradient=True)(np.zeros((1, 4), np.float32), 2)
    np.testing.assert_array_equal(found.input_gradient, [[0, 0, 0.5, 0]])


def test_other_nodes_keep_their_rules():
    x = pictures(3)
    gradient, other = (Explainer(small_cnn(), backward=b, threads=1)(x, 1) for b in ("gradient", "libra"))
    np.testing.assert_array_equal(gradient.saliency, other.saliency)
    np.testing.assert_array_equal(gradient.contributions, other.contributions)


X = pictures(3, (3, 8, 8))


@pytest.mark.parametrize(
    "method",
    [
        "fullgrad",
        "net-fullgrad",
        "fullgrad+",
        "simple-fullgrad",
        "smooth-fullgrad",
        "gradient",
        "gradient-x-input",
        "smoothgrad",
    ],
)
def test_methods_of_the_gradient_take_it(method):
    plain, other = (Explainer(VIT, method=method, backward=b, threads=1)(X, 1) for b in ("gradient", "libra"))
    assert np.abs(plain.saliency - other.saliency).max() > 1e-3 * np.abs(plain.saliency).max()
    assert other.settings["backward"] == "libra"
    assert "backward" not in plain.settings
    np.testing.assert_allclose(plain.score, other.score, rtol=1e-5, atol=1e-6)


def test_grad_cam_takes_it():
    # the gradient of the layer is another one; here it is taken at the tokens before the attention
    plain, other = (Explainer(VIT, method="grad-cam", layer="t", backward=b)(X, 1) for b in ("gradient", "libra"))
    assert np.abs(plain.saliency - other.saliency).max() > 1e-3 * plain.saliency.max()


def test_a_contrast_takes_it():
    found = Explainer(VIT, backward="libra")(X, 1, contrast=2)
    this, that = (Explainer(VIT, backward="libra")(X, t).contributions for t in (1, 2))
    np.testing.assert_allclose(found.contributions, this - that, rtol=0, atol=1e-5)


def test_half_precision_holds_the_same():
    source = onnx.ModelProto()
    source.CopyFrom(VIT)
    for tensor in source.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for v in [*source.graph.input, *source.graph.output]:
        v.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    given = {"backward": "libra", "threads": 1}
    found, expected = Explainer(source, **given)(X.astype(np.float16), 1), Explainer(VIT, **given)(X, 1)
    np.testing.assert_allclose(found.saliency, expected.saliency, rtol=0, atol=5e-3 * expected.saliency.max())
    assert {s.kind for s in found.sites} == {"input", "bias", "quantisation"}


def test_a_gate_in_eight_bits_is_held():
    body = """(float[N,6] x) => (float[N,3] y) {
        a = MatMul(x, w)
        g = Sigmoid(a)
        QUANTISED
        z = Mul(x, h)
        y = MatMul(z, out)
    }"""
    weights = {**WEIGHTS, "scale": np.array(1 / 255, np.float32), "point": np.array(0, np.uint8)}
    eight = "q = QuantizeLinear(g, scale, point)\n h = DequantizeLinear(q, scale, point)"
    plain, quantised = (
        Explainer(model(body.replace("QUANTISED", text), weights=weights), backward="libra", input_gradient=True)(
            TestNodes.X, 1
        )
        for text in ("h = Identity(g)", eight)
    )
    np.testing.assert_allclose(quantised.input_gradient, plain.input_gradient, rtol=0, atol=0.01)
    assert quantised.rounding_residual().max() < 1e-6
    assert {s.kind for s in quantised.sites} <= {"input", "quantisation"}


@pytest.mark.parametrize("form", ["fast", "portable"])
def test_a_file_takes_it(form):
    proto = rewrite(VIT, backward="libra", target=1, form=form)
    assert {p.key: p.value for p in proto.metadata_props}["fgonnx.backward"] == "libra"
    found = run(proto, {"x": X})
    np.testing.assert_allclose(found["completeness"], 0, atol=1e-6)
    expected = Explainer(VIT, backward="libra", threads=1)(X, 1).saliency
    np.testing.assert_allclose(found["saliency"], expected, rtol=0, atol=1e-4)


def test_the_command_line_takes_it(tmp_path):
    good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--backward", "libra", "--threads", 1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Options(backward="lrp"), "backward='lrp' does not exist; choose one of: gradient, libra, attnlrp"),
        (lambda: Options(backward="libra", method="lrp-epsilon"), "has no effect: lrp-epsilon has rules of its own"),
        (lambda: Options(backward="libra", method="guided-backprop"), "guided-backprop has rules of its own"),
        (lambda: Options(backward="libra", method="rise"), "rise needs no gradient"),
        (
            lambda: Options(backward="libra", method="integrated-gradients"),
            "integrated-gradients is defined by the gradient",
        ),
        (lambda: Options(backward="libra", engine="ort-training"), "only fgonnx's own engine has it"),
        (
            lambda: fgonnx.check(VIT, backward="libra"),
            "backward='libra' has no effect: a check is about the gradient",
        ),
        (lambda: fgonnx.grad(VIT, backward="libra"), "backward='libra' has no effect: a plain gradient"),
    ],
)
def test_where_it_means_nothing_it_is_refused(call, said):
    with pytest.raises(OptionError, match=said):
        call()


def test_commands_without_it_refuse_it(tmp_path):
    assert "--backward" in refused("check", SHAPES, "--backward", "libra")


LAYERS = {
    "LSTM": ("h, last, c = LSTM<hidden_size=6>(t, w, r, b)", 4),
    "GRU": ("h, last = GRU<hidden_size=6>(t, w, r, b)", 3),
    "RNN": ('h, last = RNN<hidden_size=6, activations=["Relu"]>(t, w, r, b)', 1),
}


@pytest.mark.parametrize("options", [{"backward": "libra"}, {"method": "guided-backprop"}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_many_steps_go_back_as_few_do(name, options, monkeypatch):
    layer, gates = LAYERS[name]
    source = model(
        f"""(float[N,7,5] x) => (float[N,3] y) {{
            t = Transpose<perm=[1,0,2]>(x)
            {layer}
            i = Constant<value_ints=[0]>()
            s = Squeeze(last, i)
            rectified = Relu(s)
            y = MatMul(rectified, out)
        }}""",
        weights=draw(w=(1, 6 * gates, 5), r=(1, 6 * gates, 6), b=(1, 12 * gates), out=(6, 3)),
    )
    x = pictures(2, (7, 5))
    found = []
    for most in (1000, 3):
        monkeypatch.setattr(recurrent, "MOST_STEPS", most)
        found.append(Explainer(source, layout="NWC", threads=1, cache=False, input_gradient=True, **options)(x, 1))
    few, many = found
    np.testing.assert_allclose(many.input_gradient, few.input_gradient, rtol=0, atol=1e-6)
    if few.completeness is not None:
        assert max(few.rounding_residual().max(), many.rounding_residual().max()) < 1e-5
