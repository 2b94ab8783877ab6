"""`runtime="openvino"`: the explanations of ONNX Runtime, or a refusal."""

import json
import re
import threading
from functools import cache

import numpy as np
import onnx
import pytest

import fgonnx
from fgonnx import Explainer, Running
from fgonnx.engine.graph import openvino
from fgonnx.engine.graph.openvino import OpenVinoSession, Variant, said
from fgonnx.errors import ModelError, NumericError, OptionError, ProviderError
from fgonnx.explain import explainer as explaining
from fgonnx.explain.runtime import _exceeded, fastest
from tests import skips
from tests.cli_support import good, refused
from tests.support import draw, model, small_cnn
from tests.test_portable import NETWORKS, X, network

skips.without("openvino")

SHAPES, IMAGES, CIRCLE = "examples/shapes.onnx", "examples/images", "examples/images/circle.png"
CNN = small_cnn()
SMALL = np.random.default_rng(2).standard_normal((5, 3, 8, 6)).astype(np.float32)
TOLERANCE = 5e-6


def explained(source, x, *given, runtime="openvino", **options):
    return Explainer(source, runtime=runtime, threads=1, **options)(x, *given)


def assert_alike(found, expected, tolerance=TOLERANCE):
    scale = max(1.0, *(float(np.abs(a).max()) for a in (expected.saliency, expected.score)))
    for name in ("saliency", "score", "contributions", "completeness", "input_gradient", "attribution"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None), name
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)
            assert ours.dtype == theirs.dtype
    for name, theirs in expected.outputs.items():
        np.testing.assert_allclose(found.outputs[name], theirs, rtol=0, atol=tolerance * scale, err_msg=name)


#: What OpenVINO dies of with its own settings, for one thread.
DEADLY = {
    "a chain of products that ends in a division": (
        "m = MatMul(x, w)\nb = Mul(m, v)\nc = Mul(b, s)\nd = MatMul(c, u)\ny = Div(d, s)",
        "float[1,2] x, float[1] s, float[1,4] v",
        draw(w=(2, 4), u=(4, 8)),
    ),
}


class TestNoCrash:
    @pytest.mark.parametrize("name", DEADLY)
    def test_of_what_openvino_dies_of(self, name):
        body, inputs, weights = DEADLY[name]
        source = model(f"({inputs}) => (float[1,8] y) {{ {body} }}", weights=weights)
        feeds = {"x": np.ones((1, 2), np.float32), "s": np.full(1, 2, np.float32), "v": np.ones((1, 4), np.float32)}
        both = (explained(source, feeds, input="x", runtime=r) for r in ("openvino", "onnxruntime"))
        assert_alike(*both)


#: Outputs of a model, one listed more than once.
LISTED = {
    "twice": ("y", "y"),
    "three times": ("y", "y", "y"),
    "with another between": ("y", "h", "y"),
    "first": ("h", "y", "h"),
}


class TestOutputsListedTwice:
    @pytest.mark.parametrize("name", LISTED)
    def test_are_given_once(self, name):
        source = model(
            "(float[N,6] x) => (float[N,3] y, float[N,6] h) { h = Tanh(x)\ny = MatMul(h, w) }", weights=draw(w=(6, 3))
        )
        by_name = {v.name: v for v in source.graph.output}
        outputs = [by_name[n] for n in LISTED[name]]
        del source.graph.output[:]
        source.graph.output.extend(outputs)
        x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
        both = [explained(source, x, 1, runtime=r, output="y") for r in ("openvino", "onnxruntime")]
        assert list(both[0].outputs) == list(both[1].outputs)
        assert_alike(*both)


class TestQuantisedByOnnxruntime:
    @pytest.mark.parametrize("per_channel", [True, False])
    @pytest.mark.parametrize("name", ["dense", "cnn"])
    def test_is_explained_alike(self, name, per_channel, tmp_path):
        source, x = small_cnn(opset=13), SMALL
        if name == "dense":
            x = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
            source = model(
                "(float[N,12] x) => (float[N,4] y) { a = Gemm(x, w1, b)\nr = Relu(a)\nc = MatMul(r, w2)\nt = Tanh(c)\n"
                "y = Gemm<transB=1>(t, w3) }",
                13,
                weights=draw(w1=(12, 16), b=(16,), w2=(16, 16), w3=(4, 16)),
            )
        proto = quantised(source, x, tmp_path, per_channel=per_channel)
        assert_alike(*(explained(proto, x[:3], 1, runtime=r, input_gradient=True) for r in ("openvino", "onnxruntime")))


def quantised(source, x, folder, **options):
    """Quantise a model as onnxruntime does for processors: weights and values in eight bits."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        batches = iter([{"x": x}])

        def get_next(self):
            return next(self.batches, None)

    before, after = folder / "source.onnx", folder / "quantised.onnx"
    onnx.save(source, before)
    quantize_static(before, after, Reader(), quant_format=QuantFormat.QDQ, **options)
    return onnx.load(after)


class TestTheSameExplanation:
    def test_of_an_input_that_a_dropout_passes_on(self):
        source = model(
            "(float[N,3,8,6] x) => (float[N,K] y) "
            "{ d = Dropout(x)\nr = Relu(d)\np = GlobalAveragePool(r)\nq = Flatten(p)\nf = Flatten(x)\n"
            "m = ReduceMax<keepdims=1>(f)\ny = Add(q, m) }"
        )
        assert_alike(*(explained(source, SMALL[:1], runtime=r) for r in ("openvino", "onnxruntime")))

    @pytest.mark.parametrize("name", NETWORKS)
    def test_of_networks_that_runtimes_stumble_over(self, name):
        both = (
            explained(network(name), X, [1, 0], runtime=r, input_gradient=True) for r in ("openvino", "onnxruntime")
        )
        assert_alike(*both)

    @pytest.mark.parametrize("method", ["grad-cam", "net-fullgrad", "integrated-gradients", "smooth-fullgrad", "rise"])
    def test_by_every_kind_of_method(self, method):
        settings = {"samples": 4} if method in ("rise", "smooth-fullgrad") else {}
        both = (explained(CNN, SMALL, runtime=r, method=method, **settings) for r in ("openvino", "onnxruntime"))
        assert_alike(*both)

    @pytest.mark.parametrize(
        ("target", "options"),
        [
            (4, {}),
            ([0, 1, 2, 3, 4], {}),
            (None, {"contrast": "next"}),
            (2, {"contrast": 3}),
            ("sum of 1, 2", {}),
        ],
    )
    def test_of_every_kind_of_target(self, target, options):
        if target == "sum of 1, 2":
            target = np.array([0, 1, 1, 0, 0], np.float32)
            a, b = (Explainer(CNN, runtime=r, threads=1)(SMALL, seed=target) for r in ("openvino", "onnxruntime"))
        else:
            a, b = (explained(CNN, SMALL, target, runtime=r, **options) for r in ("openvino", "onnxruntime"))
        assert_alike(a, b)
        assert a.described == b.described

    @pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
    def test_in_batches_of_any_size(self, batch_size):
        explainer = Explainer(CNN, runtime="openvino", threads=1, batch_size=batch_size)
        whole = Explainer(CNN, threads=1)(SMALL)
        assert_alike(explainer(SMALL), whole)
        assert_alike(explainer(SMALL[:1]), Explainer(CNN, threads=1)(SMALL[:1]))

    def test_of_any_size(self):
        free = model(
            "(float[N,3,H,W] x) => (float[N,2] y) { a = Conv<strides=[2,2]>(x, w, b) r = Relu(a)\n"
            "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v) }",
            weights=draw(w=(4, 3, 3, 3), b=(4,), v=(4, 2)),
        )
        explainers = [Explainer(free, runtime=r, threads=1) for r in ("openvino", "onnxruntime")]
        for size in ((9, 8), (6, 7), (12, 12)):
            x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
            assert_alike(*(explainer(x) for explainer in explainers))

    def test_of_several_threads(self):
        explainer = Explainer(CNN, runtime="openvino", threads=1)
        expected, found = [explainer(SMALL[i : i + 1]).saliency for i in range(5)], {}

        def explain(i):
            found[i] = explainer(SMALL[i : i + 1]).saliency

        threads = [threading.Thread(target=explain, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(5):
            np.testing.assert_array_equal(found[i], expected[i])

    def test_of_a_stream(self):
        found = list(Explainer(CNN, runtime="openvino", threads=1, batch_size=2).stream(iter(SMALL)))
        whole = Explainer(CNN, threads=1)(SMALL)
        np.testing.assert_allclose(np.concatenate([e.saliency for e in found]), whole.saliency, rtol=0, atol=1e-5)

    def test_of_the_scores(self):
        found, expected = (Explainer(CNN, runtime=r).head(SMALL) for r in ("openvino", "onnxruntime"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_of_a_model_too_large_for_one_message(self, monkeypatch):
        monkeypatch.setattr(openvino, "_SERIALISED_BYTES", 1)
        assert_alike(explained(CNN, SMALL), explained(CNN, SMALL, runtime="onnxruntime"))

    def test_says_what_ran(self):
        assert explained(CNN, SMALL).settings["runtime"] == {
            "name": "openvino",
            "version": openvino.version(),
            "device": "CPU",
            "precision": "f32",
        }
        assert explained(CNN, SMALL, runtime="onnxruntime").settings["runtime"]["name"] == "onnxruntime"

    def test_is_computed_in_float32(self):
        import openvino as runtime

        explainer = Explainer(CNN, runtime="openvino")
        explainer(SMALL)
        (variant,) = explainer.engine().session._variants.values()
        assert variant.compiled.get_property("INFERENCE_PRECISION_HINT") == runtime.Type.f32


class TestWrittenFiles:
    @pytest.mark.parametrize("target", [None, "input", "argmax", 3])
    def test_run_in_the_portable_form(self, target):
        written = fgonnx.rewrite(CNN, form="portable", target=target)
        given = [4] if target in (None, "input") else []
        assert_alike(explained(written, SMALL, *given), explained(written, SMALL, *given, runtime="onnxruntime"))

    def test_are_refused_in_another_form(self):
        with pytest.raises(OptionError, match=r"not written in the portable form.*form='portable'"):
            Explainer(fgonnx.rewrite(small_cnn()), runtime="openvino")


def wrong(monkeypatch, change):
    """Let OpenVINO give other results than it computes."""
    right = Variant.infer

    def infer(self, arrays):
        return [change(a) if a.ndim == 3 else a for a in right(self, arrays)]

    monkeypatch.setattr(Variant, "infer", infer)


class TestHeldAgainstOnnxRuntime:
    def test_a_wrong_map_is_refused(self, monkeypatch):
        wrong(monkeypatch, lambda a: a + 0.1 * a.max())
        with pytest.raises(
            NumericError, match=r"'saliency' in OpenVINO is not what ONNX Runtime computes: .* 1\.0e-01"
        ):
            explained(CNN, SMALL)

    @pytest.mark.parametrize(
        ("value", "bound", "rounding", "said"),
        [
            (0.1, 1e-3, 1e-6, r"differs by 1.0e-01 of its largest value, more than 1.0e-03, that of every result"),
            (0.033, 0.03, 0.033, r"differs by 3.3e-02 .*, more than 3.0e-02, the most allowed .* makes 3.3e-02"),
            (0.03004, 0.03, 0.5, r"differs by 3.004e-02 .*, more than 3.000e-02, the most allowed"),
            (0.021, 0.02, 0.002, r"differs by 2.1e-02 .*, more than 2.0e-02, 10 times what rounding makes"),
            (float("inf"), 1e-3, 0.0, "infinite or NaN"),
        ],
    )
    def test_the_bound_exceeded_is_named(self, value, bound, rounding, said):
        assert re.search(said, _exceeded(value, bound, rounding))

    def test_in_every_batch_size(self, monkeypatch):
        explainer = Explainer(CNN, runtime="openvino", threads=1)
        explainer(SMALL[:1])
        wrong(monkeypatch, lambda a: a + 0.1 * a.max() if len(a) > 1 else a)
        with pytest.raises(NumericError, match="'saliency' in OpenVINO"):
            explainer(SMALL[:3])

    def test_rounding_is_not(self, monkeypatch):
        wrong(monkeypatch, lambda a: a * np.float32(1 + 1e-5))
        explained(CNN, SMALL)

    def test_where_it_is_asked_for(self, monkeypatch):
        wrong(monkeypatch, lambda a: a + 0.1 * a.max())
        explained(CNN, SMALL, verify=False)

    def test_in_a_check(self, monkeypatch):
        wrong(monkeypatch, lambda a: a + 0.1 * a.max())
        with pytest.raises(NumericError, match="in OpenVINO is not what ONNX Runtime computes"):
            fgonnx.check(CNN, SMALL, runtime="openvino", threads=1)

    def test_in_a_check_unless_it_is_not_asked_for(self, monkeypatch):
        wrong(monkeypatch, lambda a: a + 0.1 * a.max())
        fgonnx.check(CNN, SMALL, runtime="openvino", threads=1, verify=False)

    def test_a_map_of_another_entry_is_refused(self, monkeypatch):
        right = OpenVinoSession.run
        monkeypatch.setattr(
            OpenVinoSession,
            "run",
            lambda s, feeds, names=None: right(s, {**feeds, "target_index": np.array([1])}, names),
        )
        with pytest.raises(NumericError, match="asked for the entry 4, the runtime explains 1"):
            explained(CNN, SMALL[:1], 4, verify=False)


DOUBLE = model("(double[N,3] x) => (double[N,3] y) { y = Tanh(x) }")
ROWS = np.ones((2, 3))
#: Models that ONNX Runtime explains and OpenVINO does not take.
NOT_TAKEN = {
    "double": (DOUBLE, ROWS, "OpenVINO computes in float32, and 'x' is double"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", NOT_TAKEN)
    def test_say_where_it_runs(self, name):
        source, x, why = NOT_TAKEN[name]
        explained(source, x, runtime="onnxruntime")
        with pytest.raises(ModelError, match=why) as caught:
            explained(source, x)
        assert "runtime='onnxruntime'" in str(caught.value)
        assert "fg/" not in str(caught.value)

    def test_of_what_openvino_fails_to_compile(self, monkeypatch):
        def refuse(self, *_):
            raise RuntimeError("Exception from src/a.cpp:1:\nCheck 'b' failed at src/b.cpp:2:\nno kernel for fg/Mul_3")

        monkeypatch.setattr(OpenVinoSession, "_compiled", refuse)
        with pytest.raises(ModelError, match="reads the model, but does not run its explanation") as caught:
            explained(CNN, SMALL)
        assert "fg/" not in str(caught.value)

    def test_say_what_openvino_says(self):
        text = "Exception from src/a.cpp:1:\nCheck 'b' failed at src/b.cpp:2:\n\nconversion is not supported: Foo.\n"
        assert said(RuntimeError(text)) == "conversion is not supported: Foo"

    def test_name_operators_that_openvino_cannot_read(self):
        text = "Check 'false' failed at src/a.cpp:1:\nSummary:\n-- Conversion is failed for: com.microsoft.Foo\n"
        assert said(RuntimeError(text)) == "it has no com.microsoft.Foo of this kind"

    def test_of_a_runtime_that_is_not_installed(self, monkeypatch):
        monkeypatch.setattr(openvino, "installed", lambda: False)
        with pytest.raises(ProviderError, match=r"pip install openvino.*runtime='onnxruntime'"):
            Explainer(CNN, runtime="openvino")
        message = refused("explain", SHAPES, CIRCLE, "-o", "nowhere", "--runtime", "openvino")
        assert "--runtime onnxruntime" in message

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"runtime": "openvino", "providers": ["cpu"]}, "providers=.* has no effect"),
            ({"runtime": "openvin"}, "did you mean 'openvino'"),
            ({"runtime": "openvino", "engine": "ort-training"}, "operators of ONNX Runtime"),
        ],
    )
    def test_of_options_that_do_not_go_together(self, options, why):
        with pytest.raises(OptionError, match=why):
            Explainer(CNN, **options)


class TestCompiledModels:
    @pytest.fixture
    def counted(self, monkeypatch):
        parts, right = [], OpenVinoSession._part
        monkeypatch.setattr(OpenVinoSession, "_part", lambda s, names: parts.append(names) or right(s, names))
        return parts

    def test_are_kept_on_disk(self, tmp_path, counted):
        first = explained(CNN, SMALL, cache=tmp_path)
        assert len(counted) == 1
        again = explained(CNN, SMALL, cache=tmp_path)
        assert len(counted) == 1
        np.testing.assert_array_equal(again.saliency, first.saliency)

    @pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-9] + bytes(9)])
    def test_are_compiled_anew_where_they_are_corrupt(self, change, tmp_path, counted):
        explained(CNN, SMALL, cache=tmp_path)
        (path,) = (tmp_path / "openvino").iterdir()
        path.write_bytes(change(path.read_bytes()))
        explained(CNN, SMALL, cache=tmp_path)
        assert len(counted) == 2

    def test_of_another_number_of_threads_are_others(self, tmp_path, counted):
        for threads in (1, 2):
            Explainer(CNN, runtime="openvino", threads=threads, cache=tmp_path)(SMALL)
        assert len(counted) == 2

    def test_are_not_kept_unasked(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FGONNX_CACHE", str(tmp_path))
        explained(CNN, SMALL)
        assert list(tmp_path.iterdir()) == []

    def test_least_recently_used_ones_are_evicted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(openvino, "KEPT_FILES", 1)
        for count in (1, 2):
            explained(CNN, SMALL[:count], cache=tmp_path)
        assert len(list((tmp_path / "openvino").iterdir())) == 1

    def test_two_shapes_have_their_own_and_others_share_one(self, counted):
        explainer = Explainer(CNN, runtime="openvino", threads=1)
        for count in (1, 2, 3, 4, 5, 1, 2, 3):
            explainer(SMALL[:count])
        assert len(counted) == 3


class TestAuto:
    def test_takes_the_faster_one(self, monkeypatch):
        for name in ("openvino", "onnxruntime"):
            monkeypatch.setattr(explaining, "fastest", lambda calls, name=name: [c() for c in calls.values()] and name)
            explainer = Explainer(CNN, runtime="auto", threads=1)
            found = explainer(SMALL)
            assert found.settings["runtime"]["name"] == explainer.running.runtime == name
            assert_alike(found, explained(CNN, SMALL, runtime="onnxruntime"))

    def test_measures_by_turns(self):
        calls = {"slow": threading.Event().wait, "fast": int}
        assert fastest({"slow": lambda: calls["slow"](0.01), "fast": calls["fast"]}) == "fast"

    def test_leaves_out_what_fails(self):
        def fail():
            raise NumericError("wrong")

        assert fastest({"first": int, "second": fail}) == "first"
        with pytest.raises(NumericError):
            fastest({"first": fail, "second": int})

    def test_does_without_openvino(self, monkeypatch):
        monkeypatch.setattr(openvino, "installed", lambda: False)
        assert explained(CNN, SMALL, runtime="auto").settings["runtime"]["name"] == "onnxruntime"

    def test_does_without_it_where_it_is_wrong(self, monkeypatch):
        wrong(monkeypatch, lambda a: a + 0.1 * a.max())
        assert explained(CNN, SMALL, runtime="auto").settings["runtime"]["name"] == "onnxruntime"


class TestCommands:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FGONNX_CACHE", str(tmp_path / "kept"))

    def test_explain_records_it(self, tmp_path):
        good("explain", SHAPES, CIRCLE, "-o", tmp_path / "out", "--runtime", "openvino", "--threads", 1)
        record = json.loads((tmp_path / "out" / "circle.json").read_text())
        assert record["runtime"] == Running(runtime="openvino").described()
        assert record["versions"]["openvino"] == openvino.version()
        assert record["providers"] == []
        assert record["settings"]["runtime"] == "openvino"
        assert record["command"][-4:] == ["--runtime", "openvino", "--threads", "1"]
        good("explain", SHAPES, CIRCLE, "-o", tmp_path / "other", "--threads", 1)
        ours, theirs = (np.load(tmp_path / name / "circle.npy") for name in ("out", "other"))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * theirs.max())

    def test_check_passes(self):
        assert "passed" in good("check", SHAPES, CIRCLE, "--runtime", "openvino", "--directions", 1, "--threads", 1)

    def test_compare_records_it(self, tmp_path):
        good("compare", SHAPES, SHAPES, CIRCLE, "-o", tmp_path / "out", "--runtime", "openvino", "--threads", 1)
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert {side["name"] for side in summary["runtime"].values()} == {"openvino"}

    @pytest.mark.slow
    def test_evaluate_gives_the_same_numbers(self, tmp_path):
        skips.without("jinja2")
        found = {}
        for runtime in ("openvino", "onnxruntime"):
            out = tmp_path / runtime
            what = ("--limit", 2, "--methods", "fullgrad", "--measures", "deletion")
            good("evaluate", SHAPES, IMAGES, "-o", out, *what, "--runtime", runtime, "--threads", 1)
            summary = json.loads((out / "summary.json").read_text())
            found[summary["runtime"]["name"]] = [r["mean"] for r in summary["results"]]
        np.testing.assert_allclose(found["openvino"], found["onnxruntime"], rtol=0, atol=1e-4)


@cache
def _attention():
    from benchmarks.runtimes.cases import vit

    return vit()


def test_square_weights_of_attention():
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    assert_alike(explained(_attention(), x), explained(_attention(), x, runtime="onnxruntime"))


def test_weights_beside_the_model(tmp_path):
    big = model("(float[N,300] x) => (float[N,70] y) { h = MatMul(x, w) y = Tanh(h) }", weights=draw(w=(300, 70)))
    onnx.save(big, tmp_path / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    x = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)
    found, expected = (explained(tmp_path / "m.onnx", x, runtime=r) for r in ("openvino", "onnxruntime"))
    assert_alike(found, expected)
