"""Measure how several distillations scale with GPUs: `python -m benchmarks.distill.distill_workers --workers 1 2 16`.

For each number of workers, `python -m distill` runs `--rounds` runs per worker of the bundled model, each with another
seed, into a new folder. More workers than GPUs share the GPUs. The times contain everything: the start of the processes
and of Ray, loading the model, compiling kernels, mesh, texture and videos. The last line is JSON. Takes minutes on two
GPUs; `--device cpu --steps 5` checks the script.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.options import add_device
from dataset.errors import UserError, run_cli
from dataset.io.paths import ROOT


@dataclass(frozen=True)
class WorkersSpeed:
    """Measurements of one number of workers."""

    runs: int
    seconds: float  # of the whole command
    run_seconds: list[float]  # of each run in its worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Distill with each number of workers, and print the measurements."""
    options = _options(arguments)
    measured = {}
    with tempfile.TemporaryDirectory(prefix="distill-workers-") as folder:
        for workers in options.workers:
            measured[workers] = measure(options, workers, Path(folder) / str(workers))
            result = measured[workers]
            print(f"{workers} workers: {result.runs} runs in {result.seconds:.1f} s", flush=True)
    line = {
        "runs": {workers: result.runs for workers, result in measured.items()},
        "seconds": {workers: round(result.seconds, 1) for workers, result in measured.items()},
        "assets_per_minute": {
            workers: round(60 * result.runs / result.seconds, 2) for workers, result in measured.items()
        },
        "run_seconds": {
            workers: [round(seconds, 1) for seconds in sorted(result.run_seconds)]
            for workers, result in measured.items()
        },
        "gpus": torch.cuda.device_count() if options.device == "cuda" else 0,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 16], help="numbers of workers to measure")
    parser.add_argument("--rounds", type=int, default=2, help="number of runs per worker")
    parser.add_argument("--image", type=Path, default=ROOT / "examples" / "cat.png", help="image of all runs")
    parser.add_argument("--steps", type=int, default=None, help="steps of a run (default: as `python -m distill`)")
    add_device(parser)
    return parser.parse_args(sys.argv[1:] if arguments is None else arguments)


def measure(options: argparse.Namespace, workers: int, out: Path) -> WorkersSpeed:
    """Run the command with `workers` workers. Raises UserError when a run fails."""
    runs = workers * options.rounds
    words = ["--image", str(options.image), "--num-seeds", str(runs), "--workers", str(workers), "--out", str(out)]
    words += [] if options.steps is None else ["--steps", str(options.steps)]
    command = [sys.executable, "-m", "distill", *words, "--device", options.device, "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    outcomes = json.loads(done.stdout.splitlines()[-1])["runs"]
    return WorkersSpeed(runs, seconds, [outcome["seconds"] for outcome in outcomes])


if __name__ == "__main__":
    run_cli(main)
