"""Remove and retrain: a run that is killed again and again ends in the same table."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.roar import __main__ as benchmark
from benchmarks.roar import experiment as roar
from benchmarks.roar import fidelity
from fgonnx.errors import OptionError
from fgonnx.pictures.read import presets
from fgonnx.pictures.read.complete import complete

ROOT = Path(__file__).resolve().parents[2]
COUNT = 48
PLAN = roar.Plan(("random", "gradient"), (0.5,), (0, 1), epochs=1, batch_size=16)

# What the process runs that is killed: the same experiment, in one worker.
SCRIPT = """
import sys
from pathlib import Path
from tests.ort_training.test_roar import PLAN, experiment
if __name__ == "__main__":
    list(experiment(Path(sys.argv[1])).run(workers=1))
"""


def experiment(folder, plan=PLAN, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(COUNT) % 2
    x = (rng.integers(0, 128, (COUNT, 8, 8, 3)) + 127 * labels[:, None, None, None]).astype(np.uint8)
    pre = complete(presets.parse("scale=1/255,mean=0.5,std=0.25"), (None, 3, 8, 8), np.dtype(np.float32))
    model = benchmark.network(8, 2, ((4, 3, 2),))
    return roar.Experiment(folder, model, (x, labels), (x[:16], labels[:16]), pre, plan)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    whole = experiment(tmp_path_factory.mktemp("whole"))
    list(whole.run(workers=1))
    return whole


@pytest.mark.slow
def test_every_cell_is_there(undisturbed):
    found = [(c.method, c.share, c.seed) for c in undisturbed.cells()]
    assert found == [("whole", 0.0, 0), ("whole", 0.0, 1)] + [
        (method, 0.5, seed) for method in ("random", "gradient") for seed in (0, 1)
    ]


def killed(process, folder, count):
    """Kill a run, its worker with it, as soon as it has finished so many files; tell whether it was still running."""
    while process.poll() is None:
        if sum(not file.name.startswith(".") for file in folder.rglob("*.*")) >= count:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    return False


@pytest.mark.slow
def test_a_run_that_is_killed_ends_in_the_same_table(undisturbed, tmp_path):
    script, folder = tmp_path / "run.py", tmp_path / "killed"
    script.write_text(SCRIPT)

    def started():
        command = [sys.executable, str(script), str(folder)]
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)

    # 3 files of the request, the base network, 2 of maps, 6 trainings
    for count in sorted(np.random.default_rng(0).choice(np.arange(1, 12), 3, replace=False)):
        assert killed(started(), folder, count)
    assert started().wait() == 0
    assert experiment(folder).cells() == undisturbed.cells()


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(undisturbed):
    files = sorted((undisturbed.folder / "cells").iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    assert list(undisturbed.run(workers=1)) == undisturbed.cells()
    assert [file.stat().st_mtime_ns for file in files] == written


@pytest.mark.slow
def test_another_experiment_in_the_same_folder_is_refused(undisturbed):
    with pytest.raises(OptionError, match=r"\(data differ\)"):
        experiment(undisturbed.folder, seed=1)
    with pytest.raises(OptionError, match=r"\(keep differ\)"):
        experiment(undisturbed.folder, roar.Plan(("gradient",), keep=True, epochs=1, batch_size=16))


@pytest.mark.slow
def test_fidelity_is_the_loss_without_salient_pixels_and_without_others(undisturbed):
    found = fidelity.fidelity(undisturbed, (0.5,))
    assert [(f.method, f.size) for f in found] == [("random", 0.5), ("gradient", 0.5)]
    assert all(-1 <= value <= 1 for f in found for value in (f.plus, f.minus))


def test_removed_pixels_are_among_those_that_may_be():
    among = np.random.default_rng(0).random((3, 8, 8)) < 0.3
    found = fidelity.removed(among, 0.1, 0)
    assert not (found & ~among).any()
    np.testing.assert_array_equal(found.sum(axis=(1, 2)), 6)
