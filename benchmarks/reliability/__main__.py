"""Try to break fgonnx: `python -m benchmarks.reliability --tries 10000 --kills 60 --soak 3600 -o PAGE.md`."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

from benchmarks.reliability import tries
from benchmarks.reliability.kill import Kills, killed
from benchmarks.reliability.page import page
from benchmarks.reliability.soak import Soak, soaked
from benchmarks.reliability.tries import BAD, Try

_SHOWN = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 if anything came out badly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--tries", type=int, default=50, help="how many mutated models, files and options")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn from")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--kills", type=int, default=0, help="how many runs are killed")
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS", help="how long 8 threads call one process")
    parser.add_argument("--keep", type=Path, default=Path("reliability-finds"), help="where bad tries are kept")
    parser.add_argument("-o", "--output", type=Path, help="the page to write")
    given = parser.parse_args(arguments)
    os.environ["FGONNX_CACHE"] = "off"
    found = _tried(given)
    kills = killed(given.kills, given.seed) if given.kills else Kills()
    soak = soaked(given.soak, given.seed) if given.soak else Soak()
    command = f"python -m benchmarks.reliability --tries {given.tries} --seed {given.seed}"
    command += f" --kills {given.kills} --soak {given.soak:g}"
    text = page(found, kills, soak, command)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    else:
        print(text.partition("## ")[2])
    return int(any(t.outcome in BAD for t in found) or kills.lost > 0 or soak.wrong > 0)


def _tried(given: argparse.Namespace) -> list[Try]:
    if given.tries < 1:
        return []
    given.keep.mkdir(parents=True, exist_ok=True)
    numbers = range(given.first, given.first + given.tries)
    tries.prepare()
    if given.jobs == 1:
        return [_told(tries.run(n, given.seed, given.keep)) for n in numbers]
    with get_context("fork").Pool(given.jobs) as pool:
        work = [(n, given.seed, given.keep) for n in numbers]
        return [_told(t) for t in pool.imap_unordered(_one, work, chunksize=4)]


def _one(work: tuple[int, int, Path]) -> Try:
    return tries.run(*work)


_COUNT: Counter[str] = Counter()


def _told(found: Try) -> Try:
    """Say at once what came out badly, and now and then how far it is."""
    _COUNT[found.outcome] += 1
    if found.outcome in BAD:
        print(f"{found.outcome}: {found.number} ({found.kind}): fgonnx {found.about}: {found.detail}", flush=True)
    if sum(_COUNT.values()) % _SHOWN == 0:
        print(dict(_COUNT), file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
