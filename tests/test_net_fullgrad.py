"""net-fullgrad: the map is the stated function of the terms of every site; the certificate is that of fullgrad."""

import json
import math

import numpy as np
import pytest

from fgonnx import Explainer, rewrite
from fgonnx.errors import CertificateWarning, OptionError
from tests.cli_support import CIRCLE, SHAPES, good, refused
from tests.support import draw, model, pictures, run, small_cnn
from tests.test_aggregate import SOURCE
from tests.test_axes import SWIN, VIT
from tests.test_axes import WEIGHTS as TOKENS

X = pictures(3)

WIDE = model(  # channels in whole blocks, and a stride: the channel sum is a convolution
    """(float[N,3,12,10] x) => (float[N,4] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        b = Relu(a)
        c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(b, w2, b2)
        d = HardSwish(c)
        e = Add(d, s)
        f = MaxPool<kernel_shape=[2,2], strides=[2,2]>(e)
        g = Conv<kernel_shape=[1,1]>(f, w3, b3)
        h = GlobalAveragePool(g)
        y = Flatten(h)
    }""",
    weights=draw(w1=(16, 3, 3, 3), b1=(16,), w2=(32, 16, 3, 3), b2=(32,), s=(1, 32, 1, 1), w3=(4, 32, 1, 1), b3=(4,)),
)
SEQUENCE = model(
    """(float[N,2,20] x) => (float[N,3] y) {
        a = Conv<kernel_shape=[5], strides=[2], pads=[2,2]>(x, w1, b1)
        b = Relu(a)
        c = GlobalAveragePool(b)
        d = Flatten(c)
        y = Gemm(d, w2, b2)
    }""",
    weights=draw(w1=(6, 2, 5), b1=(6,), w2=(6, 3), b2=(3,)),
)
VOLUME = model(
    """(float[N,2,4,6,5] x) => (float[N,3] y) {
        a = Conv<kernel_shape=[3,3,3], strides=[2,2,2], pads=[1,1,1,1,1,1]>(x, w1, b1)
        b = Relu(a)
        c = GlobalAveragePool(b)
        d = Flatten(c)
        y = Gemm(d, w2, b2)
    }""",
    weights=draw(w1=(4, 2, 3, 3, 3), b1=(4,), w2=(4, 3), b2=(3,)),
)
MODELS = {
    "affine after convolutions": (SOURCE, (3, 8, 6)),
    "channels in blocks": (WIDE, (3, 12, 10)),
    "sequence": (SEQUENCE, (2, 20)),
    "volume": (VOLUME, (2, 4, 6, 5)),
    "channels last": (small_cnn(layout="NHWC"), (8, 6, 3)),
    "one sample at a time": (small_cnn(batch="1"), (3, 8, 6)),
}
SETTINGS = [
    {},
    {"scale": "mass"},
    {"blur": 0.2},
    {"depth": 1.0},
    {"depth": -2.0},
    {"scale": "mass", "blur": 0.1, "depth": 0.5},
]


def bilinear(v, grid):
    """Interpolate (N, *cells) to (N, *grid) with half-pixel centres."""
    for axis, after in enumerate(grid, start=1):
        before = v.shape[axis]
        at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
        v = np.apply_along_axis(lambda row, at=at: np.interp(at, np.arange(len(row)), row), axis, v)
    return v


def blurred(v, blur):
    """Average (N, *cells) along every axis with Gaussian weights up to four standard deviations away."""
    for axis in range(1, v.ndim):
        size = v.shape[axis]
        apart = np.abs(np.arange(size)[:, None] - np.arange(size))
        weights = np.where(apart <= 4 * blur * size, np.exp(-0.5 * (apart / (blur * size)) ** 2), 0)
        v = np.moveaxis(np.tensordot(weights / weights.sum(1, keepdims=True), v, (1, axis)), 0, axis)
    return v


def literal(terms, grid, psi="abs", scale="max", blur=0.0, depth=0.0):
    """The definition, from the terms of every site, (N, channels, *cells) each."""
    sites = [t.astype(np.float64).sum(1) for t in terms if math.prod(t.shape[2:]) > 1]
    weights = (np.arange(1, len(sites) + 1) / len(sites)) ** depth
    total = 0.0
    for site, weight in zip(sites, weights / weights.max(), strict=True):
        even = blurred(site, blur) if blur else site
        axes = tuple(range(1, site.ndim))
        divisor = np.abs(even).max(axes) if scale == "max" else np.abs(site).mean(axes)
        shown = {"abs": np.abs, "positive": lambda v: np.maximum(v, 0), "signed": lambda v: v}[psi](even)
        total = total + weight * bilinear(shown / divisor.reshape(-1, *([1] * len(axes))), grid)
    return total


def explain(source, x, **options):
    return Explainer(source, method="net-fullgrad", threads=1, **options)(x, 1)


def terms_of(source, x, **options):
    """Return the signed map of every site, (N, channels, *cells), as fullgrad has them."""
    proto = rewrite(source, outputs=("signed_maps",), target=1, **options)
    names = [o.name for o in proto.graph.output if o.name.startswith("signed_map_")]
    given = proto.graph.input[0]
    step = len(x) if not given.type.tensor_type.shape.dim[0].dim_value else 1
    runs = [run(proto, {given.name: x[i : i + step]}, names) for i in range(0, len(x), step)]
    return [np.concatenate([r[name] for r in runs]) for name in names]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_the_map_is_the_stated_function_of_the_terms(name, settings, psi):
    source, shape = MODELS[name]
    x = pictures(3, shape)
    found = explain(source, x, psi=psi, **settings).saliency
    close(found, literal(terms_of(source, x), found.shape[1:], psi, **settings))


@pytest.mark.parametrize("profile", ["full", "reference", "paper"])
def test_a_profile_says_which_sites(profile):
    found = explain(SOURCE, X, profile=profile).saliency
    close(found, literal(terms_of(SOURCE, X, profile=profile), (8, 6)))


@pytest.mark.parametrize("body", [SWIN, VIT], ids=["windows", "tokens"])
def test_tokens_are_read_where_they_lie(body):
    source, x = model(f"(float[N,6,4,8] x) => (float[N,5] y) {{ {body} }}", 20, weights=TOKENS), pictures(3, (6, 4, 8))
    found = explain(source, x).saliency
    close(found, literal(terms_of(source, x), found.shape[1:]))


def test_the_terms_are_those_of_the_certificate():
    e = explain(WIDE, pictures(3, (3, 12, 10)), bias_gradients=True, input_gradient=True)
    terms = [pictures(3, (3, 12, 10)) * e.input_gradient, *(e.bias_gradients[s.name] for s in e.sites[1:] if s.in_map)]
    close(e.saliency, literal(terms, (12, 10)))
    np.testing.assert_allclose(e.contributions[:, 1], e.bias_gradients[e.sites[1].name].sum((1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_certificate_is_that_of_fullgrad(name):
    source, shape = MODELS[name]
    x = pictures(3, shape)
    net, full = explain(source, x), Explainer(source, threads=1)(x, 1)
    assert net.sites == full.sites
    np.testing.assert_allclose(net.contributions, full.contributions, rtol=0, atol=1e-5)
    assert net.rounding_residual().max() < 1e-5


def test_the_portable_form_is_the_same():
    x = pictures(3, (3, 12, 10))
    fast, portable = (run(rewrite(WIDE, method="net-fullgrad", form=f), {"x": x}) for f in ("fast", "portable"))
    for name in ("saliency", "contributions"):
        np.testing.assert_allclose(fast[name], portable[name], rtol=0, atol=1e-5)


def test_channels_that_cancel_show_nothing():
    # the gradient is 1 for one channel and -1 for the other; both hold the same picture
    source = model(
        "(float[N,2,5,6] x) => (float[N] y) { a = Mul(x, k)\n y = ReduceSum<keepdims=0>(a, axes) }",
        weights={"k": np.array([1, -1], np.float32).reshape(1, 2, 1, 1), "axes": np.array([1, 2, 3])},
    )
    x = np.repeat(pictures(2, (1, 5, 6)), 2, axis=1)
    with pytest.warns(CertificateWarning):  # the only contribution is the rounding of zero
        e = Explainer(source, method="net-fullgrad")(x)
    np.testing.assert_array_equal(e.saliency, 0)
    with pytest.warns(CertificateWarning):
        assert Explainer(source)(x).saliency.max() > 0.5


@pytest.mark.parametrize("scale", ["max", "mass"])
@pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
def test_no_evidence_is_zero_not_nan(psi, scale):
    source = model(  # dead: no evidence at any site, and a score of zero
        """(float[N,3,8,6] x) => (float[N,4] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
            r = Relu(a)
            p = GlobalAveragePool(r)
            y = Flatten(p)
        }""",
        weights={**draw(w=(4, 3, 3, 3)), "b": np.full(4, -100, np.float32)},
    )
    np.testing.assert_array_equal(explain(source, X, psi=psi, scale=scale).saliency, 0)


def test_every_site_counts_the_same():
    # the bias decides how much a site contributes, not how much of the map it is
    weights = draw(w1=(4, 3, 3, 3), w2=(4, 5))
    body = """(float[N,3,8,6] x) => (float[N,5] y) {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
        p = GlobalAveragePool(a)
        f = Flatten(p)
        y = Gemm(f, w2)
    }"""
    small, large = (
        explain(model(body, weights={**weights, "b1": np.full(4, b, np.float32)}), X).saliency for b in (0.01, 100)
    )
    np.testing.assert_allclose(small, large, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale": "sum"}, "scale='sum' does not exist; choose one of: max, mass"),
        ({"scale": 1}, "scale=1 is of the type int; give a text"),
        ({"blur": -0.1}, "blur=-0.1 is out of range; give 0 or more"),
        ({"blur": 2}, "blur=2 is out of range"),
        ({"blur": float("nan")}, "blur=nan is out of range"),
        ({"blur": "much"}, "blur='much' is of the type str; give a number"),
        ({"depth": 11}, "depth=11 is out of range; give 10 or less"),
        ({"depth": None}, "depth=None is of the type NoneType; give a number"),
        ({"sigma": 1.0}, "net-fullgrad has no setting 'sigma'; it has: scale, blur, depth, focus, layer"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(OptionError, match=said.replace("(", "\\(")):
        Explainer(small_cnn(), method="net-fullgrad", **settings)


class TestCommands:
    def test_explain_takes_it_and_records_it(self, tmp_path):
        asked = ("--method", "net-fullgrad", "--set", "blur=0.02", "--set", "scale=mass", "--psi", "positive")
        good("explain", SHAPES, CIRCLE, "-o", tmp_path, *asked, "--threads", 1)
        record = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
        settings = record["settings"]
        assert [settings[k] for k in ("method", "psi", "scale", "blur", "depth")] == [
            "net-fullgrad",
            "positive",
            "mass",
            0.02,
            0.0,
        ]
        assert record["completeness"]["rounding"] < 1e-5

    def test_a_wrong_setting_is_refused(self, tmp_path):
        said = refused("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "net-fullgrad", "--set", "scale=sum")
        assert "choose one of: max, mass" in said
