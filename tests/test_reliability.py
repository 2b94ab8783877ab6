"""The tools that try to break fgonnx, on their smallest settings; and that they see what is broken."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.reliability import __main__ as reliability
from benchmarks.reliability import kill, mutate, seeds, soak, tries
from benchmarks.reliability.child import tried
from benchmarks.reliability.page import page
from tests import skips

ROOT = Path(__file__).resolve().parents[1]

pytestmark = skips.when(not hasattr(os, "fork"), skips.SYSTEM, "tries are forked")


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return seeds.models()


def test_what_mutations_begin_with_is_whole(models: dict[str, bytes]) -> None:
    for content in models.values():
        onnx.checker.check_model(onnx.load_from_string(content))
    assert {Path(name).suffix for name in seeds.inputs()} >= {".png", ".npy", ".npz", ".wav", ".json", ".csv", ".txt"}


@pytest.mark.parametrize("how", [mutate.model, mutate.content])
def test_mutations_are_seeded_and_change_something(how: object, models: dict[str, bytes]) -> None:
    source = models["cnn"]
    drawn = [[how(random.Random(i), source) for i in range(40)] for _ in range(2)]  # type: ignore[operator]
    assert drawn[0] == drawn[1]
    assert sum(content != source for content in drawn[0]) > 30


def killed_by(number: int) -> int:
    os.kill(os.getpid(), number)
    return 0


def waits() -> int:
    time.sleep(60)
    return 0


def says(text: str, code: int = 0) -> int:
    os.write(1, text.encode())
    return code


def leaves(folder: Path) -> int:
    (folder / ".fgonnx-1.tmp").touch()
    return 0


def full() -> int:
    return len(bytearray(8 << 30))


@pytest.mark.parametrize(
    ("task", "outcome"),
    [
        (lambda folder: says("fine"), tries.RIGHT),
        (lambda folder: says("error: no such file", 2), tries.REFUSED),
        (lambda folder: says("unexpected error", 70), tries.UNEXPECTED),
        (lambda folder: full(), tries.UNEXPECTED),
        (lambda folder: says("error: this is a fault of fgonnx", 2), tries.FAULT),
        (lambda folder: says("\x1b[2J"), tries.RAW),
        (lambda folder: killed_by(signal.SIGSEGV), tries.CRASH),
        (lambda folder: waits(), tries.HANG),
        (leaves, tries.LEFT),
    ],
)
def test_every_outcome_is_told(task: object, outcome: str, tmp_path: Path) -> None:
    ended = tried(lambda: task(tmp_path), 0.3)  # type: ignore[operator]
    assert tries.judge(ended, tmp_path, set()) == outcome


def test_another_output_is_told(models: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(models["mlp"])
    (tmp_path / "out.onnx").write_bytes(models["mlp"])
    assert tries._compared(tmp_path) == 0
    other = onnx.load_from_string(models["mlp"])
    weight = other.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), weight.name))
    (tmp_path / "out.onnx").write_bytes(other.SerializeToString())
    assert tries._compared(tmp_path) == tries._APART


def test_a_few_tries(tmp_path: Path) -> None:
    # In a process of its own: one that has run models has threads, for which what is forked from it may wait forever.
    given = ["--tries", "15", "--seed", "7", "--keep", str(tmp_path / "kept"), "-o", str(tmp_path / "page.md")]
    run = [sys.executable, "-m", "benchmarks.reliability", *given]
    subprocess.run(run, cwd=ROOT, check=True, capture_output=True, timeout=600)
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| tried | 6 | 3 | 3 | 3 | 15 |" in text
    assert [p.name for p in (tmp_path / "kept").rglob("*") if p.is_file()] == ["tries-7.jsonl"]  # no find


def test_a_run_that_is_killed_loses_nothing() -> None:
    assert kill.killed(1, 3) == kill.Kills(1, 0, ())


def test_a_broken_file_is_seen(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    assert kill._broken(tmp_path) == []
    for path in list(tmp_path.iterdir()):
        path.write_bytes(path.read_bytes()[:-1])
    assert len(kill._broken(tmp_path)) == 2


def test_long_use_for_a_second() -> None:
    found = soak.soaked(1.0, 0)
    assert found.calls > 0
    assert (found.wrong, found.said) == (0, ())
    assert "8 threads of one process made" in page([], kill.Kills(), found, "command")


def test_what_is_finished_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--tries", "2", "--seed", "5", "--keep", str(tmp_path), "-o", str(tmp_path / "page.md")]
    assert reliability.main(arguments) == 0
    stored = next(tmp_path.glob("*/tries-5.jsonl"))
    before = stored.read_text(encoding="utf-8")
    stored.write_text(before.replace('"right"', '"refused"').replace('"refused"', '"hang"'), encoding="utf-8")
    assert reliability.main(arguments) == 1
    assert "| hang | 2 |" in (tmp_path / "page.md").read_text(encoding="utf-8")
