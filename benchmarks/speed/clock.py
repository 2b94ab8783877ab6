"""Turns: all columns of one network and batch size are called one after the other, round after round."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.sessions import PAUSE
from benchmarks.speed.columns import OWN, Column, Setting
from benchmarks.speed.worker import FailedError, Worker

OWN_SHARE = 2.5
HOT = ("infer", "explain", "explain-session", "openvino-infer", "openvino-explain")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    rounds : int
        Calls of a column, at most.
    share : float
        Seconds that the calls of one column may take beyond its first; those of `OWN` get OWN_SHARE times as much,
        and five calls at least.
    limit : float
        Seconds after which a single call, or a preparation, is given up.
    hot : float
        Seconds of a hot block.
    """

    rounds: int = 20
    share: float = 4.0
    limit: float = 240.0
    hot: float = 1.0

    def count(self, key: str, first: float) -> int:
        """Return how many calls a column gets whose first one took so long."""
        if key in OWN:
            return max(min(5, self.rounds), min(self.rounds, int(OWN_SHARE * self.share / first)))
        return min(self.rounds, int(self.share / first))


@dataclass
class Cell:
    """One column on one network and batch size. Times are seconds per call, memory is bytes.

    Attributes
    ----------
    network, batch, column : str, int, str
        Which.
    failure : str
        Why there is no figure, or "".
    calls : int
        How many were measured by turns. The first call of a column warms it up; it counts where it is the only one.
    median, low, high : float
        By turns: median and quartiles.
    hot : float or None
        Median in blocks of calls of one kind.
    imported, preparing, calling : int
        Resident memory after imports, at most while preparing, at most while called.
    """

    network: str
    batch: int
    column: str
    failure: str = ""
    calls: int = 0
    median: float = 0.0
    low: float = 0.0
    high: float = 0.0
    hot: float | None = None
    imported: int = 0
    preparing: int = 0
    calling: int = 0


@dataclass
class _Lane:
    """A column in the race."""

    worker: Worker
    cell: Cell
    first: float = 0.0
    count: int = 0
    seconds: list[float] = field(default_factory=list)
    hot: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Record a failure and stop the process."""
        try:
            yield
        except FailedError as failure:
            self.cell.failure = str(failure)
            self.worker.stop()


def measure(columns: Sequence[Column], setting: Setting, plan: Plan, tell: Callable[[str], Any]) -> list[Cell]:
    """Measure columns by turns, then inference and explanations in hot blocks.

    Parameters
    ----------
    columns : sequence of Column
        What takes turns.
    setting : Setting
        On which network, batch size and number of threads.
    plan : Plan
        How often.
    tell : callable
        Is told what happens.
    """
    cells = {c.key: Cell(setting.network.name, setting.batch, c.key, _reason(c, setting)) for c in columns}
    tell("exporting")
    setting.network.path()
    lanes = [_Lane(Worker(key, setting), cell) for key, cell in cells.items() if not cell.failure]
    try:
        tell("preparing")
        for lane in lanes:
            with lane.attempt():
                lane.worker.ready(plan.limit)
        for lane in _running(lanes):
            tell(f"first call of {lane.cell.column}")
            with lane.attempt():
                (lane.first,) = _turn(lane, 1, plan.limit)
                lane.count = plan.count(lane.cell.column, lane.first)
        _equal_counts(_running(lanes))
        _alternate(_running(lanes), plan, tell)
        tell("hot blocks")
        _hot(_running(lanes), plan)
    finally:
        for lane in _running(lanes):
            lane.worker.stop()
    for lane in lanes:
        if not lane.cell.failure:
            _conclude(lane)
    return list(cells.values())


def _reason(column: Column, setting: Setting) -> str:
    if missing := column.missing():
        return f"{missing} is not installed"
    if column.maps_only and not setting.network.convolutional:
        return "defined for convolutional networks"
    return column.alone if setting.batch > 1 else ""


def _running(lanes: Sequence[_Lane]) -> list[_Lane]:
    return [lane for lane in lanes if not lane.cell.failure]


def _turn(lane: _Lane, count: int, limit: float) -> list[float]:
    time.sleep(PAUSE)
    return lane.worker.call(count, limit)


def _equal_counts(lanes: Sequence[_Lane]) -> None:
    """Let the columns whose ratios matter most alternate strictly."""
    own = [lane for lane in lanes if lane.cell.column in OWN]
    for lane in own:
        lane.count = min(other.count for other in own)


def _alternate(lanes: Sequence[_Lane], plan: Plan, tell: Callable[[str], Any]) -> None:
    """Go round; a column with fewer calls sits out evenly spread rounds."""
    rounds = max((lane.count for lane in lanes), default=0)
    for i in range(rounds):
        tell(f"round {i + 1} of {rounds}")
        for lane in lanes:
            if not lane.cell.failure and (i + 1) * lane.count // rounds > i * lane.count // rounds:
                with lane.attempt():
                    lane.seconds += _turn(lane, 1, plan.limit)


def _hot(lanes: Sequence[_Lane], plan: Plan) -> None:
    """Call each kind many times in a row, in two blocks."""
    for _ in range(2):
        for lane in lanes:
            if lane.cell.column in HOT:
                count = max(2, min(plan.rounds, round(plan.hot / lane.first)))
                with lane.attempt():
                    lane.hot += _turn(lane, count, plan.limit + count * lane.first)[1:]


def _conclude(lane: _Lane) -> None:
    cell, seconds = lane.cell, lane.seconds or [lane.first]
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
    cell.low, cell.median, cell.high = quartiles
    cell.calls = len(seconds)
    cell.hot = statistics.median(lane.hot) if lane.hot else None
    for name, value in asdict(lane.worker.peak).items():
        setattr(cell, name, value)
