"""From terms to the map: rescaling, upsampling, linear blocks, signed mass, the certificate's sums."""

import numpy as np
import onnx_ir as ir
import pytest

from fgonnx import Explainer, rewrite
from fgonnx.engine.graph.session import Session
from fgonnx.engine.maps.interpolate import interpolation, mass_preserving
from fgonnx.engine.methods.fullgrad import combine
from fgonnx.engine.rewrite.rewritten import sites_of
from tests.support import draw, model, pictures, run

SIZES = [(1, 5), (2, 5), (3, 7), (5, 5), (4, 16), (7, 3), (16, 4), (5, 1)]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_interpolation_weighs_to_one(before, after):
    np.testing.assert_allclose(interpolation(before, after).sum(1), 1)


@pytest.mark.parametrize(("before", "after"), [s for s in SIZES if 1 < s[0] < s[1]])
def test_interpolation_is_exact_for_a_line(before, after):
    line = interpolation(before, after) @ np.linspace(2, 5, before)
    np.testing.assert_allclose(line, np.linspace(2, 5, after))


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_mass_preserving_keeps_the_sum(before, after):
    np.testing.assert_allclose(mass_preserving(before, after).sum(0), 1)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_mass_preserving_takes_nothing_away(before, after):
    assert mass_preserving(before, after).min() >= 0


# The map from given signed maps, by hand.


def compute(graph, feeds):
    return Session(graph).run(feeds)


def maps(*arrays, psi="abs", profile="full", grid):
    return combine([np.asarray(a, np.float32) for a in arrays], grid, psi, profile, compute)


def test_abs_rescales_over_channels_and_grid_jointly():
    site = [[[[0, 1]], [[-2, 4]]]]  # |.|: 0 1 / 2 4, over 4
    np.testing.assert_allclose(maps(site, grid=(1, 2)), [[[0.5, 1.25]]], rtol=1e-5)


def test_rescaling_begins_at_the_smallest():
    site = [[[[2, 3, 6]]]]
    np.testing.assert_allclose(maps(site, grid=(1, 3)), [[[0, 0.25, 1]]], rtol=1e-5)


def test_positive_drops_what_is_against():
    site = [[[[-4, 1, 2]]]]
    np.testing.assert_allclose(maps(site, psi="positive", grid=(1, 3)), [[[0, 0.5, 1]]], rtol=1e-5)


def test_signed_is_left_as_it_is():
    site = [[[[-4, 1]], [[2, 3]]]]
    np.testing.assert_allclose(maps(site, psi="signed", grid=(1, 2)), [[[-2, 4]]])


@pytest.mark.parametrize("profile", ["full", "reference", "paper"])
def test_a_constant_site_adds_nothing(profile):
    np.testing.assert_array_equal(maps(np.full((1, 3, 2, 2), 7.0), profile=profile, grid=(2, 2)), np.zeros((1, 2, 2)))


def test_sites_add_up():
    one, two = np.random.default_rng(0).standard_normal((2, 1, 3, 4, 5))
    both = maps(one, two, grid=(4, 5))
    np.testing.assert_allclose(both, maps(one, grid=(4, 5)) + maps(two, grid=(4, 5)), rtol=1e-5)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [("full", [0, 1 / 3, 2 / 3, 1]), ("reference", [0, 1 / 3, 2 / 3, 1]), ("paper", [0, 0.25, 0.75, 1])],
)
def test_upsampling_aligns_corners_but_for_the_paper(profile, expected):
    np.testing.assert_allclose(maps([[[[0, 2]]]], profile=profile, grid=(1, 4)), [[expected]], rtol=1e-5, atol=1e-6)


def test_a_sequence_is_upsampled_along_its_one_axis():
    np.testing.assert_allclose(maps([[[0, 2]]], grid=(4,)), [[0, 1 / 3, 2 / 3, 1]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 3), (4, 8), (5, 1), (7, 9)])
def test_signed_upsampling_keeps_the_sum(size):
    site = np.random.default_rng(0).standard_normal((1, 3, *size))
    np.testing.assert_allclose(maps(site, psi="signed", grid=(4, 8)).sum(), site.sum(), rtol=1e-4)


# Which sites the map shows.

BODY = """(float[N,3,8,6] x) => (float[N,5] y) {
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    n = BatchNormalization(c, scale, shift, mean, var)
    h = HardSwish(n)
    d = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(h, w2)
    a = Add(d, b2)
    r = Relu(a)
    g = GlobalAveragePool(r)
    e = Conv<kernel_shape=[1,1]>(g, w3, b3)
    s = Sigmoid(e)
    m = Mul(r, s)
    p = GlobalAveragePool(m)
    f = Flatten(p)
    y = Gemm(f, w4, b4)
}"""
WEIGHTS = draw(
    w1=(4, 3, 3, 3),
    b1=(4,),
    scale=(4,),
    shift=(4,),
    mean=(4,),
    w2=(6, 4, 3, 3),
    b2=(6, 1, 1),
    w3=(6, 6, 1, 1),
    b3=(6,),
    w4=(6, 5),
    b4=(5,),
) | {"var": np.full(4, 0.7, np.float32)}
SOURCE = model(BODY, weights=WEIGHTS)


@pytest.mark.parametrize(
    ("profile", "shown"),
    [
        ("full", ["input", "c", "n", "h", "a", "m"]),
        ("reference", ["input", "c", "n", "a", "e"]),
        ("paper", ["input", "c", "n", "a", "e"]),
    ],
)
def test_sites_of_a_profile(profile, shown):
    assert [s.name for s in sites_of(rewrite(SOURCE, profile=profile)) if s.in_map] == shown


def test_every_site_is_in_the_certificate():
    sites = {s.name: (s.op_type, s.kind) for s in sites_of(rewrite(SOURCE))}
    assert sites == {
        "input": ("", "input"),
        "c": ("Conv", "bias"),
        "n": ("BatchNormalization", "bias"),
        "h": ("HardSwish", "implicit"),
        "a": ("Add", "bias"),
        "e": ("Conv", "bias"),
        "s": ("Sigmoid", "implicit"),
        "m": ("Mul", "implicit"),
        "y": ("Gemm", "bias"),
    }


@pytest.mark.parametrize("method", ["fullgrad", "simple-fullgrad", "smooth-fullgrad"])
def test_every_method_gives_a_map(method):
    saliency = Explainer(SOURCE, method=method)(pictures(2)).saliency
    assert saliency.shape == (2, 8, 6)
    assert saliency.max() > 0


def test_paper_sums_a_linear_block_before_psi():
    # c and n have one signed sum; with two maps of one sign each, |c| + |n| would be larger
    x = pictures(2)
    names = [v.name for v in rewrite(SOURCE, profile="paper", outputs=("signed_maps",)).graph.output[1:]]
    assert len(names) == 4  # input, c + n, a, e
    found = run(rewrite(SOURCE, profile="paper", outputs=("signed_maps", "bias_gradients")), {"x": x})
    both = found["bias_gradient:c"] + found["bias_gradient:n"]
    np.testing.assert_allclose(found["signed_map_1"], both, atol=1e-6)


def test_simple_fullgrad_leaves_the_bias_out():
    rewritten = rewrite(SOURCE, method="simple-fullgrad", outputs=("signed_maps",), expose=["gradient:c"])
    found = run(rewritten, {"x": pictures(2)})
    np.testing.assert_array_equal(found["signed_map_1"], found["gradient:c"])


def test_half_precision_sums_do_not_overflow():
    # 4096 products of 64 add up to 262144, which float16 cannot hold
    source = model(
        "(float16[N,1,64,64] x) => (float16[N,1] y) { r = Relu(x)\n p = GlobalAveragePool(r)\n y = Flatten(p) }"
    )
    e = Explainer(source)(np.full((1, 1, 64, 64), 64, np.float16), seed=np.full((1, 1), 4096, np.float16))
    np.testing.assert_allclose(e.contributions[0, 0], 262144, rtol=1e-3)


def test_emitted_values_have_types():
    import onnx

    inferred = onnx.shape_inference.infer_shapes(rewrite(SOURCE), strict_mode=True)
    untyped = [v.name for v in inferred.graph.output if not v.type.tensor_type.elem_type]
    assert untyped == []


def test_the_graph_has_one_resize_per_resolution():
    resizes = [n for n in ir.from_proto(rewrite(SOURCE)).graph if n.op_type == "Resize"]
    assert len(resizes) == 1  # (4, 3) to (8, 6); c, n and h have the input's size
