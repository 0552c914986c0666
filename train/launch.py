"""Start training in this process, in the processes of torchrun, or in workers of Ray Train.

Each process runs `train.loop.loop.train`. When a Ray worker dies, Ray restarts all workers, which resume from the last
checkpoint in the output folder (--out). If training runs on several machines, this folder must be on storage that the
machines share. Training checks this at the start.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch

from dataset.errors import UserError
from dataset.io.lock import locked_folder
from dataset.io.options import HiddenDefault
from dataset.io.ray_env import code_for_nodes, start_ray
from dataset.log import configure_logging
from train.config.schedules import most_ranks
from train.distributed.process_group import Parallel, from_environment, init_process_group
from train.loop.loop import train
from train.loop.run_config import TrainingRun, check_run
from train.model.multiview import SPEC_FILE

logger = logging.getLogger(__name__)

STOP_FILE: Final = ".stop"  # in OUT: written by the driver to stop the workers
ERROR_FILE: Final = ".error"  # in OUT: the message of a worker's UserError, after which a restart would be useless
RAY_FOLDER: Final = "ray"  # in OUT: Ray Train's own files
WORKER_PACKAGES: Final = ("dataset", "train")  # packages that a worker imports


@dataclass(frozen=True)
class Launch:
    """Options for the number of processes that train one model together, and for how they are started."""

    workers: int = 1
    """Number of processes, each on its own GPU. Several processes are started with Ray Train and share --batch-size. Do
    not give this option under torchrun."""
    parallel: Parallel = "ddp"
    """How several processes share the model. ddp: each has the whole model. fsdp: weights and optimizer state are
    sharded, which needs less memory and more communication. The checkpoint files are the same."""
    address: HiddenDefault[str | None] = None
    """Address of a Ray cluster, or auto for the cluster of this machine. All of its machines must mount --out at the
    same path; --device cuda requests their GPUs. Default: this machine only."""
    max_failures: int = 3
    """Restart from the last checkpoint after a worker failure, at most this many times."""


def start(run: TrainingRun, launch: Launch) -> None:
    """Train to the last step of the run, with the processes that `launch` describes.

    Args:
        run: Settings of the run.
        launch: Number of processes, and how they are started.

    Raises:
        UserError: The options contradict each other, another process writes the run folder, or training cannot start or
            continue.
        KeyboardInterrupt: A signal stopped the training. A checkpoint was written.
    """
    rank, world, local = from_environment()
    if launch.workers < 1 or launch.max_failures < 0:
        raise UserError(
            f"--workers is {launch.workers} and --max-failures is {launch.max_failures}; they must be at least 1 and "
            "0, respectively"
        )
    if (several := max(world, launch.workers)) > 1 and run.device.index is not None:
        raise UserError(
            f"--device {run.device} is one GPU for {several} processes; use --device cuda, which gives each process a "
            "GPU of its own"
        )
    # Under torchrun rank 0 locks; with Ray this process does, for its workers.
    with locked_folder(run.out, "training") if rank == 0 else nullcontext():
        _start(run, launch, rank, world, local)


def _start(run: TrainingRun, launch: Launch, rank: int, world: int, local: int) -> None:
    if world > 1:
        if launch.workers not in (1, world):
            raise UserError(f"--workers {launch.workers}, but torchrun started {world} processes; leave --workers out")
        if launch.address is not None:
            raise UserError(
                f"--address {launch.address} is for Ray, but torchrun started this process; leave out --address, "
                "or start without torchrun"
            )
        _train_as(run, rank, world, local, launch.parallel)
    elif launch.workers == 1 and launch.address is None:
        count = torch.cuda.device_count() if run.device.type == "cuda" and run.device.index is None else 1
        usable = most_ranks([run.schedule], count)
        if usable > 1:
            logger.info(
                "training on one of this machine's %d GPUs; --workers %d uses %d of them", count, usable, usable
            )
        train(run)
    else:
        _train_with_ray(run, launch)


def _train_as(run: TrainingRun, rank: int, world: int, local: int, parallel: Parallel) -> None:
    device = run.device
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    with init_process_group(rank, world, device, parallel) as ranks:
        train(replace(run, device=device), ranks)


def _train_with_ray(run: TrainingRun, launch: Launch) -> None:
    check_run(run, launch.workers)
    run = _with_whole_paths(run)
    stop, error = run.out / STOP_FILE, run.out / ERROR_FILE
    for left_over in (stop, error):
        left_over.unlink(missing_ok=True)
    gpus = launch.workers if run.device.type == "cuda" else 0
    with ray_for(launch.workers, launch.address, WORKER_PACKAGES, gpus=gpus):
        failure = _in_thread(lambda: _fit(run, launch), stop)
    asked_to_stop = stop.exists()
    stop.unlink(missing_ok=True)
    if error.exists():
        message = error.read_text()
        error.unlink()
        raise UserError(message)
    if failure is not None:
        raise UserError(
            f"{run.out}: the workers of the run failed more than {launch.max_failures} times (--max-failures); last "
            f"error: {_last_line(failure)}; repeat the command to resume from the last checkpoint"
        ) from failure
    if asked_to_stop and not (run.out / SPEC_FILE).is_file():
        raise KeyboardInterrupt


def _with_whole_paths(run: TrainingRun) -> TrainingRun:
    """Return the run with absolute paths, because Ray's workers have another working folder."""
    shards = run.shards if "://" in run.shards else str(Path(run.shards).resolve())
    base, uids = (None if path is None else path.resolve() for path in (run.base, run.filters.uids))
    return replace(run, shards=shards, out=run.out.resolve(), base=base, filters=replace(run.filters, uids=uids))


@contextmanager
def ray_for(workers: int, address: str | None, packages: Sequence[str], *, gpus: int) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray on this machine. The connection ends with the `with` block.

    Args:
        workers: Number of worker processes that will be started.
        address: Address of the Ray cluster. None: start Ray on this machine.
        packages: Names of the top-level packages of this checkout to send to the cluster. Ignored if Ray is started on
            this machine.
        gpus: Number of GPUs that the workers need together. 0: they run on CPUs.

    Raises:
        UserError: This machine has fewer GPUs than workers, or there is no cluster at `address`.
    """
    import ray

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}  # only rank 0 prints
    quiet: dict[str, Any] = {"logging_level": logging.ERROR}
    if address is None:
        count = torch.cuda.device_count() if gpus else 0
        if count < gpus:
            raise UserError(
                f"--workers is {workers}, but this machine has {count} GPUs; give --address of a Ray cluster, or fewer "
                "--workers"
            )
        start_ray(address="local", num_cpus=workers, num_gpus=count, include_dashboard=False, **quiet)
    else:
        try:
            start_ray(address=address, runtime_env=code_for_nodes(packages), **quiet)
        except ConnectionError as error:
            raise UserError(
                f"--address: no Ray cluster at {address}; start one with `ray up cluster/train.yaml`"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _fit(run: TrainingRun, launch: Launch) -> Exception | None:
    """Run Ray Train, including restarts after failures. Return the last failure if Ray gave up, otherwise None."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = run.device.type == "cuda"
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"run": run, "parallel": launch.parallel},
        scaling_config=ray.train.ScalingConfig(num_workers=launch.workers, use_gpu=gpus),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=ray.train.RunConfig(
            name=RAY_FOLDER,
            storage_path=str(run.out),
            failure_config=ray.train.FailureConfig(max_failures=launch.max_failures),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as failure:
        return failure
    return None


def _worker(config: dict[str, Any]) -> None:
    """Train in one worker of Ray Train, which has already initialized the process group."""
    configure_logging(propagate=False)  # Ray Train has a handler of the root logger that writes to stderr
    import ray.train.torch

    run: TrainingRun = config["run"]
    error, context = run.out / ERROR_FILE, ray.train.get_context()
    if error.exists():
        return
    device = ray.train.torch.get_device() if run.device.type == "cuda" else run.device
    rank, world = context.get_world_rank(), context.get_world_size()
    try:
        with init_process_group(rank, world, device, config["parallel"], stop_file=run.out / STOP_FILE) as ranks:
            train(replace(run, device=device), ranks)
    except UserError as failure:
        run.out.mkdir(parents=True, exist_ok=True)
        error.write_text(str(failure))
        raise
    except KeyboardInterrupt:
        return  # all ranks stopped at the same step, with a checkpoint


def _in_thread(work: Callable[[], Exception | None], stop: Path) -> Exception | None:
    """Run `work` in a thread and return its result. On Ctrl-C or SIGTERM, the main thread writes the file `stop`.

    The workers then write a checkpoint and stop; a second signal stops at once. If `work` ran in the main thread,
    Ctrl-C would kill the workers.
    """
    results: list[Exception | None] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)

    def request_stop(number: int, frame: FrameType | None) -> None:
        if stop.exists():
            raise KeyboardInterrupt
        stop.touch()
        logger.info("stopping after the next checkpoint; send the signal again to stop at once")

    thread = threading.Thread(target=run, daemon=True, name="ray-train")
    listening = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, request_stop) for n in (signal.SIGINT, signal.SIGTERM)} if listening else {}
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
    if failed:
        raise failed[0]
    return results[0]


def _last_line(failure: Exception) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(failure).__name__
