"""From the results of the speed benchmark to the README's table and docs/speed.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.networks import NETWORKS
from benchmarks.speed.clock import Cell
from benchmarks.speed.columns import COLUMNS, MASKS

BEGIN, END = "<!-- python -m benchmarks.speed --readme: begin -->", "<!-- end -->"
MISSING = "–"

#: An explanation and an inference in the other runtime.
OTHER = ("openvino-explain", "openvino-infer")

#: Columns of the README's table behind the times of fgonnx: how many times an explanation each costs.
SHOWN = {
    "torch-gradient": "PyTorch forward + backward",
    "onnx-ad": "onnx-ad",
    "fullgrad": "FullGrad in PyTorch",
    "grad-cam": "grad-cam's FullGrad",
    "rise": f"RISE, {MASKS:,} masks",
}


@dataclass(frozen=True)
class Results:
    """A finished run.

    Attributes
    ----------
    date : str
        Day of the run.
    machine, versions : dict
        See `benchmarks.machine`.
    settings : dict
        Threads and the Plan.
    cells : list of Cell
        Everything measured.
    """

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    cells: list[Cell]

    @classmethod
    def read(cls, content: dict[str, Any]) -> Results:
        """Return the results from what was stored."""
        return cls(**{**content, "cells": [Cell(**cell) for cell in content["cells"]]})

    def rows(self) -> Iterator[tuple[str, int, dict[str, Cell]]]:
        """Go through networks and batch sizes, with the cells of each by column."""
        found: dict[tuple[str, int], dict[str, Cell]] = {}
        for cell in self.cells:
            found.setdefault((cell.network, cell.batch), {})[cell.column] = cell
        for (network, batch), cells in found.items():
            yield network, batch, cells

    def conditions(self) -> str:
        """Return machine, threads, versions and date, in a sentence."""
        m, v = self.machine, self.versions
        return (
            f"{self.settings['threads']} threads on {m['processor']} ({m['cores']} cores, {m['memory_gib']} GiB), "
            f"{m['system']}, onnxruntime {v['onnxruntime']}, PyTorch {v['torch']}, {self.date}."
        )


@dataclass(frozen=True)
class Target:
    """What a ratio of two columns should be.

    Attributes
    ----------
    text : str
        In words.
    over, under : str
        Columns of the ratio.
    or_else : tuple of str, optional
        Two columns whose ratio counts instead where it is the better one.
    bounds : dict
        From (network, batch) to the bound; networks or batches that are not in it have none.
    least : bool
        Whether the bound is a lower one.
    field : str
        What of the cells is compared.
    """

    text: str
    over: str
    under: str
    bounds: dict[tuple[str, int], float]
    least: bool = True
    field: str = "median"
    or_else: tuple[str, str] | None = None

    def found(self, cells: dict[str, Cell]) -> float | None:
        """Return the ratio, None where a column is missing."""
        pairs = [(self.over, self.under), *([self.or_else] if self.or_else is not None else [])]
        ratios = [r for pair in pairs if (r := ratio(cells, *pair, self.field)) is not None]
        return (max if self.least else min)(ratios) if len(ratios) == len(pairs) else None

    def met(self, found: float, bound: float) -> bool:
        """Tell whether a ratio is good enough."""
        return found >= bound if self.least else found <= bound


def _bounds(default: float | None, **own: tuple[float | None, float | None]) -> dict[tuple[str, int], float]:
    """Return bounds at batch 1 and 8 by the key of a network; None leaves the others out."""
    found: dict[tuple[str, int], float] = {}
    for n in NETWORKS:
        pair = own.get(n.key, (default, default))
        found.update({(n.name, batch): bound for batch, bound in zip((1, 8), pair, strict=True) if bound is not None})
    return found


TARGETS = (
    Target(
        "explain / infer",
        "explain",
        "infer",
        _bounds(
            4.0,
            resnet50=(2.3, 2.5),
            vgg16=(2.3, 2.5),
            squeezenet11=(2.3, 2.5),
            mobilenetv2=(3.0, 4.0),
            efficientnetb0=(3.0, 4.0),
        ),
        least=False,
    ),
    Target(
        "explain / infer, the better runtime",
        "explain",
        "infer",
        _bounds(
            None,
            resnet50=(2.2, None),
            vgg16=(2.2, None),
            squeezenet11=(2.5, None),
            mobilenetv2=(4.0, None),
            efficientnetb0=(4.0, None),
        ),
        least=False,
        or_else=OTHER,
    ),
    Target("with certificate / explain", "certificate", "explain", _bounds(1.15), least=False),
    Target("PyTorch forward + backward / explain", "torch-gradient", "explain", _bounds(1.0)),
    Target(
        "literal FullGrad / explain",
        "fullgrad",
        "explain",
        _bounds(None, resnet50=(40, 40), mobilenetv2=(40, 40), vgg16=(4, 4)),
    ),
    Target("onnx-ad / explain", "onnx-ad", "explain", _bounds(3.0)),
    Target("RISE / explain", "rise", "explain", _bounds(300.0)),
    Target("memory of explain / infer", "explain", "infer", _bounds(3.0), least=False, field="memory"),
)


def figure(cells: dict[str, Cell], column: str, field: str = "median") -> float | None:
    """Return a figure of a column; None where there is none. "memory" is what the calls took beyond the imports."""
    cell = cells.get(column)
    if cell is None or cell.failure:
        return None
    found: float | None = cell.calling - cell.imported if field == "memory" else getattr(cell, field)
    return found


def ratio(cells: dict[str, Cell], over: str, under: str, field: str = "median") -> float | None:
    """Return the ratio of two columns, None where one is missing."""
    top, bottom = figure(cells, over, field), figure(cells, under, field)
    return top / bottom if top is not None and bottom else None


def block(results: Results | None) -> str:
    """Return the README's section; empty without results."""
    if results is None:
        return ""
    other = any(ratio(cells, *OTHER) for _, _, cells in results.rows())
    headings = ["network", "batch", "infer, ms", "explain, ms", "explain / infer"]
    headings += ["in OpenVINO: explain, ms", "explain / infer"] if other else []
    headings += ["certificate", "memory", *SHOWN.values()]
    rows = []
    for network, batch, cells in results.rows():
        rows.append(
            [
                network,
                str(batch),
                _ms(figure(cells, "infer")),
                _ms(figure(cells, "explain")),
                _times(ratio(cells, "explain", "infer")),
                *([_ms(figure(cells, OTHER[0])), _times(ratio(cells, *OTHER))] if other else []),
                _more(ratio(cells, "certificate", "explain")),
                _times(ratio(cells, "explain", "infer", "memory")),
                *(_times(ratio(cells, key, "explain"), " x") for key in SHOWN),
            ]
        )
    return (
        "## Speed\n\n"
        "Medians; the columns are measured in turn, call by call. *Certificate*: the time it adds to an explanation;\n"
        "*memory*: peak while explaining over peak during inference. The columns to the right of it say how many\n"
        "explanations one run of each other tool costs.\n\n"
        + _table(headings, rows)
        + f"\nRandom weights, 3 x 224 x 224, {results.conditions()} [docs/speed.md](docs/speed.md) has all columns.\n"
    )


def insert(readme: str, text: str) -> str:
    """Return the README with a text between its markers.

    Raises
    ------
    ValueError
        The markers are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must hold the lines {BEGIN} and {END}, the table goes between them")
    return f"{before}{begin}\n{text}{end}{after}"


PAGE = """# Speed

Written by `python -m benchmarks.speed` from `speed.json`; its requirements are in `benchmarks/requirements.txt`.
{conditions}

Networks have the definitions of torchvision and seeded random weights made to look trained (normalisations calibrated),
1000 classes, inputs 3 x 224 x 224, exported by `torch.onnx.export` (opset 17), which folds BatchNormalization into
convolutions; PyTorch runs the modules as they are. Every column runs in its own process; the columns of one network
and batch size are called in turn, one call each per round, for at most {rounds} rounds, fewer where a call takes
long (*calls*). *ms* is the median, with quartiles. *Hot* is the median over blocks of consecutive calls of one kind,
with warm caches. *MB* is the peak resident memory during the calls, minus that of the imports. onnxruntime's
sessions are opened for their batch size, those of files written by fgonnx as docs/forms.md recommends. The target is
the largest logit; captum, onnx-ad, RISE and openvino-xai are given it in advance.{other}

Versions: {versions}.

## Targets

{targets}
"""

_OTHER = """
In OpenVINO, the source file is compiled for its batch size in float32, and *x infer* is in units of OpenVINO's own
inference. *The better runtime* is the one whose ratio to its own inference is smaller."""


def page(results: Results) -> str:
    """Return docs/speed.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = PAGE.format(
        conditions=results.conditions(),
        rounds=results.settings["rounds"],
        versions=versions,
        targets=targets(results),
        other=_OTHER if any(ratio(cells, *OTHER) for _, _, cells in results.rows()) else "",
    )
    networks = dict.fromkeys(network for network, _, _ in results.rows())
    return text + "".join(f"\n## {n}\n\n{_section(results, n)}" for n in networks)


def targets(results: Results) -> str:
    """Return the table of targets: every one that has a bound, what was found, and whether it was missed."""
    rows = []
    for t in TARGETS:
        for network, batch, cells in results.rows():
            bound, found = t.bounds.get((network, batch)), t.found(cells)
            if bound is not None and found is not None:
                wanted = f"{'at least' if t.least else 'at most'} {bound:g}"
                verdict = "" if t.met(found, bound) else "**missed**"
                rows.append([t.text, network, str(batch), wanted, _times(found), verdict])
    missed = sum(1 for row in rows if row[-1])
    table = _table(["ratio", "network", "batch", "wanted", "found", ""], rows)
    return f"{missed} of {len(rows)} targets are missed.\n\n{table}"


def _section(results: Results, network: str) -> str:
    per_batch = {batch: cells for name, batch, cells in results.rows() if name == network}
    headings = [""]
    for batch in per_batch:
        headings += [f"batch {batch}: ms", "x infer", "calls", "hot", "MB"]
    rows = []
    notes: dict[str, None] = {}
    for column in COLUMNS:
        base = OTHER[1] if column.key in OTHER else "infer"
        row = [column.title]
        for cells in per_batch.values():
            cell = cells.get(column.key)
            if cell is None or cell.failure:
                row += [MISSING] * 5
                if cell is not None:
                    notes[f"- {column.title}, batch {cell.batch}: {cell.failure}."] = None
                continue
            row += [
                f"{_ms(cell.median)} ({_ms(cell.low)} to {_ms(cell.high)})",
                _times(ratio(cells, column.key, base)),
                str(cell.calls),
                _ms(cell.hot),
                f"{(cell.calling - cell.imported) / 1e6:.0f}",
            ]
        if any(text != MISSING for text in row[1:]):
            rows.append(row)
    hot = [
        f"batch {batch} {_times(ratio(cells, 'explain', 'infer', 'hot'))}"
        for batch, cells in per_batch.items()
        if ratio(cells, "explain", "infer", "hot")
    ]
    text = _table(headings, rows)
    if hot:
        text += f"\nexplain / infer in hot blocks: {', '.join(hot)}.\n"
    if notes:
        text += "\nWithout a figure:\n\n" + "\n".join(notes) + "\n"
    return text


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _ms(seconds: float | None) -> str:
    if not seconds:
        return MISSING
    ms = 1e3 * seconds
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _times(value: float | None, unit: str = "") -> str:
    if value is None:
        return MISSING
    return (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}") + unit


def _more(value: float | None) -> str:
    return MISSING if value is None else f"{value - 1:+.0%}"
