"""`fgonnx view` without a browser: what is written, what is served, what is refused."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

import fgonnx.view
from fgonnx.engine.rewrite.options import Options
from fgonnx.errors import InputError, ModelError, OptionError, PreprocessingError
from fgonnx.jobs.reading import Reading
from fgonnx.view import runtime, samples, single
from fgonnx.view.build import PageJob
from fgonnx.view.options import PageOptions
from tests.cli_support import IMAGES, ROOT, SHAPES, SMALL, model, run
from tests.view_support import serving

PAGE = Path(fgonnx.view.__file__).with_name("page")
NAMES = (*runtime.WASM, *runtime.WEBGPU)


@pytest.fixture
def package(tmp_path):
    """A folder as npm makes it, with files of no use."""
    folder = tmp_path / "npm" / "node_modules" / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.31.0"}))
    for name in NAMES:
        (folder / "dist" / name).write_bytes(f"content of {name}".encode())
    return folder


def written(folder, package, path=SHAPES, reading=None, **page):
    options = PageOptions(ort_web=package, **{"psis": ("abs",), "webgpu": False, **page})
    return PageJob(path, Options(), reading or Reading(), options).write(folder)


class TestWritten:
    def test_a_folder_for_any_server(self, tmp_path, package):
        files = {p.relative_to(tmp_path / "site").as_posix() for p in written(tmp_path / "site", package)}
        wanted = {
            "index.html",
            "page/page.js",
            "page/style.css",
            "data/model.json",
            "data/weights.bin",
            "ort/LICENSE.txt",
        }
        assert wanted <= files
        assert {f"ort/{name}" for name in runtime.WASM} <= files
        assert len([f for f in files if f.startswith("samples/")]) == 6

    def test_graphs_share_their_weights(self, tmp_path, package):
        written(tmp_path, package, psis=("abs", "positive", "signed"), profiles=("full", "paper"))
        data = tmp_path / "data"
        graphs = sorted(data.glob("*.onnx"))
        assert len(graphs) == 7
        assert sum(p.stat().st_size for p in graphs) + (data / "weights.bin").stat().st_size < 2 * SHAPES.stat().st_size
        for path in graphs:
            x = np.zeros((1, 3, 64, 64), np.float32)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            feeds = {"image": x, "target_index": np.array([0])}
            assert session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})

    def test_again_without_what_an_earlier_page_had(self, tmp_path, package):
        written(tmp_path, package, psis=("abs", "signed"), samples=(IMAGES,))
        written(tmp_path, package, samples=(IMAGES / "star.png",))
        assert [p.name for p in (tmp_path / "data").glob("map-*")] == ["map-00.onnx"]
        assert [p.name for p in (tmp_path / "samples").iterdir()] == ["00-star.png"]

    def test_another_page_is_left_alone(self, tmp_path, package):
        (tmp_path / "index.html").write_text("mine")
        with pytest.raises(OptionError, match="is another page, which is not replaced"):
            written(tmp_path, package)
        assert [p.name for p in tmp_path.iterdir() if p.name != "npm"] == ["index.html"]

    def test_every_module_is_found_and_imported(self):
        texts = {p.name: p.read_text(encoding="utf-8") for p in PAGE.glob("*.js")}
        reached = set(single._order(single.ENTRY, texts))
        assert reached | {"worker.js", "start.js"} == set(texts)

    def test_one_file_has_its_content_inside(self, tmp_path, package):
        assert [p.name for p in written(tmp_path / "one", package, single_file=True)] == ["index.html"]
        text = (tmp_path / "one" / "index.html").read_text(encoding="utf-8")
        assert 'src="page/' not in text
        assert 'href="page/' not in text
        assert text.count("</script>") == 2
        assert "import {" not in text


class TestRuntime:
    @pytest.mark.parametrize("inside", ["", "dist", "../..", ".."])
    def test_a_folder(self, package, inside):
        found = runtime.find((package / inside).resolve(), webgpu=True)
        assert found.version == "1.31.0"
        assert set(found.files) == set(NAMES)

    def test_an_archive(self, package, tmp_path):
        archive = tmp_path / "it.tgz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(package, "package")
        assert runtime.find(archive, webgpu=False).files == {
            name: f"content of {name}".encode() for name in runtime.WASM
        }

    def test_the_default_entry_is_never_taken(self):
        assert not any("jsep" in name or name.startswith("ort.all") or name == "ort.bundle.min.mjs" for name in NAMES)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: shutil.rmtree(p / "dist"), "holds no onnxruntime-web"),
            (
                lambda p: (p / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.22.0"}'),
                "1.30 or newer",
            ),
            (lambda p: (p / "package.json").write_text('{"name": "other", "version": "2.0.0"}'), "is not the package"),
            (lambda p: (p / "package.json").write_text("[]"), "is not the package"),
        ],
    )
    def test_refused(self, package, change, message):
        change(package)
        with pytest.raises(OptionError, match=message):
            runtime.find(package, webgpu=True)

    def test_no_archive(self, tmp_path):
        (tmp_path / "it.tgz").write_bytes(b"nothing")
        with pytest.raises(OptionError, match="is no archive of onnxruntime-web"):
            runtime.find(tmp_path / "it.tgz", webgpu=True)

    def test_without_npm_it_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FGONNX_CACHE", str(tmp_path))
        monkeypatch.setenv("PATH", "")
        with pytest.raises(OptionError, match=r"npm is not installed to fetch it; fetch it .* give the \.tgz"):
            runtime.find(None, webgpu=True)

    @pytest.mark.parametrize(
        ("script", "message"),
        [("echo 'no network' >&2; exit 1", r"could not fetch \(no network\)"), ("exit 0", "npm could not fetch")],
    )
    def test_npm_that_fails(self, tmp_path, monkeypatch, script, message):
        npm(tmp_path, monkeypatch, script)
        with pytest.raises(OptionError, match=message):
            runtime.find(None, webgpu=True)

    def test_fetched_once_and_only_what_has_the_right_hash(self, package, tmp_path, monkeypatch):
        with tarfile.open(tmp_path / "it.tgz", "w:gz") as tar:
            tar.add(package, "package")
        npm(tmp_path, monkeypatch, f'cp "{tmp_path}/it.tgz" "$5/it.tgz"; echo >> "{tmp_path}/calls"')
        with pytest.raises(OptionError, match="has another hash"):
            runtime.find(None, webgpu=True)
        digests = {name: runtime.hashlib.sha256(f"content of {name}".encode()).hexdigest() for name in NAMES}
        monkeypatch.setattr(runtime, "DIGESTS", digests)
        for _ in range(2):
            assert set(runtime.find(None, webgpu=False).files) == set(runtime.WASM)
        assert (tmp_path / "calls").read_text() == "\n\n"


def npm(folder, monkeypatch, script):
    """Put a program in the place of npm, and an empty cache."""
    monkeypatch.setenv("FGONNX_CACHE", str(folder / "cache"))
    (folder / "bin").mkdir()
    program = folder / "bin" / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")


class TestServed:
    @pytest.fixture(scope="class")
    @classmethod
    def address(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("site")
        (folder / "index.html").write_text("<p>here")
        (folder / "sub").mkdir()
        (folder / "ort.mjs").write_text("1")
        with serving(folder) as address:
            yield address

    def get(self, address, path, **headers):
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def test_isolated_and_in_the_right_type(self, address):
        answer = self.get(address, "/ort.mjs")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"

    @pytest.mark.parametrize(
        "path",
        [
            "/sub/",
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/nothing",
            "/index.html%00",
            "/%00",
            "/%ed%a0%80",
            "/" + "a" * 5000,
        ],
        ids=lambda path: path[:20],
    )
    def test_nothing_else(self, address, path):
        assert self.get(address, path).status == 404

    @pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("localhost:1", 200), ("127.0.0.1", 200)])
    def test_for_this_machine_alone(self, address, host, status):
        assert self.get(address, "/", Host=host).status == status

    @pytest.mark.slow
    def test_by_the_command_until_it_is_stopped(self, package, tmp_path):
        command = [sys.executable, "-m", "fgonnx", "view", str(SHAPES), "--serve", "--ort-web", str(package)]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            [*command, "--psis", "abs"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
        ) as process:
            found = None
            for line in process.stdout:
                found = re.search(r"http://127\.0\.0\.1:\d+/", line)
                if found:
                    break
            answer = self.get(found[0], "/data/model.json")
            process.send_signal(signal.SIGINT)
        assert answer.status == 200
        assert process.returncode == 0
        assert [p for p in tmp_path.iterdir() if (p / "index.html").exists()] == []


SEVERAL = """<ir_version: 8, opset_import: ["": 18]>
g (float[1,3,8,8] x, float[1,3] k) => (float[1,3] y) { p = GlobalAveragePool(x) f = Flatten(p) y = Mul(f, k) }"""
SOUND = """<ir_version: 8, opset_import: ["": 18]>
g (float[1,64] x) => (float[1,64] y) { y = Relu(x) }"""
FREE = """<ir_version: 8, opset_import: ["": 18]>
g (float[1,3,H,W] x) => (float[1,3] y) { p = GlobalAveragePool(x) y = Flatten(p) }"""
TOGETHER = """<ir_version: 8, opset_import: ["": 18]>
g (float[2,3,8,8] x) => (float[2,3] y) { p = GlobalAveragePool(x) y = Flatten(p) }"""


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "how", "error", "message"),
        [
            (SEVERAL, "unit", ModelError, "besides the picture the model takes k"),
            (SOUND, "unit", ModelError, "a page shows pictures, and the input 'x' has 2 axes"),
            (SOUND.replace("[1,64]", "[1,30,1,40]"), "unit", ModelError, "has 30 or 40 channels, a picture 1, 3 or 4"),
            (
                SOUND.replace("float", "double").replace("64", "3,8,8"),
                "unit",
                ModelError,
                "takes float64, and pictures",
            ),
            (FREE, "unit", OptionError, "takes pictures of any size"),
            (SMALL, None, PreprocessingError, "does not say how its pictures were prepared"),
        ],
    )
    def test_models(self, tmp_path, package, text, how, error, message):
        with pytest.raises(error, match=message):
            written(tmp_path / "site", package, model(text, tmp_path / "m.onnx"), Reading(preprocess=how))
        assert not (tmp_path / "site").exists()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"methods": ()}, r"methods=\(\) is empty"),
            ({"methods": ("fullgrat",)}, "did you mean 'fullgrad'"),
            ({"psis": ("both",)}, "choose from: abs, positive, signed"),
            ({"profiles": ("all",)}, "choose from: full, reference, paper"),
            ({"methods": ("rise",)}, "needs several runs"),
            ({"methods": ("grad-cam++",), "psis": ("positive",)}, "is made with abs or signed, not positive"),
        ],
    )
    def test_options(self, given, message):
        with pytest.raises(OptionError, match=message):
            PageOptions(**given).choices()

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ((), "say where the page goes"),
            (("-o", "x", "--port", "80"), "--port has no effect without --serve"),
            (("--serve", "--single-file"), "leave out one of it and --serve"),
        ],
    )
    def test_on_the_command_line(self, args, message):
        done = run("view", SHAPES, *args)
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())

    def test_samples(self, tmp_path, package):
        (tmp_path / "no.png").write_bytes(b"no")
        with pytest.raises(InputError, match="cannot be decoded"):
            written(tmp_path / "site", package, samples=(tmp_path / "no.png",))

    def test_too_many_weights_for_a_browser(self, tmp_path, package, monkeypatch):
        monkeypatch.setattr("fgonnx.view.weights.MOST_BYTES", 100_000)
        with pytest.raises(ModelError, match="browsers hold no larger array"):
            written(tmp_path / "site", package)


class TestTaken:
    def test_a_free_size_that_is_given(self, tmp_path, package):
        path = model(FREE, tmp_path / "m.onnx")
        written(tmp_path / "site", package, path, Reading(preprocess="unit,size=12x16"))
        described = json.loads((tmp_path / "site" / "data" / "model.json").read_text(encoding="utf-8"))
        assert described["input"] == {"name": "x", "dims": [1, 3, 12, 16], "dtype": "float32"}

    def test_a_fixed_batch_of_several(self, tmp_path, package):
        written(tmp_path / "site", package, model(TOGETHER, tmp_path / "m.onnx"), Reading(preprocess="unit"))
        described = json.loads((tmp_path / "site" / "data" / "model.json").read_text(encoding="utf-8"))
        assert described["input"]["dims"] == [1, 3, 8, 8]

    def test_a_model_whose_other_input_is_bound(self, tmp_path, package):
        path = model(SEVERAL, tmp_path / "m.onnx")
        options = Options(bind={"k": 2.0})
        page = PageOptions(ort_web=package, psis=("abs",), webgpu=False)
        assert PageJob(path, options, Reading(preprocess="unit"), page).write(tmp_path / "site")

    def test_a_model_with_external_weights(self, tmp_path, package):
        path = tmp_path / "in" / "m.onnx"
        path.parent.mkdir()
        onnx.save(onnx.load(SHAPES), path, save_as_external_data=True, location="m.data", size_threshold=100)
        written(tmp_path / "site", package, path)
        assert (tmp_path / "site" / "data" / "weights.bin").stat().st_size > 400_000

    def test_pictures_that_browsers_do_not_read_become_png(self, tmp_path):
        path = tmp_path / "a b.tiff"
        cv2.imwrite(str(path), np.full((4, 5, 3), 9, np.uint8))
        (found,) = samples.collect([path])
        assert (found.file, found.name, found.type) == ("samples/00-a-b.png", "a b.tiff", "image/png")

    def test_drawn_samples_are_the_same_every_time(self):
        assert [s.content for s in samples.collect(())] == [s.content for s in samples.collect(())]
