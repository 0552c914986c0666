"""Take items from an iterable before they are needed, so that work on them starts early, with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Semaphore
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


def map_ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R]:
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


def in_thread(items: Iterable[T], ahead: int) -> Generator[T]:
    """Yield the items in order. A thread takes them from the iterable, up to `ahead` (at least 1) in advance.

    Use this for an iterable whose work can be done while the caller uses earlier items. If the iterable raises an
    exception, the iterator raises it after the items before it. Closing the iterator waits for the item that the thread
    is taking, and ends the thread.
    """
    ready: SimpleQueue[tuple[T] | None] = SimpleQueue()
    slots, closed = Semaphore(ahead - 1), Event()

    def take() -> None:
        try:
            for item in items:
                ready.put((item,))
                slots.acquire()
                if closed.is_set():
                    return
        finally:
            ready.put(None)

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        taking = pool.submit(take)
        try:
            while (entry := ready.get()) is not None:
                slots.release()
                yield entry[0]
            taking.result()
        finally:
            closed.set()
            slots.release()
