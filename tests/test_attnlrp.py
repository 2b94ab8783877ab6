"""AttnLRP: relevance against a literal implementation of its rules in torch; what has no rule is refused by name."""

import numpy as np
import pytest

from fgonnx import Explainer, rewrite
from fgonnx.errors import UnsupportedError
from tests import skips
from tests.support import VIT, draw, model, pictures, run, small_cnn

torch = skips.without("torch")

from tests.witness import attnlrp, tokennets, torchnets  # noqa: E402

TRANSFORMERS = ["vit", "deit", "vit_pooled", "swin", "convnext", "mobilevit"]
EXPORTS = {"operators of the standard": 18, "normalisation written out": 16}


@pytest.mark.parametrize("opset", EXPORTS.values(), ids=EXPORTS)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_relevance_of_transformers_is_that_of_the_paper(name, opset):
    build, shape = tokennets.NETS[name]
    x = pictures(2, shape[1:])
    exported = torchnets.export(build(0), (2, *shape[1:]), folded=True, opset=opset)
    found = Explainer(exported, backward="attnlrp", input_gradient=True, threads=1)(x, 1)
    expected = attnlrp.attribution(build(0), torch.from_numpy(x), 1).numpy()
    np.testing.assert_allclose(found.input_gradient * x, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert found.rounding_residual().max() < 1e-6
    assert {s.op_type for s in found.sites if s.kind == "implicit"} <= {"Softmax"}


F = torch.nn.functional
#: What is written between x (N, 6) and z (N, 6), and the same in torch.
NODES = {
    "Gelu": ("z = Gelu(x)", F.gelu),
    "Gelu, written out": (
        "a = Div(x, root)\n b = Erf(a)\n c = Add(b, one)\n h = Mul(x, half)\n z = Mul(h, c)",
        F.gelu,
    ),
    "Gelu, approximate, written out": (
        """q = Mul(x, x)
        t = Mul(q, x)
        c = Mul(t, cubic)
        s = Add(x, c)
        a = Mul(s, slope)
        b = Tanh(a)
        e = Add(b, one)
        h = Mul(x, half)
        z = Mul(h, e)""",
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "SiLU, written out": ("g = Sigmoid(x)\n z = Mul(x, g)", F.silu),
    "HardSwish, written out": (
        "a = Add(x, three)\n c = Clip(a, zero, six)\n d = Div(c, six)\n z = Mul(x, d)",
        F.hardswish,
    ),
    "Tanh": ("z = Tanh(x)", torch.tanh),
    "Elu": ("z = Elu(x)", F.elu),
    "ReLU6": ("z = Clip(x, zero, six)", F.relu6),
    "a power": ("z = Pow(x, three)", lambda x: x.pow(3)),
    "a product": ("a = MatMul(x, w)\n z = Mul(x, a)", lambda x, w: x * (x @ w)),
    "a gate that passes zero": (
        "a = MatMul(x, w)\n g = Tanh(a)\n z = Mul(x, g)",
        lambda x, w: x * torch.tanh(x @ w),
    ),
    "halves of one value, one the gate": (
        "a, b = Split<axis=-1, num_outputs=2>(x)\n g = Tanh(b)\n p = Mul(a, g)\n z = Concat<axis=-1>(p, p)",
        lambda x: torch.cat([x[:, :3] * torch.tanh(x[:, 3:])] * 2, -1),
    ),
    "a product of three": (
        "a = MatMul(x, w)\n z = Einsum<equation='ni,ni,ni->ni'>(x, a, a)".replace("'", '"'),
        None,
    ),
    "softmax": ("z = Softmax<axis=-1>(x)", lambda x: x.softmax(-1)),
    "LayerNormalization": (
        "z = LayerNormalization<axis=-1>(x, gamma, beta)",
        lambda x, w, gamma, beta: F.layer_norm(x, (6,), gamma, beta, 1e-5),
    ),
    "attention": (
        """t = Unsqueeze(x, two)
        tt = Transpose<perm=[0,2,1]>(t)
        k = MatMul(t, tt)
        p = Softmax<axis=-1>(k)
        o = MatMul(p, t)
        z = Squeeze(o, two)""",
        lambda x: ((x.unsqueeze(2) @ x.unsqueeze(1)).softmax(-1) @ x.unsqueeze(2)).squeeze(2),
    ),
}
CONSTANTS = {"root": 2**0.5, "one": 1.0, "half": 0.5, "three": 3.0, "zero": 0.0, "six": 6.0}
WEIGHTS = {
    **draw(w=(6, 6), out=(6, 3), gamma=(6,), beta=(6,)),
    **{k: np.array(v, np.float32) for k, v in {**CONSTANTS, "cubic": 0.044715, "slope": (2 / np.pi) ** 0.5}.items()},
    "two": np.array([2]),
}
X = pictures(3, (6,), seed=3) * 2


def explained(body, **options):
    source = model(f"(float[N,6] x) => (float[N,3] y) {{ {body}\n y = MatMul(z, out) }}", opset=20, weights=WEIGHTS)
    return Explainer(source, backward="attnlrp", input_gradient=True, threads=1, **options)(X, 1)


class _Net(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        taken = (
            self.function.__code__.co_varnames[1 : self.function.__code__.co_argcount] if _own(self.function) else ()
        )
        return (
            self.function(x, *(torch.from_numpy(WEIGHTS[n]).double() for n in taken))
            @ torch.from_numpy(WEIGHTS["out"]).double()
        )


def _own(function):
    return function.__module__ == __name__


@pytest.mark.parametrize("name", [n for n, (_, f) in NODES.items() if f is not None])
def test_the_relevance_of_operators_is_that_of_the_paper(name):
    body, function = NODES[name]
    found = explained(body)
    expected = attnlrp.attribution(_Net(function), torch.from_numpy(X), 1).numpy()
    np.testing.assert_allclose(found.input_gradient * X, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert found.rounding_residual().max() < 1e-6


def test_three_factors_get_a_third_each():
    found = explained(NODES["a product of three"][0])
    a = X @ WEIGHTS["w"]
    r = X * a * a * WEIGHTS["out"][:, 1] / 3
    expected = r + X * ((2 * r / a) @ WEIGHTS["w"].T)
    np.testing.assert_allclose(found.input_gradient * X, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("g = Sigmoid(x)\n z = Mul(g, one)", "Sigmoid"),
        ("z = Exp(x)", "Exp"),
        ("z = Softplus(x)", "Softplus"),
        ("z = Cos(x)", "Cos"),
        ("a = Abs(x)\n b = Add(a, one)\n z = Log(b)", "Log"),
        ("z = Clip(x, one, six)", "Clip"),
        ("z = LogSoftmax<axis=-1>(x)", "LogSoftmax"),
        ("a = MatMul(x, w)\n g = Sigmoid(a)\n z = Mul(x, g)", "Sigmoid"),
        (
            "a, b = Split<axis=-1, num_outputs=2>(x)\n g = Sigmoid(b)\n p = Mul(a, g)\n z = Concat<axis=-1>(p, p)",
            "Sigmoid",
        ),
    ],
)
def test_what_has_no_rule_is_refused_by_name(body, named):
    with pytest.raises(UnsupportedError, match=f"{named}.*AttnLRP has no rule"):
        explained(body)


def test_where_all_is_linear_or_selects_it_is_the_gradient():
    x = pictures(3)
    gradient, other = (Explainer(small_cnn(), backward=b, threads=1)(x, 1) for b in ("gradient", "attnlrp"))
    np.testing.assert_array_equal(gradient.saliency, other.saliency)
    np.testing.assert_array_equal(gradient.contributions, other.contributions)


@pytest.mark.parametrize(
    "method", ["fullgrad", "net-fullgrad", "fullgrad+", "smooth-fullgrad", "gradient-x-input", "grad-cam"]
)
def test_methods_of_the_gradient_take_it(method):
    layer = {"layer": "t"} if method == "grad-cam" else {}
    x = pictures(2, (3, 8, 8))
    found = [
        Explainer(VIT, method=method, backward=b, threads=1, **layer)(x, 1) for b in ("gradient", "libra", "attnlrp")
    ]
    for other in found[:2]:
        assert np.abs(found[2].saliency - other.saliency).max() > 1e-3 * np.abs(other.saliency).max()
    assert found[2].settings["backward"] == "attnlrp"


@pytest.mark.parametrize("form", ["fast", "portable"])
def test_a_file_takes_it(form):
    x = pictures(2, (3, 8, 8))
    found = run(rewrite(VIT, backward="attnlrp", target=1, form=form), {"x": x})
    np.testing.assert_allclose(found["completeness"], 0, atol=1e-6)
    expected = Explainer(VIT, backward="attnlrp", threads=1)(x, 1).saliency
    np.testing.assert_allclose(found["saliency"], expected, rtol=0, atol=1e-4)
