"""Keep one Blender process alive, or bury it: deadlines, crashes, memory, retries. Imports no Blender itself."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.outcome import Outcome
from render.job import Hello, Job, Reply, parse_hello, parse_reply, to_line
from render.settings import Device, Settings
from render.sources import Asset

ROOT: Final = Path(__file__).resolve().parents[1]
START_S: Final[dict[Device, float]] = {
    "cpu": 120.0,
    "gpu": 900.0,
    "auto": 900.0,
}  # a GPU's kernels are built at first use
MAX_ATTEMPTS: Final = 2  # at what may be chance: a crash, a hang, too much memory
STDERR_TAIL: Final = 2000  # bytes
_POLL_S: Final = 0.2
_CLOSE_S: Final = 10.0
_RESET_PEAK: Final = "5"  # proc(5), clear_refs: forget the peak of resident memory


class BlenderEnded(Exception):
    """Blender did not answer. `kind` is Crash, Timeout or MemoryLimit; `exit_signal` is what ended the process."""

    def __init__(self, kind: str, message: str, exit_signal: int | None) -> None:
        super().__init__(message)
        self.kind, self.exit_signal = kind, exit_signal


@dataclass(frozen=True)
class Limits:
    """What one object may cost, and after how many objects a healthy process is replaced."""

    timeout_s: float = 600.0
    memory_mb: float | None = None
    recycle_after: int = 200


@dataclass(frozen=True)
class Task:
    """One object of a set: the asset and its place in the manifest."""

    asset: Asset
    position: int
    shard: str


@dataclass(frozen=True)
class Result:
    """How an object ended, and its sample as the bytes of a tar when it is ok."""

    outcome: Outcome
    tar: bytes = b""


@dataclass(frozen=True)
class Attempt:
    """One try at an object; `reply.stage` is "worker" when Blender itself gave up, which another try may mend."""

    reply: Reply
    exit_signal: int | None = None
    peak_rss_mb: float = 0.0
    stderr_tail: str = ""


class BlenderProcess:
    """One child, its pipes and its stderr. Constructing it starts Blender and waits for its greeting."""

    def __init__(self, threads: int, device: Device) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        command = [sys.executable, "-m", "render.blender", str(os.getpid()), str(threads), device]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the driver; and the whole group can be killed
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._replies = self._process.stdin, self._process.stdout
        self._pending = b""
        self.pid, self.jobs, self.peak_rss_mb = self._process.pid, 0, 0.0
        try:
            self.hello: Hello = parse_hello(self._read_line(START_S[device], None))
        except BlenderEnded as error:
            message = f"Blender did not start: {error}: {self.stderr_tail()}"
            self.close()
            raise BlenderEnded(error.kind, message, error.exit_signal) from error

    def render(self, job: Job, limits: Limits) -> Reply:
        """Raises BlenderEnded when no reply came; this object is then only good for `stderr_tail` and `close`."""
        self.jobs += 1
        self._forget_last_job()
        with suppress(BrokenPipeError):  # then reading finds the end of the replies
            self._stdin.write(to_line(job))
        return parse_reply(self._read_line(limits.timeout_s, limits.memory_mb))

    def stderr_tail(self) -> str:
        """The last of what the process printed since the job began."""
        descriptor = self._stderr.fileno()
        start = max(0, os.fstat(descriptor).st_size - STDERR_TAIL)
        return os.pread(descriptor, STDERR_TAIL, start).decode(errors="replace").strip()

    def close(self) -> None:
        """End the process: by the end of its input, by force if that does not do."""
        self._stdin.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._replies.close()
        self._stderr.close()

    def _forget_last_job(self) -> None:
        os.ftruncate(self._stderr.fileno(), 0)
        os.lseek(self._stderr.fileno(), 0, os.SEEK_SET)  # the child shares this position
        self.peak_rss_mb = 0.0
        with suppress(OSError):  # no /proc on this system, or the process is gone, which reading will find
            Path(f"/proc/{self.pid}/clear_refs").write_text(_RESET_PEAK)

    def _read_line(self, timeout_s: float, memory_mb: float | None) -> bytes:
        """The next line of the child. Raises BlenderEnded, with the child dead, when none comes."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._killed("Timeout", f"no answer within {timeout_s:g} s")
            readable, _, _ = select.select([self._replies], [], [], min(remaining, _POLL_S))
            rss_mb = self._measure()
            if memory_mb is not None and rss_mb > memory_mb:
                raise self._killed("MemoryLimit", f"{rss_mb:.0f} MB of memory, the limit is {memory_mb:.0f} MB")
            if readable:
                chunk = os.read(self._replies.fileno(), 65536)
                if not chunk:
                    raise self._crashed()
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _measure(self) -> float:
        """Resident memory now, in MB, noting the peak; 0 where there is no /proc."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            kilobytes = {
                n: float(v.split()[0]) for n, _, v in (r.partition(":") for r in status.splitlines()) if n[:2] == "Vm"
            }
            self.peak_rss_mb = max(self.peak_rss_mb, kilobytes.get("VmHWM", 0.0) / 1024)
            return kilobytes.get("VmRSS", 0.0) / 1024
        return 0.0

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _killed(self, kind: str, message: str) -> BlenderEnded:
        self._kill()
        return BlenderEnded(kind, message, int(signal.SIGKILL))

    def _crashed(self) -> BlenderEnded:
        try:
            code = self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            return self._killed("Crash", "Blender closed its replies and went on running")
        if code < 0:
            return BlenderEnded("Crash", f"Blender was ended by {signal.Signals(-code).name}", -code)
        return BlenderEnded("Crash", f"Blender ended with exit status {code}", None)


class Worker:
    """Renders tasks one after the other in a Blender process that is replaced when it dies or has done enough."""

    def __init__(self, seed: int, settings: Settings, limits: Limits, threads: int) -> None:
        self._seed, self._settings, self._limits, self._threads = seed, settings, limits, threads
        self._folder = Path(tempfile.gettempdir()) / f"isotropic3d-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._process: BlenderProcess | None = None

    def pid(self) -> int | None:
        """Of the Blender process, if one is alive now."""
        return self._process.pid if self._process else None

    def render(self, task: Task) -> Result:
        """Render one object; whatever becomes of it is in the result."""
        started = time.monotonic()
        tar = self._folder / f"{task.asset.uid}.tar"
        job = Job(task.asset, self._seed, self._settings, str(tar))
        attempts, last = 1, self._attempt(job)
        while last.reply.stage == "worker" and attempts < MAX_ATTEMPTS:
            attempts, last = attempts + 1, self._attempt(job)
        reply = last.reply
        data = b""
        if reply.status == "ok":
            data = tar.read_bytes()
            tar.unlink()
        outcome = Outcome(
            uid=task.asset.uid,
            position=task.position,
            shard=task.shard,
            status=reply.status,
            stage=reply.stage,
            error_class=reply.error_class,
            message=reply.message,
            exit_signal=last.exit_signal,
            seconds=round(time.monotonic() - started, 3),
            peak_rss_mb=round(last.peak_rss_mb, 1),
            attempts=attempts,
            stderr_tail=last.stderr_tail,
            flags=reply.flags,
        )
        return Result(outcome, data)

    def close(self) -> None:
        """End the Blender process, if there is one, and remove what it left behind."""
        if self._process:
            self._process.close()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self, job: Job) -> Attempt:
        try:
            process = self._living_process()
        except BlenderEnded as error:
            return Attempt(Reply("failed", "worker", error.kind, str(error)), error.exit_signal)
        exit_signal = None
        try:
            reply = process.render(job, self._limits)
        except BlenderEnded as error:
            reply, exit_signal = Reply("failed", "worker", error.kind, str(error)), error.exit_signal
        tail = process.stderr_tail() if reply.status == "failed" else ""
        if reply.stage == "worker" or process.jobs >= self._limits.recycle_after:
            process.close()
            self._process = None
        return Attempt(reply, exit_signal, process.peak_rss_mb, tail)

    def _living_process(self) -> BlenderProcess:
        if self._process is None:
            process = BlenderProcess(self._threads, self._settings.device)
            if process.hello.error:
                process.close()
                raise BlenderEnded("Unavailable", process.hello.error, None)
            shutil.rmtree(self._folder, ignore_errors=True)  # what a killed predecessor left
            self._folder.mkdir()
            self._process = process
        return self._process
