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
        What a task raises, or the drawing of one, where its result would stand.
    """
    pending: deque[Future[T]] = deque()
    drawn = iter(tasks)
    try:
        while True:
            try:
                pending.append(pool.submit(next(drawn)))
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
    """Yield neighbours of one kind together, at most `size` of them; an error of `items` comes after them."""
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
