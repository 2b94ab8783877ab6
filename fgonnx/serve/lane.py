"""The queue before a model: requests of the same shape are run together, and no more wait than it can bear.

Everything here happens in the thread of the event loop, except the runs themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from fgonnx.errors import FgonnxError
from fgonnx.serve.job import Answer, Job
from fgonnx.serve.refused import RefusedError, refused

Run = Callable[[Sequence[Job]], list[Answer | FgonnxError]]


@dataclass(frozen=True)
class Limits:
    """What a lane takes on.

    Attributes
    ----------
    together : int
        Samples that are run together at most.
    waiting : int
        Samples that may wait.
    wait : float
        Seconds that a job waits for others.
    timeout : float
        Seconds until a job is given up.
    """

    together: int
    waiting: int
    wait: float
    timeout: float


class Lane:
    """Jobs of one kind for one model, in the order they come.

    Parameters
    ----------
    run : callable
        Runs jobs together.
    pool : Executor
        Threads of the runs: as many as there are workers.
    workers : int
        How many runs there are at once.
    limits : Limits
        What it takes on.
    """

    def __init__(self, run: Run, pool: Executor, workers: int, limits: Limits) -> None:
        self._run, self._pool, self.limits = run, pool, limits
        self._jobs: deque[tuple[Job, asyncio.Future[Answer]]] = deque()
        self._woken = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
        self.waiting = 0
        """Samples that wait."""

    def samples(self) -> int:
        """Return how many samples wait."""
        return self.waiting

    def check(self, count: int = 1) -> None:
        """Refuse so many samples where there is no room for them.

        Raises
        ------
        RefusedError
            There is none.
        """
        if self.waiting + count > self.limits.waiting:
            raise RefusedError(429, f"{self.waiting} samples wait for this model already; try again later")

    async def answer(self, job: Job) -> Answer:
        """Return the answer to a job.

        Raises
        ------
        RefusedError
            Too many wait, it took too long, or the model refuses it.
        """
        self.check(job.count)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        entry = job, future
        self._jobs.append(entry)
        self.waiting += job.count
        job.since = time.monotonic()
        self._woken.set()
        try:
            return await asyncio.wait_for(future, self.limits.timeout)
        except TimeoutError:
            raise RefusedError(504, f"there was no answer within {self.limits.timeout:g} seconds") from None
        finally:
            if entry in self._jobs:  # given up before its turn
                self._jobs.remove(entry)
                self.waiting -= job.count

    async def _work(self) -> None:
        while True:
            while not self._jobs:
                self._woken.clear()
                await self._woken.wait()
            if self.limits.wait:
                await self._gather()
            if chosen := self._chosen():
                await self._finish(chosen)

    async def _gather(self) -> None:
        """Wait until the oldest job has waited long enough, or there are enough others."""
        until = self._jobs[0][0].since + self.limits.wait
        while self._jobs and (left := until - time.monotonic()) > 0 and self.waiting < self.limits.together:
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), left)
            except TimeoutError:
                return

    def _chosen(self) -> list[tuple[Job, asyncio.Future[Answer]]]:
        """Take the oldest job, and those behind it that may be run with it."""
        chosen: list[tuple[Job, asyncio.Future[Answer]]] = []
        room = self.limits.together
        for entry in list(self._jobs):
            job = entry[0]
            if not chosen or (job.like is not None and job.like == chosen[0][0].like and job.count <= room):
                chosen.append(entry)
                self._jobs.remove(entry)
                self.waiting -= job.count
                room -= job.count
            if room <= 0:
                break
        return chosen

    async def _finish(self, chosen: Sequence[tuple[Job, asyncio.Future[Answer]]]) -> None:
        start = time.monotonic()
        jobs = [job for job, _ in chosen]
        try:
            found: Sequence[Answer | BaseException] = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._run, jobs
            )
        except asyncio.CancelledError:
            _turn_away(chosen)
            raise
        except Exception as error:  # what is not foreseen is those jobs' alone; the lane goes on
            found = [error] * len(chosen)
        seconds = time.monotonic() - start
        for (job, future), answer in zip(chosen, found, strict=True):
            job.seconds.update(wait=start - job.since, run=seconds)
            job.batch = sum(other.count for other in jobs)
            if future.done():  # given up meanwhile
                continue
            if isinstance(answer, Answer):
                future.set_result(answer)
            else:
                future.set_exception(refused(answer) if isinstance(answer, FgonnxError) else answer)

    async def close(self) -> None:
        """End the lane: what waits or runs is answered 503; threads come to their end by themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _turn_away(self._jobs)


def _turn_away(entries: Iterable[tuple[Job, asyncio.Future[Answer]]]) -> None:
    for _, future in entries:
        if not future.done():
            future.set_exception(RefusedError(503, "the service is stopping"))
