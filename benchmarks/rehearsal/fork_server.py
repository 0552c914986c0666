"""Start Python commands as forks of one process that has already imported their modules, which takes seconds a command.

The server is `python -m benchmarks.rehearsal.fork_server`, a child process of the rehearsal. For each request it forks;
the fork runs a module as `__main__`, like `python -m`, and ends like any Python process: with its exit handlers, and
with the interpreter's messages and exit status.

A fork inherits no threads and cannot use CUDA if the server has initialized CUDA. The server therefore only imports.
(OpenBLAS, which numpy loads, stops its own threads before a fork.) diffusers asks during its import whether there is a
GPU; with PYTORCH_NVML_BASED_CUDA_CHECK, torch answers without initializing CUDA. If CUDA was initialized all the same,
the fork becomes a new Python process.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.rehearsal.timed_log import TimedLog
from dataset.io.paths import ROOT

CUDA_CHECK: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
POLL_S: Final = 0.05  # between two checks of the server for forks that ended
STOP_S: Final = 10.0
_READY: Final = b"ready\n"
_REQUEST_BYTES: Final = 2**16


class ForkedProcess:
    """A command that the server started. The methods are those of `subprocess.Popen`."""

    def __init__(self, replies: int) -> None:
        self._replies = os.fdopen(replies, "rb", buffering=0)
        self._status: int | None = None
        self.pid = self._read_number() or 0
        if not self.pid:
            self._end(-signal.SIGKILL)  # the server was killed

    def poll(self) -> int | None:
        """Return the exit status, or the negative number of the signal that killed the process; None if it runs."""
        if self._status is None and select.select([self._replies], [], [], 0)[0]:
            status = self._read_number()
            if status is None:  # the server was killed
                self.kill()
            self._end(-signal.SIGKILL if status is None else status)
        return self._status

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _end(self, status: int) -> None:
        self._status = status
        self._replies.close()

    def _read_number(self) -> int | None:
        line = self._replies.readline()
        return int(line) if line.endswith(b"\n") else None


class ForkServer:
    """Process that imports modules once, and forks for each command. It ends with the `with` block.

    Args:
        modules: Names of the modules to import. The commands' own modules must not be among them.
        log: File for the output of the imports, whose folder is created.
        environment: Environment variables to set in the server and in all commands.
    """

    def __init__(self, modules: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._connection, other = socket.socketpair()
        self._ready = False
        command = [sys.executable, "-m", "benchmarks.rehearsal.fork_server", str(other.fileno()), *modules]
        self._log = TimedLog(log)
        with self._log.opened() as output, other:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, CUDA_CHECK: "1", **environment},
                stdout=output,  # a pipe like that of the forks, which inherit the objects sys.stdout and sys.stderr
                stderr=subprocess.STDOUT,
                pass_fds=[other.fileno()],
            )

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # upon which the server terminates its forks and ends
        if not self._ready:
            self._process.terminate()  # it may still import
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.finish()

    def is_ready(self) -> bool:
        """Wait for the imports, and return whether the server can start commands. False: it has ended."""
        if not self._ready:
            with suppress(ConnectionError):
                self._ready = self._connection.recv(len(_READY)) == _READY
        return self._ready and self._process.poll() is None

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> ForkedProcess:
        """Start a command.

        Args:
            arguments: What follows `python -m`: the name of a module and its arguments.
            environment: Environment variables to set.
            output: File descriptor for stdout and stderr.
        """
        replies, write_end = os.pipe()
        request = json.dumps([list(arguments), dict(environment)]).encode() + b"\n"
        try:
            with suppress(ConnectionError):  # the server has ended; no process id will be read
                socket.send_fds(self._connection, [request], [output, write_end])
        finally:
            os.close(write_end)
        return ForkedProcess(replies)


def main() -> None:
    """Import the modules that the command line names, then fork for each request, and run the request in the fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # after Ctrl-C, the rehearsal closes the connection
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()  # the forks' garbage collections then leave the imported modules alone, in memory that they share
    print(f"imported {len(sys.modules)} modules", flush=True)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.sendall(_READY)
        request = _serve(connection)
    if request is not None:
        _run(*request)


def _serve(connection: socket.socket) -> tuple[list[str], dict[str, str]] | None:
    """Fork for each request. Return the request in the fork; return None in the server, when the connection closes."""
    running: dict[int, int] = {}  # process id -> file descriptor for the exit status
    while True:
        _report_ended(running)
        if not select.select([connection], [], [], POLL_S if running else None)[0]:
            continue
        request, (output, replies) = _receive(connection)
        if request is None:
            for pid in running:
                os.kill(pid, signal.SIGTERM)
            return None
        pid = os.fork()
        if not pid:
            for descriptor in (1, 2):
                os.dup2(output, descriptor)
            for descriptor in (output, replies, *running.values()):
                os.close(descriptor)
            return request
        os.close(output)
        _tell(replies, pid)
        running[pid] = replies


def _receive(connection: socket.socket) -> tuple[tuple[list[str], dict[str, str]] | None, tuple[int, int]]:
    """Return a request and its two file descriptors. The request is None if the connection is closed."""
    data, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 2)
    while data and not data.endswith(b"\n"):
        if not (more := connection.recv(_REQUEST_BYTES)):
            return None, (-1, -1)
        data += more
    if not data:
        return None, (-1, -1)
    arguments, environment = json.loads(data)
    return (arguments, environment), (descriptors[0], descriptors[1])


def _report_ended(running: dict[int, int]) -> None:
    """Write the exit statuses of the forks that have ended, and remove these from `running`."""
    for pid, replies in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _tell(replies, os.waitstatus_to_exitcode(status))
            os.close(replies)
            del running[pid]


def _tell(replies: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the rehearsal has ended
        os.write(replies, f"{number}\n".encode())


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    """Run a module as `__main__`, in the fork."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop(CUDA_CHECK)
    os.environ.update(environment)
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda._is_in_bad_fork():
        os.execv(sys.executable, [sys.executable, "-m", *arguments])
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
