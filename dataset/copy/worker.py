"""Read one object of a copy, check its members and, if requested, downscale its images, in a worker process."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from dataset.copy.downscale import PASSES_REMEDY, downscale_sample
from dataset.errors import UserError
from dataset.format.schema import SchemaError, meta_name, parse_meta
from dataset.format.shards import shard_name
from dataset.reading.shard_set import DamagedMember, ShardSet
from dataset.worker_pool import worker_pool

Members = Mapping[str, bytes]


class CopyTask(NamedTuple):
    """One object to copy, identified by its shard and sample number in the source set.

    Attributes:
        url: Folder or fsspec URL of the source set.
        tars: Fingerprint of the source set, to detect that the set has changed.
        shard: Number of the object's shard in the source set.
        sample: Number of the object within the shard.
        resolution: Pixels per side that the object's images must have. This is the resolution of the first object of
            the source set: all objects of a set must have the same resolution. None if the set has no images.
        target: Pixels per side of the copied images. None: copy the images byte for byte.
    """

    url: str
    tars: str  # the set's fingerprint, to detect that the set has changed since the copy was started
    shard: int
    sample: int
    resolution: int | None
    target: int | None


@contextmanager
def submitter(workers: int) -> Iterator[Callable[[CopyTask], Future[Members]]]:
    """Yield a function that submits a `CopyTask` to a pool of `workers` processes or, if `workers` is 1, to a thread.

    Raises:
        UserError: A worker process was killed.
    """
    with worker_pool(workers, "copy") as pool:
        yield lambda task: pool.submit(copy_object, task)


def copy_object(task: CopyTask) -> Members:
    """Read the object of `task` and return the members (full name -> bytes) to store in the new set.

    Raises:
        UserError: A member cannot be read or is damaged (DamagedMember), the source set has changed, or the resolution
            of the object is not `task.resolution`.
    """
    shards = _reader(task.url, task.tars)
    uid = shards.uid(task.shard, task.sample)
    members = shards.read(task.shard, task.sample, shards.names(task.shard, task.sample))
    where, about = f"{task.url}/{shard_name(task.shard)}.tar", meta_name(uid)
    try:
        meta = parse_meta(members[about], f"{where}/{about}")
    except SchemaError as error:
        raise DamagedMember(str(error)) from error
    if meta.resolution != task.resolution:
        raise UserError(
            f"the images of the object {uid} in {where} have {meta.resolution} pixels per side, but those of the first "
            f"object of the same set have {task.resolution}, but all images of a set to copy must have the same size; "
            "copy only objects with images of one size, whose uids are listed in a text file (--uids FILE)"
        )
    if task.target in (None, meta.resolution):
        return members
    if meta.passes:
        raise UserError(f"{where}: the object {uid} has passes, {PASSES_REMEDY}")
    return downscale_sample(members, meta, task.target or 1, where)


@lru_cache(maxsize=16)
def _reader(url: str, tars: str) -> ShardSet:
    shards = ShardSet(url)
    if shards.fingerprint != tars:
        raise UserError(f"the set {url} has changed since its copy was started; delete the copy and start again")
    return shards
