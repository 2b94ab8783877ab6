"""The command line: every command does its work and says what it did."""

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

from fgonnx import files as storage
from fgonnx.cli import explain
from fgonnx.engine.model import save
from fgonnx.jobs import record
from fgonnx.jobs.samples import find
from tests.cli_support import CIRCLE, CUSTOM, HEADER, IMAGES, ROOT, SHAPES, SMALL, good, model, refused, run, written


@pytest.fixture
def small(tmp_path):
    return model(SMALL, tmp_path / "small.onnx")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


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
            "schema",
            "id",
            "time",
            "input",
            "model",
            "versions",
            "providers",
            "environment",
            "settings",
            "preprocessing",
            "runtime",
            "tensor",
            "notes",
            "chosen",
            "explained",
            "top5",
            "target",
            "score",
            "completeness",
            "delta",
            "localised",
            "sites",
            "map",
            "files",
            "command",
        ]
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
        assert {k: r["explained"][k] for k in ("value", "before")} == {"value": "f", "before": "Softmax"}
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
            other = IMAGES / ("star.png" if folder == "a" else "ring.png")
            (tmp_path / folder / "circle.png").write_bytes(other.read_bytes())
        good("explain", SHAPES, CIRCLE, tmp_path / "a", tmp_path / "b", "-o", out, "--threads", 1)
        records = [json.loads(p.read_text()) for p in sorted(out.glob("*.json"))]
        assert {r["top5"][0]["label"] for r in records} == {"circle", "ring", "star"}
        assert len(written(out)) == 9

    @pytest.mark.parametrize(
        "options",
        [
            ("--method", "simple-fullgrad"),
            ("--method", "smooth-fullgrad", "--samples", 3),
            ("--psi", "signed"),
            ("--profile", "reference"),
            ("--head", "output"),
            ("--picture", "overlay"),
            ("--picture", "heat"),
        ],
        ids=lambda o: o[1],
    )
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

    def test_a_model_that_takes_grey_is_not_told_of_three_channels(self, out, tmp_path):
        weight = np.linspace(-1, 1, 36, dtype=np.float32).reshape(4, 1, 3, 3)
        path = model(SMALL.replace("N,3,8,8", "N,1,8,8"), tmp_path / "grey.onnx", w=weight)
        cv2.imwrite(str(tmp_path / "grey.png"), cv2.imread(str(CIRCLE), cv2.IMREAD_GRAYSCALE))
        text = good("explain", path, tmp_path / "grey.png", "-o", out, "--preprocess", "unit")
        assert "repeated" not in text
        assert not any("repeated" in n for n in json.loads((out / "grey.json").read_text())["notes"])

    def test_free_sizes_follow_the_picture(self, out, tmp_path):
        path = model(SMALL.replace("3,8,8", "3,H,W"), tmp_path / "free.onnx")
        for name, size in (("a", (12, 10)), ("b", (7, 9)), ("c", (7, 9))):
            picture = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        good("explain", path, tmp_path, "-o", out, "--preprocess", "unit,channels=RGB")
        assert [np.load(out / f"{n}.npy").shape for n in "abc"] == [(12, 10), (7, 9), (7, 9)]


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
        path = model(
            CUSTOM + "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { [culprit] y = com.microsoft.Inverse(x) }",
            tmp_path / "m.onnx",
        )
        text = good("inspect", path)
        assert "cannot be explained: 1 node(s)" in text
        assert "culprit" in text
        assert json.loads(run("inspect", path, "--json").stdout)["refusals"][0]["op_type"] == "com.microsoft.Inverse"

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
        text = good("rewrite", small, "-o", path, "--target", 2, "--expose", "gradient:r", "--outputs", "target,score")
        assert "before the final Softmax" in text
        results = self.outputs(path, np.ones((1, 3, 8, 8), np.float32))
        assert list(results) == ["y", "target", "score", "gradient:r"]
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
        files = save.save(proto, out / "m.onnx", limit=100)
        assert [f.name for f in files] == ["m.onnx", "m.onnx.data"]
        assert written(out) == ["m.onnx", "m.onnx.data"]
        x = np.ones((1, 3, 8, 8), np.float32)
        np.testing.assert_array_equal(self.outputs(out / "m.onnx", x)["y"], self.outputs(small, x)["y"])
        good("rewrite", out / "m.onnx", "-o", out / "r.onnx")

    def test_weights_of_the_source_are_not_replaced(self, small, out):
        save.save(onnx.load(small), out / "m.onnx", limit=100)
        with pytest.raises(storage.OptionError, match="would be replaced"):
            save.save(onnx.load(out / "m.onnx", load_external_data=False), out / "m.onnx", folder=out, limit=100)

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

    monkeypatch.setattr(explain.ExplainJob, "run", interrupted)
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
