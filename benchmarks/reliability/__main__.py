"""Try to break fgonnx: `python -m benchmarks.reliability --tries 10000 --kills 60 --soak 3600 -o PAGE.md`.

What is finished stays in the folder given by --keep, by commit, so that the same command goes on where it stopped;
`--part` does one of the three alone, so that they can run side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.fuzz.page import commit
from benchmarks.reliability import tries
from benchmarks.reliability.kill import Kills, killed
from benchmarks.reliability.page import page
from benchmarks.reliability.soak import Soak, soaked
from benchmarks.reliability.tries import BAD, Try

T = TypeVar("T")
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
    parser.add_argument("--part", choices=("tries", "kills", "soak"), help="do this one alone")
    parser.add_argument("--keep", type=Path, default=Path("reliability"), help="folder of what is finished, and finds")
    parser.add_argument("-o", "--output", type=Path, help="the page to write")
    given = parser.parse_args(arguments)
    os.environ["FGONNX_CACHE"] = "off"
    done = given.keep / commit()
    done.mkdir(parents=True, exist_ok=True)
    only = given.part
    found = _tried(given, done) if only in (None, "tries") else []
    kills = _once(
        done / "kills.json", Kills, given.kills, lambda: killed(given.kills, given.seed), only in (None, "kills")
    )
    soak = _once(done / "soak.json", Soak, given.soak, lambda: soaked(given.soak, given.seed), only in (None, "soak"))
    command = f"python -m benchmarks.reliability --tries {given.tries} --seed {given.seed}"
    command += f" --first {given.first}" if given.first else ""
    text = page(found, kills, soak, f"{command} --kills {given.kills} --soak {given.soak:g}")
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    else:
        print(text.partition("## ")[2])
    return int(any(t.outcome in BAD for t in found) or kills.lost > 0 or soak.wrong > 0)


def _once(file: Path, kind: Callable[..., T], asked: float, run: Callable[[], T], wanted: bool) -> T:
    """Return what is stored, if it is of what was asked; else run and store it. A part may be of another commit."""
    if not asked or not wanted:
        return kind()
    if file.exists() and (stored := json.loads(file.read_text(encoding="utf-8")))["asked"] == asked:
        ran = stored.get("commit", commit())
        said = () if ran == commit() else (f"This part ran at {ran}.",)
        return kind(**stored["found"] | {"said": (*stored["found"]["said"], *said)})
    found = run()
    stored = {"asked": asked, "commit": commit(), "found": asdict(found)}  # type: ignore[call-overload]
    file.write_text(json.dumps(stored), encoding="utf-8")
    return found


def _tried(given: argparse.Namespace, done: Path) -> list[Try]:
    file = done / f"tries-{given.seed}.jsonl"
    stored = file.read_text(encoding="utf-8").splitlines() if file.exists() else ()
    numbers = range(given.first, given.first + given.tries)
    found = {t.number: t for t in (Try(**json.loads(line)) for line in stored) if t.number in numbers}
    missing = [n for n in numbers if n not in found]
    if missing:
        tries.prepare()
    with file.open("a", encoding="utf-8") as lines:
        for t in _run([(n, given.seed, given.keep) for n in missing], given.jobs):
            found[t.number] = t
            print(json.dumps(asdict(t)), file=lines, flush=True)
            _tell(t)
    return [found[n] for n in numbers]


def _run(work: list[Any], jobs: int) -> Iterator[Try]:
    if jobs == 1 or not work:
        yield from map(_one, work)
        return
    with get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_one, work, chunksize=4)


def _one(work: tuple[int, int, Path]) -> Try:
    return tries.run(*work)


_COUNT: Counter[str] = Counter()


def _tell(found: Try) -> None:
    """Say at once what came out badly, and now and then how far it is."""
    _COUNT[found.outcome] += 1
    if found.outcome in BAD:
        print(f"{found.outcome}: {found.number} ({found.kind}): fgonnx {found.about}: {found.detail}", flush=True)
    if sum(_COUNT.values()) % _SHOWN == 0:
        print(dict(_COUNT), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
