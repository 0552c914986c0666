"""Run several jobs in parallel on Ray workers: one or more workers per GPU, or several processes on a CPU.

A worker loads the model once and runs one job after the other. Between steps it reports its progress to the `Board` and
asks the board whether to stop, since only the driver process receives signals. If a worker dies, another worker resumes
the interrupted run from its last checkpoint. If the second worker dies too, the run has failed. Ray is imported only
when needed, since its import is slow.
"""

import logging
import math
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import torch

from dataset.errors import UserError
from dataset.io.actor_pool import ActorPool, PoolActor
from dataset.io.interrupts import stop_after_step
from dataset.io.progress import ProgressBar
from dataset.log import configure_logging
from distill.runs.job import Job, load_run_model
from distill.runs.sequential import RunOutcome, attempt, not_started
from distill.sds.loop import PREVIEWS
from train.device import pick_device
from train.launch import ray_for
from train.model.multiview import MultiViewModel

logger = logging.getLogger(__name__)

WORKER_PACKAGES: Final = ("dataset", "train", "distill")  # imported by workers
TICK_S: Final = 0.5  # between updates of the progress
MAX_FAILED_STARTS: Final = 3  # consecutive workers that fail to start
MAX_DEATHS: Final = 2  # workers that die while they process the same run
_FOLDER_S: Final = 10.0  # longest wait until a new folder is visible on another machine (NFS)


class Board:
    """A Ray actor that stores the progress of all runs, and whether the runs must stop.

    It is separate from the workers, because workers do not answer calls during a run.
    """

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._stop = False

    def report(self, name: str, done: int) -> bool:
        """Store the progress of a run.

        Args:
            name: Name of the run.
            done: Number of steps that the run has done.

        Returns:
            Whether the run must stop.
        """
        self._steps[name] = done
        return self._stop

    def stop(self) -> None:
        """Make each worker stop its run when the worker next reports its progress."""
        self._stop = True

    def steps(self) -> dict[str, int]:
        """Return the number of steps that each run has done, by the name of the run."""
        return self._steps


class DistillWorker:
    """A Ray actor that holds a model and runs jobs.

    `threads` is the number of CPU threads that torch may use, for workers that share a CPU; None is the default of
    torch.
    """

    def __init__(self, model: Path, device: str, threads: int | None, board: Any) -> None:
        configure_logging()
        if threads is not None:
            torch.set_num_threads(threads)
        self._folder, self._name, self._board = model, device, board
        self._reported_at, self._stopping = 0.0, False
        self._loaded: Callable[[], MultiViewModel] = cache(lambda: load_run_model(model, self._device()))

    def ready(self) -> str | None:
        """Load the model. Return None, or the error message if the model cannot be loaded."""
        try:
            self._loaded()
        except UserError as error:
            return f"{socket.gethostname()}: {error}"
        return None

    def run(self, job: Job) -> RunOutcome:
        """Run a job to its end and return its outcome. The run fails if this machine does not see the run folder."""
        if not _wait_for_folder(job.out):
            reason = (
                f"the run folder {job.out} does not exist on {socket.gethostname()}; give an --out on storage that all "
                "machines share"
            )
            return RunOutcome(job.name, "failed", reason=reason)
        return attempt(job, self._loaded, self._device(), watch=lambda done: self._watch(job.name, done))

    def _device(self) -> torch.device:
        return pick_device(self._name)

    def _watch(self, name: str, done: int) -> bool:
        import ray

        if time.monotonic() - self._reported_at >= TICK_S:
            self._stopping = ray.get(self._board.report.remote(name, done))
            self._reported_at = time.monotonic()
        return self._stopping


def _wait_for_folder(folder: Path) -> bool:
    """Wait until a folder is visible; return whether it is."""
    deadline = time.monotonic() + _FOLDER_S
    while not folder.is_dir():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def on_workers(jobs: Sequence[Job], device: str, workers: int | None, address: str | None) -> Iterator[RunOutcome]:
    """Run jobs on Ray workers, and yield the outcome of each job as soon as it ends.

    Args:
        jobs: The jobs. All have the same model.
        device: Device of the runs: auto, cpu or cuda.
        workers: Number of workers. None: one worker per GPU of the cluster, or one worker if the cluster has no GPU.
            More workers than GPUs share the GPUs of this machine; on a cluster each waits for a GPU of its own.
        address: Address of a Ray cluster. None: use only this machine.

    Raises:
        UserError: no worker can start, or a worker cannot load the model.
    """
    gpus = device.startswith("cuda") or (device == "auto" and (address is not None or torch.cuda.is_available()))
    with ray_for(workers or 1, address, WORKER_PACKAGES, gpus=int(gpus)), stop_after_step() as stopped:
        import ray

        gpu_count = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        gpus = gpus and (gpu_count > 0 or device != "auto")
        if gpus and not gpu_count:
            logger.info("the cluster has no GPU yet: waiting for one")
        count = min(len(jobs), workers or max(1, gpu_count))
        threads = None if address else max(1, torch.get_num_threads() // count)
        board = ray.remote(num_cpus=0)(Board).remote()
        sharing = 1 if address else workers_per_gpu(count, gpu_count)
        actor = ray.remote(num_cpus=1, num_gpus=1 / sharing if gpus else 0)(DistillWorker)
        start = partial(actor.remote, jobs[0].model.absolute(), "cuda" if gpus else "cpu", threads, board)
        where = "each on the CPU" if not gpus else "each on a GPU" if sharing == 1 else f"up to {sharing} on a GPU"
        logger.info("%d runs on %d workers, %s", len(jobs), count, where)
        with _Progress(jobs, board) as progress:
            yield from _Pool(start, count, progress).outcomes(jobs, stopped.is_set)


def workers_per_gpu(workers: int, gpus: int) -> int:
    """Return how many workers at most share a GPU. Without a GPU, or with one for each worker, it is 1."""
    return math.ceil(workers / gpus) if gpus else 1


class _Pool:
    """Gives each run to an idle worker. `start()` creates an actor with the methods of `DistillWorker`."""

    def __init__(self, start: Callable[[], Any], workers: int, progress: "_Progress") -> None:
        self._progress = progress
        self._pool: ActorPool[Job] = ActorPool(
            start,
            self._handle_worker_death,
            workers=workers,
            max_failed_starts=MAX_FAILED_STARTS,
            failed_start=_failed_start,
        )
        self._waiting: deque[Job] = deque()
        self._lost: deque[RunOutcome] = deque()  # of runs whose workers died too often, to be yielded
        self._deaths: Counter[str] = Counter()

    def outcomes(self, jobs: Sequence[Job], stopped: Callable[[], bool]) -> Iterator[RunOutcome]:
        """Run jobs on the workers, and yield the outcome of each job as soon as it ends.

        Args:
            jobs: The jobs.
            stopped: Function that returns whether the command was stopped. Once it returns True, no further job is
                started.
        """
        for job in jobs:
            if reason := _create_folder(job.out):
                yield RunOutcome(job.name, "failed", reason=reason)
            else:
                self._waiting.append(replace(job, out=job.out.absolute(), model=job.model.absolute()))
        while self._waiting or self._pool.busy:
            if stopped():
                self._progress.stop()
                yield from (not_started(job) for job in self._waiting)
                self._waiting.clear()
            for actor in self._pool.actors:
                if actor.idle and self._waiting:
                    self._hand_out(actor, self._waiting.popleft())
            for reference in self._pool.wait(TICK_S):
                yield from self._collect(reference)
            self._progress.show([job for actor in self._pool.actors for job in actor.running.values()])

    def _hand_out(self, actor: PoolActor[Job], job: Job) -> None:
        self._progress.begin(job)
        self._pool.submit(actor, actor.handle.run.remote(job), job)

    def _collect(self, reference: Any) -> Iterator[RunOutcome]:
        """Yield the outcomes of a run that ended and of runs whose workers died too often."""
        result = self._pool.collect(reference)
        while self._lost:
            yield self._lost.popleft()
        if result is None:
            return
        if result.item is None:
            if result.value is not None:
                raise UserError(result.value)
            return
        self._progress.end(result.value)
        if result.value.trace:  # the error may have left its GPU in any state
            self._pool.kill(result.actor)
        yield result.value

    def _handle_worker_death(self, actor: PoolActor[Job], error: Exception) -> None:
        """Requeue the run of a dead worker, unless too many workers died in that run."""
        for job in actor.running.values():
            self._deaths[job.name] += 1
            if self._deaths[job.name] < MAX_DEATHS:
                logger.warning(
                    "%s: its worker died (%s); another worker resumes the run from its checkpoint",
                    job.name,
                    _lines(error)[0],
                )
                self._waiting.appendleft(job)
            else:
                reason = f"the worker of this run died {MAX_DEATHS} times; the last error is: {_lines(error)[0]}"
                self._lost.append(RunOutcome(job.name, "failed", reason=reason))


def _failed_start(error: Exception) -> UserError:
    return UserError(
        f"{MAX_FAILED_STARTS} workers in a row did not start; fix the cause of the last error, then repeat the "
        f"command: {_lines(error)[-1]}"
    )


def _lines(error: Exception) -> list[str]:
    """Return the lines of a Ray error. The first line describes it; the last line is the exception of the worker."""
    return [line.strip()[:300] for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def _create_folder(out: Path) -> str:
    """Create a run folder, so that workers can check that they share its storage. Return an error message, or ''."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"the run folder {out} cannot be created ({error.strerror}); choose another --out"
    return ""


class _Progress:
    """A progress bar over the steps of all runs, a message about the first preview of each, and the stop request."""

    def __init__(self, jobs: Sequence[Job], board: Any) -> None:
        self._total = {job.name: job.request.settings.steps for job in jobs}
        self._ended: set[str] = set()
        self._previews: dict[str, set[Path]] = {}  # previews that existed when a run started, until it has a new one
        self._board, self._stopping, self._postfix = board, False, ""
        self._bar = ProgressBar(total=sum(self._total.values()), desc="distill", unit="step")

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *about: object) -> None:
        self._bar.close()

    def begin(self, job: Job) -> None:
        """Record that a worker starts the run `job`."""
        self._previews[job.name] = set(_preview_files(job))

    def end(self, outcome: RunOutcome) -> None:
        """Record that a run has ended, with its outcome."""
        if outcome.status in ("done", "skipped"):
            self._ended.add(outcome.name)

    def stop(self) -> None:
        """Ask all workers to stop. Further calls have no effect."""
        if not self._stopping:
            logger.info(
                "stopping: every run finishes its step and writes a checkpoint; interrupt again to stop at once"
            )
            self._board.stop.remote()
            self._stopping = True

    def show(self, running: Sequence[Job]) -> None:
        """Update the progress bar, and log the path of the first preview of each run.

        Args:
            running: The jobs that workers process now.
        """
        import ray

        steps: dict[str, int] = ray.get(self._board.steps.remote())
        steps |= {name: self._total[name] for name in self._ended}
        postfix = ", ".join(f"{job.name} {steps.get(job.name, 0)}/{job.request.settings.steps}" for job in running)
        if postfix != self._postfix:
            self._bar.n, self._postfix = sum(steps.values()), postfix
            self._bar.set_postfix_str(postfix)
        for job in running:
            new = sorted(set(_preview_files(job)) - self._previews[job.name]) if job.name in self._previews else []
            if new:
                logger.info("%s: the first preview of %s", new[0], job.name)
                del self._previews[job.name]


def _preview_files(job: Job) -> list[Path]:
    return sorted((job.out / PREVIEWS).glob("*.png"))
