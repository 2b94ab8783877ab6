"""What it costs to hold the first explanation against the source model: `python -m benchmarks.verification MODEL...`.

For each model the time from opening it to the first explanation, with and without, by turns in one process each, one
sample of random numbers; and the time of a second explanation, where nothing is compared any more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CODE = """
import json, sys, time
import numpy as np
import fgonnx
path, verify, threads = sys.argv[1], sys.argv[2] == "yes", int(sys.argv[3])
start = time.perf_counter()
explainer = fgonnx.Explainer(path, verify=verify, threads=threads)
value = explainer.loaded.input()
shape = [d if isinstance(d, int) else 1 for d in value.shape.dims]
x = np.random.default_rng(0).uniform(0, 1, shape).astype(value.dtype.numpy())
explainer(x)
first = time.perf_counter()
explainer(x)
print(json.dumps([first - start, time.perf_counter() - first]))
"""


def measure(path: Path, *, verify: bool, threads: int) -> tuple[float, float]:
    """Return the seconds of the first and of the second explanation in a process of their own."""
    command = [sys.executable, "-c", CODE, str(path), "yes" if verify else "no", str(threads)]
    first, second = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return first, second


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    print("| model | first explanation, s | without the comparison | more | second explanation, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for path in given.models:
        rounds = [
            [measure(path, verify=verify, threads=given.threads) for verify in (True, False)]
            for _ in range(given.rounds)
        ]
        held, plain = (statistics.median(r[i][0] for r in rounds) for i in (0, 1))
        second = statistics.median(r[0][1] for r in rounds)
        print(f"| {path.stem} | {held:.2f} | {plain:.2f} | {held / plain - 1:+.0%} | {second:.3f} |", flush=True)


if __name__ == "__main__":
    main()
