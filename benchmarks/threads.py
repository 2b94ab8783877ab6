"""How explanations use threads: `python -m benchmarks.threads [--models NAME ...] [--threads 1 2 4 8 16]`.

Of every network, batch size, runtime and number of threads (as far as there are cores), inference and explanation are
called by turns in a process of their own. `--split` divides the cores among sessions side by side instead, and counts
explanations per second: what a server should choose. Writes a JSON file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import machine, networks
from benchmarks.sessions import alternate, bare

THREADS = (1, 2, 4, 8, 16)
RUNTIMES = ("onnxruntime", "openvino")
NETWORKS = ("resnet50", "mobilenetv2", "squeezenet11", "efficientnetb0")
LIMIT = 600.0
SECONDS = 3.0
"""How long explanations are counted."""

WORSE = 1.3
"""How much larger than with two threads a ratio may be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and store."""
    options = _parser().parse_args(arguments)
    if options.one:
        print(json.dumps(_one(**json.loads(options.one))))
        return 0
    cores = int(machine.describe()["cores"])
    counts = [n for n in options.threads if n <= cores]
    found: dict[str, Any] = {
        "date": machine.today(),
        "machine": machine.describe(),
        "versions": machine.versions(["onnxruntime", "openvino", "numpy"]),
        "rounds": options.rounds,
        "costs": [],
        "rates": [],
    }
    for key in options.models:
        for batch in options.batch:
            for runtime in options.runtimes:
                asked = {"network": key, "batch": batch, "runtime": runtime}
                for threads in counts:
                    _add(found["costs"], _apart({**asked, "threads": threads, "rounds": options.rounds}))
                for sessions in _divisors(cores) if options.split else ():
                    _add(found["rates"], _apart({**asked, "threads": cores // sessions, "sessions": sessions}))
                if options.output is not None:
                    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(section(found))
    return 0


def section(found: Mapping[str, Any]) -> str:
    """Return the tables of what was measured, in Markdown."""
    costs: dict[tuple[str, int, str], dict[int, Any]] = {}
    for c in found["costs"]:
        costs.setdefault((c["network"], c["batch"], c["runtime"]), {})[c["threads"]] = c
    counts = sorted({c["threads"] for c in found["costs"]})
    lines = [
        f"{found['machine']['processor']}, {found['machine']['cores']} cores, {found['date']}; milliseconds of an "
        "explanation, and in units of one inference of the same runtime.",
        "",
        f"| network | batch | runtime | {' | '.join(f'{n} threads' for n in counts)} | |",
        f"| --- | ---: | --- |{' ---: |' * len(counts)} --- |",
    ]
    for (network, batch, runtime), row in costs.items():
        cells = " | ".join(_cell(row.get(n)) for n in counts)
        lines.append(f"| {network} | {batch} | {runtime} | {cells} | {_verdict(row)} |")
    if found["rates"]:
        lines += ["", "| network | batch | runtime | sessions x threads | explanations per second |"]
        lines.append("| --- | ---: | --- | --- | ---: |")
        for r in found["rates"]:
            rate = f"{r['per_second']:.1f}" if "per_second" in r else r["failure"]
            split = f"{r['sessions']} x {r['threads']}"
            lines.append(f"| {r['network']} | {r['batch']} | {r['runtime']} | {split} | {rate} |")
    return "\n".join(lines) + "\n"


def _cell(cost: Mapping[str, Any] | None) -> str:
    if cost is None or "failure" in cost:
        return "–" if cost is None else cost["failure"]
    return f"{1e3 * cost['explain']:.1f} ({cost['explain'] / cost['infer']:.2f} x)"


def _verdict(row: Mapping[int, Mapping[str, Any]]) -> str:
    """Say where the ratio is worse than with two threads."""
    ratios = {n: c["explain"] / c["infer"] for n, c in row.items() if "failure" not in c}
    worse = [n for n, ratio in ratios.items() if n > 2 in ratios and ratio > WORSE * ratios[2]]
    return f"over {WORSE} times the ratio of two at {', '.join(map(str, worse))}" if worse else ""


def _add(found: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    found.append(entry)
    print({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()}, file=sys.stderr, flush=True)


def _apart(asked: dict[str, Any]) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.threads", "--one", json.dumps(asked)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {**asked, "failure": f"no result in {LIMIT:.0f} s"}
    if done.returncode:
        return {**asked, "failure": (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]}
    return {**asked, **json.loads(done.stdout.splitlines()[-1])}


def _one(network: str, batch: int, runtime: str, threads: int, rounds: int = 0, sessions: int = 0) -> dict[str, float]:
    (chosen,) = networks.find([network])
    x = chosen.inputs(batch)
    if sessions:
        return {"per_second": _rate([_explain(chosen, x, runtime, threads) for _ in range(sessions)], batch)}
    calls = {"infer": _infer(chosen, x, runtime, threads), "explain": _explain(chosen, x, runtime, threads)}
    return {name: statistics.median(values) for name, values in alternate(calls, rounds).items()}


def _infer(network: networks.Network, x: Any, runtime: str, threads: int) -> Callable[[], Any]:
    if runtime == "onnxruntime":
        return bare(network.path(), x, threads)
    from fgonnx.engine.graph.openvino import OpenVinoSession
    from fgonnx.engine.model.load import load

    session = OpenVinoSession(load(network.path()).ir, threads=threads)
    return lambda: session.run({"x": x})


def _explain(network: networks.Network, x: Any, runtime: str, threads: int) -> Callable[[], Any]:
    import fgonnx

    explainer = fgonnx.Explainer(
        network.path(), runtime=runtime, threads=threads, batch_size=len(x), certificate=False, cache=True
    )
    explainer(x)  # rewrites, compiles and is held against the source
    return lambda: explainer(x)


def _rate(calls: Sequence[Callable[[], Any]], batch: int) -> float:
    """Return explanations per second of sessions that run side by side."""

    def count(call: Callable[[], Any], end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            call()
            done += 1
        return done

    with ThreadPoolExecutor(len(calls)) as pool:
        start = time.perf_counter()
        done = list(pool.map(count, calls, [start + SECONDS] * len(calls)))
        return batch * sum(done) / (time.perf_counter() - start)


def _divisors(cores: int) -> list[int]:
    return [n for n in range(1, cores + 1) if cores % n == 0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=list(THREADS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=7, help="calls of each")
    parser.add_argument("--split", action="store_true", help="also count explanations of sessions side by side")
    parser.add_argument("-o", "--output", type=Path, help="file of results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
