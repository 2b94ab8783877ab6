"""Whether audits are the same bytes however they run and end, and in how much memory: `python -m benchmarks.audit`.

Draws pictures of shapes and audits them. `--rows` says how many; `--kills` how often the run is killed, its workers and
all, at a random point; `--ray` also runs it with Ray; `--million` writes that many rows of records as a run would and
reports on them. `--model` takes another network, with `--preprocess`, for the throughput beside its bare explainer's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fgonnx
from benchmarks import machine, memory
from fgonnx.jobs.audit import arrow
from fgonnx.jobs.audit.evidence import GRID
from fgonnx.jobs.audit.job import AuditJob, audit, records
from fgonnx.jobs.audit.options import Auditing, Runner
from fgonnx.jobs.audit.request import Request
from fgonnx.jobs.reading import Reading
from fgonnx.jobs.schema import SCHEMA

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "examples" / "shapes.onnx"
DRAWN = 512  # different pictures; more rows are other names of them
OPTIONS = fgonnx.Options(psi="signed")  # the default of audits
COMMON = {"shard_size": 128, "sanity": 0}


def drawn(folder: Path, rows: int, *, flat: bool = False) -> Path:
    """Write a folder of pictures, links beyond the first ones; in one of each class where it is not flat."""
    sys.path.insert(0, str(ROOT / "examples"))
    import shapes

    images, labels, _ = shapes.dataset(min(rows, DRAWN), 1)

    def named(i: int) -> Path:
        return folder / ("" if flat else shapes.CLASSES[labels[i % DRAWN]]) / f"{i:07}.png"

    for i in range(rows):
        file = named(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        if i < DRAWN:
            cv2.imwrite(str(file), images[i][:, :, ::-1])
        else:
            os.link(named(i % DRAWN), file)
    return folder


def files(run: Path) -> dict[str, bytes]:
    """Return the files of the shards."""
    return {f.name: f.read_bytes() for f in sorted((run / "shards").iterdir())}


def planned(of: Path, to: Path) -> Path:
    """Copy the plan of a run."""
    (to / "shards").mkdir(parents=True)
    for name in ("run.json", "plan.parquet"):
        shutil.copy(of / name, to / name)
    return to


def whole(data: Path, run: Path, rows: int, model: Path = MODEL, preprocess: str | None = None) -> dict[str, Any]:
    """Audit in this process; return throughput beside that of the bare explainer, and the memory.

    Once more without maps and pictures on the side: what is read, explained and recorded.
    """

    def job_of(to: Path, **kept: Any) -> AuditJob:
        running, auditing = fgonnx.Running(batch_size=16), Auditing(**COMMON, **kept)
        return AuditJob(Request(model, data, to, OPTIONS, running, Reading(preprocess=preprocess), auditing=auditing))

    job, alone = job_of(run), job_of(run.parent / "alone", maps="none", pictures=False)
    memory.forget_peak()
    early, start, spent, done = 0, time.perf_counter(), time.process_time(), 0
    for done, _ in enumerate(job.run(), 1):
        if done == job.plan.shards // 4:
            early = memory.peak()
    took, spent, peak = time.perf_counter() - start, time.process_time() - spent, memory.peak()
    start = time.perf_counter()
    for _ in alone.run():
        pass
    took_alone = time.perf_counter() - start
    bare, bare_spent = _bare(job, model)
    return {
        "rows": rows,
        "shards": done,
        "pictures per second": round(rows / took, 1),
        "of the bare explainer": round(rows / took / bare, 2),
        "without maps and pictures": round(rows / took_alone / bare, 2),
        "ms of processor a picture, audit and bare": [round(1e3 * s, 2) for s in (spent / rows, bare_spent)],
        "MB after a quarter": round(early / 1e6),
        "MB at most": round(peak / 1e6),
        "bytes a row, records": round(sum(len(b) for n, b in files(run).items() if n.endswith(".parquet")) / rows),
        "bytes a row, maps": round(sum(len(b) for n, b in files(run).items() if n.endswith(".npz")) / rows),
    }


def _bare(job: AuditJob, model: Path) -> tuple[float, float]:
    """Return explanations per second of one array over and over, by all cores and without files; and s of processor."""
    explainer = fgonnx.Explainer(model, psi="signed", batch_size=16)
    x = np.stack([job.plan.tools.read(row).x for row in job.plan.rows(0)[:16]])
    explainer(x)
    start, spent, runs = time.perf_counter(), time.process_time(), 0
    while runs < 5 or time.perf_counter() - start < 5:
        explainer(x)
        runs += 1
    return 16 * runs / (time.perf_counter() - start), (time.process_time() - spent) / 16 / runs


def killed(data: Path, good: Path, run: Path, kills: int, workers: int) -> dict[str, Any]:
    """Kill a run with all its processes at random points, resume it, and compare it with one that was left alone."""
    planned(good, run)
    command = [sys.executable, "-m", "fgonnx", "audit", MODEL, data, "-o", run, "--shard-size", COMMON["shard_size"]]
    command += ["--sanity", 0, "--workers", workers]
    draw, points = random.Random(0), []
    total = json.loads((run / "run.json").read_text())["shards"]
    for _ in range(kills):
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        first = len(list((run / "shards").glob("records-*")))
        limit = time.monotonic() + 120
        while len(list((run / "shards").glob("records-*"))) == first and process.poll() is None:
            if time.monotonic() > limit:
                break
            time.sleep(0.01)
        time.sleep(draw.random())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        points.append(len(list((run / "shards").glob("records-*"))))
        if points[-1] == total:
            break
    audit(MODEL, data, run, part=(1, 1), **COMMON)
    numbers = records(run, ["row"]).column("row").combine_chunks().field("number").to_pylist()
    return {
        "killed at shards": points,
        "every row once": numbers == list(range(len(numbers))),
        "same bytes": files(run) == files(good),
    }


def synthetic(run: Path, rows: int, good: Path) -> dict[str, Any]:
    """Write records of many rows, as a run of them would, and report on them."""
    about = json.loads((good / "run.json").read_text())
    size = 8192
    about |= {"rows": rows, "shards": -(-rows // size)}
    about["request"]["auditing"]["shard_size"] = size
    (run / "shards").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(about))
    found = pq.read_table(good / "shards" / "records-000000.parquet")
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for k in range(about["shards"]):
        numbers = np.arange(k * size, min(rows, (k + 1) * size))
        grids = rng.random((len(numbers), GRID**2), np.float32)
        grids /= grids.sum(axis=1, keepdims=True)
        new = {
            "row": pa.StructArray.from_arrays(
                [pa.array(numbers), pa.array([f"{n:09}.png" for n in numbers]), pa.array(np.full(len(numbers), k))],
                ["number", "name", "shard"],
            ),
            "grid": pa.ListArray.from_arrays(np.arange(len(numbers) + 1, dtype=np.int32) * GRID**2, grids.ravel()),
            "correct": pa.array(rng.random(len(numbers)) < 0.9),
            "slices": pa.array([[("camera", str(n % 7))] for n in numbers], arrow.COLUMNS.field("slices").type),
            "pictures": pa.nulls(len(numbers), arrow.COLUMNS.field("pictures").type),
        }
        table = found.take(pa.array(numbers % len(found)))
        for name, values in new.items():
            column = arrow.COLUMNS.field(name)
            table = table.set_column(table.schema.get_field_index(name), column, values)
        text = json.dumps({"schema": SCHEMA, "run": about["id"], "shard": k})
        table = table.replace_schema_metadata({"fgonnx": text})
        pq.write_table(table, run / "shards" / f"records-{k:06}.parquet", compression="zstd")
    wrote = time.perf_counter() - start
    code = (
        "import sys, time; from benchmarks import memory; from fgonnx.jobs.audit.report.build import report\n"
        "start = time.perf_counter(); found = report(sys.argv[1])\n"
        "print(found['counts']['rows'], time.perf_counter() - start, memory.peak())"
    )
    out = subprocess.run([sys.executable, "-c", code, run], cwd=ROOT, capture_output=True, text=True, check=True)
    count, took, peak = out.stdout.split()
    return {
        "rows": int(count),
        "seconds to write": round(wrote),
        "seconds of the report": round(float(took)),
        "MB at most": round(int(peak) / 1e6),
        "MB of the page": round((run / "report.html").stat().st_size / 1e6),
        "MB of the records": round(sum(f.stat().st_size for f in (run / "shards").iterdir()) / 1e6),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--preprocess", help="of the other network, as for fgonnx audit")
    parser.add_argument("--million", type=int, default=0)
    given = parser.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        data = drawn(base / "data", given.rows, flat=given.model != MODEL)
        print("one process", whole(data, base / "good", given.rows, given.model, given.preprocess), flush=True)
        if given.kills:
            print("killed", killed(data, base / "good", base / "killed", given.kills, given.workers), flush=True)
        if given.ray:
            start = time.perf_counter()
            to = planned(base / "good", base / "ray")
            for _ in AuditJob(
                Request(MODEL, data, to, OPTIONS, auditing=Auditing(**COMMON)), Runner(runner="ray", workers=2)
            ).run():
                pass
            print("ray", files(to) == files(base / "good"), f"{time.perf_counter() - start:.0f} s", flush=True)
        if given.million:
            print("synthetic", synthetic(base / "million", given.million, base / "good"), flush=True)


if __name__ == "__main__":
    main()
