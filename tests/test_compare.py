"""Two models on the same pictures: measures of maps, quantised forms, layers broken on purpose, limits, bad input."""

import csv
import json

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import fgonnx
from fgonnx.audit.comparison import Comparer, measures, parted
from fgonnx.engine.model.load import load
from fgonnx.errors import InputError, ModelError
from fgonnx.explain.targets import Cotangent
from fgonnx.pictures.read import images, preprocess
from fgonnx.pictures.read.complete import complete
from fgonnx.pictures.show import pair
from fgonnx.pictures.show.sheet import Certificate
from tests import skips
from tests.cli_support import HEADER, IMAGES, SHAPES, good, model, refused, run, written
from tests.support import run as plain_run

RNG = np.random.default_rng(0)
NOISE = RNG.random((40, 48))
SPOT = np.exp(-((np.mgrid[:40, :48] - np.array([12, 30])[:, None, None]) ** 2).sum(axis=0) / 60.0)


class TestMeasures:
    @pytest.mark.parametrize("map_", [NOISE, SPOT, np.zeros((9, 9))], ids=["noise", "spot", "flat"])
    def test_equal_maps_agree_completely(self, map_):
        for measure in (measures.rank_correlation, measures.correlation, measures.ssim, measures.overlap):
            assert measure(map_, map_) == pytest.approx(1)
        assert measures.peak_distance(map_, map_) == 0

    def test_units_and_offsets_do_not_matter(self):
        for measure in (measures.rank_correlation, measures.correlation, measures.ssim, measures.overlap):
            assert measure(SPOT, 3 + 7 * SPOT) == pytest.approx(1)

    def test_monotone_maps_have_one_order(self):
        assert measures.rank_correlation(NOISE, NOISE**3) == pytest.approx(1)
        assert measures.correlation(NOISE, NOISE**3) < 0.95

    def test_the_negative_disagrees(self):
        assert measures.rank_correlation(NOISE, -NOISE) == pytest.approx(-1)
        assert measures.correlation(NOISE, -NOISE) == pytest.approx(-1)
        assert measures.ssim(NOISE, -NOISE) < -0.5
        assert measures.overlap(NOISE, -NOISE) == 0

    def test_unrelated_maps_are_near_zero(self):
        other = np.random.default_rng(1).random(NOISE.shape)
        assert abs(measures.rank_correlation(NOISE, other)) < 0.1
        assert abs(measures.ssim(NOISE, other)) < 0.1
        assert measures.overlap(NOISE, other) < 0.15

    def test_a_flat_map_says_nothing(self):
        assert measures.correlation(SPOT, np.ones(SPOT.shape)) == 0
        assert measures.rank_correlation(np.ones(SPOT.shape), SPOT) == 0

    @pytest.mark.parametrize(("shift", "hit"), [(0, 1), (3, 1), (5, 0), (15, 0)])
    def test_the_same_peak_allows_15_of_224(self, shift, hit):
        moved = np.roll(SPOT, -shift, axis=1)
        distance = measures.peak_distance(SPOT, moved)
        assert distance == pytest.approx(shift / 48)
        assert (distance <= measures.TOLERANCE) == hit

    def test_one_hot_pixel_is_no_peak(self):
        hot = SPOT.copy()
        hot[38, 2] = 1.3
        assert measures.peak_distance(SPOT, hot) <= measures.TOLERANCE

    def test_overlap_counts_the_strongest_twentieth(self):
        a = np.zeros((10, 10))
        b = np.zeros((10, 10))
        a[0, :5], b[0, 2:7] = 1 + np.arange(5), 1 + np.arange(5)
        assert measures.overlap(a, b) == pytest.approx(3 / 5)
        assert measures.overlap(a, b, share=1.0) == 1

    @pytest.mark.parametrize(
        ("difference", "of", "share"),
        [(0, 0, 0), (0, 3, 0), (1, 4, 0.25), (8, 2, 4), (1e-300, 0, 1), (1e300, 0, 1), (1e150, 1e-160, 1e100)],
    )
    def test_a_relative_difference_is_finite(self, difference, of, share):
        assert measures.relative(difference, of) == share

    def test_maps_of_two_sizes_are_compared_in_the_larger(self):
        small = cv2.resize(SPOT, (24, 20), interpolation=cv2.INTER_AREA)
        assert [m.shape for m in measures.same_size(small, SPOT)] == [(40, 48), (40, 48)]
        assert measures.correlation(small, SPOT) > 0.99
        assert measures.same_size(np.ones((3, 4, 5)), np.ones(7))[0].shape == (4, 7)

    def test_maps_that_are_no_numbers_are_refused(self):
        with pytest.raises(InputError, match="NaN or infinity"):
            measures.correlation(SPOT, np.full(SPOT.shape, np.nan))
        with pytest.raises(InputError, match="empty"):
            measures.correlation(SPOT, np.zeros((0, 3)))

    def test_rank_correlation_is_scipys(self):
        stats = skips.without("scipy.stats")
        tied = np.round(NOISE * 6)
        expected = stats.spearmanr(tied.ravel(), SPOT.ravel()).statistic
        assert measures.rank_correlation(tied, SPOT) == pytest.approx(expected)

    def test_ssim_is_scikit_images(self):
        metrics = skips.without("skimage.metrics")
        a, b = ((m - m.min()) / np.ptp(m) for m in (SPOT, SPOT + 0.3 * NOISE))
        expected = metrics.structural_similarity(
            a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert measures.ssim(a, b) == pytest.approx(expected, abs=1e-6)

    def test_ssim_is_its_formula_at_the_only_position_of_a_window(self):
        a, b = NOISE[:11, :11], NOISE[20:31, 20:31]
        a, b = ((m - m.min()) / np.ptp(m) for m in (a, b))
        line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
        w = np.outer(line, line) / line.sum() ** 2
        mu, nu = (w * a).sum(), (w * b).sum()
        va, vb, cov = (w * (a - mu) ** 2).sum(), (w * (b - nu) ** 2).sum(), (w * (a - mu) * (b - nu)).sum()
        expected = (2 * mu * nu + 1e-4) * (2 * cov + 9e-4) / ((mu**2 + nu**2 + 1e-4) * (va + vb + 9e-4))
        assert measures.ssim(a, b) == pytest.approx(expected, abs=1e-9)


def shapes_pictures():
    pre = complete(preprocess.Preprocessing.from_json(load(SHAPES).preprocessing_json()), [None, 3, 64, 64], np.float32)
    return np.stack([pre.apply(images.read(p).rgb) for p in sorted(IMAGES.iterdir())])


@pytest.fixture(scope="module")
def pictures():
    return shapes_pictures()


@pytest.fixture(scope="module")
def quantised(tmp_path_factory, pictures):
    """The shipped network in every form that onnxruntime's quantiser writes, by name of the form."""
    quantization = skips.without("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("quantised")
    source = folder / "folded.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(source)
    options.log_severity_level = 4
    ort.InferenceSession(SHAPES, options, providers=["CPUExecutionProvider"])

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self):
            self.rest = iter([{"image": x[None]} for x in pictures])

        def get_next(self):
            return next(self.rest, None)

    for form in ("QDQ", "QOperator"):
        quantization.quantize_static(
            source, folder / f"{form}.onnx", Calibration(), quant_format=getattr(quantization.QuantFormat, form)
        )
    quantization.quantize_dynamic(source, folder / "dynamic.onnx", weight_type=quantization.QuantType.QUInt8)
    return {form: _described(folder / f"{form}.onnx") for form in ("QDQ", "QOperator", "dynamic")}


def _described(path):
    """Give a quantised copy the metadata of its source, as a release would."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    proto.metadata_props.extend(onnx.load(SHAPES).metadata_props)
    onnx.save(proto, path)
    return path


def halved(path):
    """Return a network with weights, input and output in half precision."""
    half = onnx.load(path)
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for face in (*half.graph.input, *half.graph.output):
        face.type.tensor_type.elem_type = TensorProto.FLOAT16
    return half


FORMS = ("QDQ", "QOperator", "dynamic")


@pytest.fixture(scope="module")
def comparisons(quantised, pictures):
    return {form: fgonnx.compare(SHAPES, path, pictures, threads=1) for form, path in quantised.items()}


class TestQuantised:
    @pytest.mark.parametrize("form", FORMS)
    def test_a_good_int8_model_looks_at_the_same_thing(self, comparisons, form):
        found = comparisons[form]
        assert found.measures["top1"].min() == 1
        # A map of a symmetric shape has several peaks of nearly one height.
        assert found.measures["pointing"].mean() > 0.8
        assert found.measures["rank_correlation"].min() > 0.8
        assert found.measures["score_difference"].max() < 0.05
        assert 0 < found.measures["quantisation_b"].max() < 0.5
        assert found.measures["quantisation_a"].max() == 0
        assert found.parted() == []

    @pytest.mark.parametrize("form", FORMS)
    def test_certificates_account_for_the_difference_of_the_two_outputs(self, comparisons, quantised, pictures, form):
        found = comparisons[form]
        rows = np.arange(len(found))
        # One by one: the dynamic form picks its scales for a whole batch.
        plain = [
            np.concatenate([plain_run(str(path), {"image": x[None]}, optimise=False)["logits"] for x in pictures])
            for path in (SHAPES, quantised[form])
        ]
        plain = [logits[rows, found.a.target].astype(np.float64) for logits in plain]
        sums = [e.contributions.astype(np.float64).sum(axis=1) for e in (found.a, found.b)]
        scale = np.abs(found.a.contributions).sum(axis=1) + np.abs(found.b.contributions).sum(axis=1)
        assert (np.abs((plain[1] - plain[0]) - (sums[1] - sums[0])) < 1e-5 * scale).all()
        assert (np.abs(found.residual()) < 1e-5 * scale).all()

    @pytest.mark.parametrize("form", FORMS)
    def test_every_contribution_lies_in_a_stretch(self, comparisons, form):
        found = comparisons[form]
        for e, parts, rounding in (
            (found.a, found.parts_a, found.rounding_a),
            (found.b, found.parts_b, found.rounding_b),
        ):
            np.testing.assert_allclose((parts + rounding).sum(axis=1), e.contributions.sum(axis=1), rtol=1e-4)
            np.testing.assert_allclose(parts[:, -1], e.contributions[:, 0], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("form", FORMS)
    def test_all_layers_are_matched_though_normalisations_are_folded(self, comparisons, form):
        found = comparisons[form]
        assert found.unmatched == (0, 0)
        layers = {p.layer for p in found.points}
        assert {"/stem/conv/Conv", "/res2/first/conv/Conv", "/last/conv/Conv"} <= layers
        assert found.points[-1].where == "head"
        assert found.added.max() < 0.05

    def test_a_model_is_like_itself(self, pictures):
        found = fgonnx.compare(SHAPES, SHAPES, pictures[:2], threads=1)
        for name in ("top1", "rank_correlation", "correlation", "ssim", "overlap", "pointing"):
            assert found.measures[name] == pytest.approx(1)
        assert found.error.max() == 0
        assert found.residual() == pytest.approx(0)

    def test_half_precision_is_compared_too(self, tmp_path):
        # A head behind global pooling, so that rounding is all that differs.
        path = model(SMALL_NET, tmp_path / "a.onnx")
        half = halved(path)
        x = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
        found = fgonnx.compare(path, half, x, x.astype(np.float16), threads=1)
        assert found.measures["rank_correlation"].min() > 0.99
        assert 0 < found.measures["layer_error"].max() < 0.01

    @pytest.mark.parametrize("form", FORMS)
    def test_names_of_twins_say_nothing(self, comparisons, quantised, pictures, form, monkeypatch):
        monkeypatch.setattr(fgonnx.engine.normal.quantised, "PREFIX", "another/")
        renamed = fgonnx.compare(SHAPES, quantised[form], pictures[:2], threads=1)
        assert any(s.node.startswith("another/") for s in renamed.b.sites)
        assert renamed.points == comparisons[form].points
        assert renamed.unmatched == (0, 0)
        np.testing.assert_array_equal(renamed.added, comparisons[form].added[:2])

    @pytest.mark.parametrize("prefix", ["widened/", "another/"])
    def test_the_models_own_names_may_look_like_those_of_twins(self, tmp_path, prefix, monkeypatch):
        monkeypatch.setattr(fgonnx.engine.normal.half, "PREFIX", prefix)
        path = model(SMALL_NET, tmp_path / "a.onnx")
        half = halved(path)
        for node in half.graph.node:
            node.name = f"widened/{node.op_type}::wide"
        x = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
        found = fgonnx.compare(path, half, x, x.astype(np.float16), threads=1)
        assert {p.other for p in found.points if p.where == "gives"} == {"widened/Conv::wide"}

    def test_the_target_of_a_is_explained_in_both(self, pictures, quantised):
        found = fgonnx.compare(SHAPES, quantised["QDQ"], pictures[:2], target="star", threads=1)
        assert found.a.target.tolist() == found.b.target.tolist() == [3, 3]

    def test_a_cotangent_is_explained_in_both(self, pictures, quantised):
        seed = np.array([1, 0, 0, -1, 0, 0], np.float32)
        found = fgonnx.compare(SHAPES, quantised["QDQ"], pictures[:1], target=Cotangent(seed), threads=1)
        assert found.a.target is None
        assert found.a.score == pytest.approx(found.b.score, abs=0.3)
        assert found.residual() == pytest.approx(0, abs=1e-4)


SMALL_NET = (
    HEADER
    + """
g (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w = {WEIGHTS}, float[4] b = {0.1, 0.2, -0.3, 0.4}>
{ c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  p = GlobalAveragePool(r)  y = Flatten(p) }"""
)


def _set(proto, name, array):
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), name))


def _get(proto, name):
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


def _own_copy(proto, node, i, array):
    """Give one input of a node an initializer of its own, so that nothing else changes with it."""
    name = f"{node.name}_{i}_broken"
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    node.input[i] = name


def _node(proto, name):
    return next(n for n in proto.graph.node if n.name == name)


def weights_saturated(proto, form):
    """Let a layer's weights saturate: they were quantised with a third of their range."""
    name = "ConvBnFusion_W_res2.first.conv.weight_quantized"
    w = _get(proto, name)
    zero = int(_get(proto, "ConvBnFusion_W_res2.first.conv.weight_zero_point").ravel()[0])
    limits = np.iinfo(w.dtype)
    third = max(abs(int(w.min()) - zero), abs(int(w.max()) - zero)) // 3
    clipped = np.clip(w.astype(int) - zero, -third, third) + zero
    assert limits.min <= clipped.min()
    _set(proto, name, clipped.astype(w.dtype))
    return "/res2/first/conv/Conv"


def weight_zero_point(proto, form):
    """Read a layer's weights with a wrong zero point."""
    names = {
        "QDQ": ("ConvBnFusion_W_down2.conv.weight_DequantizeLinear", 2),
        "QOperator": ("/down2/conv/Conv_quant", 5),
        "dynamic": ("/down2/conv/Conv_quant", 3),
    }
    node, i = _node(proto, names[form][0]), names[form][1]
    zero = _get(proto, node.input[i])
    _own_copy(proto, node, i, (zero.astype(int) + 20).astype(zero.dtype))
    return "/down2/conv/Conv"


def activation_zero_point(proto, form):
    """Let a layer round to another zero point than the one it is read with."""
    node = _node(proto, "/down3/relu/Relu_output_0_QuantizeLinear" if form == "QDQ" else "/down3/conv/Conv_quant")
    i = 2 if form == "QDQ" else 7
    zero = _get(proto, node.input[i])
    _own_copy(proto, node, i, (zero.astype(int) + 40).astype(zero.dtype))
    # What /last reads of it is wrong, and that stretch ends behind /down3.
    return "/last/conv/Conv"


def activation_range(proto, form):
    """Let a layer's results saturate: calibrated with a tenth of their range, written and read alike."""
    name = "/down3/relu/Relu_output_0_scale" if form == "QDQ" else "/down3/norm/BatchNormalization_output_0_scale"
    _set(proto, name, (_get(proto, name) / 10).astype(np.float32))
    return "/last/conv/Conv"


BROKEN = [
    (form, how)
    for form in FORMS
    for how in (weights_saturated, weight_zero_point, activation_zero_point, activation_range)
    if form != "dynamic" or how in (weights_saturated, weight_zero_point)
]


class TestBroken:
    @pytest.mark.parametrize(("form", "how"), BROKEN, ids=lambda v: v if isinstance(v, str) else v.__name__)
    def test_the_layer_named_is_the_broken_one(self, form, how, quantised, pictures):
        proto = onnx.load(quantised[form])
        layer = how(proto, form)
        found = fgonnx.compare(SHAPES, proto, pictures[:2], threads=1)
        point, added = found.parted()[0]
        assert point.layer == layer
        assert added > 0.05
        if how is activation_zero_point or how is activation_range:
            assert point.where == "reads"
            assert "/down3/" in point.other or "/last/" in point.other
        else:
            assert point.where == "gives"

    def test_only_what_stands_out_is_named(self):
        points = ("p", "q", "r", "s", "t")
        assert parted(points, np.array([0.01, 0.02, 0.01, 0.02, 0.01])) == []
        assert parted(points, np.array([0.01, 0.3, 0.01, 0.4, 0.01])) == [("s", 0.4), ("q", 0.3)]
        assert parted(points, np.array([0.2, 0.2, 0.2, 0.3, 0.2])) == []


class TestCommandLine:
    def test_a_report_without_limits(self, quantised, tmp_path):
        out = tmp_path / "out"
        text = good("compare", SHAPES, quantised["QDQ"], IMAGES, "-o", out, "--threads", 1)
        names = sorted(p.stem for p in IMAGES.iterdir())
        assert written(out) == sorted([*(f"{n}.png" for n in names), "summary.csv", "summary.json"])
        assert "No layer stands out" in text
        assert "passed" not in text.replace("are passed straight through as quantisers", "")
        summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
        assert summary["complete"]
        assert summary["passed"]
        assert [row["label_b"] for row in summary["images"]] == names
        assert summary["measures"]["top1"] == {
            "meaning": summary["measures"]["top1"]["meaning"],
            "mean": 1,
            "min": 1,
            "max": 1,
            "worst": None,
        }
        for row in summary["images"]:
            assert abs(row["residual"]) < 1e-3
        with (out / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [r["image"] for r in rows[-3:]] == ["mean", "min", "max"]
        assert len(rows) == len(names) + 3
        mean = np.mean([float(r["ssim"]) for r in rows[:-3]])
        assert float(rows[-3]["ssim"]) == pytest.approx(mean)
        assert cv2.imread(str(out / "star.png")).shape[0] == 720

    def test_limits_that_hold_are_exit_code_0(self, quantised, tmp_path):
        text = good(
            "compare",
            SHAPES,
            quantised["QOperator"],
            IMAGES / "star.png",
            "-o",
            tmp_path / "out",
            "--threads",
            1,
            "--min-top1",
            1,
            "--min-rank-correlation",
            0.8,
            "--max-layer-error",
            0.1,
            "--max-quantisation",
            0.9,
            "--max-score-difference",
            0.1,
            "--min-ssim",
            0.5,
            "--min-overlap",
            0.3,
            "--min-pointing",
            1,
            "--min-correlation",
            0.5,
        )
        assert text.endswith("passed")

    def test_a_limit_that_fails_is_exit_code_1_and_named(self, quantised, tmp_path):
        proto = onnx.load(quantised["QDQ"])
        weights_saturated(proto, "QDQ")
        onnx.save(proto, tmp_path / "broken.onnx")
        result = run(
            "compare",
            SHAPES,
            tmp_path / "broken.onnx",
            IMAGES / "star.png",
            "-o",
            tmp_path / "out",
            "--threads",
            1,
            "--max-layer-error",
            0.05,
            "--min-top1",
            0,
        )
        text = " ".join(result.stdout.split())
        assert result.exit_code == 1
        assert "They part at /res2/first/conv/Conv" in text
        assert text.endswith("failed: largest layer error")
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert not summary["passed"]
        assert summary["parted"][0]["node_b"] == "/res2/first/conv/Conv"
        assert {c["measure"]: c["holds"] for c in summary["limits"]} == {"top1": True, "layer_error": False}

    def test_the_mean_may_be_judged_instead_of_the_worst(self, quantised, tmp_path):
        two = IMAGES / "star.png", IMAGES / "circle.png"
        ask = ("compare", SHAPES, quantised["QDQ"], *two, "-o", tmp_path / "out", "--threads", 1)
        good(*ask)
        spread = json.loads((tmp_path / "out" / "summary.json").read_text())["measures"]["overlap"]
        between = (spread["mean"] + spread["min"]) / 2
        assert run(*ask, "--min-overlap", between).exit_code == 1
        assert run(*ask, "--min-overlap", between, "--judge", "mean").exit_code == 0

    def test_each_model_has_its_own_preprocessing(self, tmp_path):
        a = model(SMALL_NET, tmp_path / "a.onnx")
        # B takes bytes and does by itself what A leaves to the preprocessing.
        proto = onnx.load(a)
        proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 8, 8, 3]))
        proto.graph.initializer.extend(
            [
                numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
                numpy_helper.from_array(np.array(0, np.uint8), "zero"),
            ]
        )
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["d"], name="d"),
            helper.make_node("Transpose", ["d"], ["t"], name="t", perm=[0, 3, 1, 2]),
        ]
        rest = [helper.make_node("Conv", ["t", "w", "b"], ["c"], pads=[1, 1, 1, 1]), *proto.graph.node[1:]]
        del proto.graph.node[:]
        proto.graph.node.extend([*nodes, *rest])
        onnx.save(proto, tmp_path / "b.onnx")
        text = good(
            "compare",
            a,
            tmp_path / "b.onnx",
            IMAGES / "star.png",
            "-o",
            tmp_path / "out",
            "--threads",
            1,
            "--preprocess-a",
            "unit,channels=RGB",
            "--preprocess",
            "raw",
            "--min-rank-correlation",
            0.999,
        )
        assert text.endswith("passed")

    def test_pictures_before_a_bad_one_are_not_lost(self, quantised, tmp_path):
        (tmp_path / "z.png").write_bytes(b"no picture")
        out = tmp_path / "out"
        message = refused(
            "compare", SHAPES, quantised["QDQ"], IMAGES / "star.png", tmp_path / "z.png", "-o", out, "--threads", 1
        )
        assert "z.png' cannot be decoded" in message
        assert written(out) == ["star.png", "summary.csv", "summary.json"]
        summary = json.loads((out / "summary.json").read_text())
        assert not summary["complete"]
        assert not summary["passed"]

    def test_it_explains_itself(self):
        text = good("compare", "--help")
        assert "Examples" in text
        assert "--max-layer-error" in text


ZEROS = {
    "a branch": "a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b)",
    "a dead layer": "h = MatMul(x, v) r = Relu(h) y = MatMul(r, w)",
    "the answer": "y = MatMul(x, v)",
}


@pytest.mark.parametrize("nodes", ZEROS.values(), ids=ZEROS)
def test_layers_of_a_that_are_all_zeros_have_finite_errors(nodes, tmp_path):
    text = f"{HEADER} net (float[N,2] x) => (float[N,2] y) <float[2,2] w = {{1,0,0,1}}, float[2,2] v> {{ {nodes} }}"
    for name, weight in (("a", 0.0), ("b", 50.0)):
        weights = f"v = {{0,0,{weight},{weight}}}"
        model(text.replace("float[2,2] v", f"float[2,2] {weights}"), tmp_path / f"{name}.onnx")
    np.save(tmp_path / "x.npy", np.array([[3, 1], [1, 5]], np.float32))
    good("compare", tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "x.npy", "-o", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["measures"]["layer_error"]["max"] == 1


class TestRefusals:
    def compare(self, b, tmp_path, *args):
        message = refused("compare", SHAPES, b, IMAGES / "star.png", "-o", tmp_path / "out", *args)
        assert written(tmp_path / "out") == []
        return message

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (0.0, "is zero: its calibration saw one value only"),
            (np.inf, "is inf"),
            (-0.5, "is -0.5"),
            (np.nan, "is nan"),
        ],
    )
    @pytest.mark.parametrize("form", ["QDQ", "QOperator"])
    def test_scales_that_are_none(self, form, value, why, quantised, tmp_path):
        proto = onnx.load(quantised[form])
        name = "/pool/GlobalAveragePool_output_0_scale"
        _set(proto, name, np.array(value, np.float32))
        onnx.save(proto, tmp_path / "b.onnx")
        message = self.compare(tmp_path / "b.onnx", tmp_path)
        assert f"b.onnx: the scale '{name}'" in message
        assert why in message
        assert "calibrate the model again" in message

    def test_another_number_of_classes(self, tmp_path):
        text = SMALL_NET.replace("[N,3,8,8]", "[N,3,64,64]")
        path = model(text, tmp_path / "b.onnx")
        message = self.compare(path, tmp_path, "--preprocess", "unit,channels=RGB")
        assert "shapes.onnx has 6 entries, b.onnx has 4" in message

    def test_another_number_of_samples(self, pictures):
        with pytest.raises(InputError, match="2 samples for the one model and 3 for the other"):
            Comparer(SHAPES, SHAPES, threads=1)(pictures[:2], pictures[:3])

    def test_a_model_that_is_none(self, tmp_path):
        assert "no such file" in self.compare(tmp_path / "none.onnx", tmp_path)

    def test_an_unknown_way_to_judge(self, tmp_path):
        assert "--judge best does not exist" in self.compare(SHAPES, tmp_path, "--judge", "best")

    def test_classes_differ_in_python(self, tmp_path, pictures):
        path = model(SMALL_NET.replace("[N,3,8,8]", "[N,3,64,64]"), tmp_path / "b.onnx")
        with pytest.raises(ModelError, match="answer different questions"):
            fgonnx.compare(SHAPES, path, pictures[:1])


class TestPicture:
    PHOTO = np.full((60, 80, 3), 128, np.uint8)

    def test_equal_maps_leave_the_photo_grey(self):
        shown = pair.difference(self.PHOTO, SPOT, SPOT)
        assert np.ptp(shown.astype(int), axis=2).max() == 0

    def test_a_is_blue_and_b_is_red(self):
        for first, second, channel in ((SPOT, np.zeros(SPOT.shape), 2), (np.zeros(SPOT.shape), SPOT, 0)):
            shown = pair.difference(self.PHOTO, first, second).astype(int)
            strongest = np.unravel_index(np.ptp(shown, axis=2).argmax(), shown.shape[:2])
            assert shown[strongest].argmax() == channel

    @pytest.mark.parametrize("size", [(60, 80), (20, 400), (300, 40)], ids=str)
    def test_photos_of_any_proportions(self, size):
        drawn = pair.draw(np.zeros((*size, 3), np.uint8), SPOT, NOISE, Certificate("t", ["a"], [("input", 1.0)]))
        assert drawn.shape[0] == 720
        assert drawn.dtype == np.uint8


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
class TestTrained:
    ASK = ("--preprocess-a", "tf", "--preprocess-b", "raw,resize=crop,dtype=uint8")

    def models(self, shared):
        return [shared / "models" / f"mobilenet_v2_tf_{name}.onnx" for name in ("fp32", "qdq_uint8io")]

    def test_mobilenet_and_its_int8_form(self, shared, tmp_path):
        pictures = [shared / "images" / name for name in ("sk_coffee.png", "wonnx_pelican.jpg")]
        text = good(
            "compare",
            *self.models(shared),
            *pictures,
            "-o",
            tmp_path / "out",
            *self.ASK,
            "--threads",
            1,
            "--labels",
            shared / "labels" / "synset.txt",
            "--min-top1",
            1,
            "--min-rank-correlation",
            0.9,
            "--max-layer-error",
            0.1,
            "--max-score-difference",
            0.1,
        )
        assert text.endswith("passed")
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert [row["label_b"] for row in summary["images"]] == ["espresso", "pelican"]
        assert len({layer["layer"] for layer in summary["layers"]}) >= 53
        for row in summary["images"]:
            assert row["probability_a"] == pytest.approx(row["probability_b"], abs=0.05)
