"""What every protocol goes through: admitted or not, read in threads, answered, counted and logged."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fgonnx.errors import FgonnxError
from fgonnx.serve.catalogue import Catalogue
from fgonnx.serve.job import Answer, Job
from fgonnx.serve.options import Serving
from fgonnx.serve.refused import RefusedError, refused
from fgonnx.serve.watch import Watch

T = TypeVar("T")

_READERS = 2
"""Threads that decode requests and encode answers."""

_PAUSE = 0.01  # seconds between looks whether all are answered


@dataclass
class Visit:
    """A request on its way: what the log says of it, and what it became."""

    about: dict[str, Any]
    job: Job | None = None
    answer: Answer | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Desk:
    """Where requests of all protocols are taken on.

    Parameters
    ----------
    catalogue : Catalogue
        The models.
    serving : Serving
        The service.
    watch : Watch
        Metrics and log.
    """

    def __init__(self, catalogue: Catalogue, serving: Serving, watch: Watch) -> None:
        self.catalogue, self.serving, self.watch = catalogue, serving, watch
        self.stopping = False
        self._active = 0
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    def open(self) -> None:
        """Open the queues, in the event loop."""
        self.catalogue.open()
        for entry in self.catalogue.entries.values():
            for verb, lane in entry.lanes.items():
                self.watch.waiting.labels(entry.name, verb).set_function(lane.samples)

    @property
    def ready(self) -> bool:
        """Whether requests are taken on."""
        return not self.stopping

    async def visit(self, visit: Visit, handle: Callable[[Visit], Any]) -> Any:
        """Take a request on, and return what `handle` gives for it.

        Raises
        ------
        RefusedError
            There are too many, the service is stopping, or `handle` refuses it.
        """
        try:
            if self.stopping:
                raise RefusedError(503, "the service is stopping")
            if self._active >= self.serving.max_requests:
                raise RefusedError(503, f"{self._active} requests are being answered; try again later")
            self._active += 1
            self.watch.active.set(self._active)
            try:
                found = await handle(visit)
            finally:
                self._active -= 1
                self.watch.active.set(self._active)
        except (RefusedError, FgonnxError) as given:
            error = given if isinstance(given, RefusedError) else refused(given)
            self._counted(visit, error.status, str(error))
            raise error from given
        except asyncio.CancelledError:
            self._counted(visit, 499, "whoever asked is gone")
            raise
        except MemoryError as given:
            self._counted(visit, 503, "out of memory")
            raise RefusedError(503, "there is not enough memory for this request now; send fewer samples") from given
        except Exception as given:
            self._counted(visit, 500, f"{type(given).__name__}: {given}")
            self.watch.tell("unexpected", traceback="".join(traceback.format_exception(given))[-4000:])
            raise RefusedError(500, "the service failed at this request, and has logged why") from given
        self._counted(visit, 200, "")
        return found

    def _counted(self, visit: Visit, status: int, error: str) -> None:
        if visit.job is not None:
            visit.job.seconds = {**visit.seconds, **visit.job.seconds}
        self.watch.answered({**visit.about, "status": status}, visit.job, visit.answer, error)

    def check(self, name: str, verb: str) -> None:
        """Refuse a request to a model where nothing more may wait: before it is read, which costs time as well.

        Raises
        ------
        RefusedError
            Nothing more may wait.
        """
        self.catalogue.entries[name].lanes[verb].check()

    async def aside(self, visit: Visit, stage: str, work: Callable[[], T]) -> T:
        """Return what a function gives that needs a processor for a while; its time counts as that of a stage."""
        start = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            visit.seconds[stage] = visit.seconds.get(stage, 0.0) + time.monotonic() - start

    async def answer(self, visit: Visit, job: Job) -> Answer:
        """Return a model's answer to a job."""
        visit.job = job
        if (most := max(job.count, job.rows)) > self.serving.max_samples:
            raise RefusedError(
                413, f"there are {most} samples: at most {self.serving.max_samples} are taken in one request"
            )
        visit.answer = await self.catalogue.entries[job.served.name].lanes[job.verb].answer(job)
        return visit.answer

    async def drained(self, seconds: float) -> None:
        """Take on nothing more, and wait until all requests are answered, or for that long."""
        self.stopping = True
        until = time.monotonic() + seconds
        while self._active and time.monotonic() < until:
            await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
