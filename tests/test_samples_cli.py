"""The command line on inputs without a batch axis, and with another batch axis than the first."""

import json

import cv2
import numpy as np
import onnx
import pytest

from fgonnx import Explainer
from tests.cli_support import good, refused
from tests.support import run as inferred
from tests.test_samples import ALONE, FIXED, ORDERS, drawn, network, of_four

CHW, HWC, WAVE = (network(*ALONE[name][:3]) for name in ("CHW", "HWC of free size", "a waveform"))
TNF = network(*ORDERS["TNF, recurrent"][:3])
UINT8 = network(
    "h,w,3",
    "n = Cast<to=1>(x) s = Mul(n, scale) t = Transpose<perm=[2,0,1]>(s) u = Unsqueeze(t, zero) c = Conv(u, w3) "
    "a = Softplus(c) p = GlobalAveragePool(a) f = Flatten(p) y = MatMul(f, fc)",
    "1,5",
    "uint8",
)
TIED = {"fixed": of_four(*FIXED["a state"][:2]), "freed": of_four(*FIXED["time-major"][:2])}
# Models, their arrays, how many samples these hold, and the shape of one map.
GIVEN = {
    "CHW": (CHW, drawn((3, 8, 7)), 1, (8, 7)),
    "several CHW": (CHW, drawn((2, 3, 8, 7)), 2, (8, 7)),
    "HWC of free size": (HWC, drawn((8, 7, 3)), 1, (8, 7)),
    "a waveform": (WAVE, drawn((40,)), 1, (40,)),
    "TNF": (TNF, drawn((9, 3, 6)), 3, (9,)),
    "one sequence of TNF": (TNF, drawn((9, 6)), 1, (9,)),
    "a fixed batch": (TIED["fixed"], drawn((9, 4, 6)), 4, (9,)),
    "one of a fixed batch": (TIED["freed"], drawn((9, 6)), 1, (9,)),
    "uint8": (UINT8, np.random.default_rng(0).integers(0, 256, (8, 7, 3)).astype(np.uint8), 1, (8, 7)),
}
given = pytest.mark.parametrize(("source", "x", "count", "grid"), GIVEN.values(), ids=GIVEN)


@pytest.fixture
def files(tmp_path):
    def write(source, x):
        onnx.save(source, tmp_path / "m.onnx")
        np.save(tmp_path / "x.npy", x)
        return tmp_path / "m.onnx", tmp_path / "x.npy"

    return write


@given
def test_explain_writes_a_map_for_every_sample(source, x, count, grid, files, tmp_path):
    good("explain", *files(source, x), "-o", tmp_path / "out", "--threads", 1)
    maps = sorted((tmp_path / "out").glob("*.npy"))
    assert [np.load(m).shape for m in maps] == [grid] * count
    for m in maps:
        assert cv2.imread(str(m.with_suffix(".png"))) is not None
        assert json.loads(m.with_suffix(".json").read_text())["completeness"]["relative"] < 1e-3


@given
def test_explain_writes_the_maps_of_the_explainer(source, x, count, grid, files, tmp_path):
    good("explain", *files(source, x), "-o", tmp_path / "out", "--threads", 1)
    found = [np.load(m) for m in sorted((tmp_path / "out").glob("*.npy"))]
    array = x[:, None] if x.shape == (9, 6) else x  # of a batch elsewhere, Python takes no single sample
    np.testing.assert_allclose(found, Explainer(source)(array).saliency, rtol=1e-4, atol=1e-6)


@given
def test_check_passes(source, x, count, grid, files):
    assert "passed" in good("check", *files(source, x), "--directions", 3, "--threads", 1)


@given
def test_compare_finds_a_model_equal_to_itself(source, x, count, grid, files, tmp_path):
    path, array = files(source, x)
    good("compare", path, path, array, "-o", tmp_path / "out", "--threads", 1)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(summary["images"]) == count
    assert summary["measures"]["rank_correlation"]["min"] > 1 - 1e-6
    assert summary["parted"] == []


WRITTEN = {k: GIVEN[k] for k in ("CHW", "HWC of free size", "a waveform", "TNF", "uint8")}


@pytest.mark.parametrize(("source", "x", "count", "grid"), WRITTEN.values(), ids=WRITTEN)
def test_rewrite_keeps_inputs_and_outputs(source, x, count, grid, files, tmp_path):
    path, _ = files(source, x)
    size = ("--input-shape", ",".join(map(str, x.shape)))
    assert "saliency" in good("rewrite", path, "-o", tmp_path / "r.onnx", *size)
    found = inferred(tmp_path / "r.onnx", {"x": x})
    np.testing.assert_allclose(found["y"], inferred(source, {"x": x})["y"], rtol=1e-4, atol=1e-5)
    assert found["saliency"].shape == (count, *grid)


@pytest.mark.parametrize(("kind", "shape"), [("fixed", [9, 1, 6]), ("freed", [9, "N", 6])])
def test_rewrite_of_a_fixed_batch_takes_any_batch_or_one_sample(kind, shape, files, tmp_path):
    path, _ = files(TIED[kind], drawn((9, 4, 6)))
    good("rewrite", path, "-o", tmp_path / "r.onnx")
    dims = onnx.load(tmp_path / "r.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == shape


def test_a_picture_becomes_the_input_of_a_model_without_a_batch(files, tmp_path):
    path, _ = files(CHW, drawn((3, 8, 7)))
    cv2.imwrite(str(tmp_path / "p.png"), np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    good("explain", path, tmp_path / "p.png", "-o", tmp_path / "out", "--preprocess", "unit", "--threads", 1)
    assert np.load(tmp_path / "out" / "p.npy").shape == (8, 7)


@pytest.mark.parametrize("command", ["explain", "check", "compare"])
def test_a_layout_can_be_given(command, files, tmp_path):
    path, array = files(CHW, drawn((3, 8, 7)))
    both = [path, path, array] if command == "compare" else [path, array]
    out = [] if command == "check" else ["-o", tmp_path / "out"]
    good(command, *both, *out, "--layout", "CHW", "--threads", 1)


@pytest.mark.parametrize("command", ["explain", "check", "compare", "rewrite", "inspect"])
@pytest.mark.parametrize("layout", ["HWC", "NCHW", "chw"])
def test_a_wrong_layout_is_refused(command, layout, files, tmp_path):
    path, array = files(CHW, drawn((3, 8, 7)))
    given = {"compare": [path, path, array], "rewrite": [path], "inspect": [path]}.get(command, [path, array])
    out = {"check": [], "inspect": [], "rewrite": ["-o", tmp_path / "r.onnx"]}.get(command, ["-o", tmp_path / "out"])
    assert "layout" in refused(command, *given, *out, "--layout", layout)


def test_preprocessing_and_layout_must_agree(files, tmp_path):
    three_either_way = network("N,3,8,3", "t = Tanh(x) m = ReduceMean<keepdims=0>(t, two) y = MatMul(m, k3)", "N,3,5")
    path, _ = files(three_either_way, drawn((1, 3, 8, 3)))
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((20, 30, 3), np.uint8))
    how = ("--preprocess", "unit,layout=NHWC", "--layout", "NCHW")
    message = refused("explain", path, tmp_path / "p.png", "-o", tmp_path / "out", *how)
    assert "--layout NCHW contradicts the preprocessing, which writes pictures as NHWC" in message


EVALUATED = {"without a batch": (CHW, (3, 3, 8, 7)), "a batch elsewhere": (TNF, (9, 3, 6))}


@pytest.mark.parametrize(("source", "shape"), EVALUATED.values(), ids=EVALUATED)
def test_evaluate_measures(source, shape, files, tmp_path):
    path, _ = files(source, drawn(shape))
    np.savez(tmp_path / "d.npz", x=drawn(shape))
    what = ("--methods", "fullgrad,gradient,occlusion", "--measures", "sparseness,deletion:steps=4")
    good("evaluate", path, tmp_path / "d.npz", "-o", tmp_path / "out", *what, "--shown", 0, "--threads", 1)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["data"]["images"], summary["failed"], summary["data"]["skipped"]) == (3, {}, {})
