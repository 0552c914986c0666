"""A worker: renders tasks in a Blender process, restarts the process when needed, and reports each outcome."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.format.outcomes import Failure, Outcome
from dataset.io.scratch import ScratchFolder, remove_stale_folders
from render.download.objaverse_cache import Download
from render.settings import Settings
from render.sources.model_file import locate, object_sha256
from render.workers.blender_process import BlenderEnded, BlenderProcess, Limits
from render.workers.logs import stamped
from render.workers.messages import MAX_ATTEMPTS, Attempt, RenderBatch, RenderResult, RenderTask
from render.workers.protocol import RenderJob, Reply
from render.workers.resources import machine_size, memory_limit_mb


def _wait_for_download(reference: Any) -> Download:
    import ray

    try:
        download: Download = ray.get(reference)
    except ray.exceptions.RayError as error:  # its process or node died; only this object is affected
        message = str(error).strip().partition("\n")[0] or "Ray lost the download"
        return Download(failure=Failure("download", type(error).__name__, message), attempts=MAX_ATTEMPTS)
    return download


def _may_be_cured(reply: Reply) -> bool:
    """Return whether Blender itself failed, so that another attempt in a new process may succeed."""
    return reply.failure is not None and reply.failure.stage == "worker"


def _with_failure(outcome: Outcome, failure: Failure) -> Outcome:
    """Return the outcome of a failed object; a download above --max-file-mb counts as skipped."""
    if (failure.stage, failure.error_class) == ("download", "TooLarge"):
        return outcome.with_failure("skipped", replace(failure, flags=("too-large",)))
    return outcome.with_failure("failed", failure)


class DownloadFailed(Exception):
    """Raised when the download of an object failed."""

    def __init__(self, failure: Failure, attempts: int) -> None:
        super().__init__(failure.message)
        self.failure, self.attempts = failure, attempts


class RenderWorker:
    """Renders tasks in a Blender process. The process is replaced when it dies or exceeds its recycling limits.

    Args:
        seed: Seed of the shard set.
        settings: Render settings.
        limits: Limits of the Blender process. If `memory_mb` is None, `memory_limit_mb` computes the memory limit.
        threads: Number of CPU threads of the Blender process.
        root: Folder of a folder source; None for other sources.
    """

    def __init__(self, seed: int, settings: Settings, limits: Limits, threads: int, root: str | None = None) -> None:
        if limits.memory_mb is None:
            limits = replace(limits, memory_mb=memory_limit_mb(machine_size(), threads))
        self._seed, self._settings, self._limits, self._threads = seed, settings, limits, threads
        self._root = Path(root).resolve() if root else None
        remove_stale_folders()
        self._scratch = ScratchFolder()
        self._folder = self._scratch.path
        self._process: BlenderProcess | None = None
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._log: list[str] = []
        self._note(f"worker {self._name} begins: {threads} threads, {limits}")

    def ready(self) -> str:
        """Start Blender on the requested device and return the worker's name (host and process id).

        The pool sends objects to a worker only after this method has returned. Raises BlenderEnded when Blender does
        not start.
        """
        self._living_process()
        return self._name

    def pid(self) -> int | None:
        """Return the process ID of Blender, or None if it is not running."""
        return self._process.pid if self._process else None

    def render(self, tasks: Sequence[RenderTask]) -> RenderBatch:
        """Render some objects one after the other. If an object fails, its result contains the failure."""
        started = time.monotonic()
        results = [self.render_one(task) for task in tasks]
        log, self._log = "\n".join(self._log), []
        return RenderBatch(results, time.monotonic() - started, self._name, log)

    def render_one(self, task: RenderTask) -> RenderResult:
        """Render one object. If it fails, the result contains the failure."""
        started = time.monotonic()
        tar = self._folder / f"{task.asset.uid}.tar"
        data, attempts, digest = b"", 1, ""
        try:
            path, digest = self._model_file(task)
            root = str(self._root) if self._root and task.blob is None else ""
            job = RenderJob(task.asset, str(path), digest, self._seed, self._settings, str(tar), root)
            last = self._attempt(job)
            while _may_be_cured(last.reply) and attempts < MAX_ATTEMPTS:
                attempts, last = attempts + 1, self._attempt(job)
            if last.reply.failure is None:
                data = tar.read_bytes()
                tar.unlink()
        except DownloadFailed as error:
            attempts, last = error.attempts, Attempt(Reply(error.failure))
        except (OSError, UserError) as error:
            last = Attempt(Reply(Failure("source", type(error).__name__, f"{task.asset.uid}: {error}")))
        if task.blob is not None:
            self._downloaded(task).unlink(missing_ok=True)
        outcome = Outcome(
            uid=task.asset.uid,
            position=task.position,
            shard=task.shard,
            status="ok",
            exit_signal=last.exit_signal,
            seconds=round(time.monotonic() - started, 3),
            peak_rss_mb=round(last.peak_rss_mb, 1),
            attempts=attempts,
            stderr_tail=last.stderr_tail,
            flags=last.reply.flags,
            asset_sha256=digest,
        )
        failure = last.reply.failure
        if failure is not None:
            outcome = _with_failure(outcome, failure)
            text = f"{outcome.uid}: {failure.stage}: {failure.error_class}: {failure.message}\n{last.stderr_tail}"
            self._note(text.rstrip())
        return RenderResult(outcome, data)

    def close(self) -> None:
        """End the Blender process and remove the temporary folder."""
        if self._process:
            self._process.close()
            self._process = None
        self._scratch.close()

    def _model_file(self, task: RenderTask) -> tuple[Path, str]:
        """Return the object's local file and its sha256; both are empty for a procedural object."""
        asset = task.asset
        if asset.procedural_index is not None:
            return Path(), ""
        if task.blob is not None:
            return self._received(task)
        if self._root is None or asset.file is None:
            raise UserError("the source is not a folder, or the manifest names no model file for this object")
        path = locate(self._root, asset.file)
        return path, object_sha256(path, self._root)

    def _received(self, task: RenderTask) -> tuple[Path, str]:
        """Return the downloaded file and its sha256. Raises DownloadFailed when its download failed."""
        download = task.blob if isinstance(task.blob, Download) else _wait_for_download(task.blob)
        if download.failure is not None:
            raise DownloadFailed(download.failure, download.attempts)
        assert download.data is not None
        path = self._downloaded(task)
        download.data.tofile(path)
        return path, download.sha256

    def _downloaded(self, task: RenderTask) -> Path:
        return self._folder / f"{task.asset.uid}.glb"

    def _attempt(self, job: RenderJob) -> Attempt:
        try:
            process = self._living_process()
        except BlenderEnded as error:
            return Attempt(Reply(error.failure), error.exit_signal)
        exit_signal = None
        try:
            reply = process.render(job, self._limits)
        except BlenderEnded as error:
            reply, exit_signal = Reply(error.failure), error.exit_signal
        tail = process.stderr_tail() if reply.failure else ""
        if _may_be_cured(reply) or process.should_recycle(self._limits):
            self._note(f"Blender {process.pid} replaced after {process.jobs} objects, {process.rss_mb:.0f} MB")
            process.close()
            self._process = None
        return Attempt(reply, exit_signal, process.peak_rss_mb, tail)

    def _living_process(self) -> BlenderProcess:
        if self._process is None:
            process = BlenderProcess(self._threads, self._settings.device)
            if process.hello.error:
                process.close()
                raise BlenderEnded("Unavailable", process.hello.error, None)
            self._note(f"Blender {process.pid}: {process.hello.version}, Cycles on {process.hello.device}")
            self._process = process
        return self._process

    def _note(self, text: str) -> None:
        self._log.append(stamped(text))
