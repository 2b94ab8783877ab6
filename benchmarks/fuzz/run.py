"""Many graphs, each judged in a process of its own kind: a crash or a hang is an outcome, not the end."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.fuzz.draw import Drawn, Size, draw
from benchmarks.fuzz.judge import WRONG, Verdict, judge

_SECONDS = 180  # on a machine that is busy with other things


@dataclass(frozen=True)
class Case:
    """One graph and what became of it.

    Attributes
    ----------
    seed, index : int
        What it is drawn from.
    lead : str
        The operator whose turn it was.
    operators : frozenset of str
        Operators that it holds.
    form : str
        How its first axis is.
    nodes : int
        How many it has.
    verdict : Verdict
        What became of it.
    """

    seed: int
    index: int
    lead: str
    operators: frozenset[str]
    form: str
    nodes: int
    verdict: Verdict


def judged(drawn: Drawn) -> Case:
    """Judge a graph."""
    nodes = len(drawn.model.graph.node)
    return Case(drawn.seed, drawn.index, drawn.lead, drawn.operators, drawn.form, nodes, judge(drawn))


class Worker:
    """A process that judges one graph after the other, and is replaced when it dies.

    Parameters
    ----------
    seed : int
        Of the run.
    size : Size
        How large graphs are.
    """

    def __init__(self, seed: int, size: Size | None = None) -> None:
        self.seed, self.size = seed, size or Size()
        self._context = mp.get_context("spawn")
        self._process: mp.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self.seed, self.size), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        return ours

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def run(self, item: int | Drawn) -> Case:
        """Judge the graph of a number, or one that is given."""
        pipe = self._pipe or self._start()
        pipe.send(item)
        try:
            if pipe.poll(_SECONDS * 3 if self._process is None else _SECONDS):
                found: Case = pipe.recv()
                return found
            why = f"nothing after {_SECONDS} s"
        except (EOFError, ConnectionResetError):
            why = "the process dies"
        self._stop()
        drawn = draw(self.seed, item, self.size) if isinstance(item, int) else item
        nodes = len(drawn.model.graph.node)
        return Case(drawn.seed, drawn.index, drawn.lead, drawn.operators, drawn.form, nodes, Verdict(WRONG, why, why))


def _serve(pipe: Connection, seed: int, size: Size) -> None:
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        drawn = draw(seed, item, size) if isinstance(item, int) else item
        pipe.send(judged(drawn))


def run(indices: Iterable[int], seed: int, size: Size | None = None) -> Iterator[Case]:
    """Draw and judge graphs, one after the other."""
    with Worker(seed, size) as worker:
        for i in indices:
            yield worker.run(i)
