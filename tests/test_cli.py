"""The command line: every command does its work, and bad input gets one clear message, exit code 2 and no files."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from fgonnx import cli, record, storage
from fgonnx.samples import find

ROOT = Path(__file__).resolve().parent.parent
SHAPES, IMAGES = ROOT / "examples" / "shapes.onnx", ROOT / "examples" / "images"
CIRCLE = IMAGES / "circle.png"

HEADER = '<ir_version: 8, opset_import: ["": 18]>'
SMALL = (
    HEADER
    + """
g (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w, float[4] b = {0.1, 0.2, -0.3, 0.4}>
{ c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Softmax(f) }"""
)


def model(text, path, **weights):
    """Save a model of that text; weights not given are seeded and random."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if tensor.name == "w" and not tensor.raw_data and not tensor.float_data:
            tensor.CopyFrom(numpy_helper.from_array(rng.normal(size=tensor.dims).astype(np.float32), "w"))
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(proto, path)
    return path


@pytest.fixture
def small(tmp_path):
    return model(SMALL, tmp_path / "small.onnx")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(*args):
    return CliRunner().invoke(cli.app, [str(a) for a in args])


def good(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def refused(*args):
    """Return the message of a run that must end with exit code 2, without a traceback."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def written(folder):
    return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []


class TestExplain:
    def test_every_picture_gets_three_files(self, out):
        text = good("explain", SHAPES, IMAGES, "-o", out, "--threads", 1)
        names = sorted(p.stem for p in IMAGES.iterdir())
        assert written(out) == sorted(f"{n}.{e}" for n in names for e in ("json", "npy", "png"))
        assert "from: the model's metadata" in text
        for name in names:
            stored = json.loads((out / f"{name}.json").read_text())
            assert stored["top5"][0]["label"] == name
            assert stored["completeness"]["relative"] < 1e-4
            map_ = np.load(out / f"{name}.npy")
            assert (map_.shape, map_.dtype) == ((64, 64), np.float32)
            assert cv2.imread(str(out / f"{name}.png")).shape[0] == 480

    def test_the_record_is_complete_and_finite(self, out):
        good("explain", SHAPES, CIRCLE, "-o", out, "--target", "star", "--threads", 1)
        r = json.loads((out / "circle.json").read_text(), parse_constant=pytest.fail)
        assert list(r) == [
            "schema", "input", "model", "versions", "providers", "settings", "preprocessing", "notes", "explained",
            "top5", "target", "score", "completeness", "localised", "sites", "files",
        ]  # fmt: skip
        assert r["target"]["index"] == 3
        assert r["target"]["label"] == "star"
        assert r["settings"]["target"] == "star"
        assert [t["index"] for t in r["top5"]] != sorted(t["index"] for t in r["top5"])
        assert r["top5"][0]["label"] == "circle"
        assert len(r["model"]["sha256"]) == len(r["input"]["sha256"]) == 64
        assert sum(s["share"] for s in r["sites"]) == pytest.approx(1)
        total = sum(s["contribution"] for s in r["sites"])
        assert total + r["completeness"]["residual"] == pytest.approx(r["score"], rel=1e-5)
        in_map = sum(s["contribution"] for s in r["sites"] if s["in_map"])
        assert r["localised"]["amount"] == pytest.approx(in_map, rel=1e-5)
        assert set(r["versions"]) == {"fgonnx", "onnxruntime", "onnx", "numpy"}

    def test_scores_stand_before_the_softmax_and_probabilities_behind(self, small, out, tmp_path):
        x = np.random.default_rng(1).random((2, 3, 8, 8), np.float32)
        np.save(tmp_path / "x.npy", x)
        text = good("explain", small, tmp_path / "x.npy", "-o", out)
        assert "preprocessing" not in text
        assert written(out)[:3] == ["x-0000.json", "x-0000.npy", "x-0000.png"]
        r = json.loads((out / "x-0001.json").read_text())
        probabilities = ort.InferenceSession(small).run(None, {"x": x})[0][1]
        assert r["explained"] == {"value": "f", "before": "Softmax"}
        for entry in r["top5"]:
            assert entry["probability"] == pytest.approx(probabilities[entry["index"]], rel=1e-5)
        scores = np.array([e["score"] for e in r["top5"]])
        assert (np.diff(scores) < 0).all()
        np.testing.assert_allclose(
            np.exp(scores - scores[0]), [e["probability"] / r["top5"][0]["probability"] for e in r["top5"]], rtol=1e-4
        )
        assert r["score"] == pytest.approx(scores[0])

    def test_an_array_without_batch_axis_is_one_sample(self, small, out, tmp_path):
        np.save(tmp_path / "one.npy", np.ones((3, 8, 8), np.float32))
        good("explain", small, tmp_path / "one.npy", "-o", out)
        assert written(out) == ["one.json", "one.npy", "one.png"]

    def test_files_of_one_name_do_not_overwrite_one_another(self, out, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "circle.png").write_bytes(
                (IMAGES / f"{'ring' if folder == 'b' else 'star'}.png").read_bytes()
            )
        good("explain", SHAPES, CIRCLE, tmp_path / "a", tmp_path / "b", "-o", out, "--threads", 1)
        records = [json.loads(p.read_text()) for p in sorted(out.glob("*.json"))]
        assert {r["top5"][0]["label"] for r in records} == {"circle", "ring", "star"}
        assert len(written(out)) == 9

    @pytest.mark.parametrize(
        "options",
        [("--method", "simple-fullgrad"), ("--method", "smooth-fullgrad", "--samples", 3), ("--psi", "signed"),
         ("--profile", "reference"), ("--head", "output"), ("--picture", "overlay"), ("--picture", "heat")],
        ids=lambda o: o[1],
    )  # fmt: skip
    def test_options_are_used_and_recorded(self, options, out):
        good("explain", SHAPES, CIRCLE, "-o", out, "--threads", 1, *options)
        settings = json.loads((out / "circle.json").read_text())["settings"]
        for name, value in zip(options[::2], options[1::2], strict=True):
            assert settings[name.removeprefix("--")] == value

    def test_a_method_without_certificate_has_none(self, out):
        good("explain", SHAPES, CIRCLE, "-o", out, "--method", "simple-fullgrad", "--threads", 1)
        r = json.loads((out / "circle.json").read_text())
        assert r["completeness"] is None
        assert r["localised"] is None
        assert r["sites"][0]["contribution"] is None

    def test_an_overlay_has_the_size_of_the_photo(self, out):
        good("explain", SHAPES, CIRCLE, "-o", out, "--picture", "overlay", "--threads", 1)
        assert cv2.imread(str(out / "circle.png")).shape == (256, 256, 3)

    def test_the_noise_of_a_picture_does_not_depend_on_its_neighbours(self, out, tmp_path):
        smooth = ("--method", "smooth-fullgrad", "--samples", 2, "--threads", 1)
        good("explain", SHAPES, IMAGES, "-o", out, *smooth)
        good("explain", SHAPES, IMAGES / "star.png", "-o", tmp_path / "alone", *smooth)
        np.testing.assert_array_equal(np.load(out / "star.npy"), np.load(tmp_path / "alone" / "star.npy"))

    def test_labels_of_a_file_win(self, out, tmp_path):
        (tmp_path / "names.txt").write_text("\n".join("ABCDEF"))
        text = good("explain", SHAPES, CIRCLE, "-o", out, "--labels", tmp_path / "names.txt", "--threads", 1)
        assert "A (" in text

    def test_resume_leaves_out_what_is_done(self, out):
        ask = ("explain", SHAPES, CIRCLE, "-o", out, "--threads", 1, "--resume")
        good(*ask)
        before = (out / "circle.json").stat().st_mtime_ns
        good(*ask)
        assert (out / "circle.json").stat().st_mtime_ns == before
        good(*ask, "--psi", "positive")
        assert (out / "circle.json").stat().st_mtime_ns > before

    def test_pictures_before_a_bad_one_are_done_and_of_it_nothing_is_written(self, out, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"no picture")
        message = refused("explain", SHAPES, CIRCLE, tmp_path / "bad.png", IMAGES / "star.png", "-o", out)
        assert "bad.png' cannot be decoded" in message
        assert written(out) == ["circle.json", "circle.npy", "circle.png"]

    def test_conversions_are_noted(self, out, tmp_path):
        grey = cv2.imread(str(CIRCLE), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(tmp_path / "grey.png"), grey)
        text = good("explain", SHAPES, tmp_path / "grey.png", "-o", out, "--threads", 1)
        assert "grey.png: grey repeated to three channels" in text

    def test_free_sizes_follow_the_picture(self, out, tmp_path):
        path = model(SMALL.replace("3,8,8", "3,H,W"), tmp_path / "free.onnx")
        for name, size in (("a", (12, 10)), ("b", (7, 9)), ("c", (7, 9))):
            picture = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        good("explain", path, tmp_path, "-o", out, "--preprocess", "unit,channels=RGB")
        assert [np.load(out / f"{n}.npy").shape for n in "abc"] == [(12, 10), (7, 9), (7, 9)]


class TestRefusals:
    """Each with what, where and what to do, and an output folder that is not even made."""

    def explain(self, path, out, *args, inputs=(CIRCLE,)):
        message = refused("explain", path, *inputs, "-o", out, "--preprocess", "unit", *args)
        assert written(out) == []
        for command in ("check", "rewrite", "inspect"):
            # whatever these say of the same file, they do not crash
            extra = ("-o", out / "r.onnx") if command == "rewrite" else ()
            assert "Traceback" not in run(command, path, *extra).output
        return message

    def test_no_such_model(self, tmp_path, out):
        assert "none.onnx: no such file" in self.explain(tmp_path / "none.onnx", out)

    def test_not_an_onnx_file(self, tmp_path, out):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"this is not a model")
        assert "m.onnx: is not an ONNX file, or is truncated" in self.explain(path, out)

    def test_a_truncated_file(self, small, out):
        small.write_bytes(small.read_bytes()[:-40])
        assert "small.onnx: is not an ONNX" in self.explain(small, out)

    def beside(self, small, location):
        proto = onnx.load(small)
        w = next(t for t in proto.graph.initializer if t.name == "w")
        onnx.external_data_helper.set_external_data(w, location)
        w.ClearField("raw_data")
        w.data_location = onnx.TensorProto.EXTERNAL
        small.write_bytes(proto.SerializeToString())

    def test_missing_external_data(self, small, out):
        self.beside(small, "w.bin")
        assert "its weights file 'w.bin' is missing; put it into" in self.explain(small, out)

    def test_external_data_outside_of_the_folder(self, small, out):
        self.beside(small, "../w.bin")
        assert "point outside the model's folder ('../w.bin')" in self.explain(small, out)

    def test_all_operators_without_a_rule_are_named(self, tmp_path, out):
        text = (
            HEADER
            + """g (float[N,3,8,8] x) => (float[N,3] y)
        { [first] a = Det(d) [second] b = Det(d)  c = Add(a, b)  y = Unsqueeze(c, o) }"""
        )
        text = (
            HEADER
            + """g (float[N,3,8,8] x) => (float[N,3] y) {
          [first] a = Det(x)
          [second] b = Det(x)
          y = Add(a, b) }"""
        )
        path = model(text, tmp_path / "m.onnx")
        message = self.explain(path, out)
        assert "2 node(s)" in message
        assert "node 'first' (Det" in message
        assert "node 'second' (Det" in message

    def test_no_input_is_a_picture(self, tmp_path, out):
        text = HEADER + "g (int64[N,4] ids) => (int64[N,4] y) { y = Identity(ids) }"
        message = self.explain(model(text, tmp_path / "m.onnx"), out)
        assert "no input is an array of floats or of uint8" in message
        assert "ids (int64 [N, 4])" in message

    def test_several_inputs_could_be_meant(self, tmp_path, out):
        text = HEADER + "g (float[N,3,8,8] a, float[N,3,8,8] b) => (float[N,3,8,8] y) { y = Add(a, b) }"
        message = self.explain(model(text, tmp_path / "m.onnx"), out)
        assert "several inputs could be explained; name one (input=, --input): a (float [N, 3, 8, 8]); b" in message

    @pytest.mark.parametrize("target", ["6", "-1", "1000"])
    def test_a_target_out_of_range(self, target, out):
        assert f"target {target} is out of range" in self.explain(SHAPES, out, "--target", target)

    def test_an_unknown_label(self, out):
        message = self.explain(SHAPES, out, "--target", "sircle")
        assert "'sircle' is no label of this model: did you mean 0 'circle'?" in message

    def test_labels_that_do_not_fit(self, out, tmp_path):
        (tmp_path / "names.txt").write_text("a\nb\n")
        message = self.explain(SHAPES, out, "--labels", tmp_path / "names.txt")
        assert "2 labels do not fit a model with 6 classes" in message

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"", "is empty (0 bytes)"), (b"\x89PNG\r\n\x1a\nbroken", "cannot be decoded as a picture")],
    )
    def test_a_picture_that_is_none(self, content, why, out, tmp_path):
        (tmp_path / "p.png").write_bytes(content)
        message = self.explain(SHAPES, out, inputs=[tmp_path / "p.png"])
        assert "p.png'" in message
        assert why in message

    def test_a_missing_picture(self, out, tmp_path):
        assert "none.png' does not exist" in self.explain(SHAPES, out, inputs=[tmp_path / "none.png"])

    @pytest.mark.parametrize(
        ("array", "why"),
        [
            (np.zeros((8, 8), np.float32), "holds an array of shape (8, 8): the model's input has 4 axes"),
            (np.zeros((2, 3, 8, 9), np.float32), "sample 0, has the shape (3, 8, 9): one sample of the input 'x' is (3, 8, 8)"),
            (np.zeros((1, 3, 8, 8), np.int32), "is int32: the input 'x' is float32; convert it with array.astype"),
            (np.full((1, 3, 8, 8), np.nan, np.float32), "holds NaN or infinity, first at (0, 0, 0)"),
            (np.zeros((0, 3, 8, 8), np.float32), "its batch is empty"),
            (np.array([{}], dtype=object), "cannot be read: it is no numeric .npy array"),
        ],
        ids=["rank", "shape", "dtype", "nan", "empty", "objects"],
    )  # fmt: skip
    def test_an_array_that_does_not_fit(self, array, why, small, out, tmp_path):
        np.save(tmp_path / "x.npy", array)
        message = self.explain(small, out, inputs=[tmp_path / "x.npy"])
        assert "x.npy'" in message
        assert why in message

    def test_nan_in_the_weights(self, tmp_path, out):
        path = model(SMALL, tmp_path / "m.onnx", b=np.array([0, np.nan, 0, 0], np.float32))
        message = self.explain(path, out)
        assert "weights 'b'" in message
        assert "hold NaN" in message

    def test_an_output_that_does_not_depend_on_the_input(self, tmp_path, out):
        text = (
            HEADER
            + """g (float[N,3,8,8] x) => (float[1,2] y) <float[1,2] k = {1.0, 2.0}>
        { r = Relu(x)  y = Identity(k) }"""
        )
        assert "does not depend on the input" in self.explain(model(text, tmp_path / "m.onnx"), out)

    def test_a_provider_that_is_not_there(self, out):
        message = self.explain(SHAPES, out, "--providers", "abacus")
        assert "the execution provider 'abacus' is not available" in message
        assert "it has:" in message

    def test_preprocessing_is_not_guessed(self, small, out):
        message = refused("explain", small, CIRCLE, "-o", out)
        assert "does not say how its pictures were prepared" in message
        assert "--preprocess imagenet" in message
        assert written(out) == []

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (("--preprocess", "imagnet"), "did you mean 'imagenet'?"),
            (("--preprocess", "size=32"), "size 32x32 does not fit the model's input"),
            (("--psi", "absolute"), "choose one of: abs, positive, signed"),
            (("--profile", "best"), "choose one of: full, reference, paper"),
            (("--method", "lime"), "method='lime' does not exist"),
            (("--picture", "poster"), "choose one of: panel, overlay, heat"),
            (("--output", "probs"), "has no output 'probs'; it has: logits"),
            (("--input", "picture"), "has no input 'picture'; it has: image"),
        ],
        ids=lambda o: "".join(o).strip("-") if isinstance(o, tuple) else "",
    )
    def test_options_that_do_not_exist(self, options, why, out):
        assert why in refused("explain", SHAPES, CIRCLE, "-o", out, *options)
        assert written(out) == []

    def test_an_output_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "f").write_text("mine")
        assert "is a file; give a folder" in refused("explain", SHAPES, CIRCLE, "-o", tmp_path / "f")
        assert (tmp_path / "f").read_text() == "mine"


class TestInspect:
    def test_what_a_model_is(self):
        text = good("inspect", SHAPES)
        for part in (
            "image float [N, 3, 64, 64]",
            "9 Conv",
            "6: circle, square",
            "layout NCHW",
            "11 sites",
            "10 of them",
        ):
            assert part in text

    def test_json_is_for_programs(self):
        found = json.loads(run("inspect", SHAPES, "--json").stdout)
        assert found["explanation"]["head_shape"] == [6]
        assert len(found["explanation"]["sites"]) == 11
        assert found["labels"][0] == "circle"
        assert found["model"]["parameters"] > 100_000

    def test_what_cannot_be_explained_is_an_answer(self, tmp_path):
        path = model(HEADER + "g (float[N,3,8,8] x) => (float[N,3] y) { [culprit] y = Det(x) }", tmp_path / "m.onnx")
        text = good("inspect", path)
        assert "cannot be explained: 1 node(s)" in text
        assert "culprit" in text
        assert json.loads(run("inspect", path, "--json").stdout)["refusals"][0]["op_type"] == "Det"

    def test_free_sizes_ask_for_a_shape(self, tmp_path):
        path = model(SMALL.replace("3,8,8", "3,H,W"), tmp_path / "m.onnx")
        assert "has free sizes" in good("inspect", path)
        assert "before the final Softmax" in good("inspect", path, "--input-shape", "1,3,20,16")
        assert "write for example 1,3,224,224" in refused("inspect", path, "--input-shape", "big")

    def test_long_lists_are_shortened(self, tmp_path):
        body = " ".join(f"v{i + 1} = Sigmoid(v{i})" for i in range(40))
        path = model(HEADER + f"g (float[N,1,4,4] v0) => (float[N,1,4,4] v40) {{ {body} }}", tmp_path / "m.onnx")
        short, full = good("inspect", path), good("inspect", path, "--all")
        assert "more sites: --all" in short
        assert "v20" not in short
        assert "v20" in full


class TestCheck:
    def test_a_good_model_passes(self):
        text = good("check", SHAPES, "--threads", 1)
        assert text.endswith("passed")
        assert "2 random picture(s), seed 0" in text

    def test_given_pictures_are_used(self, small):
        assert "1 sample(s) given" in good("check", SHAPES, CIRCLE, "--threads", 1, "--target", "star")
        assert "random array(s)" in good("check", small)

    def test_a_failure_is_exit_code_1(self):
        result = run("check", SHAPES, "--tolerance", 1e-12, "--threads", 1)
        assert result.exit_code == 1
        assert "failed" in result.stdout

    def test_bad_input_is_exit_code_2(self, small):
        assert "did you mean 0 'circle'?" in refused("check", SHAPES, "--target", "sircle")
        assert "--preprocess imagenet" in refused("check", small, CIRCLE)


class TestRewrite:
    def outputs(self, path, x):
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": x}), strict=True))

    def test_the_file_runs_and_says_what_it_is(self, small, out):
        path = out / "explained.onnx"
        text = good(
            "rewrite", small, "-o", path, "--target", 2, "--expose", "gradient:r", "--outputs", "saliency,score,target"
        )
        assert "before the final Softmax" in text
        results = self.outputs(path, np.ones((1, 3, 8, 8), np.float32))
        assert list(results) == ["y", "saliency", "target", "score", "gradient:r"]
        assert results["target"].tolist() == [2]
        assert written(out) == ["explained.onnx"]

    def test_weights_beside_the_source_come_into_the_file(self, small, out, tmp_path):
        folder = tmp_path / "source"
        folder.mkdir()
        onnx.save(onnx.load(small), folder / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
        good("rewrite", folder / "m.onnx", "-o", out / "r.onnx")
        good("rewrite", small, "-o", out / "s.onnx")
        assert written(out) == ["r.onnx", "s.onnx"]
        x = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
        a, b = self.outputs(out / "r.onnx", x), self.outputs(out / "s.onnx", x)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])

    def test_big_weights_stay_beside_the_file(self, small, out):
        proto = onnx.load(small)
        files = storage.save(proto, out / "m.onnx", limit=100)
        assert [f.name for f in files] == ["m.onnx", "m.onnx.data"]
        assert written(out) == ["m.onnx", "m.onnx.data"]
        x = np.ones((1, 3, 8, 8), np.float32)
        np.testing.assert_array_equal(self.outputs(out / "m.onnx", x)["y"], self.outputs(small, x)["y"])
        good("rewrite", out / "m.onnx", "-o", out / "r.onnx")

    def test_weights_of_the_source_are_not_replaced(self, small, out):
        storage.save(onnx.load(small), out / "m.onnx", limit=100)
        with pytest.raises(storage.OptionError, match="would be replaced"):
            storage.save(onnx.load(out / "m.onnx", load_external_data=False), out / "m.onnx", folder=out, limit=100)

    def test_the_source_is_not_replaced(self, small):
        before = small.read_bytes()
        assert "is the source model" in refused("rewrite", small, "-o", small)
        assert small.read_bytes() == before

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (("--method", "smooth-fullgrad"), "is not one feed-forward file"),
            (("--outputs", "saliency,heatmap"), "there is no output 'heatmap'"),
            (("--expose", "nowhere"), "nothing to expose under 'nowhere'"),
            (("--target", "9"), "target 9 is out of range"),
            (("--target", "cat"), "'cat' is a name but the model has no labels"),
        ],
        ids=lambda o: "".join(o).strip("-") if isinstance(o, tuple) else "",
    )
    def test_refusals_write_nothing(self, options, why, small, out):
        assert why in refused("rewrite", small, "-o", out / "r.onnx", *options)
        assert written(out) == []


class TestNames:
    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["a/x.png", "b/y.png"], ["x", "y"]),
            (["a/x.png", "b/x.png"], ["a-x-png", "b-x-png"]),
            (["a/x.png", "a/x.jpg"], ["x-png", "x-jpg"]),
            (["a/X.png", "a/x.jpg"], ["X-png", "x-jpg"]),
            (["p/a/x.png", "q/a/x.png", "z.png"], ["p-a-x-png", "q-a-x-png", "z"]),
            (["a/x.png", "b/x.png", "a-x-png.png"], ["a-x-png-0000", "b-x-png", "a-x-png"]),
        ],
    )
    def test_each_source_has_its_own_name(self, paths, names, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        found = [s.name for s in find([Path(p) for p in paths], 4)]
        assert len({n.casefold() for n in found}) == len(paths)
        if "0000" not in "".join(names):
            assert found == names

    def test_layers_are_called_by_what_differs(self):
        sites = [{"name": f"/net/block{i}/conv/Conv_output_0", "op_type": "Conv"} for i in range(9)]
        sites += [{"name": "12", "op_type": "Gemm"}, {"name": "head:0", "op_type": "Gemm"}]
        assert record.short_names(sites) == [*(f"block{i}" for i in range(9)), "Gemm 12", "head"]


def test_every_command_explains_itself():
    assert "Usage" in run("--help").stdout
    for command in ("explain", "inspect", "check", "rewrite"):
        text = good(command, "--help")
        assert "Examples" in text
        assert f"fgonnx {command}" in text


def test_the_version_is_printed():
    import fgonnx

    assert good("--version") == f"fgonnx {fgonnx.__version__}"


def test_ctrl_c_is_exit_code_130(monkeypatch, out):
    def interrupted(self):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(cli.Job, "run", interrupted)
    result = run("explain", SHAPES, CIRCLE, "-o", out)
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_the_engine_does_without_the_terminal():
    code = "import sys, fgonnx; print([m for m in ('typer', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "fgonnx", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.startswith("fgonnx ")
