"""What does the shards of a plan: threads or processes of this machine, or actors of Ray. The files are the results."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from filelock import FileLock, Timeout

from fgonnx import files
from fgonnx.errors import OptionError, ProviderError
from fgonnx.jobs import provenance
from fgonnx.jobs.audit import formats
from fgonnx.jobs.audit.options import Runner
from fgonnx.jobs.audit.plan import SHARDS, Plan
from fgonnx.jobs.audit.shard import explain_shard
from fgonnx.wording import first_line

AHEAD = 2
"""Shards at once in one process: while one is explained, the other is compressed and written."""

_RESTARTS = -1  # of actors of Ray: as often as they die
_STARTS = 3


def run(plan: Plan, runner: Runner) -> Iterator[tuple[int, int]]:
    """Do the shards that are missing; yield each, with how many of its rows have a result, once its files are there.

    Raises
    ------
    OptionError
        Another runner works on them, or what is asked for is not installed.
    FgonnxError
        As `explain_shard` raises it.
    """
    with _alone(plan, runner):
        left = plan.missing(runner.part)
        for k in left:
            _tidy(plan, k)
        formats.forget(plan.folder, {f"{SHARDS}/{file.name}" for k in left for file in plan.files(k)})
        _log(plan, "started", shards=len(left), runner=runner.runner, part=list(runner.part or ()))
        done = 0
        try:
            work = _ray if runner.runner == "ray" else _processes if (runner.workers or 1) > 1 else _threads
            for k, good in work(plan, left, runner.workers):
                done += 1
                _log(plan, "shard", shard=k)
                yield k, good
        finally:
            _log(plan, "finished" if done == len(left) else "stopped", shards=done)


def _threads(plan: Plan, left: Sequence[int], workers: int | None) -> Iterator[tuple[int, int]]:
    """Do shards in this process, two at once, which share the threads that explain."""
    stop = threading.Event()
    plan.tools.pool, plan.tools.explainers  # noqa: B018  made here, not by two threads
    pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="shard")
    try:
        yield from _each(pool, {"plan": plan, "stop": stop}, left, AHEAD)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        plan.tools.close()


def _processes(plan: Plan, left: Sequence[int], workers: int | None) -> Iterator[tuple[int, int]]:
    """Do shards in processes, each with its own session and its share of the cores."""
    count = workers or 1
    plan = _with_threads(plan, max(1, plan.request.running.used_threads // count))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin, initargs=(plan,))
    try:
        yield from _each(pool, {}, left, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _each(pool: Executor, given: dict[str, Any], left: Sequence[int], ahead: int) -> Iterator[tuple[int, int]]:
    """Keep a few shards going, and yield each as it is done; the first error ends the work."""
    todo, going = list(left[::-1]), dict[Future[int], int]()
    work: Callable[..., int] = explain_shard if given else _do
    while todo or going:
        while todo and len(going) < ahead:
            k = todo.pop()
            going[pool.submit(work, k=k, **given)] = k
        ended, _ = wait(going, return_when=FIRST_COMPLETED)
        for future in sorted(ended, key=going.__getitem__):
            yield going.pop(future), future.result()


_mine: list[Plan] = []  # of a worker's process


def _begin(plan: Plan) -> None:
    _mine[:] = [plan]


def _do(k: int) -> int:
    return explain_shard(_mine[0], k)


def _with_threads(plan: Plan, threads: int) -> Plan:
    request = plan.request
    if request.running.threads is not None:
        return plan
    return Plan(plan.folder, plan.about, replace(request, running=replace(request.running, threads=threads)))


def _ray(plan: Plan, left: Sequence[int], workers: int | None) -> Iterator[tuple[int, int]]:
    """Do shards in actors, which keep their session; an actor that dies is started again and does its shard again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise OptionError("--runner ray needs ray: pip install ray") from error
    ours = not ray.is_initialized()
    if ours:
        _start(ray)
    try:
        count = min(len(left), workers or int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=_RESTARTS, max_task_retries=_RESTARTS)(_Actor)
        given = ray.put(_with_threads(plan, 1))
        free = [actor.remote(given) for _ in range(count)]
        todo, going = list(left[::-1]), dict[Any, tuple[int, Any]]()
        while todo or going:
            while todo and free:
                worker, k = free.pop(), todo.pop()
                going[worker.do.remote(k)] = (k, worker)
            (done,), _ = ray.wait(list(going))
            k, worker = going.pop(done)
            good = ray.get(done)
            free.append(worker)
            yield k, good
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any) -> None:
    """Start Ray, or join a cluster; on a busy machine it gives up after half a minute, and is started again.

    Raises
    ------
    ProviderError
        It does not start.
    """
    address = "auto" if "RAY_ADDRESS" in os.environ else None
    for again in range(_STARTS):
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False)
            return
        except Exception as error:  # Ray raises the plain class, too
            ray.shutdown()
            if again == _STARTS - 1:
                raise ProviderError(f"Ray does not start: {first_line(error)}; --runner local needs none") from error


class _Actor:
    """A worker of Ray: the plan goes in once, numbers come out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def do(self, k: int) -> int:
        return explain_shard(self.plan, k)


@contextmanager
def _alone(plan: Plan, runner: Runner) -> Iterator[None]:
    """Hold the folder, or the part of it; the lock goes with the process, however it ends."""
    name = f".lock-{runner.part[0]}-of-{runner.part[1]}" if runner.part is not None else ".lock"
    lock = FileLock(plan.folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OptionError(
            f"another fgonnx works on '{plan.folder}'; wait for it, or give another folder (--shard K/N shares one)"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _tidy(plan: Plan, k: int) -> None:
    """Remove what a runner that was killed has left of a shard."""
    for path in plan.files(k):
        for left in (plan.folder / SHARDS).glob(files.temporary_of(path, "*").name):
            with suppress(OSError):
                left.unlink()


def _log(plan: Plan, event: str, **about: Any) -> None:
    """Add a line to the log of this machine: what was done, when, by which process."""
    line = {"time": provenance.now(), "event": event, "process": os.getpid(), **about}
    with suppress(OSError), (plan.folder / f"log-{socket.gethostname()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
