"""net-fullgrad with focus: the map is multiplied by the positive evidence at a layer; the certificate stays."""

import numpy as np
import pytest

from fgonnx import Explainer, rewrite
from fgonnx.errors import OptionError
from tests.support import draw, model, pictures, run, small_cnn
from tests.test_axes import VIT
from tests.test_axes import WEIGHTS as TOKENS
from tests.test_net_fullgrad import SEQUENCE, VOLUME, WIDE, bilinear, close, explain

WHERE = {  # network, shape of a sample, the layer that is found
    "convolutions": (WIDE, (3, 12, 10), "g"),
    "sequence": (SEQUENCE, (2, 20), "b"),
    "volume": (VOLUME, (2, 4, 6, 5), "b"),
}


def evidence(source, x, layer):
    """The positive part of the sum over channels of a layer times its gradient, largest 1, (N, *cells)."""
    proto = rewrite(source, method="gradient", expose=(layer, f"gradient:{layer}"), target=1)
    found = run(proto, {proto.graph.input[0].name: x})
    a, g = found[layer], found[f"gradient:{layer}"]
    cells = np.maximum((a * g).sum(1, dtype=np.float64), 0)
    most = cells.max(tuple(range(1, cells.ndim)), keepdims=True)
    return np.where(most > 0, cells / np.where(most > 0, most, 1), 1)


@pytest.mark.parametrize("psi", ["abs", "positive", "signed"])
@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("name", WHERE)
def test_the_map_is_multiplied_by_the_evidence_at_the_layer(name, share, psi):
    source, shape, layer = WHERE[name]
    x = pictures(3, shape)
    plain, found = (explain(source, x, psi=psi, focus=f).saliency for f in (0.0, share))
    close(found, plain * (1 - share + share * bilinear(evidence(source, x, layer), plain.shape[1:])))


def test_another_layer_may_be_named():
    x = pictures(3, (3, 12, 10))
    plain, found = explain(WIDE, x).saliency, explain(WIDE, x, focus=1.0, layer="d").saliency
    close(found, plain * bilinear(evidence(WIDE, x, "d"), (12, 10)))


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (small_cnn(layout="NHWC"), (8, 6, 3)),
        (small_cnn(batch="1"), (3, 8, 6)),
        (model(f"(float[N,6,4,8] x) => (float[N,5] y) {{ {VIT} }}", 20, weights=TOKENS), (6, 4, 8)),
    ],
    ids=["channels last", "one sample at a time", "tokens"],
)
def test_layouts_are_brought_to_the_grid(source, shape):
    x = pictures(3, shape)
    plain, found = explain(source, x), explain(source, x, focus=1.0)
    share = Explainer(source, method="hires-cam", threads=1)(x, 1).saliency  # positive already, and enlarged alike
    share[share.max((1, 2)) == 0] = 1  # no positive evidence: the map stays
    for expected, got in zip(plain.saliency * share, found.saliency, strict=True):
        close(got / got.max(), expected / expected.max())


def test_the_certificate_stays():
    x = pictures(3, (3, 12, 10))
    plain, found = explain(WIDE, x), explain(WIDE, x, focus=0.9)
    np.testing.assert_array_equal(found.contributions, plain.contributions)
    np.testing.assert_array_equal(found.completeness, plain.completeness)


def test_the_portable_form_is_the_same():
    x = pictures(3, (3, 12, 10))
    made = (rewrite(WIDE, method="net-fullgrad", focus=0.9, form=f) for f in ("fast", "portable"))
    fast, portable = (run(proto, {"x": x})["saliency"] for proto in made)
    np.testing.assert_allclose(fast, portable, rtol=0, atol=1e-5)


def test_without_positive_evidence_the_map_stays():
    source = model(  # the score falls with every activation
        """(float[N,3,8,6] x) => (float[N,2] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            b = Relu(a)
            c = GlobalAveragePool(b)
            d = Flatten(c)
            y = MatMul(d, w2)
        }""",
        weights={**draw(w1=(4, 3, 3, 3), b1=(4,)), "w2": -np.ones((4, 2), np.float32)},
    )
    x = pictures(3)
    np.testing.assert_array_equal(explain(source, x, focus=0.9).saliency, explain(source, x).saliency)


def test_doubles_stay_doubles():
    source = model(
        """(double[N,3,8,6] x) => (double[N,2] y) {
            a = Mul(x, k)
            b = Relu(a)
            c = ReduceMean<keepdims=0>(b, axes)
            y = MatMul(c, w)
        }""",
        weights={k: v.astype(np.float64) for k, v in draw(k=(1, 3, 1, 1), w=(3, 2)).items()}
        | {"axes": np.array([2, 3])},
    )
    assert explain(source, pictures(3).astype(np.float64), focus=0.9).saliency.shape == (3, 8, 6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"focus": 1.5}, "focus=1.5 is out of range"),
        ({"focus": -0.1}, "focus=-0.1 is out of range"),
        ({"layer": "b"}, "focus is 0"),
        ({"focus": 0.5, "layer": "nowhere"}, "layer='nowhere' is no value with channels over a grid"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(OptionError, match=said):
        explain(WIDE, pictures(3, (3, 12, 10)), **settings)
