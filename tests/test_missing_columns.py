"""Tables that lack a column: the one that numbers the rows does not fill the gap; classes written as floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fgonnx.errors import TargetError
from fgonnx.jobs.dataset import classes_of
from tests import skips
from tests.cli_support import good, refused
from tests.test_columns import features, series

NUMBERED = {
    "first": {"id": [0, 1, 2], "a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0]},
    "the same in every row": {"id": [1, 1, 1], "a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0]},
    "no numbers": {"subject": ["p7", "p9", "p8"], "a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0]},
    "as pandas writes it": {"Unnamed: 0": [0, 1, 2], "a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0]},
    "without a name": {"": [0, 1, 2], "a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0]},
    "last": {"a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0], "sample_id": [11, 12, 13]},
    "a whole float": {"ID": [0.0, 1.0, 2.0], "a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0]},
    "two of them": {"index": [0, 1, 2], "id": [7, 3, 5], "a": [3.0, 1.0, 2.0]},
}


def saved(path: Path, columns: dict[str, Any]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("command", ["explain", "check"])
def test_the_number_of_a_row_is_no_feature(command: str, name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.csv", NUMBERED[name])
    out = ("-o", tmp_path / "out") if command == "explain" else ()
    message = refused(command, features(tmp_path / "m.onnx"), path, *out)
    assert "which numbers the rows" in message
    assert "one feature is missing" in message


def test_a_feature_with_such_a_name_is_given_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.csv", NUMBERED["first"])
    good("explain", features(tmp_path / "m.onnx"), path, "--channels", "id,a,b", "-o", tmp_path / "out")


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [1.5, 2.5], "id": [4, 4], "b": [1.0, 2.0]},
        {"sample": [0.5, 1.5], "a": [1.5, 2.5], "b": [1.0, 2.0]},
    ],
)
def test_a_column_that_numbers_no_row_is_a_feature_whatever_its_name(columns: dict[str, Any], tmp_path: Path) -> None:
    good("explain", features(tmp_path / "m.onnx"), saved(tmp_path / "a.csv", columns), "-o", tmp_path / "out")


def test_the_number_of_a_recording_is_no_channel(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.csv", {"recording": [1] * 12, "I": [0.5] * 12, "II": [1.5] * 12})
    message = refused("explain", series(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")
    assert "one channel is missing" in message


def test_an_audit_refuses_what_is_missing(tmp_path: Path) -> None:
    skips.without("pyarrow")
    skips.without("sklearn")
    path = saved(tmp_path / "a.csv", {**NUMBERED["first"], "label": [0, 1, 1]})
    message = refused("audit", features(tmp_path / "m.onnx"), path, "-o", tmp_path / "out")
    assert "has 2 columns of features ('a', 'b'), and 'id', which numbers the rows" in message


FLOATS = {"1.0": 1, "0.0": 0, "2.": 2, "+1.00": 1, "1": 1, "dog": 1}


@pytest.mark.parametrize("text", FLOATS)
def test_classes_written_as_floats_are_indices(text: str) -> None:
    assert classes_of([text], ["cat", "dog", "bird"], 3, "are none", "classes") == {text: FLOATS[text]}


def test_a_label_that_looks_like_a_float_is_that_label() -> None:
    assert classes_of(["1.0"], ["2.0", "0.0", "1.0"], 3, "are none", "classes") == {"1.0": 2}


@pytest.mark.parametrize("text", ["1.5", "3.0", "-1.0", "1.0.0"])
def test_floats_that_are_no_index_are_refused(text: str) -> None:
    with pytest.raises(TargetError, match="are none"):
        classes_of([text], ["cat", "dog", "bird"], 3, "are none", "classes")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_missing_class_makes_the_others_floats(suffix: str, tmp_path: Path) -> None:
    skips.without("pyarrow")
    skips.without("sklearn")
    from fgonnx.jobs.audit.job import audit, records

    frame = pd.DataFrame({"a": [1.5, 2.5, 0.5], "b": [3.0, 1.0, 2.0], "c": [1.0, 1.5, 2.0], "label": [1, None, 0]})
    path = tmp_path / f"t{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    run = audit(features(tmp_path / "m.onnx"), path, tmp_path / "run", sanity=0)
    found = {r["row"]["name"]: r["truth"] and r["truth"]["index"] for r in records(run).to_pylist()}
    assert [found[f"t{suffix}#{i}"] for i in range(3)] == [1, None, 0]
