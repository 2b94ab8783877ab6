"""Rows without a picture, or with a name that is not UTF-8, are rows with their error; the others are explained."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from fgonnx.errors import InputError
from tests import skips
from tests.audit_support import classifier, encoded, folder
from tests.cli_support import refused, run

pa = skips.without("pyarrow")
pq = skips.without("pyarrow.parquet")
skips.without("sklearn")
skips.without("filelock")

from fgonnx.jobs.audit import arrow  # noqa: E402
from fgonnx.jobs.audit.job import audit, records  # noqa: E402

OPTIONS = {"sanity": 0, "pictures": False}
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return classifier(tmp_path / "net.onnx")


def errors(to: Path) -> dict[str, str | None]:
    return {row["row"]["name"]: row["error"] for row in arrow.records(records(to))}


def written(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (OSError, UnicodeError):
        skips.now(skips.SYSTEM)
    return path


class TestNamesThatAreNotUtf8:
    def test_a_picture_is_a_row_with_its_error(self, net, tmp_path):
        data = folder(tmp_path / "data", 3, classes=False)
        written(data / NOT_UTF8, encoded(9))
        written(data / os.fsdecode(b"note\xff.md"), b"")
        result = run("audit", net, data, "-o", tmp_path / "run", "--sanity", "0")
        assert result.exit_code == 1
        found = errors(tmp_path / "run")
        assert "has a name that is not UTF-8: rename" in found.pop("caf\\udce9.png")
        assert list(found.values()) == [None] * 3
        assert run("report", tmp_path / "run").exit_code == 1

    def test_a_picture_in_a_tar_is_explained(self, net, tmp_path):
        with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for name in ("a.png", NOT_UTF8):
                info = tarfile.TarInfo(name)
                info.size = len(encoded(1))
                tar.addfile(info, io.BytesIO(encoded(1)))
        assert errors(audit(net, tmp_path / "t.tar", tmp_path / "run", **OPTIONS)) == {
            "t.tar/a.png": None,
            "t.tar/caf\\udce9.png": None,
        }

    def test_a_folder_of_the_data_and_a_model_may_have_one(self, net, tmp_path):
        data = tmp_path / os.fsdecode(b"d\xe9")
        written(data / "a.png", encoded(1))
        model = written(tmp_path / os.fsdecode(b"m\xe9.onnx"), net.read_bytes())
        to = tmp_path / "run"
        result = run("audit", model, data, "-o", to, "--sanity", "0")
        assert result.exit_code == 0, result.output
        assert json.loads((to / "report.json").read_text())["data"]["path"] == os.fspath(data)

    def test_the_log_is_utf8_nevertheless(self, net, tmp_path, caplog):
        model = written(tmp_path / os.fsdecode(b"m\xe9.onnx"), net.read_bytes())
        picture = written(tmp_path / "a.png", encoded(1))
        with caplog.at_level("DEBUG", logger="fgonnx"):
            run("explain", model, picture, "-o", tmp_path / "out", "--no-cache")
        assert b"m\\udce9.onnx rewritten for fullgrad" in caplog.text.encode()

    def test_a_run_and_a_table_may_not(self, net, tmp_path):
        data, odd = folder(tmp_path / "data", 1, classes=False), os.fsdecode(b"r\xe9")
        assert "not UTF-8, in which no Parquet" in refused("audit", net, data, "-o", tmp_path / odd)
        assert "not UTF-8, in which no Parquet" in refused("report", tmp_path / odd)
        table = written(tmp_path / f"{odd}.parquet", b"")
        assert "cannot be read as Parquet" in refused("audit", net, table, "-o", tmp_path / "run")

    def test_a_class_of_such_a_name_is_refused(self, net, tmp_path):
        folder(tmp_path / "data", 1)
        written(tmp_path / "data" / os.fsdecode(b"\xe9") / "a.png", encoded(1))
        assert "are none of this model" in refused("audit", net, tmp_path / "data", "-o", tmp_path / "run")

    @pytest.mark.parametrize("name", ["list.txt", "list.csv"])
    def test_a_list_that_is_not_utf8_is_refused(self, net, tmp_path, name):
        folder(tmp_path, 1, classes=False)
        (tmp_path / name).write_bytes(b"path\n000.png\ncaf\xe9.png\n")
        assert "is not UTF-8" in refused("audit", net, tmp_path / name, "-o", tmp_path / "run")

    def test_explain_takes_the_folder(self, net, tmp_path):
        written(tmp_path / "data" / NOT_UTF8, encoded(9))
        result = run("explain", net, tmp_path / "data", "-o", tmp_path / "out", "--no-cache")
        assert result.exit_code == 0, result.output
        (record,) = (f for f in (tmp_path / "out").glob("*.json") if f.name != "summary.json")
        assert NOT_UTF8 in json.loads(record.read_bytes())["input"]["path"]


class TestRowsWithoutAPicture:
    def test_bytes_of_a_table_may_be_null(self, net, tmp_path):
        pq.write_table(pa.table({"bytes": [encoded(1), None, b"", encoded(2)]}), tmp_path / "t.parquet")
        found = errors(audit(net, tmp_path / "t.parquet", tmp_path / "run", **OPTIONS))
        assert found["t.parquet#1"] == "'t.parquet', row 1: column 'bytes' holds no bytes of a picture"
        assert "is empty" in found["t.parquet#2"]
        assert found["t.parquet#0"] is found["t.parquet#3"] is None

    def test_pictures_of_a_table_may_be_null(self, net, tmp_path):
        image = [{"bytes": encoded(1), "path": "a"}, None, {"bytes": None, "path": "c"}]
        pq.write_table(pa.table({"image": image}), tmp_path / "t.parquet")
        found = errors(audit(net, tmp_path / "t.parquet", tmp_path / "run", **OPTIONS))
        assert [found[f"t.parquet#{i}"] is None for i in range(3)] == [True, False, False]

    def test_paths_of_a_table_may_be_null_or_empty(self, net, tmp_path):
        folder(tmp_path, 1, classes=False)
        pq.write_table(pa.table({"path": ["000.png", None, ""]}), tmp_path / "t.parquet")
        found = errors(audit(net, tmp_path / "t.parquet", tmp_path / "run", **OPTIONS))
        assert found["000.png"] is None
        assert found["t.parquet#1"] == "'t.parquet', row 1: no path"
        assert found["t.parquet#2"] == "'t.parquet', row 2: no path"

    def test_paths_of_a_list_may_be_empty(self, net, tmp_path):
        folder(tmp_path, 1, classes=False)
        (tmp_path / "t.csv").write_text("label,path\nant,000.png\nbee,\ncat\ndog, \n")
        found = errors(audit(net, tmp_path / "t.csv", tmp_path / "run", **OPTIONS))
        assert found["000.png"] is None
        assert [found[f"t.csv#{line}"] for line in (3, 4, 5)] == [f"'t.csv', line {n}: no path" for n in (3, 4, 5)]

    def test_a_table_without_any_picture_is_refused(self, net, tmp_path):
        pq.write_table(pa.table({"bytes": pa.array([None, None], pa.binary())}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match=r"none of the first 2 rows can be read.*holds no bytes"):
            audit(net, tmp_path / "t.parquet", tmp_path / "run", **OPTIONS)
