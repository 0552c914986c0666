"""Start a Blender process, send it jobs, and enforce its time and memory limits. Does not import Blender."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.compile_cache import CUDA, OPTIX, gpu_kernel_folders
from dataset.format.outcomes import Failure
from dataset.io.paths import ROOT
from render.settings import Device
from render.workers.protocol import Hello, RenderJob, Reply, parse_hello, parse_reply, to_line

# A GPU's kernels are built at first use.
START_S: Final[dict[Device, float]] = {"cpu": 120.0, "gpu": 900.0, "auto": 900.0}
STDERR_TAIL: Final = 2000  # bytes
_POLL_S: Final = 0.2
_CLOSE_S: Final = 10.0
_RESET_PEAK: Final = "5"  # proc(5), clear_refs: forget the peak of resident memory


def environment(threads: int, device: Device) -> dict[str, str]:
    """Return the environment variables of a Blender process that differ from those of this process.

    Blender's importers iterate over sets, so the hash seed is fixed. numpy's OpenBLAS would start a thread per CPU, and
    idle threads of OpenBLAS busy-wait: 0.17 s of CPU time per procedural object, measured on 2 cores (docs/LOG.md).
    The kernels of a GPU are kept in the folders of `gpu_kernel_folders`, which are created.
    """
    kernels = {} if device == "cpu" else gpu_kernel_folders()
    for folder in (kernels[name] for name in (CUDA, OPTIX) if name in kernels):
        with suppress(OSError):  # the driver then keeps no kernels
            os.makedirs(folder, exist_ok=True)
    return {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": str(threads), **kernels}


class BlenderEnded(Exception):
    """Blender died or was killed. `failure.error_class` is Crash, Timeout, MemoryLimit or Unavailable."""

    def __init__(self, error_class: str, message: str, exit_signal: int | None) -> None:
        super().__init__(message)
        self.failure, self.exit_signal = Failure("worker", error_class, message), exit_signal


@dataclass(frozen=True)
class Limits:
    """Limits of a Blender process.

    `timeout_s` and `memory_mb` (resident memory) are limits per object; a process that exceeds one is killed. After
    `recycle_after` objects, or above `recycle_rss_mb` MB of memory, the process is replaced before the next object.
    """

    timeout_s: float = 600.0
    memory_mb: float | None = None
    recycle_after: int = 200
    recycle_rss_mb: float = 2048.0


class BlenderProcess:
    """A Blender child process that renders on `device` with `threads` CPU threads.

    The constructor starts the process and waits for its first message, the Hello. It raises BlenderEnded on failure.
    """

    def __init__(self, threads: int, device: Device) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        command = [sys.executable, "-m", "render.blender", str(os.getpid()), str(threads), device]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment(threads, device)},
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
        self.pid, self.jobs, self.peak_rss_mb, self.rss_mb = self._process.pid, 0, 0.0, 0.0
        try:
            self.hello: Hello = parse_hello(self._read_line(START_S[device], None))
        except BlenderEnded as error:
            message = f"Blender did not start: {error}: {self.stderr_tail()}"
            self.close()
            raise BlenderEnded(error.failure.error_class, message, error.exit_signal) from error

    def render(self, job: RenderJob, limits: Limits) -> Reply:
        """Render one object within the time and memory limits.

        Raises BlenderEnded when the process sends no reply. Then only `stderr_tail` and `close` may be called.
        """
        self.jobs += 1
        self._forget_last_job()
        with suppress(BrokenPipeError):  # then reading finds the end of the replies
            self._stdin.write(to_line(job))
        return parse_reply(self._read_line(limits.timeout_s, limits.memory_mb))

    def should_recycle(self, limits: Limits) -> bool:
        """Return whether the process has rendered so many objects or uses so much memory that it should be replaced."""
        return self.jobs >= limits.recycle_after or self.rss_mb > limits.recycle_rss_mb

    def stderr_tail(self) -> str:
        """Return the text in stderr since the latest job began, at most its final STDERR_TAIL bytes."""
        descriptor = self._stderr.fileno()
        start = max(0, os.fstat(descriptor).st_size - STDERR_TAIL)
        return os.pread(descriptor, STDERR_TAIL, start).decode(errors="replace").strip()

    def close(self) -> None:
        """Close the stdin of the process and wait for the process to exit. Kill it if it does not exit."""
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
        """Read the next line. Raises BlenderEnded, with the process dead, when there is none."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._killed("Timeout", f"Blender sent no answer within {timeout_s:g} s and was killed")
            readable, _, _ = select.select([self._replies], [], [], min(remaining, _POLL_S))
            rss_mb = self._measure()
            if memory_mb is not None and rss_mb > memory_mb:
                raise self._killed(
                    "MemoryLimit",
                    f"Blender used {rss_mb:.0f} MB of memory and was killed; the limit is {memory_mb:.0f} MB "
                    "(--memory-limit-mb)",
                )
            if readable:
                chunk = os.read(self._replies.fileno(), 65536)
                if not chunk:
                    raise self._crashed()
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _measure(self) -> float:
        """Return the current resident memory in MB and update the peak. Without /proc, return the last known value."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            kilobytes = {
                n: float(v.split()[0]) for n, _, v in (r.partition(":") for r in status.splitlines()) if n[:2] == "Vm"
            }
            self.peak_rss_mb = max(self.peak_rss_mb, kilobytes.get("VmHWM", 0.0) / 1024)
            self.rss_mb = kilobytes.get("VmRSS", 0.0) / 1024
        return self.rss_mb

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _killed(self, error_class: str, message: str) -> BlenderEnded:
        self._kill()
        return BlenderEnded(error_class, message, int(signal.SIGKILL))

    def _crashed(self) -> BlenderEnded:
        try:
            code = self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            return self._killed("Crash", "Blender closed its reply pipe but kept running")
        if code < 0:
            return BlenderEnded("Crash", f"Blender was ended by {signal.Signals(-code).name}", -code)
        return BlenderEnded("Crash", f"Blender ended with exit status {code}", None)
