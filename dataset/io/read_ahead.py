"""Take items from an iterable before they are needed, so that work on them starts early, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def draw_ahead(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield the items in order, but take the next `ahead` items from the iterable before yielding an item.

    Use this for an iterable that starts work when an item is taken, such as a generator of futures.
    """
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def map_ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Yield `function(item)` for each item, in order. `pool` computes the results.

    While the caller waits for the result of one item, the calls for at most `ahead` later items are submitted. If
    `function` raises an exception for an item, the iterator raises it in place of the result. Closing the iterator
    cancels the calls that have not begun.
    """
    started: deque[Future[R]] = deque()

    def submitted() -> Iterator[Future[R]]:
        for item in items:
            started.append(pool.submit(function, item))
            yield started[-1]

    try:
        for future in draw_ahead(submitted(), ahead):
            started.popleft()
            yield future.result()
    finally:
        for future in started:
            future.cancel()
