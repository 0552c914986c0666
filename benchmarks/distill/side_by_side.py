"""Measure how much two runs on one machine slow each other: `python -m benchmarks.distill.side_by_side`.

The benchmark times one run alone, then two at once, with the same input and seed: of `python -m distill` on an image,
or, with `--what train`, of stage 1 from the bundled model on a set of made-up objects. Two runs that share the cores
fairly take twice as long as one. The benchmark also reports the CPU seconds of each run, since these hardly depend on
other work on the machine, and whether the results of all runs are byte-identical. The last line is JSON.
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

RESULTS: Final = {"distill": "mesh.glb", "train": "unet/diffusion_pytorch_model.safetensors"}
VARIABLES: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class TimedRun:
    """One finished run."""

    wall_s: float
    cpu_s: float  # of all threads, and of the processes it started
    sha256: str  # of its result, the mesh or the weights of the UNet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Raises UserError when a run fails."""
    options = _options(arguments)
    environment = child_environment(os.environ, options.spin_count, options.threads)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        command, result = command_of(options, Path(folder)), RESULTS[options.what]
        [alone] = run_at_once(command, [Path(folder) / "alone"], result, environment)
        print(f"alone: {alone.wall_s:.1f} s, {alone.cpu_s:.1f} s of CPU time", flush=True)
        both = run_at_once(command, [Path(folder) / name for name in ("first", "second")], result, environment)
    for run in both:
        print(f"side by side: {run.wall_s:.1f} s, {run.cpu_s:.1f} s of CPU time")
    line = {name: environment[name] for name in VARIABLES if name in environment}
    print(
        json.dumps(
            summary(alone, both)
            | {"what": options.what, "steps": options.steps, "load_before": load, "environment": line}
        )
    )
    return 0


def command_of(options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the command line of a run, to which its output folder is to be added. Create its data in `folder`."""
    if options.what == "distill":
        task = ["distill", "--image", str(options.image)]
    else:
        from tests.support.make_shards import make_shard_set

        shards = make_shard_set(folder / "shards", num_objects=8, resolution=64)
        task = ["train", "stage1", "--shards", str(shards), "--init-from", "weights/tiny"]
    return [sys.executable, "-m", *task, "--steps", str(options.steps), "--device", "cpu", "--out"]


def child_environment(ours: Mapping[str, str], spin_count: int | None, threads: int | None) -> dict[str, str]:
    """Return the environment of the runs: without OpenMP's variables, except those that the options set."""
    environment = {name: value for name, value in ours.items() if name not in VARIABLES}
    if spin_count is not None:
        environment["GOMP_SPINCOUNT"] = str(spin_count)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def run_at_once(
    command: Sequence[str], outs: Sequence[Path], result: str, environment: Mapping[str, str]
) -> list[TimedRun]:
    """Start one process per output folder and wait for all, which write the file `result` there.

    Raises UserError when one fails.
    """
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
        digest = hashlib.sha256((out / result).read_bytes()).hexdigest()
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
        "same_result": len({alone.sha256, *(run.sha256 for run in both)}) == 1,
        "sha256": alone.sha256,
        "cores": os.cpu_count(),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=tuple(RESULTS), default="distill", help="command to run")
    parser.add_argument("--image", type=Path, default=Path("examples/cat.png"), help="image to distill")
    parser.add_argument("--steps", type=int, default=60, help="number of steps of each run")
    parser.add_argument(
        "--spin-count", type=int, help="let OpenMP threads spin (GNU's default is 300000) instead of sleeping"
    )
    parser.add_argument("--threads", type=int, help="number of OpenMP threads of each run (default: one per core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_cli(main)
