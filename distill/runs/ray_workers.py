"""Runs spread over Ray's workers, one a GPU, or several processes of a CPU.

A worker loads the model once and takes one run after the other. Between steps it tells the board how far it is and
hears whether to stop: a signal reaches the driver alone. A worker that dies is replaced and its run resumes from its
last checkpoint, once. Ray is imported when it is needed: it takes a second.
"""

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import torch
from tqdm import tqdm

from dataset.errors import UserError
from dataset.io.actor_pool import ActorPool, PoolActor
from dataset.io.interrupts import stop_after_step
from distill.runs.job import Job, load_run_model
from distill.runs.sequential import RunOutcome, attempt, not_started
from distill.sds.loop import PREVIEWS
from train.device import pick_device
from train.launch import ray_for
from train.model.multiview import MultiViewModel

WORKER_PACKAGES: Final = ("dataset", "train", "distill")  # what a worker imports
TICK_S: Final = 0.5  # between two looks at how far the runs are
MAX_FAILED_STARTS: Final = 3  # of workers, in a row
MAX_DEATHS: Final = 2  # of workers with the same run in hand
_FOLDER_S: Final = 10.0  # until a folder shows on another machine (NFS)


class Board:
    """What workers and driver tell each other; an actor of its own, since a worker is busy with its run."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._stop = False

    def tell(self, name: str, done: int) -> bool:
        """A worker's word; the answer is whether to stop."""
        self._steps[name] = done
        return self._stop

    def stop(self) -> None:
        """From now on the answer is yes."""
        self._stop = True

    def steps(self) -> dict[str, int]:
        """Steps done, by run."""
        return self._steps


class DistillWorker:
    """A process with a model. `threads` are torch's, where several share a machine's CPU."""

    def __init__(self, model: Path, device: str, threads: int | None, board: Any) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._folder, self._name, self._board = model, device, board
        self._told, self._stopping = 0.0, False
        self._loaded: Callable[[], MultiViewModel] = cache(lambda: load_run_model(model, self._device()))

    def ready(self) -> str | None:
        """Load the model; why that is not possible, as a message, or None."""
        try:
            self._loaded()
        except UserError as error:
            return f"{socket.gethostname()}: {error}"
        return None

    def run(self, job: Job) -> RunOutcome:
        """One run to its end."""
        if not _appears(job.out):
            reason = (
                f"{job.out}: not there on {socket.gethostname()}; --out must lie on storage that all machines mount"
            )
            return RunOutcome(job.name, "failed", reason=reason)
        return attempt(job, self._loaded, self._device(), watch=lambda done: self._watch(job.name, done))

    def _device(self) -> torch.device:
        return pick_device(self._name)

    def _watch(self, name: str, done: int) -> bool:
        import ray

        if time.monotonic() - self._told >= TICK_S:
            self._stopping = ray.get(self._board.tell.remote(name, done))
            self._told = time.monotonic()
        return self._stopping


def _appears(folder: Path) -> bool:
    deadline = time.monotonic() + _FOLDER_S
    while not folder.is_dir():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def on_workers(jobs: Sequence[Job], device: str, workers: int | None, address: str | None) -> Iterator[RunOutcome]:
    """The outcomes as runs end, on `workers` processes of this machine, or of the cluster at `address`.

    There `workers` None is one a GPU that has joined. Raises UserError where no worker can begin.
    """
    gpus = device.startswith("cuda") or (device == "auto" and (address is not None or torch.cuda.is_available()))
    with ray_for(workers or 1, address, WORKER_PACKAGES, gpus=gpus), stop_after_step() as stopped:
        import ray

        found = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        gpus = gpus and (found > 0 or device != "auto")
        if gpus and not found:
            print("no GPU has joined the cluster yet: waiting for one")
        count = min(len(jobs), workers or max(1, found))
        threads = None if address else max(1, torch.get_num_threads() // count)
        board = ray.remote(num_cpus=0)(Board).remote()
        actor = ray.remote(num_cpus=1, num_gpus=int(gpus))(DistillWorker)
        start = partial(actor.remote, jobs[0].model.absolute(), "cuda" if gpus else "cpu", threads, board)
        print(f"{len(jobs)} runs on {count} workers, each on {'a GPU' if gpus else 'the CPU'}")
        with _Progress(jobs, board) as progress:
            yield from _Pool(start, count, progress).outcomes(jobs, stopped.is_set)


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
        """Yield the outcome of each job as it ends; after `stopped`, also of those that were not started."""
        for job in jobs:
            if reason := _folder_made(job.out):
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
        """The outcome of a run that has ended or whose worker died too often. Raises UserError: no model there."""
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
        """Requeue a dead worker's run, unless it has lost too many workers."""
        for job in actor.running.values():
            self._deaths[job.name] += 1
            if self._deaths[job.name] < MAX_DEATHS:
                tqdm.write(f"{job.name}: its worker died ({_lines(error)[0]}); another one resumes from its checkpoint")
                self._waiting.appendleft(job)
            else:
                reason = f"its worker died {MAX_DEATHS} times: {_lines(error)[0]}"
                self._lost.append(RunOutcome(job.name, "failed", reason=reason))


def _failed_start(error: Exception) -> UserError:
    return UserError(f"{MAX_FAILED_STARTS} workers in a row did not start; the last one: {_lines(error)[-1]}")


def _lines(error: Exception) -> list[str]:
    """Ray's errors: what happened comes first, what a worker raised last."""
    return [line.strip()[:300] for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def _folder_made(out: Path) -> str:
    """Make a run's folder, by which a worker sees that it shares it; why not, else nothing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{out}: cannot be made ({error.strerror}); choose another --out"
    return ""


class _Progress:
    """One bar over the steps of all runs, the first preview of each, and the way to stop them."""

    def __init__(self, jobs: Sequence[Job], board: Any) -> None:
        self._total = {job.name: job.request.settings.steps for job in jobs}
        self._ended: set[str] = set()
        self._previews: dict[str, set[Path]] = {}  # those there were when a run began, until it has a new one
        self._board, self._stopping, self._shown = board, False, ""
        self._bar: Any = tqdm(total=sum(self._total.values()), desc="distill", unit="step")

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *about: object) -> None:
        self._bar.close()

    def begin(self, job: Job) -> None:
        """A worker takes this run."""
        self._previews[job.name] = set(_pictures(job))

    def end(self, outcome: RunOutcome) -> None:
        """It has ended."""
        if outcome.status in ("done", "skipped"):
            self._ended.add(outcome.name)

    def stop(self) -> None:
        """Ask all workers to stop; said once."""
        if not self._stopping:
            tqdm.write("stopping: every run ends its step and writes a checkpoint; again to stop at once")
            self._board.stop.remote()
            self._stopping = True

    def show(self, running: Sequence[Job]) -> None:
        """How far all are."""
        import ray

        steps: dict[str, int] = ray.get(self._board.steps.remote())
        steps |= {name: self._total[name] for name in self._ended}
        where = ", ".join(f"{job.name} {steps.get(job.name, 0)}/{job.request.settings.steps}" for job in running)
        if where != self._shown:
            self._bar.n, self._shown = sum(steps.values()), where
            self._bar.set_postfix_str(where)
        for job in running:
            new = sorted(set(_pictures(job)) - self._previews[job.name]) if job.name in self._previews else []
            if new:
                tqdm.write(f"{new[0]}: the first preview of {job.name}")
                del self._previews[job.name]


def _pictures(job: Job) -> list[Path]:
    return sorted((job.out / PREVIEWS).glob("*.png"))
