"""Where every axis goes: grids are found again behind transposes, reshapes, tokens, windows and shuffles."""

import numpy as np
import pytest

from fgonnx import Explainer
from fgonnx.engine.graph.probe import BATCH
from fgonnx.engine.maps.axes import Atom, grid, input_layout, other, regroup
from fgonnx.engine.maps.follow import propagate
from fgonnx.engine.maps.placement import place
from fgonnx.engine.model.load import load
from fgonnx.engine.normal.normalise import normalise
from fgonnx.engine.walk import backward
from tests.support import draw, model, pictures, run

BATCH_AXIS = (Atom("batch", 0),)
HEIGHT, WIDTH = 4, 8


def analysed(body, inputs="float[N,6,4,8] x", layout=None, weights=None):
    """Return a graph's file, its normal form, and the layouts of its active values."""
    proto = model(f"({inputs}) => (float[n1,n2,n3,n4] y) {{ {body} }}", weights=weights)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    normal = normalise(load(proto), layout=layout)
    nodes = list(normal.model.graph)
    active = backward.active_values(nodes, [normal.x])
    start = input_layout(normal.layout, normal.x.shape.dims, normal.batched)
    return proto, normal, propagate(nodes, normal.x, start, active)


def placement(body, **options):
    _, normal, layouts = analysed(body, **options)
    return place(layouts[normal.outputs[0]], 2, normal.batched)


# Graphs that only move numbers about, from (N, 6, 4, 8) or (N, 4, 8, 6).
MOVES = {
    "nothing": "y = Identity(x)",
    "channels last": "y = Transpose<perm=[0,2,3,1]>(x)",
    "rows and columns swapped": "y = Transpose<perm=[0,1,3,2]>(x)",
    "tokens": "s = Constant<value_ints=[0,6,32]>() y = Reshape(x, s)",
    "tokens, channels last": """
        s = Constant<value_ints=[0,6,32]>() t = Reshape(x, s) y = Transpose<perm=[0,2,1]>(t)""",
    "tokens of heads": """
        s = Constant<value_ints=[0,2,3,32]>() t = Reshape(x, s) y = Transpose<perm=[0,1,3,2]>(t)""",
    "flat": "y = Flatten(x)",
    "flat, channels last": "t = Transpose<perm=[0,2,3,1]>(x) y = Flatten(t)",
    "channel shuffle": """
        a = Constant<value_ints=[0,2,3,4,8]>() b = Constant<value_ints=[0,6,4,8]>()
        g = Reshape(x, a) t = Transpose<perm=[0,2,1,3,4]>(g) y = Reshape(t, b)""",
    "windows folded into the batch": """
        a = Constant<value_ints=[0,6,2,2,2,4]>() b = Constant<value_ints=[-1,8,6]>()
        w = Reshape(x, a) t = Transpose<perm=[0,2,4,3,5,1]>(w) y = Reshape(t, b)""",
    "windows and back": """
        a = Constant<value_ints=[0,6,2,2,2,4]>() b = Constant<value_ints=[-1,8,6]>()
        c = Constant<value_ints=[-1,2,2,2,4,6]>() d = Constant<value_ints=[0,4,8,6]>()
        w = Reshape(x, a) t = Transpose<perm=[0,2,4,3,5,1]>(w) f = Reshape(t, b)
        u = Reshape(f, c) v = Transpose<perm=[0,1,3,2,4,5]>(u) y = Reshape(v, d)""",
    "space to depth by reshape": """
        a = Constant<value_ints=[0,6,2,2,4,2]>() b = Constant<value_ints=[0,24,2,4]>()
        w = Reshape(x, a) t = Transpose<perm=[0,1,3,5,2,4]>(w) y = Reshape(t, b)""",
    "another axis and away with it": """
        a = Constant<value_ints=[2]>() u = Unsqueeze(x, a) y = Squeeze(u, a)""",
    "half of the channels": """
        a = Constant<value_ints=[0]>() b = Constant<value_ints=[3]>() c = Constant<value_ints=[1]>()
        y = Slice(x, a, b, c)""",
    "channels joined": "y = Concat<axis=1>(x, x)",
    "a split": "y, z = Split<axis=1, num_outputs=2>(x)",
}


@pytest.mark.parametrize("body", MOVES.values(), ids=MOVES.keys())
def test_every_number_comes_back_to_its_place(body):
    proto, normal, layouts = analysed(body)
    x = np.empty((3, 6, HEIGHT, WIDTH), np.float32)
    x[:] = np.arange(3)[:, None, None, None] * 100 + np.arange(HEIGHT)[:, None] * WIDTH + np.arange(WIDTH)
    p = place(layouts[normal.outputs[0]], 2, normal.batched)
    found = run(proto, {"x": x})["y"].reshape(p.split).transpose(p.perm).reshape(p.shape)
    np.testing.assert_array_equal(found, np.broadcast_to(x[:, :1], found.shape))


@pytest.mark.parametrize("body", MOVES.values(), ids=MOVES.keys())
def test_the_whole_grid_is_known(body):
    assert placement(body).grid == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", (2, 4)),
        ("y = AveragePool<kernel_shape=[3,3]>(x)", (2, 6)),
        ("y = Conv<kernel_shape=[3,3], strides=[1,2], pads=[1,1,1,1]>(x, w)", (4, 4)),
        ("y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(x, v)", (8, 16)),
        ("y = SpaceToDepth<blocksize=2>(x)", (2, 4)),
        ("s = Constant<value_floats=[1.0,1.0,2.0,2.0]>() y = Resize(x, , s)", (8, 16)),
        ("t = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) y = Transpose<perm=[0,2,3,1]>(t)", (2, 4)),
        ("p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() y = Pad(x, p)", (6, 10)),
        ("a = Constant<value_ints=[3]>() y = ReduceMean<keepdims=1>(x, a)", (4, 1)),
    ],
)
def test_a_grid_that_changes_its_size_stays_a_grid(body, size):
    weights = draw(w=(5, 6, 3, 3), v=(6, 5, 2, 2))
    assert placement(body, weights=weights).grid == size


@pytest.mark.parametrize(
    "body",
    [
        "y = GlobalAveragePool(x)",
        "g = GlobalAveragePool(x) y = Flatten(g)",
        "f = Flatten(x) y = MatMul(f, w)",
        "a = Constant<value_ints=[2,3]>() y = ReduceMean<keepdims=0>(x, a)",
    ],
)
def test_what_has_lost_its_grid_is_not_spatial(body):
    assert not placement(body, weights=draw(w=(192, 5))).spatial


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("float[N,3,8,6] x", "NCHW"),
        ("float[N,8,6,3] x", "NHWC"),
        ("float[N,8,6,1] x", "NHWC"),
        ("float[N,3,6,3] x", "NCHW"),
        ("float[N,3,16] x", "NCW"),
        ("float[N,16,3] x", "NWC"),
        ("float[N,7] x", "NF"),
        ("float[N,1,4,5,6] x", "NCDHW"),
    ],
)
def test_layout_of_an_input_by_its_sizes(inputs, expected):
    assert analysed("y = Relu(x)", inputs=inputs)[1].layout == expected


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        ("float[N,3,8,6] x", "t = Transpose<perm=[0,3,1,2]>(x) y = Relu(t)", "NHWC"),
        ("float[N,8,3,3] x", "y = Conv<kernel_shape=[1,1]>(x, w)", "NCHW"),
        ("float[N,8,3,3] x", "r = Relu(x) y = Conv<kernel_shape=[1,1]>(r, w)", "NCHW"),
        ("float[N,3,3,8] x", "r = Relu(x) t = Transpose<perm=[0,3,1,2]>(r) y = Relu(t)", "NHWC"),
    ],
)
def test_layout_of_an_input_by_what_takes_it(inputs, body, expected):
    assert analysed(body, inputs=inputs, weights=draw(w=(2, 8, 1, 1)))[1].layout == expected


class TestRegroup:
    """Layouts by hand: batch, 6 channels, a grid of 4 x 8."""

    LAYOUT = (BATCH_AXIS, other(6), grid(0, 4), grid(1, 8))

    def test_splits_an_axis_coarse_to_fine(self):
        axes = regroup(self.LAYOUT, _dims(6, 2, 2, 8))
        assert [(a.kind, a.size, a.step, a.whole) for axis in axes[2:4] for a in axis] == [
            ("s0", 2, 2, 4),
            ("s0", 2, 1, 4),
        ]

    def test_joins_axes(self):
        joined = regroup(self.LAYOUT, _dims(6, 32))
        assert joined[2] == (*grid(0, 4), *grid(1, 8))

    def test_and_back_leaves_the_grid_where_it_was(self):
        there = regroup(self.LAYOUT, _dims(6, 2, 2, 8))
        assert place(regroup(there, _dims(6, 4, 8)), 2, True).grid == (4, 8)

    def test_axes_of_one_have_nothing_in_them(self):
        assert regroup((BATCH_AXIS, other(6)), _dims(1, 6, 1)) == (BATCH_AXIS, (), other(6), ())

    def test_sizes_that_do_not_divide_are_given_up(self):
        assert regroup((BATCH_AXIS, other(6), grid(0, 4)), _dims(5, 4)) is None

    def test_a_number_before_the_batch_is_given_up(self):
        assert regroup((BATCH_AXIS, other(6)), (6, _dims()[0])) is None


def _dims(*sizes):
    import onnx_ir as ir

    return (ir.SymbolicDim(BATCH), *sizes)


class TestPlace:
    def test_canonical_is_trivial(self):
        assert place((BATCH_AXIS, other(6), grid(0, 4), grid(1, 8)), 2, True).trivial

    def test_transposed_is_not(self):
        assert not place((BATCH_AXIS, grid(0, 4), grid(1, 8), other(6)), 2, True).trivial

    def test_without_a_batch_axis_there_is_none(self):
        assert place((other(6), grid(0, 4)), 2, True) is None

    def test_with_two_batch_axes_there_is_none(self):
        assert place((BATCH_AXIS, BATCH_AXIS, other(6)), 2, True) is None

    def test_half_a_grid_counts_as_channels(self):
        half = place((BATCH_AXIS, other(6), (Atom("s0", 2, 1, 4),), grid(1, 8)), 2, True)
        assert (half.shape, half.spatial) == ((-1, 96, 1, 1), False)


# Terms of windows, tokens and heads, with the batch folded away and back: sums must stay those of each sample.
SWIN = """
    a = Constant<value_ints=[0,6,2,2,2,4]>() b = Constant<value_ints=[-1,8,6]>()
    c = Constant<value_ints=[-1,2,2,2,4,6]>() d = Constant<value_ints=[0,4,8,6]>()
    e = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, k, bias)
    w = Reshape(e, a) t = Transpose<perm=[0,2,4,3,5,1]>(w) f = Reshape(t, b)
    q = MatMul(f, wq) qb = Add(q, bias) kt = Transpose<perm=[0,2,1]>(qb)
    scores = MatMul(qb, kt) p = Softmax<axis=-1>(scores) o = MatMul(p, qb)
    g = Gelu(o)
    u = Reshape(g, c) v = Transpose<perm=[0,1,3,2,4,5]>(u) h = Reshape(v, d)
    m = Constant<value_ints=[1,2]>() r = ReduceMean<keepdims=0>(h, m)
    y = MatMul(r, out)
"""
VIT = """
    s = Constant<value_ints=[0,6,8]>()
    e = Conv<kernel_shape=[2,2], strides=[2,2]>(x, patch, bias)
    f = Reshape(e, s) t = Transpose<perm=[0,2,1]>(f)
    n = LayerNormalization<axis=-1>(t, gamma, beta)
    q = MatMul(n, wq) qb = Add(q, bias) kt = Transpose<perm=[0,2,1]>(qb)
    scores = MatMul(qb, kt) p = Softmax<axis=-1>(scores) o = MatMul(p, qb)
    z = Add(o, t)
    m = Constant<value_ints=[1]>() r = ReduceMean<keepdims=0>(z, m)
    y = MatMul(r, out)
"""
WEIGHTS = draw(k=(6, 6, 3, 3), patch=(6, 6, 2, 2), bias=(6,), wq=(6, 6), out=(6, 5), gamma=(6,), beta=(6,))


@pytest.mark.parametrize("body", [SWIN, VIT], ids=["windows", "tokens"])
class TestTransformers:
    X = pictures(3, (6, 4, 8))

    def explain(self, body, x, **options):
        source = model(f"(float[N,6,4,8] x) => (float[N,5] y) {{ {body} }}", opset=20, weights=WEIGHTS)
        return Explainer(source, **options)(x)

    def test_are_complete(self, body):
        assert self.explain(body, self.X).rounding_residual().max() < 1e-6

    def test_keep_their_samples_apart(self, body):
        together = self.explain(body, self.X).contributions
        alone = np.concatenate([self.explain(body, self.X[i : i + 1]).contributions for i in range(3)])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)

    def test_run_as_a_batch(self, body):
        assert self.explain(body, self.X).settings["batch"] == "any"

    def test_signed_maps_sum_to_what_is_localised(self, body):
        e = self.explain(body, self.X, psi="signed")
        np.testing.assert_allclose(e.saliency.sum((1, 2)), e.localised(), rtol=1e-4, atol=1e-5)

    def test_localise_most_of_the_score(self, body):
        assert self.explain(body, self.X).localised_share().min() > 0.5
