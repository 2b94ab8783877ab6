"""The page of a run: what became of its graphs, by operator and by reason."""

from __future__ import annotations

import datetime
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from benchmarks.fuzz.draw import operators
from benchmarks.fuzz.judge import DISCARDED, EXPLAINED, REFUSED, WRONG
from benchmarks.fuzz.recipes import EXCEPTIONS
from benchmarks.fuzz.run import Case

OUTCOMES = (EXPLAINED, REFUSED, DISCARDED, WRONG)

HEAD = """# Random graphs

Written by `{command}`
on {date}, fgonnx at {commit}, with {versions}.

A seeded generator (`benchmarks/fuzz/`) draws small graphs over every operator that fgonnx has a rule, an expansion or
a real-valued twin for: float16, float32, float64 and quantised; vectors, sequences, pictures and volumes; with a free
batch, a batch of 1, a fixed one and none; operator sets 13 to 26; with skip connections, gates, shared and zero
weights, dead branches, unnamed nodes, control flow, local functions, several inputs and outputs. Every node is run in
onnxruntime as it is drawn. Every operator leads one graph in turn, so a new rule is drawn by itself, or a test names
it.

Each graph is explained (entry of the largest score, certificate, gradient), and what comes out is held against the
graph:

- its outputs against onnxruntime's on the source, run without optimisation (of a fixed batch, those with an axis that
  answers to the samples: the others are left out, and a note says so);
- the residual of its certificate against the sizes of the contributions;
- the slope along three random directions against differences. `onnx.reference` computes the graph in float64, where
  it agrees with onnxruntime; steps of 1e-4, 1e-5 and 1e-6, both sides apart, so that a kink is told from an error;
  the slope must also be missed at nearby points, within rounding, to count. Roundings of quantised graphs are held
  fixed as they are at the point, which is the straight-through derivative. Where there is no such witness,
  onnxruntime's own float32 is differenced, or the row says that nothing was.

A refusal counts if it is one of `fgonnx.errors` and names nodes of the model only. Anything else is wrong: another
number, a message about what fgonnx wrote, a foreign exception, a crash, a hang. Wrong graphs are made smaller and
written as ONNX text into the folder given by `--failures`.
"""


def page(cases: Sequence[Case], command: str) -> str:
    """Return the page in Markdown."""
    return "\n".join([_head(command), *_outcomes(cases), *_reasons(cases), *_operators(cases), *_exceptions()]) + "\n"


def _head(command: str) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "numpy"))
    return HEAD.format(command=command, date=datetime.date.today(), commit=commit(), versions=versions)


def commit() -> str:
    """Return the commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "no commit"


def _outcomes(cases: Sequence[Case]) -> Iterator[str]:
    n = Counter(c.verdict.outcome for c in cases)
    judged = len(cases) - n[DISCARDED]
    yield "## Outcomes\n"
    yield "| outcome | graphs | of those that onnxruntime runs |"
    yield "| --- | ---: | ---: |"
    for outcome in OUTCOMES:
        share = "" if outcome == DISCARDED else f"{n[outcome] / max(judged, 1):.1%}"
        yield f"| {outcome} | {n[outcome]:,} | {share} |"
    explained = [c for c in cases if c.verdict.outcome == EXPLAINED]
    held = Counter(c.verdict.witness for c in explained)
    yield (
        f"\nSlopes of the {len(explained):,} explained graphs were held against differences in float64 for\n"
        f"{held['float64']:,}, in float32 for {held['float32']:,}, and against nothing for {held['']:,}.\n"
    )
    forms = {"free": "free", "one": "1", "fixed": "3", "none": "none"}
    yield "| batch | " + " | ".join(OUTCOMES) + " |"
    yield "| --- |" + " ---: |" * len(OUTCOMES)
    for form, word in forms.items():
        m = Counter(c.verdict.outcome for c in cases if c.form == form)
        yield f"| {word} | " + " | ".join(f"{m[o]:,}" for o in OUTCOMES) + " |"


def _reasons(cases: Sequence[Case]) -> Iterator[str]:
    found = Counter((c.verdict.outcome, c.verdict.reason) for c in cases if c.verdict.outcome != EXPLAINED)
    yield "\n## Why not\n"
    yield "| outcome | reason | graphs |"
    yield "| --- | --- | ---: |"
    for (outcome, why), count in sorted(found.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        yield f"| {outcome} | {why.replace('|', ' ')} | {count:,} |"


def _operators(cases: Sequence[Case]) -> Iterator[str]:
    yield "\n## By operator\n"
    yield "In how many graphs an operator occurs, and what became of them.\n"
    yield "| operator | graphs | " + " | ".join(OUTCOMES) + " |"
    yield "| --- | ---: |" + " ---: |" * len(OUTCOMES)
    for name in operators():
        n = Counter(c.verdict.outcome for c in cases if name in c.operators)
        yield f"| {name} | {sum(n.values()):,} | " + " | ".join(f"{n[o]:,}" for o in OUTCOMES) + " |"


def _exceptions() -> Iterator[str]:
    yield "\nNot drawn:\n"
    for name, why in sorted(EXCEPTIONS.items()):
        yield f"- {name}: {why}"
