"""Where an explanation's time goes: `python -m benchmarks.profile MODEL [--batch N]`.

Runs a file and its rewritten twin under onnxruntime's profiler, turn by turn, and prints the time per operator, the
bytes that go in and out of it, the nodes that change between the plain and the blocked layout, and the slowest nodes.
MODEL is a file with one input or the name of a network of `benchmarks.networks`. Profiling itself costs some
microseconds per node.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.table import Table

import fgonnx
from benchmarks import machine, networks
from benchmarks.purposes import OTHER, PURPOSES, purpose
from benchmarks.sessions import alternate, bare
from fgonnx.engine.graph.emit import PREFIX

Array = npt.NDArray[Any]

REORDERS = ("ReorderInput", "ReorderOutput")
PLAIN, GRADIENT, EXPLAIN, NET = "infer", "gradient", "explain", "net-fullgrad"


@dataclass
class Node:
    """What one node of an optimised graph costs in one run.

    Attributes
    ----------
    name, operator, shapes : str
        Name, type, and shapes of inputs and outputs.
    milliseconds : float
        Shortest time of its kernel.
    bytes : int
        What it reads and writes: activations, weights, results.
    """

    name: str
    operator: str
    shapes: str
    milliseconds: float
    bytes: int

    @property
    def written(self) -> bool:
        """Whether fgonnx wrote it; reorders are onnxruntime's own."""
        return PREFIX in self.name


@dataclass
class Profile:
    """The nodes of one session, and the median wall time of one run in milliseconds, without the profiler."""

    nodes: list[Node]
    milliseconds: float
    by_operator: dict[str, list[Node]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_operator = collections.defaultdict(list)
        for node in self.nodes:
            self.by_operator[node.operator].append(node)

    def kernels(self, operator: str | None = None) -> float:
        """Return the milliseconds in kernels, of one type of operator or of all."""
        return sum(n.milliseconds for n in (self.nodes if operator is None else self.by_operator.get(operator, ())))


def measure(
    models: dict[str, onnx.ModelProto], x: Array, threads: int, rounds: int, more: dict[str, onnx.ModelProto]
) -> tuple[dict[str, Profile], dict[str, float]]:
    """Profile models by turns on the same input; return also their milliseconds of processor time, the least.

    Parameters
    ----------
    models, more : dict of str to onnx.ModelProto
        What to profile, and what only to time, by name.
    x : numpy array
        The batch.
    threads, rounds : int
        Threads within an operator; runs of each.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "profile")
        timed = {name: bare(model, x, threads) for name, model in {**models, **more}.items()}
        seconds = alternate({name: timed[name] for name in models}, rounds)
        used = alternate(timed, rounds, time.process_time)
        traced = {
            name: bare(model, x, threads, enable_profiling=True, profile_file_prefix=f"{prefix}-{name}")
            for name, model in models.items()
        }
        alternate(traced, rounds)
        shortest = {name: 1e3 * min(values) for name, values in used.items()}
        profiles = {
            name: Profile(read(Path(b.session.end_profiling())), 1e3 * float(np.median(seconds[name])))
            for name, b in traced.items()
        }
        return profiles, shortest


def read(path: Path) -> list[Node]:
    """Return the nodes of a trace of onnxruntime's profiler in the order in which they run, without the first run."""
    events: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for event in json.loads(path.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            events[event["name"].removesuffix("_kernel_time")].append(event)
    nodes = []
    for name, runs in events.items():
        args = runs[0]["args"]
        moved = sum(int(args.get(f"{part}_size", 0) or 0) for part in ("activation", "parameter", "output"))
        duration = float(min(run["dur"] for run in runs[1:] or runs)) / 1e3
        nodes.append(Node(name, args["op_name"], _shapes(args), duration, moved))
    return nodes


def _shapes(args: dict[str, Any]) -> str:
    sides = []
    for side in ("input_type_shape", "output_type_shape"):
        shapes = ["x".join(map(str, dims)) for entry in args.get(side, ()) for dims in entry.values()]
        sides.append(" ".join(s for s in shapes if s))
    return " → ".join(sides)


def per_operator(plain: Profile, explain: Profile) -> Table:
    """Return the operators of both sessions: nodes, milliseconds, megabytes moved; of the second also its rate."""
    table = _table(
        "per operator, infer | explain", ("nodes", "ms", "MB", "nodes", "ms", "MB", "GB/s", "written ms", "share")
    )
    total = explain.kernels()
    for operator in sorted({*plain.by_operator, *explain.by_operator}, key=lambda o: -explain.kernels(o)):
        before, after = plain.by_operator.get(operator, []), explain.by_operator.get(operator, [])
        time_after, moved = _milliseconds(after), _megabytes(after)
        table.add_row(
            operator,
            str(len(before)),
            f"{_milliseconds(before):.2f}",
            f"{_megabytes(before):.1f}",
            str(len(after)),
            f"{time_after:.2f}",
            f"{moved:.1f}",
            f"{moved / time_after:.1f}" if time_after else "",
            f"{_milliseconds(n for n in after if n.written):.2f}",
            f"{time_after / total:.1%}",
            style="bold" if operator in REORDERS else None,
        )
    return table


def totals(profiles: dict[str, Profile]) -> Table:
    """Return one row per session: wall time, time in kernels, nodes, reorders, megabytes."""
    table = _table("whole run", ("wall ms", "ratio", "kernel ms", "nodes", *REORDERS, "reorders ms", "MB"))
    base = next(iter(profiles.values())).milliseconds
    for name, p in profiles.items():
        reorders = [p.by_operator.get(r, []) for r in REORDERS]
        table.add_row(
            name,
            f"{p.milliseconds:.2f}",
            f"{p.milliseconds / base:.2f}",
            f"{p.kernels():.2f}",
            str(len(p.nodes)),
            *(str(len(r)) for r in reorders),
            f"{sum(map(_milliseconds, reorders)):.2f}",
            f"{_megabytes(p.nodes):.0f}",
        )
    return table


def summary(
    plain: Profile, explain: Profile, shortest: dict[str, float] | None = None, most: int = 8
) -> dict[str, Any]:
    """Return what is stored of a profile: whole runs, purposes, and the operators that take most of an explanation."""
    operators = sorted(explain.by_operator, key=lambda o: -explain.kernels(o))[:most]
    purposes = {name: [0.0, 0.0, 0.0] for name in [*(p[0] for p in PURPOSES), OTHER]}
    for o in explain.by_operator:
        found = purposes[purpose(o)]
        for i, value in enumerate((plain.kernels(o), explain.kernels(o), _megabytes(explain.by_operator[o]))):
            found[i] += value
    return {
        "shortest": shortest or {},
        "purposes": purposes,
        "runs": {
            name: {
                "milliseconds": p.milliseconds,
                "kernels": p.kernels(),
                "nodes": len(p.nodes),
                "reorders": sum(len(p.by_operator.get(r, [])) for r in REORDERS),
                "megabytes": _megabytes(p.nodes),
            }
            for name, p in ((PLAIN, plain), (EXPLAIN, explain))
        },
        "operators": [
            {
                "operator": o,
                "nodes": len(explain.by_operator[o]),
                "milliseconds": explain.kernels(o),
                "plain": plain.kernels(o),
                "megabytes": _megabytes(explain.by_operator[o]),
            }
            for o in operators
        ],
    }


def section(content: dict[str, Any]) -> str:
    """Return stored profiles as a section of docs/speed.md."""
    text = (
        "Written by `python -m benchmarks.profile NETWORK -o docs/profile.json`. Kernel time of one run under "
        "onnxruntime's\nprofiler, the shortest of several; profiling itself costs a few microseconds per node. "
        "*MB* is the memory that kernels\nread and write.\n\n"
    )
    text += "".join(f"- *{name}*: {why}.\n" for name, _, why in PURPOSES)
    for name, p in content.items():
        plain, explain = p["runs"][PLAIN], p["runs"][EXPLAIN]
        ratio = explain["kernels"] / plain["kernels"]
        threads = f"{p['threads']} thread{'s' if p['threads'] > 1 else ''}"
        text += (
            f"\n**{name}**, batch {p['batch']}, {threads} on {p['processor']}, {p['date']}: {explain['nodes']} nodes, "
            f"{explain['reorders']} of them reorderings, "
            f"{plain['megabytes']:.0f} MB moved by inference and {explain['megabytes']:.0f} by an explanation; "
            f"{plain['kernels']:.1f} and {explain['kernels']:.1f} ms in kernels, a factor of {ratio:.2f}.\n"
            f"{_whole(p['shortest'])}\n"
            "| for | infer, ms | explain, ms | explain, MB | inferences |\n| --- | ---: | ---: | ---: | ---: |\n"
        )
        for what, (before, after, moved) in p["purposes"].items():
            share = after / plain["kernels"]
            text += f"| {what} | {before:.2f} | {after:.2f} | {moved:.0f} | {share:.2f} |\n" if after else ""
        text += "\n| operator | nodes | infer, ms | explain, ms | explain, MB |\n| --- | ---: | ---: | ---: | ---: |\n"
        text += "".join(
            f"| {o['operator']} | {o['nodes']} | {o['plain']:.2f} | {o['milliseconds']:.2f} | {o['megabytes']:.0f} |\n"
            for o in p["operators"]
        )
    return text


def _whole(shortest: dict[str, float]) -> str:
    """Say what whole runs take without the profiler, by turns."""
    unit = shortest[PLAIN]
    parts = [f"{what} {shortest[key] / unit:.2f}" for key, what in _RUNS.items()]
    return (
        f"Least processor time of a whole run without the profiler, in units of inference ({unit:.1f} ms): "
        f"{', '.join(parts)};\nnet-fullgrad takes {shortest[NET] / shortest[EXPLAIN]:.2f} of fullgrad.\n"
    )


_RUNS = {GRADIENT: "the gradient alone", NET: "net-fullgrad", EXPLAIN: "fullgrad"}


def slowest(profile: Profile, count: int) -> Table:
    """Return the nodes that take longest."""
    table = Table(title=f"slowest {count} of {len(profile.nodes)} nodes of explain", title_justify="left")
    table.add_column("ms", justify="right")
    for heading in ("operator", "shapes", "name"):
        table.add_column(heading, overflow="fold")
    for n in sorted(profile.nodes, key=lambda n: -n.milliseconds)[:count]:
        table.add_row(f"{n.milliseconds:.3f}", n.operator, n.shapes, n.name)
    return table


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _milliseconds(nodes: Iterable[Node]) -> float:
    return sum(n.milliseconds for n in nodes)


def _megabytes(nodes: Iterable[Node]) -> float:
    return sum(n.bytes for n in nodes) / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile one model and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("model", help="an ONNX file with one input, or a network's name")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=25, help="how many of the slowest nodes are listed")
    parser.add_argument("--order", action="store_true", help="list all nodes of explain in the order they run")
    parser.add_argument("--outputs", nargs="+", default=["saliency"], help="what the rewritten model is asked for")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write or bring up to date, for docs/speed.md")
    options = parser.parse_args(arguments)
    path = Path(options.model) if Path(options.model).exists() else networks.find([options.model])[0].path()
    source = onnx.load(path)
    start = time.perf_counter()
    rewritten = fgonnx.rewrite(path, outputs=options.outputs)
    seconds = time.perf_counter() - start
    x = networks.noise(source, options.batch)
    more = {
        GRADIENT: fgonnx.rewrite(path, outputs=["input_gradient"]),
        NET: fgonnx.rewrite(path, outputs=options.outputs, method="net-fullgrad"),
    }
    profiles, shortest = measure({PLAIN: source, EXPLAIN: rewritten}, x, options.threads, options.rounds, more)
    explain = profiles[EXPLAIN]
    console = Console(width=200)
    console.print(
        f"{path.name}, batch {options.batch}, {options.threads} threads, medians of {options.rounds} rounds by turns; "
        f"rewritten in {seconds:.2f} s: {source.ByteSize() / 1e6:.1f} -> {rewritten.ByteSize() / 1e6:.1f} MB",
        highlight=False,
    )
    console.print(totals(profiles), per_operator(profiles[PLAIN], explain), slowest(explain, options.nodes))
    if options.output is not None:
        old = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
        conditions = {
            "batch": options.batch,
            "threads": options.threads,
            "date": machine.today(),
            "processor": machine.describe()["processor"],
        }
        old[networks.find([options.model])[0].name] = conditions | summary(profiles[PLAIN], explain, shortest)
        options.output.write_text(json.dumps(old, indent=1) + "\n", encoding="utf-8")
    if options.order:
        for n in explain.nodes:
            line = f"{n.milliseconds:8.3f} {n.operator:18} {n.shapes}  {n.name}"
            console.print(line, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
