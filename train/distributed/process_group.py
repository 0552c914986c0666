"""Several processes that train one model, each on a device of its own: who this one is, and what they do together.

All ranks step at the same time with the same weights. Gradients meet in the backward pass (DDP, or FSDP2, which also
splits weights and optimizer among the ranks); a step's loss meets in `Ranks.mean`, on the device. What the host has to
know of the others goes through a gloo group of its own (`Ranks.wait`, `any`, `gather`), whose patience outlasts a
validation: NCCL would take the wait for a failure.
"""

import os
import socket
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
from train.distributed.fsdp import whole_tensor

Parallel = Literal["ddp", "fsdp"]
PATIENCE: Final = timedelta(hours=12)  # of ranks that wait for rank 0 to validate, draw, or train a small part
TIMEOUT: Final = timedelta(minutes=30)  # of gradients: a rank that lives and does not come is a failure
STOP_EVERY: Final = 20  # steps between looks at whether any rank was asked to stop, at most
_MARKER: Final = ".ranks"
_MARKER_S: Final = 10.0  # until a file shows on another machine (NFS looks again after 3 to 60 s, sooner for new names)


@dataclass(frozen=True)
class Ranks:
    """This process among `world` ones. World 1 needs no process group, and everything here does nothing."""

    rank: int = 0
    world: int = 1
    parallel: Parallel = "ddp"
    host_group: Any = None  # gloo, for what the host must know; made by `init_process_group`
    stop_file: Path | None = None  # its appearance asks all ranks to stop, where signals do not reach them (Ray)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UserError(f"rank {self.rank} is not of a world of {self.world}")

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes, prints, validates and draws."""
        return self.rank == 0

    @property
    def splits(self) -> bool:
        """Whether weights and optimizer are split among the ranks (FSDP2)."""
        return self.world > 1 and self.parallel == "fsdp"

    def mean(self, number: Tensor) -> Tensor:
        """The mean over ranks of a number on the device, in place; the host does not wait. Not finite if any is not."""
        if self.world > 1:
            dist.all_reduce(number)
            number /= self.world
        return number

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank; the hosts meet, all ranks must call it."""
        if self.world == 1:
            return here
        flag = torch.tensor([int(here)])
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.host_group)
        return bool(flag.item())

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            dist.barrier(group=self.host_group)

    def stopping(self, asked: bool, steps: int, every: int) -> bool:
        """Whether to stop after `steps` steps, where this rank was asked to or was not: all ranks answer alike.

        Several ranks meet for it every `every` steps (STOP_EVERY at most); between, nobody stops.
        """
        if self.world > 1 and steps % min(every, STOP_EVERY):
            return False
        return self.any(asked or (self.first and self.stop_file is not None and self.stop_file.exists()))

    def gather(self, found: Mapping[str, str]) -> dict[str, str]:
        """What all ranks have found, together; the hosts meet, all ranks must call it."""
        if self.world == 1:
            return dict(found)
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, dict(found), group=self.host_group)
        return {key: value for each in everyone for key, value in each.items()}

    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        """Rank 0 does what is inside while the others wait; then they do it, and find what it wrote.

        Where it fails they raise what it raised, instead of waiting: UserError, or RuntimeError for all else.
        """
        if self.world == 1:
            yield
        elif self.first:
            with ExitStack() as ended:
                ended.push(self._tell_the_others)
                yield
        else:
            if failure := self._tell_how_it_went(None):
                expected, told = failure
                raise UserError(told) if expected else RuntimeError(f"rank 0 failed: {told}")
            yield

    def _tell_the_others(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Share how rank 0's work ended; its exception is raised on."""
        if error is None:
            self._tell_how_it_went(None)
            return False
        with suppress(RuntimeError):  # of a rank that is gone
            self._tell_how_it_went((isinstance(error, UserError), str(error) or type(error).__name__))
        return False

    def _tell_how_it_went(self, failure: tuple[bool, str] | None) -> tuple[bool, str] | None:
        """Rank 0's word, on all ranks: (whether it is a UserError, its text), None for success."""
        box: list[Any] = [failure]
        dist.broadcast_object_list(box, 0, group=self.host_group)
        told: tuple[bool, str] | None = box[0]
        return told

    @contextmanager
    def rank0_stdout(self) -> Iterator[None]:
        """Inside, only rank 0 prints; errors are everyone's."""
        if self.first:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield

    def check_shared(self, folder: Path) -> None:
        """Raises UserError, on all ranks, unless `folder` is one and the same on all their machines."""
        if self.world == 1:
            return
        token = torch.randint(2**62, (1,)) if self.first else torch.zeros(1, dtype=torch.int64)
        dist.broadcast(token, 0, group=self.host_group)
        marker = folder / _MARKER
        if self.first:
            marker.write_text(f"{token.item()}\n")
        self.wait()
        seen = _appears(marker, f"{token.item()}\n")
        alike = not self.any(not seen)
        if self.first:
            marker.unlink()
        if not alike:
            here = "" if seen else f"; {socket.gethostname()} (rank {self.rank}) has another one"
            raise UserError(
                f"{folder}: not the same folder on all machines{here}; --out must lie on storage that all of them "
                "mount at the same path (NFS, say): all ranks resume from its checkpoints"
            )


def _appears(marker: Path, text: str) -> bool:
    deadline = time.monotonic() + _MARKER_S
    while not (marker.is_file() and marker.read_text() == text):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


ALONE: Final = Ranks()


def from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """(rank, world, local rank) as torchrun sets them; (0, 1, 0) where it did not start this process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "WORLD_SIZE" not in environment or "RANK" not in environment:
        return 0, 1, 0
    try:
        rank, world, local = (int(environment.get(name, "0")) for name in names)
    except ValueError as error:
        raise UserError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers ({error}); torchrun sets them") from error
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
    """The process group of a world of several, nccl on GPUs and gloo on CPUs; taken as it is where one exists (Ray).

    Without `init_method` the ranks find each other by MASTER_ADDR and MASTER_PORT.
    """
    if world == 1:
        yield Ranks(parallel=parallel, stop_file=stop_file)
        return
    ours = not dist.is_initialized()
    if ours:
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
        yield Ranks(rank, world, parallel, dist.new_group(backend="gloo", timeout=PATIENCE), stop_file)
    finally:
        if ours:
            dist.destroy_process_group()


def wrap_ddp_or_fsdp(unet: nn.Module, ranks: Ranks) -> nn.Module:
    """What to call for a loss, so that gradients meet: the UNet itself in a world of 1 and, in place, with FSDP2."""
    if ranks.world == 1:
        return unet
    device = next(unet.parameters()).device
    if ranks.splits:
        return _shard(unet, device)
    from torch.nn.parallel import DistributedDataParallel

    # torch would split a compiled graph at every bucket of gradients, so that they meet while others are computed. That
    # takes minutes of compiling, and is an error where activations are recomputed; two GPUs of one host lost nothing
    # measurable by meeting at the end. Slower links were not tried (`benchmarks.train.ranks_bench --optimize-ddp on`).
    torch._dynamo.config.optimize_ddp = False
    return DistributedDataParallel(unet, [device] if device.type == "cuda" else None, gradient_as_bucket_view=True)


def _shard(unet: nn.Module, device: torch.device) -> nn.Module:
    """FSDP2 with a unit a level of the UNet: its weights are whole only while it is computed."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for level in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):  # type: ignore[misc]
        fully_shard(level, mesh=mesh)
    fully_shard(unet, mesh=mesh)
    return unet


@contextmanager
def accumulating(called: nn.Module, ranks: Ranks, *, last: bool) -> Iterator[None]:
    """Around loss and backward pass of a micro-batch: gradients meet only in the step's last one."""
    if ranks.splits:
        called.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield
        return
    quiet: Any = nullcontext() if last or ranks.world == 1 else called.no_sync()  # type: ignore[operator]
    with quiet:
        yield


def clip_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """`clip_grad_norm_` over the gradients of all ranks: the norm before clipping, the same on every rank.

    The host does not wait; with FSDP2, whose ranks hold parts, their norms meet on the device.
    """
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    return whole_tensor(norm)
