"""Runs in the layouts of other tools: what the files hold, and that the tools themselves read them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import parser

from fgonnx.errors import InputError, OptionError
from tests import skips
from tests import word_models as words
from tests.audit_support import CLASSES, classifier, encoded, folder
from tests.cli_support import ROOT, refused
from tests.cli_support import run as run_command
from tests.support import script

skips.without("pyarrow")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.auditing import audit, export, records, report, sign  # noqa: E402
from fgonnx.jobs.audit import arrow, formats, handed  # noqa: E402

SMALL_RUN = {"shard_size": 16, "sanity": 0, "measures": ("sparseness",)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed audit of forty pictures, 12 x 12 of which the model sees the middle, one of them unreadable."""
    base = tmp_path_factory.mktemp("exported")
    data = folder(base / "data", 40)
    for i, file in enumerate(sorted(data.rglob("*.png"))):
        file.write_bytes(encoded(i, 12))
    (data / "bee" / "005.png").write_bytes(b"no picture")
    cropped = base / "crop.json"
    cropped.write_text(json.dumps({"scale": 1 / 255, "size": [8, 8], "resize": "crop", "resize_to": 12}))
    net = classifier(base / "net.onnx")
    return audit(net, data, base / "run", preprocess=str(cropped), psi="signed", **SMALL_RUN)


def rows(run: Path) -> list[dict]:
    return [r for r in arrow.records(records(run)) if r["error"] is None]


def map_of(run: Path, row: dict) -> np.ndarray:
    shard, name = row["files"]["map"].split("/")
    return np.load(run / "shards" / shard)[name]


@pytest.fixture(scope="module")
def samples(run: Path) -> list[dict]:
    return json.loads((export(run, "fiftyone") / "samples.json").read_text())["samples"]


@pytest.fixture(scope="module")
def project(run: Path) -> Path:
    skips.without("h5py")
    return export(run, "virelay")


class TestFiftyOne:
    def test_every_row_with_a_result_is_a_sample(self, run, samples):
        assert [s["row"] for s in samples] == [r["row"]["number"] for r in rows(run)]
        for sample, row in zip(samples, rows(run), strict=True):
            assert sample["filepath"] == str((run.parent / "data" / row["row"]["name"]).resolve())
            assert sample["ground_truth"] == {"_cls": "Classification", "label": row["truth"]["label"]}
            assert sample["prediction"]["label"] == row["top5"][0]["label"]
            assert sample["prediction"]["confidence"] == row["top5"][0]["probability"]
            assert sample["correct"] == row["correct"]
            assert sample["measure_sparseness_gini"] == row["measures"]["sparseness.gini"]
            assert sample["evidence_border"] == row["evidence"]["border"]

    def test_heat_maps_lie_where_the_model_saw_the_picture(self, run, samples):
        row = rows(run)[0]
        map_ = map_of(run, row)
        for name, part in (("evidence_for", map_), ("evidence_against", -map_)):
            drawn = cv2.imread(str(run / "exports" / "fiftyone" / samples[0][name]["map_path"]), cv2.IMREAD_UNCHANGED)
            wanted = np.zeros((12, 12))
            wanted[2:10, 2:10] = np.maximum(part, 0) / np.abs(map_).max()
            np.testing.assert_allclose(drawn / 255, wanted, atol=0.51 / 255)

    def test_maps_that_are_not_signed_are_one_field(self, run, tmp_path):
        options = {"limit": 6, "sanity": 0, "maps": "half", "psi": "abs"}
        to = audit(run.parent / "net.onnx", run.parent / "data", tmp_path / "run", **options)
        samples = json.loads((export(to, "fiftyone", tmp_path / "to") / "samples.json").read_text())["samples"]
        drawn = cv2.imread(str(tmp_path / "to" / samples[0]["map"]["map_path"]), cv2.IMREAD_UNCHANGED)
        assert drawn.shape == (12, 12)
        assert drawn.max() == 255

    def test_pictures_of_archives_are_copied(self, run, tmp_path):
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for i in range(4):
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(encoded(i))
                tar.addfile(info, io.BytesIO(encoded(i)))
        to = export(audit(run.parent / "net.onnx", tmp_path / "t.tar", tmp_path / "run", sanity=0), "fiftyone")
        samples = json.loads((to / "samples.json").read_text())["samples"]
        assert {(to / s["filepath"]).read_bytes() for s in samples} == {encoded(i) for i in range(4)}

    @pytest.mark.slow
    def test_fiftyone_reads_it(self, run, samples):
        fo = skips.without("fiftyone")
        found = fo.Dataset.from_dir(str(run / "exports" / "fiftyone"), dataset_type=fo.types.FiftyOneDataset)
        assert len(found) == len(samples)
        assert found.count_values("prediction.label") == {
            name: sum(s["prediction"]["label"] == name for s in samples)
            for name in {s["prediction"]["label"] for s in samples}
        }
        assert Path(found.first().evidence_for.map_path).is_file()
        found.delete()


class TestViRelAy:
    def test_pictures_maps_and_labels_are_those_of_the_run(self, run, project):
        h5py = skips.without("h5py")
        labels = {label["index"]: label["name"] for label in json.loads((project / "label-map.json").read_text())}
        assert labels == {**dict(enumerate(CLASSES)), 4: "unknown"}
        with h5py.File(project / "dataset.h5") as pictures, h5py.File(project / "attributions.h5") as maps:
            assert len(pictures["data"]) == len(rows(run)) == 39
            for n, row in enumerate(rows(run)):
                whole = cv2.imread(str(run.parent / "data" / row["row"]["name"]))[:, :, ::-1]
                np.testing.assert_array_equal(pictures["data"][n], whole[2:10, 2:10])
                np.testing.assert_array_equal(maps["attribution"][n].sum(axis=0), map_of(run, row))
                assert labels[int(maps["label"][n])] == row["truth"]["label"]
                assert int(maps["prediction"][n].argmax()) == row["top5"][0]["index"]

    def test_clusters_are_those_of_the_report(self, run, project):
        h5py = skips.without("h5py")
        summary = json.loads((run / "report.json").read_text())
        with h5py.File(project / "analysis.h5") as groups:
            sizes = np.bincount(groups["all/cluster/hdbscan"], minlength=len(summary["clusters"]) + 1)
            assert sizes[1:].tolist() == [c["count"] for c in summary["clusters"]]
            assert sorted(groups["all/index"][()]) == list(range(39))
            assert groups["all/embedding/pca"].shape[0] == 39
            of_classes = [set(groups[name]["index"][()].tolist()) for name in groups if name != "all"]
            assert sum(map(len, of_classes)) == len(set.union(*of_classes)) == 39

    @pytest.mark.slow
    def test_virelay_reads_it(self, run, project):
        read = skips.without("virelay.model").Project(str(project / "project.yaml"))
        names = {c.name: c.human_readable_name for c in read.get_analysis_categories("fgonnx")}
        assert names["all"] == ""
        assert set(names.values()) - {""} <= set(CLASSES)
        assert len(read.get_analysis("fgonnx", "all", "hdbscan", "pca").clustering) == 39
        sample, attribution = read.get_sample(7), read.get_attribution(7)
        assert sample.labels[0].name == attribution.labels[0].name
        assert attribution.render_heatmap("blue-white-red", sample.data).shape == (8, 8, 3)
        assert attribution.render_heatmap("black-fire-red").shape == (8, 8, 3)

    def test_too_few_pictures_have_no_groups(self, run, tmp_path):
        skips.without("h5py")
        to = audit(run.parent / "net.onnx", run.parent / "data", tmp_path, limit=6, sanity=0)
        with pytest.raises(InputError, match="too few maps to group"):
            export(to, "virelay")

    def test_maps_have_to_be_kept(self, run, tmp_path):
        skips.without("h5py")
        to = audit(run.parent / "net.onnx", run.parent / "data", tmp_path, sanity=0, maps="none")
        with pytest.raises(InputError, match="no maps are kept"):
            export(to, "virelay")


class TestExports:
    def test_they_are_no_part_of_the_checksums(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "run")
        text = run_command("report", tmp_path / "run", "--export", "fiftyone").output
        assert "exports/fiftyone" in text
        assert "exports" not in (tmp_path / "run" / "SHA256SUMS").read_text()
        report(tmp_path / "run")
        assert formats.read_sums(tmp_path / "run") == []

    def test_another_tool_is_named(self, run):
        assert "choose one of: fiftyone, virelay" in refused("report", run, "--export", "fiftytwo")

    def test_runs_of_arrays_have_no_pictures(self, tmp_path):
        (tmp_path / "data").mkdir()
        np.save(tmp_path / "data" / "x.npy", np.zeros((4, 3, 8, 8), np.float32))
        to = audit(classifier(tmp_path / "net.onnx"), tmp_path / "data", tmp_path / "run", sanity=0)
        with pytest.raises(InputError, match="holds arrays, and other tools are given pictures"):
            export(to, "fiftyone")
        assert not (to / "exports").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: (data / "ant" / "000.png").write_bytes(encoded(99)), "is not what it was when"),
            (lambda data: (data / "ant" / "000.png").unlink(), "cannot be read: No such file"),
        ],
    )
    def test_pictures_have_to_be_what_they_were(self, tmp_path, change, message):
        data = folder(tmp_path / "data", 4)
        to = audit(classifier(tmp_path / "net.onnx"), data, tmp_path / "run", sanity=0)
        change(data)
        with pytest.raises(InputError, match=message):
            export(to, "fiftyone")


def of_arrays(base: Path) -> tuple[Path, Path]:
    (base / "arrays").mkdir()
    np.save(base / "arrays" / "x.npy", np.zeros((20, 3, 8, 8), np.float32))
    return classifier(base / "net.onnx"), base / "arrays"


def of_texts(base: Path) -> tuple[Path, Path]:
    (base / "t.csv").write_text("text\nthe film was superb\n")
    return words.written(base), base / "t.csv"


def of_features(base: Path) -> tuple[Path, Path]:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[N,2] x) => (float[N,2] y)
        <float[2,2] w = {1, -1, 2, 0}> { y = MatMul(x, w) }"""
    onnx.save(parser.parse_model(text), base / "f.onnx")
    (base / "f.csv").write_text("a,b\n1,2\n")
    return base / "f.onnx", base / "f.csv"


def of_recordings(base: Path) -> tuple[Path, Path]:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[N,2,4] x) => (float[N,2] y)
        <int64[1] t = {2}> { y = ReduceMean<keepdims=0>(x, t) }"""
    onnx.save(parser.parse_model(text), base / "s.onnx")
    (base / "s.csv").write_text("id,a,b\n" + "u,1,2\n" * 4)
    return base / "s.onnx", base / "s.csv"


def of_pictures(count: int, *, and_array: bool = False) -> Callable[[Path], tuple[Path, Path]]:
    def made(base: Path) -> tuple[Path, Path]:
        data = folder(base / "data", count, classes=False)
        if and_array:
            np.save(data / "x.npy", np.zeros((3, 8, 8), np.float32))
        return classifier(base / "net.onnx"), data

    return made


REFUSED_EARLY = {
    "texts": (of_texts, {"exports": ("fiftyone",)}, "holds texts, and other tools are given pictures"),
    "texts for both": (of_texts, {"exports": ("fiftyone", "virelay")}, "holds texts"),
    "rows of a table": (of_features, {"exports": ("virelay",)}, "holds rows of a table"),
    "recordings": (of_recordings, {"exports": ("fiftyone",)}, "holds rows of a table"),
    "arrays": (of_arrays, {"exports": ("fiftyone",)}, "holds arrays"),
    "few pictures": (of_pictures(6), {"exports": ("virelay",)}, "too few maps to group"),
    "few that are drawn": (of_pictures(20), {"exports": ("virelay",), "limit": 15}, "too few maps to group"),
    "pictures and an array": (of_pictures(20, and_array=True), {"exports": ("virelay",)}, "maps of arrays"),
    "no maps": (of_pictures(20), {"exports": ("virelay",), "maps": "none"}, "no maps are kept"),
    "a part of the shards": (of_pictures(4), {"exports": ("fiftyone",), "part": (1, 2)}, "no report to hand on"),
    "a part that is signed": (of_pictures(4), {"sign": "key.pem", "part": (1, 2)}, "no report to hand on"),
}


class TestBeforeTheRun:
    @pytest.mark.parametrize("case", REFUSED_EARLY)
    def test_what_cannot_be_handed_on_is_refused_and_nothing_is_written(self, tmp_path, case):
        made, options, message = REFUSED_EARLY[case]
        if "virelay" in options.get("exports", ()):
            skips.without("h5py")
        model, data = made(tmp_path)
        with pytest.raises((InputError, OptionError), match=message):
            audit(model, data, tmp_path / "run", sanity=0, **options)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("made", [of_texts, of_features, of_arrays])
    def test_so_does_the_command(self, tmp_path, made):
        model, data = made(tmp_path)
        asked = ("audit", model, data, "-o", tmp_path / "run", "--sanity", "0", "--export", "fiftyone")
        assert "other tools are given pictures: leave the export out" in refused(*asked)
        assert not (tmp_path / "run").exists()

    def test_a_report_is_not_written_either(self, tmp_path):
        model, data = of_features(tmp_path)
        to = audit(model, data, tmp_path / "run", sanity=0)
        (to / "report.html").unlink()
        assert "holds rows of a table" in refused("report", to, "--export", "fiftyone")
        assert not (to / "report.html").exists()

    def test_what_is_missing_is_named(self, tmp_path, monkeypatch):
        model, data = of_pictures(20)(tmp_path)
        monkeypatch.setattr(handed, "find_spec", lambda name: None)
        with pytest.raises(OptionError, match="pip install h5py"):
            audit(model, data, tmp_path / "run", sanity=0, exports=("virelay",))
        monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
        with pytest.raises(OptionError, match="pip install model-signing"):
            audit(model, data, tmp_path / "run", sanity=0, sign="key.pem")
        assert not (tmp_path / "run").exists()

    def test_a_run_to_compare_with_has_to_be_one(self, tmp_path):
        model, data = of_pictures(4)(tmp_path)
        said = refused("audit", model, data, "-o", tmp_path / "run", "--against", tmp_path / "before")
        assert "holds no audit" in said
        assert not (tmp_path / "run").exists()

    def test_what_can_be_is_handed_on_at_the_end(self, tmp_path):
        model, data = of_pictures(4)(tmp_path)
        asked = ("audit", model, data, "-o", tmp_path / "run", "--sanity", "0", "--export", "fiftyone")
        assert "exports/fiftyone" in run_command(*asked).output
        to = audit(model, data, tmp_path / "other", sanity=0, exports=("fiftyone",))
        assert len(json.loads((to / "exports" / "fiftyone" / "samples.json").read_text())["samples"]) == 4


class TestSignature:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> Path:
        if shutil.which("openssl") is None:
            skips.now(skips.SYSTEM)
        private, public = tmp_path / "key.pem", tmp_path / "key.pub"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
        subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
        return private

    def test_a_signature_is_of_the_checksums(self, run, tmp_path, keys):
        skips.without("model_signing")
        from model_signing import verifying

        shutil.copytree(run, tmp_path / "run")
        assert "SHA256SUMS.sig" in run_command("report", tmp_path / "run", "--sign", keys).output
        sums, signature = tmp_path / "run" / "SHA256SUMS", tmp_path / "run" / "SHA256SUMS.sig"
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys.with_suffix(".pub"))
        verifier.verify(sums, signature)
        report(tmp_path / "run")  # the same report: what was signed is still there
        verifier.verify(sums, signature)
        sums.write_text(sums.read_text().replace("0", "1"))
        with pytest.raises(ValueError, match=r"[Mm]ismatch"):
            verifier.verify(sums, signature)

    def test_a_key_that_is_none_is_refused(self, run, tmp_path, keys):
        skips.without("model_signing")
        (tmp_path / "text.pem").write_text("no key")
        asked = ["openssl", "ec", "-in", keys, "-aes128", "-passout", "pass:word", "-out", tmp_path / "word.pem"]
        subprocess.run(asked, check=True, capture_output=True)
        subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa.pem"], check=True, capture_output=True)
        for name in ("text.pem", "word.pem", "rsa.pem"):
            assert "is no private key of an elliptic curve" in refused("report", run, "--sign", tmp_path / name)
        assert "does not exist" in refused("report", run, "--sign", tmp_path / "none.pem")

    def test_without_the_package_an_error_says_what_to_install(self, run, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
        with pytest.raises(OptionError, match="pip install model-signing pyopenssl"):
            sign(run, tmp_path / "key.pem")

    def test_a_signature_of_other_checksums_goes(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "run")
        signature = tmp_path / "run" / formats.SIGNATURE
        signature.write_text("of what is signed")
        report(tmp_path / "run")
        assert signature.is_file()
        assert formats.SIGNATURE not in (tmp_path / "run" / "SHA256SUMS").read_text()
        (tmp_path / "run" / "report.html").unlink()
        formats.forget(tmp_path / "run", {"report.html"})
        assert not signature.exists()


@pytest.mark.slow
def test_mlflow_takes_the_numbers_and_the_files(run, tmp_path, monkeypatch):
    mlflow = skips.without("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    logged = mlflow.get_run(script(ROOT / "examples" / "mlflow_run.py").log(run))
    summary = json.loads((run / "report.json").read_text())
    assert logged.data.metrics["accuracy/all"] == summary["performance"][0]["accuracy"]
    assert (
        logged.data.metrics["measure/sparseness.gini"] == summary["cohorts"][0]["measures"]["sparseness.gini"]["mean"]
    )
    assert logged.data.tags["audit"] == summary["run"]
    kept = {file.path for file in mlflow.MlflowClient().list_artifacts(logged.info.run_id)}
    assert {"report.html", "SHA256SUMS", "model-card.cdx.json"} <= kept
