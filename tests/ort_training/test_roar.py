"""Remove and retrain: a run that is killed again and again ends in the same table."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import roar as benchmark
from fgonnx.errors import OptionError
from fgonnx.evaluate import roar
from fgonnx.read import preprocess, presets

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
    pre = preprocess.complete(presets.parse("scale=1/255,mean=0.5,std=0.25"), (None, 3, 8, 8), np.dtype(np.float32))
    model = benchmark.network(8, 2, ((4, 3, 2),))
    return roar.Experiment(folder, model, (x, labels), (x[:16], labels[:16]), pre, plan)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    whole, started = experiment(tmp_path_factory.mktemp("whole")), time.perf_counter()
    list(whole.run(workers=1))
    whole.seconds = time.perf_counter() - started
    return whole


@pytest.mark.slow
def test_every_cell_is_there(undisturbed):
    found = [(c.method, c.share, c.seed) for c in undisturbed.cells()]
    assert found == [("whole", 0.0, 0), ("whole", 0.0, 1)] + [
        (method, 0.5, seed) for method in ("random", "gradient") for seed in (0, 1)
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_in_the_same_table(undisturbed, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    folder, rng = tmp_path / "killed", np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kills = 0
    while True:
        # A group of its own, so that its worker dies with it.
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)], cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            soon = float(rng.uniform(0.2, 0.7)) * undisturbed.seconds
            assert process.wait(timeout=None if kills == 3 else soon) == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills
    assert experiment(folder).cells() == undisturbed.cells()


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(undisturbed):
    started = time.perf_counter()
    assert list(undisturbed.run(workers=1)) == undisturbed.cells()
    files = sorted((undisturbed.folder / "cells").iterdir())
    assert all(json.loads(file.read_text())["accuracy"] >= 0 for file in files)
    assert max(file.stat().st_mtime for file in files) < time.time() - (time.perf_counter() - started)


@pytest.mark.slow
def test_another_experiment_in_the_same_folder_is_refused(undisturbed):
    with pytest.raises(OptionError, match=r"\(data differ\)"):
        experiment(undisturbed.folder, seed=1)
    with pytest.raises(OptionError, match=r"\(keep differ\)"):
        experiment(undisturbed.folder, roar.Plan(("gradient",), keep=True, epochs=1, batch_size=16))
