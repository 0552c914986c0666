"""Start the app in a process of its own, for tests that send it requests or open it in a browser."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

NEEDS_GRADIO: Final = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed (make app installs it)"
)
_START_S: Final = 120.0


@dataclass(frozen=True)
class RunningApp:
    """An app that is being served."""

    address: str
    out: Path
    process: subprocess.Popen[str]
    lines: list[str]
    """What the app printed."""


@contextmanager
def running_app(out: Path, *options: str) -> Iterator[RunningApp]:
    """Serve the app on the CPU with the output folder `out`; at the end it is stopped as by Ctrl-C."""
    command = [sys.executable, "-m", "distill.app", "--out", str(out), "--port", "0", "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        watchdog = threading.Timer(_START_S, process.kill)
        watchdog.start()
        for line in process.stdout:
            lines.append(line)
            if line.startswith("http://"):
                break
        watchdog.cancel()
        assert lines, "the app printed nothing"
        assert lines[-1].startswith("http://"), "".join(lines)
        reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            yield RunningApp(lines[-1].split()[0], out, process, lines)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(10)
