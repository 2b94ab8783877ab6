"""Audits: a plan, shards that are whole or not there, runners that write the same bytes, and what is refused."""

from __future__ import annotations

import csv
import errno
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgonnx import Running
from fgonnx.errors import InputError, OptionError, PreprocessingError, TargetError
from fgonnx.files import temporary_of
from tests import skips
from tests.audit_support import CLASSES, classifier, encoded, folder, ray, shard_bytes
from tests.cli_support import ROOT, SMALL, good, refused, run

pa = skips.without("pyarrow")
pq = skips.without("pyarrow.parquet")
skips.without("filelock")

from fgonnx.jobs.audit import arrow, runners  # noqa: E402
from fgonnx.jobs.audit.job import AuditJob, audit, records  # noqa: E402
from fgonnx.jobs.audit.options import Auditing, Runner, parse_part  # noqa: E402
from fgonnx.jobs.audit.plan import planned  # noqa: E402
from fgonnx.jobs.audit.request import Request  # noqa: E402
from fgonnx.jobs.audit.shard import explain_shard  # noqa: E402

SMALL_SHARDS = {"shard_size": 4, "sanity": 0, "seed": 3}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return classifier(tmp_path / "net.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder(tmp_path / "data")


def request_of(net: Path, data: Path, to: Path, **auditing) -> Request:
    return Request(net, data, to, auditing=Auditing(**{**SMALL_SHARDS, **auditing}))


def done(net: Path, data: Path, to: Path, runner: Runner | None = None, **auditing) -> Path:
    """Do an audit, without its report."""
    for _ in AuditJob(request_of(net, data, to, **auditing), runner).run():
        pass
    return to


def same_plan(of: Path, to: Path) -> Path:
    """Copy the plan of a run, so that another run has its time too."""
    (to / "shards").mkdir(parents=True)
    for name in ("run.json", "plan.parquet"):
        shutil.copy(of / name, to / name)
    return to


def rows(to: Path) -> list[dict]:
    return arrow.records(records(to))


class TestPlan:
    def test_every_row_is_in_one_shard(self, net, data, tmp_path):
        plan = planned(request_of(net, data, tmp_path / "run"))
        assert plan.shards == 3
        names = [row["name"] for k in range(3) for row in plan.rows(k)]
        assert sorted(names) == sorted(f"{CLASSES[i % 4]}/{i:03}.png" for i in range(12))

    def test_the_order_is_the_seeds(self, net, data, tmp_path):
        def names(seed: int, to: str) -> list[str]:
            return planned(request_of(net, data, tmp_path / to, seed=seed)).table.column("name").to_pylist()

        assert names(1, "a") == names(1, "b")
        assert names(1, "c") != names(2, "d")

    def test_a_plan_may_be_made_twice_at_once(self, net, data, tmp_path):
        first = planned(request_of(net, data, tmp_path / "run"))
        again = planned(request_of(net, data, tmp_path / "run"))
        assert first.about == again.about

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": 4}, "another data; auditing.seed 3 there, 4 here"),
            ({"shard_size": 5}, "auditing.shard_size 4 there, 5 here"),
            ({"maps": "half"}, "auditing.maps exact there, half here"),
            ({"limit": 6}, "another data; auditing.limit None there, 6 here"),
        ],
    )
    def test_other_settings_in_the_same_folder_are_refused(self, net, data, tmp_path, change, message):
        planned(request_of(net, data, tmp_path / "run"))
        with pytest.raises(OptionError, match=message):
            planned(request_of(net, data, tmp_path / "run", **change))

    def test_another_model_is_refused(self, net, data, tmp_path):
        planned(request_of(net, data, tmp_path / "run"))
        classifier(net, b=np.ones(4, np.float32))
        with pytest.raises(OptionError, match=r"holds an audit with other settings .another model"):
            planned(request_of(net, data, tmp_path / "run"))

    def test_other_data_are_refused(self, net, data, tmp_path):
        planned(request_of(net, data, tmp_path / "run"))
        (data / "ant" / "000.png").write_bytes(encoded(99))
        with pytest.raises(OptionError, match="another data"):
            planned(request_of(net, data, tmp_path / "run"))

    def test_a_run_of_another_version_is_refused(self, net, data, tmp_path):
        planned(request_of(net, data, tmp_path / "run"))
        file = tmp_path / "run" / "run.json"
        about = json.loads(file.read_text())
        file.write_text(json.dumps({**about, "schema": 1}))
        with pytest.raises(InputError, match="layout 1 of the records, and this fgonnx writes 2"):
            planned(request_of(net, data, tmp_path / "run"))

    def test_a_shard_of_another_run_is_refused(self, net, data, tmp_path):
        done(net, data, tmp_path / "a")
        done(net, data, tmp_path / "b", seed=9)
        name = "records-000001.parquet"
        (tmp_path / "a" / "shards" / name).write_bytes((tmp_path / "b" / "shards" / name).read_bytes())
        with pytest.raises(OptionError, match="is no shard of this run"):
            AuditJob(request_of(net, data, tmp_path / "a"))


class TestData:
    def test_a_table_with_slices(self, net, data, tmp_path):
        with (tmp_path / "data" / "list.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label", "camera"])
            table.writerows([f"{CLASSES[i % 4]}/{i:03}.png", CLASSES[i % 4], "ab"[i % 2]] for i in range(8))
        found = rows(done(net, data / "list.csv", tmp_path / "run", slices=("camera",)))
        assert {row["slices"]["camera"] for row in found} == {"a", "b"}
        assert all(row["truth"]["label"] == row["row"]["name"].partition("/")[0] for row in found)

    def test_pictures_in_a_table_in_a_tar_and_in_a_folder_are_explained_alike(self, net, tmp_path):
        flat = folder(tmp_path / "flat", 8, classes=False)
        content = [encoded(i) for i in range(8)]
        pq.write_table(pa.table({"bytes": content}), tmp_path / "t.parquet", row_group_size=3)
        image = [{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(content)]
        pq.write_table(pa.table({"image": image}), tmp_path / "hf.parquet")
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for i, c in enumerate(content):
                for name, part in ((f"{i:03}.png", c), (f"{i:03}.cls", b"2"), (f"{i:03}.json", b'{"site": "x"}')):
                    info = tarfile.TarInfo(name)
                    info.size = len(part)
                    tar.addfile(info, io.BytesIO(part))
        maps = []
        for n, source in enumerate((flat, tmp_path / "t.parquet", tmp_path / "hf.parquet", tmp_path / "t.tar")):
            found = rows(done(net, source, tmp_path / f"run{n}"))
            assert [row["error"] for row in found] == [None] * 8
            maps.append(sorted((row["input"]["sha256"], row["map"]["sha256"]) for row in found))
        assert maps[1:] == maps[:1] * 3
        assert {row["truth"]["index"] for row in found} == {2}

    def test_a_list_of_files(self, net, data, tmp_path):
        (data / "some.txt").write_text("ant/000.png\nbee/001.png\n")
        assert len(rows(done(net, data / "some.txt", tmp_path / "run"))) == 2

    def test_arrays(self, tmp_path, net):
        (tmp_path / "arrays").mkdir()
        np.save(tmp_path / "arrays" / "x.npy", np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32))
        found = rows(done(net, tmp_path / "arrays", tmp_path / "run"))
        assert sorted(row["row"]["name"] for row in found) == ["x.npy#0", "x.npy#1", "x.npy#2"]
        assert all(row["map"]["shape"] == [8, 8] for row in found)

    def test_where_the_object_is(self, net, data, tmp_path):
        coco = {
            "images": [{"id": 1, "file_name": "ant/000.png"}],
            "annotations": [{"image_id": 1, "bbox": [0, 0, 4, 8]}],
        }
        (tmp_path / "coco.json").write_text(json.dumps(coco))
        to = done(net, data, tmp_path / "run", objects=tmp_path / "coco.json")
        (row,) = [r for r in rows(to) if r["row"]["name"] == "ant/000.png"]
        shard, name = row["files"]["map"].split("/")
        map_ = np.abs(np.load(to / "shards" / shard)[name])
        assert row["evidence"]["object_area"] == 0.5
        assert row["evidence"]["object"] == pytest.approx(map_[:, :4].sum() / map_.sum(), rel=1e-6)

    @pytest.mark.parametrize(
        ("prepare", "error", "message"),
        [
            (lambda d: d / "nowhere", InputError, "does not exist"),
            (lambda d: (d / "e").mkdir() or d / "e", InputError, "holds no picture"),
            (lambda d: written(d / "n.txt", "x") and (d / "e.csv"), InputError, "does not exist"),
            (lambda d: written(d / "t.csv", "path\nant/000.png\nant/000.png\n"), InputError, "in rows 1 and 2"),
            (lambda d: written(d / "t.csv", "path,label\nant/000.png,whale\n"), TargetError, "'whale'"),
            (lambda d: written(d / "t.csv", "picture\nant/000.png\n"), InputError, "has none of the columns"),
            (
                lambda d: written(d / "t.csv", "path\nant/none.png\n"),
                InputError,
                "none of the first 1 rows can be read",
            ),
            (lambda d: written(d / "t.tar", "no tar"), InputError, "cannot be read as an uncompressed tar"),
            (lambda d: written(d / "t.parquet", "no table"), InputError, "cannot be read as Parquet"),
            (lambda d: (d / "whale").mkdir() or (written(d / "whale" / "a.png", "x") and d), TargetError, "'whale'"),
        ],
    )
    def test_what_cannot_be_audited_is_refused(self, net, data, tmp_path, prepare, error, message):
        with pytest.raises(error, match=message):
            planned(request_of(net, prepare(data), tmp_path / "run"))
        assert not (tmp_path / "run").exists()

    def test_a_column_that_does_not_exist_is_named(self, net, data, tmp_path):
        table = written(data / "t.csv", "path,camera\nant/000.png,1\n")
        with pytest.raises(OptionError, match=r"no column 'camra'.*did you mean 'camera'"):
            planned(request_of(net, table, tmp_path / "run", slices=("camra",)))

    def test_pictures_without_a_preprocessing_are_refused(self, data, tmp_path):
        from tests.cli_support import SMALL, model

        with pytest.raises(PreprocessingError, match="does not say how its pictures"):
            planned(request_of(model(SMALL, tmp_path / "bare.onnx"), data, tmp_path / "run"))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


class TestRecords:
    def test_what_cannot_be_read_is_a_row_with_its_error(self, net, data, tmp_path):
        (data / "bee" / "001.png").write_bytes(b"no picture")
        (data / "cat" / "002.png").write_bytes(b"")
        found = {row["row"]["name"]: row for row in rows(done(net, data, tmp_path / "run"))}
        assert len(found) == 12
        assert "cannot be decoded" in found["bee/001.png"]["error"]
        assert "is empty" in found["cat/002.png"]["error"]
        assert sum(row["error"] is None for row in found.values()) == 10

    def test_a_file_that_changes_after_the_plan_is_an_error(self, net, data, tmp_path):
        job = AuditJob(request_of(net, data, tmp_path / "run"))
        (data / "ant" / "000.png").write_bytes(encoded(77))
        for _ in job.run():
            pass
        (row,) = [r for r in rows(tmp_path / "run") if r["error"]]
        assert row["row"]["name"] == "ant/000.png"
        assert "is not what it was when the audit was planned" in row["error"]

    def test_a_record_says_what_explain_says(self, net, data, tmp_path):
        good("explain", net, data / "ant" / "000.png", "-o", tmp_path / "one", "--batch-size", "1", "--no-cache")
        alone = json.loads((tmp_path / "one" / "000.json").read_text())
        (row,) = [r for r in rows(done(net, data, tmp_path / "run")) if r["row"]["name"] == "ant/000.png"]
        for key in ("model", "versions", "preprocessing", "explained", "tensor", "environment"):
            assert row[key] == alone[key], key
        assert row["score"] == pytest.approx(alone["score"], rel=1e-5)
        assert row["input"]["sha256"] == alone["input"]["sha256"]
        assert [s["name"] for s in row["sites"]] == [s["name"] for s in alone["sites"]]

    def test_kept_maps_are_those_of_the_records(self, net, data, tmp_path):
        import hashlib

        to = done(net, data, tmp_path / "run")
        for row in rows(to):
            shard, name = row["files"]["map"].split("/")
            map_ = np.load(to / "shards" / shard)[name]
            assert hashlib.sha256(map_.tobytes()).hexdigest() == row["map"]["sha256"]

    def test_half_maps_are_in_units_of_their_maximum(self, net, data, tmp_path):
        to, exact = (done(net, data, tmp_path / kind, maps=kind) for kind in ("half", "exact"))
        for row in rows(to):
            shard, name = row["files"]["map"].split("/")
            half = np.load(to / "shards" / shard)[name]
            whole = np.load(exact / "shards" / shard)[name]
            assert half.dtype == np.float16
            np.testing.assert_allclose(half * row["map"]["max"], whole, atol=1e-3 * row["map"]["max"])

    def test_nothing_is_kept_that_was_not_wanted(self, net, data, tmp_path):
        to = done(net, data, tmp_path / "run", maps="none", pictures=False)
        assert sorted(shard_bytes(to)) == [f"records-{k:06}.parquet" for k in range(3)]
        assert records(to, ["pictures"]).column("pictures").null_count == 12

    def test_only_what_matters_is_explained(self, net, data, tmp_path):
        whole = {r["row"]["name"]: r for r in rows(done(net, data, tmp_path / "all"))}
        some = {r["row"]["name"]: r for r in rows(done(net, data, tmp_path / "some", only="correct == false"))}
        for name, row in some.items():
            assert (row["map"] is not None) == (row["correct"] is False)
            assert row["top5"][0]["index"] == whole[name]["top5"][0]["index"]
            assert row["top5"][0]["probability"] == pytest.approx(whole[name]["top5"][0]["probability"], rel=1e-5)
            assert row["correct"] == whole[name]["correct"]
        assert 0 < sum(row["map"] is None for row in some.values()) < 12

    @pytest.mark.parametrize(
        ("condition", "note"),
        [
            ("probability < 0.8", "names probability, which no row has: the model computes none"),
            ("truth == 'ant'", "names truth, which no row has: the data do not say which class is true"),
            ("correct == false", "names correct, which no row has: the data do not say which class is true"),
            ("name == 'nowhere.png'", "compares name with 'nowhere.png', which no row has"),
        ],
    )
    def test_a_condition_that_no_row_can_meet_is_noted(self, tmp_path, condition, note):
        net = classifier(tmp_path / "net.onnx", text=SMALL.replace("y = Softmax(f)", "y = Identity(f)"))
        data = folder(tmp_path / "data", 3, classes=False)
        text = good("audit", net, data, "-o", tmp_path / "run", "--sanity", "0", "--if", condition)
        assert note in text
        assert f"no row was explained: '{condition}' holds for none" in text

    @pytest.mark.parametrize("condition", ["truth == 'nope'", "predicted == 3"])
    def test_a_condition_on_what_is_no_class_is_refused(self, net, data, tmp_path, condition):
        message = refused("audit", net, data, "-o", tmp_path / "run", "--if", condition)
        assert "which no row has" in message
        assert not (tmp_path / "run").exists()

    def test_a_condition_that_can_be_met_has_no_note(self, net, data, tmp_path):
        condition = "correct == false or probability < 0.3 or truth == 'ant' or margin < 0"
        assert "no row" not in good("audit", net, data, "-o", tmp_path / "run", "--sanity", "0", "--if", condition)

    def test_an_empty_condition_is_named_as_it_was_typed(self, net, data, tmp_path):
        assert "--if '' is empty" in refused("audit", net, data, "-o", tmp_path / "run", "--if", "")

    def test_free_texts_are_carried(self, net, data, tmp_path):
        found = rows(done(net, data, tmp_path / "run", remarks={"reviewer": "A. Turing"}))
        assert {row["reviewer"] for row in found} == {"A. Turing"}
        with pytest.raises(OptionError, match="'reviwer' does not exist"):
            Auditing(remarks={"reviwer": "x"})


class TestResuming:
    def test_only_missing_shards_are_done_again_and_are_the_same(self, net, data, tmp_path):
        before = shard_bytes(done(net, data, tmp_path / "run"))
        for name in ("records-000001.parquet", "maps-000002.npz", "records-000002.parquet"):
            (tmp_path / "run" / "shards" / name).unlink()
        left = temporary_of(tmp_path / "run" / "shards" / "maps-000001.npz", "abc")
        left.write_bytes(b"left by a process that was killed")
        job = AuditJob(request_of(net, data, tmp_path / "run"))
        assert job.left == [1, 2]
        assert sorted(k for k, _ in job.run()) == [1, 2]
        assert shard_bytes(tmp_path / "run") == before

    def test_shards_are_a_function_of_the_plan(self, net, data, tmp_path):
        before = shard_bytes(done(net, data, tmp_path / "run"))
        for path in (tmp_path / "run" / "shards").iterdir():
            path.unlink()
        plan = planned(request_of(net, data, tmp_path / "run"))
        for k in (2, 0, 1):
            explain_shard(plan, k)
        plan.tools.close()
        assert shard_bytes(tmp_path / "run") == before

    @pytest.mark.parametrize("stage", ["maps", "records"])
    def test_a_full_disk_is_an_error_and_loses_nothing(self, net, data, tmp_path, stage, monkeypatch):
        before = shard_bytes(done(net, data, tmp_path / "good"))
        same_plan(tmp_path / "good", tmp_path / "run")
        job = AuditJob(request_of(net, data, tmp_path / "run"))
        real = os.fsync
        file = Path(f"{stage}-000001").with_suffix({"maps": ".npz", "records": ".parquet"}[stage])
        beginning = temporary_of(file, "*").name.partition("*")[0]

        def full(handle: int) -> None:
            if beginning in os.readlink(f"/proc/self/fd/{handle}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        if not Path("/proc/self/fd").is_dir():
            skips.now(skips.SYSTEM)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OptionError, match="cannot be written: No space left on device"):
            list(job.run())
        monkeypatch.undo()
        assert not list((tmp_path / "run" / "shards").glob(".*"))
        list(AuditJob(request_of(net, data, tmp_path / "run")).run())
        assert shard_bytes(tmp_path / "run") == before

    def test_two_runners_on_one_folder_are_refused(self, net, data, tmp_path):
        job = AuditJob(request_of(net, data, tmp_path / "run"))
        with runners._alone(job.plan, job.runner), pytest.raises(OptionError, match="another fgonnx works on"):
            list(job.run())
        assert len(list(job.run())) == 3

    @pytest.mark.slow
    def test_killed_at_any_point_every_row_is_there_once(self, net, data, tmp_path):
        before = shard_bytes(done(net, data, tmp_path / "good", shard_size=1))
        same_plan(tmp_path / "good", tmp_path / "run")
        command = [sys.executable, "-m", "fgonnx", "audit", net, data, "-o", tmp_path / "run"]
        command += ["--shard-size", "1", "--sanity", "0", "--seed", "3", "--no-cache"]
        for killed in range(3):
            process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
            limit = time.monotonic() + 60
            while len(list((tmp_path / "run").glob("shards/records-*"))) < 3 * killed + 1 and process.poll() is None:
                assert time.monotonic() < limit
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done(net, data, tmp_path / "run", shard_size=1)
        found = shard_bytes(tmp_path / "run")
        assert found == before
        assert sorted(r["row"]["number"] for r in rows(tmp_path / "run")) == list(range(12))


class TestRunners:
    def test_two_runs_of_one_request_differ_in_their_time_alone(self, net, data, tmp_path):
        a, b = (done(net, data, tmp_path / name) for name in "ab")
        without = [[{k: v for k, v in row.items() if k != "time"} for row in rows(to)] for to in (a, b)]
        assert without[0] == without[1]
        maps = [{k: v for k, v in shard_bytes(to).items() if k.startswith("maps")} for to in (a, b)]
        assert maps[0] == maps[1]

    def test_parts_together_are_the_whole(self, net, data, tmp_path):
        before = shard_bytes(done(net, data, tmp_path / "whole"))
        same_plan(tmp_path / "whole", tmp_path / "parts")
        for k in (2, 1):
            done(net, data, tmp_path / "parts", Runner(part=(k, 2)))
        assert shard_bytes(tmp_path / "parts") == before

    @pytest.mark.parametrize("apart", [True, False])
    def test_the_number_of_threads_changes_no_byte(self, net, data, tmp_path, monkeypatch, apart):
        monkeypatch.setattr(importlib.import_module("fgonnx.explain.beside"), "_SMALL", 0 if apart else 1 << 60)
        runs = {}
        for threads in (1, 2, 5):
            request = replace(request_of(net, data, tmp_path / "1"), running=Running(batch_size=3, threads=threads))
            if threads > 1:
                to = same_plan(tmp_path / "1", tmp_path / str(threads))
                request = replace(request, folder=to)
            for _ in AuditJob(request).run():
                pass
            runs[threads] = shard_bytes(request.folder)
        assert runs[1] == runs[2] == runs[5]

    def test_batches_are_explained_at_once_in_a_thread_each(self, net, data, tmp_path):
        request = replace(request_of(net, data, tmp_path / "run"), running=Running(batch_size=3, threads=5))
        tools = planned(request).tools
        assert (tools.at_once, tools.explainer.running.threads) == (5, 1)

    @pytest.mark.slow
    def test_processes_write_the_same_bytes(self, net, data, tmp_path):
        before = shard_bytes(done(net, data, tmp_path / "whole"))
        to = same_plan(tmp_path / "whole", tmp_path / "more")
        assert shard_bytes(done(net, data, to, Runner(workers=2))) == before

    @pytest.mark.slow
    def test_ray_writes_the_same_bytes(self, net, data, tmp_path):
        before = shard_bytes(done(net, data, tmp_path / "whole"))
        to = same_plan(tmp_path / "whole", tmp_path / "ray")
        with ray():
            done(net, data, to, Runner(runner="ray", workers=2))
        assert shard_bytes(to) == before

    @pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/"])
    def test_parts_that_are_none_are_refused(self, text):
        with pytest.raises(OptionError):
            parse_part(text)


class TestCommands:
    def test_from_the_command_line_and_from_python(self, net, data, tmp_path):
        options = ("--shard-size", "4", "--sanity", "0", "--seed", "3")
        text = good("audit", net, data, "-o", tmp_path / "run", *options)
        assert "12 rows in 3 shards, 3 to do" in text
        assert "12 of 12, 12 explained" in text
        same_plan(tmp_path / "run", tmp_path / "python")
        to = audit(net, data, tmp_path / "python", shard_size=4, sanity=0, seed=3)
        assert shard_bytes(to) == shard_bytes(tmp_path / "run")
        assert "3 shards, 0 to do" in good("audit", net, data, "-o", tmp_path / "run", *options)

    def test_errors_of_rows_set_the_exit_code(self, net, data, tmp_path):
        (data / "bee" / "001.png").write_bytes(b"no picture")
        result = run("audit", net, data, "-o", tmp_path / "run", "--sanity", "0")
        assert result.exit_code == 1
        assert "1 rows have no result" in result.stdout
        assert run("report", tmp_path / "run").exit_code == 1

    @pytest.mark.parametrize(
        ("options", "psi"),
        [({}, "signed"), ({"psi": "abs"}, "abs"), ({"method": "rise"}, "abs"), ({"method": "grad-cam"}, "signed")],
    )
    def test_maps_are_signed_unless_asked_otherwise(self, net, data, tmp_path, options, psi):
        typed = [text for name, value in options.items() for text in (f"--{name}", value)]
        good("audit", net, data, "-o", tmp_path / "typed", "--sanity", "0", "--limit", "2", *typed)
        audit(net, data, tmp_path / "python", sanity=0, limit=2, **options)
        for to in (tmp_path / "typed", tmp_path / "python"):
            about = json.loads((to / "run.json").read_text())
            assert about["request"]["options"]["psi"] == psi
            assert ("--psi" in about["command"]) == ("psi" in options)

    def test_methods_with_settings_of_their_own_are_chosen_by_name(self, net, data, tmp_path):
        to = audit(net, data, tmp_path / "run", method="smooth-fullgrad", samples=3, sanity=0, limit=4)
        assert {(r["settings"]["method"], r["settings"]["samples"]) for r in rows(to)} == {("smooth-fullgrad", 3)}
        assert audit(net, data, tmp_path / "cam", method="grad-cam", sanity=0, limit=4)
        with pytest.raises(OptionError, match="there is no option 'colour'"):
            audit(net, data, tmp_path / "no", method="grad-cam", colour=3)

    def test_an_option_that_does_not_exist_is_named(self, net, data, tmp_path):
        with pytest.raises(OptionError, match=r"no option 'shards_size'.*did you mean 'shard_size'"):
            audit(net, data, tmp_path / "run", shards_size=3)
        assert "compares a name" not in refused("audit", net, data, "-o", tmp_path / "r", "--if", "probability < 'x")

    def test_a_folder_without_a_run_has_no_report(self, tmp_path):
        assert "holds no audit" in refused("report", tmp_path)
