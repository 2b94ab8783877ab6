"""Draw random graphs and judge them: `python -m benchmarks.fuzz --count 2000 --seed 0 -o docs/fuzzing.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.fuzz.draw import Size, draw
from benchmarks.fuzz.judge import WRONG
from benchmarks.fuzz.page import page
from benchmarks.fuzz.run import Case, Worker, run
from benchmarks.fuzz.shrink import save, shrink


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 if a graph came out wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="how many graphs")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn from")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--nodes", type=int, nargs=2, default=(5, 30), metavar=("LEAST", "MOST"), help="their size")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="where wrong graphs are written")
    parser.add_argument("-o", "--output", type=Path, help="the page to write")
    given = parser.parse_args(arguments)
    size = Size(*given.nodes)
    cases = _cases(given, size)
    wrong = [c for c in cases if c.verdict.outcome == WRONG]
    with Worker(given.seed, size) as worker:
        for case in wrong:
            small = shrink(draw(case.seed, case.index, size), worker)
            again = f"python -m benchmarks.fuzz --seed {case.seed} --first {case.index} --count 1"
            path = save(small, given.failures, f"{case.verdict.reason}\n{case.verdict.detail}\n{again}")
            print(f"{case.seed}-{case.index} ({case.lead}): {case.verdict.reason}: {case.verdict.detail}\n  {path}")
    if given.output:
        command = f"python -m benchmarks.fuzz --count {given.count} --seed {given.seed} -o {given.output.as_posix()}"
        given.output.write_text(page(cases, command), encoding="utf-8")
    else:
        print(page(cases, "python -m benchmarks.fuzz").partition("## By operator")[0].partition("## Outcomes")[2])
    return 1 if wrong else 0


def _cases(given: argparse.Namespace, size: Size) -> list[Case]:
    numbers = range(given.first, given.first + given.count)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("graphs", total=len(numbers))

        def part(i: int) -> list[Case]:
            found = []
            for case in run(numbers[i :: given.jobs], given.seed, size):
                found.append(case)
                progress.advance(bar)
                if case.verdict.outcome == WRONG:  # at once: the rest may take long
                    progress.console.print(f"{case.seed}-{case.index}: {case.verdict.reason}", markup=False)
            return found

        with ThreadPoolExecutor(given.jobs) as pool:
            parts = list(pool.map(part, range(given.jobs)))
    return sorted((c for cs in parts for c in cs), key=lambda c: c.index)


if __name__ == "__main__":
    sys.exit(main())
