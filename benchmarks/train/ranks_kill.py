"""Kill one of the training processes and resume: `python -m benchmarks.train.ranks_kill SHARDS --launcher torchrun`.

Stage 2 trains once without interruption, and at the same time in a second folder, where one process is killed with
SIGKILL. With torchrun, the command must end; repeating it resumes. With ray, the command itself restarts the processes.
Reported are the seconds from the kill to the end of the command, or to the next step, and whether losses and weights
are those of the run without interruption. The last line is JSON. Takes one to two minutes on two GPUs.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file

from benchmarks.options import add_device
from dataset.errors import UserError, run_cli
from dataset.io.paths import ROOT

LIMIT_S: Final = 240.0
_STEP: Final = re.compile(r"^(?:.*pid=.* )?step (\d+)/\d+ .* loss (\S+)", re.MULTILINE)  # Ray names the process


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, killed = (Command(options, folder / each) for each in ("whole", "killed"))
        try:
            line = _measure(options, whole, killed)
        finally:
            for command in (whole, killed):
                command.end()
    print(json.dumps(line))
    return 0


def _measure(options: argparse.Namespace, whole: "Command", killed: "Command") -> dict[str, object]:
    killed.wait_for(lambda: killed.last_step() >= options.steps // 2 + 2, "reach the step of the kill")
    before, length, earlier = killed.last_step(), len(killed.text()), dict(killed.steps())
    print(f"killing a process after step {before}", flush=True)
    os.kill(killed.last_process(), signal.SIGKILL)
    at = time.monotonic()
    if options.launcher == "torchrun":
        killed.wait_for(lambda: killed.process.poll() is not None, "end after the kill")
        ended_s, code = time.monotonic() - at, killed.process.returncode
        message = [line for line in killed.text()[length:].splitlines() if line.strip() and "/s" not in line]
        print(f"ended after {ended_s:.1f} s with status {code}:", *message, sep="\n", flush=True)
        length = len(killed.text())
        killed.start()
        killed.wait_for(lambda: killed.process.poll() is not None, "finish")
    else:
        killed.wait_for(lambda: killed.restarted_at() is not None, "restart after the kill")
        ended_s, code = time.monotonic() - at, None
        print(f"the next step was done after {ended_s:.1f} s", flush=True)
        killed.wait_for(lambda: killed.process.poll() is not None, "finish")
    whole.wait_for(lambda: whole.process.poll() is not None, "finish")
    first = killed.restarted_at() or killed.steps(length)[0][0]
    expected, resumed = dict(whole.steps()), dict(killed.steps())
    return {
        "launcher": options.launcher,
        "parallel": options.parallel,
        "world": options.world,
        "killed_after_step": before,
        "seconds": round(ended_s, 1),
        "exit_status_after_kill": code,
        "exit_status": [whole.process.returncode, killed.process.returncode],
        "first_step_after_restart": first,
        "loss_difference_before_kill": max(abs(expected[n] - earlier[n]) for n in earlier if n <= before),
        "loss_difference_after_restart": max(abs(expected[n] - resumed[n]) for n in expected if n >= first),
        "largest_weight_difference": _weight_difference(whole.out, killed.out),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path, help="shard set or latent set with at least two objects per process")
    parser.add_argument("--model", type=Path, default=Path("weights/tiny"), help="model folder to start from")
    parser.add_argument("--steps", type=int, default=120, help="number of steps; the kill comes at half of them")
    parser.add_argument("--launcher", choices=("torchrun", "ray"), default="torchrun", help="what starts the processes")
    parser.add_argument("--world", type=int, default=2, help="number of processes, from 2")
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp", help="how the processes share the model")
    add_device(parser)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.world < 2:
        parser.error(f"--world is {options.world}; give a number from 2 on")
    return options


class Command:
    """A training command of several processes that writes into the folder `out`, and its output."""

    def __init__(self, options: argparse.Namespace, out: Path) -> None:
        self._options, self.out, self._log = options, out, out.with_suffix(".log")
        self.start()

    def start(self) -> None:
        """Start the command. Its output is appended to that of earlier starts."""
        options = self._options
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={options.world}", "-m", "train"]
        words = [
            *(torchrun if options.launcher == "torchrun" else ["train"]),
            *("stage2", f"--shards={options.shards.resolve()}", f"--init-from={options.model.resolve()}"),
            *(
                f"--out={self.out}",
                f"--steps={options.steps}",
                f"--batch-size={2 * options.world}",
                f"--parallel={options.parallel}",
                f"--checkpoint-every={max(1, options.steps // 6)}",
            ),
            *("--log-every=1", "--validation=off", "--compile=none", f"--device={options.device}"),
            *([f"--workers={options.world}"] if options.launcher == "ray" else []),
        ]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def steps(self, start: int = 0) -> list[tuple[int, float]]:
        """Return number and loss of each step in the output from character `start` on, in the order of the output."""
        return [(int(number), float(loss)) for number, loss in _STEP.findall(self.text()[start:])]

    def restarted_at(self) -> int | None:
        """Return the first step after a restart; None before that."""
        return next((number for (past, _), (number, _) in pairwise(self.steps()) if number <= past), None)

    def last_step(self) -> int:
        return max((number for number, _ in self.steps()), default=0)

    def wait_for(self, done: Callable[[], bool], what: str) -> None:
        """Wait until `done()` is true. Raise UserError when this takes longer than LIMIT_S, or the command failed."""
        deadline = time.monotonic() + LIMIT_S
        while not done():
            if time.monotonic() > deadline or self.process.poll() not in (None, 0):
                raise UserError(
                    f"{self.out.name}: the run did not {what}; its output ends with:\n{self.text()[-3000:]}"
                )
            time.sleep(0.02)

    def last_process(self) -> int:
        """Return the process id of the last rank; with Ray, of the training process that started last."""
        processes = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
        ours = [process for process in processes if self.process.pid in _ancestors(process)]
        orders = {int(process.name): order for process in ours if (order := _order(process)) is not None}
        if len(orders) != self._options.world:
            raise UserError(f"{self.out.name}: found {len(orders)} training processes instead of {self._options.world}")
        return max(orders, key=lambda number: orders[number])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def _order(process: Path) -> int | None:
    """Return the rank of a process of torchrun, the process id of a worker of Ray Train, or None for other processes.

    Ray Train sets RANK after the start of a process, which /proc does not show.
    """
    if b"RayTrainWorker" in _read(process / "cmdline"):
        return int(process.name)
    found = re.search(rb"\0RANK=(\d+)\0", _read(process / "environ"))
    return None if found is None else int(found[1])


def _ancestors(process: Path) -> list[int]:
    parents = []
    while fields := _read(process / "stat").rpartition(b")")[2].split():
        parents.append(int(fields[1]))
        process = Path("/proc") / str(parents[-1])
    return parents


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended meanwhile
        return b""


def _weight_difference(first: Path, second: Path) -> float:
    name = "unet/diffusion_pytorch_model.safetensors"
    one, two = load_file(first / name), load_file(second / name)
    return max(float((one[key] - two[key]).abs().max()) for key in one)


if __name__ == "__main__":
    run_cli(main)
