"""What an explanation costs on a GPU: `python -m benchmarks.gpu [--device cuda] [-o gpu.json]`.

One command, offline once the packages are installed (`pip install ".[gpu]" torch torchvision`), under six minutes:
of every network and batch size, in a process of its own, inference and explanation in ONNX Runtime with inputs and
outputs bound on the device, both forms, with and without the certificate, with CUDA graphs, and in TF32; PyTorch's
forward pass, forward and backward, and the literal FullGrad; where nodes run, memory, and how far maps and certificates
are from the processor's. `--device cpu --quick` runs the same on the processor. Writes a JSON file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.gpu import device, report

NETWORKS = ("squeezenet11", "mobilenetv2", "resnet50", "vgg16", "efficientnetb0", "convnextt", "vits")
BATCHES = (1, 8, 64)
BUDGET = 345.0
"""Seconds for all; what is left out for the lack of them is said."""

LIMIT, LEAST = 75.0, 10.0
"""Seconds for one network, and how many must be left to begin one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and store."""
    options = _parser().parse_args(arguments)
    if options.one:
        from benchmarks.gpu import measure

        for result in measure.batches(**json.loads(options.one)):
            print(json.dumps(result), flush=True)
        return 0
    start = time.perf_counter()
    asked = {"device": options.device, "seconds": 0.05 if options.quick else 0.4}
    if options.quick:
        options.models, options.batch = ["smallest"], [1, 2]
    device.check(options.device)  # an error at once, with what is missing
    found: dict[str, Any] = {
        "date": machine.today(),
        "device": device.describe(options.device),
        "machine": machine.describe(),
        "versions": machine.versions(
            [
                "onnxruntime",
                "onnxruntime-gpu",
                "torch",
                "torchvision",
                "numpy",
                "nvidia-cudnn-cu13",
                "nvidia-cudnn-cu12",
            ]
        ),
        "seconds": 0.0,
        "results": [],
        "left_out": [],
    }
    plans = [(key, False) for key in options.models]
    plans += [(key, True) for key in options.models if not options.quick]  # torch.compile takes what time is left
    for key, compiled in plans:
        left = options.budget - (time.perf_counter() - start)
        if left < LEAST:
            found["left_out"].append({"network": key, "compiled": compiled})
            continue
        batches = options.batch[:2] if compiled else options.batch
        results = _apart({**asked, "network": key, "batches": batches, "compiled": compiled}, min(left, LIMIT))
        found["results"] += results
        print(json.dumps(results)[:400], file=sys.stderr, flush=True)
        found["seconds"] = round(time.perf_counter() - start, 1)
        if options.output is not None:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(report.section(found))
    return 0


def _apart(asked: dict[str, Any], limit: float) -> list[dict[str, Any]]:
    """Measure in a process of its own, which prints a line for every batch size; return what it had until the limit."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", json.dumps(asked)]
    case = {"network": asked["network"], "compiled": asked["compiled"]}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as failed:
        try:
            code = subprocess.run(command, stdout=said, stderr=failed, timeout=limit).returncode
            why = f"ended with code {code}" if code else ""
        except subprocess.TimeoutExpired:
            code, why = -1, f"no result in {limit:.0f} s"
        said.seek(0), failed.seek(0)
        found = [{**case, **json.loads(line)} for line in said.read().splitlines() if line.startswith('{"batch"')]
        errors = failed.read().strip().splitlines()
    if code:
        why = errors[-1] if code > 0 and errors else why
        found += [{**case, "batch": n, "failure": why} for n in asked["batches"][len(found) :]]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=device.DEVICES, default="cuda")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    parser.add_argument("--quick", action="store_true", help="one tiny network: does it run?")
    parser.add_argument("-o", "--output", type=Path, help="file of results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
