"""docs/paper.md from the stored records: every figure in it is theirs, and so is every verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.paper import perturbation, record, toys
from fgonnx.audit.evaluate.page import number

Record = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]

PUBLISHED = ("random", "gradient", "integrated-gradients", "smoothgrad", "grad-cam")
"""What the paper's figure holds FullGrad against."""

_SAME, _COMPLETE, _APART = 1e-6, 1e-5, 1e-2


def page(records: Mapping[str, Record]) -> str:
    """Return the page.

    Parameters
    ----------
    records : mapping
        By part: "perturbation", "grid", "toys", "ablation". Sections of those that are not there are left out.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = short
    found: dict[str, Any] = {part: records.get(part) for part in ("perturbation", "grid", "toys", "ablation")}
    makers = {"perturbation": _of_perturbation, "toys": _of_toys, "ablation": _of_ablation}
    found["claims"] = [row for part, rows in makers.items() if part in records for row in rows(records[part])]
    found |= {"changes": changes, "maps": maps, "ends": ends, "variants": variants}
    if "toys" in records:
        found |= _toys(records["toys"])
    return environment.get_template("page.md.jinja").render(found)


# Claims: what the paper says, where, the verdict, and what was found.


def _of_perturbation(stored: Record) -> Iterator[Sequence[str]]:
    for network in stored["networks"]:
        for name, measure in network["measures"].items():
            quantity = perturbation.MEASURES[name].partition(", ")[2]
            if measure["reference"] == perturbation.OURS:
                found, told = verdict(measure["means"], 1, ("changes less than", "changes more than"))
                lowest = f"lowest of them at {_lowest(measure['curves'])} of {len(stored['shares'])} shares"
                yield (
                    "Without the least salient pixels, the score changes least by FullGrad's map",
                    "5.1, figure 3a",
                    found,
                    f"{network['name']}, {quantity}: {told}; {lowest}",
                )
            else:
                others = [row for row in measure["means"] if row["method"] in PUBLISHED and "difference" in row]
                near = [row["method"] for row in others if record.sign(row["difference"]) <= 0]
                yield (
                    "Without the most salient pixels, several methods change the score like chance",
                    "5.1",
                    "agrees" if len(near) > 1 else "disagrees",
                    f"{network['name']}, {quantity}: {len(near)} of {len(others)} no more than chance"
                    + (f" ({', '.join(near)})" if near else ""),
                )


def _of_toys(stored: Record) -> Iterator[Sequence[str]]:
    gaps = []
    for pair in stored["pairs"]:
        first, second = pair["networks"]
        shared = all(abs(a - b) < _SAME for a, b in zip(first["map"], second["map"], strict=True))
        gaps.append(abs(first["score"] - second["score"]) if shared else 0.0)
    *others, full = stored["axioms"]
    both = [row["map"] for row in others if row["error"] < _COMPLETE and row["change"] < _SAME]
    yield (
        "No map of the input is complete and weakly dependent",
        "proposition 1",
        "agrees" if min(gaps) > _APART and not both else "disagrees",
        f"{len(gaps)} pairs of networks with the same map and scores that differ by {', '.join(map(number, gaps))}; "
        f"{len(both)} of {len(others)} maps of a network are both",
    )
    yield (
        "The full-gradient is both",
        "proposition 2",
        "agrees" if full["error"] < _COMPLETE and full["change"] < _SAME else "disagrees",
        f"error {full['error']:.0e}, change within a linear piece {full['change']:.0e}",
    )


def _of_ablation(stored: Record) -> Iterator[Sequence[str]]:
    for name, what, claim in (
        ("energy", "share of the map on the object", "Maps of FullGrad are confined to objects more tightly"),
        ("pointing-game", "largest value on the object", "Maps of FullGrad are confined to objects more tightly"),
        ("sparseness", "Gini index", "Maps of FullGrad are sharper"),
    ):
        found, told = verdict(stored["measures"][name]["means"], -1, ("above", "below"))
        yield claim, "abstract, 5.3", found, f"drawn shapes, {what}: {told}"


def verdict(means: Sequence[Record], wanted: int, words: tuple[str, str]) -> tuple[str, str]:
    """Hold FullGrad against the methods of the paper's figure.

    Parameters
    ----------
    means : sequence of mapping
        As `record.against` gives them, with FullGrad as the reference.
    wanted : {1, -1}
        The sign of the other's mean minus FullGrad's, as published.
    words : pair of str
        How FullGrad is to a method that the paper is right about, and to one that it is wrong about.

    Returns
    -------
    pair of str
        "agrees", "disagrees" or "open"; and how it is to which method.
    """
    signs = {row["method"]: record.sign(row["difference"]) for row in means if row["method"] in PUBLISHED}
    groups = {
        word: [method for method, found in signs.items() if found == sign]
        for word, sign in ((words[0], wanted), ("not distinguishable from", 0), (words[1], -wanted))
    }
    result = "agrees" if len(groups[words[0]]) == len(signs) else "disagrees" if groups[words[1]] else "open"
    return result, "; ".join(f"{word} {', '.join(found)}" for word, found in groups.items() if found)


def _lowest(curves: Record) -> int:
    """Return at how many shares FullGrad's mean is the lowest of the published methods."""
    ours = curves[perturbation.OURS]["mean"]
    others = zip(*(curve["mean"] for name, curve in curves.items() if name in PUBLISHED), strict=True)
    return sum(own <= min(rest) for own, rest in zip(ours, others, strict=True))


# Tables: heads and rows.


def changes(network: Record, methods: Sequence[str]) -> Table:
    """Return the means of a network, and their differences from what each measure holds them against."""
    measures = [(title, network["measures"][name]) for name, title in perturbation.MEASURES.items()]
    heads = ["method", *(head for title, m in measures for head in (title, f"minus {m['reference']}"))]
    return heads, [[method, *(cell for _, m in measures for cell in _pair(m["means"], method))] for method in methods]


def _pair(means: Sequence[Record], method: str) -> tuple[str, str]:
    row = _row(means, method)
    if "difference" not in row:
        return _estimate(row), "–"
    bold = "**" if record.sign(row["difference"]) else ""
    return _estimate(row), f"{bold}{_estimate(row['difference'])}{bold}"


def maps(found: Record) -> Table:
    """Return the maps of one picture, pixel by pixel."""
    rows = [(name, *map(short, values)) for name, values in found["maps"].items()]
    return ("map", *(f"x = {short(x)}" for x in found["pixels"])), rows


def ends(sweep: Record) -> Table:
    """Return what a sweep begins and ends with."""
    names = {"score": "score", **{m: f"{m}, sum" for m in toys.ATTRIBUTIONS}, toys.FULL: "full-gradient, sum"}
    names["biases"] = "of which from biases"
    rows = [(title, *(short(sweep[name][i]) for i in (0, -1))) for name, title in names.items()]
    return ("", *(f"b = {short(sweep['at'][i])}" for i in (0, -1))), rows


def variants(stored: Record) -> Table:
    """Return all means of the ablation, with what is better or worse than the default."""
    measures = stored["measures"]
    arrows = {"higher": "↑", "lower": "↓"}
    rows = []
    for method in (*stored["variants"], *stored["others"]):
        cells = []
        for measure in measures.values():
            row = _row(measure["means"], method)
            sign = record.sign(row["difference"]) if "difference" in row else 0
            better = sign if measure["better"] == "higher" else -sign
            cells.append(_estimate(row) + {1: " +", 0: "", -1: " -"}[better])
        rows.append((method, *cells))
    return ("map", *(f"{name} {arrows[m['better']]}" for name, m in measures.items())), rows


def _toys(stored: Record) -> dict[str, Any]:
    largest = {
        psi: values[0] > max(values[1:])
        for psi in toys.PSIS
        for values in [stored["saturation"]["maps"][f"{perturbation.OURS}, {psi}"]]
    }
    return {
        "shown": [psi for psi, yes in largest.items() if yes],
        "hidden": [psi for psi, yes in largest.items() if not yes],
        "pairs": [
            (
                pair["map"],
                *(", ".join(map(short, v)) for v in (pair["x"], n["parameters"], n["map"])),
                short(n["score"]),
            )
            for pair in stored["pairs"]
            for n in pair["networks"]
        ],
        "axioms": [(r["map"], f"`{r['told']}`", f"{r['error']:.1e}", f"{r['change']:.1e}") for r in stored["axioms"]],
    }


def _row(means: Sequence[Record], method: str) -> Record:
    return next(row for row in means if row["method"] == method)


def _estimate(found: Record) -> str:
    if found["mean"] is None:
        return "–"
    mean = number(found["mean"])
    return mean if found["low"] is None else f"{mean} ({number(found['low'])} … {number(found['high'])})"


def short(value: float) -> str:
    """Write a number of an example, without the zeros behind it."""
    return f"{round(value, 3) + 0.0:g}"
