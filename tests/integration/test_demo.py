"""The demo passes signals on to its steps, and reports the step that failed."""

import os
import signal
import subprocess
import sys
import time

from examples.demo import run_child
from tests.support.paths import ROOT

CHILD = """
import pathlib, signal, sys, time
def end(*_): pathlib.Path(sys.argv[1], "ended").touch(); sys.exit(130)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "begun").touch()
time.sleep(60)
"""
PARENT = """
import sys
from dataset.errors import run_cli
from examples.demo import run_child
run_cli(lambda: run_child((sys.executable, "-c", sys.argv[1], sys.argv[2])))
"""


def test_a_status_comes_back():
    assert run_child((sys.executable, "-c", "raise SystemExit(3)")) == 3


def test_sigterm_to_the_demo_alone_ends_the_step_too(tmp_path):
    command = (sys.executable, "-c", PARENT, CHILD, str(tmp_path))
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as parent:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.02)
        os.kill(parent.pid, signal.SIGTERM)
        _, told = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert "run the same command again to resume" in told
    assert (tmp_path / "ended").exists()
