"""The rule by which a new aggregation of full-gradients would win, and what it says of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.results import Results, difference, holm, number, ranks

AGAINST = "fullgrad"
LARGEST = 0.4
SPECIFIC = "random-logit"
NO_WORSE = ("deletion", "insertion", "pixel-perturbation", "randomisation")
NULLS = ("edge", "random")
LEVEL = 0.05
ROUNDING = ("completeness", "completeness cut")
"""Measures of nothing but rounding where they are small, which are not ranked."""

RULE = f"""\
The rule was written before any candidate that it could choose had been measured on the half *report*. Candidates are
settings of `net-fullgrad`; the certificate is that of `fullgrad` for all of them. One is chosen on every other picture
(the half *choose*): the one that meets most of the conditions, and of several the one with the lowest {SPECIFIC}.
It wins if on the other pictures (the half *report*), on **every** network,

1. {SPECIFIC}, as the measure defines it (SSIM with the map of a random class), is at most {LARGEST};
2. {", ".join(NO_WORSE[:-1])} are no worse than those of `{AGAINST}`: the 95 % bootstrap interval of the
   paired difference does not lie wholly on the worse side (without a correction for the number of comparisons, which
   would make it easier to pass);
3. sanity holds: the same for {NO_WORSE[-1]}, the likeness to the map of the same network with random weights.

A candidate that wins becomes the recommended setting and the default of `fgonnx explain`; otherwise `{AGAINST}` stays.
"""


@dataclass(frozen=True)
class Condition:
    """A condition of the rule on one network: whether it is met, and the figures."""

    name: str
    met: bool
    figures: str


def conditions(found: Results, method: str) -> list[Condition]:
    """Return the conditions that can be decided: those whose measure was run for the method and for FullGrad."""
    said: list[Condition] = []
    for measure in (SPECIFIC, *NO_WORSE):
        key = next((m for _, m in found.values if m.partition(":")[0] == measure and " " not in m), measure)
        values, base = found.values.get((method, key), {}), found.values.get((AGAINST, key), {})
        d = difference(values, base)
        if d is None:
            continue
        if measure == SPECIFIC:
            mean = float(np.nanmean(list(values.values())))
            before = float(np.nanmean(list(base.values())))
            said.append(Condition(measure, mean <= LARGEST, f"{number(mean)} (`{AGAINST}` {number(before)})"))
        else:
            higher = found.better.get(key) == "higher"
            worse = d.high < 0 if higher else d.low > 0
            said.append(Condition(measure, not worse, f"{d.mean:+.2g} ({d.low:+.2g} … {d.high:+.2g})"))
    return said


def chosen(networks: Mapping[str, Results], candidates: Iterable[str]) -> str | None:
    """Return the candidate that meets most conditions on all networks, and of several the most class-specific one."""
    scores: dict[str, tuple[int, float]] = {}
    for name in candidates:
        said = [c for found in networks.values() for c in conditions(found, name)]
        likeness = [
            float(np.nanmean(list(v.values())))
            for found in networks.values()
            for (method, measure), v in found.values.items()
            if method == name and measure == SPECIFIC
        ]
        if said and likeness:
            scores[name] = sum(c.met for c in said), -float(np.mean(likeness))
    return max(scores, key=lambda name: scores[name]) if scores else None


def choice(networks: Mapping[str, Results], candidates: Sequence[str]) -> list[str]:
    """Return the table of candidates by conditions met, as markdown."""
    lines = [f"| candidate | {' | '.join(networks)} | all |", f"| --- |{' ---: |' * (len(networks) + 1)}"]
    for name in candidates:
        cells, all_met, all_of = [], 0, 0
        for found in networks.values():
            said = conditions(found, name)
            failing = [c.name for c in said if not c.met]
            cells.append(f"{len(said) - len(failing)} of {len(said)}{': not ' + ', '.join(failing) if failing else ''}")
            all_met, all_of = all_met + len(said) - len(failing), all_of + len(said)
        lines.append(f"| {name} | {' | '.join(cells)} | {all_met} of {all_of} |")
    return [*lines, ""]


def verdict(networks: Mapping[str, Results], name: str) -> list[str]:
    """Return the conditions of the rule for one candidate on every network, and the verdict, as markdown."""
    lines = [
        f"| network | {SPECIFIC} | {' | '.join(NO_WORSE)} |",
        f"| --- |{' --- |' * (1 + len(NO_WORSE))}",
    ]
    failed = []
    for network, found in networks.items():
        said = {c.name: c for c in conditions(found, name)}
        cells = [f"{'✓' if c.met else '✗'} {c.figures}" if (c := said.get(m)) else "–" for m in (SPECIFIC, *NO_WORSE)]
        lines.append(f"| {network} | {' | '.join(cells)} |")
        failed += [f"{c.name} on {network}" for c in said.values() if not c.met]
    others = sum(all(c.met for c in conditions(found, name) if c.name != SPECIFIC) for found in networks.values())
    lines += ["", f"It meets conditions 2 and 3 on {others} of {len(networks)} networks."]
    if failed:
        lines += ["", f"**`{name}` does not win**: {', '.join(failed)}. `{AGAINST}` stays the default."]
    else:
        lines += ["", f"**`{name}` wins.**"]
    return [*lines, ""]


def against(networks: Mapping[str, Results]) -> list[str]:
    """Return how often every method is significantly better or worse than FullGrad, as markdown."""
    better: Counter[tuple[str, str]] = Counter()
    worse: Counter[tuple[str, str]] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    for found in networks.values():
        keys, differences = [], []
        for method, measure in found.values:
            if method == AGAINST or measure in ROUNDING or not found.better.get(measure):
                continue
            base = found.values.get((AGAINST, measure))
            d = difference(found.values[method, measure], base) if base else None
            if d is not None:
                keys.append((method, measure))
                differences.append(d)
        for key, d, p in zip(keys, differences, holm(d.p for d in differences), strict=True):
            seen[key] += 1
            if p < LEVEL:
                (better if (d.mean > 0) == (found.better[key[1]] == "higher") else worse)[key] += 1
    methods = list(dict.fromkeys(method for method, _ in seen))
    measures = list(dict.fromkeys(measure for _, measure in seen))
    lines = [f"| measure | {' | '.join(methods)} |", f"| --- |{' ---: |' * len(methods)}"]
    for measure in measures:
        cells = []
        for method in methods:
            key = (method, measure)
            marks = [f"{better[key]} ▲"] * bool(better[key]) + [f"{worse[key]} ▼"] * bool(worse[key])
            cells.append(f"{' '.join(marks) or '0'} of {seen[key]}" if seen[key] else "–")
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return [*lines, ""]


def best(networks: Mapping[str, Results], most: int = 3) -> list[str]:
    """Return the methods of the best mean rank by measure, as markdown; without the null baselines."""
    lines = [
        f"| measure | best, with the mean rank over networks (1 is best) | `{AGAINST}` | networks |",
        "| --- | --- | --- | ---: |",
    ]
    for measure in dict.fromkeys(m for found in networks.values() for _, m in found.values if found.better.get(m)):
        if measure in ROUNDING:
            continue
        mean, of, count = ranks(networks, measure, without=NULLS)
        order = sorted(mean, key=lambda name: mean[name])
        said = ", ".join(f"{name} ({mean[name]:.1f})" for name in order[:most])
        own = f"{mean[AGAINST]:.1f} of {of}" if AGAINST in mean else "–"
        lines.append(f"| {measure} | {said or '–'} | {own} | {count} |")
    return [*lines, ""]


def reachable(networks: Mapping[str, Results]) -> list[str]:
    """Return, by network, which of all methods meet the other conditions, and how class-specific they are."""
    lines = [
        f"| network | most class-specific of those that meet conditions 2 and 3 | its {SPECIFIC} | lowest of all |",
        "| --- | --- | ---: | --- |",
    ]
    out_of_reach = []
    for network, found in networks.items():
        means = {
            method: float(np.nanmean(list(values.values())))
            for (method, measure), values in found.values.items()
            if measure == SPECIFIC and method not in NULLS
        }
        others = {m: [c for c in conditions(found, m) if c.name != SPECIFIC] for m in means if m != AGAINST}
        passing = [m for m, said in others.items() if len(said) == len(NO_WORSE) and all(c.met for c in said)]
        kept = min(passing, key=lambda m: means[m], default=None)
        lowest = min(means, key=lambda m: means[m], default=None)
        lines.append(
            f"| {network} | {kept or '–'} | {number(means[kept]) if kept else '–'} "
            f"| {f'{number(means[lowest])} ({lowest})' if lowest else '–'} |"
        )
        if kept is None or means[kept] > LARGEST:
            out_of_reach.append(network)
    return [*lines, "", _reached(out_of_reach, len(networks)), ""]


def _reached(out_of_reach: Sequence[str], count: int) -> str:
    """Return in words where the rule could not be met by any method."""
    if not out_of_reach:
        return "On every network some method meets all conditions."
    return (
        f"**On {' and '.join(filter(None, (', '.join(out_of_reach[:-1]), out_of_reach[-1])))} ({len(out_of_reach)} of "
        f"{count} networks) no method that was measured meets all conditions**: a {SPECIFIC} of at most {LARGEST} is "
        f"had there, if at all, only by being worse than `{AGAINST}` in something else. So the rule asks for what no "
        "method here has, published ones included; this is evidence about these methods and networks, and no proof "
        "that there is none."
    )
