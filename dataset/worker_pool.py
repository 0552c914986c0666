"""Run functions in worker processes that end with their parent, for commands that decode many images."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from dataset.errors import UserError


@contextmanager
def worker_pool(workers: int, command: str) -> Iterator[Executor]:
    """Yield a pool of `workers` processes or, if `workers` is 1, of one thread.

    Args:
        workers: Number of workers.
        command: Noun for what the command does, such as "copy", for messages.

    Raises:
        UserError: A worker process was killed.
    """
    pool: Executor
    if workers == 1:
        pool = ThreadPoolExecutor(1, thread_name_prefix=command)
    else:  # spawn: a fork would inherit the locks of the file system's threads
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker process of the {command} was killed, perhaps because memory ran out; to resume, run the same "
            "command with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent process, and exit when the parent process has ended for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
