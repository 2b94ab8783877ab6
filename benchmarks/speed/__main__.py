"""What an explanation costs: `python -m benchmarks.speed` measures the whole table, in one run.

Needs what benchmarks/requirements.txt lists; a peer that is missing or fails has its reason in the table instead of a
figure. `--resume` goes on where a run was stopped, after the last network and batch size that were finished.
`python -m benchmarks.speed --readme` writes the README's table and docs/speed.md from the results.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import machine, networks, pipeline, profile, scaling
from benchmarks.speed import report
from benchmarks.speed.clock import Cell, Plan, measure
from benchmarks.speed.columns import BY_KEY, COLUMNS, OWN, Column, Setting

RESULTS, README, PAGE = Path("docs/speed.json"), Path("README.md"), Path("docs/speed.md")
#: Where libraries that take no number of threads look for one.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PACKAGES = ("onnxruntime", "onnx", "numpy", "torch", "torchvision")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and store; or write the documents."""
    options = _parser().parse_args(arguments)
    if options.readme:
        return write(options.output or RESULTS)
    plan = Plan(options.rounds, options.share, options.limit, options.hot)
    chosen = networks.find(options.models)
    if options.smallest:
        plan, chosen, options.batch = Plan(rounds=2, share=0.1, limit=120.0, hot=0.01), (networks.SMALLEST,), [1]
    peers = [key for key in BY_KEY if key not in OWN]
    wanted = [*OWN, *(options.peers if options.peers is not None else peers)]
    if unknown := [key for key in wanted if key not in BY_KEY]:
        raise SystemExit(f"there is no peer '{unknown[0]}'; choose from: {', '.join(peers)}")
    whole = chosen == networks.NETWORKS and len(wanted) == len(COLUMNS) and options.batch == [1, 8]
    output = options.output or (RESULTS if whole else None)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))

    console, start = Console(width=150), time.perf_counter()
    columns = [c for c in COLUMNS if c.key in wanted]
    packages = [*_PACKAGES, *(p for c in columns for p in c.packages)]
    settings = {"threads": options.threads, **asdict(plan)}
    versions = machine.versions(packages, [folder for c in columns for folder in c.first()])
    results = report.Results(machine.today(), machine.describe(), versions, settings, [])
    if options.resume and output is not None and output.exists():
        old = report.Results.read(json.loads(output.read_text(encoding="utf-8")))
        if (old.machine, old.settings) != (results.machine, results.settings):
            raise SystemExit(f"{output} was measured on another machine or with other settings: choose another file")
        results = replace(results, cells=old.cells, versions=old.versions | results.versions)
    there = {(c.network, c.batch) for c in results.cells}
    for network in chosen:
        for batch in options.batch:
            if (network.name, batch) in there:
                continue
            cells = _measured(console, columns, Setting(network, batch, options.threads), plan)
            results.cells.extend(cells)
            console.print(_shown(cells))
            if output is not None:
                output.write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")
    console.print(f"{results.conditions()} {time.perf_counter() - start:.0f} s", highlight=False)
    return 0


def _measured(console: Console, columns: Sequence[Column], setting: Setting, plan: Plan) -> list[Cell]:
    where = f"{setting.network.name}, batch {setting.batch}"
    with console.status("") as status:
        return measure(columns, setting, plan, lambda what: status.update(f"{where}: {what}"))


def write(path: Path) -> int:
    """Write the README's table and docs/speed.md from stored results."""
    results = report.Results.read(json.loads(path.read_text(encoding="utf-8")))
    README.write_text(report.insert(README.read_text(encoding="utf-8"), report.block(results)), encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    return 0


def page(results: report.Results) -> str:
    """Return docs/speed.md: the table, and what the other benchmarks have stored."""
    text = report.page(results)
    for title, path, section in (
        ("How cost grows", Path("docs/scaling.json"), scaling.section),
        ("From a folder to explanations", Path("docs/pipeline.json"), pipeline.section),
        ("Where the time goes", Path("docs/profile.json"), profile.section),
    ):
        if path.exists():
            text += f"\n## {title}\n\n{section(json.loads(path.read_text(encoding='utf-8')))}"
    return text


def _shown(cells: Sequence[Cell]) -> Table:
    by_key = {c.column: c for c in cells}
    table = Table(title=f"{cells[0].network}, batch {cells[0].batch}", title_justify="left")
    table.add_column("")
    for heading in ("ms", "x infer", "x explain", "calls", "hot ms", "MB"):
        table.add_column(heading, justify="right")
    table.add_column("no figure because", max_width=60)
    for cell in cells:
        title = BY_KEY[cell.column].title
        if cell.failure:
            table.add_row(title, "", "", "", "", "", "", cell.failure)
            continue
        table.add_row(
            title,
            f"{1e3 * cell.median:.2f}",
            *(f"{r:.2f}" if (r := report.ratio(by_key, cell.column, key)) else "" for key in ("infer", "explain")),
            str(cell.calls),
            f"{1e3 * cell.hot:.2f}" if cell.hot else "",
            f"{(cell.calling - cell.imported) / 1e6:.0f}",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="networks; all by default")
    parser.add_argument("--peers", nargs="*", metavar="COLUMN", help="columns beside fgonnx's own; all by default")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="pictures at once")
    parser.add_argument("--threads", type=int, default=2, help="for every column")
    parser.add_argument("--rounds", type=int, default=plan.rounds, help="calls of a column, at most")
    parser.add_argument("--share", type=float, default=plan.share, help="seconds for the calls of one column")
    parser.add_argument("--limit", type=float, default=plan.limit, help="seconds after which a call is given up")
    parser.add_argument("--hot", type=float, default=plan.hot, help="seconds of a hot block")
    parser.add_argument("--smallest", action="store_true", help="one tiny network, two rounds: does it run?")
    parser.add_argument(
        "-o", "--output", type=Path, help=f"file of results; {RESULTS} for the whole table, none for parts of it"
    )
    parser.add_argument("--resume", action="store_true", help="measure only what the file of results does not have")
    parser.add_argument("--readme", action="store_true", help="measure nothing, write the documents from the results")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
