"""Encode the shards of a set on Ray workers of this machine: one per GPU, or several processes on the CPU.

Each worker loads the VAE and the image encoder once and encodes one shard after the other. If a worker dies, another
worker encodes the shard again. Ray is imported only when needed, since its import is slow.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from dataset.errors import UserError, one_line
from dataset.format.latents import LatentFormat
from dataset.io.actor_pool import ActorPool, PoolActor
from dataset.log import configure_logging
from dataset.reading.shard_set import ShardSet
from train.device import pick_device
from train.encode.encode_set import ShardEncoder
from train.encode.encoder import CompileEncoder, load_encoder, speed_up
from train.launch import ray_for

logger = logging.getLogger(__name__)

TICK_S: Final = 0.5
MAX_FAILED_STARTS: Final = 3  # consecutive workers that fail to start
MAX_DEATHS: Final = 2  # workers that die while they encode the same shard


@dataclass(frozen=True)
class EncodeJob:
    """What every worker needs in order to encode shards."""

    shards: str
    out: str
    model: Path
    form: LatentFormat
    batch_size: int
    num_workers: int  # threads that read and decode images, per worker
    views: int  # images of the whole set
    compile: CompileEncoder


class EncodeWorker:
    """A Ray actor that encodes shards. `threads` limits the CPU threads of torch; None does not."""

    def __init__(self, job: EncodeJob, device: str, threads: int | None) -> None:
        configure_logging()
        if threads is not None:
            torch.set_num_threads(threads)
        self._job, self._device = job, device

    def ready(self) -> str | None:
        """Load the model. Return None, or the error message if the model cannot be loaded."""
        job = self._job
        try:
            encoder = load_encoder(job.model, pick_device(self._device))
            encoder = speed_up(encoder, job.batch_size, job.views, job.compile, job.form.embedded)
        except UserError as error:
            return str(error)
        self._encoder = ShardEncoder(
            ShardSet(job.shards), job.out, encoder, job.form, batch_size=job.batch_size, num_workers=job.num_workers
        )
        return None

    def encode(self, number: int) -> str | None:
        """Encode a shard. Return None, or the error message if this is not possible."""
        try:
            self._encoder.encode([number])
        except UserError as error:
            return str(error)
        return None


def encode_on_workers(job: EncodeJob, numbers: Sequence[int], workers: int, *, gpus: bool) -> Iterator[int]:
    """Encode shards on Ray workers, and yield the number of each shard when it is finished.

    Args:
        job: Set, model and settings.
        numbers: Numbers of the shards to encode.
        workers: Number of workers.
        gpus: Whether each worker has a GPU of its own.

    Raises:
        UserError: A shard cannot be encoded, no worker can start, or the workers of a shard died MAX_DEATHS times.
    """
    count = min(workers, len(numbers))
    with ray_for(count, None, (), gpus=count if gpus else 0):
        import ray

        actor = ray.remote(num_cpus=1, num_gpus=int(gpus))(EncodeWorker)
        threads = None if gpus else max(1, torch.get_num_threads() // count)
        start = partial(actor.remote, job, "cuda" if gpus else "cpu", threads)
        logger.info("%d shards on %d workers, each on %s", len(numbers), count, "a GPU" if gpus else "the CPU")
        yield from _Pool(start, count).encode(numbers)


class _Pool:
    """Gives each shard to an idle worker. `start()` creates an actor with the methods of `EncodeWorker`."""

    def __init__(self, start: Any, workers: int) -> None:
        self._waiting: deque[int] = deque()
        self._deaths: Counter[int] = Counter()
        self._pool: ActorPool[int] = ActorPool(
            start,
            self._handle_death,
            workers=workers,
            max_failed_starts=MAX_FAILED_STARTS,
            failed_start=_failed_start,
        )

    def encode(self, numbers: Sequence[int]) -> Iterator[int]:
        """Encode shards, and yield the number of each finished shard."""
        self._waiting.extend(numbers)
        while self._waiting or self._pool.busy:
            for actor in self._pool.actors:
                if actor.idle and self._waiting:
                    number = self._waiting.popleft()
                    self._pool.submit(actor, actor.handle.encode.remote(number), number)
            for reference in self._pool.wait(TICK_S):
                result = self._pool.collect(reference)
                if result is None:
                    continue
                if result.value is not None:
                    raise UserError(result.value)
                if result.item is not None:
                    yield result.item

    def _handle_death(self, actor: PoolActor[int], error: Exception) -> None:
        """Requeue the shard of a dead worker, unless too many workers died while they encoded the shard."""
        for number in actor.running.values():
            self._deaths[number] += 1
            if self._deaths[number] >= MAX_DEATHS:
                raise UserError(
                    f"the workers that encoded shard {number} died {MAX_DEATHS} times (last error: {one_line(error)}); "
                    "repeat the command to resume, with --workers 1 if it happens again"
                )
            logger.warning("shard %d: its worker died (%s); another worker encodes it", number, one_line(error))
            self._waiting.appendleft(number)


def _failed_start(error: Exception) -> UserError:
    return UserError(
        f"{MAX_FAILED_STARTS} workers in a row did not start ({one_line(error)}); fix the cause, or give --workers 1"
    )
