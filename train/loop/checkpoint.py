"""Checkpoints of a run: folders `checkpoints/step-000000100/` of safetensors and JSON files, written atomically.

The training loop copies the state to CPU memory. A thread writes the copy to a folder with a temporary name. When all
files are on disk, the thread renames the folder. progress.json is written last and contains the SHA-256 of each other
file. These hashes are verified when the checkpoint is loaded.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dataset.errors import UserError, one_line
from dataset.reading.epoch_order import StreamState
from train.distributed.fsdp import placed_like, whole_tensor
from train.loop.disk_full import is_disk_full, warn_not_written

FOLDER: Final = "checkpoints"
_NAME: Final = re.compile(r"step-(\d{9})")
_TEMPORARY: Final = re.compile(r"\.step-\d{9}(\.old)?\.tmp")
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")  # the state of AdamW per parameter
_UNET, _OPTIMIZER, _AVERAGE, _PROGRESS = (
    "unet.safetensors",
    "optimiser.safetensors",
    "average.safetensors",
    "progress.json",
)

Snapshot = Mapping[str, Mapping[str, Tensor]]  # file name -> tensor name -> tensor on the CPU


@dataclass(frozen=True)
class Progress:
    """The progress of a run, which a checkpoint stores in addition to tensors.

    Random numbers are functions of the step, so no state of a random generator is stored.
    """

    steps: int  # finished steps
    skipped_in_a_row: int  # updates skipped because the loss or the gradient was not finite
    seen_images: int = 0  # target views that the model was trained on
    stream: StreamState | None = None  # position in the data; None: one rank, from the first step
    damaged: Mapping[str, str] = field(default_factory=dict)  # error messages of corrupt objects, by uid


@dataclass(frozen=True)
class Keep:
    """Which checkpoints to keep: the last `last` ones, and those whose number of steps is a multiple of `every`."""

    last: int
    every: int | None = None


def take_snapshot(
    unet: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor] | None = None
) -> Snapshot:
    """Copy all tensors of a checkpoint to the CPU, and return the copies.

    Training can continue while the copies are written to disk. If FSDP2 has sharded the tensors over the ranks, this
    function gathers them, and the other ranks must call `gather_for_snapshot` at the same time.

    Args:
        unet: The UNet that is being trained.
        optimizer: AdamW optimizer of the UNet.
        average: Averaged weights by parameter name, with the shapes of the UNet's parameters. None: no averaging.
    """
    files = _tensors(unet, optimizer, average)
    return {name: {key: _copy(tensor) for key, tensor in tensors.items()} for name, tensors in files.items()}


def _tensors(
    unet: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor] | None
) -> dict[str, Mapping[str, Tensor]]:
    files: dict[str, Mapping[str, Tensor]] = {_UNET: unet.state_dict(), _OPTIMIZER: _moments(unet, optimizer)}
    return files if average is None else files | {_AVERAGE: average}


def gather_for_snapshot(
    unet: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor] | None = None
) -> None:
    """Take part in the `take_snapshot` of rank 0: gather the same tensors in the same order without keeping them.

    Args:
        unet: The UNet that is being trained.
        optimizer: AdamW optimizer of the UNet.
        average: Averaged weights by parameter name, with the shapes of the UNet's parameters. None: no averaging.
    """
    for tensors in _tensors(unet, optimizer, average).values():
        for tensor in tensors.values():
            whole_tensor(tensor.detach())


def write_checkpoint(out: Path, snapshot: Snapshot, progress: Progress, keep: Keep) -> Path:
    """Write a checkpoint atomically, remove the checkpoints that are not to be kept, and return the new folder.

    If writing fails, no part of the new checkpoint remains, and the older checkpoints are unchanged.

    Args:
        out: Run folder.
        snapshot: For each file name, the tensors of the file by name; from `take_snapshot`.
        progress: Progress of the run at this checkpoint.
        keep: Which checkpoints to keep.
    """
    folder = out / FOLDER / f"step-{progress.steps:09d}"
    temporary = _temporary_name(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, tensors in snapshot.items():
            save_file(dict(tensors), temporary / name)
        digests = {name: _sha256(temporary / name) for name in snapshot}
        (temporary / _PROGRESS).write_text(json.dumps(_to_json(progress) | {"sha256": digests}) + "\n")
        for name in (*snapshot, _PROGRESS, ""):
            _sync(temporary / name)
        _remove(folder)
        os.replace(temporary, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # already renamed if writing succeeded
    for old in _checkpoints(out)[: -keep.last]:
        if keep.every is None or _steps_of(old) % keep.every:
            _remove(old)
    return folder


class CheckpointWriter:
    """Context manager that writes checkpoints in a thread, one at a time.

    Leaving the context waits until the last checkpoint is written. When the disk is full, a warning is logged,
    `failures` is increased by 1, and training continues without this checkpoint. Any other error is raised by the next
    call of `poll` or `save`, or when the context is left.
    """

    def __init__(self, out: Path, keep: Keep, *, writes: bool = True) -> None:
        """Create a writer for the run folder `out`, and remove an incomplete checkpoint that a killed run left.

        `writes` is False on ranks that write nothing and only take part in gathering sharded tensors.
        """
        self.failures = 0  # checkpoints not written because the disk was full
        self._out, self._keep, self._writes = out, keep, writes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        if writes:
            remove_half_written(out)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def save(
        self,
        unet: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        average: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Copy all tensors of a checkpoint to the CPU, and start to write the copies in the thread.

        The method first waits until the previous checkpoint is written, so that at most one copy is in memory.

        Args:
            unet: The UNet that is being trained.
            optimizer: AdamW optimizer of the UNet.
            progress: Progress of the run at this checkpoint.
            average: Averaged weights by parameter name, with the shapes of the UNet's parameters. None: no averaging.
        """
        self.wait()
        if not self._writes:
            gather_for_snapshot(unet, optimizer, average)
            return
        snapshot = take_snapshot(unet, optimizer, average)
        self._writing = self._thread.submit(self._write, snapshot, progress)

    def poll(self) -> None:
        """Raise the error of the writing thread if the thread has failed. Does not wait for the thread."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint of the last `save` is written, and raise the error if writing it failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, snapshot: Snapshot, progress: Progress) -> None:
        try:
            write_checkpoint(self._out, snapshot, progress, self._keep)
        except (OSError, SafetensorError) as error:
            what = f"{self._out / FOLDER}: checkpoint of step {progress.steps}"
            if not is_disk_full(error):
                raise UserError(
                    f"{what} could not be written ({one_line(error)}); make {self._out / FOLDER} writable and repeat "
                    "the command"
                ) from error
            self.failures += 1
            warn_not_written(what, error, f", the next checkpoint tries again ({self.failures} failed so far)")


def remove_half_written(out: Path) -> None:
    """Remove the incomplete checkpoint that a killed run left in the run folder `out`."""
    if (out / FOLDER).is_dir():
        for path in (out / FOLDER).iterdir():
            if _TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path)


def restore_checkpoint(
    out: Path, unet: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor] | None = None
) -> Progress:
    """Load the newest checkpoint of a run into the UNet, the optimizer and the averaged weights.

    Args:
        out: Run folder.
        unet: UNet whose weights are replaced by those of the checkpoint.
        optimizer: AdamW optimizer of the UNet, whose state is replaced.
        average: Averaged weights by parameter name, with the shapes of the UNet's parameters. Their values are
            replaced. None: no averaging.

    Returns:
        The progress of the run at the checkpoint. If there is no checkpoint, the progress at the start of a run.

    Raises:
        UserError: A file of the checkpoint is missing or damaged. In this case the arguments are unchanged.
    """
    checkpoints = _checkpoints(out)
    if not checkpoints:
        return Progress(0, 0)
    folder = checkpoints[-1]
    try:
        saved = json.loads((folder / _PROGRESS).read_text())
        digests = saved.pop("sha256", None)
        if digests is None:
            raise UserError(
                f"{folder}: this checkpoint was written by an earlier version of this program, without checksums; "
                "start a new run with another --out"
            )
        progress = _from_json(saved)
        _verify(folder, digests, progress)
        weights = unet.state_dict()
        unet.load_state_dict(
            {name: placed_like(tensor, weights.get(name, tensor)) for name, tensor in load_file(folder / _UNET).items()}
        )
        _restore_moments(unet, optimizer, load_file(folder / _OPTIMIZER))
        if average is not None:
            for name, tensor in load_file(folder / _AVERAGE).items():
                average[name].copy_(placed_like(tensor, average[name]))
    except UserError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        before = f"resumes from {checkpoints[-2].name}" if len(checkpoints) > 1 else "starts again from its first step"
        raise UserError(
            f"{folder}: damaged ({one_line(error)}); remove this folder and repeat the command: the run {before}"
        ) from error
    return progress


def _to_json(progress: Progress) -> dict[str, Any]:
    stream = None if progress.stream is None else progress.stream._asdict()
    return asdict(progress) | {"stream": stream}


def _from_json(saved: Mapping[str, Any]) -> Progress:
    stream = saved.get("stream")
    return Progress(**{**saved, "stream": None if stream is None else StreamState(**stream)})


def _verify(folder: Path, digests: Mapping[str, str], progress: Progress) -> None:
    if progress.steps != _steps_of(folder):
        raise ValueError(f"{_PROGRESS} is that of step {progress.steps}, but the folder is that of another step")
    for name in (_UNET, _OPTIMIZER, *digests):
        if _sha256(folder / name) != digests[name]:
            raise ValueError(f"{name} does not have the sha256 that {_PROGRESS} states")


def _checkpoints(out: Path) -> list[Path]:
    """Return the folders of the complete checkpoints of a run, oldest first."""
    if not (out / FOLDER).is_dir():
        return []
    return sorted(path for path in (out / FOLDER).iterdir() if _NAME.fullmatch(path.name))


def _steps_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _temporary_name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")


def _remove(folder: Path) -> None:
    """Remove the folder of a checkpoint atomically: no reader finds a part of the folder."""
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.old.tmp")
        os.replace(folder, doomed)
        shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU, whatever the memory format of the tensor."""
    return whole_tensor(tensor.detach()).to("cpu", copy=True, memory_format=torch.contiguous_format)


def _moments(unet: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: Mapping[Tensor, Mapping[str, Any]] = optimizer.state
    return {
        f"{moment}.{name}": torch.as_tensor(state[parameter][moment])
        for name, parameter in unet.named_parameters()
        for moment in _MOMENTS
        if parameter in state
    }


def _restore_moments(unet: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in unet.named_parameters():
        if f"step.{name}" not in moments:
            continue
        # AdamW keeps `step` on the CPU unless it is fused; moments have the memory format of their parameter
        optimizer.state[parameter] = {
            moment: moments[f"{moment}.{name}"].to(parameter.device if fused else "cpu")
            if moment == "step"
            else torch.empty_like(parameter, requires_grad=False).copy_(
                placed_like(moments[f"{moment}.{name}"], parameter)
            )
            for moment in _MOMENTS
        }
