"""Families of networks, exported, rewritten and measured: `python -m benchmarks.families` writes docs/families.md.

Networks come from the definitions of torchvision, timm, transformers and keras with random weights, made to look
trained (see `benchmarks.families.realistic`); nothing is downloaded. A family is a row of
`benchmarks.families.networks.FAMILIES`. Every measurement runs in a process of its own, and finished ones are kept in
the folder given by --cache, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from benchmarks.families.measure import Row, measure
from benchmarks.families.networks import FAMILIES
from benchmarks.families.page import page

_TIMEOUT = 900


def jobs(only: Iterable[str] = ()) -> list[tuple[int, str, int]]:
    """Return (index of the family, exporter, opset) of every measurement whose family's name holds one of `only`."""
    wanted = [o.lower() for o in only]
    return [
        (i, exporter, opset)
        for i, family in enumerate(FAMILIES)
        if not wanted or any(w in f"{family.name} {family.package}".lower() for w in wanted)
        for exporter, opset in family.exports
    ]


def _cached(folder: Path, job: tuple[int, str, int]) -> Path:
    family = FAMILIES[job[0]]
    slug = re.sub(r"\W+", "-", f"{family.package} {family.name}".lower()).strip("-")
    return folder / f"{slug}-{job[1]}-{job[2]}.json"


def _load(path: Path) -> Row | None:
    """Return a finished row; None where there is none, or one with other fields, from another version of this file."""
    try:
        return Row(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def run(job: tuple[int, str, int], folder: Path) -> Row | None:
    """Measure in a process of its own and store the row; None where the package that defines it is missing."""
    family, exporter, opset = FAMILIES[job[0]], job[1], job[2]
    needed = {"keras": ("keras", "tensorflow", "tf2onnx"), "own": ("torch",)}.get(family.package, (family.package,))
    if any(importlib.util.find_spec(p) is None for p in needed):
        return None
    path = _cached(folder, job)
    command = [sys.executable, "-m", "benchmarks.families", "--job", str(job[0]), exporter, str(opset), str(path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, env=environment, check=False)
        failure = "" if done.returncode == 0 else _reason(done.stderr, done.returncode)
    except subprocess.TimeoutExpired:
        failure = f"not done in {_TIMEOUT} s"
    if failure:
        row = Row(family.name, family.package, list(family.shape), exporter, opset, failure)
        path.write_text(json.dumps(asdict(row)), encoding="utf-8")
    return _load(path)


def _reason(stderr: str, code: int) -> str:
    lines = [line.strip() for line in stderr.strip().splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Unsupported\w*)\b", line)]
    kept = errors[-1:] or lines[-1:] or [f"ended with {code}"]
    at = lines.index(kept[0]) if kept[0] in lines else len(lines)
    return " ".join(lines[at : at + 2])[:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the cache does not hold yet and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="families whose name or package holds it")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/families.md"), help="page to write")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "fgonnx-families", help="folder of finished rows"
    )
    parser.add_argument("--again", action="store_true", help="measure again what the cache holds")
    parser.add_argument("--job", nargs=4, metavar=("INDEX", "EXPORTER", "OPSET", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        index, exporter, opset, path = options.job
        row = measure(FAMILIES[int(index)], exporter, int(opset))
        Path(path).write_text(json.dumps(asdict(row)), encoding="utf-8")
        return 0
    options.cache.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    wanted = jobs(options.only)
    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), TextColumn("{task.fields[what]}"), console=console
    ) as progress:
        task = progress.add_task("families", total=len(wanted), what="")
        for job in wanted:
            progress.update(task, what=f"{FAMILIES[job[0]].name} ({job[1]} {job[2]})")
            if options.again or _load(_cached(options.cache, job)) is None:
                row = run(job, options.cache)
                if row is None:
                    console.print(f"{FAMILIES[job[0]].name}: {FAMILIES[job[0]].package} is not installed; left out")
                elif row.failure:
                    console.print(f"{row.family} ({row.exporter} {row.opset}): {row.failure}", markup=False)
            progress.advance(task)
    rows = [r for r in (_load(_cached(options.cache, job)) for job in wanted) if r is not None]
    options.output.write_text(page(rows), encoding="utf-8")
    console.print(f"{options.output}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
