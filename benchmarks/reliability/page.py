"""The page of a run: counts by outcome, kills, long use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.fuzz.page import commit
from benchmarks.machine import describe, today, versions
from benchmarks.reliability.kill import Kills
from benchmarks.reliability.soak import THREADS, Soak
from benchmarks.reliability.tries import BAD, GOOD, KINDS, SECONDS, Try

HEAD = """# Reliability

Written by `{command}`
on {date}, fgonnx at {commit}, {versions}; {machine}.

Seeded mutations (`benchmarks/reliability/`) of small models (convolutions, attention, functions, loops and branches, a
file that fgonnx wrote), of the files that are read beside them (pictures, arrays, sound, labels, preprocessing), and of
options. A model is changed field by field, as protobuf has them, or byte by byte; other files byte by byte; options get
odd values. Each try is one command in a process of its own, with {seconds:g} s of processor time and 6 GiB of address
space.

*Right* is exit code 0; outputs of a written file are held against the mutated model's in ONNX Runtime, where it runs.
*Refused* is exit code 2 with an error of fgonnx, or 1 or 3 where `check` fails or does not decide. *onnxruntime alone
fails* is a model on which ONNX Runtime crashes or hangs without fgonnx. All other outcomes are faults.
"""


def page(tries: Sequence[Try], kills: Kills, soak: Soak, command: str) -> str:
    """Return the page in Markdown."""
    machine = describe()
    about = ", ".join(f"{name} {v}" for name, v in versions(("onnxruntime", "onnx", "numpy", "opencv-python")).items())
    head = HEAD.format(
        command=command,
        date=today(),
        commit=commit(),
        versions=about,
        machine=f"{machine['cores']} cores, {machine['memory_gib']} GiB",
        seconds=SECONDS,
    )
    return "\n".join([head, *_tries(tries), *_kills(kills), *_soak(soak)]) + "\n"


def _tries(tries: Sequence[Try]) -> Iterator[str]:
    kinds = list(dict.fromkeys(KINDS))
    count = Counter((t.kind, t.outcome) for t in tries)
    yield "## Tries\n"
    yield f"| outcome | {' | '.join(kinds)} | all |"
    yield "| --- |" + " ---: |" * (len(kinds) + 1)
    for outcome in (*GOOD, *BAD):
        numbers = [count[k, outcome] for k in kinds]
        yield f"| {outcome} | {' | '.join(f'{n:,}' for n in (*numbers, sum(numbers)))} |"
    totals = [sum(t.kind == k for t in tries) for k in kinds]
    yield f"| tried | {' | '.join(f'{n:,}' for n in (*totals, len(tries)))} |"
    if tries:
        slow, large = max(tries, key=lambda t: t.seconds), max(tries, key=lambda t: t.peak)
        yield f"\nLongest: {slow.seconds:.1f} s of the wall clock (number {slow.number}: {slow.kind}). Largest memory:"
        yield f"{large.peak / 2**20:,.0f} MiB (number {large.number}: {large.kind})."


def _kills(kills: Kills) -> Iterator[str]:
    yield "\n## Kills\n"
    yield f"{kills.runs:,} runs of explain, rewrite, evaluate, compare and audit were killed (SIGKILL) at a random"
    yield "moment."
    yield f"A file was broken, or the same command did not complete the run afterwards, after {kills.lost:,}."
    yield from (f"- {text}" for text in kills.said)


def _soak(soak: Soak) -> Iterator[str]:
    yield "\n## Long use\n"
    yield f"{THREADS} threads of one process made {soak.calls:,} mixed calls in {soak.seconds:,.0f} s; {soak.wrong:,}"
    yield f"answers were not the first one's. Memory grew by {soak.growth:,.1f} MiB after the first quarter."
    yield from (f"- {text}" for text in soak.said)
