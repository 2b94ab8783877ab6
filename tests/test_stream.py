"""Work ahead of its results: order, bounds, errors in their place; streams of samples and of files."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import cv2
import numpy as np
import pytest

from fgonnx import Explainer
from fgonnx.engine.graph.running import Running
from fgonnx.errors import OptionError
from fgonnx.explain.stream import grouped, in_order
from fgonnx.jobs.explain import ExplainJob
from tests import skips
from tests.cli_support import CIRCLE, ROOT, SHAPES, refused, written
from tests.support import pictures, small_cnn

CNN = small_cnn()
X = pictures(7)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as pool:
        yield pool


def fail(message):
    raise ValueError(message)


def results(iterator):
    """Return what an iterator yields, and the message it ends with."""
    found = []
    try:
        found.extend(iterator)
    except ValueError as error:
        return found, str(error)
    return found, None


class TestInOrder:
    @pytest.mark.parametrize("ahead", [0, 1, 5, 100])
    def test_results_are_in_the_order_of_tasks(self, pool, ahead):
        assert list(in_order(pool, (partial(pow, i, 2) for i in range(20)), ahead)) == [i**2 for i in range(20)]

    def test_a_slow_task_lets_none_by(self, pool):
        gate = threading.Event()
        tasks = [lambda: gate.wait(60), lambda: gate.set() or "second"]
        assert list(in_order(pool, tasks, 2)) == [True, "second"]

    def test_no_more_than_asked_for_are_begun(self, pool):
        begun = count()
        drawn = in_order(pool, (partial(next, begun) for _ in iter(int, 1)), 4)
        next(drawn)
        drawn.close()
        assert next(begun) <= 5

    def test_an_error_stands_where_its_result_would(self, pool):
        tasks = [int, int, partial(fail, "third"), int]
        assert results(in_order(pool, tasks, 4)) == ([0, 0], "third")

    def test_an_error_of_drawing_follows_what_was_drawn(self, pool):
        def tasks():
            yield int
            yield int
            fail("drawing")

        assert results(in_order(pool, tasks(), 4)) == ([0, 0], "drawing")

    def test_closing_cancels_what_has_not_begun(self):
        gate, ran = threading.Event(), []
        with ThreadPoolExecutor(1) as pool:
            drawn = in_order(pool, [int, lambda: gate.wait(60), *(partial(ran.append, i) for i in range(5))], 6)
            next(drawn)
            drawn.close()
            gate.set()
        assert ran == []


class TestGrouped:
    @pytest.mark.parametrize(
        ("items", "groups"),
        [
            ("", []),
            ("aaaaa", ["aa", "aa", "a"]),
            ("aabba", ["aa", "bb", "a"]),
            ("abc", ["a", "b", "c"]),
        ],
    )
    def test_neighbours_of_a_kind_are_together(self, items, groups):
        assert ["".join(g) for g in grouped(items, 2, str)] == groups

    def test_an_error_follows_what_came_before_it(self):
        def items():
            yield from "aaa"
            fail("fourth")

        assert results(grouped(items(), 2, str)) == ([["a", "a"], ["a"]], "fourth")


class TestExplainer:
    @pytest.mark.parametrize("batch_size", [1, 3, 8])
    def test_gives_what_calls_give(self, batch_size):
        explainer = Explainer(CNN, threads=1, batch_size=batch_size)
        streamed = list(explainer.stream(iter(X)))
        called = [explainer(X[i : i + batch_size]) for i in range(0, len(X), batch_size)]
        assert [len(e) for e in streamed] == [len(e) for e in called]
        for a, b in zip(streamed, called, strict=True):
            np.testing.assert_array_equal(a.saliency, b.saliency)
            np.testing.assert_array_equal(a.contributions, b.contributions)

    def test_reads_items_itself(self):
        explained = Explainer(CNN).stream(range(7), lambda i: X[i], target=2, workers=3)
        assert np.concatenate([e.target for e in explained]).tolist() == [2] * 7

    def test_endless_items_are_drawn_as_needed(self):
        drawn = count()
        stream = Explainer(CNN, batch_size=2).stream(drawn, lambda i: X[i % 7])
        for _ in range(3):
            next(stream)
        stream.close()
        assert next(drawn) < 20

    def test_a_bad_item_follows_the_explanations_before_it(self):
        stream = Explainer(CNN, batch_size=2).stream(range(7), lambda i: X[i] if i < 5 else fail(f"item {i}"))
        found, message = results(stream)
        assert ([len(e) for e in found], message) == ([2, 2, 1], "item 5")

    def test_needs_a_thread(self):
        with pytest.raises(OptionError, match="workers=0"):
            next(Explainer(CNN).stream(X, workers=0))


def untimed(record):
    """A record without the time at which it was made."""
    return {k: v for k, v in record.items() if k != "time"}


class TestJob:
    @pytest.fixture
    def folder(self, tmp_path):
        """Twenty pictures that can be told apart."""
        base = cv2.imread(str(CIRCLE))
        (tmp_path / "in").mkdir()
        for i in range(20):
            cv2.imwrite(str(tmp_path / "in" / f"{i:02}.png"), np.roll(base, i, axis=1))
        return tmp_path / "in"

    def test_records_are_in_the_order_of_files(self, folder, tmp_path):
        records = list(ExplainJob(SHAPES, [folder], tmp_path / "out", running=Running(batch_size=3)).run())
        assert [r["files"]["picture"] for r in records] == [f"{i:02}.png" for i in range(20)]

    def test_a_record_is_given_when_its_files_are_there(self, folder, tmp_path):
        out = tmp_path / "out"
        for r in ExplainJob(SHAPES, [folder], out, running=Running(batch_size=3)).run():
            assert {*r["files"].values(), r["files"]["map"].replace(".npy", ".json")} <= set(written(out))

    def test_a_bad_file_comes_after_those_before_it(self, folder, tmp_path):
        (folder / "07.png").write_bytes(b"no picture")
        message = refused("explain", SHAPES, folder, "-o", tmp_path / "out", "--batch-size", 3)
        assert "07.png' cannot be decoded as a picture" in message
        assert [n for n in written(tmp_path / "out") if n.endswith(".json")] == [f"{i:02}.json" for i in range(7)]

    def test_resumed_records_keep_their_place(self, folder, tmp_path):
        run = partial(ExplainJob, SHAPES, [folder], tmp_path / "out", running=Running(batch_size=3), resume=True)
        first = list(run().run())
        for i in (0, 1, 2, 18, 19):  # whole batches: with other neighbours a sample may differ in its last digit
            (tmp_path / "out" / f"{i:02}.json").unlink()
        assert [untimed(r) for r in run().run()] == [untimed(r) for r in first]

    @skips.when(sys.platform == "win32", skips.SYSTEM, "no signals")
    def test_ctrl_c_leaves_whole_files(self, tmp_path):
        """Interrupt a run of thousands after its first record."""
        many, out = tmp_path / "many.npy", tmp_path / "out"
        code = f"""
import signal, sys
from pathlib import Path
import typer
from fgonnx.cli import guarded
from fgonnx.engine.graph.running import Running
from fgonnx.jobs.explain import ExplainJob

@guarded.command
def explain():
    for record in ExplainJob(Path({str(SHAPES)!r}), [Path({str(many)!r})], Path({str(out)!r})).run():
        print("one", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    explain()
except typer.Exit as end:
    sys.exit(end.exit_code)
"""
        np.save(many, np.zeros((5000, 3, 64, 64), np.float32))
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "one\n"
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[1]
        names = written(out)
        assert process.returncode == 130
        assert "interrupted; files that were finished are whole" in printed
        assert [n for n in names if n.endswith(".tmp")] == []
        assert 0 < len(names) < 15_000
