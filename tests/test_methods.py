"""Methods as one family: what each is called and gives, seeds, batches, targets, other architectures, refusals."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import fgonnx
from benchmarks import methods as page
from fgonnx import Explainer
from fgonnx.engine import methods
from fgonnx.engine.graph.session import Session
from fgonnx.errors import OptionError, UnsupportedError
from tests import skips
from tests.cli_support import CIRCLE, IMAGES, SHAPES, good, refused
from tests.support import draw, model, pictures, run, small_cnn

X = pictures(3)
CNN = small_cnn()
ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"expected-gradients": {"references": pictures(4, seed=9)}}
FEW = {
    "expected-gradients": {"samples": 6},
    "integrated-gradients": {"steps": 6},
    "rise": {"samples": 20},
    "smooth-fullgrad": {"samples": 5},
    "smoothgrad": {"samples": 5},
    "smoothgrad-squared": {"samples": 5},
    "vargrad": {"samples": 5},
}
ONE_RUN = [name for name in methods.names() if methods.find(name).drive is None]
DRAWN = [name for name in methods.names() if hasattr(methods.find(name).set(NEEDED.get(name, {})), "random_state")]
WITH_ATTRIBUTION = {
    "gradient",
    "gradient-x-input",
    "guided-backprop",
    "deconvnet",
    "smoothgrad",
    "smoothgrad-squared",
    "vargrad",
    "integrated-gradients",
    "expected-gradients",
    "lrp-epsilon",
}
every_method = pytest.mark.parametrize("name", methods.names())


def explain(name, x=X, target=None, source=CNN, seed=None, **options):
    settings = {**NEEDED.get(name, {}), **FEW.get(name, {}), **options}
    return Explainer(source, method=name, threads=1, **settings)(x, target, seed=seed)


@every_method
def test_gives_a_map_of_the_inputs_size(name):
    e = explain(name)
    assert e.saliency.shape == (3, 8, 6)
    assert np.isfinite(e.saliency).all()
    assert e.saliency.min() >= 0
    assert e.saliency.max() > 0


@every_method
def test_gives_outputs_target_and_score_of_the_model(name):
    e, truth = explain(name), run(CNN, {"x": X})["y"]
    np.testing.assert_allclose(e.outputs["y"], truth, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(e.target, truth.argmax(1))
    if name != "smooth-fullgrad":
        np.testing.assert_allclose(e.score, truth.max(1), rtol=1e-5)


@every_method
def test_only_full_gradients_and_their_mean_have_a_certificate(name):
    certified = ("fullgrad", "net-fullgrad", "fullgrad+", "smooth-fullgrad")
    assert (explain(name).completeness is not None) == (name in certified)


@every_method
def test_the_attribution_has_the_inputs_shape(name):
    found = explain(name).attribution
    assert found is None if name not in WITH_ATTRIBUTION else found.shape == X.shape


@every_method
def test_does_not_depend_on_the_batch_size(name):
    found = explain(name, batch_size=2).saliency
    np.testing.assert_allclose(found, explain(name, batch_size=7).saliency, rtol=1e-4, atol=1e-5)


@every_method
def test_a_target_or_its_seed_are_the_same(name):
    seed = np.zeros(5, np.float32)
    seed[3] = 1
    expected = explain(name, target=3).saliency
    np.testing.assert_allclose(explain(name, seed=seed).saliency, expected, rtol=1e-4, atol=1e-6)


@every_method
def test_a_fixed_batch_and_channels_last_are_the_same(name):
    source = small_cnn(batch=1, layout="NHWC")
    swap = {"references": np.moveaxis(NEEDED[name]["references"], 1, -1)} if name in NEEDED else {}
    # Noise is drawn in the order of the input's axes: only without it are the two the same.
    still = {"sigma": 0.0} if hasattr(methods.find(name).set(NEEDED.get(name, {})), "sigma") else {}
    expected = explain(name, **still).saliency
    found = explain(name, np.moveaxis(X, 1, -1), source=source, layout="NHWC", **swap, **still).saliency
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_what_the_seed_says(name):
    first, again, other = (explain(name, random_state=s).saliency for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


@pytest.mark.parametrize("name", ONE_RUN)
def test_a_method_of_one_run_is_a_standard_onnx_file(name):
    rewritten = fgonnx.rewrite(CNN, method=name)
    assert {n.domain for n in rewritten.graph.node} == {""}
    np.testing.assert_allclose(run(rewritten, {"x": X})["saliency"], explain(name).saliency, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in methods.names() if n not in ONE_RUN])
def test_a_method_of_several_runs_is_no_file(name):
    with pytest.raises(OptionError, match="is not one feed-forward file; use fgonnx"):
        fgonnx.rewrite(CNN, method=name)


class TestPasses:
    @pytest.fixture
    def runs(self, monkeypatch):
        """Runs of the explained model: how many samples, and whether for more than the score."""
        seen, original = [], Session.run

        def counted(session, feeds, outputs=None):
            if "x" in feeds:
                seen.append((len(feeds["x"]), outputs is None or list(outputs) != ["score"]))
            return original(session, feeds, outputs)

        monkeypatch.setattr(Session, "run", counted)
        return seen

    @pytest.mark.parametrize("name", [n for n in methods.names() if n != "score-cam"])
    def test_are_as_many_as_said(self, name, runs):
        source = model(
            """(float[N,1,28,28] x) => (float[N,3] y) {
                a = Conv<kernel_shape=[3,3]>(x, w)
                b = Relu(a)
                c = GlobalAveragePool(b)
                y = Flatten(c)
            }""",
            weights=draw(w=(3, 1, 3, 3)),
        )
        options = {"references": pictures(4, (1, 28, 28))} if name in NEEDED else {}
        explainer, x = (
            Explainer(source, method=name, threads=1, batch_size=64, verify=False, **options),
            pictures(1, (1, 28, 28)),
        )
        explainer.engine(x.shape)
        runs.clear()  # of what finding out the shapes took
        explainer(x)
        backward = sum(n for n, more in runs if more) if methods.find(name).gradient else 0
        said = f"{sum(n for n, _ in runs)} forward" + (f", {backward} backward" if backward else "")
        assert methods.find(name).cost == said


class TestDefinitions:
    def test_integrated_gradients_sum_to_the_difference_of_the_scores(self):
        e = explain("integrated-gradients", steps=200)
        start = run(CNN, {"x": np.zeros_like(X)})["y"][range(3), e.target]
        # ReLUs that switch between two steps make the sum of 200 steps coarse
        np.testing.assert_allclose(e.attribution.sum((1, 2, 3)), e.score - start, atol=1e-2)
        np.testing.assert_allclose(e.delta, e.attribution.sum((1, 2, 3)) - (e.score - start), atol=1e-5)

    def test_delta_shrinks_with_the_steps(self):
        few, many = (np.abs(explain("integrated-gradients", steps=n).delta).max() for n in (3, 300))
        assert many < few / 5

    def test_expected_gradients_sum_to_the_difference_to_the_mean_score(self):
        references = pictures(6, seed=4)
        e = explain("expected-gradients", references=references, samples=2000)
        start = run(CNN, {"x": references})["y"].mean(0)[e.target]
        # a mean over 2000 draws, whose spread is a few times the score
        np.testing.assert_allclose(e.attribution.sum((1, 2, 3)), e.score - start, atol=0.15 * np.abs(e.score).max())

    def test_smoothgrad_without_noise_is_the_gradient(self):
        found = explain("smoothgrad", sigma=0.0).attribution
        np.testing.assert_allclose(found, explain("gradient").attribution, rtol=1e-5, atol=1e-7)

    def test_vargrad_without_noise_is_zero(self):
        assert explain("vargrad", sigma=0.0).saliency.max() == 0

    def test_psi_says_what_is_summed_over_channels(self):
        signed = explain("gradient").attribution
        for psi, values in (("abs", np.abs(signed)), ("positive", np.maximum(signed, 0)), ("signed", signed)):
            np.testing.assert_allclose(explain("gradient", psi=psi).saliency, values.sum(1), rtol=1e-4, atol=1e-6)

    def test_relevance_is_conserved_where_there_is_no_bias(self):
        source = small_cnn()
        for tensor in source.graph.initializer:
            if tensor.name.startswith("b"):
                tensor.raw_data = bytes(len(tensor.raw_data))
        e = explain("lrp-epsilon", source=source, epsilon=1e-9)
        np.testing.assert_allclose(e.attribution.sum((1, 2, 3)), e.score, rtol=1e-5)

    def test_relevance_passes_through_activations(self):
        source = model(
            "(float[N,4] x) => (float[N,3] y) { a = Gemm<transB=1>(x, w)\n b = Tanh(a)\n y = Gemm<transB=1>(b, v) }",
            weights=draw(w=(6, 4), v=(3, 6)),
        )
        x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
        w, v = (draw(w=(6, 4), v=(3, 6))[k].astype(np.float64) for k in "wv")
        shares = x[:, None].astype(np.float64) * w  # (N, 6, 4): what input j adds to sum k
        relevance = np.tanh(shares.sum(2)) * v[1]
        truth = (shares / shares.sum(2, keepdims=True) * relevance[..., None]).sum(1)
        np.testing.assert_allclose(explain("lrp-epsilon", x, 1, source).attribution, truth, rtol=1e-4, atol=1e-5)

    def test_edge_is_the_sobel_gradient(self):
        cv2 = skips.without("cv2")
        grey = X.astype(np.float64).mean(1)
        truth = [
            np.hypot(
                cv2.Sobel(g, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE),
                cv2.Sobel(g, cv2.CV_64F, 0, 1, borderType=cv2.BORDER_REPLICATE),
            )
            for g in grey
        ]
        np.testing.assert_allclose(explain("edge").saliency, truth, rtol=1e-5)

    @pytest.mark.parametrize("name", ["edge", "random", "eigen-cam"])
    def test_some_do_not_look_at_the_target(self, name):
        np.testing.assert_array_equal(explain(name, target=0).saliency, explain(name, target=4).saliency)


class TestMasks:
    # The score is one pixel.
    PIXEL = model(
        """(float[N,1,28,28] x) => (float[N,1] y) {
            s = Slice(x, begin, end, axes)
            y = Flatten(s)
        }""",
        weights={"begin": np.array([13, 6]), "end": np.array([14, 7]), "axes": np.array([2, 3])},
    )
    X = np.full((1, 1, 28, 28), 2.0, np.float32)

    def test_occlusion_is_the_fall_of_the_score(self):
        found = explain("occlusion", self.X, source=self.PIXEL, window=3, stride=1).saliency[0]
        assert found[13, 6] == 2
        assert set(np.argwhere(found > 0).min(0)) | set(np.argwhere(found > 0).max(0)) == {11, 4, 15, 8}

    def test_occlusion_puts_the_baseline_in(self):
        assert explain("occlusion", self.X, source=self.PIXEL, window=1, stride=1, baseline=2.0).saliency.max() == 0

    def test_rise_is_the_mean_of_masks_weighted_by_the_score(self):
        found = explain("rise", self.X, source=self.PIXEL, samples=4000).saliency[0]
        # Far away a mask is independent of the pixel's: E[m] x. At the pixel: E[m^2] / E[m] x, above that.
        np.testing.assert_allclose(found[:, 20:].mean(), 0.5 * 2, rtol=0.05)  # of 4000 masks drawn
        assert found[13, 6] > 0.6 * 2
        assert np.hypot(*(np.argwhere(found == found.max())[0] - (13, 6))) < 4

    def test_rise_that_keeps_all_is_the_score_everywhere(self):
        np.testing.assert_allclose(explain("rise", self.X, source=self.PIXEL, keep=1.0).saliency, 2, rtol=1e-5)

    @pytest.mark.parametrize("name", ["occlusion", "rise"])
    def test_black_boxes_need_no_rule(self, name):
        source = model(
            """(float[N,1,4,4] x) => (float[N,2] y) {
                a = Add(x, m)
                b = com.microsoft.Inverse(a)
                f = Flatten(b)
                y = Gemm<transB=1>(f, w)
            }""",
            weights={"m": np.eye(4, dtype=np.float32) * 9, **draw(w=(2, 16))},
        )
        source.opset_import.add(domain="com.microsoft", version=1)
        x = pictures(2, (1, 4, 4))
        with pytest.raises(UnsupportedError, match="Inverse"):
            explain("gradient", x, 0, source)
        assert np.ptp(explain(name, x, 0, source).saliency) > 0


class TestLayers:
    def test_the_last_layer_with_a_grid_is_found_and_told(self):
        assert explain("grad-cam").settings["layer"] == "f"  # Flatten keeps (channels, rows, columns) in one axis

    @pytest.mark.parametrize(
        ("tail", "layer"),
        [
            ("p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r) f = Flatten(p)", "r"),
            ("p = AveragePool<kernel_shape=[4,3], strides=[2,1]>(r) q = Identity(p) f = Flatten(q)", "r"),
            ("p = AveragePool<kernel_shape=[1,1]>(r) f = Flatten(p)", "r"),
            ("m = MaxPool<kernel_shape=[2,2]>(r) p = AveragePool<kernel_shape=[2,2]>(m) f = Flatten(p)", "m"),
            ("p = ReduceMean(r, rows) f = Flatten(p)", "r"),
            ("p = GlobalAveragePool(r) f = Flatten(p)", "r"),
            ("a, b = Split<axis=2, num_outputs=2>(r) s = Add(a, b) p = Div(s, two) f = Flatten(p)", "r"),
            ("p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) f = Flatten(p)", "f"),
            ("p = AveragePool<kernel_shape=[2,2]>(r) s = Sigmoid(p) f = Flatten(s)", "f"),
            ("p = AveragePool<kernel_shape=[2,2]>(r) n = Conv(p, k2) f = Flatten(n)", "f"),
        ],
    )
    def test_an_adaptive_pool_does_not_hide_the_last_one(self, tail, layer):
        body = f"c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) {tail} s2 = ReduceSum(f, one) y = Mul(f, s2)"
        source = model(
            f"(float[N,3,8,6] x) => (float[N,K] y) {{ {body} }}",
            weights=draw(k=(4, 3, 3, 3), k2=(5, 4, 1, 1))
            | {"rows": np.array([2]), "one": np.array([1]), "two": np.array(2, np.float32)},
        )
        found, named = (explain("grad-cam", pictures(2), 0, source, **k) for k in ({}, {"layer": layer}))
        assert found.settings["layer"] == layer
        np.testing.assert_array_equal(found.saliency, named.saliency)

    def test_a_layer_can_be_named(self):
        first, last = explain("grad-cam", layer="b"), explain("grad-cam", layer="e")
        assert first.settings["layer"] == "b"
        assert np.abs(first.saliency - last.saliency).max() > 1e-4

    def test_a_name_that_is_none_is_told_what_there_is(self):
        with pytest.raises(
            OptionError, match=r"layer='conv9' is no value with channels over a grid .* there are: a, b, "
        ):
            explain("grad-cam", layer="conv9")

    @pytest.mark.parametrize("name", ["grad-cam", "eigen-cam", "score-cam"])
    def test_without_a_grid_another_method_is_named(self, name):
        source = model(
            "(float[N,4] x) => (float[N,3] y) { a = Relu(x)\n y = Gemm<transB=1>(a, w) }", weights=draw(w=(3, 4))
        )
        with pytest.raises(OptionError, match="choose a method that works on the input, such as gradient"):
            explain(name, np.ones((1, 4), np.float32), source=source)


@pytest.fixture(scope="module")
def vit():
    skips.without("torch")
    from tests.witness.tokennets import NETS
    from tests.witness.torchnets import export

    build, shape = NETS["vit"]
    return export(build(1), shape, folded=True), pictures(2, shape[1:])


class TestTransformer:
    @pytest.mark.parametrize(
        "name", ["gradient", "integrated-gradients", "grad-cam", "layer-cam", "score-cam", "occlusion", "smoothgrad"]
    )
    def test_has_maps(self, vit, name):
        source, x = vit
        e = explain(name, x, source=source)
        assert e.saliency.shape == (2, *x.shape[2:])
        assert e.saliency.max() > 0

    def test_a_class_token_leads_to_the_last_layer_whose_patches_are_read(self, vit):
        source, x = vit
        assert "blocks.1/attention" in explain("grad-cam", x, source=source).settings["layer"]

    def test_relevance_is_refused_by_name(self, vit):
        source, x = vit
        with pytest.raises(
            UnsupportedError, match=r"Softmax.*: relevance propagation has no rule for it. Choose a method"
        ):
            explain("lrp-epsilon", x, source=source)

    @pytest.mark.parametrize("name", ["guided-backprop", "deconvnet"])
    def test_without_a_relu_these_are_refused(self, vit, name):
        source, x = vit
        with pytest.raises(OptionError, match="there is no Relu on the way to the score"):
            explain(name, x, source=source)


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "lrp-epsilon"])
def test_sequences(name):
    source = model(
        """(float[N,2,32] x) => (float[N,3] y) {
            a = Conv<kernel_shape=[5], pads=[2,2]>(x, w1, b1)
            b = Relu(a)
            c = MaxPool<kernel_shape=[4], strides=[4]>(b)
            d = GlobalAveragePool(c)
            e = Flatten(d)
            y = Gemm<transB=1>(e, w2)
        }""",
        weights=draw(w1=(4, 2, 5), b1=(4,), w2=(3, 4)),
    )
    x = pictures(2, (2, 32))
    options = {"references": pictures(3, (2, 32))} if name in NEEDED else {}
    assert explain(name, x, 1, source, **options).saliency.shape == (2, 32)


def test_eight_bit_pictures_stay_in_range():
    source = model(
        """(uint8[N,3,8,6] x) => (float[N,3] y) {
            f = Cast<to=1>(x)
            r = Relu(f)
            p = GlobalAveragePool(r)
            y = Flatten(p)
        }"""
    )
    x = np.full((1, 3, 8, 6), 250, np.uint8)
    x[0, 0, 0, 0] = 0
    # Noise above 255 would come round to 0; the score of the noisy copies would fall far below 250.
    assert explain("smooth-fullgrad", x, 1, source, samples=20).score[0] > 200


def test_a_quantised_model(shared):
    path = shared / "models" / "squeezenet1_1_qdq_int8.onnx"
    x = pictures(1, (3, 224, 224))
    for name in ("gradient", "grad-cam", "occlusion"):
        options = {"window": 112, "stride": 112} if name == "occlusion" else {}
        assert explain(name, x, source=str(path), **options).saliency.max() > 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("gradient", {"samples": 3}, "gradient has no setting 'samples'; it has none"),
            ("smoothgrad", {"step": 3}, "smoothgrad has no setting 'step'; it has: samples, sigma, random_state"),
            ("smoothgrad", {"samples": 0}, "samples=0 is out of range; give 1 or more"),
            ("integrated-gradients", {"steps": 0}, "steps=0 is out of range; give 1 or more"),
            ("integrated-gradients", {"baseline": np.zeros((3, 9, 6))}, r"the baseline has the shape \(3, 9, 6\)"),
            ("expected-gradients", {"references": None}, "needs references="),
            ("expected-gradients", {"references": np.zeros((2, 3, 9, 6))}, r"the references have the shape"),
            ("lrp-epsilon", {"epsilon": 0.0}, "give a number above 0"),
            ("occlusion", {"window": 0}, "=0 is out of range; give 1 or more"),
            ("rise", {"keep": 0.0}, "is out of range; give a number above 0"),
            ("rise", {"psi": "signed"}, "psi='signed' has no effect: the map of rise is made with abs"),
            ("gradient", {"profile": "paper"}, "profile='paper' has no effect: gradient shows no layers"),
            ("smoothgrad", {"input_gradient": True}, "smoothgrad is made of several runs"),
            ("grad-cam", {"bias_gradients": True}, "with grad-cam there is no output 'bias_gradients'"),
        ],
    )
    def test_of_settings(self, name, options, message):
        with pytest.raises(OptionError, match=message):
            explain(name, **options)

    def test_of_certificates_that_a_method_does_not_have(self):
        with pytest.raises(OptionError, match="with gradient there is no output 'completeness'; choose from: saliency"):
            fgonnx.rewrite(CNN, method="gradient", outputs=["completeness"])

    @pytest.mark.parametrize(
        ("name", "pair", "message"),
        [
            ("grad-cam", "layer", "'layer' is not of the form NAME=VALUE; write for example layer="),
            ("smoothgrad", "samples=many", "samples of smoothgrad cannot be 'many'"),
            (
                "expected-gradients",
                "references=nowhere.npy",
                "'nowhere.npy' does not exist",
            ),
        ],
    )
    def test_of_settings_as_text(self, name, pair, message):
        with pytest.raises(OptionError, match=message):
            methods.find(name).parse([pair])


def test_settings_as_text(tmp_path):
    np.save(tmp_path / "b.npy", np.ones((3, 8, 6)))
    found = methods.find("integrated-gradients").parse(["steps=7", f"baseline={tmp_path / 'b.npy'}"])
    assert found["steps"] == 7
    np.testing.assert_array_equal(found["baseline"], np.ones((3, 8, 6)))
    assert methods.find("integrated-gradients").parse(["baseline=0.5"]) == {"baseline": 0.5}
    assert methods.find("occlusion").parse(["window=9"]) == {"window": 9}
    assert methods.find("grad-cam").parse(["layer=12"]) == {"layer": "12"}


class TestCommandLine:
    def test_a_method_with_its_settings(self, tmp_path):
        good(
            "explain",
            SHAPES,
            CIRCLE,
            "-o",
            tmp_path,
            "--method",
            "lrp-epsilon",
            "--set",
            "epsilon=0.01",
            "--threads",
            1,
        )
        record = json.loads((tmp_path / "circle.json").read_text())
        assert record["settings"]["method"] == "lrp-epsilon"
        assert record["settings"]["epsilon"] == 0.01
        assert record["completeness"] is None
        assert record["sites"] == []
        assert np.load(tmp_path / "circle.npy").shape == (64, 64)

    def test_an_array_is_recorded_by_its_content(self, tmp_path):
        np.save(tmp_path / "r.npy", pictures(3, (3, 64, 64)))
        given = ("--set", f"references={tmp_path / 'r.npy'}", "--samples", 4)
        good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "expected-gradients", *given, "--threads", 1)
        settings = json.loads((tmp_path / "circle.json").read_text())["settings"]
        assert settings["references"].startswith("float32 [3, 3, 64, 64], sha256 ")
        assert settings["samples"] == 4

    def test_what_is_drawn_does_not_depend_on_the_other_pictures(self, tmp_path):
        noise = ("--method", "smoothgrad", "--samples", 3, "--threads", 1)
        good("explain", SHAPES, IMAGES, "-o", tmp_path / "all", *noise)
        good("explain", SHAPES, IMAGES / "star.png", "-o", tmp_path / "one", *noise)
        np.testing.assert_array_equal(np.load(tmp_path / "all" / "star.npy"), np.load(tmp_path / "one" / "star.npy"))

    def test_the_layer_is_noted(self, tmp_path):
        good("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "grad-cam", "--threads", 1)
        assert any(n.startswith("layer: /last/") for n in json.loads((tmp_path / "circle.json").read_text())["notes"])

    def test_a_file_of_another_method(self, tmp_path):
        out = tmp_path / "cam.onnx"
        good("rewrite", SHAPES, "-o", out, "--method", "grad-cam")
        names = [o.name for o in onnx.load(out).graph.output]
        assert names[1:] == ["saliency", "target", "score"]

    def test_a_setting_that_does_not_exist(self, tmp_path):
        message = refused("explain", SHAPES, CIRCLE, "-o", tmp_path, "--method", "grad-cam", "--samples", 3)
        assert "grad-cam has no setting 'samples'; it has: layer" in message


class TestPage:
    TEXT = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")

    def test_its_tables_are_what_the_registry_says(self):
        for table in (page.table(), page.settings()):
            assert table in self.TEXT, "run python -m benchmarks.methods and put its tables into docs/methods.md"

    @every_method
    def test_every_method_says_what_it_is_and_where_from(self, name):
        line = methods.describe(name)
        assert re.fullmatch(r"[A-Z][^\n]+\. [^\n]+\.", line)
