"""How the cost of an explanation grows with batch, resolution, depth and width: `python -m benchmarks.scaling`.

A plain convolutional network is varied in one respect at a time. Inference and explanation take turns; both sessions
are bare and opened alike. Writes a JSON file and a figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import fgonnx
from benchmarks import machine
from benchmarks.networks import Network, convolutional
from benchmarks.sessions import alternate, bare


@dataclass(frozen=True)
class Point:
    """One network and batch size."""

    batch: int = 1
    resolution: int = 128
    depth: int = 12
    width: int = 32

    def network(self) -> Network:
        """Return the network."""
        shape = (3, self.resolution, self.resolution)
        return Network(f"plain {self.width} {self.depth}", partial(convolutional, self.width, self.depth), shape)


#: What is varied, and over what; one step is a factor of two.
AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8, 16, 32),
    "resolution": (32, 64, 128, 256, 512),
    "depth": (3, 6, 12, 24, 48),
    "width": (8, 16, 32, 64, 128),
}


@dataclass(frozen=True)
class Cost:
    """Medians by turns in seconds: of inference, of an explanation, and of one with its certificate."""

    axis: str
    point: Point
    infer: float
    explain: float
    certificate: float


def measure(axis: str, point: Point, threads: int, rounds: int) -> Cost:
    """Time one network."""
    network = point.network()
    x, path = network.inputs(point.batch), network.path()
    calls = {
        "infer": bare(path, x, threads),
        "explain": bare(fgonnx.rewrite(path, outputs=("saliency",)), x, threads),
        "certificate": bare(fgonnx.rewrite(path), x, threads),
    }
    seconds = alternate(calls, rounds)
    return Cost(axis, point, **{name: statistics.median(values) for name, values in seconds.items()})


def figure(costs: Sequence[Cost], path: Path) -> None:
    """Draw one column per axis: milliseconds above, what an explanation costs in inferences below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    axes = list(dict.fromkeys(c.axis for c in costs))
    drawing, grid = plt.subplots(2, len(axes), figsize=(3.2 * len(axes), 5.2), sharex="col", squeeze=False)
    for (above, below), axis in zip(grid.T, axes, strict=True):
        along = [c for c in costs if c.axis == axis]
        at = [getattr(c.point, axis) for c in along]
        for name, label in (("infer", "infer"), ("explain", "explain"), ("certificate", "with certificate")):
            above.loglog(at, [1e3 * getattr(c, name) for c in along], marker="o", label=label)
        for name, colour in (("explain", "C1"), ("certificate", "C2")):
            below.semilogx(at, [getattr(c, name) / c.infer for c in along], marker="o", color=colour)
        below.axhline(2, color="grey", linewidth=0.8, linestyle=":")
        below.set_xticks(at, [str(a) for a in at])
        below.minorticks_off()
        below.set(xlabel=axis, ylim=(0, None))
    grid[0, 0].set_ylabel("ms")
    grid[1, 0].set_ylabel("inferences")
    grid[0, 0].legend(frameon=False)
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def section(content: dict[str, Any]) -> str:
    """Return stored results as a section of docs/speed.md."""
    base = ", ".join(f"{axis} {value}" for axis, value in asdict(Point()).items())
    return (
        f"A plain network (blocks of Conv, BatchNorm, ReLU) varied along one axis at a time around {base};\n"
        f"{content['settings']['threads']} threads on {content['machine']['processor']}, {content['date']}. Top: "
        "milliseconds, calls taking turns; bottom: the same in units of one inference.\n\n"
        "![Cost against batch, resolution, depth and "
        "width](images/scaling.png)\n"
    )


def points(axes: Iterable[str], base: Point, largest: int | None) -> list[tuple[str, Point]]:
    """Return what is measured: every value of every axis, the rest as in `base`; at most `largest` values of each."""
    return [(axis, replace(base, **{axis: value})) for axis in axes for value in AXES[axis][:largest]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, store and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--largest", type=int, metavar="N", help="only the N smallest values of every axis")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/scaling.json"), help="JSON file to write")
    parser.add_argument("--figure", type=Path, default=Path("docs/images/scaling.png"), help="figure to write")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    wanted = points(options.axes, Point(), options.largest)
    costs = [
        measure(axis, point, options.threads, options.rounds)
        for axis, point in track(wanted, "scaling", console=console)
    ]
    result: dict[str, Any] = {
        "date": machine.today(),
        "machine": machine.describe(),
        "versions": machine.versions(("onnxruntime", "torch")),
        "settings": {"threads": options.threads, "rounds": options.rounds},
        "costs": [asdict(c) for c in costs],
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    figure(costs, options.figure)
    for c in costs:
        text = f"{c.axis:10} {getattr(c.point, c.axis):4}  infer {1e3 * c.infer:8.2f} ms"
        print(f"{text}  explain {c.explain / c.infer:5.2f} x  with certificate {c.certificate / c.infer:5.2f} x")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
