"""Inputs that share an axis with the explained one: masks, positions, lengths, adjacency; and free sizes of others."""

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import Explainer
from fgonnx.errors import ModelError, OptionError
from fgonnx.fields import arguments
from tests.cli_support import good, refused
from tests.support import draw, model, run

N, T, S = 2, 7, 4
RNG = np.random.default_rng(3)
WEIGHTS = draw(w=(3, 4), v=(4, 5), table=(20, 4), gate=(1, 12, 3), again=(1, 12, 4), k=(4, 3, 3, 3)) | {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "none": np.float32(0),
    "start": np.int64(0),
    "step": np.int64(1),
}
POOLED = "p = ReduceSum<keepdims=0>(r, one) y = MatMul(p, v)"


def kept(*shape):
    return (RNG.random(shape) > 0.3).astype(np.float32)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


CASES = {
    "mask (N, T)": (
        "float[N,T,3] x, float[N,T] m",
        "h = MatMul(x, w) u = Unsqueeze(m, two) g = Relu(h) r = Mul(g, u) " + POOLED,
        {"x": drawn(N, T, 3), "m": kept(N, T)},
    ),
    "mask (N, T) of truth values": (
        "float[N,T,3] x, bool[N,T] m",
        "h = MatMul(x, w) u = Unsqueeze(m, two) g = Relu(h) r = Where(u, g, none) " + POOLED,
        {"x": drawn(N, T, 3), "m": kept(N, T) > 0},
    ),
    "positions (T)": (
        "float[N,T,3] x, int64[T] at",
        "g = MatMul(x, w) e = Gather(table, at) h = Add(g, e) r = Relu(h) " + POOLED,
        {"x": drawn(N, T, 3), "at": np.arange(T)},
    ),
    "positions (T), as many as samples": (
        "float[N,T,3] x, int64[T] at",
        "g = MatMul(x, w) e = Gather(table, at) h = Add(g, e) r = Relu(h) " + POOLED,
        {"x": drawn(3, 3, 3), "at": np.arange(3)},
    ),
    "weights (T) of one sample": (
        "float[1,T,3] x, float[T] u",
        "g = MatMul(x, w) q = Unsqueeze(u, one) h = Mul(g, q) r = Relu(h) " + POOLED,
        {"x": drawn(1, T, 3), "u": drawn(T, 1)[:, 0]},
    ),
    "weights (T), no batch": (
        "float[T,3] x, float[T] u",
        "g = MatMul(x, w) q = Unsqueeze(u, one) h = Mul(g, q) r = Relu(h) "
        "p = ReduceSum<keepdims=0>(r, zero) y = MatMul(p, v)",
        {"x": drawn(T, 3), "u": drawn(T, 1)[:, 0]},
    ),
    "adjacency (T, T)": (
        "float[N,T,3] x, float[T,T] near",
        "g = MatMul(x, w) h = MatMul(near, g) r = Relu(h) " + POOLED,
        {"x": drawn(N, T, 3), "near": drawn(T, T)},
    ),
    "lengths (N), time first": (
        "float[T,N,3] x, int32[N] lengths",
        "a, h = GRU<hidden_size=4>(x, gate, again,, lengths) p = Squeeze(h, zero) y = MatMul(p, v)",
        {"x": drawn(T, N, 3), "lengths": np.array([3, 7], np.int32)},
    ),
    "lengths (N)": (
        "float[N,T,3] x, int64[N] lengths",
        "h = MatMul(x, w) g = Relu(h) t1 = Shape<start=1, end=2>(x) t = Squeeze(t1) at = Range(start, t, step) "
        "l = Unsqueeze(lengths, one) c = Less(at, l) u = Unsqueeze(c, two) r = Where(u, g, none) " + POOLED,
        {"x": drawn(N, T, 3), "lengths": np.array([3, 7])},
    ),
    "attended (N, S, 3)": (
        "float[N,T,3] x, float[N,S,3] z",
        "q = MatMul(x, w) c = MatMul(z, w) ct = Transpose<perm=[0,2,1]>(c) s = MatMul(q, ct) a = Softmax(s) "
        "h = MatMul(a, c) r = Relu(h) " + POOLED,
        {"x": drawn(N, T, 3), "z": drawn(N, S, 3)},
    ),
    "a picture's mask (H, W)": (
        "float[N,3,H,W] x, float[H,W] m",
        "f = Mul(x, m) h = Conv(f, k) r = Relu(h) g = GlobalAveragePool(r) p = Flatten(g) y = MatMul(p, v)",
        {"x": drawn(N, 3, 8, 9), "m": kept(8, 9)},
    ),
}


def network(name):
    inputs, body, feeds = CASES[name]
    words = set("".join(c if c.isalnum() else " " for c in body).split())
    rows = "5" if "no batch" in name else "1,5" if "[1," in inputs else "N,5"
    weights = {n: a for n, a in WEIGHTS.items() if n in words}
    return model(f"({inputs}) => (float[{rows}] y) {{ {body} }}", weights=weights), feeds


@pytest.mark.parametrize("name", CASES)
def test_sizes_come_from_the_arrays_of_the_call(name):
    source, feeds = network(name)
    found = Explainer(source, input="x", input_gradient=True)(feeds)
    np.testing.assert_allclose(np.squeeze(found.outputs["y"]), np.squeeze(run(source, feeds)["y"]), atol=1e-5)
    way = np.random.default_rng(0).standard_normal(feeds["x"].shape)
    rows = np.arange(len(found.target))
    up, down = (
        run(source, {**feeds, "x": (feeds["x"] + s * way).astype(np.float32)})["y"].reshape(len(rows), -1)
        for s in (1e-3, -1e-3)
    )
    measured = (up[rows, found.target].astype(float) - down[rows, found.target]).sum() / 2e-3
    slope = found.input_gradient.astype(float)
    np.testing.assert_allclose(measured, (slope.reshape(way.shape) * way).sum(), atol=0.01 * np.abs(slope).sum() + 1e-3)


@pytest.mark.parametrize("name", [name for name in CASES if "S" not in name])
def test_a_file_takes_the_sizes_of_the_explained_input_for_others(name):
    source, feeds = network(name)
    written = fgonnx.rewrite(source, input="x", input_shape=feeds["x"].shape)
    found = run(written, feeds)
    np.testing.assert_allclose(found["y"], run(source, feeds)["y"], rtol=1e-4, atol=1e-5)
    assert np.abs(found["completeness"]).max() < 1e-5


class TestGivenSizes:
    """`input_shape` names other inputs, too."""

    def test_fix_free_sizes_and_leave_the_batch_free(self):
        source, feeds = network("attended (N, S, 3)")
        written = fgonnx.rewrite(source, input="x", input_shape={"x": (1, T, 3), "z": (1, S, 3)})
        np.testing.assert_allclose(run(written, feeds)["y"], run(source, feeds)["y"], rtol=1e-4, atol=1e-5)
        dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in written.graph.input}
        assert (dims["x"], dims["z"]) == (["N", T, 3], ["N", S, 3])

    def test_are_asked_for_where_the_explained_input_does_not_have_them(self):
        source, _ = network("attended (N, S, 3)")
        with pytest.raises(ModelError, match=r"z \(float \[N, S, 3\]\).*input_shape=\{'z': \(1, 1, 3\)\}"):
            fgonnx.rewrite(source, input="x", input_shape=(1, T, 3))

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            ({"x": (1, T, 3), "zz": (1, S, 3)}, "has no input 'zz' that could be given a shape"),
            ({"x": (1, T, 3), "z": (1, S)}, "does not fit its input z"),
            ({"x": (1, T, 3), "z": (1, S, 4)}, "does not fit its input z"),
            ({"": (1, T, 3), "x": (1, T, 3)}, "given twice"),
            ({"x": (1, T, 3), "z": (1, 0, 3)}, "out of range"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, shapes, message):
        with pytest.raises(OptionError, match=message):
            fgonnx.rewrite(network("attended (N, S, 3)")[0], input="x", input_shape=shapes)

    def test_are_typed_with_the_name(self, tmp_path):
        path = tmp_path / "net.onnx"
        onnx.save(network("attended (N, S, 3)")[0], path)
        out, given = tmp_path / "explained.onnx", ("--input", "x", "--input-shape", f"1,{T},3")
        assert "--input-shape z=1,1,3" in refused("rewrite", path, "-o", out, *given)
        good("rewrite", path, "-o", out, *given, "--input-shape", f"z=1,{S},3")
        both = {"": (1, T, 3), "z": (1, S, 3)}
        assert arguments(fgonnx.Options(input_shape=both))[1::2] == [f"1,{T},3", f"z=1,{S},3"]
        assert "are of one input" in refused("rewrite", path, "-o", out, *given, "--input-shape", "1,2")
