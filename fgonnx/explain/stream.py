"""Run tasks in threads ahead of their consumer, in order and a bounded number of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")


def in_order(pool: Executor, tasks: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """Run tasks in a pool and yield their results in the order of the tasks.

    Parameters
    ----------
    pool : Executor
        Runs the tasks. Those that have not started when the iterator is closed are cancelled.
    tasks : iterable of callable
        Iterated by the consuming thread, while earlier tasks run.
    ahead : int
        Largest number of tasks that run or are finished ahead of the consumer; bounds the memory.

    Raises
    ------
    Exception
        An exception of a task, or of iterating over tasks, in place of its result.
    """
    pending: deque[Future[T]] = deque()
    remaining = iter(tasks)
    try:
        while True:
            try:
                pending.append(pool.submit(next(remaining)))
            except StopIteration:
                break
            except Exception as error:
                pending.append(Future())
                pending[-1].set_exception(error)
                break
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def grouped(items: Iterable[T], size: int, kind: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Group consecutive items of one kind, at most `size` each; an exception of `items` comes after the last group."""
    group: list[T] = []
    failed: Exception | None = None
    try:
        for item in items:
            if group and (len(group) >= size or kind(item) != kind(group[0])):
                yield group
                group = []
            group.append(item)
    except Exception as error:
        failed = error
    if group:
        yield group
    if failed is not None:
        raise failed
