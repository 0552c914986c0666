"""Train one model with several processes (ranks), each on its own device.

All ranks do the same steps with the same weights. DDP or FSDP2 (which also shards weights and optimizer state) averages
the gradients in the backward pass, and `Ranks.mean` averages the loss on the device. The methods `Ranks.wait`, `any`
and `gather` use a separate gloo group with a long timeout, because NCCL would time out while ranks wait for a
validation on rank 0.
"""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dataset.errors import UserError
from dataset.log import LOGGERS
from train.distributed.fsdp import whole_tensor
from train.layers.compile import levels

Parallel = Literal["ddp", "fsdp"]
HOST_TIMEOUT: Final = timedelta(hours=12)  # enough for rank 0 to validate, sample, or train a component
TIMEOUT: Final = timedelta(minutes=30)  # timeout of collective operations on the device
LEAVE_S: Final = 20.0  # longest wait for an aborted process group after an error
STOP_EVERY: Final = 20  # largest number of steps between checks for a stop signal
# Errors of gloo and NCCL when the process of another rank has ended
_LOST_RANK: Final = re.compile(
    r"connection (?:was )?(?:closed by peer|reset by peer|refused)|broken pipe|remote process exited|socket timeout",
    re.IGNORECASE,
)
_MARKER: Final = ".ranks"
_MARKER_S: Final = 10.0  # for a file to appear on another machine (NFS caches for 3 to 60 s, less for new names)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among the `world` ranks of a run, and communication with the other ranks.

    With one rank there is no process group, and no method communicates.
    """

    rank: int = 0
    world: int = 1
    parallel: Parallel = "ddp"
    host_group: Any = None  # gloo, for communication between hosts; made by `init_process_group`
    stop_file: Path | None = None  # all ranks stop if this file exists (Ray's workers receive no signals)

    def __post_init__(self) -> None:
        """Raise UserError when `rank` is not one of 0, ..., `world` - 1."""
        if not 0 <= self.rank < self.world:
            raise UserError(
                f"rank {self.rank} must be at least 0 and below the number of ranks, {self.world}; start with "
                "torchrun, which sets RANK and WORLD_SIZE"
            )

    @property
    def first(self) -> bool:
        """Whether this process is rank 0, which alone writes files, logs, validates and samples."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether FSDP2 shards the weights and the optimizer state over several ranks."""
        return self.world > 1 and self.parallel == "fsdp"

    def mean(self, number: Tensor) -> Tensor:
        """Replace a scalar tensor, in place, by its mean over all ranks, and return the tensor.

        The host does not wait for the device. The mean is not finite if the value on any rank is not finite.
        """
        if self.world > 1:
            dist.all_reduce(number)
            number /= self.world
        return number

    def any(self, here: bool) -> bool:
        """Return whether `here` is true on at least one rank.

        All ranks must call this method, and each waits until all have called it.
        """
        if self.world == 1:
            return here
        flag = torch.tensor([int(here)])
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.host_group)
        return bool(flag.item())

    def wait(self) -> None:
        """Wait until all ranks have called this method."""
        if self.world > 1:
            dist.barrier(group=self.host_group)

    def stopping(self, requested: bool, steps: int, every: int) -> bool:
        """Return whether the run must stop now. The result is the same on all ranks.

        Args:
            requested: Whether this rank has received a signal to stop.
            steps: Number of finished steps.
            every: With several ranks, the run can stop only after every `every`-th step, or every STOP_EVERY-th step if
                that is more often. With one rank, the run can stop after any step.
        """
        if self.world > 1 and steps % min(every, STOP_EVERY):
            return False
        return self.any(requested or (self.first and self.stop_file is not None and self.stop_file.exists()))

    def gather(self, entries: Mapping[str, str]) -> dict[str, str]:
        """Return the entries of all ranks in one dictionary.

        All ranks must call this method, and each waits until all have called it.
        """
        if self.world == 1:
            return dict(entries)
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, dict(entries), group=self.host_group)
        return {key: value for each in everyone for key, value in each.items()}

    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        """Run the block on rank 0 first, then on the other ranks, which can use the files that rank 0 wrote.

        Raises:
            UserError: Rank 0 failed with a UserError (raised on all ranks).
            RuntimeError: Rank 0 failed with another error (raised on the other ranks).
        """
        if self.world == 1:
            yield
        elif self.first:
            with ExitStack() as ended:
                ended.push(self._broadcast_outcome)
                yield
        else:
            if failure := self._broadcast_failure(None):
                is_user_error, message = failure
                raise UserError(message) if is_user_error else RuntimeError(f"rank 0 failed: {message}")
            yield

    def _broadcast_outcome(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Tell the other ranks whether the block failed on rank 0. The exception is not suppressed."""
        if error is None:
            self._broadcast_failure(None)
            return False
        with suppress(RuntimeError):  # a rank may have died
            self._broadcast_failure((isinstance(error, UserError), str(error) or type(error).__name__))
        return False

    def _broadcast_failure(self, failure: tuple[bool, str] | None) -> tuple[bool, str] | None:
        """Send `failure` from rank 0 to all ranks and return it: (whether it is a UserError, its message), or None."""
        values: list[Any] = [failure]
        dist.broadcast_object_list(values, 0, group=self.host_group)
        received: tuple[bool, str] | None = values[0]
        return received

    @contextmanager
    def rank0_stdout(self) -> Iterator[None]:
        """Inside the block, ranks other than 0 print nothing to stdout and log no message below the level WARNING."""
        if self.first:
            yield
            return
        loggers = [logging.getLogger(name) for name in LOGGERS]
        levels = [logger.level for logger in loggers]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            try:
                for logger in loggers:
                    logger.setLevel(logging.WARNING)
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)

    def check_shared(self, folder: Path) -> None:
        """Check that `folder` is one shared folder on all machines. Raises UserError on all ranks if it is not.

        All ranks must call this method.
        """
        if self.world == 1:
            return
        token = torch.randint(2**62, (1,)) if self.first else torch.zeros(1, dtype=torch.int64)
        dist.broadcast(token, 0, group=self.host_group)
        marker = folder / _MARKER
        if self.first:
            marker.write_text(f"{token.item()}\n")
        self.wait()
        seen = _appears(marker, f"{token.item()}\n")
        shared = not self.any(not seen)
        if self.first:
            marker.unlink()
        if not shared:
            here = "" if seen else f"; {socket.gethostname()} (rank {self.rank}) has a different folder at this path"
            raise UserError(
                f"{folder}: not the same folder on all machines{here}; --out must be on storage that all machines "
                "mount at the same path (for example NFS), because all ranks resume from the checkpoints in --out"
            )


def _appears(marker: Path, text: str) -> bool:
    """Wait until the file `marker` contains `text`. Return whether this happened within 10 seconds."""
    deadline = time.monotonic() + _MARKER_S
    while not (marker.is_file() and marker.read_text() == text):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


ALONE: Final = Ranks()


def from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """Return (rank, number of ranks, rank within this machine) of this process, as torchrun sets them.

    Returns (0, 1, 0) if torchrun did not start this process. Raises UserError when RANK, WORLD_SIZE or LOCAL_RANK is
    not a number.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "WORLD_SIZE" not in environment or "RANK" not in environment:
        return 0, 1, 0
    try:
        rank, world, local = (int(environment.get(name, "0")) for name in names)
    except ValueError as error:
        raise UserError(
            f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers ({error}); start with torchrun, which sets them, or "
            "unset them"
        ) from error
    return rank, world, local


@contextmanager
def init_process_group(
    rank: int,
    world: int,
    device: torch.device,
    parallel: Parallel = "ddp",
    *,
    init_method: str | None = None,
    stop_file: Path | None = None,
) -> Iterator[Ranks]:
    """Create torch's process group for the block: nccl on GPUs, gloo on CPUs. One rank needs no process group.

    If a process group exists (Ray Train creates one), it is used and not destroyed.

    Args:
        rank: Rank of this process, from 0.
        world: Number of ranks.
        device: Device of this rank.
        parallel: ddp: each rank has the whole model. fsdp: the model is sharded over the ranks.
        init_method: URL at which the ranks meet, as in torch's `init_process_group`. None: use the environment
            variables MASTER_ADDR and MASTER_PORT.
        stop_file: All ranks stop when this file exists. None: no file is checked.

    Raises:
        UserError: Another rank ended during the block, so that this rank cannot continue.
    """
    if world == 1:
        yield Ranks(parallel=parallel, stop_file=stop_file)
        return
    created = not dist.is_initialized()
    if created:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            init_method,
            TIMEOUT,
            world_size=world,
            rank=rank,
            device_id=device if backend == "nccl" else None,
        )
    try:
        yield Ranks(rank, world, parallel, dist.new_group(backend="gloo", timeout=HOST_TIMEOUT), stop_file)
    except Exception as error:
        if created:
            _abort_process_group(device)
            if isinstance(error, RuntimeError) and _LOST_RANK.search(str(error)):  # not an OSError of a file or URL
                raise UserError(
                    f"rank {rank} lost the connection to another rank, whose process has ended; see the output of that "
                    "process, and repeat the command to resume from the last checkpoint"
                ) from error
        raise
    except BaseException:
        if created:  # all ranks stopped at the same step
            dist.destroy_process_group()
        raise
    if created:
        dist.destroy_process_group()


def _abort_process_group(device: torch.device) -> None:
    """Leave torch's process group after an error, without waiting for the other ranks, which may have ended.

    `destroy_process_group` would wait for NCCL operations that the other ranks never finish.
    """
    leave = dist.distributed_c10d._abort_process_group if device.type == "cuda" else dist.destroy_process_group
    thread = threading.Thread(target=leave, daemon=True, name="abort-process-group")
    thread.start()
    thread.join(LEAVE_S)
    if thread.is_alive():
        logger.warning("the process group did not end within %g s after an error", LEAVE_S)


def wrap_ddp_or_fsdp(unet: nn.Module, ranks: Ranks) -> nn.Module:
    """Return the module to call in place of the UNet, so that the gradients are averaged over the ranks.

    With one rank, this module is the UNet itself. With FSDP2, it is the UNet, sharded in place. With DDP, it is a
    wrapper around the UNet.
    """
    if ranks.world == 1:
        return unet
    device = next(unet.parameters()).device
    if ranks.sharded:
        return _shard(unet, device)
    from torch.nn.parallel import DistributedDataParallel

    # By default torch splits a compiled graph at every bucket of gradients, to overlap communication and computation.
    # That takes minutes to compile and fails with activation checkpointing; on two GPUs of one host it was not faster.
    # Slower links were not measured (`benchmarks.train.ranks_bench --optimize-ddp on`).
    torch._dynamo.config.optimize_ddp = False
    return DistributedDataParallel(unet, [device] if device.type == "cuda" else None, gradient_as_bucket_view=True)


def _shard(unet: nn.Module, device: torch.device) -> nn.Module:
    """Shard the UNet with FSDP2, one unit per level. The weights of a level are gathered only while it is computed.

    FSDP2 does not support weights in the channels-last memory format. On a GPU, only the input gets this format, which
    the convolutions keep.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    unet.to(memory_format=torch.contiguous_format)
    if device.type == "cuda":
        unet.register_forward_pre_hook(_channels_last_input)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for level in levels(unet):
        fully_shard(level, mesh=mesh)
    fully_shard(unet, mesh=mesh)
    return unet


def _channels_last_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Convert the latents, the first argument of the UNet, to the channels-last memory format."""
    return (args[0].contiguous(memory_format=torch.channels_last), *args[1:])


@contextmanager
def accumulating(called: nn.Module, ranks: Ranks, *, last: bool) -> Iterator[None]:
    """Context for a micro-batch's forward and backward pass. Only with `last` are gradients averaged over the ranks.

    Args:
        called: The module that `wrap_ddp_or_fsdp` returned.
        ranks: The ranks of the run.
        last: Whether the micro-batch is the last one of its step.
    """
    if ranks.sharded:
        called.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield
        return
    no_sync: Any = nullcontext() if last or ranks.world == 1 else called.no_sync()  # type: ignore[operator]
    with no_sync:
        yield


def clip_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Clip the gradients of the parameters to a total norm of `limit`, and return their norm before clipping.

    The norm is a scalar tensor, equal on all ranks. The host does not wait for the device. With FSDP2 the norms of the
    shards are combined on the device.
    """
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    return whole_tensor(norm)
