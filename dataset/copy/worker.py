"""One object of a copy: read, checked and, if asked, made smaller, in a process beside the one that writes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from dataset.copy.downscale import shrink_sample
from dataset.errors import UserError
from dataset.format.schema import SchemaError, member_names, meta_name, parse_meta
from dataset.format.shards import shard_name
from dataset.reading.shard_set import DamagedMember, ShardSet

Members = Mapping[str, bytes]


class Task(NamedTuple):
    """One object for a worker. `resolution` is that of the source's first object, `target` what is asked for."""

    url: str
    tars: str  # the set's fingerprint: a worker must not read another set than the copy was begun with
    shard: int
    sample: int
    resolution: int | None
    target: int | None


@contextmanager
def submitter(workers: int) -> Iterator[Callable[[Task], Future[Members]]]:
    """What starts a task in one of several processes, or, where one is enough, in a thread of this one.

    Raises UserError when a process was killed.
    """
    pool: Executor
    if workers == 1:
        pool = ThreadPoolExecutor(1, thread_name_prefix="copy")
    else:  # spawn: a fork would inherit the locks of the file system's threads
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        yield lambda task: pool.submit(copy_object, task)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (out of memory?); give fewer --workers, and the same command resumes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Ctrl-C is the parent's to handle; when that is gone, however it ended, so is the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def copy_object(task: Task) -> Members:
    """The members of one object as the copy holds them. Raises UserError naming a member that is damaged."""
    shards = _reader(task.url, task.tars)
    uid = shards.uid(task.shard, task.sample)
    members = shards.read(task.shard, task.sample, member_names(uid))
    where, about = f"{task.url}/{shard_name(task.shard)}.tar", meta_name(uid)
    try:
        meta = parse_meta(members[about], f"{where}/{about}")
    except SchemaError as error:
        raise DamagedMember(str(error)) from error
    if meta.resolution != task.resolution:
        raise UserError(
            f"{where}/{about}: {meta.resolution} pixels, the set's first object has {task.resolution}; a copy needs "
            "sets of one size each: copy the parts by themselves (--uids FILE)"
        )
    if task.target in (None, meta.resolution):
        return members
    return shrink_sample(members, meta, task.target or 1, where)


@lru_cache(maxsize=16)
def _reader(url: str, tars: str) -> ShardSet:
    shards = ShardSet(url)
    if shards.fingerprint != tars:
        raise UserError(f"{url} has changed since the copy was begun; delete the copy and begin again")
    return shards
