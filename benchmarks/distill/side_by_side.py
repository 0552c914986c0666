"""Measure how much two distillations on one machine slow each other: `python -m benchmarks.distill.side_by_side`.

Times one run of `python -m distill` alone, then two at once, on the same image with the same seed. On the same cores,
two runs that share them fairly take twice as long as one. Also reported are the CPU seconds of each run, which hardly
depend on other work on the machine, and whether all meshes are byte-identical. The last line is JSON.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError, run_cli
from dataset.io.paths import ROOT

VARIABLES: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class TimedRun:
    """One finished distillation."""

    wall_s: float
    cpu_s: float  # of all threads, and of the processes it started
    mesh_sha256: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Raises UserError when a distillation fails."""
    options = _options(arguments)
    environment = child_environment(os.environ, options.spin_count, options.threads)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        command = [sys.executable, "-m", "distill", "--image", str(options.image), "--steps", str(options.steps)]
        command += ["--device", "cpu", "--out"]
        [alone] = run_at_once(command, [Path(folder) / "alone"], environment)
        print(f"alone: {alone.wall_s:.1f} s, {alone.cpu_s:.1f} s of CPU time", flush=True)
        both = run_at_once(command, [Path(folder) / name for name in ("first", "second")], environment)
    for run in both:
        print(f"side by side: {run.wall_s:.1f} s, {run.cpu_s:.1f} s of CPU time")
    line = {name: environment[name] for name in VARIABLES if name in environment}
    print(json.dumps(summary(alone, both) | {"steps": options.steps, "load_before": load, "environment": line}))
    return 0


def child_environment(ours: Mapping[str, str], spin_count: int | None, threads: int | None) -> dict[str, str]:
    """Return the environment of the runs: without OpenMP's variables, except those that the options set."""
    environment = {name: value for name, value in ours.items() if name not in VARIABLES}
    if spin_count is not None:
        environment["GOMP_SPINCOUNT"] = str(spin_count)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def run_at_once(command: Sequence[str], outs: Sequence[Path], environment: Mapping[str, str]) -> list[TimedRun]:
    """Start one process per output folder and wait for all. Raises UserError when one fails."""
    started = time.perf_counter()
    running: dict[int, tuple[Path, subprocess.Popen[bytes]]] = {}
    for out in outs:
        log = out.with_suffix(".log").open("wb")
        process = subprocess.Popen([*command, str(out)], cwd=ROOT, env=environment, stdout=log, stderr=log)
        log.close()
        running[process.pid] = out, process
    finished: dict[Path, TimedRun] = {}
    while running:
        pid, status, usage = os.wait3(0)
        out, process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            reason = out.with_suffix(".log").read_text(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{' '.join(command)} {out} failed: {' '.join(reason)}")
        digest = hashlib.sha256((out / "mesh.glb").read_bytes()).hexdigest()
        finished[out] = TimedRun(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, digest)
    return [finished[out] for out in outs]


def summary(alone: TimedRun, both: Sequence[TimedRun]) -> dict[str, Any]:
    """Return the numbers of the last line."""
    return {
        "alone_s": round(alone.wall_s, 1),
        "side_by_side_s": [round(run.wall_s, 1) for run in both],
        "slowdown": round(max(run.wall_s for run in both) / alone.wall_s, 2),
        "cpu_alone_s": round(alone.cpu_s, 1),
        "cpu_side_by_side_s": [round(run.cpu_s, 1) for run in both],
        "same_mesh": len({alone.mesh_sha256, *(run.mesh_sha256 for run in both)}) == 1,
        "mesh_sha256": alone.mesh_sha256,
        "cores": os.cpu_count(),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, default=Path("examples/cat.png"), help="image to distill")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run")
    parser.add_argument(
        "--spin-count", type=int, help="let OpenMP threads spin (GNU's default is 300000) instead of sleeping"
    )
    parser.add_argument("--threads", type=int, help="OpenMP threads of each run (default: one per core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_cli(main)
