"""Work kept going in threads ahead of where its results are needed: in order, and never far ahead."""

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
        Runs the tasks. Those that have not begun when the iterator is closed are cancelled.
    tasks : iterable of callable
        Drawn by the thread that asks for results, while earlier tasks run.
    ahead : int
        How many tasks are under way or done before the result that is waited for; bounds the memory.

    Raises
    ------
    Exception
        What a task raises, where its result would stand.
    """
    pending: deque[Future[T]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def grouped(items: Iterable[T], size: int, kind: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Yield neighbours of one kind together, at most `size` of them."""
    group: list[T] = []
    for item in items:
        if group and (len(group) >= size or kind(item) != kind(group[0])):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
