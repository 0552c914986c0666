"""The benchmark of two simultaneous runs, with a stub for the run."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.distill.side_by_side import TimedRun, child_environment, command_of, run_at_once, summary
from dataset.errors import UserError
from tests.support.paths import ROOT

STUB = "import sys, pathlib; out = pathlib.Path(sys.argv[1]); out.mkdir(); (out / 'mesh.glb').write_bytes(b'glb')"


def test_runs_start_at_once_and_are_timed(tmp_path: Path) -> None:
    wait = "import time; time.sleep(0.5); " + STUB
    runs = run_at_once([sys.executable, "-c", wait], [tmp_path / "a", tmp_path / "b"], "mesh.glb", {})
    assert all(run.wall_s >= 0.5 and run.cpu_s > 0 for run in runs)
    assert runs[0].sha256 == runs[1].sha256


def test_a_failed_run_is_reported_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model"):
        run_at_once([sys.executable, "-c", "raise SystemExit('no such model')"], [tmp_path / "a"], "mesh.glb", {})


def test_the_slowdown_is_that_of_the_slower_run() -> None:
    line = summary(TimedRun(10, 18, "x"), [TimedRun(21, 18, "x"), TimedRun(23, 19, "x")])
    assert (line["slowdown"], line["same_result"]) == (2.3, True)
    assert not summary(TimedRun(10, 18, "x"), [TimedRun(21, 18, "x"), TimedRun(23, 19, "y")])["same_result"]


def test_only_the_options_decide_how_threads_wait() -> None:
    ours = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "ACTIVE"}
    assert child_environment(ours, None, None) == {"PATH": "/bin"}
    assert child_environment(ours, 5, 2) == {"PATH": "/bin", "GOMP_SPINCOUNT": "5", "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("what", ["distill", "train"])
def test_the_commands_are_complete(what: str, tmp_path: Path) -> None:
    command = command_of(Namespace(what=what, image=Path("examples/cat.png"), steps=2), tmp_path)
    done = subprocess.run([*command, str(tmp_path / "out"), "--dry-run"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
