"""Rehearse the whole path with random weights: `python -m benchmarks.rehearsal`, minutes on one GPU.

A checkpoint in the official layout is written, converted, and used to encode a few synthetic objects; both stages train
for a few steps; views are sampled, and one image is distilled into a GLB. All networks have the paper's sizes. Each
step is a command line that a user could type. The command prints a table of seconds and peak memory per step; the last
line is JSON. If a step fails, the command fails and shows the last lines of the step's log.

The first two steps run at the same time. Meanwhile, another process imports the modules of the later steps, which then
are forks of this process (`benchmarks.rehearsal.fork_server`). Each line of a step's log begins with the seconds since
the start of the step.

`--size toy` does the same with small networks on a CPU, to check the script.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final, get_args

from benchmarks.rehearsal.fork_server import ForkServer
from benchmarks.rehearsal.memory import GpuMemory, first_gpu
from benchmarks.rehearsal.plan import SIZES, SizeName, plan
from benchmarks.rehearsal.runner import StepCost, StepFailed, remove, run_steps, table
from benchmarks.rehearsal.step_process import environment_of
from dataset.errors import UserError, run_cli

MARKER: Final = "rehearsal.json"  # marks the work folder, whose contents the next rehearsal may remove
# The modules that take long to import. torch._inductor starts its processes only when it compiles.
IMPORTS: Final = (
    *("train.launch", "torch.utils.tensorboard", "open_clip", "distill.runs.job"),
    *("diffusers.models.autoencoders.autoencoder_kl", "diffusers.models.unets.unet_2d_condition"),
)
COMPILER_IMPORTS: Final = ("torch._inductor.compile_fx",)
COMPILE: Final = ("auto", "none", "blocks", "whole")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a rehearsal.

    Raises:
        UserError: An option is invalid, the work folder cannot be used, or a step failed.
    """
    options = parse(sys.argv[1:] if arguments is None else arguments)
    gpu = None if options.device == "cpu" else first_gpu()
    _check_device(options.size, options.device, gpu)
    _empty_folder(options.out, SIZES[options.size].disk_gb)
    compile_unet = options.compile or SIZES[options.size].compile_unet
    steps = plan(options.size, options.out.resolve(), device=options.device, compile_unet=compile_unet)
    costs: list[StepCost] = []
    failed: str | None = None
    logs, start = options.out / "logs", time.monotonic()
    try:
        with gpu or nullcontext(), _fork_server(options, gpu, compile_unet) as fork_server:
            for cost in run_steps(steps, logs, gpu=gpu, keep=options.keep, fork_server=fork_server):
                costs.append(cost)
    except StepFailed as error:
        failed = error.step
        raise
    finally:
        elapsed_s = time.monotonic() - start
        line = {
            "size": options.size,
            "device": "cpu" if gpu is None else gpu.name,
            "compile": compile_unet,
            "failed": failed,
            "finished": len(costs) == len(steps),
            "minutes": round(elapsed_s / 60, 2),
            "steps": [asdict(cost) for cost in costs],
        }
        print(f"\n{table(costs, elapsed_s)}\n\n{json.dumps(line)}", flush=True)
        (options.out / MARKER).write_text(json.dumps(line, indent=2) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line, without the program's name. Raises SystemExit after --help and on malformed options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--size",
        choices=get_args(SizeName),
        default="paper",
        help="size of networks and images. paper: needs a GPU. toy: small, also on a CPU (default: paper)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/rehearsal"),
        help="work folder. It must be new, empty, or from an earlier rehearsal, whose files are removed "
        "(default: data/rehearsal)",
    )
    parser.add_argument("--keep", action="store_true", help="keep all files, also those that no later step needs")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device of all steps (default: auto)"
    )
    parser.add_argument(
        "--compile",
        choices=COMPILE,
        default=None,
        help="how both training stages compile the UNet. blocks: starts sooner than whole. auto: as in training "
        "(default: blocks; none with --size toy)",
    )
    parser.add_argument(
        "--separate-processes",
        action="store_true",
        help="start each step as a new Python process, which imports all modules again (default: steps are forks of a "
        "process that has imported them)",
    )
    return parser.parse_args(arguments)


def _fork_server(
    options: argparse.Namespace, gpu: GpuMemory | None, compile_unet: str
) -> AbstractContextManager[ForkServer | None]:
    if options.separate_processes:
        return nullcontext()
    modules = [*IMPORTS, *(COMPILER_IMPORTS if compile_unet != "none" else ())]
    return ForkServer(modules, options.out / "logs" / "imports.log", environment_of(gpu))


def _check_device(size: SizeName, device: str, gpu: GpuMemory | None) -> None:
    if gpu is None and device == "cuda":
        raise UserError("--device cuda: nvidia-smi finds no GPU; use --device cpu with --size toy")
    if gpu is None and size == "paper":
        raise UserError(
            "--size paper needs a GPU, but nvidia-smi finds none (or --device is cpu); use --size toy, which runs on "
            "a CPU"
        )


def _empty_folder(folder: Path, disk_gb: float) -> None:
    """Create the work folder, or remove the files of an earlier rehearsal from it."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file; give a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UserError(f"--out {folder} is not empty and not the folder of a rehearsal; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        remove(path)
    (folder / MARKER).write_text("{}\n")
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < disk_gb:
        raise UserError(
            f"--out {folder}: the disk has {free_gb:.0f} GB free, but the rehearsal needs {disk_gb:g} GB; free some "
            "space, or give a folder on another disk"
        )


if __name__ == "__main__":
    run_cli(main)
